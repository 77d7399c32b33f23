"""timm's and open_clip's own models, read by their own forward; run by `test_open_clip_real.py`.

Every attention row is compared with the softmax that the library itself computes when it is told
not to use torch's fused attention.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import tokenizers
import torch
import transformers
from full_map_signals import patch_to_patch_entropy_bits
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image
from random_models import random_pixels
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

import driftscope as ds
from driftscope.adapt import adapt, export_merged, save_adapted
from driftscope.adapt.parts import trained_parts
from driftscope.backbones import find_image_tower
from driftscope.backbones.capture import capture_cls
from driftscope.backbones.library import OpenClipModel, TimmTower
from driftscope.backbones.weights import encoder_fingerprint, encoder_weights, text_fingerprint
from driftscope.comparison import compare
from driftscope.config import FullFineTuning
from driftscope.config.interventions import Restore
from driftscope.config.variants import Lora
from driftscope.data.given import some_pixels
from driftscope.errors import CaptureError, ModelError, NoteWarning
from driftscope.monitor.kept_models import keep_model
from driftscope.reference import make_reference
from driftscope.sources.live import find_target, from_target, live_model

for place in (transformers.utils, transformers.utils.import_utils):
    place.is_timm_available = lambda: True  # of torchvision there is a stand-in only
transformers.utils.import_utils.BACKENDS_MAPPING["timm"] = (lambda: True, "")
TimmWrapperConfig: Any = transformers.TimmWrapperConfig
TimmWrapperModel: Any = transformers.TimmWrapperModel
TimmWrapperForImageClassification: Any = transformers.TimmWrapperForImageClassification

SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 4}
TEXT = {"context_length": 16, "vocab_size": 43, "width": 64, "heads": 2, "layers": 1}
TOWERS: dict[str, dict[str, Any]] = {
    "vit_small_patch16_224": {**SMALL, "img_size": 64},
    "vit_small_patch14_reg4_dinov2": {**SMALL, "img_size": 56},
    "vit_small_patch16_dinov3": {**SMALL, "img_size": 64},
    "eva02_base_patch16_clip_224": {**SMALL, "img_size": 64},
    "vit_base_mci_224": {"depth": 1, "img_size": 64},
    "vit_pe_core_tiny_patch16_384": {**SMALL, "img_size": 64},
    "vit_base_patch16_siglip_224": {**SMALL, "img_size": 64},
}
"""ViTs whose attention is told; their poolings are a CLS token, a mean and a probe."""
UNTOLD = {
    "beit_base_patch16_224": ({**SMALL, "img_size": 64}, "adds a bias"),
    "fastvit_t8": (
        {"layers": (1, 1, 1, 1), "embed_dims": (48, 48, 96, 96)},
        "maps of places",
    ),
    "test_resnet": ({}, "maps of places"),
    "deit_tiny_distilled_patch16_224": ({**SMALL, "img_size": 64}, "mean of two tokens"),
}


@cache
def tower(name: str) -> Any:
    settings = TOWERS.get(name) or UNTOLD[name][0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, **settings).eval()
        shaken(model, 0.1)
    return model


def shaken(model: nn.Module, by: float = 0.02) -> Any:
    """The model with its image tower moved, so that no bias or gate is as it was made."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if not name.startswith(("text", "transformer", "logit", "token_embedding")):
                one.add_(by * torch.randn(one.shape, generator=generator))
    return model


def pixels_for(model: nn.Module, count: int = 5) -> Tensor:
    size = TimmTower(model).config.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(2))


def unfused(model: nn.Module, pixels: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
    """The softmax maps of a copy's blocks, their outputs, and its attention pool's row."""
    plain: Any = copy.deepcopy(model)
    maps: list[Tensor] = []
    states: list[Tensor] = []
    rows: list[Tensor] = []
    softmax = torch.Tensor.softmax
    for module in plain.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    for block in plain.blocks:
        block.attn.attn_drop.register_forward_hook(lambda _m, given, _o: maps.append(given[0]))
        block.register_forward_hook(lambda _m, _i, output: states.append(output))
    if plain.attn_pool is not None:

        def pool_softmax(products: Tensor, **named: Any) -> Tensor:
            rows.append(softmax(products, **named))
            return rows[-1]

        def begin(_module: nn.Module, _inputs: Any) -> None:
            torch.Tensor.softmax = pool_softmax  # type: ignore[assignment, method-assign]

        plain.attn_pool.register_forward_pre_hook(begin)
    try:
        with torch.no_grad():
            plain(pixels)
    finally:
        torch.Tensor.softmax = softmax  # type: ignore[method-assign]
    return maps, states, rows[0][:, :, 0] if rows else None


@pytest.mark.parametrize("name", TOWERS)
def test_a_timm_tower_is_read_as_timm_computes(name: str) -> None:
    model, pixels = tower(name), pixels_for(tower(name))
    read = TimmTower(model)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
        with capture_cls(read, maps=True) as captured:
            found = read.get_image_features(pixels)
    assert torch.equal(found, expected)
    maps, states, pool_row = unfused(model, pixels)
    prefix, pools = model.num_prefix_tokens, model.global_pool
    if pool_row is not None:
        own = [pool_row[..., -(maps[0].shape[-1] - prefix) :]]
    elif pools == "token":
        own = [layer[:, :, 0, prefix:] for layer in maps]
    else:
        of_patches = [layer[:, :, prefix:, prefix:] for layer in maps]
        own = [(one / one.sum(dim=-1, keepdim=True)).mean(dim=2) for one in of_patches]
    for row, layer in zip(captured.rows, own, strict=True):
        torch.testing.assert_close(row, layer / layer.sum(dim=-1, keepdim=True), atol=1e-5, rtol=0)
    for state, tokens in zip(captured.cls_states, states, strict=True):
        patches = tokens[:, prefix:].mean(dim=1)
        own_state = tokens[:, 0] if pools == "token" else patches
        torch.testing.assert_close(state, own_state, atol=1e-4, rtol=1e-4)
    for entropies, layer in zip(captured.patch_to_patch_entropy_bits, maps, strict=True):
        full = patch_to_patch_entropy_bits(layer.double(), prefix)
        np.testing.assert_allclose(entropies.numpy(), full.numpy(), atol=1e-4)
    identity = product = torch.eye(maps[0].shape[-1])
    for layer in maps:
        product = (0.5 * layer.mean(dim=1) + 0.5 * identity) @ product
    if pool_row is not None:
        unseen = maps[0].shape[-1] - pool_row.shape[-1]
        whole = torch.nn.functional.pad(pool_row.mean(dim=1), (unseen, 0))
        rollout = (whole[:, None] @ product)[:, 0, prefix:]
    elif pools == "token":
        rollout = product[:, 0, prefix:]
    else:
        rollout = product[:, prefix:, prefix:].mean(dim=1)
    rollout = rollout / rollout.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(captured.rollout, rollout, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", UNTOLD)
def test_attention_that_cannot_be_told_is_absent_with_its_reason(name: str) -> None:
    model, why = tower(name), UNTOLD[name][1]
    read, pixels = TimmTower(model), pixels_for(tower(name))
    raw = random_pixels(6, size=pixels.shape[-1])
    reading = ds.read(read, raw, maps=True, mean=(0.5,) * 3, std=(0.5,) * 3)
    moved = ds.read(TimmTower(shaken(copy.deepcopy(model))), raw, mean=(0.5,) * 3, std=(0.5,) * 3)
    change = ds.drift(moved, reading)
    assert reading.entropy is None
    assert change.delta_entropy_pct is None
    assert why in change.unmeasured["delta_entropy_pct"]
    assert change.embedding_drift > 0
    assert len(change.cka_per_block) == len(read.image_tower().blocks)
    assert all(0 < one < 1 for one in change.cka_per_block)
    assert type(reading).from_dict(reading.to_dict()).unread == reading.unread
    with pytest.raises(CaptureError, match=why), capture_cls(read, differentiable=True):
        pass


def drift_by_block(before: Any, after: Any) -> list[float]:
    """The relative change of every block's weights and statistics, of two image towers."""

    def numbers(block: nn.Module) -> Tensor:
        held = [one for name, one in block.named_buffers() if "running" in name]
        return torch.cat([one.flatten() for one in (*block.parameters(), *held)])

    found = []
    for one, own in zip(
        *(find_image_tower(model).blocks for model in (before, after)), strict=True
    ):
        weights, moved = numbers(one), numbers(own)
        found.append(float((moved - weights).norm() / weights.norm()))
    return found


@pytest.mark.parametrize("name", ["vit_small_patch16_224", *UNTOLD])
def test_weights_drift_by_the_blocks_that_are_read(name: str) -> None:
    before = tower(name)
    after = shaken(copy.deepcopy(before))
    raw = random_pixels(4, size=TimmTower(before).config.image_size)
    seen = ds.Monitor(before, raw, echo=None).observe(after, step=1)
    expected = drift_by_block(TimmTower(before), TimmTower(after))
    assert seen.drift.weight_drift_per_layer == pytest.approx(expected, rel=1e-4)


def test_statistics_of_batch_norms_that_move_are_no_unchanged_encoder() -> None:
    before, raw = tower("test_resnet"), random_pixels(8, size=160)
    after = copy.deepcopy(before).train()
    with torch.no_grad():
        after(torch.randn(8, 3, 160, 160, generator=torch.Generator().manual_seed(3)))
    assert all(
        torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)
    )
    seen = ds.Monitor(before, raw, echo=None).observe(after, step=20)
    assert seen.drift.embedding_drift > 0
    assert seen.drift.weight_drift > 0
    assert not [one for one in seen.alerts if one.kind == "unchanged"]


def test_a_run_on_batch_norms_keeps_the_statistics_that_its_weights_are_saved_without(
    tmp_path: Path,
) -> None:
    config = {"architecture": "test_resnet", "model_args": {}, "pretrained_cfg": {}}
    TimmWrapperModel(TimmWrapperConfig(**config)).save_pretrained(tmp_path / "before")
    model, raw = ds.load(tmp_path / "before"), random_pixels(8, size=160)
    adapted = adapt(model, FullFineTuning(), 3, seed=0)
    adapted.train()
    adapted.logits(raw).square().sum().backward()
    with torch.no_grad():
        for one in adapted.trainable().values():
            one.sub_(0.01 * one.grad.sign())
    save_adapted(adapted, model, tmp_path / "after")
    again = ds.load(tmp_path / "after")
    torch.testing.assert_close(again.embed_images(raw), adapted.model.embed_images(raw))


# ------------------------------------------------------------------ folders of timm


def timm_folder(folder: Path, kind: Any = TimmWrapperModel, model: Any = None, **more: Any) -> Path:
    """What transformers writes of a small ViT of timm."""
    said = {"mean": [0.4] * 3, "std": [0.2] * 3, "interpolation": "bicubic", "crop_pct": 0.8}
    config = TimmWrapperConfig(
        architecture="vit_small_patch16_224",
        model_args={**SMALL, "img_size": 64},
        pretrained_cfg={**said, "input_size": [3, 64, 64]},
        **more,
    )
    wrapper = kind(config)
    state = (model or tower("vit_small_patch16_224")).state_dict()
    weights = {name: one for name, one in state.items() if not name.startswith("head.")}
    wrapper.timm_model.load_state_dict(weights, strict=False)
    wrapper.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return timm_folder(tmp_path_factory.mktemp("timm") / "before")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that was trained from the same."""
    model = shaken(copy.deepcopy(tower("vit_small_patch16_224")))
    folder = tmp_path_factory.mktemp("timm") / "after"
    return timm_folder(folder, TimmWrapperForImageClassification, model, num_labels=3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split in ("train", "test"):
        for channel, name in enumerate(("red", "green")):
            (root / split / name).mkdir(parents=True)
            for index in range(6):
                values = random.integers(0, 120, (70, 90, 3))
                values[..., channel] += 120
                image = Image.fromarray(values.astype("uint8"))
                image.save(root / split / name / f"{index}.png")
    return root


def test_folders_of_timm_are_compared_by_features(
    pretrained: Path, tuned: Path, photos: Path
) -> None:
    with pytest.warns(NoteWarning, match="short side 80"):
        before = ds.load(pretrained)
    assert (before.mean, before.image_size) == ((0.4,) * 3, 64)
    found = compare(pretrained, tuned, photos / "test", transfer=photos)
    pixels = ds.open_dataset(photos / "test").pixels(range(12), before.framing)
    values = before.normalise(pixels)
    after = TimmWrapperModel.from_pretrained(tuned).timm_model.eval()
    with torch.no_grad():
        own = [
            one.forward_head(one.forward_features(values), pre_logits=True)
            for one in (tower("vit_small_patch16_224"), after)
        ]
    expected = 1 - float(cosine_similarity(*own).mean())
    assert found.drift.embedding_drift == pytest.approx(expected, abs=1e-6)
    assert found.drift.delta_entropy_pct is not None
    assert found.unmeasured["text_kl_nats"].endswith("has no text tower")
    assert {one.rpartition(" (")[2] for one in found.transfer} == {"k-NN)", "linear probe)"}


def test_a_folder_of_timms_own_hub_is_loaded(pretrained: Path, tmp_path: Path) -> None:
    said = {"architecture": "vit_small_patch16_224", "num_classes": 0, "global_pool": "token"}
    more = {"model_args": {**SMALL, "img_size": 64}, "pretrained_cfg": {"input_size": [3, 64, 64]}}
    (tmp_path / "config.json").write_text(json.dumps({**said, **more}))
    state = tower("vit_small_patch16_224").state_dict()
    save_file(
        {n: one for n, one in state.items() if "head" not in n}, tmp_path / "model.safetensors"
    )
    raw = random_pixels(3, size=64)
    model = ds.load(tmp_path)
    assert model.mean == (0.485, 0.456, 0.406)
    before = ds.load(pretrained)
    with torch.no_grad():
        values = model.normalise(raw)
        assert torch.equal(
            model.module.get_image_features(values), before.module.get_image_features(values)
        )


@pytest.mark.parametrize("method", [Lora(), FullFineTuning()])
def test_methods_train_a_timm_tower_and_it_is_exported(
    method: Any, pretrained: Path, tmp_path: Path
) -> None:
    model, raw = ds.load(pretrained), random_pixels(3, size=64)
    adapted = adapt(model, method, 3, seed=0)
    torch.testing.assert_close(adapted.model.embed_images(raw), model.embed_images(raw))
    names = [one for one in adapted.trainable() if one.startswith("encoder.")]
    if isinstance(method, Lora):
        assert len(names) == 2 * len(find_image_tower(model.module).blocks)
        assert all("attn.qkv" in one for one in names)
    assert all("attn." in one for one in trained_parts(adapted, Restore(what="attention")))
    with pytest.raises(ModelError, match="keeps queries, keys and values in one weight"):
        trained_parts(adapted, Restore(what="queries_keys"))
    adapted.logits(raw).square().sum().backward()
    assert not [one for one, weight in adapted.trainable().items() if weight.grad is None]
    shaken(adapted.model.module)
    export_merged(adapted.model, tmp_path / "merged")
    again = ds.load(tmp_path / "merged")
    torch.testing.assert_close(again.embed_images(raw), adapted.model.embed_images(raw))


@pytest.mark.parametrize("is_held", [False, True])
def test_a_timm_module_in_training_is_monitored_and_kept(
    is_held: bool, pretrained: Path, tmp_path: Path
) -> None:
    before: Any = tower("vit_small_patch16_224")
    after = shaken(copy.deepcopy(before))
    if is_held:
        before, holder = TimmWrapperModel.from_pretrained(pretrained), copy.copy(after)
        after = TimmWrapperModel(before.config)
        after.timm_model.load_state_dict(holder.state_dict(), strict=False)
    raw = random_pixels(8, size=64)
    monitor = ds.Monitor(before, raw, echo=None)
    seen = monitor.observe(after.train(), step=1)
    assert after.training
    reference = make_reference(from_target(find_target(before)), raw, vocabulary=None)
    live = live_model(find_target(after), reference.pretrained)
    framed = some_pixels(raw, reference.pretrained.framing, 64, "images")[1]
    expected = cosine_similarity(
        reference.pretrained.embed_images(framed), live.embed_images(framed)
    ).mean()
    assert seen.scalars()["embedding_drift"] == pytest.approx(1 - float(expected), abs=1e-6)
    keep_model(find_target(after), live, reference, tmp_path / "kept")
    kept = ds.load(tmp_path / "kept")
    torch.testing.assert_close(kept.embed_images(raw), live.embed_images(raw))


# ------------------------------------------------------------------ open_clip


def open_clip_of(trunk: str, **more: Any) -> Any:
    """A model of open_clip around a small tower of timm."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vision = {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160}
        if trunk:
            vision |= {"timm_proj": "linear"}
        model = CustomTextCLIP(embed_dim=32, vision_cfg=vision, text_cfg=TEXT, **more).eval()
        if trunk:
            model.visual.trunk = copy.deepcopy(tower(trunk))
            model.visual.trunk.reset_classifier(0)
            size = TimmTower(tower(trunk)).config.image_size
            model.visual.image_size = (size, size)
            width = model.visual.trunk.num_features
            model.visual.head = nn.Sequential(nn.Linear(width, 32, bias=False))
    return model


def texts() -> Tensor:
    tokens = torch.randint(1, 42, (6, 16), generator=torch.Generator().manual_seed(1))
    tokens[:, 9], tokens[:, 10:] = 42, 0
    return tokens


@pytest.mark.parametrize(
    "trunk", ["vit_pe_core_tiny_patch16_384", "eva02_base_patch16_clip_224", "fastvit_t8"]
)
def test_what_open_clip_builds_on_timm_is_monitored_by_its_own_forward(trunk: str) -> None:
    before = open_clip_of(trunk)
    after = shaken(copy.deepcopy(before))
    size = before.visual.image_size[0]
    raw = random_pixels(8, size=size)
    seen = ds.Monitor(before, raw, echo=None).observe(after, step=1)
    read = from_target(find_target(before))
    with torch.no_grad():
        own = [one.encode_image(read.normalise(raw)) for one in (before, after)]
        assert torch.equal(read.module.get_text_features(texts()), before.encode_text(texts()))
    expected = 1 - float(cosine_similarity(*own).mean())
    assert seen.drift.embedding_drift == pytest.approx(expected, abs=1e-6)
    assert (seen.drift.delta_entropy_pct is None) == (trunk == "fastvit_t8")
    assert read.logit_scale == pytest.approx(before.logit_scale.exp().item())
    assert read.logit_bias is None
    expected = drift_by_block(*(OpenClipModel(one) for one in (before, after)))
    assert seen.drift.weight_drift_per_layer == pytest.approx(expected, rel=1e-4)


def test_the_projection_behind_a_tower_of_timm_is_of_the_image_encoder() -> None:
    before = open_clip_of("eva02_base_patch16_clip_224")
    after = copy.deepcopy(before)
    with torch.no_grad():
        after.visual.head[0].weight.mul_(1.5)
    own, trained = OpenClipModel(before), OpenClipModel(after)
    raw = random_pixels(8, size=64)
    seen = ds.Monitor(before, raw, echo=None).observe(after, step=20)
    norms = [float(one.norm()) ** 2 for one in before.visual.parameters()]
    head = float(before.visual.head[0].weight.norm())
    assert seen.drift.weight_drift == pytest.approx(0.5 * head / sum(norms) ** 0.5, rel=1e-4)
    assert not seen.alerts
    read, changed = (from_target(find_target(one)) for one in (before, after))
    assert encoder_fingerprint(read) != encoder_fingerprint(changed)
    assert text_fingerprint(read) == text_fingerprint(changed)
    names = {f"visual.{name}" for name, _ in before.visual.named_parameters()}
    assert encoder_weights(own).keys() == encoder_weights(trained).keys() == names


@pytest.mark.parametrize(
    ("vision", "text"),
    [({"no_ln_pre": True}, {}), ({"ls_init_value": 0.5}, {}), ({}, {"no_causal_mask": True})],
    ids=str,
)
def test_an_open_clip_vit_that_is_no_plain_one_is_read_with_its_attention(
    vision: dict[str, Any], text: dict[str, Any]
) -> None:
    sizes = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(32, {**sizes, **vision}, {**TEXT, **text}).eval()
    read = from_target(find_target(model))
    assert isinstance(read.module, OpenClipModel)
    values = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = model.encode_image(values)
        with capture_cls(read.module) as captured:
            assert torch.equal(read.module.get_image_features(values), expected)
        block = model.visual.transformer.resblocks[0]
        tokens = block.ln_1(model.visual._embeds(values))
        _, maps = block.attn(tokens, tokens, tokens, average_attn_weights=False)
    row = maps[:, :, 0, 1:] / maps[:, :, 0, 1:].sum(dim=-1, keepdim=True)
    torch.testing.assert_close(captured.rows[0], row, atol=1e-5, rtol=0)


def test_a_folder_that_open_clip_writes_of_a_timm_tower_is_compared(
    tmp_path: Path, photos: Path
) -> None:
    vision = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"}
    config = {"embed_dim": 32, "vision_cfg": {**vision, "image_size": 160}, "text_cfg": TEXT}
    said = {
        "model_cfg": {**config, "custom_text": True},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"},
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = CustomTextCLIP(**config).eval()
    after = shaken(copy.deepcopy(before))
    for name, model in (("before", before), ("after", after)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "open_clip_config.json").write_text(json.dumps(said))
        save_file(model.state_dict(), tmp_path / name / "open_clip_model.safetensors")
    found = compare(tmp_path / "before", tmp_path / "after", photos / "test")
    with pytest.warns(NoteWarning, match="squashed"):
        loaded = ds.load(tmp_path / "before")
    values = loaded.normalise(ds.open_dataset(photos / "test").pixels(range(12), loaded.framing))
    with torch.no_grad():
        own = [one.encode_image(values) for one in (before, after)]
    assert found.drift.embedding_drift == pytest.approx(
        1 - float(cosine_similarity(*own).mean()), abs=1e-6
    )
    export_merged(loaded, tmp_path / "again")
    reloaded = open_clip.create_model(f"local-dir:{tmp_path / 'again'}").eval()
    with torch.no_grad():
        torch.testing.assert_close(reloaded.encode_image(values), own[0])
    torch.save({"state_dict": after.state_dict()}, tmp_path / "epoch_2.pt")
    alone = ds.load(tmp_path / "epoch_2.pt", like=loaded)
    with torch.no_grad():
        torch.testing.assert_close(alone.module.get_image_features(values), own[1])
    own_state = after.state_dict()
    weight = "visual.trunk.blocks.1.mlp.fc1.weight"
    for state, told in (
        ({n: one for n, one in own_state.items() if "blocks.1" not in n}, "not complete"),
        ({**own_state, "visual.trunk.prompts": torch.ones(2, 3)}, "prompts, which the model would"),
        ({**own_state, weight: (9 * own_state[weight]).to(torch.int8)}, "int8"),
    ):
        save_file(state, tmp_path / "after" / "open_clip_model.safetensors")
        with pytest.raises(ModelError, match=told):
            ds.load(tmp_path / "after")


# ------------------------------------------------------------------ texts as open_clip reads them

WORDS = "a photo of the don ' t dont st . , - _ Cat cat bernard amp & ; !"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SAID = ["A photo, of the Cat.", "the_cat  don't!", "a &amp; cat", "St. Bernard"]


def word_tokenizer(folder: Path, pad: str = "[PAD]") -> Path:
    """A tokenizer that tells capitals and punctuation, and ends its texts by [SEP]."""
    known = [pad, *(one for one in (*SPECIAL, *dict.fromkeys(WORDS.split())) if one != pad)]
    if pad != "[PAD]":
        known = [*known[1:], pad]  # padding has the last number, and not 0
    numbers = {word: number for number, word in enumerate(known)}
    rules = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="[UNK]"))
    rules.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    rules.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(one, numbers[one]) for one in ("[CLS]", "[SEP]")]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=rules,
        **{"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": pad},
    ).save_pretrained(folder)
    return folder


def open_clip_folder(folder: Path, model: Any, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_file(
        {name: one.contiguous() for name, one in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


@pytest.mark.parametrize("pad", ["[PAD]", "[LAST]"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"clean": "canonicalize"}, {"clean": "lower"}, {"strip_sep_token": True}],
    ids=str,
)
def test_texts_are_cleaned_and_padded_as_the_configuration_says(
    settings: dict[str, Any], pad: str, tmp_path: Path
) -> None:
    text = {**TEXT, "hf_tokenizer_name": "not/there", "tokenizer_kwargs": settings}
    text |= {"pool_type": "last", "no_causal_mask": True}
    vision = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = {name: one for name, one in config.items() if name != "custom_text"}
        model = CustomTextCLIP(**built).eval()
    folder = open_clip_folder(word_tokenizer(tmp_path / "of", pad), model, config)
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    loaded = ds.load(folder)
    with torch.no_grad():
        expected = model.encode_text(tokenize(SAID))
    torch.testing.assert_close(loaded.embed_texts(SAID), expected)
    live = live_model(find_target(model), loaded)  # in training nothing tells its configuration
    torch.testing.assert_close(live.embed_texts(SAID), expected)
    export_merged(loaded, tmp_path / "again")
    torch.testing.assert_close(ds.load(tmp_path / "again").embed_texts(SAID), expected)


@pytest.mark.parametrize(
    "said",
    [
        {"tokenizer_mode": "clips"},
        {"tokenizer_kwargs": {"language": "deu_Latn"}},
        {"tokenizer_kwargs": {"clean": "small"}},
        {"tokenizer_kwargs": {"context_length": "long"}},
        {"tokenizer_kwargs": "canonicalize"},
    ],
    ids=str,
)
def test_settings_of_a_tokenizer_that_are_not_followed_are_refused(
    said: dict[str, Any], tmp_path: Path
) -> None:
    text = {**TEXT, "hf_tokenizer_name": "not/there", "no_causal_mask": True}
    vision = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}
    model = CLIP(32, vision, text).eval()
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": {**text, **said}}
    folder = open_clip_folder(word_tokenizer(tmp_path / "of"), model, config)
    with pytest.raises(ModelError, match="driftscope does not follow") as refusal:
        ds.load(folder)
    assert "\n" not in str(refusal.value)


def roberta(folder: Path, num_tokens: int) -> Path:
    """A text tower of transformers, whose padding is masked by its number."""
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    transformers.RobertaConfig(
        **sizes, num_hidden_layers=1, vocab_size=num_tokens, max_position_embeddings=120,
        pad_token_id=num_tokens - 1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.mark.parametrize("is_coca", [False, True])
def test_a_text_tower_of_transformers_is_built_and_read_as_open_clip_does(
    is_coca: bool, tmp_path: Path
) -> None:
    folder = word_tokenizer(tmp_path / "of", "[LAST]")
    num_tokens = len(transformers.AutoTokenizer.from_pretrained(folder))
    text = {"hf_model_name": str(roberta(tmp_path / "text", num_tokens)), "hf_proj_type": "mlp"}
    text |= {"hf_tokenizer_name": "not/there", "hf_pooler_type": "mean_pooler"}
    vision = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    kind = CustomTextCLIP
    if is_coca:
        kind = CoCa
        vision |= {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
        text |= {**TEXT, "embed_cls": True, "output_tokens": True, "vocab_size": num_tokens}
        for name in ("hf_model_name", "hf_proj_type", "hf_pooler_type"):
            del text[name]
        config |= {"multimodal_cfg": {**TEXT, "attn_pooler_heads": 2}, "custom_text": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {name: one for name, one in config.items() if name != "custom_text"}
        text_cfg = {**text, "hf_model_pretrained": False}
        model = kind(**{**settings, "text_cfg": text_cfg}).eval()
    loaded = ds.load(open_clip_folder(folder, model, config))
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(SAID)
    assert tokens.shape[1] == (16 if is_coca else 77)
    with torch.no_grad():
        expected = model.encode_text(tokens)
    for one in (loaded, live_model(find_target(model), loaded)):
        torch.testing.assert_close(one.embed_texts(SAID), expected)


@pytest.mark.parametrize("pad", ["[PAD]", "[LAST]"])
def test_a_plain_vit_with_a_tokenizer_of_its_own_reads_texts_by_it(
    tmp_path: Path, pad: str
) -> None:
    """open_clip pools at the highest number, be it that of a word or of the padding."""
    folder = word_tokenizer(tmp_path / "of", pad)
    text = {**TEXT, "hf_tokenizer_name": "not/there"}
    vision = {"layers": 1, "width": 64, "head_width": 64, "patch_size": 8, "image_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(32, vision, text).eval()
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    loaded = ds.load(open_clip_folder(folder, model, config))
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(SAID))
    torch.testing.assert_close(loaded.embed_texts(SAID), expected)


def test_code_of_a_text_towers_own_is_neither_run_nor_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    (tmp_path / "text").mkdir()
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (tmp_path / "text" / "config.json").write_text(json.dumps(own))
    (tmp_path / "text" / "own.py").write_text("raise SystemExit('it runs')")
    vision = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}
    text = {"hf_model_name": str(tmp_path / "text"), "hf_pooler_type": "mean_pooler"}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    folder = open_clip_folder(tmp_path / "of", nn.Linear(1, 1), config)
    with pytest.raises(ModelError, match="open_clip cannot build"):
        ds.load(folder)
