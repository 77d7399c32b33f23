"""Blends are interpolated weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from families import FAMILIES
from monitored import clip_of, moved, with_lora

import driftscope as ds
from driftscope import blending
from driftscope.backbones.model import VisionLanguageModel
from driftscope.blending import POOLING, TEXT, Blend
from driftscope.errors import ConfigError, ModelError
from driftscope.sources.live import from_module


@pytest.fixture(scope="module")
def pair(tiny_clip: Path) -> tuple[VisionLanguageModel, VisionLanguageModel]:
    return ds.load(tiny_clip), from_module(moved(clip_of(tiny_clip)).eval())


def state(model: VisionLanguageModel) -> dict[str, torch.Tensor]:
    return {n: one.clone() for n, one in model.module.state_dict().items()}


def with_moved(model: VisionLanguageModel, names: Sequence[str]) -> VisionLanguageModel:
    """A copy in which some weights are others."""
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for name, one in module.named_parameters():
            if name in names:
                one.add_(1.0)
    return replace(model, module=module)


def test_the_ends_are_both_models_to_the_bit(pair: tuple) -> None:
    before, after = pair
    working = Blend(before, after)
    for strength, end in ((0.0, before), (1.0, after), (0.0, before)):
        found, wanted = state(working.set(working.uniform(strength))), state(end)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_between_lie_interpolated_weights(pair: tuple) -> None:
    before, after = pair
    found = state(ds.blend(before, after, 0.3))
    for name, one in state(after).items():
        start = before.module.state_dict()[name].double()
        expected = start + 0.3 * (one.double() - start)
        torch.testing.assert_close(found[name].double(), expected, atol=1e-7, rtol=1e-6)


def test_every_row_of_a_weight_goes_by_its_own_strength(pair: tuple) -> None:
    before, after = pair
    working = Blend(before, after)
    generator = torch.Generator().manual_seed(0)
    delta = working.delta
    drawn = {
        group: {n: torch.rand(delta.before[n].shape[:1], generator=generator) for n in names}
        for group, names in delta.groups.items()
        if group != TEXT
    }
    rows = {name: one for by_weight in drawn.values() for name, one in by_weight.items()}
    for model in (ds.blend(before, after, drawn), ds.blend(before, [after], [drawn])):
        found = state(model)
        for name, end in state(after).items():
            start = before.module.state_dict()[name].double()
            if name not in rows:
                assert torch.equal(found[name].double(), start)
                continue
            for row, share in enumerate(rows[name].tolist()):
                expected = start[row] + share * (end[row].double() - start[row])
                now = found[name][row].double()
                torch.testing.assert_close(now, expected, atol=1e-7, rtol=1e-6)
    for share, model in ((1.0, after), (0.0, before)):
        ends = {
            group: {name: torch.full_like(one, share) for name, one in by_weight.items()}
            for group, by_weight in drawn.items()
        }
        found = state(working.set(ends))
        assert all(torch.equal(found[name], state(model)[name]) for name in rows)


def test_groups_part_the_weights_that_moved_and_go_by_themselves(pair: tuple) -> None:
    before, after = pair
    working = Blend(before, after)
    names = [name for group in working.delta.groups.values() for name in group]
    assert len(names) == len(set(names))
    equal = {n for n, one in state(after).items() if torch.equal(one, state(before)[n])}
    assert set(names) == set(state(after)) - equal
    assert {"embeddings", "block 1 attention", "block 2 MLP", "projection"} <= set(working.groups)
    found = state(working.set({"block 2 attention": 1.0}))
    for name, one in found.items():
        is_in = "layers.1.self_attn" in name
        assert torch.equal(one, state(after if is_in else before)[name]), name
    depths = list(working.delta.depth.values())
    assert depths == sorted(depths)
    assert (depths[0], depths[-1]) == (0, 1)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("vision_model.embeddings.patch_embedding.weight", ("embeddings", 0.0)),
        ("vision_model.post_layernorm.weight", ("outer norms", 1.0)),
        ("vision_model.head.probe", (POOLING, 1.0)),
        ("vision_model.head.attention.in_proj_weight", (POOLING, 1.0)),
        ("vision_model.head.layernorm.weight", (POOLING, 1.0)),
        ("vision_model.head.mlp.fc1.weight", (POOLING, 1.0)),
    ],
)
def test_the_head_that_pools_is_a_group_of_its_own(name: str, group: tuple[str, float]) -> None:
    model = from_module(FAMILIES["SigLIP"].module())
    names = dict(model.plain.named_parameters())
    assert name in names
    found = Blend(model, with_moved(model, [name]))
    assert (found.groups, tuple(found.delta.depth.values())) == ((group[0],), (group[1],))


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("visual.conv1.weight", ("embeddings", 0.0)),
        ("visual.class_embedding", ("embeddings", 0.0)),
        ("visual.ln_pre.weight", ("embeddings", 0.0)),
        ("visual.ln_post.weight", ("outer norms", 1.0)),
        ("visual.proj", ("projection", 1.0)),
        ("visual.attnpool.k_proj.weight", (POOLING, 1.0)),
        ("visual.trunk.cls_token", ("embeddings", 0.0)),
        ("visual.trunk.stem.0.weight", ("embeddings", 0.0)),
        ("visual.trunk.norm_pre.weight", ("embeddings", 0.0)),
        ("visual.trunk.fc_norm.weight", ("outer norms", 1.0)),
        ("visual.trunk.attn_pool.latent", (POOLING, 1.0)),
        ("visual.head.proj.weight", ("projection", 1.0)),
    ],
)
def test_parts_of_open_clips_own_models_lie_where_images_pass_them(
    name: str, group: tuple[str, float]
) -> None:
    backbone = SimpleNamespace(
        block_of=lambda _: None, is_text_weight=lambda _: False, is_encoder_weight=lambda _: True,
        projection_name=None, pooling_name=None, tower_name="visual",
    )  # fmt: skip
    assert blending._group(backbone, name, 12) == group


def test_an_adapter_counts_as_its_merged_weights(tiny_clip: Path) -> None:
    before = ds.load(tiny_clip)
    wrapped = moved(with_lora(clip_of(tiny_clip))).eval()
    adapted = from_module(wrapped)
    pixels = torch.randint(0, 256, (4, 3, before.image_size, before.image_size)).to(torch.uint8)
    whole = ds.blend(before, adapted, 1.0).embed_images(pixels)
    torch.testing.assert_close(whole, adapted.embed_images(pixels), atol=1e-5, rtol=1e-4)
    half = ds.blend(before, adapted, 0.5)
    name = "vision_model.encoder.layers.0.self_attn.q_proj.weight"
    layer = wrapped.get_submodule("base_model.model." + name.removesuffix(".weight"))
    change = 0.5 * layer.get_delta_weight("default")
    expected = before.module.state_dict()[name] + change
    torch.testing.assert_close(half.module.state_dict()[name], expected, atol=1e-6, rtol=1e-5)


def test_a_soup_is_the_sum_of_the_changes_each_by_its_strengths(
    pair: tuple, tiny_clip: Path
) -> None:
    before, one = pair
    other = from_module(moved(clip_of(tiny_clip), 0.5, seed=2).eval())
    states = [state(model) for model in (before, one, other)]
    found = state(ds.blend(before, [one, other], [0.3, {"block 1 MLP": 2.0}]))
    assert any("layers.0.mlp" in name for name in found)
    for name, start in states[0].items():
        own = 2.0 if "layers.0.mlp" in name else 0.0
        first, second = (end[name].double() - start.double() for end in states[1:])
        expected = start.double() + 0.3 * first + own * second
        torch.testing.assert_close(found[name].double(), expected, atol=1e-7, rtol=1e-6)
    for name, end in state(ds.blend(before, [one, other], [1, 0])).items():
        torch.testing.assert_close(end, states[1][name], atol=0, rtol=1e-7)
    with pytest.raises(ConfigError, match="2 models are given, and 1 strengths"):
        ds.blend(before, [one, other], [0.5])
    with pytest.raises(ConfigError, match="one model has one strength"):
        ds.blend(before, one, [0.5])


def test_what_cannot_be_blended_is_refused(pair: tuple, tmp_path: Path) -> None:
    before, after = pair
    with pytest.raises(ModelError, match="to the bit, so there is nothing between them"):
        ds.blend(before, before, 0.5)
    with pytest.raises(ModelError, match="are not of one architecture"):
        ds.blend(before, ds.load("mini"), 0.5)
    with pytest.raises(ConfigError, match="no group 'block 9'"):
        ds.blend(before, after, {"block 9": 1.0})
    with pytest.raises(ConfigError, match="the strength of embeddings is nan"):
        ds.blend(before, after, {"embeddings": float("nan")})
    name = "visual_projection.weight"
    rows = torch.ones(len(before.module.state_dict()[name]))
    with pytest.raises(ConfigError, match="no weight 'visual_projection_weight' in proj"):
        ds.blend(before, after, {"projection": {"visual_projection_weight": rows}})
    with pytest.raises(ConfigError, match=f"{len(rows) - 1} strengths are given for {name}, and"):
        ds.blend(before, after, {"projection": {name: rows[1:]}})
    with pytest.raises(ConfigError, match=f"a strength of {name} is NaN or infinite"):
        ds.blend(before, after, {"projection": {name: rows / 0}})
