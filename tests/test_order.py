"""`driftscope.order`: two models in the wrong order are told, and a right order never is."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import driftscope as ds
from driftscope.adapt import export_merged, save_adapted
from driftscope.analysis.advice import Kept, Place, advice_on_comparison, advise
from driftscope.analysis.summaries import comparison_summary
from driftscope.errors import ModelError
from driftscope.order import order_doubt

WORSE = {
    "pretrained": {"wilson_low_pct": 80.0, "wilson_high_pct": 90.0},
    "adapted": {"wilson_low_pct": 60.0, "wilson_high_pct": 70.0},
}
BETTER = {"num_correct": 300, "flows": {"num_lost": 2, "num_gained": 180}}
LESS = {"num_correct": 120, "flows": {"num_lost": 182, "num_gained": 0}}


def named(source: Path | str) -> SimpleNamespace:
    return SimpleNamespace(source=str(source))


def a_folder(place: Path, file: str, text: str) -> Path:
    place.mkdir()
    (place / file).write_text(text, encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", '{"_name_or_path": "BASE"}'),
        ("README.md", "---\nlicense: mit\nbase_model: BASE\n---\n# A model\n"),
        ("README.md", "---\nbase_model:\n- other/one\n- BASE\n---\n"),
        ("rescue.json", '{"models": {"pretrained": "BASE", "adapted": "tuned"}, "keep_pct": 90}'),
    ],
)
def test_a_folder_that_names_its_base_tells_the_order(
    file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftscope.order.encoder_fingerprint", lambda _: "a fingerprint")
    base = a_folder(tmp_path / "base", "config.json", '{"_name_or_path": "openai/clip"}')
    for called in ("lab/clip", str(base)):
        place = tmp_path / f"tuned-of-{len(called)}"
        tuned = a_folder(place, file, text.replace("BASE", called))
        doubt = order_doubt(named(tuned), named(called), "photos", None, {})
        assert doubt.startswith(f"{tuned} says in its {file} that it was made from {called}: the")
        assert order_doubt(named(called), named(tuned), "photos", None, {}) == ""
        assert order_doubt(named(tuned), named("lab/another"), "photos", None, {}) == ""


def test_two_that_name_each_other_and_files_that_cannot_be_read_raise_no_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftscope.order.encoder_fingerprint", lambda _: "a fingerprint")
    one, other = tmp_path / "one", tmp_path / "other"
    for place, base in ((one, other), (other, one)):
        a_folder(place, "config.json", json.dumps({"_name_or_path": str(base)}))
    assert order_doubt(named(one), named(other), "photos", None, {}) == ""
    torn = a_folder(tmp_path / "torn", "config.json", "{")
    (torn / "README.md").write_text("---\n: [\n---\n")
    assert order_doubt(named(torn), named(other), "photos", None, {}) == ""


@pytest.mark.parametrize(
    "card",
    [
        b"---\na: " + b"[" * 3_000 + b"\n---\n",
        b"---\na: &a [*a]\nbase_model: lab/clip\n---\n",
        b"---\n" + b"a: [b]\n" * 900_000 + b"base_model: lab/clip\n---\n",
        b"---\nbase_model: !!timestamp 2026-02-30\n---\n",
        b"---\nbase_model: \xff\n---\n",
    ],
    ids=["deep", "holds itself", "large", "no date", "no text"],
)
def test_a_card_that_cannot_be_read_says_nothing_and_is_passed_over_at_once(
    card: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftscope.order.encoder_fingerprint", lambda _: "a fingerprint")
    (tmp_path / "README.md").write_bytes(card)
    began = time.process_time()
    assert order_doubt(named(tmp_path), named("lab/clip"), "photos", None, {}) == ""
    assert time.process_time() - began < 2


@pytest.mark.parametrize("second", ["mini", "openai/clip-vit-base-patch32", "open_clip:B:openai"])
def test_what_was_trained_from_scratch_is_no_adapted_model(second: str) -> None:
    doubt = order_doubt(named("folder"), named(second), "photos", None, {})
    assert doubt.startswith(f"{second} is a pretrained model, made from no other one")
    assert order_doubt(named(second), named("folder"), "photos", None, {}) == ""
    assert order_doubt(named("mini-p14"), named("mini"), "photos", None, {}) == ""


def test_numbers_tell_only_where_all_of_them_point_one_way() -> None:
    def told(own: dict | None, *scores: dict) -> str:
        sets = {f"set{number}": score for number, score in enumerate(scores)}
        return order_doubt(named("a"), named("b"), "photos", own, sets)

    assert "better than the first on set0 and set1 and worse on photos" in told(
        WORSE, BETTER, BETTER
    )
    learned = {"pretrained": WORSE["adapted"], "adapted": WORSE["pretrained"]}
    for own, scores in (
        (learned, [LESS]),  # fine-tuning as it mostly is
        (learned, [BETTER]),  # of a like task
        (WORSE, [LESS]),  # destroyed
        (WORSE, [BETTER, LESS]),
        (WORSE, []),
        (None, [BETTER]),
    ):
        assert told(own, *scores) == ""


def test_a_model_that_driftscope_exported_is_told_from_its_base(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    from test_comparison import moved

    save_adapted(moved(tiny_clip, "full_ft"), ds.load(tiny_clip), tmp_path / "kept")
    export_merged(ds.load(tmp_path / "kept"), tmp_path / "tuned")
    sets = {"transfer": str(coloured_images)}
    right = ds.compare(tiny_clip, tmp_path / "tuned", coloured_images, **sets)
    assert right.doubts == ()
    wrong = ds.compare(tmp_path / "tuned", tiny_clip, coloured_images, **sets).to_dict()
    (doubt,) = wrong["doubts"]
    assert "says in its config.json that it was made from" in doubt
    assert wrong["advice"]["outcome"] == "unsure"
    assert doubt in wrong["advice"]["verdict"]
    unknown = {**wrong, "transfer": {}}
    assert advice_on_comparison(unknown).verdict == f"Doubtful: {doubt}."
    assert any(doubt in one for one in comparison_summary(unknown).sentences)
    assert ds.compare(tiny_clip, tiny_clip, coloured_images).doubts == ()


def test_more_than_all_is_asked_about_without_a_doubt() -> None:
    more = Kept("retention_pct", 281.2, (239.8, 329.7), on="concepts100")
    advice = advise(more, Place("comparison"))
    assert advice.outcome == "kept"
    assert advice.steps[0].startswith("Is the order right? The second model is better on concepts1")
    for kept in (Kept("retention_pct", 101.0, (98.0, 104.0)), Kept("retention_pct", 130.0)):
        assert "order" not in " ".join(advise(kept, Place("comparison")).steps)
    assert "order" not in " ".join(advise(more, Place("run")).steps)


def test_models_in_the_wrong_order_are_neither_rescued_nor_attributed() -> None:
    mini = ds.load("mini", device="cpu")
    turned = replace(mini, source="tuned")
    told = "mini is a pretrained model, made from no other one: the pretrained model comes first"
    with pytest.raises(ModelError, match=told):
        ds.where(turned, mini, "concepts100")
    with pytest.raises(ModelError, match=told):
        ds.rescue(turned, mini, "terrain", "concepts100")
