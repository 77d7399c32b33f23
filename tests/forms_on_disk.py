"""The forms in which people have a fine-tuned CLIP on disk, each made by what writes it.

A row of `FORMS` makes one, says what its embeddings are by the library that wrote it, and what
driftscope does with it: reads it, or refuses it in a sentence that holds given words.
`python tests/forms_on_disk.py` prints what became of each.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers
from huggingface_hub import constants
from open_clip_states import VISION_PARTS, open_clip_state_of
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPModel

BOTH = ["q_proj", "v_proj"]
TOWER = r"vision_model\.encoder\.layers\.\d+\.self_attn\.(q|v)_proj"


@dataclass(frozen=True)
class Place:
    """Where a form is made, and of what.

    Attributes:
        folder: an empty one.
        base: the pretrained model's folder.
        cache: of the hub.
    """

    folder: Path
    base: Path
    cache: Path

    @classmethod
    def within(cls, folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
        """A place for a test, with a hub cache of its own and no hub behind it."""
        cache = folder / "hub"
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        (folder / "form").mkdir()
        return cls(folder / "form", base, cache)

    def pretrained(self) -> Any:
        return CLIPModel.from_pretrained(self.base, dtype=torch.float32).eval()

    def tuned(self) -> Any:
        """The pretrained model after training that moved its image tower."""
        return moved(self.pretrained(), "vision_model.")


Embed = Callable[[Tensor], Tensor]
Made = tuple[Path | str, Embed | None]
"""What to load, and the embeddings of pixels by the library that wrote it; None if refused."""


def moved(model: Any, prefix: str = "", seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(prefix) and parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def embed_by(model: Any) -> Embed:
    return lambda values: model.get_image_features(pixel_values=values).pooler_output


def behind(tower: Any, projection: nn.Module) -> Embed:
    """Of an image tower alone, its pooled output behind a projection."""
    return lambda values: projection(tower(pixel_values=values).pooler_output)


# ---------------------------------------------------------------- folders of transformers


def trainer_checkpoint(place: Place) -> Made:
    model, folder = place.tuned(), place.folder / "checkpoint-500"
    model.save_pretrained(folder)
    torch.save({}, folder / "optimizer.pt")
    return folder, embed_by(model)


def half_precision(kind: torch.dtype) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        model = place.tuned().to(kind)
        model.save_pretrained(place.folder)
        return place.folder, embed_by(model.float())

    return make


def sharded(place: Place) -> Made:
    model = place.tuned()
    model.save_pretrained(place.folder, max_shard_size="40KB")
    return place.folder, embed_by(model)


def pickled_weights(place: Place) -> Made:
    model = place.tuned()
    model.config.save_pretrained(place.folder)
    torch.save(model.state_dict(), place.folder / "pytorch_model.bin")
    return place.folder, embed_by(model)


def variant(place: Place) -> Made:
    """As diffusers names weights in half precision."""
    model = place.tuned().half()
    model.save_pretrained(place.folder)
    (place.folder / "model.safetensors").rename(place.folder / "model.fp16.safetensors")
    return place.folder, embed_by(model.float())


def of_tensorflow(place: Place) -> Made:
    place.tuned().config.save_pretrained(place.folder)
    (place.folder / "tf_model.h5").write_bytes(b"x")
    return place.folder, None


def prefixed_folder(prefix: str) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        model = place.tuned()
        model.config.save_pretrained(place.folder)
        state = {prefix + name: one.contiguous() for name, one in model.state_dict().items()}
        save_file(state, place.folder / "model.safetensors", metadata={"format": "pt"})
        return place.folder, embed_by(model)

    return make


def half_a_folder(place: Place) -> Made:
    model = place.tuned()
    model.config.save_pretrained(place.folder)
    state = {n: one for n, one in model.state_dict().items() if "layers.1.mlp" not in n}
    save_file(state, place.folder / "model.safetensors", metadata={"format": "pt"})
    return place.folder, None


def with_code(place: Place) -> Made:
    config = {"model_type": "my_clip", "auto_map": {"AutoConfig": "configuration.Config"}}
    (place.folder / "config.json").write_text(json.dumps(config))
    (place.folder / "configuration.py").write_text("raise SystemExit('it ran')\n")
    return place.folder, None


def odd_config(place: Place) -> Made:
    shutil.copytree(place.base, place.folder, dirs_exist_ok=True)
    config = json.loads((place.base / "config.json").read_text())
    config["vision_config"]["num_attention_heads"] = 5
    (place.folder / "config.json").write_text(json.dumps(config))
    return place.folder, None


def broken_weights(content: Any) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        place.pretrained().config.save_pretrained(place.folder)
        write = content if callable(content) else lambda file: file.write_bytes(content)
        write(place.folder / "pytorch_model.bin")
        return place.folder, None

    return make


def _save_module(file: Path) -> None:
    torch.save(nn.Linear(1, 1), file)


# ---------------------------------------------------------------- image towers alone


def tower_of(kind: str) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        whole = place.tuned()
        whole.save_pretrained(place.folder / "whole")
        model = getattr(transformers, kind).from_pretrained(
            place.folder / "whole", **_options(kind)
        )
        model.save_pretrained(place.folder / "tower")
        return place.folder / "tower", embed_by(whole)

    return make


def _options(kind: str) -> dict[str, int]:
    """What `from_pretrained` of the class needs beside the folder of a whole model."""
    if "Classification" in kind:
        return {"num_labels": 3}
    return {"projection_dim": 16} if "Projection" in kind else {}


def tower_of_no_class(kind: str) -> Callable[[Place], Made]:
    """An image tower whose configuration does not say its class."""

    def make(place: Place) -> Made:
        path, embed = tower_of(kind)(place)
        rewritten(Path(path) / "config.json", architectures=None)
        return path, embed

    return make


def tower_of_a_whole_configuration(place: Place) -> Made:
    """The image tower's weights beside the configuration of the whole model."""
    model = place.tuned()
    model.config.save_pretrained(place.folder)
    state = {n: one for n, one in model.state_dict().items() if n.startswith("vision_model.")}
    save_file(state, place.folder / "model.safetensors", metadata={"format": "pt"})
    return place.folder, embed_by(model)


def tower_of_another_whole_configuration(place: Place) -> Made:
    path, _ = tower_of_a_whole_configuration(place)
    config = json.loads((place.folder / "config.json").read_text())
    changed = {**config["vision_config"], "hidden_act": "gelu"}
    rewritten(place.folder / "config.json", vision_config=changed)
    return path, None


def dual_encoder(place: Place) -> Made:
    whole = place.tuned()
    whole.save_pretrained(place.folder / "whole")
    bert = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        vocab_size=20,
    )  # fmt: skip
    transformers.VisionTextDualEncoderModel(
        vision_model=transformers.CLIPVisionModel.from_pretrained(place.folder / "whole"),
        text_model=transformers.BertModel(bert),
    ).save_pretrained(place.folder / "dual")
    return place.folder / "dual", embed_by(whole)


def tower_of_another_function(place: Place) -> Made:
    path, _ = tower_of("CLIPVisionModelWithProjection")(place)
    config = json.loads((Path(path) / "config.json").read_text())
    (Path(path) / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}))
    return path, None


# ---------------------------------------------------------------- adapters


def adapter_on(kind: str, targets: Any = BOTH) -> Callable[[Place], Made]:
    """An adapter that was trained on a class of transformers."""

    def make(place: Place) -> Made:
        model = getattr(transformers, kind).from_pretrained(place.base, **_options(kind))
        saved = ["classifier"] if "Classification" in kind else None
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, modules_to_save=saved)
        trained = moved(get_peft_model(model, lora), seed=1)
        trained.save_pretrained(place.folder)
        if kind == "CLIPModel":
            return place.folder, embed_by(trained)
        merged = trained.merge_and_unload()
        projection = place.pretrained().visual_projection
        return place.folder, behind(getattr(merged, "vision_model", merged), projection)

    return make


def adapter_whose_base_is(named: str | None, **more: Any) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        made = adapter_on("CLIPModel", TOWER)(place)
        if named == "../base":
            shutil.copytree(place.base, place.folder.parent / "base", dirs_exist_ok=True)
        rewritten(place.folder / "adapter_config.json", base_model_name_or_path=named, **more)
        return made

    return make


def adapter_in_the_hub(place: Place) -> Made:
    _, embed = adapter_on("CLIPModel", TOWER)(place)
    in_the_hub(place, "someone/clip-lora", place.folder)
    return "someone/clip-lora", embed


def adapter_in_the_hub_without_its_base(place: Place) -> Made:
    _, embed = adapter_whose_base_is("/home/alice/models/clip")(place)
    in_the_hub(place, "someone/lost-lora", place.folder)
    return "someone/lost-lora", embed


def tower_in_the_hub(place: Place) -> Made:
    path, embed = tower_of("CLIPVisionModel")(place)
    in_the_hub(place, "someone/clip-vision", Path(path))
    return "someone/clip-vision", embed


def open_clip_in_the_hub(place: Place) -> Made:
    path, embed = open_clip_folder()(place)
    in_the_hub(place, "someone/open-clip", Path(path))
    return "hf-hub:someone/open-clip", embed


def pinned_adapter(place: Place) -> Made:
    made = adapter_on("CLIPModel", TOWER)(place)
    in_the_hub(place, "someone/clip-base", place.base, revision="v1")
    named = {"base_model_name_or_path": "someone/clip-base", "revision": "v1"}
    rewritten(place.folder / "adapter_config.json", **named)
    return made


def adapter_without_its_weights(place: Place) -> Made:
    adapter_on("CLIPModel", TOWER)(place)
    (place.folder / "adapter_model.safetensors").unlink()
    return place.folder, None


def adapter_without_its_config(place: Place) -> Made:
    adapter_on("CLIPModel", TOWER)(place)
    (place.folder / "adapter_config.json").unlink()
    return place.folder, None


def adapter_of_another_model(place: Place) -> Made:
    adapter_on("CLIPModel", TOWER)(place)
    file = place.folder / "adapter_model.safetensors"
    save_file({name: torch.cat([one, one]) for name, one in load_file(file).items()}, file)
    return place.folder, None


def in_the_hub(place: Place, name: str, folder: Path, revision: str = "main") -> None:
    """Puts a folder into the hub's cache, as a download would have."""
    repository = place.cache / f"models--{name.replace('/', '--')}"
    commit = f"{sum(name.encode()):040x}"
    shutil.copytree(folder, repository / "snapshots" / commit, dirs_exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / revision).write_text(commit)


def rewritten(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# ---------------------------------------------------------------- files of weights


def saved(content: Callable[[dict[str, Tensor]], Any], file: str = "x.pt") -> Callable[..., Made]:
    """A file that holds what a trainer makes of a state dict."""

    def make(place: Place) -> Made:
        model = place.tuned()
        state = {name: one.clone().contiguous() for name, one in model.state_dict().items()}
        held = content(state)
        if file.endswith(".safetensors"):
            save_file(held, place.folder / file)
        else:
            torch.save(held, place.folder / file)
        return place.folder / file, None if content in _REFUSED_CONTENTS else embed_by(model)

    return make


def under(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {prefix + name: one for name, one in state.items()}


@dataclass
class Settings:
    """A class of a trainer's own, in a checkpoint."""

    score: Any
    kind: Any


def lightning(state: dict[str, Tensor]) -> Any:
    return {
        "state_dict": {**under("model.clip.")(state), "head.weight": torch.ones(3, 4)},
        "pytorch-lightning_version": "2.6.6",
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        "hyper_parameters": {"lr": 1e-3, "args": argparse.Namespace(epochs=3, out=Path("x"))},
        "callbacks": {"best": Settings(numpy.float64(0.5), torch.optim.SGD)},
    }


def lightning_averaging(state: dict[str, Tensor]) -> Any:
    """As WeightAveraging keeps it: the average is in `state_dict`."""
    other = {name: 0.5 * one for name, one in state.items()}
    return {
        "state_dict": under("model.")(state),
        "current_model_state": under("model.")(other),
        "averaging_state": {"n_averaged": torch.tensor(7)},
    }


def lightning_averaging_apart(state: dict[str, Tensor]) -> Any:
    """The same of a module that has its projection elsewhere than its tower."""
    held = {f"net.{n}" if n.startswith("vision_model.") else f"side.{n}": one
            for n, one in state.items()}  # fmt: skip
    return {
        "state_dict": held,
        "current_model_state": {name: 0.5 * one for name, one in held.items()},
    }


def distributed(state: dict[str, Tensor]) -> Any:
    return {"epoch": 3, "model_state_dict": under("module.")(state), "loss": 0.3}


def wrapped_within(state: dict[str, Tensor]) -> Any:
    return {
        "_fsdp_wrapped_module."
        + name.replace("layers.1.", "layers.1._checkpoint_wrapped_module._orig_mod."): one
        for name, one in state.items()
    }


def averaged(state: dict[str, Tensor]) -> Any:
    return {"model": state, "model_ema": {name: 0 * one for name, one in state.items()}}


def tower_only(state: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "vision_model."
    tower = {n.removeprefix(prefix): one for n, one in state.items() if n.startswith(prefix)}
    return {"classifier.weight": torch.ones(3, 16), **tower}


def under_a_classifier(state: dict[str, Tensor]) -> Any:
    held = {f"net.encoder.{n}": one for n, one in state.items() if not n.startswith("text")}
    return {**held, "net.head.weight": torch.ones(3, 16)}


def with_lora_inside(state: dict[str, Tensor]) -> Any:
    name = "vision_model.encoder.layers.0.self_attn.q_proj"
    inside = {n.replace(name, f"{name}.base_layer"): one for n, one in state.items()}
    return {**inside, f"{name}.lora_A.default.weight": torch.ones(2, 32)}


def two_models(state: dict[str, Tensor]) -> Any:
    return {**under("student.")(state), **under("teacher.")(state)}


def deeper(state: dict[str, Tensor]) -> Any:
    more = {n.replace("layers.1.", "layers.2."): one for n, one in state.items() if "rs.1." in n}
    return {**state, **more}


def half_a_tower(state: dict[str, Tensor]) -> Any:
    return {name: one for name, one in state.items() if "layers.0.mlp" not in name}


def text_tower_alone(state: dict[str, Tensor]) -> Any:
    return {name: one for name, one in state.items() if name.startswith("text_model.")}


def lora_alone(state: dict[str, Tensor]) -> Any:
    return {"base_model.model.vision_model.encoder.layers.0.fc.lora_A.weight": torch.ones(2, 2)}


def optimizer_alone(state: dict[str, Tensor]) -> Any:
    return {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}


def something_else(state: dict[str, Tensor]) -> Any:
    return {"conv1.weight": torch.ones(3, 3), "fc.bias": torch.ones(3)}


_REFUSED_CONTENTS = (
    *(with_lora_inside, two_models, deeper, half_a_tower),
    *(text_tower_alone, lora_alone, optimizer_alone, something_else),
)


def at_another_size(place: Place) -> Made:
    """Positions interpolated to twice the grid, as for training on larger images."""
    model = place.tuned()
    config = CLIPModel.config_class.from_pretrained(place.base)
    config.vision_config.image_size = 64
    larger, state = CLIPModel(config).eval(), model.state_dict()
    name = "vision_model.embeddings.position_embedding.weight"
    grid = state[name][1:].T.reshape(1, 32, 4, 4)
    finer = torch.nn.functional.interpolate(grid, (8, 8), mode="bicubic").reshape(32, 64).T
    state[name] = torch.cat([state[name][:1], finer])
    larger.load_state_dict(state)
    torch.save(larger.state_dict(), place.folder / "larger.pt")
    return place.folder / "larger.pt", embed_by(larger)


def accelerate_state(place: Place) -> Made:
    model = place.tuned()
    save_file(model.state_dict(), place.folder / "model.safetensors")
    torch.save({}, place.folder / "optimizer.bin")
    return place.folder, embed_by(model)


# ---------------------------------------------------------------- open_clip and OpenAI


def open_clip_epoch(place: Place) -> Made:
    model = place.tuned()
    state = under("module.")(open_clip_state_of(model))
    torch.save({"epoch": 1, "name": "run", "state_dict": state}, place.folder / "epoch_1.pt")
    return place.folder / "epoch_1.pt", embed_by(model)


def with_logit_bias(place: Place) -> Made:
    model = place.tuned()
    state = {**open_clip_state_of(model), "logit_bias": torch.tensor(-10.0)}
    torch.save(state, place.folder / "siglip_loss.pt")
    return place.folder / "siglip_loss.pt", embed_by(model)


def open_clip_folder(**vision: Any) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        model = place.tuned()
        save_file(open_clip_state_of(model), place.folder / "open_clip_model.safetensors")
        config = model.config
        heads = config.vision_config.num_attention_heads, config.text_config.num_attention_heads
        towers = {
            "vision_cfg": {"head_width": config.vision_config.hidden_size // heads[0], **vision},
            "text_cfg": {"width": config.text_config.hidden_size, "heads": heads[1]},
        }
        said = {"model_cfg": {"embed_dim": 16, "quick_gelu": True, **towers}}
        said["preprocess_cfg"] = {"mean": [0.5] * 3, "std": [0.25] * 3}
        (place.folder / "open_clip_config.json").write_text(json.dumps(said))
        return place.folder, None if vision else embed_by(model)

    return make


class _Archive(nn.Module):
    """What holds OpenAI's names, to be scripted."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            holder: nn.Module = self
            *parents, leaf = name.split(".")
            for part in parents:
                if part not in dict(holder.named_children()):
                    holder.add_module(part, nn.Module())
                holder = holder.get_submodule(part)
            holder.register_parameter(leaf, nn.Parameter(tensor))
        self.register_buffer("input_resolution", torch.tensor(32))

    def forward(self, x: Tensor) -> Tensor:
        return x


def openai_archive(place: Place) -> Made:
    model = place.tuned()
    torch.jit.save(torch.jit.script(_Archive(open_clip_state_of(model))), place.folder / "B.pt")
    return place.folder / "B.pt", embed_by(model)


def open_clip_resnet(place: Place) -> Made:
    state = open_clip_state_of(place.tuned())
    kept = {n: one for n, one in state.items() if n.partition(".")[2] not in VISION_PARTS}
    torch.save({**kept, "visual.conv1.weight": torch.ones(8, 3, 3, 3)}, place.folder / "RN50.pt")
    return place.folder / "RN50.pt", None


# ---------------------------------------------------------------- one folder too high


def training_output(place: Place) -> Made:
    for step in (500, 1000):
        place.tuned().save_pretrained(place.folder / f"checkpoint-{step}")
    return place.folder, None


def pipeline(place: Place) -> Made:
    tower_of("CLIPVisionModelWithProjection")(place)
    (place.folder / "tower").rename(place.folder / "image_encoder")
    shutil.rmtree(place.folder / "whole")
    (place.folder / "model_index.json").write_text("{}")
    return place.folder, None


def named_adapter(place: Place) -> Made:
    lora = LoraConfig(r=2, target_modules=BOTH)
    get_peft_model(place.pretrained(), lora, "birds").save_pretrained(place.folder)
    return place.folder, None


def lightning_logs(place: Place) -> Made:
    folder = place.folder / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(lightning(place.tuned().state_dict()), folder / "epoch=3.ckpt")
    return place.folder, None


def shards(file: str) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        (place.folder / file).parent.mkdir(parents=True, exist_ok=True)
        (place.folder / file).write_bytes(b"x")
        return place.folder, None

    return make


@dataclass(frozen=True)
class Form:
    """A row: what it is, what makes it, and words of the refusal where it is refused."""

    name: str
    make: Callable[[Place], Made]
    refused: str = ""


_LFS = b"version https://git-lfs.github.com/spec/v1\n"
FORMS = (
    Form("Trainer's checkpoint without tokenizer and preprocessor", trainer_checkpoint),
    Form("folder in half precision", half_precision(torch.float16)),
    Form("folder in bfloat16", half_precision(torch.bfloat16)),
    Form("folder in shards with an index", sharded),
    Form("folder with pytorch_model.bin", pickled_weights),
    Form("folder with model.fp16.safetensors", variant),
    Form("folder saved by DataParallel", prefixed_folder("module.")),
    Form("folder saved by torch.compile", prefixed_folder("_orig_mod.")),
    Form("folder saved by FSDP", prefixed_folder("_fsdp_wrapped_module.")),
    Form("folder saved by a holder", prefixed_folder("model.clip.")),
    Form("CLIPVisionModelWithProjection", tower_of("CLIPVisionModelWithProjection")),
    Form("CLIPVisionModel", tower_of("CLIPVisionModel")),
    Form("CLIPVisionModel that does not say its class", tower_of_no_class("CLIPVisionModel")),
    Form(
        "CLIPVisionModelWithProjection that does not say its class",
        tower_of_no_class("CLIPVisionModelWithProjection"),
    ),
    Form("image tower under a whole model's configuration", tower_of_a_whole_configuration),
    Form("CLIPForImageClassification", tower_of("CLIPForImageClassification")),
    Form("VisionTextDualEncoderModel", dual_encoder),
    Form("LoRA on CLIPModel, both towers", adapter_on("CLIPModel")),
    Form("LoRA on CLIPModel, image tower", adapter_on("CLIPModel", TOWER)),
    Form("LoRA on CLIPVisionModel", adapter_on("CLIPVisionModel")),
    Form("LoRA on …WithProjection", adapter_on("CLIPVisionModelWithProjection")),
    Form("LoRA on …ForImageClassification", adapter_on("CLIPForImageClassification")),
    Form("adapter whose base has moved", adapter_whose_base_is("/home/alice/models/clip")),
    Form("adapter with a relative base", adapter_whose_base_is("../base")),
    Form("adapter of a hub id out of reach", adapter_whose_base_is("openai/clip-vit-base-patch32")),
    Form("adapter without a named base", adapter_whose_base_is(None)),
    Form("adapter with a pinned base", pinned_adapter),
    Form("hub id of an adapter", adapter_in_the_hub),
    Form("hub id of an adapter whose base is lost", adapter_in_the_hub_without_its_base),
    Form("hub id of an image tower", tower_in_the_hub),
    Form("hf-hub: id of open_clip", open_clip_in_the_hub),
    Form("state dict alone, .pt", saved(lambda state: state)),
    Form("state dict alone, .safetensors", saved(lambda state: state, "x.safetensors")),
    Form("Lightning's .ckpt around a CLIP", saved(lightning, "last.ckpt")),
    Form("Lightning's WeightAveraging", saved(lightning_averaging, "last.ckpt")),
    Form("Lightning's WeightAveraging, towers apart", saved(lightning_averaging_apart, "x.ckpt")),
    Form("model_state_dict of DistributedDataParallel", saved(distributed)),
    Form("state dict of torch.compile", saved(under("_orig_mod."))),
    Form("names of FSDP and checkpointing within", saved(wrapped_within)),
    Form("weights and their moving average", saved(averaged)),
    Form("image tower's state dict and a head", saved(tower_only)),
    Form("classifier's state dict around the tower", saved(under_a_classifier)),
    Form("state dict at another image size", at_another_size),
    Form("accelerate's save_state folder", accelerate_state),
    Form("open_clip's epoch file, no name", open_clip_epoch),
    Form("open_clip's file with logit_bias", with_logit_bias),
    Form("open_clip's folder with its configuration", open_clip_folder()),
    Form("OpenAI's TorchScript archive", openai_archive),
    Form("folder, half its weights missing", half_a_folder, "not complete"),
    Form("folder with TensorFlow's weights", of_tensorflow, r"tf_model\.h5"),
    Form("folder with code of its own", with_code, "never runs"),
    Form("folder with an odd configuration", odd_config, "cannot be read"),
    Form("whole module in pytorch_model.bin", broken_weights(_save_module), "other objects"),
    Form("git-lfs pointer", broken_weights(_LFS), "git-lfs pointer"),
    Form("empty file of weights", broken_weights(b""), "empty"),
    Form("tower with another activation", tower_of_another_function, "activation"),
    Form(
        "tower under a whole model's configuration of another activation",
        tower_of_another_whole_configuration,
        "activation",
    ),
    Form("adapter without weights", adapter_without_its_weights, "no weights"),
    Form("adapter of another width", adapter_of_another_model, "does not fit its base"),
    Form("state dict with LoRA inside", saved(with_lora_inside), "merge_and_unload"),
    Form("student and teacher", saved(two_models), "2 times"),
    Form("deeper model's state dict", saved(deeper), "another architecture"),
    Form("half a tower", saved(half_a_tower), "not complete"),
    Form("text tower alone", saved(text_tower_alone), "no image tower"),
    Form("LoRA's weights alone", saved(lora_alone), r"adapter_config\.json"),
    Form("adapter without its configuration", adapter_without_its_config, r"adapter_config\.json"),
    Form("web page in the place of weights", broken_weights(b"<!DOCTYPE html>"), "web page"),
    Form("optimizer's state alone", saved(optimizer_alone), "no tensors"),
    Form("another model's state dict", saved(something_else), "of another model"),
    Form("open_clip's folder of a timm tower", open_clip_folder(timm_model_name="x"), "timm"),
    Form("open_clip's ResNet", open_clip_resnet, "no plain ViT"),
    Form("Trainer's output folder", training_output, "checkpoint-1000"),
    Form("pipeline of diffusers", pipeline, "image_encoder"),
    Form("folder above a named adapter", named_adapter, "birds"),
    Form("folder above Lightning's checkpoints", lightning_logs, r"epoch=3\.ckpt"),
    Form("DeepSpeed's shards", shards("zero_to_fp32.py"), "zero_to_fp32"),
    Form(
        "shards of torch.distributed", shards("pytorch_model_fsdp_0/__0_0.distcp"), "dcp_to_torch"
    ),
)


def _what_became_of(form: Form, base: Any, place: Place) -> str:
    """In a cell of a table: read right, refused well, or not."""
    import driftscope as ds
    from driftscope.errors import ModelError

    source, embed = form.make(place)
    try:
        model = ds.load(source, like=base)
    except ModelError as refusal:
        return "refused well" if embed is None and form.refused else f"REFUSED: {refusal}"
    side = model.image_size
    pixels = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
    if embed is None:
        return "READ, though it is to be refused"
    with torch.no_grad():
        expected = embed((pixels.float() / 255 - 0.5) / 0.25)
    found = model.module.get_image_features((pixels.float() / 255 - 0.5) / 0.25).pooler_output
    difference = float((found - expected).abs().max())
    return f"read right ({difference:.0e})" if difference < 1e-5 else f"WRONG by {difference:.0e}"


def main() -> None:
    """Prints the table of all forms."""
    import os
    import tempfile
    import warnings

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        from conftest import make_tiny_clip
        from rarer_forms import RARER_FORMS

        import driftscope as ds

        root = Path(scratch)
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = str(root / "hub"), True
        folder = make_tiny_clip(root / "tiny", seed=0)
        print("| form | driftscope |\n|---|---|")
        for number, form in enumerate((*FORMS, *RARER_FORMS)):
            (root / str(number)).mkdir()
            place = Place(root / str(number), folder, root / "hub")
            print(f"| {form.name} | {_what_became_of(form, ds.load(folder), place)} |")


if __name__ == "__main__":
    main()
