"""Retention without labels: what the pool tells, and when the estimate is withheld."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from typer.testing import CliRunner

import driftscope as ds
from driftscope.backbones.model import VisionLanguageModel
from driftscope.cli import app
from driftscope.data import open_dataset
from driftscope.data.given import some_pixels
from driftscope.data.prompts import PromptRules, class_prompts
from driftscope.errors import ConfigError, DataError, DriftscopeError, NoteWarning
from driftscope.estimate import SURE_WIDTH, Referee, class_list, make_pool
from driftscope.gate.judging import judge, read_evidence
from driftscope.gate.limits import GATED, parse_limit
from driftscope.metrics import ESTIMATED
from driftscope.records import REPORT_FILE, write_json

RULES = PromptRules()
WORLD = "concepts100"


@pytest.fixture(scope="module")
def mini() -> VisionLanguageModel:
    return ds.load("mini")


@pytest.fixture(scope="module")
def adapted(mini: VisionLanguageModel) -> VisionLanguageModel:
    """The mini after all of its image tower has been pushed somewhere."""
    model = deepcopy(mini.module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "vision" in name and one.ndim > 1:
                one.add_(0.35 * one.std() * torch.randn(one.shape, generator=generator))
    return replace(mini, module=model, source="pushed")


@pytest.fixture(scope="module")
def estimate(mini: VisionLanguageModel, adapted: VisionLanguageModel) -> ds.Estimate:
    return ds.estimate_retention(mini, adapted, WORLD, max_images=100)


def referee_of(
    mini: VisionLanguageModel, images: torch.Tensor, classes: str | list[str]
) -> Referee:
    pool = make_pool(mini, images, classes, RULES)
    return Referee.of(pool, mini.embed_images(pool.pixels).float())


def test_the_estimate_is_the_formula_on_the_models_own_outputs(
    mini: VisionLanguageModel, adapted: VisionLanguageModel, estimate: ds.Estimate
) -> None:
    images = open_dataset(WORLD, "test")
    places = np.linspace(0, len(images) - 1, 100).astype(int).tolist()
    pixels = images.pixels(places, mini.image_size)
    texts = mini.embed_texts(class_prompts(images.class_names)).double()
    texts = texts / texts.norm(dim=1, keepdim=True)

    def cosines(model: VisionLanguageModel) -> torch.Tensor:
        embedded = model.embed_images(pixels).double()
        return embedded / embedded.norm(dim=1, keepdim=True) @ texts.T

    before = torch.exp(mini.logit_scale * cosines(mini))
    p = (before / before.sum(1, keepdim=True)).numpy()
    chosen = cosines(adapted).argmax(1).numpy()
    expected = 100 * p[np.arange(100), chosen].sum() / p.max(1).sum()
    assert estimate.retention_pct == pytest.approx(expected, rel=1e-5)
    assert 5 < estimate.retention_pct < 95
    assert estimate.agreement_pct == pytest.approx(100 * (chosen == p.argmax(1)).mean())


def test_the_estimate_is_near_what_labels_measure(
    mini: VisionLanguageModel, adapted: VisionLanguageModel, estimate: ds.Estimate
) -> None:
    images = open_dataset(WORLD, "test")
    places = np.linspace(0, len(images) - 1, 100).astype(int)
    labels = images.labels[places]
    texts = mini.embed_texts(class_prompts(images.class_names))
    texts = texts / texts.norm(dim=1, keepdim=True)
    pixels = images.pixels(places.tolist(), mini.image_size)
    right = [(one.embed_images(pixels) @ texts.T).argmax(1) == labels for one in (mini, adapted)]
    measured = 100 * float(right[1].sum() / right[0].sum())
    assert estimate.low_90_pct <= measured <= estimate.high_90_pct
    assert estimate.retention_pct == pytest.approx(measured, abs=4)


def test_the_sentence_says_images_and_interval(estimate: ds.Estimate) -> None:
    value, low, high = (
        f"{one:.1f}" for one in (estimate.retention_pct, estimate.low_90_pct, estimate.high_90_pct)
    )
    assert estimate.sentence() == (
        f"Estimated retention {value} % (from 100 unlabeled images of {WORLD}; 90 % interval {low} "
        f"to {high})."
    )
    assert json.loads(json.dumps(estimate.to_dict()))["sentence"] == estimate.sentence()


def test_classes_come_from_a_list_a_file_the_vocabulary_or_a_dataset(tmp_path: Path) -> None:
    names = open_dataset(WORLD, "test").class_names
    file = tmp_path / "names.txt"
    file.write_text("\n".join(names))
    assert class_list(list(names), RULES).names == names
    assert class_list(file, RULES).names == names
    assert class_list(WORLD, RULES).names == names
    assert "elephant" in class_list("general", RULES).names


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([], "^no class is named, and a zero-shot model chooses among two or more"),
        (["red circle"], "^only one class, 'red circle', is named, and"),
        (["red_circle", "blue ring", "Red circle"], "1 class name.* twice .*'red circle'"),
        (["red circle", " "], r"1 class name\(s\) of 2 classes of your own are blank"),
        (7, "classes is 7; give a list of class names"),
        ("no-such-thing", "classes is 'no-such-thing': give a file"),
    ],
)
def test_classes_that_cannot_be_are_refused_in_a_sentence(classes: object, words: str) -> None:
    with pytest.raises(DriftscopeError, match=words):
        class_list(classes, RULES)


def test_a_file_of_one_line_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "note.txt"
    file.write_text("Remember to ask for the names.\n")
    with pytest.raises(DataError) as told:
        class_list(file, RULES)
    assert str(told.value).startswith(
        f"only one class, 'Remember to ask for the names.', is named in {file}, and"
    )


def test_a_pool_without_classes_or_classes_without_a_pool_is_refused(
    mini: VisionLanguageModel,
) -> None:
    pixels = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="the pool has no class names of its own"):
        make_pool(mini, pixels, None, RULES)
    with pytest.raises(ConfigError, match="but no pool was given"):
        ds.compare(mini, mini, "stars", classes="general")
    with pytest.raises(ConfigError, match="but no pool was given"):
        ds.Monitor(mini, "stars", classes="general", echo=None)
    with pytest.raises(ConfigError, match="estimated on unlabeled images only"):
        ds.Monitor(mini, "stars", alerts=ds.Thresholds(limits={"min_estimated_retention": 90}))


def test_labels_that_contradict_the_classes_are_refused(mini: VisionLanguageModel) -> None:
    with pytest.raises(DataError, match=r"the pool terrain holds labels that contradict .*10 of"):
        make_pool(mini, "terrain", WORLD, RULES)


def test_an_empty_pool_is_refused(mini: VisionLanguageModel) -> None:
    with pytest.raises(DataError, match=r"pool holds 0 image"):
        make_pool(mini, torch.zeros(0, 3, 8, 8, dtype=torch.uint8), WORLD, RULES)


def test_too_few_images_for_a_model_make_a_doubt_that_says_how_many_would_do(
    mini: VisionLanguageModel, adapted: VisionLanguageModel
) -> None:
    pixels = open_dataset(WORLD, "test").pixels(range(0, 5000, 80), mini.image_size)
    referee = referee_of(mini, pixels, WORLD)
    assert referee.estimate(mini.embed_images(pixels)).doubts == ()
    wide = referee.estimate(adapted.embed_images(pixels))
    width = wide.high_90_pct - wide.low_90_pct
    assert width > SURE_WIDTH
    enough = 10 * round(len(pixels) * (width / 12) ** 2 / 10 + 0.5)
    assert f"with about {enough} images it would be 12 points wide" in wide.doubts[0]
    assert wide.imprecise == wide.doubts[0]
    few = referee.part(range(40)).estimate(mini.embed_images(pixels[:40]))
    assert "the pool has 40 images, and so few can miss" in few.doubts[0]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("few", "the pool has 20 images, and an estimate needs 30"),
        ("noise", "cannot tell the pool's images by these classes"),
        ("terrain", "cannot tell the pool's images by these classes"),
        ("two", "one answer to every image would keep"),
        ("unknown", "'xylophone' = 'zebra'), as the model's tokenizer does not know xylophone"),
    ],
)
def test_an_estimate_is_withheld_with_the_reason(
    mini: VisionLanguageModel, adapted: VisionLanguageModel, kind: str, words: str
) -> None:
    size = mini.image_size
    generator = torch.Generator().manual_seed(1)
    images = open_dataset(WORLD, "test")
    world = images.pixels(range(0, 600, 10), size)
    names = list(images.class_names[:2])
    of_two = images.pixels(torch.nonzero(images.labels < 2)[:40, 0], size)
    noise = torch.randint(0, 256, (60, 3, size, size), generator=generator).to(torch.uint8)
    pictures, classes = {
        "few": (world[:20], WORLD),
        "noise": (noise, WORLD),
        "terrain": (open_dataset("terrain", "test").pixels(range(60), size), WORLD),
        "two": (of_two, names),
        "unknown": (world, ["xylophone", "zebra", "red circle"]),
    }[kind]
    found = referee_of(mini, pictures, classes).estimate(adapted.embed_images(pictures))
    assert found.retention_pct is None
    assert words in found.withheld
    assert found.sentence() == f"Retention is not estimated: {found.withheld}."


def test_a_model_whose_text_tower_moved_chooses_by_its_own_texts(
    mini: VisionLanguageModel,
) -> None:
    model = deepcopy(mini.module)
    with torch.no_grad():
        model.get_submodule("text_projection").weight.neg_()
    turned = replace(mini, module=model, source="turned")
    assert ds.estimate_retention(mini, turned, WORLD, max_images=60).retention_pct < 20


def test_a_comparison_and_a_monitor_and_a_gate_tell_the_estimate(
    mini: VisionLanguageModel, adapted: VisionLanguageModel, tmp_path: Path
) -> None:
    found = ds.compare(mini, adapted, "stars", max_images=8, pool=WORLD, pool_images=60)
    assert found.scalars()[ESTIMATED] == found.estimate.retention_pct
    monitor = ds.Monitor(
        mini, "stars", pool=WORLD, pool_images=60, max_images=8, echo=None,
        alerts=ds.Thresholds(limits={"min_estimated_retention": 99}), on_alert="stop",
    )  # fmt: skip
    seen = monitor.observe(deepcopy(adapted.module), step=1)
    assert seen.scalars()[ESTIMATED] == found.estimate.retention_pct
    assert seen.estimate["sentence"] == found.estimate.sentence()
    assert monitor.should_stop
    assert ds.Observation.from_event(json.loads(json.dumps(seen.to_event()))) == seen

    values = found.to_dict()
    write_json(tmp_path / REPORT_FILE, values)
    gated = next(one for one in GATED if one.option == "--min-estimated-retention")
    value, low = found.estimate.retention_pct, found.estimate.low_90_pct
    between = parse_limit(gated, f"{(value + low) / 2:.3f}")
    (verdict,) = judge(read_evidence(tmp_path), [between])
    assert verdict.outcome == "not measured"
    assert "points wide, so it may be more than 10 points off" in verdict.sentence
    values["estimate"]["doubts"] = []
    write_json(tmp_path / REPORT_FILE, values)
    evidence = read_evidence(tmp_path)
    assert [one.outcome for one in judge(evidence, [between])] == ["passed"]
    assert [one.outcome for one in judge(evidence, [between], confident=True)] == ["failed"]
    measured = next(one for one in GATED if one.option == "--min-retention")
    (verdict,) = judge(evidence, [parse_limit(measured, "90")])
    assert verdict.outcome == "not measured"
    assert "it was only estimated; limit that: --min-estimated-retention" in verdict.sentence


def test_a_gate_does_not_pass_on_what_is_withheld_or_doubtful(
    mini: VisionLanguageModel, tmp_path: Path
) -> None:
    found = ds.compare(mini, mini, "stars", max_images=8, pool=WORLD, pool_images=20)
    write_json(tmp_path / REPORT_FILE, found.to_dict())
    gated = next(one for one in GATED if one.option == "--min-estimated-retention")
    (verdict,) = judge(read_evidence(tmp_path), [parse_limit(gated, "50")])
    assert verdict.outcome == "not measured"
    assert "the pool has 20 images" in verdict.sentence
    values = found.to_dict()
    values["scalars"][ESTIMATED] = values["estimate"]["retention_pct"] = 99.0
    values["estimate"]["doubts"] = ["the pretrained model is unsure of the pool's images"]
    write_json(tmp_path / REPORT_FILE, values)
    (verdict,) = judge(read_evidence(tmp_path), [parse_limit(gated, "50")])
    assert verdict.outcome == "not measured"
    assert "unsure" in verdict.sentence


def test_the_command_says_the_estimate_before_any_table(tmp_path: Path) -> None:
    arguments = ["compare", "mini", "mini", "--images", "stars", "--max-images", "8"]
    arguments += ["--pool", WORLD, "--pool-images", "40", "--out", str(tmp_path)]
    arguments += ["--transfer", WORLD, "--transfer-images", "100"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    told = " ".join(done.stdout.split())
    verdict = "Nothing has changed in the image encoder: both are equal to the bit."
    answer = (
        f"Estimated retention 100.0 % (from 40 unlabeled images of {WORLD}; 90 % interval 100.0 to "
        "100.0)."
    )
    assert told.startswith(verdict)
    measured = told.index(f"zero-shot on {WORLD}")
    assert measured < told.index(answer) < told.index("What changed")
    assert "(from 40 unlabeled images of" in (tmp_path / "report.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------- images that count several times


def captioned(folder: Path, num_images: int, form: str) -> str:
    """A list, or a table, of images with five captions each, a row a caption."""
    world = open_dataset(WORLD, "test")
    places = np.linspace(0, len(world) - 1, num_images).astype(int).tolist()
    rows = [(at, f"caption {number}") for at in range(num_images) for number in range(5)]
    for at, pixels in enumerate(world.pixels(places, 56)):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{at}.png")
    if form == "list.csv":
        lines = [f"{at}.png,{caption}" for at, caption in rows]
        (folder / form).write_text("\n".join(["path,caption", *lines]))
    else:
        data = [(folder / f"{at}.png").read_bytes() for at, _ in rows]
        parquet.write_table(
            pa.table({"image": data, "caption": [c for _, c in rows]}), folder / form
        )
    return str(folder / form)


@pytest.mark.parametrize("form", ["list.csv", "table.parquet"])
def test_an_image_with_a_row_a_caption_is_one_image_of_a_pool_and_of_a_probe_set(
    mini: VisionLanguageModel, adapted: VisionLanguageModel, tmp_path: Path, form: str
) -> None:
    place = captioned(tmp_path, 12, form)
    found = ds.compare(mini, adapted, place, pool=place, classes=WORLD)
    assert found.estimate is not None
    assert found.estimate.num_images == found.num_images == 12
    assert "the pool has 12 images, and an estimate needs 30" in found.estimate.withheld
    assert any("48 rows name an image that another row names" in one for one in found.notes)


def test_rows_that_are_counted_for_images_are_said_to_be_rows(tmp_path: Path) -> None:
    place = captioned(tmp_path, 12, "table.parquet")
    with pytest.warns(NoteWarning, match=r"several rows an image, and its count of 60 is that of"):
        assert some_pixels(place, 32, 20, "pool").num_given == 60
    with pytest.warns(NoteWarning, match="48 rows name an image") as told:
        assert some_pixels(place, 32, None, "pool").num_given == 12
    assert not any("is that of rows" in str(one.message) for one in told)


def test_rows_of_fewer_than_four_images_are_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images holds 3 image\(s\), but at least 4 are read"):
        some_pixels(captioned(tmp_path, 3, "table.parquet"), 32, None, "images")


def test_copies_in_a_pool_are_doubted_and_do_not_make_it_large_enough(
    mini: VisionLanguageModel, adapted: VisionLanguageModel
) -> None:
    world = open_dataset(WORLD, "test")
    places = np.linspace(0, len(world) - 1, 80).astype(int).tolist()
    images = world.pixels(places, mini.image_size)

    def of(pixels: torch.Tensor) -> ds.Estimate:
        return referee_of(mini, pixels, WORLD).estimate(adapted.embed_images(pixels).float())

    assert not any("copies" in doubt for doubt in of(images).doubts)
    (said,) = (doubt for doubt in of(images.repeat(2, 1, 1, 1)).doubts if "copies" in doubt)
    assert said.startswith("80 of the pool's 160 images are copies of others")
    assert "the pool has 40 images" in of(images[:40].repeat(2, 1, 1, 1)).imprecise
    assert "the pool has 20 different images" in of(images[:20].repeat(4, 1, 1, 1)).withheld
