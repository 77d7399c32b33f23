"""Whatever holds the CLIP, the monitor finds it, reads it as it runs and keeps it loadable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_tiny_clip
from monitored import Classifier, clip_of, monitor_of, moved, with_lora
from test_open_clip import HEAD_DIM, open_clip_state
from torch import nn
from transformers import CLIPModel

import driftscope as ds
from driftscope.backbones.weights import without_adapters
from driftscope.errors import ModelError
from driftscope.sources import open_clip
from driftscope.sources.live import find_target, from_module
from driftscope.sources.open_clip import convert_open_clip
from driftscope.sources.open_clip.weights import TowerFacts

OUT = ds.Thresholds(max_embedding_drift=0.0)
"""Whatever has moved is to stop, so that the model is kept."""


def pixels(count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("wrap", ["plain", "own module", "lora", "lora inside", "lora around"])
def test_the_same_weights_give_the_same_numbers_whatever_holds_them(
    wrap: str, tiny_clip: Path, coloured_images: Path
) -> None:
    model = clip_of(tiny_clip)
    if wrap == "own module":
        model = Classifier(model)
    elif wrap == "lora":
        model = with_lora(model)
    elif wrap == "lora inside":
        model = Classifier(with_lora(model))
    elif wrap == "lora around":
        model = with_lora(Classifier(model))
    moved(model)
    seen = monitor_of(tiny_clip, coloured_images).observe(model, step=1).scalars()
    plain = without_adapters(find_target(model).found)
    expected = monitor_of(tiny_clip, coloured_images).observe(plain, step=1).scalars()
    assert seen["weight_drift"] > 0.001
    for name, value in expected.items():
        assert seen[name] == pytest.approx(value, rel=2e-3, abs=1e-4), name


@pytest.mark.parametrize("kind", ["CLIPVisionModelWithProjection", "CLIPVisionModel"])
def test_an_image_tower_by_itself_is_read_with_the_pretrained_texts(
    kind: str, tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    import transformers

    options: dict[str, Any] = {"projection_dim": 16} if "Projection" in kind else {}
    tower = getattr(transformers, kind).from_pretrained(tiny_clip, **options).train()
    whole = clip_of(tiny_clip)
    moved(nn.ModuleDict({"vision": tower}))
    whole.vision_model.load_state_dict(  # type: ignore[union-attr,operator]
        {
            name.removeprefix("vision_model."): one
            for name, one in tower.state_dict().items()
            if not name.startswith("visual_projection")
        }
    )
    if "Projection" in kind:
        whole.visual_projection.load_state_dict(tower.visual_projection.state_dict())  # type: ignore[union-attr,operator]
    options = {"transfer": str(coloured_images)}  # none of them is a probe image
    assert monitor_of(tiny_clip, pixels()).observe(tower, step=1).alerts == ()
    expected = monitor_of(tiny_clip, pixels(), **options).observe(whole, step=1).scalars()
    monitor = monitor_of(tiny_clip, pixels(), **options, out=tmp_path, alerts=OUT, on_alert="stop")
    seen = monitor.observe(nn.Sequential(tower), step=1).scalars()
    assert seen == pytest.approx(expected, rel=1e-4, abs=1e-6)
    kept = ds.load(tmp_path / "stopped")
    torch.testing.assert_close(
        kept.embed_images(pixels()),
        from_module(whole).embed_images(pixels()),
    )


@pytest.mark.parametrize("name", ["to_clip", "head"])
def test_a_projection_of_another_name_is_told_by_its_weights(name: str, tiny_clip: Path) -> None:
    whole: Any = moved(clip_of(tiny_clip))
    pretrained = clip_of(tiny_clip).visual_projection
    layer = whole.visual_projection if name == "to_clip" else nn.Linear(32, 16, bias=False)
    holder = nn.ModuleDict({"tower": whole.vision_model, name: layer, "more": nn.Linear(16, 3)})
    told: list[str] = []
    seen = ds.Monitor(str(tiny_clip), pixels(), echo=told.append).observe(holder, step=1)
    if name == "head":
        whole.visual_projection = pretrained
    expected = monitor_of(tiny_clip, pixels()).observe(whole, step=1).scalars()["embedding_drift"]
    assert seen.scalars()["embedding_drift"] == pytest.approx(expected, rel=1e-4)
    words = f"{name} is read as the image projection" if name == "to_clip" else "no visual_proj"
    assert any(words in line for line in told)


def test_a_model_that_answers_by_tuples_is_read_and_left_so(tiny_clip: Path) -> None:
    model: Any = moved(clip_of(tiny_clip))
    expected = monitor_of(tiny_clip, pixels()).observe(model, step=1).scalars()
    configs = [model.config, model.config.vision_config, model.config.text_config]
    for config in configs:
        config.return_dict = False
    seen = monitor_of(tiny_clip, pixels()).observe(model, step=1).scalars()
    assert seen == expected
    assert not any(config.return_dict for config in configs)


@pytest.mark.parametrize("kind", ["whole", "lora", "tower"])
def test_a_model_at_another_image_size_is_read_at_its_own(
    kind: str, tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)  # of LoRA's first values
    plain = from_module(clip_of(tiny_clip))
    larger: Any = plain.backbone.at_grid(plain.plain, 8)
    larger.load_state_dict(
        {
            name: one
            for name, one in clip_of(tiny_clip).state_dict().items()
            if "position_embedding" not in name or name.startswith("text")
        },
        strict=False,
    )
    model = moved(with_lora(larger) if kind == "lora" else larger)
    held = larger.vision_model if kind == "tower" else model
    options: dict[str, Any] = {"transfer": str(coloured_images), "image_size": 64}
    options |= {"out": tmp_path / "out", "alerts": OUT, "on_alert": "stop"}
    monitor = monitor_of(tiny_clip, coloured_images, **options)
    monitor.start(held)
    seen = monitor.observe(held, step=1)
    without_adapters(larger).save_pretrained(tmp_path / "after")  # type: ignore[operator]
    if kind == "tower":
        whole: Any = CLIPModel.from_pretrained(tmp_path / "after")
        whole.visual_projection.load_state_dict(clip_of(tiny_clip).visual_projection.state_dict())
        whole.save_pretrained(tmp_path / "after")
    places = tiny_clip, tmp_path / "after", coloured_images / "test"
    expected = ds.compare(*places, transfer=coloured_images).scalars()
    assert expected["embedding_drift"] > 0.001  # far above the rounding of what follows
    for name in ("embedding_drift", "cka", "weight_drift", "retention_pct"):
        assert seen.scalars()[name] == pytest.approx(expected[name], rel=1e-4), name
    assert "delta_entropy_pct" not in seen.scalars()
    assert "16 and 64 patches" in seen.drift.unmeasured["delta_entropy_pct"]  # type: ignore[union-attr]
    kept, after = (
        ds.load(one, like=ds.load(tiny_clip)).plain
        for one in (tmp_path / "out" / "stopped", tmp_path / "after")
    )
    values = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        own, again = (
            one.get_image_features(pixel_values=values).pooler_output for one in (after, kept)
        )
    torch.testing.assert_close(again, own, rtol=1e-4, atol=1e-5)  # merging rounds
    for size in ({}, {"image_size": 48}):
        with pytest.raises(ModelError, match="image_size=64"):
            monitor_of(tiny_clip, coloured_images, **size).start(held)


def test_blocks_in_wrappers_are_read_as_they_are(tiny_clip: Path, tmp_path: Path) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model: Any = moved(clip_of(tiny_clip))
    expected = monitor_of(tiny_clip, pixels()).observe(model, step=1).scalars()
    own = from_module(model).embed_images(pixels())
    blocks = model.vision_model.encoder.layers
    blocks[0], blocks[1] = checkpoint_wrapper(blocks[0]), torch.compile(blocks[1])
    monitor = monitor_of(tiny_clip, pixels(), out=tmp_path, alerts=OUT, on_alert="stop")
    assert monitor.observe(model, step=1).scalars() == expected
    kept = ds.load(tmp_path / "stopped").embed_images(pixels())
    torch.testing.assert_close(kept, own, rtol=1e-4, atol=1e-5)


class _LoralibLinear(nn.Linear):
    """As loralib's, whose eval() adds the matrices to the weights."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features)
        self.load_state_dict(plain.state_dict())
        self.lora_A = nn.Parameter(0.1 * torch.randn(2, plain.in_features))
        self.lora_B = nn.Parameter(0.1 * torch.randn(plain.out_features, 2))
        self.scaling, self.merged, self.fan_in_fan_out = 2.0, False, False

    def train(self, mode: bool = True) -> nn.Module:
        if mode == self.merged:
            self.weight.data += (1 - 2 * mode) * self.scaling * self.lora_B @ self.lora_A
            self.merged = not mode
        return super().train(mode)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        plain = super().forward(values)
        change = values @ self.lora_A.T @ self.lora_B.T
        return plain if self.merged else plain + self.scaling * change


_LoralibLinear.__module__, _LoralibLinear.__name__ = "loralib.layers", "Linear"


@pytest.mark.parametrize("is_training", [True, False])
def test_layers_of_loralib_are_read_with_their_change_and_left_as_they_were(
    is_training: bool, tiny_clip: Path, tmp_path: Path
) -> None:
    model: Any = clip_of(tiny_clip)
    for block in model.vision_model.encoder.layers:
        block.self_attn.q_proj = _LoralibLinear(block.self_attn.q_proj)
    model.train(is_training)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    monitor = monitor_of(tiny_clip, pixels(), out=tmp_path, alerts=OUT, on_alert="stop")
    seen = monitor.observe(model, step=1).scalars()
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    model.eval()
    state = {name: one for name, one in model.state_dict().items() if "lora_" not in name}
    plain: Any = clip_of(tiny_clip)
    plain.load_state_dict(state)
    expected = monitor_of(tiny_clip, pixels()).observe(plain, step=1).scalars()
    assert expected["weight_drift"] > 0.01
    # of the percent changes one rounding of a float32 mean is 1.2e-5
    assert seen == pytest.approx(expected, rel=1e-3, abs=1e-4)
    kept = ds.load(tmp_path / "stopped")
    own = from_module(plain).embed_images(pixels())
    torch.testing.assert_close(kept.embed_images(pixels()), own, rtol=1e-4, atol=1e-5)


def test_several_models_are_told_apart_by_their_path(
    tiny_clip: Path, coloured_images: Path
) -> None:
    both = nn.ModuleDict({"student": moved(clip_of(tiny_clip)), "teacher": clip_of(tiny_clip)})
    with pytest.raises(ModelError, match=r"holds 2 models .* at 'student', 'teacher'; say which"):
        monitor_of(tiny_clip, coloured_images).observe(both, step=1)
    for path, has_moved in (("student", True), ("teacher", False)):
        monitor = monitor_of(tiny_clip, coloured_images, model_path=path)
        assert (monitor.observe(both, step=1).scalars()["weight_drift"] > 0) is has_moved
    monitor = monitor_of(clip_of(tiny_clip), coloured_images, model_path="student")  # type: ignore[arg-type]
    assert monitor.observe(both, step=1).scalars()["weight_drift"] > 0
    with pytest.raises(ModelError, match=r"'pupil' leads nowhere .*student, teacher"):
        monitor_of(tiny_clip, coloured_images, model_path="pupil").observe(both, step=1)


@pytest.mark.parametrize("kind", ["CLIPVisionModelWithProjection", "CLIPVisionModel"])
def test_a_whole_model_beside_an_image_tower_is_not_taken_for_the_one_in_training(
    kind: str, tiny_clip: Path, coloured_images: Path
) -> None:
    import transformers

    options: dict[str, Any] = {"projection_dim": 16} if "Projection" in kind else {}
    student = getattr(transformers, kind).from_pretrained(tiny_clip, **options)
    both = nn.ModuleDict({"teacher": clip_of(tiny_clip), "student": student})
    with pytest.raises(ModelError, match="at 'teacher', 'student'; say which"):
        find_target(both)
    assert find_target(both, "student").found is student


def test_a_second_name_for_the_image_tower_is_no_second_model(tiny_clip: Path) -> None:
    clip: Any = clip_of(tiny_clip)
    holder = nn.ModuleDict({"tower": clip.vision_model, "clip": clip})
    assert find_target(holder).found is clip


def test_what_holds_no_clip_is_refused(tiny_clip: Path, coloured_images: Path) -> None:
    monitor = monitor_of(tiny_clip, coloured_images)
    with pytest.raises(ModelError, match="Linear holds no model that can be read"):
        monitor.observe(nn.Linear(2, 2), step=1)
    with pytest.raises(ModelError, match="is a torch module, and str is none"):
        monitor.observe("model", step=1)  # type: ignore[arg-type]


def test_a_pretrained_model_with_an_adapter_in_it_is_refused(
    tiny_clip: Path, coloured_images: Path
) -> None:
    with pytest.raises(ModelError, match="before get_peft_model"):
        monitor_of(with_lora(clip_of(tiny_clip)), coloured_images)  # type: ignore[arg-type]


def test_a_model_in_half_precision_is_read(tiny_clip: Path, coloured_images: Path) -> None:
    model = clip_of(tiny_clip).to(torch.bfloat16)
    seen = monitor_of(tiny_clip, coloured_images, transfer=str(coloured_images)).observe(
        model, step=1
    )
    assert 0 < seen.scalars()["weight_drift"] < 0.01  # of rounding
    assert seen.scalars()["cka"] > 0.99


def test_a_model_that_is_spread_over_processes_is_refused(
    tiny_clip: Path, coloured_images: Path
) -> None:
    model: Any = clip_of(tiny_clip)
    model.visual_projection.weight = nn.Parameter(torch.empty(0))
    with pytest.raises(ModelError, match="spread over processes"):
        monitor_of(tiny_clip, coloured_images).observe(model, step=1)


# ---------------------------------------------------------------- what a stop leaves


@pytest.mark.parametrize(
    "wrap",
    ["plain", "lora", "lora around", "add_adapter", "lora beside trained weights", "other base"],
)
def test_the_model_at_a_stop_loads_as_it_was(
    wrap: str, tiny_clip: Path, other_tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    import peft
    from monitored import QV

    model: Any = clip_of(other_tiny_clip if wrap == "other base" else tiny_clip)
    if wrap == "lora":
        model = with_lora(model, modules_to_save=["visual_projection"])
    elif wrap == "other base":
        model = with_lora(model)
    elif wrap == "lora beside trained weights":
        model = with_lora(model)
        model.get_base_model().visual_projection.requires_grad_(True)
    elif wrap == "lora around":
        model = with_lora(Classifier(model))
    elif wrap == "add_adapter":
        model.add_adapter(peft.LoraConfig(target_modules=QV, r=4))
    moved(model)
    monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path, alerts=OUT, on_alert="stop")
    monitor.observe(model, step=1)
    assert monitor.should_stop
    kept = ds.load(tmp_path / "stopped")
    assert kept.is_adapter is (wrap == "lora")
    live = from_module(find_target(model).found)
    torch.testing.assert_close(
        kept.embed_images(pixels()), live.embed_images(pixels()), atol=1e-5, rtol=1e-4
    )
    again = monitor_of(tiny_clip, coloured_images)
    assert again.observe(kept.module, step=1).scalars()["weight_drift"] == pytest.approx(
        monitor.history[0].scalars()["weight_drift"], rel=1e-5
    )


def test_an_image_tower_whose_pretrained_model_has_no_name_is_kept_for_transformers(
    tiny_clip: Path, tmp_path: Path
) -> None:
    from transformers import CLIPVisionModelWithProjection

    options = {"projection_dim": 16}
    tower: Any = CLIPVisionModelWithProjection.from_pretrained(tiny_clip, **options).train()
    before: Any = clip_of(tiny_clip)
    before.name_or_path = before.config._name_or_path = ""
    monitor = monitor_of(before, pixels(), out=tmp_path, alerts=OUT, on_alert="stop")
    monitor.observe(moved(nn.ModuleDict({"vision": tower})), step=1)
    kept = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "stopped").state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in tower.state_dict().items())


def test_merging_a_copy_leaves_the_model_and_its_function_as_they_were(tiny_clip: Path) -> None:
    around: Any = with_lora(Classifier(clip_of(tiny_clip)))
    model = moved(around.get_base_model()).eval()
    names = [name for name, _ in model.named_parameters()]
    values = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(values)
        plain = without_adapters(model).eval()
        torch.testing.assert_close(plain(values), expected, atol=1e-5, rtol=1e-4)
    assert names == [name for name, _ in model.named_parameters()]
    assert not any("lora" in name for name, _ in plain.named_parameters())


# ---------------------------------------------------------------- open_clip


class _QuickGELU(nn.Module):
    pass


_QuickGELU.__name__ = "QuickGELU"


def open_clip_model(state: dict[str, torch.Tensor], quick: bool) -> nn.Module:
    """A module that holds such a state under open_clip's names; it is never run."""
    model = type("CLIP", (nn.Module,), {"__module__": "open_clip.model"})()
    for name, tensor in state.items():
        *parents, leaf = name.split(".")
        holder = model
        for part in parents:
            if part not in dict(holder.named_children()):
                holder.add_module(part, nn.Module())
            holder = holder.get_submodule(part)
        holder.register_parameter(leaf, nn.Parameter(tensor.clone()))
    for tower in (model.visual, model):
        blocks = nn.ModuleList(dict(tower.transformer.resblocks.named_children()).values())
        tower.transformer.resblocks = blocks
        for block in blocks:
            block.attn.embed_dim = block.attn.in_proj_weight.shape[1]
            block.attn.num_heads = block.attn.embed_dim // HEAD_DIM
            block.mlp.gelu = _QuickGELU() if quick else nn.GELU()
    module: nn.Module = model
    return module


@pytest.mark.parametrize("quick", [True, False])
def test_an_open_clip_model_is_read_as_its_conversion(quick: bool, tmp_path: Path) -> None:
    from transformers import CLIPModel

    before, after = open_clip_state(0), open_clip_state(0)
    after["visual.conv1.weight"] += 0.05
    after["visual.transformer.resblocks.1.attn.in_proj_weight"] += 0.02
    activation = "quick_gelu" if quick else "gelu"
    config, state = convert_open_clip(after, TowerFacts(activation), TowerFacts(activation))
    clip = CLIPModel(config)
    clip.load_state_dict(state)
    images = pixels(8)
    model = open_clip_model(before, quick)
    monitor = monitor_of(model, images, out=tmp_path, alerts=OUT, on_alert="stop")  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(after[name])
    seen = monitor.observe(nn.ModuleDict({"clip": model}), step=1)
    by_hand = monitor.observe(clip, step=2)
    assert seen.scalars() == by_hand.scalars()
    assert seen.scalars()["weight_drift"] > 0
    kept = ds.load(tmp_path / "stopped")
    live = from_module(open_clip.converted(model))
    torch.testing.assert_close(kept.embed_images(images), live.embed_images(images))


@pytest.mark.parametrize("kind", ["adapter folder", "open_clip model"])
def test_making_a_monitor_draws_no_random_number_of_the_trainings(
    kind: str, tiny_clip: Path, tmp_path: Path
) -> None:
    before: Any = open_clip_model(open_clip_state(), quick=False)
    if kind == "adapter folder":
        before = tmp_path / "adapter"
        with_lora(clip_of(tiny_clip)).save_pretrained(before)  # type: ignore[operator]
    state = torch.get_rng_state()
    monitor_of(before, pixels(8))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_open_clip_model_that_is_no_plain_vit_is_refused(coloured_images: Path) -> None:
    state = {
        name: one for name, one in open_clip_state().items() if not name.startswith("visual.tr")
    }
    model = type("CLIP", (nn.Module,), {"__module__": "open_clip.model"})()
    model.visual = nn.Linear(2, 2)
    assert state
    with pytest.raises(ModelError, match="no plain ViT as its image tower"):
        monitor_of(model, coloured_images)


def test_a_pretrained_model_without_a_tokenizer_is_read_without_texts(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "silent", seed=0)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    seen = monitor_of(folder, pixels(8), vocabulary="general").observe(clip_of(folder), step=1)
    assert "text_kl_nats" not in seen.scalars()
    with pytest.raises(ModelError, match="has no tokenizer"):
        monitor_of(folder, pixels(8), vocabulary=["a red"])
