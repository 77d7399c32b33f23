"""The weights in a checkpoint file: found, whatever trainer wrote it and whatever held the model.

A file is a tree of dictionaries with tensors at its leaves. All of them are read, by the names on
the way to them: `model_state_dict.module.clip.logit_scale`. Which part of the tree is the model is
then told by the names that a model has (`prefixes_of`), so that no list of trainers is needed.
"""

from __future__ import annotations

import pickle
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from pydantic_core import from_json
from torch import Tensor

from driftscope.backbones.base import WRAPPERS
from driftscope.errors import ModelError, one_line, shown
from driftscope.files import is_file
from driftscope.sources.origin import read_json
from driftscope.sources.plausible import (
    ALWAYS_TAKEN_BYTES,
    UNPACKED_RATIO,
    refuse_packed_weights,
)
from driftscope.sources.reparametrized import put_together
from driftscope.sources.torchscript import is_torchscript, weights_of_archive

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""How the names of weight files end."""
FILES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""What transformers and accelerate call a model's weights in a folder."""
OF_SHARD = re.compile(r"-\d{5}-of-(?!00001\.)\d{5}\.(safetensors|bin)$")
"""How the names of a model's parts end, of which an index tells."""
SHARD_OF_FSDP = ".distcp"
"""How torch.distributed's shards end."""
_OF_TORCH = ("data.pkl", "constants.pkl")
"""What torch has in every zip that it writes."""
_OF_NO_MODEL = re.compile(
    r"(grad(ient)?|delta|diff(erence)?|task_vector|fisher|exp_avg\w*|momentum(_buffer)?)s?"
)
"""What stands before the names of weights where something else is kept of each."""
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that torch wrote before version 1.6."""
_OF_LIGHTNING = ("current_model_state.", "state_dict.")
"""Where Lightning's WeightAveraging keeps the weights from which it goes on, and their average."""
_OF_EIGHT_BITS = re.compile(r"torch\.float8_|float8_|F8_")
"""How types of floating-point numbers of 8 bits are called by torch, and by safetensors."""
_MOST_DICTIONARIES = 100_000
_LFS_POINTER = b"version https://git-lfs"


def read_tensors_of(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by the names on the way to them; no code in it runs.

    Of an index of shards all shards'.

    Raises:
        ModelError: there is no such file, or it holds no tensors that can be read safely.
    """
    if not path.is_file():
        raise ModelError(f"there is no checkpoint file {path}")
    if path.name.endswith(".index.json"):
        return _shards(path)
    check_fetched(path)
    refuse_packed_weights(path)
    try:
        if _is_safetensors(path):
            from safetensors.torch import load_file

            content: Any = load_file(path)
        elif is_torchscript(path):
            content = weights_of_archive(path)
        else:
            with _without_objects(path):
                content = torch.load(path, map_location="cpu", weights_only=True)
    # torch and safetensors raise several kinds for files that are not what they seem
    except Exception as error:
        raise ModelError(
            f"{path} cannot be read as tensors only ({why_unreadable(error)}); save the model's "
            "state_dict(), as .safetensors best, and give that"
        ) from None
    tensors = {WRAPPERS.sub("", name): tensor for name, tensor in _leaves(content, path)}
    if not tensors:
        raise ModelError(f"{path} holds no tensors by name; save a model's state_dict()")
    return put_together(tensors)


def types_in(path: Path) -> dict[str, str]:
    """The number types in a file of weights that can be read, or in an index's shards, by name."""
    if path.name.endswith(".index.json"):
        return {key: kind for one in check_shards(path) for key, kind in types_in(one).items()}
    if _is_safetensors(path):
        from safetensors import safe_open

        with safe_open(path, framework="pt") as held:
            return {key: str(held.get_slice(key).get_dtype()) for key in held.keys()}  # noqa: SIM118
    content = torch.load(path, map_location="meta", weights_only=True)
    return {key: str(one.dtype).removeprefix("torch.") for key, one in _leaves(content, path)}


def weights_in(path: Path) -> Path | None:
    """The file of weights itself, or the one in a folder; None where there is none, or several."""
    if path.is_file():
        is_named = path.name.lower().endswith((*SUFFIXES, ".index.json"))
        return path if is_named or _is_of_weights(path) else None
    known = next((path / file for file in FILES if (path / file).is_file()), None)
    if known is not None or not path.is_dir():
        return known
    others = [one for one in path.iterdir() if one.suffix in SUFFIXES and not is_state(one.name)]
    return others[0] if len(others) == 1 else None


def is_state(name: str) -> bool:
    """Whether a file's name says that it is a trainer's own, or an adapter's."""
    begins = ("optimizer", "scheduler", "training_args", "scaler", "rng", "random_states")
    return name.startswith((*begins, "adapter")) or name.endswith("_optim_states.pt")


def way_out_of_shards(folder: Path) -> str:
    """What to do with what torch.distributed has written into a folder."""
    return (
        "make a file of weights of them (python -m torch.distributed.checkpoint.format_utils "
        f"dcp_to_torch {folder} OUT.pt) and give that"
    )


def check_fetched(path: Path) -> None:
    """Raises ModelError where a file of weights is empty, cut off, packed, or no such file."""
    if path.suffix == SHARD_OF_FSDP:
        way_out = way_out_of_shards(path.parent)
        raise ModelError(f"{path} is one of the shards of torch.distributed; {way_out}")
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        raise ModelError(
            f"{path} is a git-lfs pointer and not the weights; fetch them with git lfs pull"
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ModelError(f"{path} is a web page: its download failed, fetch it again")
    if not start:
        raise ModelError(f"{path} is empty (0 bytes); fetch or save it again")
    _refuse_archives(path)


def _is_of_weights(path: Path) -> bool:
    """Whether a file of any other name is one of torch's or safetensors', by its content."""
    with path.open("rb") as file:
        start = file.read(len(_OLD_TORCH))
    if start.startswith(b"PK") and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                return any(one.endswith(_OF_TORCH) for one in archive.namelist())
        except zipfile.BadZipFile:
            return False
    return start == _OLD_TORCH or _safetensors_size(path) > 0


def _is_safetensors(path: Path) -> bool:
    """By the file's first bytes, for its name can be another's: a length, then a JSON object."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _safetensors_size(path: Path) -> int:
    """How many bytes a file of safetensors must have, by what it says itself; 0 of another."""
    if not _is_safetensors(path):
        return 0
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return 8 + length
        try:
            held = from_json(file.read(length))
            ends = [one["data_offsets"][1] for key, one in held.items() if key != "__metadata__"]
            return 8 + length + int(max(ends, default=0))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return 0


def _refuse_archives(path: Path) -> None:
    """Raises ModelError where a file is an archive of files, or a torch file that is cut off."""
    with path.open("rb") as file:
        is_of_zip = file.read(4) == b"PK\x03\x04"
    is_cut = is_of_zip and not zipfile.is_zipfile(path)
    if is_cut or _safetensors_size(path) > path.stat().st_size:
        raise ModelError(f"{path} is cut off: its end is missing; fetch or save it again")
    if is_of_zip:
        with zipfile.ZipFile(path) as archive:
            is_archive = not any(one.endswith(_OF_TORCH) for one in archive.namelist())
    else:
        is_archive = tarfile.is_tarfile(path)
    if is_archive:
        raise ModelError(f"{path} is an archive of files; unpack it, and give what is inside")


def why_unreadable(error: Exception) -> str:
    """What is wrong with a file of weights; torch's own advice would be to run its code."""
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        return "it holds other objects than tensors, or is no file of weights"
    if "PytorchStreamReader" in str(error):
        return "torch did not write it, or it is damaged"
    if isinstance(error, KeyError):
        return f"its configuration names {error}, which is not known"
    return one_line(error) or type(error).__name__


def about_extra(name: str) -> str:
    """What to do about a weight that no plain model has, by its name."""
    if "lora" in name.lower():
        return (
            "if it is an adapter's, add it in where it was trained (loralib does so in "
            "model.eval()), and save the state_dict without such names"
        )
    return (
        "if no image embedding goes through it, save the file without it; if one does, as through "
        "prompts or layers put in between, no plain model computes the same, and it is not read"
    )


def prefixes_of(names: Iterable[str], wanted: Iterable[str]) -> Counter[str]:
    """Before how many wanted names each prefix stands among these names.

    >>> prefixes_of(["ema.clip.scale", "ema.clip.bias", "scale"], ["scale", "bias"])
    Counter({'ema.clip.': 2, '': 1})
    """
    known = frozenset(wanted)
    found: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for count in range(len(parts)):
            if ".".join(parts[count:]) in known:
                found["".join(f"{part}." for part in parts[:count])] += 1
    return found


def main_prefix(names: Iterable[str], wanted: Iterable[str], source: str) -> tuple[str, list[str]]:
    """The prefix of the model among these names, and those of its averages, which are left.

    Raises:
        ModelError: no name is wanted, or several models are held and none is the main one.
    """
    found = prefixes_of(names, wanted)
    if not found:
        raise ModelError(f"{source} holds none of the weights {_few(wanted)}")
    most = max(found.values())
    full = [prefix for prefix, count in found.items() if count == most]
    main = places_of_models(full)
    if len(full) > 1 and len(main) != 1:
        raise ModelError(
            f"{source} holds the weights {len(full)} times, under {_few(full)}; save the one that "
            "is meant by itself"
        )
    chosen = main[0] if main else full[0]
    if any(_OF_NO_MODEL.fullmatch(part) for part in chosen.lower().split(".")):
        raise ModelError(
            f"{source} holds a number for each of the weights under {chosen!r}, and no weights; "
            "save the model's own state_dict()"
        )
    return chosen, [prefix for prefix in full if prefix != chosen]


def places_of_models(places: Collection[str]) -> list[str]:
    """Those of several places with the same weights that are no moving averages.

    Lightning's WeightAveraging is the other way round: its `state_dict` is the average, which is
    the model that the training gives. The weights from which it goes on are not.
    """
    return [
        one
        for one in places
        if "ema" not in one.lower()
        and not (one.startswith(_OF_LIGHTNING[0]) and one.replace(*_OF_LIGHTNING, 1) in places)
    ]


def refuse_no_plain_numbers(weights: Mapping[str, Tensor], name: str) -> None:
    """Raises ModelError where a weight is quantised, sparse or without data.

    torch would take whole numbers for the weights that they were rounded from.
    """
    for key, tensor in weights.items():
        is_plain = tensor.is_floating_point() and tensor.layout == torch.strided
        if tensor.is_meta or not is_plain:
            kind = "without its data" if tensor.is_meta else f"as {tensor.dtype}, {tensor.layout}"
            raise ModelError(
                f"{name} holds {key} {kind}, and no weights can be made of that; save the model in "
                "floating-point numbers (quantised ones by dequantize())"
            )


def told_of_rounding(kinds: Iterable[str], name: str) -> tuple[str, ...]:
    """What is to be said of weights in numbers of 8 bits, by the names of number types."""
    rounded = {one.removeprefix("torch.") for one in kinds if _OF_EIGHT_BITS.match(one)}
    if not rounded:
        return ()
    return (_rounded(name, "8 bits", rounded),)


def told_of_half_precision(
    before: Set[torch.dtype], after: Set[torch.dtype], name: str
) -> tuple[str, ...]:
    """What is to be said of an adapted model in numbers of 16 bits, where its pretrained has more.

    By the types of 16 bits that hold the weights of each.
    """
    if not after or after & before:
        return ()
    return (_rounded(name, "16 bits", [str(one).removeprefix("torch.") for one in after]),)


def _rounded(name: str, bits: str, kinds: Iterable[str]) -> str:
    return (
        f"weights of {name} are in {bits} ({', '.join(sorted(kinds))}): what is measured of "
        "it is the rounding, too"
    )


def _few(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(map(repr, shown[:3])) + (" …" if len(shown) > 3 else "")


def _leaves(content: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a tree of dictionaries by the names on the way to them.

    Raises:
        ModelError: it has too many dictionaries: one that is named many times is many; or a tensor
            that a number in the file stands for many times over.
    """
    waiting, left = [("", content)], _MOST_DICTIONARIES
    while waiting:
        prefix, held = waiting.pop()
        left -= 1
        if left < 0:
            raise ModelError(
                f"{path} holds more than {_MOST_DICTIONARIES:,} dictionaries, or one that stands "
                "on itself; save a model's state_dict()"
            )
        inner = []
        for name, value in held.items() if isinstance(held, Mapping) else ():
            if isinstance(value, Tensor) and isinstance(name, str):
                _refuse_spread(value, name, path)
                yield prefix + name, value
            elif isinstance(value, Mapping) and isinstance(name, str):
                inner.append((f"{prefix}{name}.", value))
        waiting += reversed(inner)


def _refuse_spread(tensor: Tensor, name: str, path: Path) -> None:
    """Raises `ModelError` where few numbers in a file stand for gigabytes, by strides of zero."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return
    size = tensor.numel() * tensor.element_size()
    if size > max(ALWAYS_TAKEN_BYTES, UNPACKED_RATIO * tensor.untyped_storage().nbytes()):
        raise ModelError(
            f"{path} holds {shown(name)}, which would unpack to {size / 1e9:.1f} GB from "
            f"{tensor.untyped_storage().nbytes():,} bytes; save a model's state_dict()"
        )


def check_shards(index: Path) -> list[Path]:
    """The files that an index of shards names.

    Raises:
        ModelError: the index is damaged, or one of them is missing, empty or points elsewhere.
    """
    said = read_json(index)
    held = said.get("weight_map")
    if not isinstance(held, dict):
        raise ModelError(f"{index} cannot be read: it has no weight_map")
    if not isinstance(said.get("metadata"), dict):
        raise ModelError(f"{index} cannot be read: it has no metadata, which transformers needs")
    files = sorted({str(one) for one in held.values()})
    for file in files:
        if Path(file).name != file:
            raise ModelError(f"{index} names a shard outside its folder: {file}")
        if not is_file(index.parent / file):
            raise ModelError(f"the shard {index.parent / file} is missing; fetch or save it again")
        check_fetched(index.parent / file)
    return [index.parent / file for file in files]


def _shards(index: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in check_shards(index):
        tensors |= read_tensors_of(file)
    return tensors


class _Inert:
    """What an object of a class that is no tensor becomes: its settings are read past."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def _without_objects(path: Path) -> AbstractContextManager[None]:
    """Lets what trainers keep beside the weights be read past: no class of it is imported or run.

    torch names what it would refuse; each such name means `_Inert` to it.
    """
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except (ValueError, RuntimeError, OSError):  # no zip: what torch wrote before version 1.6
        named = []
    return torch.serialization.safe_globals(
        [(type("Inert", (_Inert,), {}), name) for name in named]
    )
