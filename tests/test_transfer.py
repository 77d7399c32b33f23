from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from random_models import random_pixels
from scipy.stats import hypergeom
from statsmodels.stats.proportion import proportion_confint
from torch.nn import functional
from transformers import AutoTokenizer, CLIPModel

from driftscope import sources
from driftscope.assess import assess
from driftscope.backbones.model import VisionLanguageModel
from driftscope.data import open_dataset
from driftscope.data.prompts import PromptRules
from driftscope.data.rows import GPU_SHARE, PixelRows, resident
from driftscope.errors import CaptureError, DataError
from driftscope.reference import make_reference
from driftscope.sources import load
from driftscope.transfer import (
    class_embeddings,
    retention_pct,
    retrieval_score,
    retrieval_set,
    score,
    transfer_set,
    zero_shot,
)
from driftscope.transfer.calibration import expected_calibration_error_pct
from driftscope.transfer.classification import classify
from driftscope.transfer.doubts import DoubtWarning, doubts_of_recall, unknown_words
from driftscope.transfer.retrieval import chance_recall_pct
from driftscope.transfer.scores import confusion_flows, outcome_of, per_class_retention

SHARED_IMAGES = Path(__file__).parents[2] / "shared" / "images"


@pytest.fixture(scope="module")
def model(tiny_clip: Path) -> VisionLanguageModel:
    return load(tiny_clip)


@pytest.fixture
def with_adapter(tiny_clip: Path) -> VisionLanguageModel:
    """The tiny CLIP under a LoRA adapter that changes much."""
    base = load(tiny_clip)
    config = LoraConfig(r=4, target_modules=r"vision_model\..*\.(q_proj|v_proj)")
    clip = get_peft_model(base.module, config)
    with torch.no_grad():
        for name, weight in clip.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 3.0, generator=torch.Generator().manual_seed(0))
    return replace(base, module=clip)


# ---------------------------------------------------------------- calibration


def binned_error(probabilities: np.ndarray, is_right: np.ndarray) -> float:
    """Guo et al. 2017, (3), as written: bins (0, 1/15], (1/15, 2/15], …, in percent."""
    confidence = probabilities.max(axis=1)
    edges = np.linspace(0, 1, 16)
    error = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs(is_right[inside].mean() - confidence[inside].mean())
            error += inside.mean() * gap
    return 100 * error


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_the_calibration_error_is_the_published_formulas(num_classes: int) -> None:
    random = np.random.default_rng(num_classes)
    probabilities = random.dirichlet(np.full(num_classes, 0.2), 500)
    is_right = random.random(500) < 0.6
    found = expected_calibration_error_pct(torch.tensor(probabilities), torch.tensor(is_right))
    assert found == pytest.approx(binned_error(probabilities, is_right), abs=1e-9)


def test_who_is_always_sure_and_half_right_is_off_by_half() -> None:
    sure = torch.eye(2)[[0, 0, 1, 1]]
    assert expected_calibration_error_pct(sure, torch.tensor([True, False] * 2)) == 50
    assert expected_calibration_error_pct(sure, torch.ones(4, dtype=torch.bool)) == 0


def test_a_scores_calibration_is_that_of_the_models_own_softmax(
    model: VisionLanguageModel,
) -> None:
    pixels, labels = random_pixels(24, size=32), torch.arange(24) % 3
    texts = class_embeddings(model, ["red", "blue", "green"])
    found = zero_shot(model, pixels, labels, texts, "x")
    with torch.no_grad():
        output = model.module(
            pixel_values=model.normalise(pixels),
            **model.tokenised([f"a photo of a {name}" for name in ("red", "blue", "green")]),
        )
    probabilities = output.logits_per_image.double().softmax(dim=-1).numpy()
    is_right = probabilities.argmax(axis=1) == labels.numpy()
    assert found.ece_pct == pytest.approx(binned_error(probabilities, is_right), abs=1e-3)


def test_the_change_of_calibration_is_in_points() -> None:
    eye, labels = torch.eye(4), torch.tensor([0, 1, 2, 3])
    before, after = (
        outcome_of(eye[said], labels, eye, "x", 20.0) for said in ([0, 1, 2, 3], [0, 1, 3, 2])
    )
    assert before.score.ece_pct == pytest.approx(0, abs=1e-6)
    assert after.score.ece_pct == pytest.approx(50, abs=1e-6)
    assert outcome_of(eye, labels, eye, "x").score.ece_pct is None


# ---------------------------------------------------------------- classification


def test_scores_and_predictions_agree_with_a_written_out_classification(
    model: VisionLanguageModel,
) -> None:
    pixels, labels = random_pixels(40, size=32), torch.arange(40) % 7
    texts = functional.normalize(torch.randn(7, model.embedding_dim), dim=-1)
    outcome = classify(model, pixels, labels, texts, "x")
    with torch.no_grad():
        features = model.module.get_image_features(
            pixel_values=model.normalise(pixels)
        ).pooler_output
    similarity = (features / features.norm(dim=1, keepdim=True)).numpy() @ texts.numpy().T
    order = np.argsort(-similarity, axis=1)
    hits = order[:, 0] == labels.numpy()
    assert outcome.predicted.tolist() == order[:, 0].tolist()
    found = outcome.score
    assert (found.num_correct, found.num_images) == (hits.sum(), 40)
    assert found.accuracy_pct == pytest.approx(100 * hits.mean())
    top5 = (order[:, :5] == labels.numpy()[:, None]).any(axis=1)
    assert found.top5_pct == pytest.approx(100 * top5.mean())
    by_class = [hits[labels.numpy() == label].mean() for label in range(7)]
    assert found.mean_per_class_pct == pytest.approx(100 * np.mean(by_class))
    assert found == zero_shot(model, pixels, labels, texts, "x", batch_size=7)


@pytest.mark.parametrize(("correct", "images"), [(0, 10), (10, 10), (37, 120), (5124, 10_000)])
def test_the_interval_is_wilsons(correct: int, images: int) -> None:
    low, high = proportion_confint(correct, images, method="wilson")
    found = score("x", correct, images)
    assert (found.wilson_low_pct, found.wilson_high_pct) == pytest.approx((100 * low, 100 * high))


def test_with_fewer_than_five_classes_every_image_is_among_the_likeliest() -> None:
    found = outcome_of(torch.eye(3), torch.tensor([1, 2, 0]), torch.eye(3), "x").score
    assert found.top5_pct == 100
    assert found.accuracy_pct == 0


def test_mean_per_class_weighs_classes_alike_and_leaves_out_those_without_images() -> None:
    images = torch.eye(3)[[0, 0, 0, 1]]
    found = outcome_of(images, torch.tensor([0, 0, 0, 0]), torch.eye(3), "x").score
    assert found.mean_per_class_pct == found.accuracy_pct == 75
    found = outcome_of(images, torch.tensor([0, 0, 1, 1]), torch.eye(3), "x").score
    assert found.mean_per_class_pct == 75
    assert found.per_class_correct == (2, 1, 0)
    assert found.per_class_images == (2, 2, 0)


def test_a_collapsed_model_scores_chance_and_not_everything() -> None:
    images = torch.ones(10, 4)
    labels = torch.arange(10)
    assert outcome_of(images, labels, torch.ones(10, 4), "x").score.accuracy_pct == 10


def test_retention_is_the_share_that_is_left() -> None:
    assert retention_pct(score("x", 30, 100), score("x", 60, 100)) == 50
    assert retention_pct(score("x", 60, 200), score("x", 60, 100)) == 50
    assert retention_pct(score("x", 0, 100), score("x", 60, 100)) == 0
    assert retention_pct(score("x", 3, 100), score("x", 0, 100)) is None
    # a gate of 100 % passes an equal model, and a verdict sees that it is one
    for correct in range(100, 601):
        assert retention_pct(score("x", correct, 600), score("x", correct, 600)) == 100


def test_forgotten_classes_come_first_and_flows_say_what_they_became() -> None:
    names = ("ant", "bee", "cow", "dog")
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    said_before = torch.tensor([0, 0, 1, 2, 2, 2, 0])
    said_after = torch.tensor([0, 2, 2, 2, 2, 2, 3])
    eye = torch.eye(4)
    before = outcome_of(eye[said_before], labels, eye, "x")
    after = outcome_of(eye[said_after], labels, eye, "x")
    rows = per_class_retention(after.score, before.score, names)
    assert [(row["class"], row["retention_pct"]) for row in rows] == [
        ("bee", 0.0),
        ("ant", 50.0),
        ("cow", 100.0),
        ("dog", None),
    ]
    assert rows[0] == {
        "class": "bee",
        "num_images": 2,
        "pretrained_pct": 50.0,
        "adapted_pct": 0.0,
        "retention_pct": 0.0,
    }
    flows = confusion_flows(after, before, labels, names)
    assert (flows["num_lost"], flows["num_gained"]) == (2, 1)
    assert flows["lost_to"] == [
        {"class": "ant", "taken_for": "cow", "num_images": 1},
        {"class": "bee", "taken_for": "cow", "num_images": 1},
    ]


# ---------------------------------------------------------------- the live path


def test_an_adapters_effect_is_in_the_score_and_switching_it_off_is_caught(
    model: VisionLanguageModel, with_adapter: VisionLanguageModel
) -> None:
    pixels = random_pixels(60, size=32)
    with torch.no_grad():
        base_embeddings = model.embed_images(pixels)
    # each image's own embedding under the base model as its class: the base is always right
    texts = functional.normalize(base_embeddings, dim=-1)
    labels = torch.arange(60)
    assert zero_shot(model, pixels, labels, texts, "x").accuracy_pct == 100
    assert zero_shot(with_adapter, pixels, labels, texts, "x").accuracy_pct < 50
    assert isinstance(with_adapter.module, PeftModel)
    with with_adapter.module.disable_adapter():
        # what would be reported without the check: the pretrained score
        embeddings = functional.normalize(with_adapter.embed_images(pixels), dim=-1)
        assert outcome_of(embeddings, labels, texts, "x").score.accuracy_pct == 100
        with pytest.raises(CaptureError, match="disabled"):
            zero_shot(with_adapter, pixels, labels, texts, "x")


def test_retrieval_catches_a_disabled_adapter_too(
    with_adapter: VisionLanguageModel, captioned: Path
) -> None:
    benchmark = retrieval_set(str(captioned), with_adapter)
    benchmark.score(with_adapter)
    assert isinstance(with_adapter.module, PeftModel)
    with with_adapter.module.disable_adapter(), pytest.raises(CaptureError, match="disabled"):
        benchmark.score(with_adapter)


def test_a_diverged_model_is_refused_and_not_scored(tiny_clip: Path) -> None:
    broken = load(tiny_clip)
    with torch.no_grad():
        broken.plain.visual_projection.weight.fill_(torch.nan)
    texts = torch.eye(broken.embedding_dim)
    with pytest.raises(CaptureError, match="NaN"):
        zero_shot(broken, random_pixels(4, size=32), torch.arange(4), texts, "x")


# ---------------------------------------------------------------- texts


def test_an_ensemble_is_the_mean_of_normalised_embeddings(model: VisionLanguageModel) -> None:
    rules = PromptRules(templates=("a photo of a {}", "{}", "a {} photo"))
    found = class_embeddings(model, ["red", "blue"], rules)
    sentences = ["a photo of a blue", "blue", "a blue photo"]
    singly = [functional.normalize(model.embed_texts([one])[0], dim=0) for one in sentences]
    mean = torch.stack(singly).mean(dim=0)
    assert torch.allclose(found[1], mean / mean.norm(), atol=1e-6)
    one = class_embeddings(model, ["red", "blue"])
    assert torch.allclose(one[1], singly[0], atol=1e-6)


def test_unknown_words_are_named(model: VisionLanguageModel) -> None:
    assert unknown_words(model, ["red", "red panda", "blue whale", "panda"]) == ("panda", "whale")


def test_a_transfer_set_says_which_prompts_were_used(
    model: VisionLanguageModel, coloured_images: Path
) -> None:
    rules = PromptRules(templates=("photo", "a {} photo"), class_words=(("red", "scarlet"),))
    benchmark = transfer_set(str(coloured_images), model, None, rules)
    assert benchmark.classes_of_known_words == ("blue", "green")
    assert benchmark.prompts() == {
        "split": "test",
        "templates": ["a photo of a {}", "a {} photo"],
        "class_words": {"blue": "blue", "green": "green", "red": "scarlet"},
        "unknown_words": ["scarlet"],
    }


def test_a_smaller_transfer_set_still_has_every_class(
    model: VisionLanguageModel, coloured_images: Path
) -> None:
    benchmark = transfer_set(str(coloured_images), model, 6)
    assert torch.bincount(benchmark.labels).tolist() == [2, 2, 2]
    change = benchmark.change(benchmark.outcome(model), benchmark.outcome(model))
    assert change["flows"]["num_lost"] == change["flows"]["num_gained"] == 0
    assert change["retention_pct"] in (100, None)
    assert sum(row["num_images"] for row in change["per_class"]) == 6


# ---------------------------------------------------------------- retrieval


@pytest.fixture
def captioned(coloured_images: Path, tmp_path: Path) -> Path:
    files = sorted(coloured_images.glob("test/*/*.png"))[::3]
    rows = [f"{file},a photo of {file.parent.name}" for file in files]
    (tmp_path / "captions.csv").write_text("\n".join(["path,caption", *rows]))
    return tmp_path / "captions.csv"


def test_retrieval_agrees_with_a_written_out_ranking() -> None:
    generator = torch.Generator().manual_seed(3)
    images = functional.normalize(torch.randn(30, 8, generator=generator), dim=-1)
    texts = functional.normalize(
        images.repeat_interleave(2, 0) + 0.8 * torch.randn(60, 8, generator=generator), dim=-1
    )
    matches = torch.eye(30, dtype=torch.bool).repeat_interleave(2, 1)
    found = retrieval_score(images, texts, matches, "x")
    similarity = images.numpy() @ texts.numpy().T
    order = np.argsort(-similarity, axis=1)
    first = np.array(
        [min(np.flatnonzero(row // 2 == image)) + 1 for image, row in enumerate(order)]
    )
    to_text = found.image_to_text
    assert to_text.recall_at_1_pct == pytest.approx(100 * (first <= 1).mean())
    assert to_text.recall_at_5_pct == pytest.approx(100 * (first <= 5).mean())
    assert to_text.recall_at_10_pct == pytest.approx(100 * (first <= 10).mean())
    assert to_text.median_rank == np.median(first)
    order = np.argsort(-similarity.T, axis=1)
    first = np.array([np.flatnonzero(row == text // 2)[0] + 1 for text, row in enumerate(order)])
    assert found.text_to_image.median_rank == np.median(first)
    assert found.text_to_image.recall_at_5_pct == pytest.approx(100 * (first <= 5).mean())
    assert (to_text.num_queries, to_text.num_candidates) == (30, 60)


def test_perfect_retrieval_has_rank_one_both_ways() -> None:
    eye = torch.eye(12)
    found = retrieval_score(eye, eye, torch.eye(12, dtype=torch.bool), "x")
    for way in (found.image_to_text, found.text_to_image):
        assert (way.recall_at_1_pct, way.median_rank) == (100, 1)


def test_embeddings_that_collapsed_find_nothing() -> None:
    same = torch.ones(20, 4) / 2
    found = retrieval_score(same, same, torch.eye(20, dtype=torch.bool), "x")
    assert found.image_to_text.recall_at_10_pct == 0
    assert found.image_to_text.median_rank == 20


def test_images_of_equal_captions_match_each_others(
    model: VisionLanguageModel, captioned: Path
) -> None:
    benchmark = retrieval_set(str(captioned), model)
    assert benchmark.matches.shape == (8, 3)
    assert benchmark.matches.sum().item() == 8
    before = benchmark.score(model)
    assert before.change(before)["retention_pct"]["text_to_image"] in (100, None)
    assert before.text_to_image.num_queries == 3


def test_chance_is_that_of_a_random_order() -> None:
    random = torch.Generator().manual_seed(1)
    matches = torch.rand(7, 25, generator=random) < 0.2
    matches[0], matches[1] = False, True  # a query without a match, and one that all match
    for k in (1, 5, 10):
        counts = matches.sum(dim=1).numpy()
        expected = 100 * (1 - hypergeom(25, counts, k).pmf(0)).mean()
        assert chance_recall_pct(matches, k) == pytest.approx(expected, abs=1e-9)
    assert chance_recall_pct(matches, 25) == 100


def test_a_recall_at_chance_has_no_retention_and_says_so() -> None:
    same = torch.ones(20, 4) / 2
    collapsed = retrieval_score(same, same, torch.eye(20, dtype=torch.bool), "x")
    perfect = retrieval_score(torch.eye(20), torch.eye(20), torch.eye(20, dtype=torch.bool), "x")
    assert collapsed.change(collapsed)["retention_pct"]["image_to_text"] is None
    assert collapsed.change(perfect)["retention_pct"] == {"image_to_text": 0, "text_to_image": 0}
    (first, _) = doubts_of_recall(collapsed)
    assert "recall@1 image to text, 0.0 %" in first
    assert "not above chance (5.0 %)" in first
    assert not list(doubts_of_recall(perfect))


def test_captions_that_tell_nothing_are_doubted(
    model: VisionLanguageModel, captioned: Path
) -> None:
    rows = [line.split(",") for line in captioned.read_text().splitlines()[1:]]
    for captions, doubt in (
        ([str(at) for at in range(len(rows))], "are no words"),
        (["a photo of red"] * len(rows), "one caption is that of 8 of its 8 images"),
        ([f"a photo of {word}" for word in "stuvwxyz"], "read like another by the tokenizer"),
    ):
        lines = [f"{file},{caption}" for (file, _), caption in zip(rows, captions, strict=True)]
        captioned.write_text("\n".join(["path,caption", *lines]))
        with pytest.warns(DoubtWarning, match=doubt):
            retrieval_set(str(captioned), model)


def test_a_text_tower_that_moved_reads_the_captions_itself(
    model: VisionLanguageModel, tiny_clip: Path, captioned: Path
) -> None:
    moved = load(tiny_clip)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in moved.module.named_parameters():
            if name.startswith("text_model") and weight.ndim == 2:
                weight += torch.randn(weight.shape, generator=generator)
    benchmark = retrieval_set(str(captioned), model)
    reference = make_reference(model, random_pixels(4, size=32), retrieval=[benchmark])
    found = assess(moved, reference).retrieval[str(captioned)]
    images = functional.normalize(moved.embed_images(benchmark.pixels), dim=-1)
    texts = functional.normalize(moved.embed_texts(benchmark.texts), dim=-1)
    own = retrieval_score(images, texts, benchmark.matches, str(captioned))
    assert found["image_to_text"] == own.to_dict()["image_to_text"]
    frozen = assess(moved, reference, text_tower_is_frozen=True).retrieval[str(captioned)]
    assert frozen["image_to_text"] != found["image_to_text"]


def test_images_without_captions_cannot_be_retrieved(
    model: VisionLanguageModel, coloured_images: Path
) -> None:
    with pytest.raises(DataError, match=r"no captions.*\?caption=COLUMN"):
        retrieval_set(str(coloured_images), model)


def test_real_captions_are_retrieved_no_better_than_chance_by_a_random_model(
    model: VisionLanguageModel,
) -> None:
    if not (SHARED_IMAGES / "captions").is_dir():
        pytest.skip(f"needs {SHARED_IMAGES / 'captions'}")
    found = retrieval_set(str(SHARED_IMAGES / "captions"), model).score(model)
    assert found.image_to_text.num_queries == found.text_to_image.num_queries == 32
    assert found.image_to_text.wilson_low_pct < 100 / 32


# ---------------------------------------------------------------- where pixels live


@pytest.mark.parametrize(("share_of_free", "moves"), [(0.9, True), (1.1, False)])
def test_pixels_go_to_the_gpu_as_a_whole_if_they_fit(
    monkeypatch: pytest.MonkeyPatch, share_of_free: float, moves: bool
) -> None:
    chosen = PixelRows(random_pixels(8, size=32), torch.tensor([6, 1, 3]))
    free = round(chosen.nbytes / GPU_SHARE / share_of_free)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 2 * free))
    moved: list[torch.Tensor] = []

    def to(tensor: torch.Tensor, _device: torch.device) -> torch.Tensor:
        if tensor.dtype == torch.uint8:  # and not the positions
            moved.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    found = resident(chosen, torch.device("cuda", 0))
    assert [len(tensor) for tensor in moved] == [3] * moves
    monkeypatch.undo()
    assert torch.equal(found[torch.tensor([2, 0])], chosen.stored[[3, 6]])


def test_pixels_stay_where_they_are_if_another_process_took_the_gpus_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def to(*_: object) -> None:
        raise torch.OutOfMemoryError

    pixels = PixelRows.of(random_pixels(2, size=32))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (10**9, 10**9))
    monkeypatch.setattr(torch.Tensor, "to", to)
    assert resident(pixels, torch.device("cuda", 0)) is pixels


def test_on_the_cpu_pixels_stay_where_they_are() -> None:
    pixels = PixelRows.of(random_pixels(2, size=32))
    assert resident(pixels, torch.device("cpu")) is pixels


def test_a_folders_values_are_those_of_transformers_pil_and_numpy(tmp_path: Path) -> None:
    """An uneven folder of JPEGs, by the mini model with noise on its weights."""
    mini = load("mini")
    folder = Path(sources.__file__).parent / "mini"
    torch.manual_seed(0)
    state = mini.module.state_dict()
    for name, value in state.items():
        if name.startswith("vision_model") and value.ndim >= 2:
            state[name] = value + 0.6 * value.std() * torch.randn(value.shape)
    damaged = CLIPModel.from_pretrained(folder).float().eval()
    damaged.load_state_dict(state)
    world = open_dataset("concepts100", "test")
    assert world.labels is not None
    assert world.class_names is not None
    for label, name in enumerate(world.class_names[:8]):
        rows = (world.labels == label).nonzero().flatten()[: 1 + label]
        (tmp_path / name.replace(" ", "_")).mkdir()
        for row, image in zip(rows, world.pixels(rows, 64), strict=True):
            shown = Image.fromarray(image.permute(1, 2, 0).numpy())
            shown.save(tmp_path / name.replace(" ", "_") / f"{row}.jpg")
    files = sorted(tmp_path.glob("*/*.jpg"), key=lambda file: (file.parent.name, file.name))
    names = sorted({file.parent.name for file in files})
    labels = np.array([names.index(file.parent.name) for file in files])
    shown = [Image.open(file).resize((56, 56), Image.Resampling.BICUBIC) for file in files]
    pixels = (np.stack([np.asarray(one, np.float32) for one in shown]) / 255 - 0.5) / 0.25
    prompts = [f"a photo of a {name.replace('_', ' ')}" for name in names]
    ids = AutoTokenizer.from_pretrained(folder)(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        texts = damaged.get_text_features(**ids).pooler_output
        images = damaged.get_image_features(torch.tensor(pixels.transpose(0, 3, 1, 2)))
    directions = [functional.normalize(one, dim=-1) for one in (images.pooler_output, texts)]
    scores = (directions[0] @ directions[1].T).numpy()
    hit = scores.argmax(1) == labels
    top5 = (np.argsort(-scores, 1)[:, :5] == labels[:, None]).any(1)
    mini.module.load_state_dict(state)
    found = transfer_set(str(tmp_path), load("mini")).outcome(mini).score
    assert 20 < found.accuracy_pct < 80
    assert found.accuracy_pct == pytest.approx(100 * hit.mean())
    assert found.top5_pct == pytest.approx(100 * top5.mean())
    by_class = [hit[labels == one] for one in range(8)]
    assert found.mean_per_class_pct == pytest.approx(
        100 * np.mean([one.mean() for one in by_class])
    )
    assert list(found.per_class_correct) == [int(one.sum()) for one in by_class]
