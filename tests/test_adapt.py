"""One conformance suite over all methods, and what is particular to some."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import CLIPModel

import driftscope as ds
from driftscope.adapt import (
    METHODS,
    AdaptedModel,
    adapt,
    export_merged,
    load_classifier,
    restore_trainable,
    save_adapted,
    trainable_state,
)
from driftscope.backbones.evaluating import evaluating
from driftscope.backbones.model import VisionLanguageModel
from driftscope.config import METHOD_KINDS, parse_run_spec
from driftscope.config.variants import MethodSpec
from driftscope.data.prompts import PromptRules
from driftscope.errors import ConfigError, ModelError
from driftscope.transfer import class_embeddings

CLASSES = ("red", "green", "blue")
ENCODER = r"(vision_model\..*|visual_projection\.weight)"
BLOCKS = r"vision_model\.encoder\.layers\.\d+\."
WRAPPED = r"base_model\.model\."
PROJECTION = rf"{WRAPPED}visual_projection\.modules_to_save\.default\.weight"


def attention(*names: str, what: str) -> str:
    return rf"{WRAPPED}{BLOCKS}self_attn\.({'|'.join(names)})\.{what}|{PROJECTION}"


LOW_RANK = r"lora_[AB]\.default\.weight"
# Method -> the CLIP parameters it promises to train, as a pattern over the plain model's names or,
# for adapters, over the wrapped model's; and how many tensors that are in a two-block tower.
PROMISED: list[tuple[object, str, int]] = [
    ("full_ft", ENCODER, 40),
    ({"kind": "full_ft", "head": "zero_shot"}, ENCODER, 40),
    (
        {"kind": "freeze_first", "blocks": 1},
        r"vision_model\.(encoder\.layers\.1|post_layernorm)\..*|visual_projection\.weight",
        19,
    ),
    ({"kind": "freeze_first", "blocks": 2}, r"vision_model\.post_layernorm\..*|visual_.*", 3),
    ("last_block", r"vision_model\.(encoder\.layers\.1|post_layernorm)\..*", 18),
    ("linear_probe", r"nothing", 0),
    ("lp_ft", ENCODER, 40),
    ("bitfit", r"vision_model\..*\.bias", 18),
    ("layer_norm", r"vision_model\.(.*\.layer_norm[12]|pre_layrnorm|post_layernorm)\..*", 12),
    ("flyp", r".*", 62),
    ("lora", attention("q_proj", "v_proj", what=LOW_RANK), 9),
    (
        {"kind": "lora", "train_projection": False, "targets": ["out_proj", "fc1"], "rank": 2},
        rf"{WRAPPED}{BLOCKS}(self_attn\.out_proj|mlp\.fc1)\.{LOW_RANK}",
        8,
    ),
    (
        "dora",
        attention("q_proj", "v_proj", what=rf"({LOW_RANK}|lora_magnitude_vector.*)"),
        13,
    ),
    ("rslora", attention("q_proj", "v_proj", what=LOW_RANK), 9),
    (
        "ia3",
        rf"{WRAPPED}{BLOCKS}(self_attn\.[kv]_proj|mlp\.fc2)\.ia3_l\.default|{PROJECTION}",
        7,
    ),
    (
        {"kind": "vera", "rank": 16},
        attention("q_proj", "v_proj", what=r"vera_lambda_[bd]\.default"),
        9,
    ),
    (
        {"kind": "peft", "type": "oft", "options": {"r": 0, "oft_block_size": 4}},
        attention("q_proj", "v_proj", what=r"oft_R\.default\.weight"),
        5,
    ),
    (
        {"kind": "peft", "type": "LOKR", "targets": ["fc1"], "train_projection": False},
        rf"{WRAPPED}{BLOCKS}mlp\.fc1\.lokr_w.*\.default",
        4,
    ),
]
IDS = [
    method if isinstance(method, str) else "-".join(map(str, method.values()))
    for method, *_ in PROMISED
]
every_method = pytest.mark.parametrize("method", [method for method, *_ in PROMISED], ids=IDS)


def method_spec(method: object) -> MethodSpec:
    return parse_run_spec({"method": method, "learning_rate": 1e-3}).method


@pytest.fixture(scope="module")
def pretrained(tiny_clip: Path) -> VisionLanguageModel:
    return ds.load(tiny_clip)


def adapted_by(pretrained: VisionLanguageModel, method: object, seed: int = 0) -> AdaptedModel:
    return adapt(pretrained, method_spec(method), 3, seed, class_names=CLASSES)


def pixels(num_images: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (num_images, 3, 32, 32), generator=generator, dtype=torch.uint8)


def moved(adapted: AdaptedModel, seed: int = 5) -> AdaptedModel:
    """As training would leave it: every trainable tensor changed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.trainable().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return adapted


def state(model: VisionLanguageModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def test_every_method_is_in_the_suite() -> None:
    assert {method_spec(method).kind for method, *_ in PROMISED} == set(METHODS)
    assert set(METHODS) == set(METHOD_KINDS)


@pytest.mark.parametrize(("method", "pattern", "count"), PROMISED, ids=IDS)
def test_the_trainable_parameters_are_exactly_those_promised(
    pretrained: VisionLanguageModel, method: object, pattern: str, count: int
) -> None:
    adapted = adapted_by(pretrained, method)
    names = {
        name.removeprefix("encoder.") for name in adapted.trainable() if name.startswith("encoder.")
    }
    everything = {name for name, _ in adapted.model.module.named_parameters()}
    assert names == {name for name in everything if re.fullmatch(pattern, name)}
    assert len(names) == count
    head = adapted.trainable().keys() - {f"encoder.{name}" for name in names}
    assert head == (set() if method == "flyp" else {"classifier.weight", "classifier.bias"})


@every_method
def test_every_trainable_parameter_is_reached_by_the_loss_and_nothing_else_moves(
    pretrained: VisionLanguageModel, method: object
) -> None:
    adapted = moved(adapted_by(pretrained, method))
    before = state(adapted.model)
    adapted.train()
    optimizer = torch.optim.SGD(adapted.trainable().values(), lr=0.1)
    labels = torch.tensor([0, 1, 2, 1, 0])
    embeddings = adapted.model.image_embeddings(pixels())
    adapted.loss_and_logits(embeddings, labels)[0].backward()
    # a key's bias shifts all attention logits of a query alike: its gradient is 0 up to rounding
    untouched = [name for name, p in adapted.trainable().items() if p.grad is None]
    assert untouched == []
    optimizer.step()
    trained = {name.removeprefix("encoder.") for name in adapted.trainable()}
    changed = {n for n, t in state(adapted.model).items() if not torch.equal(t, before[n])}
    assert changed <= trained
    assert {name for name in trained - changed if "classifier" not in name} <= {
        name for name in trained if "k_proj.bias" in name
    }


@every_method
def test_the_pretrained_model_is_untouched_bit_for_bit(
    pretrained: VisionLanguageModel, method: object
) -> None:
    before = state(pretrained)
    flags = [parameter.requires_grad for parameter in pretrained.module.parameters()]
    moved(adapted_by(pretrained, method))
    after = state(pretrained)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [parameter.requires_grad for parameter in pretrained.module.parameters()] == flags


@every_method
def test_at_step_0_the_adapted_encoder_equals_the_pretrained_one(
    pretrained: VisionLanguageModel, method: object
) -> None:
    adapted = adapted_by(pretrained, method)
    assert torch.equal(adapted.model.embed_images(pixels()), pretrained.embed_images(pixels()))
    assert torch.equal(adapted.model.embed_texts(CLASSES), pretrained.embed_texts(CLASSES))


@every_method
def test_the_seed_alone_decides_the_random_parts(
    pretrained: VisionLanguageModel, method: object
) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.rand(1)  # the global random state must not matter
        states.append(trainable_state(adapted_by(pretrained, method, seed)))
    same, other = states[1], states[2]
    assert all(torch.equal(states[0][name], same[name]) for name in same)
    is_random = method != "flyp" and "zero_shot" not in str(method)
    assert is_random != all(torch.equal(states[0][name], other[name]) for name in other)


@every_method
def test_a_saved_adapted_model_loads_with_equal_embeddings(
    pretrained: VisionLanguageModel, method: object, tmp_path: Path
) -> None:
    adapted = moved(adapted_by(pretrained, method))
    save_adapted(adapted, pretrained, tmp_path)
    loaded = ds.load(tmp_path)
    assert torch.equal(loaded.embed_images(pixels()), adapted.model.embed_images(pixels()))
    assert torch.equal(loaded.embed_texts(CLASSES), adapted.model.embed_texts(CLASSES))
    has_moved = not torch.equal(loaded.embed_images(pixels()), pretrained.embed_images(pixels()))
    assert has_moved == (method != "linear_probe")


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_a_saved_adapted_model_is_on_disk_before_anything_is_written_after_it(
    pretrained: VisionLanguageModel, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    save_adapted(adapted_by(pretrained, method), pretrained, tmp_path)
    assert {path.stat().st_ino for path in (tmp_path, *tmp_path.iterdir())} <= synced


@every_method
def test_a_merged_export_loads_into_a_plain_clip_model_with_equal_embeddings(
    pretrained: VisionLanguageModel, method: object, tmp_path: Path
) -> None:
    adapted = moved(adapted_by(pretrained, method))
    export_merged(adapted.model, tmp_path)
    clip = CLIPModel.from_pretrained(tmp_path)
    assert type(clip) is CLIPModel
    with evaluating(clip):
        normalised = pretrained.normalise(pixels())
        embeddings = clip.get_image_features(pixel_values=normalised).pooler_output
    torch.testing.assert_close(
        embeddings, adapted.model.embed_images(pixels()), rtol=1e-4, atol=1e-5
    )


@every_method
def test_the_classifier_makes_the_round_trip(
    pretrained: VisionLanguageModel, method: object, tmp_path: Path
) -> None:
    adapted = moved(adapted_by(pretrained, method))
    save_adapted(adapted, pretrained, tmp_path)
    embeddings = adapted.model.embed_images(pixels(16))
    with torch.no_grad():
        live, stored = adapted.class_logits(embeddings), load_classifier(tmp_path)(embeddings)
    assert torch.equal(live.argmax(-1), stored.argmax(-1))
    if method != "flyp":
        assert torch.equal(live, stored)


@every_method
def test_trainable_weights_make_the_round_trip(
    pretrained: VisionLanguageModel, method: object
) -> None:
    adapted = moved(adapted_by(pretrained, method))
    other = adapted_by(pretrained, method, seed=9)
    restore_trainable(other, trainable_state(adapted))
    assert torch.equal(other.model.embed_images(pixels()), adapted.model.embed_images(pixels()))
    mistaken = {**trainable_state(adapted), "encoder.more": torch.zeros(1)}
    with pytest.raises(ModelError, match=r"another method or model: encoder\.more differs"):
        restore_trainable(other, mistaken)


@every_method
def test_parameter_counts_are_those_of_the_tensors(
    pretrained: VisionLanguageModel, method: object
) -> None:
    adapted = adapted_by(pretrained, method)
    counts = adapted.num_parameters()
    assert counts["trainable"] == sum(t.numel() for t in trainable_state(adapted).values())
    plain = sum(p.numel() for p in pretrained.module.parameters())
    head = 0 if method == "flyp" else 3 * 16 + 3
    extra = sum(
        tensor.numel()
        for name, tensor in adapted.trainable().items()
        if re.search(r"lora_|ia3_|vera_|oft_|lokr_", name)
    )
    assert counts["total"] == plain + head + extra


def test_a_lora_of_rank_8_has_the_published_number_of_parameters(
    pretrained: VisionLanguageModel,
) -> None:
    counts = adapted_by(pretrained, "lora").num_parameters()
    # two blocks, q and v, A and B of 32 × 8; the projection; the classifier with its bias
    assert counts["trainable"] == 2 * 2 * 2 * 32 * 8 + 32 * 16 + 16 * 3 + 3


def test_freezing_more_blocks_than_there_are_is_refused(pretrained: VisionLanguageModel) -> None:
    with pytest.raises(ModelError, match=r"cannot freeze 3 blocks: .* has 2"):
        adapted_by(pretrained, {"kind": "freeze_first", "blocks": 3})


@pytest.mark.parametrize("method", ["full_ft", "linear_probe", "lora"])
def test_an_adapter_is_refused_as_the_model_to_adapt(
    pretrained: VisionLanguageModel, method: str
) -> None:
    wrapped = adapted_by(pretrained, "lora").model
    with pytest.raises(ModelError, match=r"merge it \(driftscope export .* --out FOLDER\)"):
        adapted_by(wrapped, method)


@pytest.mark.parametrize(
    ("type_", "options", "sentence"),
    [
        ("OTF", {}, r"peft's OTF is not known here; did you mean .*OFT"),
        ("PROMPT_TUNING", {}, "peft's PROMPT_TUNING does not adapt linear layers"),
        ("HRA", {"rank": 4}, r"peft's HRA has no option 'rank' to set: valid: .* r, "),
        ("HRA", {"target_modules": "q_proj"}, "no option 'target_modules' to set"),
        ("FOURIERFT", {"n_frequency": 20}, "changes the model before its first step"),
        ("MISS", {}, r"peft cannot make miss of .*`r` \(64\)"),
        ("LILY", {}, r"peft cannot make lily of .*not supported for Lily"),
        ("LN_TUNING", {}, "cannot be merged into a plain model"),
        ("POLY", {}, r"peft cannot make poly of .*task_ids"),
    ],
)
def test_a_tuner_of_peft_that_does_not_fit_is_refused_in_a_sentence(
    pretrained: VisionLanguageModel, type_: str, options: dict, sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        adapted_by(pretrained, {"kind": "peft", "type": type_, "options": options})


@pytest.mark.parametrize("type_", ["BOFT", "LOHA", "HRA", "OSF", "FOURIERFT"])
def test_a_tuner_of_peft_starts_without_effect_and_is_kept_and_merged(
    pretrained: VisionLanguageModel, type_: str, tmp_path: Path
) -> None:
    options = {"FOURIERFT": {"n_frequency": 20, "init_weights": True}}.get(type_, {})
    adapted = adapted_by(pretrained, {"kind": "peft", "type": type_, "options": options})
    found = adapted.model.embed_images(pixels())
    torch.testing.assert_close(found, pretrained.embed_images(pixels()), rtol=1e-4, atol=1e-5)
    trained = moved(adapted).model.embed_images(pixels())
    assert not torch.allclose(trained, found, atol=1e-3)
    save_adapted(adapted, pretrained, tmp_path / "kept")
    assert torch.equal(ds.load(tmp_path / "kept").embed_images(pixels()), trained)
    export_merged(adapted.model, tmp_path / "merged")
    plain = ds.load(tmp_path / "merged").embed_images(pixels())
    torch.testing.assert_close(plain, trained, rtol=1e-4, atol=1e-5)


def test_the_label_of_a_tuner_names_its_options() -> None:
    method = method_spec({"kind": "peft", "type": "hra", "options": {"r": 4, "apply_GS": True}})
    assert method.label == "hra_apply_GSTrue_r4"
    assert method_spec({"kind": "peft", "type": "OFT", "targets": ["fc1"]}).label == "oft_fc1"


def test_a_zero_shot_head_classifies_as_the_class_prompts_do(
    pretrained: VisionLanguageModel,
) -> None:
    method = method_spec({"kind": "full_ft", "head": "zero_shot"})
    images = pretrained.embed_images(pixels(20))
    norm = float(images.norm(dim=-1).mean())
    adapted = adapt(pretrained, method, 3, 0, class_names=CLASSES, embedding_norm=norm)
    prompts = pretrained.embed_texts([f"a photo of a {name}" for name in CLASSES])
    cosines = functional.normalize(images, dim=-1) @ functional.normalize(prompts, dim=-1).T
    with torch.no_grad():
        logits = adapted.class_logits(images)
    assert torch.equal(logits.argmax(-1), cosines.argmax(-1))
    size = logits.norm() / (pretrained.logit_scale * cosines).norm()
    assert size == pytest.approx(1.0, rel=0.05)


def test_a_zero_shot_head_is_made_by_the_prompts_rules(pretrained: VisionLanguageModel) -> None:
    method = method_spec({"kind": "full_ft", "head": "zero_shot"})
    rules = PromptRules(("a yellow {}", "{} of blue"), (("red", "yellow red"),))
    adapted = adapt(pretrained, method, 3, 0, class_names=CLASSES, rules=rules)
    directions = functional.normalize(adapted.classifier.weight.detach(), dim=-1)
    torch.testing.assert_close(directions, class_embeddings(pretrained, CLASSES, rules))


def test_flyp_refuses_several_captions_a_class(pretrained: VisionLanguageModel) -> None:
    rules = PromptRules(("a yellow {}", "{} of blue"))
    with pytest.raises(ConfigError, match=r"one prompt a class .* give 2; give one"):
        adapt(pretrained, method_spec("flyp"), 3, 0, class_names=CLASSES, rules=rules)


def test_methods_that_read_class_prompts_ask_for_class_names(
    pretrained: VisionLanguageModel,
) -> None:
    for method in ("flyp", {"kind": "lora", "head": "zero_shot"}):
        with pytest.raises(ModelError, match="0 class names were given for 3 classes"):
            adapt(pretrained, method_spec(method), 3, 0)


def test_the_flyp_loss_is_the_contrastive_loss_of_transformers(
    pretrained: VisionLanguageModel,
) -> None:
    adapted = adapted_by(pretrained, "flyp")
    labels = torch.tensor([2, 0, 1, 1, 0])
    prompts = [f"a photo of a {CLASSES[label]}" for label in labels]
    with torch.no_grad():
        embeddings = adapted.model.image_embeddings(pixels())
        loss, logits = adapted.loss_and_logits(embeddings, labels)
        reference = pretrained.module(
            **pretrained.tokenised(prompts),
            pixel_values=pretrained.normalise(pixels()),
            return_loss=True,
        )
    assert loss.item() == pytest.approx(reference.loss.item(), rel=1e-5)
    torch.testing.assert_close(logits[:, labels], reference.logits_per_image)


def test_label_smoothing_is_that_of_torch(pretrained: VisionLanguageModel) -> None:
    adapted = adapted_by(pretrained, "full_ft")
    labels = torch.tensor([2, 0, 1, 1, 0])
    with torch.no_grad():
        embeddings = adapted.model.image_embeddings(pixels())
        loss, logits = adapted.loss_and_logits(embeddings, labels, label_smoothing=0.2)
    targets = 0.8 * functional.one_hot(labels, 3) + 0.2 / 3
    expected = -(targets * logits.log_softmax(-1)).sum(-1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "scaled"), [("lora", lambda a, r: a / r), ("rslora", lambda a, r: a / r**0.5)]
)
def test_low_rank_adapters_change_the_weight_by_their_scaled_product(
    pretrained: VisionLanguageModel, kind: str, scaled: Callable[[float, int], float]
) -> None:
    from driftscope.backbones.weights import encoder_weights

    method = {"kind": kind, "rank": 4, "alpha": 6.0}
    adapted = moved(adapted_by(pretrained, method))
    name = "vision_model.encoder.layers.1.self_attn.v_proj"
    tensors = {
        side: adapted.trainable()[f"encoder.base_model.model.{name}.lora_{side}.default.weight"]
        for side in "AB"
    }
    change = scaled(6.0, 4) * tensors["B"].double() @ tensors["A"].double()
    expected = pretrained.module.get_parameter(f"{name}.weight") + change
    found = encoder_weights(adapted.model.module)[f"{name}.weight"]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-7)
