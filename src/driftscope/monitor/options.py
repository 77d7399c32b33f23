"""What a monitor is given, checked before any model is loaded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from driftscope.errors import ConfigError
from driftscope.metrics import ESTIMATED, KEPT_PCT, METRICS
from driftscope.monitor.alerts import Thresholds
from driftscope.monitor.selection import Selection
from driftscope.transfer import transfer_names

_NONE = type(None)
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "out": ((str, Path, _NONE), "a folder's path, or None"),
    "alerts": (
        (Thresholds, _NONE),
        "a driftscope.Thresholds, such as Thresholds(min_retention_pct=90)",
    ),
    "selection": ((Selection, _NONE), "a driftscope.Selection, such as Selection(patience=3)"),
    "keep_best": ((bool,), "True or False"),
    "model_path": ((str, _NONE), "a path of names, such as 'encoder.model', or None"),
    "max_images": ((int, _NONE), "a whole number of 4 or more, or None for all"),
    "pool_images": ((int, _NONE), "a whole number of 4 or more, or None for all"),
    "transfer_images": ((int, _NONE), "a whole number of 1 or more, or None for all"),
    "maps": ((bool,), "True or False"),
    "image_size": ((int, _NONE), "the pixels of an image's side, such as 336, or None"),
    "echo": ((Callable, _NONE), "a function such as print, or None"),  # type: ignore[dict-item]
}


def check_options(**given: object) -> None:
    """Checks what a monitor's options are.

    Raises:
        ConfigError: one that cannot be meant.
    """
    for name, (kinds, words) in _KINDS.items():
        value = given[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(f"{name} is {short(value)}; give {words}")
    if isinstance(size := given["image_size"], int) and size < 1:
        raise ConfigError(f"image_size is {size}; give {_KINDS['image_size'][1]}")
    on_alert = given["on_alert"]
    if on_alert not in ("warn", "stop") and not callable(on_alert):
        raise ConfigError(f"on_alert is {short(on_alert)}; give 'warn', 'stop' or a function")
    if given["keep_best"] and given["out"] is None:
        raise ConfigError("keep_best=True needs a folder to keep models in; give out, too")
    _check_rescue(given["rescue"], has_pool=given["pool"] is not None, out=given["out"])
    _refuse_what_is_not_measured(
        given["alerts"],
        given["selection"],
        has_transfer=bool(transfer_names(given["transfer"])),
        has_pool=given["pool"] is not None,
        has_calibration=given["calibration"] is not None,
    )
    if given["classes"] is not None and given["pool"] is None:
        raise ConfigError(
            f"classes is {short(given['classes'])}, but no pool was given; give the unlabeled "
            "images that the classes are of"
        )


def _check_rescue(keep_pct: object, *, has_pool: bool, out: object) -> None:
    if keep_pct is None:
        return
    if not _is_number(keep_pct, at_least=1, at_most=100):
        raise ConfigError(
            f"rescue is {short(keep_pct)}; give the retention to keep in percent, from 1 to 100, "
            "such as 95"
        )
    if out is None or not has_pool:
        raise ConfigError(
            "rescue needs unlabeled images to estimate retention on, and a folder to keep the "
            "model in; give pool and out, too"
        )


def _refuse_what_is_not_measured(
    alerts: Any, selection: Any, *, has_transfer: bool, has_pool: bool, has_calibration: bool
) -> None:
    least = None if alerts is None else alerts.min_retention_pct
    is_known = has_transfer or has_pool or has_calibration
    if least not in (None, KEPT_PCT) and not is_known:  # the default says so at its alert
        raise ConfigError(
            f"min_retention_pct is {least:g}, but retention is neither measured nor estimated; "
            "give a transfer set, such as transfer='concepts100', or unlabeled images and what "
            "they show, such as pool='photos' and classes='names.txt'"
        )
    asked: list[tuple[str, str]] = []
    if alerts is not None and "min_estimated_retention" in alerts.limits:
        limit = alerts.limits["min_estimated_retention"]
        asked.append((ESTIMATED, f"min_estimated_retention is {limit:g}"))
    if selection is not None and selection.by is not None:
        asked.append((selection.by, f"the selection is by {selection.by}"))
    missing = {
        "retention_pct": (has_transfer, "measured on a transfer set only; give one, such as "
        "transfer='concepts100'"),
        ESTIMATED: (has_pool, "estimated on unlabeled images only; give them and what they show, "
        "such as pool='photos' and classes='names.txt'"),
    }  # fmt: skip
    for key, (is_there, way_out) in missing.items():
        told = [words for name, words in asked if name == key]
        if told and not is_there:
            raise ConfigError(f"{' and '.join(told)}, but {METRICS[key].label} is {way_out}")


def digest_of(*options: object) -> str:
    """Eight hexadecimal digits of options, whatever kind of sequence one was given as."""
    plain = [
        list(one) if isinstance(one, Sequence) and not isinstance(one, str) else one
        for one in options
    ]
    return hashlib.blake2b(repr(plain).encode(), digest_size=4).hexdigest()


def counted(step: object) -> int:
    """A number of optimizer steps.

    Raises:
        ConfigError: it is no whole number of 0 or more.
    """
    number = _as_number(step)
    if not _is_number(number, at_most=math.inf) or number % 1:
        raise ConfigError(f"step is {short(step)}; give a whole number of steps, 0 or more")
    return int(number)


def epochs_done(epoch: object) -> float | None:
    """A number of epochs; a whole one given as an int stays one, as `Schedule` tells them apart.

    Raises:
        ConfigError: it is no number of 0 or more.
    """
    number = _as_number(epoch)
    if number is not None and not _is_number(number, at_most=math.inf):
        raise ConfigError(f"epoch is {short(epoch)}; give a number of epochs, 0 or more")
    return number  # type: ignore[no-any-return]


def percentage(val_accuracy_pct: object) -> float | None:
    """An accuracy in percent.

    Raises:
        ConfigError: it is no number in [0, 100].
    """
    number = _as_number(val_accuracy_pct)
    if number is not None and not _is_number(number, at_most=100):
        raise ConfigError(
            f"val_accuracy_pct is {short(val_accuracy_pct)}; give a number in 0…100, in percent"
        )
    return number  # type: ignore[no-any-return]


def _as_number(value: Any) -> Any:
    """Python's own number of a NumPy or torch scalar, which JSON does not know; else the value."""
    try:
        return value.item()
    except (AttributeError, ValueError, RuntimeError):  # none, or of several elements
        return value


def _is_number(value: Any, at_most: float, at_least: float = 0) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and math.isfinite(value) and at_least <= value <= at_most
