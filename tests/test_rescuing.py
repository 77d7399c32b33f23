"""A rescue keeps its budget, measures what it can, and says when it is not worth having."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

import driftscope as ds
import driftscope.data.splits
from driftscope import strength_search
from driftscope.adapt import CLASSIFIER_FILE
from driftscope.adapt.storage import save_delta, save_tensors
from driftscope.backbones.weights import encoder_fingerprint
from driftscope.blending import Blend, num_rows
from driftscope.cli import app
from driftscope.config import parse_run_spec
from driftscope.data.duplicates import found_among
from driftscope.data.prompts import prompt_rules
from driftscope.errors import ConfigError, DataError, ModelError, NonFiniteError
from driftscope.estimate import Referee, make_pool
from driftscope.prepared_run import prepare
from driftscope.records import PROBE_FILE, STRENGTHS_FILE, retention_interval_pct
from driftscope.rescuing import RESCUE_FILE, finding, target, ways
from driftscope.rescuing import judge as judge_module
from driftscope.rescuing.apart import measured_apart
from driftscope.rescuing.judge import Judge, usual_of_pool
from driftscope.rescuing.other_budgets import other_budgets
from driftscope.rescuing.points import Point, chosen_of
from driftscope.rescuing.target import Accuracy, kept_classifier, open_target
from driftscope.rescuing.ways import largest_uniform, least_harmful_first, one_by_one, towards
from driftscope.run import run_one
from driftscope.sources.origin import note_origin
from driftscope.strength_search import Change, ToKeep, ToLearn, price_of
from driftscope.transfer import labelled_sets, score
from driftscope.transfer.features import linear_classifier

SMALL = {"max_images": 16, "pool_images": 120}
NUM_FINAL = 48
TINY_RUN = {
    "method": "full_ft", "learning_rate": 1e-3, "epochs": 1, "train_images": 20, "val_images": 10,
    "probe_images": 10, "transfer": [],
}  # fmt: skip
Rows = dict[str, torch.Tensor]


@pytest.fixture(scope="module", autouse=True)
def _few_final_images() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, "MOST_FINAL", NUM_FINAL)
        yield


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder of the mini after its image tower has been pushed somewhere."""
    mini = ds.load("mini")
    model = deepcopy(mini.module)
    generator = torch.Generator().manual_seed(0)
    pushed = {}
    for name, one in model.named_parameters():
        if "vision" in name and one.ndim > 1:
            pushed[name] = one.detach() + 0.8 * one.std() * torch.randn(
                one.shape, generator=generator
            )
    folder = tmp_path_factory.mktemp("damaged") / "run" / "adapted"
    folder.mkdir(parents=True)
    save_delta(pushed, folder)
    note_origin(folder, "mini", encoder_fingerprint(mini))
    torch.manual_seed(0)
    save_tensors(nn.Linear(mini.embedding_dim, 10).state_dict(), folder / CLASSIFIER_FILE)
    return folder.parent


@pytest.fixture(scope="module")
def found(damaged: Path) -> ds.Rescue:
    """What is rescued of it by one strength, judged by labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "GRID", (0.3, 0.6))
        return ds.rescue(
            "mini", damaged, "terrain", "concepts100", keep_pct=80, by="wise",
            transfer="concepts100", transfer_images=100, **SMALL,
        )  # fmt: skip


def test_the_best_point_that_keeps_the_budget_is_chosen(found: ds.Rescue) -> None:
    kept = [one for one in found.points if one.estimate.low_90_pct >= 80]
    assert 0 < len(kept) < len(found.points)
    useful = [one for one in kept if one.likeness > found.pretrained.likeness + 0.05]
    best = max(useful, key=lambda one: one.accuracy.choosing_pct)
    assert found.chosen.accuracy.choosing_pct == best.accuracy.choosing_pct
    alike = [one for one in useful if one.accuracy.is_alike(best.accuracy)]
    assert len(found.alike) == len(alike) - 1
    assert found.adapted.estimate.low_90_pct < 80
    assert found.pretrained.estimate.retention_pct == pytest.approx(100)
    (measured,) = found.transfer.values()
    counted = measured["rescued"]["num_correct"] / measured["pretrained"]["num_correct"]
    assert measured["retention_pct"] == pytest.approx(100 * counted)


@pytest.mark.parametrize(
    ("only_a", "only_b", "is_alike"),
    [(1, 0, True), (2, 0, False), (3, 1, True), (5, 1, False), (0, 0, True), (6, 2, False)],
)
def test_accuracies_are_alike_within_one_standard_error_of_their_difference(
    only_a: int, only_b: int, is_alike: bool
) -> None:
    """The standard error of a paired difference, by its definition, from the images themselves."""
    a = torch.tensor([True] * only_a + [False] * only_b + [True] * 40)
    b = torch.tensor([False] * only_a + [True] * only_b + [True] * 40)
    one, other = (Accuracy(100 * float(x.float().mean()), None, None, x) for x in (a, b))
    assert one.is_alike(other) == other.is_alike(one) == is_alike
    change = a.double() - b.double()
    error = (change.square().mean() / len(change)).sqrt()  # where both are equally good
    assert (abs(change.mean()) <= error * (1 + 1e-9)) == is_alike


def test_points_as_accurate_within_noise_are_told_and_of_equal_ones_the_most_is_kept(
    found: ds.Rescue,
) -> None:
    def point(scale: float, low: float, told: int) -> Point:
        right = torch.arange(100) < told
        accuracy = Accuracy(float(told), found.chosen.accuracy.refitted, None, right)
        estimate = replace(found.chosen.estimate, low_90_pct=low)
        return replace(found.chosen, scale=scale, estimate=estimate, accuracy=accuracy)

    near = [point(0.5, 91.0, 81), point(0.4, 94.0, 80), point(0.2, 99.0, 78), point(0.45, 93.0, 80)]
    chosen, alike = chosen_of(near)
    assert (chosen.scale, [one.scale for one in alike]) == (0.5, [0.4, 0.45])
    assert chosen_of(near[1:])[0].scale == 0.4  # of equal ones
    assert chosen_of(near[::2])[1] == ()  # three images are no noise
    unlabeled = [replace(one, accuracy=None, likeness=one.scale) for one in near]
    assert chosen_of(unlabeled)[0].scale == 0.5
    more = replace(found, chosen=chosen, alike=alike).sentence()
    assert "2 other points are as accurate within noise" in more
    assert "interval 94.0 to" in more.partition("within noise")[2].partition("--keep")[0]
    less = replace(found, chosen=alike[0], alike=(chosen,)).sentence()
    assert "1 other point is as accurate within noise" in less
    assert "None of them keeps more." in less
    assert "within noise" not in replace(found, alike=()).sentence()


def better_at_the_task(found: ds.Rescue) -> ds.Rescue:
    """As if training had gained something, so that nothing is doubted."""
    every = Accuracy(0.0, score("terrain", 16, 16), found.final.adapted.kept_head)
    few = Accuracy(0.0, score("terrain", 12, 16), None)
    return replace(found, final=replace(found.final, adapted=every, pretrained=few))


def test_what_was_measured_stands_first_and_an_estimate_is_called_one(found: ds.Rescue) -> None:
    found = better_at_the_task(found)
    (measured,) = found.transfer.values()
    first, notes, then, *others = found.sentences()
    low, high = retention_interval_pct(measured)
    num_images = measured["rescued"]["num_images"]
    assert notes == (
        "Of concepts100: 100 of its 5,000 images, drawn evenly over classes; "
        f"{100 - num_images} of its 100 images are in the pool, too, and are left out."
    )
    assert first == (
        f"Measured on {num_images} labeled images of concepts100: retention "
        f"{measured['retention_pct']:.1f} % (95 % interval {low:.1f} to {high:.1f}); the adapted "
        f"model's is {_with_ends(measured['adapted'])}."
    )
    assert measured["adapted"]["retention_pct"] < measured["retention_pct"]
    assert then.startswith("Estimated retention ")
    assert "from 60 unlabeled images of concepts100; 90 % interval" in then
    tuned = found.adapted.estimate
    assert any(
        f"keeps {tuned.retention_pct:.1f} % (estimated; 90 % interval {tuned.low_90_pct:.1f} to "
        f"{tuned.high_90_pct:.1f})" in one
        for one in others
    )


def _with_ends(score: dict[str, object]) -> str:
    low, high = retention_interval_pct(score)
    return f"{score['retention_pct']:.1f} % (95 % interval {low:.1f} to {high:.1f})"


def test_each_accuracy_says_which_classifier_it_is_of(found: ds.Rescue) -> None:
    ours, tuned = found.final.chosen, found.final.adapted
    (new,) = [one for one in found.sentences() if "with new classifiers" in one]
    assert f"that the rescue fitted to {NUM_FINAL} labeled images, read on 16 others" in new
    assert "Neither is the classifier that you trained" in new
    (trained,) = [one for one in found.sentences() if "that was trained with" in one]
    before, after = (f"{one.kept_head.accuracy_pct:.1f} %" for one in (tuned, ours))
    assert f"with the adapted model: {before} (" in trained
    assert f" before, {after} (" in trained


def test_the_folder_holds_a_run_and_its_classifier_tells_as_many_as_was_said(
    found: ds.Rescue, tmp_path: Path
) -> None:
    out = tmp_path / "rescued"
    assert found.save(out) == "a run's model: the tensors that training changed"
    assert sorted(path.name for path in out.iterdir()) == [
        "adapted", PROBE_FILE, "report.html", RESCUE_FILE,
    ]  # fmt: skip
    model, images = ds.load(out), ds.open_dataset("terrain", "test")
    head = kept_classifier(out).classifier
    # every other image of a class-balanced choice, by hand
    chosen = ds.data.splits.balanced_subset(images.labels, 32)
    chosen = chosen[images.labels[chosen].argsort(stable=True)][1::2]
    pixels = images.pixels(chosen.tolist(), model.framing)
    right = head(model.embed_images(pixels)).argmax(dim=1) == images.labels[chosen]
    told = json.loads((out / RESCUE_FILE).read_text())
    assert told["final"]["num_fitted"] == NUM_FINAL > 32  # more than at every point
    ours = told["final"]["chosen"]
    assert ours["refitted"]["num_correct"] == int(right.sum())
    assert ours["refitted"]["num_images"] == 16
    assert ours["kept_head"] is not None
    probe = nn.Linear(model.embedding_dim, 10)
    probe.load_state_dict(load_file(out / PROBE_FILE))
    untouched = ds.load("mini").embed_images(pixels)
    by_probe = (probe(untouched).argmax(dim=1) == images.labels[chosen]).sum()
    assert told["final"]["pretrained"]["refitted"]["num_correct"] == int(by_probe)
    assert any(f"`{out / PROBE_FILE}`" in step for step in better_at_the_task(found).steps(out))
    assert told["class_names"] == list(images.class_names)
    page = (out / "report.html").read_text()
    assert "a linear probe on the untouched model" in page
    told_to_do = [step.replace("`", "") for step in found.steps(out)]
    assert told["steps"] == found.steps(out)
    shown = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert all(step in shown for step in told_to_do)
    assert shown.count("chosen") > 1  # in the legend, and in the row that came out


def test_a_rescue_that_does_not_beat_a_linear_probe_says_so(found: ds.Rescue) -> None:
    def with_correct(ours: int, probe: int, images: int = 1000) -> str:
        chosen, untouched = (
            Accuracy(0.0, score("terrain", correct, images), None) for correct in (ours, probe)
        )
        final = replace(found.final, chosen=chosen, pretrained=untouched)
        return replace(found, final=final).sentence()

    estimate = replace(found.chosen.estimate, doubts=("the pool is small",))
    doubtful = replace(better_at_the_task(found), chosen=replace(found.chosen, estimate=estimate))
    assert doubtful.sentences()[3] == "Doubtful: the pool is small."
    probe = (
        "a linear probe on the untouched model, which loses nothing and has 91.4 % (89.5–93.0) "
        f"when it is fitted to the same {NUM_FINAL} labeled images"
    )
    saved = f"It is saved beside the rescued model, as {PROBE_FILE}."
    assert f"It does not beat {probe}: take that probe instead. {saved}" in with_correct(914, 914)
    by_chance = "but on 1000 images chance can make as much: consider that probe."
    assert f"It is above {probe}, {by_chance} {saved}" in with_correct(920, 914)
    assert f"It beats {probe}." in with_correct(950, 914)
    assert "On 30 images it cannot be told from a linear probe" in with_correct(26, 26, 30)


def test_a_measured_interval_below_the_budget_is_told(found: ds.Rescue) -> None:
    (name,) = found.transfer
    low, _ = retention_interval_pct(found.transfer[name])
    said = f"As measured on {name}, the interval reaches below"
    assert said in replace(found, keep_pct=low + 0.1).sentence()
    assert said not in replace(found, keep_pct=low - 0.1).sentence()


def test_an_adapted_model_that_is_no_better_at_the_task_raises_a_doubt_before_all_else(
    found: ds.Rescue, damaged: Path, tmp_path: Path
) -> None:
    def with_correct(tuned: int) -> ds.Rescue:
        one = Accuracy(0.0, score("terrain", tuned, 1000), None)
        untouched = Accuracy(0.0, score("terrain", 914, 1000), None)
        return replace(found, final=replace(found.final, adapted=one, pretrained=untouched))

    def told(tuned: int) -> bool:
        return "or the models are in the wrong order" in with_correct(tuned).sentence()

    assert told(700)
    assert told(890)  # 95 % Wilson interval 86.9 to 90.8
    assert not told(905)  # 88.5 to 92.2: chance can make as much
    for correct, is_ahead in ((905, False), (914, False), (915, True)):
        unsure = "is not seen to be better than the untouched one (91.4 %)"
        assert (unsure not in with_correct(correct).sentence()) == is_ahead
    doubted, sure = with_correct(700), with_correct(915)
    (step,) = doubted.steps("rescued")
    swapped = f"driftscope rescue {damaged} mini --images terrain --pool concepts100 --keep 80"
    assert f"`{swapped} --out rescued`" in step
    assert not any("Use nothing" in one for one in sure.steps("rescued"))
    doubted.save(tmp_path / "rescued")
    values = json.loads((tmp_path / "rescued" / RESCUE_FILE).read_text())
    said = (
        "Doubtful: the adapted model is worse at terrain than the pretrained one (70.0 % "
        "(67.1–72.8) and 91.4 % (89.5–93.0), new classifiers). Either training did harm, or the "
        "models are in the wrong order: the pretrained one comes first."
    )
    assert values["sentences"][0] == said == values["doubts"][0]
    page = (tmp_path / "rescued" / "report.html").read_text().replace(" ", " ")
    assert re.search(r'class="headline">(.*?)</p>', page)[1] == said
    assert "own classifier" not in page
    (unnamed,) = sure.to_dict()["doubts"]
    assert unnamed.startswith("nothing names the classes of the classifier")


def test_what_was_read_of_the_pool_is_told_and_the_search_only_where_there_was_one(
    found: ds.Rescue,
) -> None:
    def told(*ways: str, given: int = 500) -> str:
        points = tuple(replace(found.chosen, way=way) for way in ways)
        some = replace(found, points=points, num_pool=400, num_pool_given=given)
        (sentence,) = [one for one in some.sentences() if "every other one judged" in one]
        return sentence

    assert found.num_pool == 120
    assert found.num_pool_given == len(ds.open_dataset("concepts100", "test"))
    read = "Of the 500 images of concepts100 400 were read, and of these every other one judged"
    assert told("wise", "lines") == f"{read}."
    assert told("search", "wise") == f"{read}; the others were left to the search."
    assert told("layers") == f"{read}; the others were left to the order of the groups."
    whole = "Of the 400 images of concepts100 every other one judged."
    assert told("wise", given=400) == whole


@pytest.mark.parametrize(
    ("keep_pct", "read", "given", "told"),
    [
        (99, 400, 5000, "about 2 of the 200 judging.*Read 2,000 of the 5,000.*-images 2000"),
        (99, 400, 1500, "about 2 of the 200.*Read 1,500 of the 1,500 images"),
        (99, 500, 500, "about 2 of the 250 judging images.*Give a pool of 2,000 images"),
        (99.9, 2000, 2000, "about 1 of the 1,000 judging images.*Give a pool of 20,000 images"),
        (
            99.9,
            400,
            400,
            "At a budget of 99.9 % hardly one of the 200 judging images may get another answer",
        ),
        (95, 198, 5000, "about 4 of the 99 judging images.*Read 400 of the 5,000"),
        (95, 200, 5000, None),
        (99, 1000, 5000, None),
        (100, 400, 5000, None),
    ],
)
def test_a_pool_too_small_for_its_budget_is_told(
    keep_pct: float, read: int, given: int, told: str | None, found: ds.Rescue
) -> None:
    estimate = replace(found.chosen.estimate, num_images=read // 2)
    some = replace(
        found,
        keep_pct=keep_pct,
        chosen=replace(found.chosen, estimate=estimate),
        num_pool=read,
        num_pool_given=given,
    )
    said = [one for one in some.sentences() if "another answer" in one]
    assert len(said) == (told is not None)
    if told is not None:
        assert re.search(told, said[0])


@pytest.mark.parametrize(
    ("keep_pct", "usual"),
    [(1, 400), (90, 400), (95, 400), (96, 500), (97.5, 800), (98, 1000), (98.4, 1250), (99, 2000),
     (99.9, 2000), (100, 2000)],
)  # fmt: skip
def test_of_the_images_that_are_read_the_budget_lets_ten_be_lost(
    keep_pct: float, usual: int
) -> None:
    assert usual_of_pool(keep_pct) == usual
    if 95 <= keep_pct <= 99:
        assert usual / 2 * (100 - keep_pct) / 100 == pytest.approx(10)
    text = " ".join(
        CliRunner().invoke(app, ["rescue", "--help"], env={"COLUMNS": "200"}).output.split()
    )
    if keep_pct in (95, 98, 99):
        assert f"{usual:,} {'up to' if keep_pct == 95 else 'at'} {keep_pct} %" in text


def test_a_rescue_reads_as_many_images_of_the_pool_as_its_budget_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*given: object) -> None:
        raise LookupError(given[-1])

    monkeypatch.setattr(finding, "ordered_models", lambda *_: (None, None))
    monkeypatch.setattr(finding, "_refuse_other_size", lambda *_: None)
    monkeypatch.setattr(finding, "encoder_state", lambda _: {})
    monkeypatch.setattr(finding, "make_pool", stopped)
    for asked, read in ({"keep_pct": 99}, 2000), ({}, 400), ({"pool_images": None}, None):
        with pytest.raises(LookupError) as reads:
            ds.rescue("mini", "run", "terrain", "concepts100", **asked)
        assert reads.value.args == (read,)
    with pytest.raises(ConfigError, match="pool_images is 'all'; give a whole number, 'auto' for"):
        ds.rescue("mini", "run", "terrain", "concepts100", pool_images="all")


def test_chart_and_table_say_to_how_many_images_their_classifiers_are_fitted(
    found: ds.Rescue, tmp_path: Path
) -> None:
    assert (found.num_fitted, found.final.num_fitted) == (32, NUM_FINAL)
    found.save(tmp_path / "rescued")
    page = (tmp_path / "rescued" / "report.html").read_text()
    said = (
        f"Each classifier here is fitted to 32 images; the sentences of this page use {NUM_FINAL}"
    )
    assert page.count(said) == 2  # below the chart and at the table
    assert "<code>lines</code>" not in page  # no line of that way is in the chart
    whole = replace(found, final=replace(found.final, num_fitted=32))
    whole.save(tmp_path / "whole")
    alike = "Each classifier here is fitted to 32 images, as in the sentences of this page."
    assert alike in (tmp_path / "whole" / "report.html").read_text()


def test_other_budgets_name_the_points_of_the_table_that_meet_them(found: ds.Rescue) -> None:
    def point(way: str, scale: float, low: float, accuracy: float | None) -> Point:
        estimate = replace(found.chosen.estimate, low_90_pct=low)
        right = 12 if scale == 0.7 else 9
        one = None if accuracy is None else Accuracy(accuracy, score("terrain", right, 16), None)
        return replace(
            found.chosen, way=way, scale=scale, estimate=estimate, accuracy=one, likeness=scale
        )

    before = replace(found.pretrained, likeness=0.0)
    ours = point("wise", 0.5, 90.0, 80.0)
    gentle, gentler = point("lines", 0.4, 95.19, 75.0), point("wise", 0.2, 99.0, 70.0)
    bold, bolder = point("lines", 1.0, 70.0, 85.0), point("wise", 0.8, 60.0, 90.0)
    ends = (point("wise", 0.0, 100.0, 79.0), point("wise", 1.0, 71.0, 95.0))
    less, more = other_budgets(ours, (*ends, ours, gentle, gentler, bold, bolder), before)
    assert less == (
        "If it keeps too little of the task, ask for less: lines at scale 1.00 (85.0 % accurate on "
        "the images that choose) meets `--keep 70`."
    )
    assert more == (
        "If it keeps too little of the old ability, ask for more: lines at scale 0.40 (75.0 % "
        "accurate on the images that choose) meets `--keep 95.1`."
    )
    none = other_budgets(ours, (*ends, ours), before)
    assert none == [
        "If it keeps too little of the task: no other blend in the table is more accurate on the "
        "images that choose.",
        "If it keeps too little of the old ability: no other blend in the table keeps more.",
    ]
    elsewhere = point("wise", 0.7, 82.34, 79.0)
    assert other_budgets(ours, (*ends, ours, elsewhere), before)[0] == (
        f"{none[0]} On the other test images wise at scale 0.70 is: 75.0 % against 56.2 %, and it "
        "meets `--keep 82.3`. More labeled images would tell which is right."
    )
    unlabeled = [point("wise", 0.5, 90.0, None), point("wise", 0.6, 80.0, None)]
    assert "(likeness 0.600) meets `--keep 80`" in other_budgets(unlabeled[0], unlabeled, before)[0]
    # what was found is a blend at scale 1, too; at another budget the search finds another
    found_by_search = replace(unlabeled[0], way="search", scale=1.0, likeness=0.9)
    told = other_budgets(unlabeled[0], (*unlabeled, found_by_search), before)[0]
    assert "search at scale 1.00 (likeness 0.900)" in told
    assert told.endswith("(a search is then made for that budget).")


def test_another_budget_is_asked_of_the_same_images_of_the_pool(
    found: ds.Rescue, tmp_path: Path
) -> None:
    def steps(read: int, given: int) -> str:
        estimate = replace(found.chosen.estimate, low_90_pct=90.0)
        ours = replace(found.chosen, estimate=estimate)
        safer = replace(ours, scale=0.1, estimate=replace(estimate, low_90_pct=99.0))
        some = replace(
            found, chosen=ours, points=(ours, safer), num_pool=read, num_pool_given=given
        )
        return " ".join(some.steps(tmp_path))

    assert "meets `--keep 99 --pool-images 400`" in steps(400, 5000)
    assert "meets `--keep 99`" in steps(2000, 5000)
    assert "meets `--keep 99`" in steps(500, 500)  # all that there are
    assert "meets `--keep 99 --pool-images 5000`" in steps(5000, 5000)


@pytest.mark.parametrize(
    ("typed", "read"), [([], "auto"), (["--pool-images", "0"], None), (["--pool-images", "60"], 60)]
)
def test_the_command_reads_as_many_of_the_pool_as_was_typed(
    typed: list[str], read: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}

    def noted(*_: object, **asked: object) -> None:
        given.update(asked)
        raise DataError("that is all")

    monkeypatch.setattr("driftscope.rescuing.rescue", noted)
    arguments = ["rescue", "mini", "mini", "--images", "terrain", "--pool", "concepts100", *typed]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert "that is all" in done.output
    assert given["pool_images"] == read


def test_a_model_that_keeps_the_budget_as_it_is_needs_no_rescue(found: ds.Rescue) -> None:
    def told(keep_pct: float, scale: float) -> list[str]:
        estimate = replace(found.adapted.estimate, low_90_pct=92.0)
        adapted = replace(found.adapted, estimate=estimate)
        chosen = replace(found.chosen, scale=scale)
        some = replace(found, keep_pct=keep_pct, adapted=adapted, chosen=chosen)
        return [one for one in some.sentences() if "needs no rescue" in one]

    needless = "The adapted model keeps the budget as it is, and needs no rescue."
    assert told(90, 0.5) == [needless]
    assert told(90, 1.0) == [f"{needless} It is also what was chosen."]
    assert told(95, 0.5) == []


def test_an_interrupted_save_leaves_nothing(
    found: ds.Rescue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("driftscope.rescuing.result.write_rescue_page", interrupt)
    with pytest.raises(KeyboardInterrupt):
        found.save(tmp_path / "rescued")
    assert list(tmp_path.iterdir()) == []


def test_without_labels_likeness_is_what_counts(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strength_search, "STEPS", 6)
    monkeypatch.setattr(finding, "GRID", (0.5,))
    monkeypatch.setattr(finding, "HALVINGS", 1)
    learnt = []

    def noted(change: Change, keep: ToKeep, learn: ToLearn, start: float, seed: int) -> Rows:
        learnt.append(learn)
        return strength_search.found_strengths(change, keep, learn, start, seed)

    monkeypatch.setattr(ways, "found_strengths", noted)
    mini, images = ds.load("mini"), ds.open_dataset("terrain", "test")
    found = ds.rescue(
        mini, damaged, images.pixels(range(16), mini.framing), "concepts100",
        keep_pct=60, by="search", **SMALL,
    )  # fmt: skip
    # what the classifier beside the adapted model answers is learnt in place of labels
    (learn,) = learnt
    assert learn.labels is None
    trained = load_file(damaged / "adapted" / CLASSIFIER_FILE)["weight"]
    assert torch.equal(learn.classifier.weight, trained)
    assert found.chosen.estimate.low_90_pct >= 60
    kept = [one.likeness for one in found.points if one.estimate.low_90_pct >= 60]
    assert found.chosen.likeness == max(kept) > found.pretrained.likeness
    rows = found.chosen.by_row
    moved = {n for group in found.origin.blend.delta.groups.values() for n in group}
    assert rows.keys() == moved
    assert all(one.shape == found.origin.blend.delta.before[n].shape[:1] for n, one in rows.items())
    everything = torch.cat(list(rows.values()))
    assert 0 <= everything.min() < everything.max() <= 3
    assert len(everything.unique()) > 1000
    assert "the classifier that was trained no longer fits this model" in found.sentence()
    found.save(tmp_path / "out")
    assert not (tmp_path / "out" / "adapted" / CLASSIFIER_FILE).exists()
    saved = load_file(tmp_path / "out" / STRENGTHS_FILE)
    assert all(torch.equal(saved[name], one) for name, one in rows.items())
    told = json.loads((tmp_path / "out" / RESCUE_FILE).read_text())["chosen"]["strengths"]
    block = "vision_model.encoder.layers.1.mlp."
    mean = torch.cat([rows[f"{block}fc1.weight"], rows[f"{block}fc2.weight"]]).mean()
    assert told["block 2 MLP"] == pytest.approx(float(mean))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "mean strength of the rows" in page
    # the blend that was written is the one that its strengths give
    again = ds.load(tmp_path / "out").module.state_dict()
    before, after = mini.module.state_dict(), ds.load(damaged).module.state_dict()
    for name, one in rows.items():
        along = one.double().reshape(-1, *[1] * (before[name].ndim - 1))
        expected = before[name].double() + along * (after[name].double() - before[name].double())
        torch.testing.assert_close(again[name].double(), expected, atol=1e-6, rtol=1e-5)


def test_the_command_tells_the_frontier_and_refuses_a_full_folder(
    damaged: Path, found: ds.Rescue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "GRID", (0.3,))
    monkeypatch.setattr(finding, "HALVINGS", 0)
    out = tmp_path / "rescued"
    arguments = ["rescue", "mini", str(damaged), "--images", "terrain", "--pool", "concepts100"]
    arguments += ["--out", str(out), "--keep", "60", "--max-images", "16", "--pool-images", "120"]
    done = CliRunner().invoke(app, [*arguments, "--by", "wise"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "→ wise" in said
    assert "With the classifier that was trained with the adapted model:" in said
    assert "…" not in done.output  # no heading is cut
    assert (
        max(map(len, done.output.split("Between both")[1].split("Retention is")[0].splitlines()))
        <= 80
    )
    check = f"driftscope compare mini {out} --images terrain --pool concepts100 --out {out}-checked"
    assert "First find out which" not in said  # 48 images: chance can make it seem worse
    steps = " ".join(replace(better_at_the_task(found), transfer={}).steps(out))
    assert f"Check it: `{check}`. With --transfer DATASET it measures" in steps
    assert f"its own classifier, `{out / 'adapted' / CLASSIFIER_FILE}`" in steps
    assert "(a run's model: the tensors that training changed)" in said
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "is not empty" in again.output


def test_the_path_of_the_search_goes_straight_from_nothing_to_what_was_found() -> None:
    at = towards({"a": 0.25, "b": {"w": torch.tensor([0.5, 1.5])}})
    assert at(0)["a"] == 0
    assert at(1)["a"] == 0.25
    assert at(0.5)["a"] == 0.125
    torch.testing.assert_close(at(0.5)["b"]["w"], torch.tensor([0.25, 0.75]))


def test_on_the_way_of_the_search_texts_go_with_the_rows_and_no_further_than_adapted() -> None:
    at = towards({"text tower": 1.5, "b": {"w": torch.tensor([1.5])}})
    for scale, texts, row in ((1 / 3, 0.5, 0.5), (2 / 3, 1.0, 1.0), (1.0, 1.0, 1.5)):
        assert at(scale)["text tower"] == pytest.approx(texts)
        assert float(at(scale)["b"]["w"]) == pytest.approx(row)


def test_groups_are_tuned_one_after_the_other() -> None:
    at = one_by_one(["b", "a", "c", "d"])
    assert at(0) == {"b": 0, "a": 0, "c": 0, "d": 0}
    assert at(0.375) == {"b": 1, "a": 0.5, "c": 0, "d": 0}
    assert at(1) == {"b": 1, "a": 1, "c": 1, "d": 1}


def test_the_least_harmful_group_comes_first(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each costs is asked of a model in which one group is pushed by far the most."""
    before, after = ds.load("mini"), ds.load(damaged)
    groups = ("embeddings", "block 2 MLP", "block 4 MLP")
    blend = Blend(before, after)
    own = {name: blend.delta.groups[name] for name in groups}
    monkeypatch.setattr(blend, "delta", replace(blend.delta, groups=own))
    # beside the patch embedding a tenth of the others' change is harmless
    small = dict(blend.delta.after)
    for group in groups[1:]:
        for name in own[group]:
            start = blend.delta.before[name]
            small[name] = start + 0.1 * (small[name] - start)
    monkeypatch.setattr(blend, "delta", replace(blend.delta, after=small))
    pool = make_pool(before, "concepts100", None, prompt_rules(None, None), 80)
    judge = SimpleNamespace(before=before, pool=pool, searching=pool.pixels[0::2])
    assert least_harmful_first(blend, judge)[-1] == "embeddings"


@pytest.fixture(scope="module")
def between(damaged: Path) -> tuple[Blend, Judge]:
    before, after = ds.load("mini"), ds.load(damaged)
    pool = make_pool(before, "concepts100", None, prompt_rules(None, None), 120)
    return Blend(before, after), Judge(before, after, pool, open_target("terrain", before, 8), None)


def test_the_largest_uniform_strength_that_keeps_a_budget_is_found(
    between: tuple[Blend, Judge],
) -> None:
    blend, judge = between
    start = largest_uniform(blend, judge, 60)

    def low(strength: float) -> float:
        kept = judge.estimated("wise", blend, strength, blend.uniform(strength)).estimate
        return kept.low_90_pct or 0.0

    assert 0 < start < 1
    assert low(start) >= 60
    assert low(start + 1 / 60) < 60  # a grid of fifths, halved four times: 1/80


def _fresh(judge: Judge) -> Judge:
    """A copy that has not yet chosen its fewer images."""
    other = copy(judge)
    vars(other).pop("by_fewer", None)
    return other


def test_at_most_so_many_evenly_spaced_images_judge_the_start(
    between: tuple[Blend, Judge], monkeypatch: pytest.MonkeyPatch
) -> None:
    blend, judge = between[0], _fresh(between[1])
    assert judge.by_fewer is judge  # it has no more
    monkeypatch.setattr(judge_module, "_FEWER_IMAGES", 31)
    judge, looks, look = _fresh(judge), [], Judge.estimated
    some = judge.by_fewer
    assert some is judge.by_fewer  # so that it remembers what it has seen
    places = torch.linspace(0, 59, 31).long().tolist()
    seen = torch.stack([judge.judging[place] for place in places])
    assert torch.equal(some.judging[:], seen)
    pool = replace(judge.pool, pixels=seen)
    expected = Referee.of(pool, judge.before.embed_images(seen).float().cpu()).estimate(
        blend.set(blend.uniform(0.4)).embed_images(seen).float().cpu()
    )
    part = some.estimated("wise", blend, 0.4, blend.uniform(0.4)).estimate
    assert part.num_images == 31
    assert part.retention_pct == pytest.approx(expected.retention_pct, abs=1e-4)
    assert part.low_90_pct == pytest.approx(expected.low_90_pct, abs=1e-4)

    def counted(one: Judge, *given: Any) -> Point:
        looks.append(look(one, *given))
        return looks[-1]

    monkeypatch.setattr(Judge, "estimated", counted)
    assert 0 < largest_uniform(blend, judge, 60) < 1
    assert {one.estimate.num_images for one in looks} == {31}


def test_so_few_images_that_give_no_estimate_judge_no_start(
    between: tuple[Blend, Judge], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = _fresh(between[1])
    monkeypatch.setattr(judge_module, "_FEWER_IMAGES", 8)
    assert judge.by_fewer is judge


def test_a_judge_s_referee_has_the_images_that_judge(between: tuple[Blend, Judge]) -> None:
    _, judge = between
    assert torch.equal(judge.referee.pool.pixels[:], judge.judging[:])
    assert len(judge.referee.logits) == len(judge.judging) == 60


@pytest.mark.parametrize(("keep_pct", "starts_at"), [(60, 60), (90, 90), (99, 90)])
def test_the_search_starts_where_its_budget_or_90_percent_is_kept_and_its_way_goes_further(
    keep_pct: float,
    starts_at: float,
    between: tuple[Blend, Judge],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blend, judge = between
    monkeypatch.setattr(ways, "largest_uniform", lambda blend, judge, keep_pct: keep_pct / 100)
    given = {}

    def found(change: Change, keep: ToKeep, learn: object, start: float, seed: int) -> Rows:
        given.update(start=start, price=keep.price, pixels=keep.pixels)
        return {name: torch.full((num_rows(one),), 1.2) for name, one in change.before.items()}

    monkeypatch.setattr(ways, "found_strengths", found)
    path = ways.path_of("search", blend, judge, keep_pct, 0)
    assert given["start"] == starts_at / 100
    assert given["price"] == price_of(keep_pct)
    assert torch.equal(given["pixels"][torch.arange(60)], judge.searching[torch.arange(60)])
    rows = path(1.0)["block 1 MLP"]
    assert rows
    assert all((one == 1.5 * torch.tensor(1.2)).all() for one in rows.values())


def test_a_point_of_one_strength_a_group_is_looked_at_once(
    between: tuple[Blend, Judge], monkeypatch: pytest.MonkeyPatch
) -> None:
    blend, judge = between
    point = judge.estimated("wise", blend, 0.35, blend.uniform(0.35))
    names = blend.delta.groups["block 1 MLP"]
    rows = {"block 1 MLP": {name: torch.ones(len(blend.delta.before[name])) for name in names}}
    judge.estimated("search", blend, 1.0, rows)
    looks = []
    monkeypatch.setattr(blend, "set", lambda strengths: looks.append(1) or judge.before)
    assert judge.estimated("wise", blend, 0.35, blend.uniform(0.35)) is point
    assert not looks
    judge.estimated("lines", blend, 0.35, blend.linear_in_depth(0.35))
    judge.estimated("search", blend, 1.0, rows)  # its rows may be others
    assert len(looks) == 2


def test_budgets_and_ways_that_there_are_not_are_refused(damaged: Path) -> None:
    for keep in (0, 101, float("nan")):
        with pytest.raises(ConfigError, match="give a budget in percent, from 1 to 100"):
            ds.rescue("mini", damaged, "stars", "concepts100", keep_pct=keep)
    with pytest.raises(ConfigError, match="there is no way 'luck'"):
        ds.rescue("mini", damaged, "stars", "concepts100", by="luck")


def test_infinite_weights_are_named_and_not_blended(damaged: Path) -> None:
    endless = ds.load(damaged)
    with torch.no_grad():
        endless.module.visual_projection.weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match="infinities, first in visual_projection"):
        ds.rescue("mini", endless, "terrain", "concepts100", by="wise", **SMALL)


def test_a_pool_whose_half_is_too_small_to_judge_is_refused(damaged: Path) -> None:
    with pytest.raises(DataError, match=r"gives 40 images; one half of them judges.*give 60"):
        ds.rescue(
            "mini", damaged, "terrain", "concepts100", by="wise", **{**SMALL, "pool_images": 40}
        )


def test_a_budget_that_no_useful_strength_keeps_is_refused(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "GRID", ())
    monkeypatch.setattr(finding, "HALVINGS", 0)
    few = "strength keeps 99 %.*hardly one of the 60 judging.*Read 2,000 of the 5,000 images"
    with pytest.raises(ModelError, match=few):
        ds.rescue("mini", damaged, "terrain", "concepts100", keep_pct=99, by="wise", **SMALL)


def test_a_monitor_leaves_the_rescued_model_beside_the_last_one(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strength_search, "STEPS", 1)
    monkeypatch.setattr(finding, "GRID", ())
    monkeypatch.setattr(finding, "HALVINGS", 1)
    mini, said = ds.load("mini"), []
    pixels = ds.open_dataset("terrain", "test").pixels(range(8), mini.framing)
    monitor = ds.Monitor(
        "mini", pixels, pool="concepts100", pool_images=80, rescue=50, out=tmp_path / "out",
        vocabulary=None, echo=said.append,
    )  # fmt: skip
    model = ds.load(damaged).module
    monitor.observe(model, step=1)
    assert (tmp_path / "out" / "last").is_dir()
    assert not (tmp_path / "out" / "rescued").exists()
    with torch.no_grad():
        monitor.close()
    assert any("the rescued model is in" in line for line in said), said
    told = json.loads((tmp_path / "out" / "rescued" / RESCUE_FILE).read_text())
    assert told["keep_pct"] == 50
    kept = [ds.estimate_retention("mini", tmp_path / "out" / one, "concepts100", max_images=100)
            for one in ("last", "rescued")]  # fmt: skip
    assert kept[0].retention_pct < 50 < kept[1].retention_pct


def test_a_monitor_s_rescue_needs_a_pool_a_folder_and_a_name(tmp_path: Path) -> None:
    pixels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    for more, words in (
        ({"rescue": 0, "pool": "x", "out": tmp_path}, "rescue is 0; give the retention"),
        ({"rescue": 101, "pool": "x", "out": tmp_path}, "rescue is 101; give the retention"),
        ({"rescue": 95, "out": tmp_path}, "rescue needs unlabeled images"),
        ({"rescue": 95, "pool": "x"}, "rescue needs unlabeled images"),
    ):
        with pytest.raises(ConfigError, match=words):
            ds.Monitor("mini", pixels, **more)
    with pytest.raises(ConfigError, match="give it by name or folder"):
        ds.Monitor(nn.Linear(1, 1), pixels, rescue=95, pool="x", out=tmp_path)


def quick_monitor(pretrained: object, out: Path, said: list[str], **more: Any) -> ds.Monitor:
    """One whose rescue looks at few points, with a search of a step."""
    return ds.Monitor(
        pretrained, "terrain", pool="concepts100", max_images=8, pool_images=80, rescue=50,
        vocabulary=None, out=out, echo=said.append, **more,
    )  # fmt: skip


def test_a_second_rescue_of_a_monitor_takes_the_place_of_the_first(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strength_search, "STEPS", 1)
    monkeypatch.setattr(finding, "GRID", ())
    monkeypatch.setattr(finding, "HALVINGS", 1)
    said: list[str] = []
    monitor = quick_monitor("mini", tmp_path / "out", said)
    folder, model = tmp_path / "out" / "rescued", ds.load(damaged).module
    for step in (1, 2):
        monitor.observe(model, step=step)
        monitor.close()
        for name in (RESCUE_FILE, PROBE_FILE, "report.html"):
            assert (folder / name).is_file(), name
    assert sum("the rescued model is in" in line for line in said) == 2, said
    monkeypatch.setattr(finding, "make_pool", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        monitor.close()
    assert (folder / RESCUE_FILE).is_file()  # a rescue that fails leaves the last one


def test_a_monitor_s_rescue_goes_back_to_the_model_before_the_training(
    damaged: Path, tmp_path: Path
) -> None:
    mini = ds.load("mini")
    kept = encoder_fingerprint(mini)
    monitor = quick_monitor(mini, tmp_path / "out", [])
    mini.module.load_state_dict(ds.load(damaged).module.state_dict())  # trained in place
    assert encoder_fingerprint(mini) != kept
    assert encoder_fingerprint(monitor._rescue.pretrained) == kept


def test_a_rescue_at_another_image_size_is_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image_size is 96, but mini reads images of"):
        quick_monitor("mini", tmp_path / "out", [], image_size=96)


def test_a_change_of_the_text_tower_alone_has_nothing_to_search(tmp_path: Path) -> None:
    mini = ds.load("mini")
    model = deepcopy(mini.module)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if name.startswith("text_model") and one.ndim > 1:
                one.add_(2.0 * one.std() * torch.randn(one.shape))
    after = replace(mini, module=model)
    found = ds.rescue(mini, after, "terrain", "concepts100", keep_pct=50, **SMALL)
    assert {one.way for one in found.points} == {"wise"}
    assert any("as the text tower alone has changed" in note for note in found.notes)
    assert found.adapted.estimate.low_90_pct < 50
    kept = [one.scale for one in found.points if one.estimate.low_90_pct >= 50]
    assert found.chosen.scale == max(kept) > 0
    strength, moved = found.chosen.scale, "text_model.encoder.layers.0.mlp.fc1.weight"
    both = (one.module.state_dict()[moved].double() for one in (mini, after))
    expected = torch.lerp(*both, strength)
    torch.testing.assert_close(found.model.module.state_dict()[moved].double(), expected)


def test_what_measures_is_apart_from_what_chose(found: ds.Rescue) -> None:
    mini = ds.load("mini")
    (whole,) = labelled_sets("concepts100", mini, 300)
    rules = prompt_rules(None, None)
    pool = make_pool(mini, "concepts100", None, rules, 120)
    shared = found_among(whole.pixels, [pool.pixels])
    assert shared
    left = measured_apart(whole, pool)
    assert found_among(left.pixels, [pool.pixels]) == []
    assert len(left.pixels) == len(left.labels) == 300 - len(shared)
    assert any(f"{len(shared)} of its 300 images" in note for note in left.notes)
    kept = [at for at in range(300) if at not in shared]
    assert torch.equal(left.labels, whole.labels[kept])
    inside = replace(pool, pixels=whole.pixels)
    doubted = measured_apart(whole, inside)
    assert len(doubted.pixels) == 300
    assert "300 of the 300 images" in doubted.doubts[-1]
    told = {"concepts100": {**found.transfer["concepts100"], "doubts": ["it is odd"]}}
    assert "Doubtful: it is odd." in replace(found, transfer=told).sentences()


def test_a_set_without_splits_is_divided_as_the_run_divided_it(
    damaged: Path, tmp_path: Path
) -> None:
    mini, photos = ds.load("mini"), tmp_path / "photos"
    terrain = ds.open_dataset("terrain", "test")
    for at in range(0, 400, 2):
        folder = photos / terrain.class_names[int(terrain.labels[at])]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = terrain.pixels([at], mini.framing)[0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{at}.png")
    spec = {**TINY_RUN, "dataset": str(photos), "data_seed": 3}
    run_one(parse_run_spec(spec), tmp_path / "run")
    ours = open_target(str(photos), mini, 200, [tmp_path / "run"])
    theirs = prepare(parse_run_spec(spec)).test_pixels
    tested = torch.stack([theirs[at] for at in range(len(theirs))])
    assert len(found_among(ours.labels.test_pixels, [tested])) == len(tested)
    assert ours.doubts == ()
    unknown = open_target(str(photos), mini, 200, [damaged])
    assert len(found_among(unknown.labels.test_pixels, [tested])) < len(tested)
    assert "has no test split, so a fifth of it was set aside" in unknown.doubts[0]


def test_a_classifier_is_of_the_classes_that_its_rescue_names(
    found: ds.Rescue, tmp_path: Path
) -> None:
    found.save(tmp_path / "out")
    kept = kept_classifier(tmp_path / "out")
    assert kept is not None
    assert kept.class_names == found.class_names
    assert not kept.is_of(reversed(found.class_names))
    unknown = replace(kept, class_names=None)
    terrain = open_target("terrain", ds.load("mini"), 16)
    assert finding._doubts_of_classes(kept, terrain) == ()
    (doubt,) = finding._doubts_of_classes(unknown, terrain)
    assert "It has as many as terrain, and is taken to tell these in this order" in doubt
    assert finding._told_of_other_classes(replace(kept, class_names=("a", "b")), terrain)
    dim = kept.classifier.in_features
    assert finding._fitting(kept, dim) == (kept, ())
    none, (note,) = finding._fitting(kept, 9)
    assert none is None
    assert f"reads {dim} numbers of an image, where the model gives 9" in note
    place = tmp_path / "odd"
    place.mkdir()
    save_tensors({"fc.weight": torch.zeros(3, 4)}, place / CLASSIFIER_FILE)
    with pytest.raises(ModelError, match="holds no linear classifier"):
        kept_classifier(place)


def test_without_labels_the_classifier_beside_the_model_answers_for_them(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "GRID", (0.3, 0.6))
    monkeypatch.setattr(finding, "HALVINGS", 0)
    mini, after = ds.load("mini"), ds.load(damaged)
    pixels = ds.open_dataset("terrain", "test").pixels(range(0, 480, 5), mini.framing)
    found = ds.rescue(mini, damaged, pixels, "concepts100", keep_pct=60, by="wise", **SMALL)
    head = kept_classifier(damaged).classifier
    with torch.no_grad():
        read = pixels[torch.linspace(0, len(pixels) - 1, 64).long()]  # four times max_images
        answers = head(after.embed_images(read)).argmax(dim=-1)
        order = answers.argsort(stable=True)
        fit, test = order[::2], order[1::2]
        assert found.num_fitted == found.final.num_fitted == len(fit) == 32
        for model, told in (
            (mini, found.final.pretrained),
            (after, found.final.adapted),
            (found.model, found.final.chosen),
        ):
            embeddings = model.embed_images(read)
            probe = linear_classifier(embeddings[fit], answers[fit], 10)
            agrees = probe(embeddings[test]).argmax(dim=-1) == answers[test]
            assert told.choosing_pct == pytest.approx(100 * float(agrees[::2].float().mean()))
            assert told.refitted.num_correct == int(agrees[1::2].sum())
            own = head(embeddings[test]).argmax(dim=-1) == answers[test]
            assert told.kept_head.num_correct == int(own[1::2].sum())
    assert found.is_agreement
    assert found.final.adapted.kept_head.accuracy_pct == 100  # with itself
    said = found.sentence()
    assert "agreement with the classifier that was trained with the adapted model" in said
    assert "This is no accuracy" in said
    assert "a linear probe on the untouched model" in said
    assert found.order_doubt == ""
    assert found.to_dict()["final"]["chosen"]["measures"] == "agreement"
    found.save(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "agreement, new classifier, %" in page
    assert "Agreement that chose, %" in page
    assert "ccuracy, new" not in page
