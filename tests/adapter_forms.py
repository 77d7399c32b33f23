"""Adapters of PEFT as people save them: rows of the forms on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
import transformers
from forms_on_disk import (
    BOTH,
    TOWER,
    Form,
    Made,
    Place,
    adapter_on,
    behind,
    embed_by,
    moved,
    rewritten,
)
from peft import (
    IA3Config,
    LoraConfig,
    MissConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import nn


def _adapter_and_weights(place: Place) -> Made:
    moved(place.pretrained(), seed=4).save_pretrained(place.folder)
    return adapter_on("CLIPModel", TOWER)(place)


def _merged_beside_its_configuration(kind: str) -> Callable[[Place], Made]:
    """A merged model in the folder where its adapter was, of which the configuration is left."""

    def make(place: Place) -> Made:
        model = getattr(transformers, kind).from_pretrained(place.base)
        trained = moved(get_peft_model(model, LoraConfig(r=4, target_modules=BOTH)), seed=1)
        trained.peft_config["default"].base_model_name_or_path = str(place.base)
        trained.save_pretrained(place.folder)
        (place.folder / "adapter_model.safetensors").unlink()
        merged = trained.merge_and_unload()
        merged.save_pretrained(place.folder)
        if kind == "CLIPModel":
            return place.folder, embed_by(merged)
        return place.folder, behind(merged, place.pretrained().visual_projection)

    return make


def _adapter(config: Any) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        trained = moved(get_peft_model(place.pretrained(), config()), seed=1)
        trained.save_pretrained(place.folder)
        return place.folder, embed_by(trained)

    return make


def _lora(**options: Any) -> Callable[[Place], Made]:
    return _adapter(
        lambda: LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": BOTH, **options})
    )


def _told_otherwise(make: Callable[[Place], Made], **config: Any) -> Callable[[Place], Made]:
    """An adapter whose configuration tells something else than what was trained."""

    def make_and_tell(place: Place) -> Made:
        made = make(place)
        rewritten(place.folder / "adapter_config.json", **config)
        return made

    return make_and_tell


class Holder(nn.Module):
    """A classifier as people write one around a CLIP."""

    def __init__(self, clip: Any, name: str = "clip") -> None:
        super().__init__()
        self.add_module(name, clip)
        self.head = nn.Linear(16, 3)


def _adapter_on_a_holder(targets: Any, name: str = "clip", **options: Any) -> Callable[..., Made]:
    def make(place: Place) -> Made:
        lora = LoraConfig(r=4, target_modules=targets, **options)
        trained: Any = moved(get_peft_model(Holder(place.pretrained(), name), lora), seed=1)
        trained.save_pretrained(place.folder)
        return place.folder, embed_by(trained.base_model.model.get_submodule(name))

    return make


def _renamed(make: Callable[[Place], Made], before: str, after: str) -> Callable[[Place], Made]:
    """An adapter whose weights have something else before their names."""

    def make_and_rename(place: Place) -> Made:
        made = make(place)
        file = place.folder / "adapter_model.safetensors"
        state = load_file(file)
        save_file({after + key.removeprefix(before): one for key, one in state.items()}, file)
        return made

    return make_and_rename


class Beside(nn.Module):
    """An image tower and its projection side by side, as people write one."""

    def __init__(self, tower: nn.Module, clip: Any, name: str = "visual_projection") -> None:
        super().__init__()
        self.net = nn.ModuleDict({"tower": tower, name: clip.visual_projection})
        self.head = nn.Linear(16, 3)
        self.name = name

    def forward(self, values: Any) -> Any:
        return self.net[self.name](self.net["tower"](values).pooler_output)


class OldTower(nn.Module):
    """CLIPVisionModel as transformers 4 has it: its weights are below `vision_model`."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.vision_model = clip.vision_model

    def forward(self, values: Any) -> Any:
        return self.vision_model(values)


def _beside_its_projection(
    tower: Callable[[Any], nn.Module], name: str = "visual_projection", **options: Any
) -> Callable[[Place], Made]:
    """LoRA on a tower in whose holder the projection stands beside it."""

    def make(place: Place) -> Made:
        clip = place.pretrained()
        lora = LoraConfig(**{"r": 4, "target_modules": BOTH, **options})
        trained: Any = moved(get_peft_model(Beside(tower(clip), clip, name), lora), seed=1)
        trained.save_pretrained(place.folder)
        return place.folder, trained.base_model.model

    return make


def _bare_tower(clip: Any) -> nn.Module:
    return clip.vision_model  # type: ignore[no-any-return]


def _tower_and_biased_projection(clip: Any) -> nn.Module:
    own = clip.visual_projection
    clip.visual_projection = nn.Linear(own.in_features, own.out_features)
    return _bare_tower(clip)


def _tower_and_projection_of_layers(clip: Any) -> nn.Module:
    width = clip.visual_projection.in_features
    clip.visual_projection = nn.Sequential(nn.Linear(width, width), clip.visual_projection)
    return _bare_tower(clip)


projection_of_another_name = _beside_its_projection(_bare_tower, "fc", modules_to_save=["fc"])


def _on_another_adapter(place: Place) -> Made:
    below, _ = _lora()(Place(place.folder / "below", place.base, place.cache))
    merged = PeftModel.from_pretrained(place.pretrained(), str(below)).merge_and_unload()
    lora = LoraConfig(r=2, target_modules=["fc1"])
    trained = moved(get_peft_model(merged, lora), seed=2)
    trained.save_pretrained(place.folder / "above")
    named = {"base_model_name_or_path": str(below)}
    rewritten(place.folder / "above" / "adapter_config.json", **named)
    return place.folder / "above", embed_by(trained)


def _of_torch_compile(place: Place) -> Made:
    """Of `get_peft_model(torch.compile(model))`; its task is a word of older versions."""
    path, embed = _lora()(place)
    file = place.folder / "adapter_model.safetensors"
    before = "base_model.model."
    state = {n.replace(before, f"{before}_orig_mod."): one for n, one in load_file(file).items()}
    save_file(state, file)
    rewritten(place.folder / "adapter_config.json", task_type="IMAGE_CLASSIFICATION", r_later=0)
    return path, embed


def _ia3(*targets: str) -> Callable[[Place], Made]:
    return _adapter(lambda: IA3Config(target_modules=list(targets), feedforward_modules=[]))


def _vera(place: Place) -> Made:
    return _adapter(lambda: VeraConfig(r=2, target_modules=BOTH))(place)


def _prompts_of_peft(place: Place) -> Made:
    said = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
    (place.folder / "adapter_config.json").write_text(json.dumps(said))
    save_file({"prompt_embeddings": torch.ones(4, 32)}, place.folder / "adapter_model.safetensors")
    return place.folder, None


def _adapters_tensors(place: Place) -> Made:
    trained = get_peft_model(place.pretrained(), LoraConfig(r=2, target_modules=TOWER))
    torch.save(get_peft_model_state_dict(trained), place.folder / "lora.pt")
    return place.folder / "lora.pt", None


def _converted_pissa(place: Place) -> Made:
    """PiSSA, saved as a LoRA on the base as it was before PiSSA changed it."""
    lora = LoraConfig(r=4, target_modules=BOTH, init_lora_weights="pissa")
    trained: Any = get_peft_model(place.pretrained(), lora)
    trained.save_pretrained(place.folder / "begun")
    embed = embed_by(moved(trained, seed=1).merge_and_unload())
    trained = get_peft_model(place.pretrained(), lora)
    begun = {"path_initial_model_for_weight_conversion": str(place.folder / "begun")}
    moved(trained, seed=1).save_pretrained(place.folder / "saved", **begun)
    return place.folder / "saved", embed


def _says(**config: Any) -> Callable[[Place], Made]:
    """An adapter whose configuration says nothing but this."""

    def make(place: Place) -> Made:
        adapter_on("CLIPModel")(place)
        (place.folder / "adapter_config.json").write_text(json.dumps(config))
        return place.folder, None

    return make


_LEFT_OUT = "does not name, so that PEFT would leave it out"
ADAPTER_FORMS = (
    Form("adapter and whole weights in one folder", _adapter_and_weights),
    Form("merged model beside its adapter's configuration",
         _merged_beside_its_configuration("CLIPModel")),
    Form("merged tower beside its adapter's configuration",
         _merged_beside_its_configuration("CLIPVisionModel")),
    Form("LoRA with its projection saved", _lora(modules_to_save=["visual_projection"])),
    Form("LoRA with rank_pattern", _lora(rank_pattern={"layers.0.self_attn.q_proj": 2})),
    Form("LoRA with alpha_pattern", _lora(alpha_pattern={"layers.1.self_attn.v_proj": 3})),
    Form("LoRA, rank-stabilised", _lora(use_rslora=True)),
    Form("LoRA with biases", _lora(bias="lora_only", target_modules=TOWER)),
    Form("LoRA on one layer", _lora(layers_to_transform=[1], layers_pattern="layers")),
    Form("LoRA on all linear layers", _lora(target_modules="all-linear")),
    Form("DoRA", _lora(use_dora=True)),
    Form("PiSSA", _lora(init_lora_weights="pissa", target_modules=TOWER)),
    Form("IA³", _ia3("k_proj")),
    Form("VeRA", _vera),
    Form("LoRA on a module around a CLIP", _adapter_on_a_holder(
        rf"clip\.{TOWER}", modules_to_save=["head"])),
    Form("LoRA on a module around a CLIP, by names", _adapter_on_a_holder(
        BOTH, modules_to_save=["head"])),
    Form("LoRA on a module around a CLIP that is called `module`",
         _adapter_on_a_holder(rf"module\.{TOWER}", "module")),
    Form("LoRA in DistributedDataParallel's names",
         _renamed(_lora(target_modules=TOWER), "", "module.")),
    Form("LoRA of a module in DistributedDataParallel",
         _renamed(_lora(target_modules=TOWER), "base_model.model.", "base_model.model.module.")),
    Form("LoRA in PEFT's names twice",
         _renamed(_lora(target_modules=TOWER), "", "base_model.model.")),
    Form("LoRA that names what PEFT puts before names", _renamed(
        _told_otherwise(_lora(target_modules=TOWER), target_modules=rf"base_model\.model\.{TOWER}"),
        "", "base_model.model.")),
    Form("LoRA in no more than the layers' names",
         _renamed(_lora(target_modules=TOWER), "base_model.model.", "")),
    Form("VeRA in DistributedDataParallel's names", _renamed(_vera, "", "module.")),
    Form("LoRA on a tower, its projection saved beside it", _beside_its_projection(
        _bare_tower, modules_to_save=["visual_projection", "head"])),
    Form("LoRA on a tower and on the projection beside it", _beside_its_projection(
        _bare_tower, target_modules=[*BOTH, "visual_projection"])),
    Form("LoRA on a tower of transformers 4, its projection saved beside it",
         _beside_its_projection(OldTower, modules_to_save=["visual_projection"])),
    Form("LoRA on a tower, a projection with a bias saved beside it", _beside_its_projection(
        _tower_and_biased_projection, modules_to_save=["visual_projection"]),
        r"a bias \(net\.visual_projection\.bias\).*is one matrix"),
    Form("LoRA on a tower, a projection of two layers saved beside it", _beside_its_projection(
        _tower_and_projection_of_layers,
        modules_to_save=["visual_projection.0", "visual_projection.1"]),
        r"several layers \(net\.visual_projection\.0\..*is one matrix"),
    Form("LoRA with some tokens trained", _lora(
        trainable_token_indices={"token_embedding": [1, 2, 3]})),
    Form("LoRA on a module that is called `module`, but for a layer", _adapter_on_a_holder(
        BOTH, "module", exclude_modules=["module.vision_model.encoder.layers.0.self_attn.q_proj"])),
    Form("LoRA on another LoRA", _on_another_adapter),
    Form("LoRA of torch.compile", _of_torch_compile),
    Form("OLoRA", _lora(init_lora_weights="olora")),
    Form("PiSSA, saved as LoRA", _converted_pissa),
    Form("LoRA on the patches' convolution", _lora(target_modules=["patch_embedding"])),
    Form("LoRA with the whole image tower saved", _lora(
        target_modules=r"text_model.*q_proj", modules_to_save=["vision_model"])),
    Form("MiSS", _adapter(lambda: MissConfig(r=4, target_modules=BOTH))),
    Form("adapter of no kind", _says(r=4), "peft_type"),
    Form("adapter of no layers", _says(peft_type="LORA", r=4), "target_modules"),
    Form("adapter of an odd rank", _says(peft_type="LORA", r="4", target_modules=BOTH), "says r"),
    Form("prompts of PEFT", _prompts_of_peft, "tokens before"),
    Form("rank of another LoRA", _told_otherwise(_lora(), r=8), "another shape in its file"),
    Form("LoRA on more layers than its configuration names", _told_otherwise(
        _lora(), target_modules=["q_proj"]), rf"v_proj\.lora_A.*{_LEFT_OUT}"),
    Form("LoRA on more blocks than its configuration names", _told_otherwise(
        _lora(), layers_to_transform=[0]), rf"layers\.1\..*{_LEFT_OUT}"),
    Form("DoRA, told as LoRA", _told_otherwise(
        _lora(use_dora=True), use_dora=False), rf"lora_magnitude_vector.*{_LEFT_OUT}"),
    Form("LoRA with biases of its own, told without", _told_otherwise(
        _lora(lora_bias=True), lora_bias=False), rf"lora_B\.bias.*{_LEFT_OUT}"),
    Form("IA³ on more layers than its configuration names", _told_otherwise(
        _ia3("k_proj", "v_proj"), target_modules=["k_proj"]), rf"v_proj\.ia3_l.*{_LEFT_OUT}"),
    Form("LoRA with its projection saved, told without", _told_otherwise(
        _lora(modules_to_save=["visual_projection"]), modules_to_save=None)),
    Form("VeRA, its matrices in its file alone", _told_otherwise(_vera, projection_prng_key=77)),
    Form("tensors of an adapter in a file", _adapters_tensors, r"adapter_config\.json"),
)  # fmt: skip
