"""Every family keeps one contract: what is read is what the library itself computes."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, SMALL, Family, save_family, toy_family_installed
from forms_on_disk import moved, rewritten
from full_map_signals import patch_to_patch_entropy_bits
from peft import LoraConfig, get_peft_model
from random_models import normalised, random_pixels
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2ForImageClassification,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    ViTForImageClassification,
)

import driftscope
from driftscope.adapt import AdaptedModel, adapt, export_merged
from driftscope.adapt.methods import METHODS
from driftscope.analysis import StudyTables, answer_all
from driftscope.backbones import families, find_image_tower
from driftscope.backbones.capture import capture_cls
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_weights
from driftscope.config import FullFineTuning, RunSpec
from driftscope.config.variants import Lora
from driftscope.errors import ModelError
from driftscope.records.tables import all_tables
from driftscope.related_models import related_models
from driftscope.report.html import write_study_report
from driftscope.signals.text import text_space_drift
from driftscope.sources.live import find_target

SIZE = 32
RAW = random_pixels(6, size=SIZE)
PIXELS = normalised(RAW)
HALF = (0.5, 0.5, 0.5)
WITH_TEXT = [name for name, one in FAMILIES.items() if one.has_text]


@pytest.fixture(scope="module", autouse=True)
def _toy_family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with toy_family_installed(tmp_path_factory.mktemp("site")):
        yield


@cache
def module_of(name: str) -> nn.Module:
    return FAMILIES[name].module()


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def family(name: str) -> Family:
    return FAMILIES[name]


@pytest.fixture
def module(name: str) -> nn.Module:
    return module_of(name)


def model_of(name: str) -> VisionLanguageModel:
    return VisionLanguageModel(copy.deepcopy(module_of(name)), None, SIZE, HALF, HALF, name)


@cache
def eager(name: str) -> tuple[list[Tensor], list[Tensor]]:
    """The full attention maps and the blocks' outputs, computed eagerly."""
    with torch.no_grad():
        return FAMILIES[name].eager(find_image_tower(module_of(name)).module, PIXELS)


def probe_row(name: str) -> np.ndarray:
    """What MultiheadAttention itself gives for the pooling head's probe."""
    tower: Any = find_image_tower(module_of(name)).module
    with torch.no_grad():
        tokens = tower(pixel_values=PIXELS).last_hidden_state
        head = tower.head
        probe = head.probe.repeat(len(tokens), 1, 1)
        _, weights = head.attention(probe, tokens, tokens, average_attn_weights=False)
    return weights[:, :, 0].numpy()


def cls_rows(name: str) -> list[np.ndarray]:
    family = FAMILIES[name]
    rows = [
        torch.cat([layer[:, :, at, family.num_prefix :] for at in family.queries], dim=1)
        for layer in eager(name)[0]
    ]
    return [(layer / layer.sum(dim=-1, keepdim=True)).numpy() for layer in rows]


# ------------------------------------------------------------------ what is read, is right


def test_every_family_has_a_row_here() -> None:
    read = {type(find_image_tower(module_of(name)).backbone) for name in FAMILIES}
    known = {type(one) for one in families() if one.family != "timm"}  # see library_real.py
    assert read == known


def test_embeddings_are_the_librarys_own(name: str, family: Family) -> None:
    model = model_of(name)
    with torch.no_grad():
        expected = family.embed(module_of(name), PIXELS)
    torch.testing.assert_close(model.embed_images(RAW), expected, atol=1e-5, rtol=1e-5)
    assert model.embedding_dim == expected.shape[1]


def test_rows_and_states_equal_the_eager_pass(name: str, family: Family, module: nn.Module) -> None:
    with torch.no_grad(), capture_cls(module) as captured:
        family.embed(module, PIXELS)
    if family.queries:
        for rows, expected in zip(captured.rows, cls_rows(name), strict=True):
            np.testing.assert_allclose(rows.numpy(), expected, atol=1e-5)
    else:
        (rows,) = captured.rows
        np.testing.assert_array_equal(rows.numpy(), probe_row(name))
    for state, tokens in zip(captured.cls_states, eager(name)[1], strict=True):
        torch.testing.assert_close(state, family.state(tokens), atol=1e-5, rtol=1e-5)


def test_map_signals_equal_those_of_the_full_eager_maps(
    name: str, family: Family, module: nn.Module
) -> None:
    with torch.no_grad(), capture_cls(module, maps=True) as captured:
        family.embed(module, PIXELS)
    maps = [layer.double() for layer in eager(name)[0]]
    for entropies, layer in zip(captured.patch_to_patch_entropy_bits, maps, strict=True):
        expected = patch_to_patch_entropy_bits(layer, family.num_prefix)
        np.testing.assert_allclose(entropies.numpy(), expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(captured.rollout.numpy(), numpy_rollout(name, maps), atol=1e-5)


def numpy_rollout(name: str, maps: list[Tensor]) -> np.ndarray:
    family = FAMILIES[name]
    identity = np.eye(maps[0].shape[-1])
    product = identity
    for layer in maps:
        product = (0.5 * layer.mean(dim=1).numpy() + 0.5 * identity) @ product
    if family.queries:
        row = product[:, 0, family.num_prefix :]
        return row / row.sum(axis=-1, keepdims=True)
    return (probe_row(name).mean(axis=1)[:, None].astype(np.float64) @ product)[:, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_read_too(
    family: Family, module: nn.Module, dtype: torch.dtype
) -> None:
    halved = copy.deepcopy(module).to(dtype)
    with torch.no_grad(), capture_cls(module) as captured:
        family.embed(module, PIXELS)
    with torch.no_grad(), capture_cls(halved) as rounded:
        family.embed(halved, PIXELS.to(dtype))
    for row, expected in zip(rounded.rows, captured.rows, strict=True):
        assert row.dtype == torch.float32
        assert float((row - expected).abs().mean()) < 0.1 * float(expected.mean())


@pytest.mark.parametrize("fails", [False, True])
def test_the_output_stays_to_the_bit_and_the_model_is_put_back(
    family: Family, module: nn.Module, fails: bool
) -> None:
    tower = find_image_tower(module)
    before = tower.config._attn_implementation
    with torch.no_grad():
        expected = family.embed(module, PIXELS)
        try:
            with capture_cls(module, maps=True):
                assert family.embed(module, PIXELS).equal(expected)
                if fails:
                    raise KeyError
        except KeyError:
            pass
    assert tower.config._attn_implementation == before
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())


def test_differentiable_rows_carry_gradients_to_the_tower(
    family: Family, module: nn.Module
) -> None:
    changed = copy.deepcopy(module)
    with capture_cls(changed, differentiable=True) as captured:
        family.embed(changed, PIXELS)
        (-(captured.rows[-1] * captured.rows[-1].log()).sum(dim=-1)).mean().backward()
    tower = find_image_tower(changed).module
    assert any(one.grad is not None and bool(one.grad.any()) for one in tower.parameters())


# ------------------------------------------------------------------ training and its names


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("k_proj", "out_proj", "fc1", "fc2")])
def test_adapters_hit_the_image_towers_blocks_and_nothing_else(
    name: str, targets: tuple[str, ...]
) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = model_of(name)
    before = model.embed_images(RAW)
    adapted = adapt(model, Lora(targets=targets), 3, seed=0)
    layers = [n for n, m in adapted.model.module.named_modules() if isinstance(m, BaseTunerLayer)]
    blocks = find_image_tower(model.module).blocks
    assert len(layers) == len(blocks) * len(targets)
    assert not any("text" in layer for layer in layers)
    torch.testing.assert_close(adapted.model.embed_images(RAW), before, atol=1e-6, rtol=1e-5)
    known = encoder_weights(model.module)
    assert encoder_weights(adapted.model.module).keys() == known.keys()
    assert {model.backbone.block_of(one) for one in known} == {None, *range(len(blocks))}


def test_full_fine_tuning_trains_all_of_the_image_tower_and_nothing_else(name: str) -> None:
    adapted = adapt(model_of(name), FullFineTuning(), 3, seed=0)
    trained = {
        adapted.model.own_prefix + one.removeprefix("encoder.")
        for one in adapted.trainable()
        if one.startswith("encoder.")
    }
    assert trained == encoder_weights(adapted.model.module).keys()


def test_every_method_begins_at_the_pretrained_embeddings(name: str) -> None:
    model = model_of(name)
    before = model.embed_images(RAW)
    for kind in METHODS.keys() - {"flyp"}:  # which needs a tokenizer
        needed = {"freeze_first": {"blocks": 1}, "peft": {"type": "LOKR", "options": {"r": 4}}}
        method = {"kind": kind, **needed.get(kind, {})}
        spec = RunSpec.model_validate({"method": method, "learning_rate": 1.0})
        adapted = adapt(model, spec.method, 3, seed=0)
        torch.testing.assert_close(adapted.model.embed_images(RAW), before, atol=1e-6, rtol=1e-5)
        assert adapted.encoder_is_frozen == (kind == "linear_probe"), kind


# ------------------------------------------------------------------ texts


@pytest.mark.parametrize("name", WITH_TEXT)
def test_zero_shot_logits_are_the_librarys_own(name: str, tmp_path: Path) -> None:
    model = driftscope.load(save_family(name, tmp_path / "model"))
    texts = ["a photo of red", "a Photo of green yellow"]
    tokens = model.tokenised(texts)
    with torch.no_grad():
        own = model.plain(**model_inputs(name, tokens), pixel_values=model.normalise(RAW))
    images = torch.nn.functional.normalize(model.embed_images(RAW), dim=-1)
    directions = torch.nn.functional.normalize(model.embed_texts(texts), dim=-1)
    logits = model.logit_scale * images @ directions.T + (model.logit_bias or 0.0)
    torch.testing.assert_close(logits, own.logits_per_image, atol=1e-4, rtol=1e-4)


def model_inputs(name: str, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
    """SigLIP is called without a mask, and with every text padded to 16 tokens."""
    if name != "SigLIP":
        return tokens
    assert tokens["input_ids"].shape[1] == 16
    return {"input_ids": tokens["input_ids"]}


# ------------------------------------------------------------------ end to end


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's model as a folder, made once."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def folder(name: str) -> Path:
        return save_family(name, root / name)

    return folder


@pytest.fixture(scope="module")
def tuned(saved: Callable[[str], Path]) -> Callable[[str], Path]:
    """The same after its image tower has moved, exported as transformers loads it."""

    @cache
    def folder(name: str) -> Path:
        model = driftscope.load(saved(name))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight, parameter in model.plain.named_parameters():
                if model.backbone.is_encoder_weight(model.own_prefix + weight):
                    parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        place = saved(name).with_name(f"{name} tuned")
        export_merged(model, place)
        return place

    return folder


def test_a_folder_of_the_family_is_loaded_compared_and_monitored(
    name: str,
    saved: Callable[[str], Path],
    tuned: Callable[[str], Path],
    coloured_images: Path,
) -> None:
    found = driftscope.compare(saved(name), tuned(name), coloured_images / "test")
    before, after = driftscope.load(saved(name)), driftscope.load(tuned(name))
    pixels = driftscope.open_dataset(coloured_images / "test").pixels(range(24), before.framing)
    cosines = torch.nn.functional.cosine_similarity(
        FAMILIES[name].embed(before.module, before.normalise(pixels)),
        FAMILIES[name].embed(after.module, after.normalise(pixels)),
    )
    assert found.drift.embedding_drift == pytest.approx(1 - float(cosines.mean()), abs=1e-6)
    assert 0 < found.drift.weight_drift < 1
    assert found.unmeasured.keys() >= {"retention_pct"}
    if not FAMILIES[name].has_text:
        assert found.unmeasured["text_kl_nats"].endswith("has no text tower")
    images = coloured_images / "test"
    monitor = driftscope.Monitor(saved(name), images, max_images=None, echo=None)
    seen = monitor.observe(after.plain, step=1).scalars()
    for key in ("embedding_drift", "cka", "weight_drift"):
        assert seen[key] == pytest.approx(found.drift.scalars()[key], abs=1e-6), key


def run_of(folder: Path, images: Path, out: Path, method: str, **options: Any) -> Any:
    values = {
        **{"model": str(folder), "dataset": str(images), "transfer": [str(images)]},
        **{"learning_rate": 1e-3, "epochs": 1, "batch_size": 16, "val_images": 9},
        **{"probe_images": 9, "method": method, **options},
    }
    return driftscope.run_one(RunSpec.model_validate(values), out)


@pytest.mark.parametrize("method", ["full_ft", "lora", "flyp"])
def test_siglip_is_trained_and_its_run_is_loaded(
    method: str, saved: Callable[[str], Path], coloured_images: Path, tmp_path: Path
) -> None:
    record = run_of(saved("SigLIP"), coloured_images, tmp_path / "run", method)
    selected = record.result.selected
    assert selected.drift.number("weight_drift") > 0
    assert selected.transfer[str(coloured_images)].retention_pct is not None
    again = driftscope.compare(saved("SigLIP"), tmp_path / "run", coloured_images / "test")
    assert again.drift.weight_drift == pytest.approx(selected.drift.number("weight_drift"))


def test_the_sigmoid_loss_is_siglips_own() -> None:
    module: Any = copy.deepcopy(module_of("SigLIP"))
    tokens = torch.randint(4, 11, (len(RAW), 16), generator=torch.Generator().manual_seed(0))
    model = VisionLanguageModel(module, None, SIZE, HALF, HALF, "SigLIP")
    adapted = AdaptedModel(model, None, {"input_ids": tokens})
    loss, logits = adapted.loss_and_logits(model.image_embeddings(RAW), torch.arange(len(RAW)))
    own = module(input_ids=tokens, pixel_values=PIXELS, return_loss=True)
    torch.testing.assert_close(loss, own.loss)
    torch.testing.assert_close(logits, own.logits_per_image)


def test_text_drift_of_a_sigmoid_is_that_of_its_judgements() -> None:
    generator = np.random.default_rng(0)
    images, moved, texts = (generator.normal(size=(count, 8)) for count in (5, 5, 4))

    def fits(of: np.ndarray) -> np.ndarray:
        unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (of, texts)]
        return 1 / (1 + np.exp(-(7.0 * unit[0] @ unit[1].T - 2.0)))

    p, q = fits(images), fits(moved)
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=1).mean()
    found = text_space_drift(*map(torch.tensor, (images, moved, texts)), 7.0, logit_bias=-2.0)
    assert found.kl_nats == pytest.approx(expected, rel=1e-9)


def test_every_weight_that_is_trained_gets_a_gradient(name: str) -> None:
    adapted = adapt(model_of(name), FullFineTuning(), 3, seed=0)
    adapted.logits(RAW).square().sum().backward()
    assert not [one for one, weight in adapted.trainable().items() if weight.grad is None]


def test_a_monitor_follows_siglip_and_its_page_is_written(
    saved: Callable[[str], Path], coloured_images: Path, tmp_path: Path
) -> None:
    trained: Any = driftscope.load(saved("SigLIP")).module
    monitor = driftscope.Monitor(
        *(saved("SigLIP"), coloured_images / "test"),
        transfer=coloured_images,
        out=tmp_path / "out",
        keep_best=True,
        echo=None,
    )
    with torch.no_grad():
        trained.vision_model.encoder.layers[0].mlp.fc1.weight.mul_(1.5)
    seen = monitor.step(trained, epoch=1, val_accuracy_pct=50.0)
    assert seen is not None
    by_layer = seen.scalars(per_layer=True)
    assert by_layer["delta_entropy_pct_layer_02"] == seen.drift.delta_entropy_pct
    assert "delta_entropy_pct_layer_01" not in by_layer
    assert by_layer["cka_layer_01"] == seen.drift.cka_per_block[0]
    assert seen.drift.unmeasured["delta_late_entropy_pct"].endswith("none is late")
    kept = driftscope.load(monitor.best_folder)
    torch.testing.assert_close(
        kept.embed_images(RAW), FAMILIES["SigLIP"].embed(trained, kept.normalise(RAW))
    )
    assert monitor.report().exists()


@pytest.mark.parametrize("name", ["SigLIP", "DINOv3", "TIPSv2"])
def test_runs_of_the_family_make_tables_and_a_study_page(
    name: str, saved: Callable[[str], Path], coloured_images: Path, tmp_path: Path
) -> None:
    records = [
        run_of(saved(name), coloured_images, tmp_path / f"{method}", method, maps=True)
        for method in ("lora", "last_block")
    ]
    found = all_tables(records)
    tables = StudyTables(found.runs, found.history, found.layers, heads=found.heads)
    num_blocks = len(records[0].result.selected.drift.signal("cka_per_block"))
    first = tables.layers[tables.layers.run_id == records[0].id]
    assert first.layer.tolist() == [*range(1, num_blocks + 1)]
    assert first.cka.notna().all()
    rows = 1 if name == "SigLIP" else num_blocks
    assert first.entropy_nats.notna().tolist() == [False] * (num_blocks - rows) + [True] * rows
    of_heads = tables.heads[tables.heads.entropy_nats.notna()]
    assert set(of_heads.layer) == {*range(num_blocks - rows + 1, num_blocks + 1)}
    assert tables.heads.patch_to_patch_entropy_bits.notna().sum() == 2 * num_blocks * 4
    page = write_study_report(
        tables,
        records,
        tmp_path / "page",
        title="Two methods",
        command="",
        answers=answer_all(tables),
    )
    assert "Two methods" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["ViT", "DINOv2", "DINOv3", "AltCLIP", "TIPSv2"])
def test_a_lone_file_has_the_names_that_transformers_writes(name: str, tmp_path: Path) -> None:
    folder = save_family(name, tmp_path / "after")
    file = (folder / "model.safetensors").rename(tmp_path / "lone.safetensors")
    before = model_of(name)
    with torch.no_grad():
        for parameter in before.module.parameters():
            parameter.mul_(0.9)
    after = driftscope.load(file, like=before)
    with torch.no_grad():
        expected = FAMILIES[name].embed(module_of(name), PIXELS)
    torch.testing.assert_close(after.embed_images(RAW), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before.embed_images(RAW), expected, atol=1e-2)


@pytest.mark.parametrize("name", WITH_TEXT)
def test_both_towers_of_a_lone_file_may_have_names_of_their_own(name: str, tmp_path: Path) -> None:
    before = driftscope.load(save_family(name, tmp_path / "base"))
    image, text = f"{before.backbone.tower_name}.", "text_model."
    trained = moved(copy.deepcopy(before.plain)).state_dict()
    names = {key: key.replace(image, "images.").replace(text, "texts.") for key in trained}
    torch.save({names[key]: one for key, one in trained.items()}, tmp_path / "x.pt")
    found = driftscope.load(tmp_path / "x.pt", like=before).plain.state_dict()
    towers = [key for key in trained if key.startswith((image, text))]
    assert any(key.startswith(image) for key in towers)
    assert any(key.startswith(text) for key in towers)
    for key in towers:
        torch.testing.assert_close(found[key], trained[key], rtol=0, atol=0)
    alone = {names[key]: one for key, one in trained.items() if key.startswith(text)}
    torch.save(alone, tmp_path / "texts.pt")
    with pytest.raises(ModelError, match="texts' side"):
        driftscope.load(tmp_path / "texts.pt", like=before)


@pytest.mark.parametrize(
    "name", ["SigLIP", "SigLIP tower", "Chinese-CLIP", "CLIP tower", "ViT", "DINOv2", "TIPSv2"]
)
def test_a_lone_file_of_another_image_size_is_read_at_its_own(
    name: str, tmp_path: Path, coloured_images: Path
) -> None:
    before = model_of(name)
    larger: Any = before.backbone.at_grid(before.plain, 8).eval()
    file = tmp_path / "larger.pt"
    torch.save({"model": {f"module.{key}": one for key, one in larger.state_dict().items()}}, file)
    after = driftscope.load(file, like=before)
    is_fixed = before.backbone.has_fixed_input_size
    assert after.image_size == (2 * SIZE if is_fixed else SIZE)
    raw = random_pixels(2, size=after.image_size)
    with torch.no_grad():
        expected = FAMILIES[name].embed(larger, before.normalise(raw))
    torch.testing.assert_close(after.embed_images(raw), expected, atol=1e-5, rtol=1e-5)
    found = driftscope.compare(before, after, coloured_images / "test")
    assert found.drift.weight_drift > 0.1  # of other random weights, positions left out
    assert (found.drift.delta_entropy_pct is None) == is_fixed


VERSION_4 = {
    r"\bq_proj": "attention.query",
    r"\bk_proj": "attention.key",
    r"\bv_proj": "attention.value",
    r"\battention\.o_proj": "attention.output.dense",
}
"""What transformers 4 called the attention's parts in ViT and DINOv2."""
VERSION_4_VIT = {
    **VERSION_4,
    r"\blayers\.(\d)": r"encoder.layer.\1",
    r"\bmlp\.fc1": "intermediate.dense",
    r"\bmlp\.fc2": "output.dense",
}


@pytest.mark.parametrize(
    ("name", "kind", "old_names", "targets", "old_targets", "more", "old_more"),
    [
        ("ViT", ViTForImageClassification, VERSION_4_VIT, ["q_proj", "v_proj"],
         ["query", "value"], {"modules_to_save": ["classifier"]}, {}),
        ("ViT", None, VERSION_4_VIT, ["q_proj", "mlp.fc2"],
         r".*(query|layer\.\d\.output\.dense)", {"alpha_pattern": {"q_proj": 3}},
         {"alpha_pattern": {"query": 3}}),
        ("DINOv2", Dinov2ForImageClassification, VERSION_4, ["v_proj"], ["value"],
         {"modules_to_save": ["classifier"], "layers_to_transform": [1]}, {}),
        ("DINOv2", None, VERSION_4, ["o_proj", "fc1"], ["output.dense", "fc1"],
         {"modules_to_save": ["k_proj"]}, {"modules_to_save": ["key"]}),
    ],
)  # fmt: skip
def test_an_adapter_of_transformers_4_is_put_on_the_layers_that_it_means(
    name: str,
    kind: Any,
    old_names: dict[str, str],
    targets: list[str],
    old_targets: list[str] | str,
    more: dict[str, Any],
    old_more: dict[str, Any],
    tmp_path: Path,
) -> None:
    base = save_family(name, tmp_path / "base")
    module = FAMILIES[name].module() if kind is None else kind.from_pretrained(base)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, **more)
    trained: Any = moved(get_peft_model(module, lora))
    folder = tmp_path / "lora"
    trained.save_pretrained(folder)
    state = load_file(folder / "adapter_model.safetensors")
    for new, old in old_names.items():
        state = {re.sub(new, old, key): one for key, one in state.items()}
    save_file(state, folder / "adapter_model.safetensors")
    said = {"target_modules": old_targets, "base_model_name_or_path": str(base), **old_more}
    rewritten(folder / "adapter_config.json", **said)
    found = driftscope.load(folder)
    plain = trained.merge_and_unload()
    with torch.no_grad():
        tower = getattr(plain, plain.base_model_prefix, plain)
        expected = FAMILIES[name].embed(tower, found.normalise(RAW))
    torch.testing.assert_close(found.embed_images(RAW), expected, atol=1e-5, rtol=1e-4)
    before = driftscope.load(base).embed_images(RAW)
    assert not torch.allclose(before, expected, atol=1e-2)
    assert related_models(str(base), str(folder), None)[1].base_fingerprint is not None


@pytest.mark.parametrize("lacking", [("before",), ("after",), ("before", "after")], ids="+".join)
def test_a_model_without_a_preprocessor_reads_images_of_the_other_ones_size(
    lacking: tuple[str, ...], tmp_path: Path, coloured_images: Path
) -> None:
    """As Trainer saves it. Of DINOv2 the configuration says 518 pixels, the preprocessor 224."""
    pixels = {**dict.fromkeys(("image_mean", "image_std"), HALF), "size": {"shortest_edge": 18}}
    pixels |= {
        "crop_size": {"height": 16, "width": 16},
        "image_processor_type": "BitImageProcessor",
    }
    for one in ("before", "after"):
        file = save_family("DINOv2", tmp_path / one) / "preprocessor_config.json"
        file.unlink() if one in lacking else file.write_text(json.dumps(pixels))
    found = driftscope.compare(tmp_path / "before", tmp_path / "after", coloured_images / "test")
    assert found.drift.embedding_drift == pytest.approx(0, abs=1e-6)
    assert found.drift.delta_entropy_pct == 0
    assert found.drift.cka == pytest.approx(1)


def test_without_any_preprocessor_both_are_read_at_the_size_of_the_pretrained_one(
    tmp_path: Path,
) -> None:
    before = model_of("DINOv2")
    larger: Any = before.backbone.at_grid(before.plain, 8).eval()
    for one, module in (("before", before.plain), ("after", larger)):
        module.save_pretrained(tmp_path / one)
    models = related_models(str(tmp_path / "before"), str(tmp_path / "after"), None)
    assert [one.framing.size for one in models] == [SIZE, SIZE]


def test_a_class_derived_from_a_librarys_own_is_read_with_its_attention() -> None:
    """Its module is not where transformers keeps the attention function."""
    towers = [CLIPVisionModel(CLIPVisionConfig(**SMALL)) for _ in range(2)]
    derived = type("Derived", (CLIPVisionModel,), {"__module__": __name__})(towers[0].config)
    derived.load_state_dict(towers[0].state_dict())
    rows = []
    for tower in (towers[0].eval(), derived.eval()):
        with torch.no_grad(), capture_cls(tower) as captured:
            tower(pixel_values=PIXELS)
        rows.append(torch.stack(captured.rows))
    assert torch.equal(*rows)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("TIPSv2", {"text_config": {"pooling_epsilon": 0.1}}, "epsilon that the text tower pools"),
        ("TIPSv2", {"text_config": {"scale_sqrt_depth": False}}, "scales words by its width"),
        ("AltCLIP", {"text_config": {"pad_token_id": 1}}, "text tower's padding token"),
        ("DINOv3", {"rope_theta": 50.0}, "base of rotary positions"),
        ("DINOv3", {"num_attention_heads": 5}, "5 attention heads for a width of 64"),
    ],
    ids=str,
)
def test_what_decides_the_function_and_no_shape_is_refused_by_name(
    name: str, change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    before, after = (save_family(name, tmp_path / one) for one in ("before", "after"))
    said = json.loads((after / "config.json").read_text())
    for key, value in change.items():
        said[key] = {**said[key], **value} if isinstance(value, dict) else value
    (after / "config.json").write_text(json.dumps(said))
    with pytest.raises(driftscope.errors.ModelError, match=told):
        related_models(str(before), str(after), None)


def test_a_configuration_that_asks_for_tuples_is_read(tmp_path: Path) -> None:
    folder = save_family("ViT", tmp_path / "model")
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "return_dict": False}))
    model = driftscope.load(folder)
    with torch.no_grad():
        expected = FAMILIES["ViT"].embed(module_of("ViT"), model.normalise(RAW))
    torch.testing.assert_close(model.embed_images(RAW), expected)


def test_naflex_in_training_is_refused_by_name() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config = Siglip2VisionConfig(num_attention_heads=2, num_patches=16, **sizes)
    with pytest.raises(driftscope.errors.ModelError, match="NaFlex"):
        find_target(nn.Sequential(Siglip2VisionModel(config)))


@pytest.mark.parametrize("model_type", ["blip_vision_model", "siglip2_vision_model", "beit"])
def test_a_tower_of_no_family_is_refused_by_its_type(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": model_type, "architectures": ["AnyVisionModel"]})
    )
    with pytest.raises(driftscope.errors.ModelError, match=f"is a '{model_type}' model; "):
        driftscope.load(tmp_path, like=model_of("CLIP"))
