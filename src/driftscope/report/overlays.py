"""Attention maps made small enough to travel inside a page.

Each map is stored as 8-bit shares of its own maximum and the maximum as a 32-bit float; images
are PNG or, when large, JPEG. Equal images and equal pretrained maps are stored once.
"""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from driftscope.analysis import grouping
from driftscope.analysis.words import rate_text, seed_text
from driftscope.errors import NoteWarning, RecordError
from driftscope.metrics import METRICS
from driftscope.records import ATTENTION_FILE, Overlay, RunRecord, load_overlay
from driftscope.report.attention_figures import attention_figure
from driftscope.report.page import png_uri, script_json

MAX_IMAGES = 8
_PNG_UP_TO = 96
_LARGEST_SIDE = 224
_ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class NamedOverlay:
    """An overlay and what the page calls it.

    The viewer starts with two of the same `pair` side by side, if there are two. What is not
    `listed` is shown on its run's own page only.
    """

    label: str
    column: str
    pair: str
    overlay: Overlay
    run_id: str = ""
    listed: bool = True


def overlay_payload(
    named: Iterable[NamedOverlay], *, budget_bytes: int = 6_000_000
) -> dict[str, Any]:
    """What the page's viewers read: images, maps, runs, colours; all plain JSON.

    Listed overlays past the byte budget are left out, and `num_left_out` counts them; after them
    no unlisted one is read that does not fit.
    """
    images: dict[str, list[str]] = {}
    maps: dict[str, dict[str, Any]] = {}
    runs: list[dict[str, Any]] = []
    used = num_left_out = 0
    for item in named:
        overlay = item.overlay
        pictures = overlay.images[:MAX_IMAGES]
        before, after = overlay.pretrained[:MAX_IMAGES], overlay.adapted[:MAX_IMAGES]
        keys = [_fingerprint(array) for array in (pictures, before, after)]
        cost = 0 if keys[0] in images else pictures.size // 2
        cost += sum(2 * before.size for key in keys[1:] if key not in maps)
        if runs and used + cost > budget_bytes:
            if not item.listed:
                break
            num_left_out += 1
            continue
        used += cost
        images.setdefault(keys[0], [image_uri(picture) for picture in pictures])
        for key, array in zip(keys[1:], (before, after), strict=True):
            maps.setdefault(key, packed_maps(array))
        runs.append(
            {
                "run_id": item.run_id,
                "listed": item.listed,
                "label": item.label,
                "column": item.column,
                "pair": item.pair,
                "images": keys[0],
                "pretrained": keys[1],
                "adapted": keys[2],
            }
        )
    return {
        "images": images,
        "maps": maps,
        "runs": runs,
        "num_left_out": num_left_out,
        "colours": _colour_table(),
    }


def packed_maps(maps: npt.NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Maps [image, layer, head, row, column] as bytes of each map's maximum, base64."""
    values = np.nan_to_num(np.asarray(maps, dtype=np.float32))
    tops = values.max(axis=(-2, -1))
    shares = values / np.where(tops > 0, tops, 1)[..., None, None]
    quantised = np.rint(255 * shares).astype(np.uint8)
    return {
        "shape": list(values.shape),
        "values": base64.b64encode(quantised.tobytes()).decode(),
        "tops": base64.b64encode(tops.astype("<f4").tobytes()).decode(),
    }


def image_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """An image [height, width, 3] as a data URI: PNG when small, JPEG otherwise."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    small = max(image.size) <= _PNG_UP_TO
    buffer = io.BytesIO()
    if small:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="JPEG", quality=85)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{'png' if small else 'jpeg'};base64,{encoded}"


def _colour_table() -> str:
    """The sequential colour map as 256 RGB triples, base64."""
    colours = mpl.colormaps["inferno"](np.arange(256))[:, :3]
    return base64.b64encode(np.rint(255 * colours).astype(np.uint8).tobytes()).decode()


def _fingerprint(array: npt.NDArray[Any]) -> str:
    content = np.ascontiguousarray(array)
    return hashlib.sha256(str(content.shape).encode() + content.tobytes()).hexdigest()[:12]


# ---------------------------------------------------------------- on a page


def study_overlays(records: Sequence[RunRecord], runs: pd.DataFrame) -> list[NamedOverlay]:
    """One run a cell that stored its maps, the lowest retention first."""
    named, seen = [], set()
    for row, record in _recorded(records, runs):
        cell = (*(row[key] for key in grouping.PLACE), row["series"], row["learning_rate"])
        overlay = _readable(record) if cell not in seen else None
        if overlay is not None:
            seen.add(cell)
            named.append(_named(row, overlay, grouping.place_text(row, runs)))
    return named


def run_overlays(record: RunRecord) -> list[NamedOverlay]:
    """The maps of a run on a page of its own; none where it stored none."""
    overlay = _readable(record)
    return [] if overlay is None else [NamedOverlay("adapted", "adapted", "", overlay)]


def other_overlays(
    records: Sequence[RunRecord], runs: pd.DataFrame, named: Sequence[NamedOverlay]
) -> Iterator[NamedOverlay]:
    """The runs beside `study_overlays`, read one at a time, for their own pages."""
    there = {one.run_id for one in named}
    for row, record in _recorded(records, runs):
        overlay = _readable(record) if record.id not in there else None
        if overlay is not None:
            yield replace(_named(row, overlay, ""), listed=False)


def _readable(record: RunRecord) -> Overlay | None:
    """The run's maps; None where there are none, or damaged ones, of which a warning tells."""
    try:
        return load_overlay(record.folder, record.result.files.get(ATTENTION_FILE))
    except RecordError as error:
        warnings.warn(f"{error}; the run's attention is not shown", NoteWarning, stacklevel=2)
        return None


def _recorded(
    records: Sequence[RunRecord], runs: pd.DataFrame
) -> Iterator[tuple[Mapping[str, Any], RunRecord]]:
    """The runs that have a record (imported cell means have none), the lowest retention first."""
    by_id = {record.id: record for record in records}
    with_series = grouping.with_series(runs)
    ordered = with_series.sort_values(["retention_pct", "seed"], na_position="last")
    there = ordered[ordered["run_id"].isin(by_id)]
    for at in range(0, len(there), _ROWS_AT_ONCE):  # thousands as mappings take a tenth of a GB
        for row in there.iloc[at : at + _ROWS_AT_ONCE].to_dict("records"):
            yield {str(key): value for key, value in row.items()}, by_id[row["run_id"]]


def _named(row: Mapping[str, Any], overlay: Overlay, where: str) -> NamedOverlay:
    rate = rate_text(row["learning_rate"])
    kept = METRICS["retention_pct"].with_unit(row["retention_pct"])
    setting = " ".join(str(row[key]) for key in grouping.PLACE)
    return NamedOverlay(
        f"{where}{row['series']}, rate {rate}, {seed_text(row)} (retention {kept})",
        f"{row['series']}, {rate}",
        f"{setting} {rate}",
        overlay,
        run_id=str(row["run_id"]),
    )


def side_by_side(named: Sequence[NamedOverlay]) -> dict[str, Overlay]:
    """The overlays to draw in one figure, by column: those of the pair that has most.

    Only overlays of the same images can stand side by side. Of pairs of equal size it is the first,
    which in `study_overlays` is that of the lowest retention. Empty where there is no overlay.
    """
    pairs: dict[str, list[NamedOverlay]] = {}
    for one in named:
        pairs.setdefault(one.pair, []).append(one)
    chosen = max(pairs.values(), key=len, default=[])
    same = [one for one in chosen if np.array_equal(one.overlay.images, chosen[0].overlay.images)]
    return {one.column: one.overlay for one in sorted(same, key=lambda one: one.column)}


def overlay_block(
    named: Sequence[NamedOverlay], others: Iterable[NamedOverlay] = ()
) -> dict[str, Any] | None:
    """What the template needs to show overlays: the viewers' data and a picture without script."""
    if not named:
        return None
    payload = overlay_payload(chain(named, others))
    shape = next(iter(payload["maps"].values()))["shape"]
    picture = attention_figure({"adapted": named[0].overlay})
    return {
        "json": script_json(payload),
        "num_layers": shape[1],
        "num_heads": shape[2],
        "runs": [run for run in payload["runs"] if run["listed"]],
        "num_left_out": payload["num_left_out"],
        "picture": png_uri(picture),
        "picture_of": named[0].label,
    }
