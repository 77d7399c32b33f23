"""Why there is no model where one was named, and where one lies nearby."""

from __future__ import annotations

import json
import re
from pathlib import Path

from driftscope.errors import shown
from driftscope.files import named_path
from driftscope.nearby import nothing_there
from driftscope.sources.state_dict import (
    OF_SHARD,
    SHARD_OF_FSDP,
    SUFFIXES,
    is_state,
    way_out_of_shards,
)

_MARKS = ("config.json", "adapter_config.json", "open_clip_config.json", "adapted.json")
"""Files that say that their folder holds a model."""
_ADDRESS = re.compile(r"\w+://")
_OF_HUB = re.compile(r"https?://(?:www\.)?huggingface\.co/([\w.-]+/[\w.-]+)")
_DEPTH = 3
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
OF_OTHERS = (".h5", ".keras", ".msgpack", ".onnx", ".gguf", ".tflite", ".pb", ".npz", ".pkl")
"""Weights of TensorFlow, Flax and others, which are not read."""
_OF_DEEPSPEED = "zero_to_fp32.py"


def no_model(name: str) -> str:
    """A sentence that says what is there instead, and what to give."""
    path = named_path(name)
    if not name.strip():
        return "no model was named: give a hub id, a folder or a file of weights"
    if _ADDRESS.match(name):
        of_hub = _OF_HUB.match(name)
        told = f"its hub id, {of_hub[1]}" if of_hub else "a hub id, or fetch it and give the place"
        return f"{name} is an address, and a model is named by a hub id or a place: give {told}"
    if path.is_file() and path.name in (*_MARKS, "preprocessor_config.json"):
        return f"{name} is a part of a model's folder: give the folder, {path.parent}"
    if path.is_dir():
        return f"{name} holds no model{_instead(path, name)}"
    if path.exists() and path.name.lower().endswith(_ARCHIVES):
        return f"{name} is an archive; unpack it, and give the file or folder inside"
    if path.exists():
        return (
            f"{name} is a file, but none of weights (those end in {', '.join(SUFFIXES)}); a model "
            "is a file of weights, or a folder with config.json or adapter_config.json, as "
            "transformers' save_pretrained writes one where the model was made"
        )
    return f"no model {shown(name)}: {nothing_there(name)}"


def _instead(folder: Path, name: str) -> str:
    if (folder / _OF_DEEPSPEED).exists():
        return (
            f" but DeepSpeed's shards; make a file of weights of them (python {name}/"
            f"{_OF_DEEPSPEED} {name} OUT) and give that"
        )
    if any(folder.glob("zero_pp_rank_*_optim_states.pt")):
        above = Path(name).parent
        return (
            f" but a part of DeepSpeed's shards; make a file of weights of them (python "
            f"{above}/{_OF_DEEPSPEED} {above} OUT) and give that"
        )
    if any(OF_SHARD.search(one.name) for one in folder.iterdir()):
        return (
            " but shards of one model without their index (model.safetensors.index.json, or "
            "pytorch_model.bin.index.json), which tells that they are complete; fetch that, too"
        )
    if found := sorted(folder.rglob(f"*{SHARD_OF_FSDP}"), key=_is_of_optimizer):
        return f" but shards of torch.distributed; {way_out_of_shards(found[0].parent)}"
    if any(folder.glob("adapter_model.*")):
        return " but an adapter's weights without its adapter_config.json; fetch that, too"
    if below := _below(folder):
        shown = [str(Path(name) / one) for one in below]
        few = ", ".join(shown[-3:])
        more = f" (and {len(shown) - 3} more)" if len(shown) > 3 else ""
        best = _best_of(folder / below[-1])
        return (
            f" itself, but {few}{more} {'do' if len(shown) > 1 else 'does'}; give the one you mean"
            + (f" (Trainer has marked {best} as the best)" if best else "")
        )
    if others := sorted(one.name for one in folder.iterdir() if one.suffix in OF_OTHERS):
        return (
            f" that is read, but {others[0]}; load it where it was made, and save it by "
            "transformers' save_pretrained"
        )
    if states := sorted(one.name for one in folder.iterdir() if is_state(one.name)):
        return (
            f" but a trainer's state ({', '.join(states[:3])}); give the folder of the same step "
            "that has its weights (model.safetensors), or save them by save_pretrained"
        )
    return (
        ": there is no config.json (a model in hub layout), adapter_config.json (a PEFT adapter), "
        "open_clip_config.json, adapted/ (a finished run) or file of weights in it"
    )


def _is_of_optimizer(shard: Path) -> tuple[bool, str]:
    """So that the model's shards stand before the optimizer's."""
    return shard.parent.name.startswith("optimizer"), str(shard)


def _best_of(checkpoint: Path) -> str:
    """The checkpoint that Trainer has marked as the best; empty where it has not."""
    try:
        said = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        return Path(said["best_model_checkpoint"]).name
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _below(folder: Path) -> list[Path]:
    """The models in the folders below, in the order of the numbers in their names."""
    found: set[Path] = set()
    for path in folder.rglob("*"):
        below = path.relative_to(folder)
        if len(below.parts) > _DEPTH:
            continue
        if path.name in _MARKS:
            found.add(below.parent)
        elif (
            path.suffix in SUFFIXES
            and not is_state(path.name)
            and not {below.parent, *below.parents} & found
        ):
            found.add(below)
    models = {one for one in found if not (set(one.parents) - {Path()}) & found}
    return sorted(models - {Path()}, key=lambda one: _numbers(str(one)))


def _numbers(name: str) -> list[tuple[int, str]]:
    """So that checkpoint-1000 stands after checkpoint-500."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
