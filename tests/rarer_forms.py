"""Rarer forms of a fine-tuned CLIP than those of `forms_on_disk`: rows like those, asked alike.

What a form is read as was decided by the library that writes it, before driftscope was asked.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from adapter_forms import ADAPTER_FORMS
from forms_on_disk import (
    Embed,
    Form,
    Made,
    Place,
    embed_by,
    in_the_hub,
    moved,
    open_clip_folder,
    rewritten,
    saved,
    under,
)
from open_clip_states import open_clip_state_of
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import prune

State = dict[str, Tensor]


def _of(part: str, state: State) -> State:
    return {name: one for name, one in state.items() if name.startswith(part)}


def _other(state: State) -> State:
    return {name: one * 1.5 for name, one in state.items()}


# ---------------------------------------------------------------- folders


def _folder(change: Callable[[State], State] = dict, **config: Any) -> Callable[[Place], Made]:
    """A folder whose weights and configuration were changed after it was saved."""

    def make(place: Place) -> Made:
        model = place.tuned()
        model.save_pretrained(place.folder)
        file = place.folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
        rewritten(place.folder / "config.json", **config)
        return place.folder, embed_by(model)

    return make


def _pickled(change: Callable[[State], State]) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        path, embed = _folder(change)(place)
        file = place.folder / "model.safetensors"
        torch.save(load_file(file), place.folder / "pytorch_model.bin")
        file.unlink()
        return path, embed

    return make


def _in_the_hub(change: Callable[[State], State]) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        _, embed = _folder(change)(place)
        in_the_hub(place, "someone/tuned-clip", place.folder)
        return "someone/tuned-clip", embed

    return make


def _in_shards(change: Callable[[State], State]) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        model = place.tuned()
        model.save_pretrained(place.folder, max_shard_size="40KB")
        for file in place.folder.glob("*.safetensors"):
            save_file(change(load_file(file)), file, metadata={"format": "pt"})
        return place.folder, embed_by(model)

    return make


def _one_dimension(state: State) -> State:
    """As FSDP and open_clip's `nonscalar_logit_scale` keep a single number."""
    return {n: one.reshape(1) if n == "logit_scale" else one for n, one in state.items()}


def _narrower(state: State) -> State:
    return {n: one[:8].contiguous() if n == "visual_projection.weight" else one
            for n, one in state.items()}  # fmt: skip


def _in_eight_bits(state: State) -> State:
    return _matrices(state, lambda name, one: {name: one.to(torch.float8_e4m3fn)})


def _rounded(place: Place) -> Made:
    path, _ = _folder(_in_eight_bits)(place)
    state = load_file(Path(path) / "model.safetensors")
    model = place.pretrained()
    model.load_state_dict({name: one.float() for name, one in state.items()})
    return path, embed_by(model)


def _two_sides(place: Place) -> Made:
    made = _refused(_folder())(place)
    config = json.loads((place.folder / "config.json").read_text())
    vision = {**config["vision_config"], "image_size": [32, 32]}
    rewritten(place.folder / "config.json", vision_config=vision)
    return made


def _refused(make: Callable[[Place], Made]) -> Callable[[Place], Made]:
    return lambda place: (make(place)[0], None)


def _matrices(state: State, change: Callable[[str, Tensor], State]) -> State:
    """With every matrix of a block stored otherwise."""
    kept: State = {}
    for name, one in state.items():
        kept |= change(name, one) if one.ndim == 2 and ".layers." in name else {name: one}
    return kept


def _as_bytes(state: State) -> State:
    return _matrices(state, lambda name, one: {name: (100 * one).round().to(torch.int8)})


def _as_scaled_fp8(state: State) -> State:
    def scaled(name: str, one: Tensor) -> State:
        return {name: (8 * one).to(torch.float8_e4m3fn), f"{name}_scale": torch.tensor([0.125])}

    return _matrices(state, scaled)


def _one_text_block_more(state: State) -> State:
    block = "text_model.encoder.layers.0."
    more = {name.replace(".0.", ".1.", 1): one.clone() for name, one in _of(block, state).items()}
    return {**state, **more}


def _both_weight_files(place: Place) -> Made:
    made = _folder()(place)
    torch.save(moved(place.pretrained(), seed=9).state_dict(), place.folder / "pytorch_model.bin")
    return made


def _best_is_marked(place: Place) -> Made:
    for step in (500, 1000):
        folder = place.folder / f"checkpoint-{step}"
        place.tuned().save_pretrained(folder)
        (folder / "trainer_state.json").write_text('{"best_model_checkpoint": "x/checkpoint-500"}')
    return place.folder, None


def _cache_folder(place: Place) -> Made:
    place.tuned().save_pretrained(place.folder / "models--me--clip" / "snapshots" / "0123abc")
    return place.folder / "models--me--clip", None


def _link(place: Place) -> Made:
    model = place.tuned()
    model.save_pretrained(place.folder / "snapshot")
    (place.folder / "link").symlink_to(place.folder / "snapshot")
    return place.folder / "link", embed_by(model)


def _onnx_alone(place: Place) -> Made:
    (place.folder / "model.onnx").write_bytes(b"x")
    return place.folder, None


def _and(name: str) -> Callable[[State], State]:
    """With a weight that no plain model has."""
    return lambda state: {**state, name: torch.ones(4, 32)}


# ---------------------------------------------------------------- files of weights


def _towers_apart(state: State) -> State:
    towers = {**under("images.")(_of("vision_model.", state))}
    towers |= under("texts.")(_of("text", state))
    return {**towers, **_of("visual_projection", state), "logit_scale": state["logit_scale"]}


def two_encoders(state: State) -> State:
    """Two encoders under names of their own, beside their projections."""
    names = {"vision_model.": "image_encoder.", "text_model.": "text_encoder."}
    return {
        next((new + n.removeprefix(old) for old, new in names.items() if n.startswith(old)), n): one
        for n, one in state.items()
    }


def _without(*names: str) -> Callable[[State], State]:
    """Two encoders without some of their weights."""
    return lambda state: {
        n: one for n, one in two_encoders(state).items() if not n.startswith(names)
    }


def _frozen_beside_tuned(state: State) -> State:
    return {**under("frozen.")(_other(state)), **under("student.")(_of("vision", state))}


def _packed(name: str, *, is_tar: bool) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        torch.save(place.tuned().state_dict(), place.folder / "a.pth")
        packed: Any = tarfile.open if is_tar else zipfile.ZipFile
        with packed(place.folder / name, "w") as archive:
            (archive.add if is_tar else archive.write)(place.folder / "a.pth", "a.pth")
        return place.folder / name, None

    return make


def _cut(file: str) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        path = Path(saved(lambda state: state, file)(place)[0])
        path.write_bytes(path.read_bytes()[:-200])
        return path, None

    return make


def _renamed(place: Place) -> Made:
    path, embed = saved(lambda state: state, "x.safetensors")(place)
    return Path(path).rename(place.folder / "x.pt"), embed


def _only(*names: str) -> Callable[[Place], Made]:
    """A folder with files that hold nothing that can be read."""

    def make(place: Place) -> Made:
        for name in names:
            (place.folder / name).parent.mkdir(exist_ok=True)
            (place.folder / name).write_bytes(b"x")
        return place.folder, None

    return make


def _beside_its_projection(state: State) -> State:
    """`{**tower.state_dict(), **projection}` of a training of one's own."""
    tower = {name.removeprefix("vision_model."): one for name, one in state.items()}
    projection = {"visual_projection.weight": state["visual_projection.weight"]}
    return {name: one for name, one in tower.items() if name not in state} | projection


def _tower_and_projection(place: Place) -> Made:
    model = moved(place.pretrained(), "vis")
    torch.save(_beside_its_projection(model.state_dict()), place.folder / "x.pt")
    return place.folder / "x.pt", embed_by(model)


def _ones(*names: str) -> Callable[[State], State]:
    return lambda state: {name: torch.ones(4, 32) for name in names}


def _one(name: str) -> Callable[[Place], Made]:
    return lambda place: (Path(saved(dict, "x.pt")(place)[0]).rename(place.folder / name), None)


LAYER = "vision_model.encoder.layers.0.self_attn.q_proj"


def _with(name: str) -> Callable[[Place], Made]:
    return _refused(saved(lambda state: {**state, name: torch.ones(4, 32)}))


def _reparametrized(way: Callable[..., nn.Module], **options: Any) -> Callable[[Place], Made]:
    """One layer's weight kept in parts, which a training has moved."""

    def make(place: Place) -> Made:
        model = place.tuned()
        layer = way(model.get_submodule(LAYER), "weight", **options)
        with torch.no_grad():
            next(layer.parameters()).mul_(1.3)
        torch.save(model.eval().state_dict(), place.folder / "x.pt")
        return place.folder / "x.pt", embed_by(model)

    return make


def _in_a_folder(make: Callable[[Place], Made]) -> Callable[[Place], Made]:
    def make_folder(place: Place) -> Made:
        path, embed = make(place)
        place.pretrained().config.save_pretrained(place.folder)
        Path(path).rename(place.folder / "pytorch_model.bin")
        return place.folder, embed

    return make_folder


def _of_other_libraries(place: Place) -> Made:
    (place.folder / "clip.gguf").write_bytes(b"GGUF")
    return place.folder / "clip.gguf", None


# ---------------------------------------------------------------- open_clip


def _open_clip(content: Callable[[State], Any]) -> Callable[[Place], Made]:
    def make(place: Place) -> Made:
        model = place.tuned()
        torch.save(content(open_clip_state_of(model)), place.folder / "x.pt")
        embed: Embed = embed_by(model)
        return place.folder / "x.pt", embed

    return make


def _visual(state: State) -> State:
    return {
        name.removeprefix("visual."): one for name, one in state.items() if name[:7] == "visual."
    }


def _flyp(state: State) -> Any:
    held = under("module.image_encoder.model.")(state)
    return {"state_dict": {**held, "module.classification_head.weight": torch.ones(3, 16)}}


def _with_average(state: State) -> Any:
    return {"state_dict": under("module._orig_mod.")(state), "state_dict_ema": _other(state)}


RARER_FORMS = (
    Form("pytorch_model.bin and model.safetensors, which differ", _both_weight_files),
    Form("folder without `architectures`", _folder(architectures=None)),
    Form("link to a snapshot of the hub's cache", _link),
    Form("folder that asks for tuples and maps",
         _folder(return_dict=False, output_attentions=True, dtype="torch.float16")),
    Form("folder in fp8 without scales", _rounded),
    Form("folder with a logit scale of one dimension", _folder(_one_dimension)),
    Form("pytorch_model.bin with a logit scale of one dimension", _pickled(_one_dimension)),
    Form("hub id of a model with a logit scale of one dimension", _in_the_hub(_one_dimension)),
    Form("folder in shards with a logit scale of one dimension", _in_shards(_one_dimension)),
    Form("folder with a projection of another shape",
         _refused(_folder(_narrower)), r"_projection\.weight is \(8, 32\) in it and \(16,"),
    Form("folder with two sides of an image", _two_sides, "image_size"),
    *ADAPTER_FORMS,
    Form("weights and `state_dict_ema`", saved(lambda s: {"m": s, "m_ema": _other(s)})),
    Form("AveragedModel", saved(lambda s: {**under("module.")(s), "n_averaged": torch.tensor(3)})),
    Form("`module._orig_mod.`", saved(under("module._orig_mod."))),
    Form("DeepSpeed's mp_rank file", saved(lambda s: {"module": s, "optimizer": None})),
    Form("logit scale of one dimension", saved(lambda s: {**s, "logit_scale": torch.ones(1)})),
    Form("towers and projection in different places", saved(_towers_apart)),
    Form("two encoders with names of their own", saved(two_encoders)),
    Form("two encoders in a trainer's checkpoint",
         saved(lambda s: {"model": under("module.")(two_encoders(s))})),
    Form("image encoder and both projections", saved(_without("text_encoder."))),
    Form("two encoders without a text projection", saved(_without("text_projection."))),
    Form("image tower by itself beside a whole text tower",
         saved(lambda s: {n.removeprefix("vision_model."): one for n, one in s.items()})),
    Form("text encoder alone",
         _refused(saved(_without("image_encoder.", "visual", "text_p"))), "texts' side"),
    Form("half an image encoder",
         _refused(saved(_without("image_encoder.encoder.layers.0."))), "not complete"),
    Form("tower of LLaVA's names", saved(lambda s: under("vision_tower.")(_of("vision", s)))),
    Form("tower without its name, and its projection", _tower_and_projection),
    Form("trained weights alone",
         _refused(saved(lambda s: _of("vision_model.encoder.layers.1.", s))), "not complete"),
    Form("projections alone", _refused(saved(_ones("text_projection.weight"))), "texts' side"),
    Form("kohya's LoRA", _refused(saved(_ones("lora_te_layers_0_fc1.lora_down.weight"))),
         "an adapter's weights alone"),
    Form("textual inversion", _refused(saved(_ones("<cat>"))), "of another model"),
    Form("quanto's whole numbers", _with(f"{LAYER}.weight._data"), "quantised"),
    Form("MLX's order of axes", _refused(saved(
        lambda s: {n: one.movedim(1, -1) if one.ndim == 4 else one for n, one in s.items()}
    )), "another architecture"),
    Form("student's weights alone", saved(under("student."))),
    Form("ema-pytorch's average alone", saved(under("ema_model."))),
    Form("momentum encoder beside", _refused(saved(
        lambda s: {**under("base_encoder.")(s), **under("momentum_encoder.")(_other(s))}
    )), "2 times"),
    Form("one part of several", _one("model-00002-of-00002.safetensors"), "one of several parts"),
    Form("one part of one", saved(dict, "model-00001-of-00001.safetensors")),
    Form("one shard of FSDP",
         _one("__0_0.distcp"), "dcp_to_torch"),
    Form("safetensors under another name", _renamed),
    Form("open_clip's image tower alone", _open_clip(lambda s: under("visual.")(_visual(s)))),
    Form("`model.visual.state_dict()`", _open_clip(_visual)),
    Form("classifier on open_clip's tower",
         _open_clip(lambda s: {**under("net.")(_visual(s)), "head.weight": torch.ones(3, 16)})),
    Form("FLYP's and WiSE-FT's ImageClassifier", _open_clip(_flyp)),
    Form("open_clip's weights and their average", _open_clip(_with_average)),
    Form("CustomTextCLIP", _open_clip(
        lambda s: {n if n[:6] in ("visual", "logit_") else f"text.{n}": one for n, one in s.items()}
    )),
    Form("Trainer's output with a best checkpoint", _best_is_marked, "checkpoint-500 as the best"),
    Form("folder of the hub's cache", _cache_folder, "snapshots/0123abc"),
    Form("folder with ONNX alone", _onnx_alone, r"model\.onnx"),
    Form("bitsandbytes", _refused(_folder(quantization_config={"quant_method": "bitsandbytes"})),
         r"quantised \(bitsandbytes\)"),
    Form("whole numbers, not said", _refused(_folder(_as_bytes)), "stored as I8"),
    Form("fp8 with scales", _refused(_folder(_as_scaled_fp8)), "weight_scale"),
    Form("folder with a layer beside", _folder(_and("image_adapter.weight"))),
    Form("folder with prompts", _refused(_folder(_and("vision_model.prompts"))), "put in between"),
    Form("folder with LoRA inside",
         _refused(_folder(_and("text_model.encoder.layers.0.mlp.fc1.lora_A.weight"))), "adapter's"),
    Form("more text blocks than told", _refused(_folder(_one_text_block_more)), r"layers\.1\."),
    Form("factor where its logarithm belongs",
         _refused(saved(lambda s: {**s, "logit_scale": torch.tensor(100.0)})), "logarithm"),
    Form("frozen copy beside the tower", _refused(saved(_frozen_beside_tuned)), "2 image towers"),
    Form("parametrized weights",
         _refused(saved(lambda s: {n.replace("fc1.w", "fc1.parametrizations.w"): one
                                   for n, one in s.items()})), "remove_parametrizations"),
    Form("weight norm", _reparametrized(nn.utils.weight_norm)),
    Form("weight norm, parametrized", _reparametrized(nn.utils.parametrizations.weight_norm)),
    Form("weight norm of the whole matrix", _reparametrized(nn.utils.weight_norm, dim=None)),
    Form("weight norm, a folder", _in_a_folder(_reparametrized(nn.utils.weight_norm))),
    Form("spectral norm", _reparametrized(nn.utils.spectral_norm)),
    Form("spectral norm, parametrized", _reparametrized(nn.utils.parametrizations.spectral_norm)),
    Form("pruned", _reparametrized(prune.l1_unstructured, amount=0.5)),
    Form("loralib's matrices inside", _with(f"{LAYER}.lora_A"), r"model\.eval"),
    Form("VPT's prompts inside", _with("vision_model.prompts"), "put in between"),
    Form("whole numbers beside their scale", _with(f"{LAYER}.SCB"), "quantised"),
    Form("gradients", _refused(saved(lambda s: {"grads": s})), "and no weights"),
    Form("changes of weights",
         _refused(saved(lambda s: {n: one * 0.01 for n, one in s.items()})), "changes of weights"),
    Form("torch's file named .pth.tar", saved(dict, "model-best.pth.tar")),
    Form("torch's file without an ending", saved(dict, "checkpoint")),
    Form("ZeRO-3's part", _refused(saved(
        lambda s: {"module": {n: torch.empty(0) for n in s}})), "without its numbers"),
    Form("a trainer's state alone", _only("optimizer.pt", "scheduler.pt"), "a trainer's state"),
    Form("shards without their index",
         _only("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), "index"),
    Form("FSDP's shards beside the optimizer's",
         _only("optimizer_0/__0_0.distcp", "pytorch_model_fsdp_0/__0_0.distcp"), "fsdp_0 OUT"),
    Form("open_clip's folder, another's configuration",
         _refused(open_clip_folder(image_size=64)), "says vision_cfg image_size 64"),
    Form("CoOp's prompts", _refused(saved(lambda s: {"ctx": torch.ones(4, 32)})), "prompts"),
    Form("tar named .pt", _packed("x.pt", is_tar=True), "archive of files; unpack"),
    Form("zip named .pt", _packed("x.pt", is_tar=False), "archive of files; unpack"),
    Form("tar", _packed("x.tar", is_tar=True), "archive; unpack"),
    Form("torch file, cut off", _cut("x.pt"), "cut off"),
    Form("safetensors, cut off", _cut("x.safetensors"), "cut off"),
    Form("GGUF", _of_other_libraries, "none of weights"),
    Form("open_clip in whole numbers", _refused(_open_clip(
        lambda s: {n: one.to(torch.int8) if "resblocks" in n else one for n, one in s.items()}
    )), "int8"),
)  # fmt: skip
