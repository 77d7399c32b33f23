"""Images that stand in a set several times: as the same bytes, or as their names tell.

Looked for among the images that are scored on alone, whose bytes are read anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from driftscope.data.encoded import EncodedSet, FilesOnDisk, printable

FEW = 0.01
"""Up to this share of the images, what is said is a note: it moves a number by no more."""
_CHANGES = (
    r"aug(?:mented|mentation)?|(?:[hv]|lr|ud)?flip(?:ped)?|mirror(?:ed)?|rot(?:ate|ated|ation)?|"
    r"crop(?:ped)?|nois[ey]|blur(?:red)?|bright(?:er|ness)?|dark(?:er)?|contrast|jitter|shift(?:ed)?|"
    r"zoom(?:ed)?|shear(?:ed)?|sharpen(?:ed)?|gr[ae]y(?:scale)?|copy|dup(?:licate)?"
)
_MADE_OF = re.compile(
    rf"(?i)(?:copy of |(?:{_CHANGES})_)(?P<before>.+)"
    rf"|(?P<of>.+?)[\s_-]*(?:\(\d+\)|[\s_-](?:{_CHANGES})[\s_-]*\(?\d*\)?(?:[\s_-][\w-]*)?)"
)
"""`x_copy`, `x - Copy (2)`, `x (1)`, `x_aug3`, `x_rot_90`, `Copy of x`, `flipped_x`."""
_EXPORTED = re.compile(r"(.+)\.rf\.\w{16,}|(.+_original_.+)_[0-9a-f-]{36}")
"""Versions of one image as Roboflow (`x_jpg.rf.0123456789abcdef….jpg`) and Augmentor name them."""


def told_of_copies(images: EncodedSet) -> tuple[list[str], list[str]]:
    """The notes and the doubts of images that stand in a set several times."""
    return _weighed(images, chain(_of_bytes(images), _of_names(images)))


def told_of_shared(images: EncodedSet, bank: EncodedSet) -> tuple[list[str], list[str]]:
    """The notes and the doubts of images that are also among those which tell their classes."""
    known = {digest: row for row, digest in reversed(list(enumerate(bank.image_digests)))}
    shared = [row for row, digest in enumerate(images.image_digests) if digest in known]
    if not shared:
        return [], []
    other = bank.encoded.name_of(known[images.image_digests[shared[0]]])
    said = (
        f"are also among the images that tell the classes, byte by byte "
        f"({images.encoded.name_of(shared[0])} and {other})"
    )
    return _weighed(images, [(shared, said)])


def _weighed(
    images: EncodedSet, found: Iterable[tuple[Sequence[int], str]]
) -> tuple[list[str], list[str]]:
    """What is said of rows as notes where they are few, else as doubts."""
    notes: list[str] = []
    doubts: list[str] = []
    for rows, said in found:
        (doubts if len(rows) > FEW * len(images) else notes).append(
            f"{len(rows):,} of its {len(images):,} images {said}"
        )
    return notes, doubts


def _of_bytes(images: EncodedSet) -> Iterator[tuple[Sequence[int], str]]:
    rows_of: dict[bytes, list[int]] = {}
    for row, digest in enumerate(images.image_digests):
        rows_of.setdefault(digest, []).append(row)
    alike = [rows for rows in rows_of.values() if len(rows) > 1]
    labels = None if images.labels is None else images.labels.tolist()
    of_several = [rows for rows in alike if labels and len({labels[row] for row in rows}) > 1]
    if of_several:
        yield (
            [row for rows in of_several for row in rows],
            f"are the same bytes under several classes ({_pair(images, of_several[0], labels)}), "
            "and one of those classes at most is right",
        )
    if copies := [row for rows in alike for row in rows[1:]]:
        shown = _pair(images, alike[0], labels)
        yield copies, f"are copies of others, byte by byte ({shown}), so these count several times"


def _pair(images: EncodedSet, rows: Sequence[int], labels: Sequence[int] | None) -> str:
    """Two of the rows, of other classes where there are such."""
    first = rows[0]
    second = next((row for row in rows if labels and labels[row] != labels[first]), rows[1])
    return f"{images.encoded.name_of(first)} and {images.encoded.name_of(second)}"


def _of_names(images: EncodedSet) -> Iterator[tuple[Sequence[int], str]]:
    if not isinstance(images.encoded, FilesOnDisk):
        return
    files = list(map(Path, images.encoded.files))
    here = set(files)
    made = {row: of for row, file in enumerate(files) if (of := _original(file)) in here}
    made |= _of_one_name(files, but=made)
    if made:
        row, of = next(iter(made.items()))
        yield (
            list(made),
            f"are changed copies of others by their names ({printable(str(files[row]))} of "
            f"{printable(of.name)}), so these count several times",
        )


def _original(file: Path) -> Path | None:
    """The image beside a file of which that is a changed copy by its name, if there is one."""
    match = _MADE_OF.fullmatch(file.stem)
    if match is None:
        return None
    return file.with_name((match["of"] or match["before"]) + file.suffix)


def _of_one_name(files: Sequence[Path], but: Mapping[int, Path]) -> dict[int, Path]:
    """Files of a folder that have one name but for the ending, or for what an export adds."""
    first: dict[tuple[Path, str], Path] = {}
    found = {}
    for row, file in enumerate(files):
        if row not in but:
            exported = _EXPORTED.fullmatch(file.stem)
            name = exported[exported.lastindex or 0] if exported else file.stem
            other = first.setdefault((file.parent, name), file)
            if other != file:
                found[row] = other
    return found
