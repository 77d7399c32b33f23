"""Alerts say what is wrong, once, and selection keeps what can still be the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monitored import (
    MERGING_ROUNDS,
    Classifier,
    clip_of,
    monitor_of,
    moved,
    observed,
    with_lora,
)

import driftscope as ds
from driftscope.errors import ConfigError
from driftscope.monitor.alerts import alerts_of
from driftscope.records.live import TrainingFollower
from driftscope.sources.live import from_module


def kinds(observation: ds.Observation) -> list[str]:
    return [alert.kind for alert in observation.alerts]


def test_every_layer_has_a_number_of_its_own_where_that_is_asked_for() -> None:
    by_layer: dict[str, Any] = {
        "cka_per_block": [0.9, 0.8, float("nan")],
        "weight_drift_per_layer": [0.1, 0.2, 0.3],
    }
    one = observed(1, **by_layer)
    layers = one.scalars(per_layer=True)
    assert (layers["cka_layer_01"], layers["cka_layer_02"]) == (0.9, 0.8)
    assert layers["weight_drift_layer_02"] == 0.2
    assert layers["delta_entropy_pct_layer_06"] == 1.0
    assert "cka_layer_03" not in layers
    assert not any("_layer_" in name for name in one.scalars())


# ---------------------------------------------------------------- what numbers tell


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([(50, 0.10), (90, 0.25)], None),  # much drift, but for much
        ([(90, 0.40), (91, 0.46)], 1),
        ([(90, 0.40), (89, 0.46)], 1),
        ([(90, 0.40), (90, 0.44)], None),  # too little to speak of
        ([(90, 0.40), (90, 0.42), (91, 0.44), (91, 0.46)], 1),  # but it adds up
        ([(50, 0.40), (90, 0.42), (91, 0.48)], 2),
        ([(90, 0.40), (91, 0.30)], None),
        ([(90, 0.40), (None, 0.46)], None),
        ([], None),
    ],
)
def test_drift_that_rises_faster_than_accuracy_is_told(
    path: list[tuple[float | None, float]], expected: int | None
) -> None:
    *earlier, now = [
        observed(step, accuracy, embedding_drift=drift)
        for step, (accuracy, drift) in enumerate([*path] or [(50.0, 0.9)], start=1)
    ]
    found = alerts_of(now, earlier, ds.Thresholds())
    assert [alert.kind for alert in found] == ["drift_outpaces_accuracy"] * (expected is not None)
    for alert in found:
        assert alert.sentence.startswith(f"Since step {expected} the representation drifted by")
        assert "Retention is neither measured nor estimated here" in alert.sentence
    assert alerts_of(now, earlier, ds.Thresholds(drift_per_accuracy_point=None)) == ()


def test_drift_is_silent_where_retention_is_known() -> None:
    """As in examples/plain_loop.py: retention rose, and drift called it a loss."""
    before = observed(1, 82.0, retention=91.0, embedding_drift=0.46)
    now = observed(2, 88.0, retention=94.0, embedding_drift=0.56)
    assert alerts_of(now, [before], ds.Thresholds()) == ()
    unknown = observed(2, 88.0, embedding_drift=0.56)
    earlier = [observed(1, 82.0, embedding_drift=0.46)]
    assert [one.kind for one in alerts_of(unknown, earlier, ds.Thresholds())] == [
        "drift_outpaces_accuracy"
    ]


def test_low_retention_is_told_unless_switched_off() -> None:
    damaged = observed(10, retention=31.0)
    [alert] = alerts_of(damaged, [], ds.Thresholds())
    assert alert.kind == "low_retention"
    assert alert.sentence.startswith("Only 31.0 % of the pretrained ")
    assert "driftscope rescue" in alert.sentence
    assert alerts_of(observed(10, retention=90.0), [], ds.Thresholds()) == ()
    assert alerts_of(damaged, [], ds.Thresholds(min_retention_pct=None)) == ()


def test_an_estimate_is_judged_where_nothing_was_measured() -> None:
    estimated = observed(10, estimated_retention_pct=70.0)
    [alert] = alerts_of(estimated, [], ds.Thresholds())
    told = "Only 70.0 % of the pretrained zero-shot ability is left (estimated retention; the limit"
    assert alert.sentence.startswith(f"{told} is 90 %)")
    both = observed(10, retention=95.0, estimated_retention_pct=70.0)
    assert alerts_of(both, [], ds.Thresholds()) == ()


@pytest.mark.parametrize(("change", "expected"), [(-14.9, 0), (-15.0, 1), (40.0, 0)])
def test_late_contraction_is_told_with_what_it_means(change: float, expected: int) -> None:
    found = alerts_of(observed(10, delta_late_entropy_pct=change), [], ds.Thresholds())
    assert [alert.kind for alert in found] == ["late_contraction"] * expected
    for alert in found:
        assert "last 2 of 6 layers has narrowed: its entropy is 15 % below" in alert.sentence
        assert "not how much it forgot" in alert.sentence


def test_a_budget_is_told_when_it_is_overrun() -> None:
    limits = ds.Thresholds(min_retention_pct=90, max_embedding_drift=0.3)
    over = observed(10, retention=89.9, embedding_drift=0.31)
    assert [one.kind for one in alerts_of(over, [], limits)] == ["low_retention", "large_drift"]
    within = observed(10, retention=90.0, embedding_drift=0.3)
    assert alerts_of(within, [], limits) == ()


def test_a_threshold_may_be_switched_off_by_none_or_false() -> None:
    off = ds.Thresholds(drift_per_accuracy_point=False, late_contraction_pct=False)  # type: ignore[arg-type]
    assert off == ds.Thresholds(drift_per_accuracy_point=None, late_contraction_pct=None)
    before = observed(1, 90, embedding_drift=0.1)
    now = observed(2, 90, embedding_drift=0.9, delta_late_entropy_pct=-90.0)
    assert alerts_of(now, [before], off) == ()
    assert len(alerts_of(now, [before], ds.Thresholds())) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_retention_pct": "90"}, "min_retention_pct is '90'; give a number from 1 to 1000"),
        ({"min_retention_pct": 0.9}, "min_retention_pct is 0.9; give a number from 1 to 1000"),
        ({"max_embedding_drift": 30}, "max_embedding_drift is 30; give a number from 0 to 2"),
        ({"max_embedding_drift": True}, "max_embedding_drift is True"),
        ({"late_contraction_pct": -15}, "late_contraction_pct is -15"),
        ({"late_contraction_pct": float("nan")}, "late_contraction_pct is nan"),
        ({"least_drift_rise": None}, "give drift_per_accuracy_point=None"),
        ({"diverged": "no"}, "diverged is 'no'; give True or False"),
    ],
)
def test_a_threshold_that_cannot_be_meant_is_one_sentence(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        ds.Thresholds(**options)


# ---------------------------------------------------------------- what models tell


def test_an_adapter_that_is_switched_off_is_an_alert_and_no_number(
    tiny_clip: Path, coloured_images: Path
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images)
    model: Any = moved(with_lora(clip_of(tiny_clip)))
    with model.disable_adapter():
        seen = monitor.observe(model, step=1)
    assert kinds(seen) == ["adapter_inactive"]
    assert seen.drift is None
    assert seen.scalars() == {}
    assert kinds(monitor.observe(model, step=2)) == []


def test_an_image_adapter_that_is_off_while_the_texts_are_trained_is_an_alert_and_no_number(
    tiny_clip: Path, coloured_images: Path
) -> None:
    towers = {"img": "vision_model", "txt": "text_model"}
    lora = {n: peft.LoraConfig(target_modules=rf"{t}.*\.(q|v)_proj") for n, t in towers.items()}
    model: Any = peft.get_peft_model(clip_of(tiny_clip), lora["img"], adapter_name="img")
    model.add_adapter("txt", lora["txt"])
    model = moved(model)
    monitor = monitor_of(tiny_clip, coloured_images)
    model.set_adapter("txt")
    seen = monitor.observe(model, step=20)
    assert kinds(seen) == ["adapter_inactive"]
    assert seen.drift is None
    model.set_adapter("img")
    assert monitor.observe(model, step=40).drift is not None


@pytest.mark.parametrize("adapter", [False, True])
def test_a_model_that_training_does_not_reach_is_an_alert(
    adapter: bool, tiny_clip: Path, coloured_images: Path
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images)
    model = clip_of(tiny_clip)
    model = with_lora(model) if adapter else model
    assert kinds(monitor.observe(model, step=0)) == []
    assert kinds(monitor.observe(model, step=1)) == []  # a warmup may begin at rate 0
    seen = monitor.observe(model, step=9)
    assert kinds(seen) == ["unchanged"]
    assert ("adapter has had no effect" in seen.alerts[0].sentence) is adapter
    model.requires_grad_(False)  # a head alone is trained: nothing is wrong
    assert kinds(monitor.observe(model, step=10)) == []


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("adapter", [False, True])
def test_rounding_hides_no_model_that_training_does_not_reach(
    adapter: bool, kind: torch.dtype, tiny_clip: Path, coloured_images: Path
) -> None:
    said: list[str] = []
    monitor = monitor_of(tiny_clip, coloured_images, echo=said.append)
    model = clip_of(tiny_clip)
    model = (with_lora(model) if adapter else model).to(kind)
    first, second = (monitor.observe(model, step=step) for step in (1, 9))
    assert [kinds(first), kinds(second)] == [[], ["unchanged"]]
    assert second.scalars()["weight_drift"] > 0
    assert sum("in 16 bits" in line for line in said) == 1
    moved(model)
    assert kinds(monitor.observe(model, step=20)) == []


@pytest.mark.parametrize(
    ("place", "is_told"),
    [
        ({"step": 10}, False),
        ({"step": 11}, True),
        ({"step": 10, "epoch": 0.9}, False),
        ({"step": 5, "epoch": 1}, True),
        ({"epoch": 1.0}, True),  # a loop that counts epochs alone
    ],
)
def test_a_model_that_training_did_not_reach_is_an_alert_at_its_only_observation(
    place: dict[str, Any], is_told: bool, tiny_clip: Path, coloured_images: Path
) -> None:
    seen = monitor_of(tiny_clip, coloured_images).observe(clip_of(tiny_clip), **place)
    assert kinds(seen) == ["unchanged"] * is_told


def failing(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


_TORCHS_OWN = RuntimeError("FlashAttention only supports fp16 and bf16\nException raised from …")


@pytest.mark.parametrize("what", ["live_model", "assess", "levels_of"])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "There was no memory left"),
        (_TORCHS_OWN, "could not be run for this observation: FlashAttention only"),
    ],
)
def test_a_look_that_fails_is_told_and_ends_no_training(
    what: str,
    error: Exception,
    words: str,
    tiny_clip: Path,
    coloured_images: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from driftscope.monitor import observing

    monitor = monitor_of(tiny_clip, coloured_images, on_alert="stop")
    with monkeypatch.context() as patch:
        patch.setattr(observing, what, failing(error))
        seen = monitor.observe(clip_of(tiny_clip), step=1)
    assert kinds(seen) == ["unreadable"]
    assert seen.drift is None
    assert words in seen.alerts[0].sentence
    assert "\n" not in seen.alerts[0].sentence
    assert not monitor.should_stop
    assert kinds(monitor.observe(moved(clip_of(tiny_clip)), step=2)) == []


def test_a_look_that_fails_may_go_untold(
    tiny_clip: Path, coloured_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from driftscope.monitor import observing

    monitor = monitor_of(tiny_clip, coloured_images, alerts=ds.Thresholds(unreadable=False))
    monkeypatch.setattr(observing, "assess", failing(torch.OutOfMemoryError()))
    assert kinds(monitor.observe(clip_of(tiny_clip), step=1)) == []


def test_attention_that_cannot_be_read_is_an_alert(tiny_clip: Path, coloured_images: Path) -> None:
    from transformers import AttentionInterface

    AttentionInterface.register("my_attention", lambda *args, **kwargs: None)
    model: Any = clip_of(tiny_clip)
    model.set_attn_implementation({"vision_config": "my_attention"})
    seen = monitor_of(tiny_clip, coloured_images).observe(model, step=1)
    assert kinds(seen) == ["no_attention"]
    assert "'my_attention' is not known" in seen.alerts[0].sentence


def test_a_diverged_model_is_an_alert_and_not_kept(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    monitor = monitor_of(
        tiny_clip,
        coloured_images,
        out=tmp_path,
        keep_best=True,
        on_alert="stop",
        echo=lines.append,
    )
    model: Any = moved(clip_of(tiny_clip))
    monitor.observe(model, step=1, val_accuracy_pct=50.0)
    model.visual_projection.weight.data.fill_(float("nan"))
    seen = monitor.observe(model, step=2, val_accuracy_pct=50.0)
    assert kinds(seen) == ["diverged"]
    assert monitor.should_stop
    assert not (tmp_path / "stopped").exists()
    assert monitor.best_folder == tmp_path / "candidates" / "step-1"
    assert lines[-1] == (
        "driftscope: no model is kept: its weights or outputs are not finite; the best is in "
        f"{monitor.best_folder}"
    )
    assert monitor.report().exists()


@pytest.mark.parametrize("base_is_named", [False, True])
def test_a_stop_on_an_inactive_adapter_keeps_the_model_with_it(
    base_is_named: bool, tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path, on_alert="stop")
    model: Any = moved(with_lora(clip_of(tiny_clip)))
    if not base_is_named:
        model.peft_config["default"].base_model_name_or_path = None
    with model.disable_adapter():
        monitor.observe(model, step=1)
    assert monitor.should_stop
    kept = monitor_of(tiny_clip, coloured_images).observe(
        ds.load(tmp_path / "stopped").module, step=1
    )
    live = monitor_of(tiny_clip, coloured_images).observe(model, step=1)
    assert kept.scalars() == pytest.approx(live.scalars(), rel=1e-4, abs=MERGING_ROUNDS)
    assert live.scalars()["weight_drift"] > 0


def test_a_stop_on_attention_that_cannot_be_read_keeps_the_model(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    from transformers import AttentionInterface

    AttentionInterface.register("my_attention", lambda *args, **kwargs: None)
    model: Any = moved(clip_of(tiny_clip))
    model.set_attn_implementation({"vision_config": "my_attention"})
    monitor_of(tiny_clip, coloured_images, out=tmp_path, on_alert="stop").observe(model, step=1)
    kept = ds.load(tmp_path / "stopped").module.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())


def test_probe_images_in_the_training_set_are_counted(
    tiny_clip: Path, coloured_images: Path
) -> None:
    same = monitor_of(tiny_clip, coloured_images, train_images=coloured_images)
    assert same.alerts == []  # its two splits share no image
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    shared = monitor_of(tiny_clip, pixels, train_images=torch.cat([pixels[:2], pixels[:2] // 2]))
    assert [alert.kind for alert in shared.alerts] == ["probe_in_training"]
    assert shared.alerts[0].sentence.startswith("2 of the 6 probe images are in the training set")


def test_a_stop_on_probe_images_in_the_training_set_outlives_the_start_of_training(
    tiny_clip: Path, tmp_path: Path
) -> None:
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    monitor = monitor_of(tiny_clip, pixels, train_images=pixels, on_alert="stop", out=tmp_path)
    model = clip_of(tiny_clip)
    reason = monitor.stop_reason
    for _ in range(2):  # trainings
        monitor.start(model)
        assert monitor.should_stop
        assert TrainingFollower(tmp_path).status().ended == f"stopped: {reason}"
        monitor.observe(model, step=1)
        assert (tmp_path / "stopped").exists()
        assert TrainingFollower(tmp_path).status().ended == f"stopped: {reason}"
        monitor.close()
        assert TrainingFollower(tmp_path).status().ended == f"stopped: {reason}"


def test_probe_images_in_the_training_set_are_seen_by_a_watcher_and_after_a_restart(
    tiny_clip: Path, tmp_path: Path
) -> None:
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    first = monitor_of(tiny_clip, pixels, train_images=pixels, out=tmp_path)
    first.observe(moved(clip_of(tiny_clip)), step=1)
    assert [sentence for _, sentence in TrainingFollower(tmp_path).status().alerts] == [
        first.alerts[0].sentence
    ]
    again = monitor_of(tiny_clip, pixels, out=tmp_path)  # it is not told the training images
    assert [alert.kind for alert in again.alerts] == ["probe_in_training"]
    again.load_state_dict(first.state_dict())  # as a trainer does
    assert [alert.kind for alert in again.alerts] == ["probe_in_training"]
    again.observe(moved(clip_of(tiny_clip)), step=2)
    assert again.report().exists()
    assert "probe_in_training" in (tmp_path / "report.json").read_text()


@pytest.mark.parametrize("cure", ["clean training images", "another training"])
def test_probe_images_in_the_training_set_are_forgotten_when_they_no_longer_are(
    cure: str, tiny_clip: Path, tmp_path: Path
) -> None:
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    first = monitor_of(tiny_clip, pixels, train_images=pixels, out=tmp_path)
    first.observe(moved(clip_of(tiny_clip)), step=1)
    if cure == "clean training images":
        again = monitor_of(tiny_clip, pixels, train_images=pixels // 2, out=tmp_path)
    else:
        again = monitor_of(tiny_clip, pixels, out=tmp_path)
        again.start(clip_of(tiny_clip))
    assert again.alerts == []
    again.observe(moved(clip_of(tiny_clip)), step=2)
    assert again.alerts == []
    assert TrainingFollower(tmp_path).status().alerts == []


# ---------------------------------------------------------------- what is done about it


def test_an_alert_that_goes_on_is_told_once(tiny_clip: Path, coloured_images: Path) -> None:
    lines: list[str] = []
    limits = ds.Thresholds(max_embedding_drift=0.0)
    monitor = monitor_of(tiny_clip, coloured_images, alerts=limits, echo=lines.append)
    model = moved(clip_of(tiny_clip))
    for step in (1, 2, 3):
        assert kinds(monitor.observe(model, step=step)) == ["large_drift"]
    assert len(monitor.alerts) == 1
    assert sum("ALERT" in line for line in lines) == 1
    assert not monitor.should_stop


@pytest.mark.parametrize("answer", [None, "stop"])
def test_a_function_hears_the_alert_and_may_stop(
    answer: str | None, tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    heard: list[ds.Alert] = []

    def hear(alert: ds.Alert) -> str | None:
        heard.append(alert)
        return answer

    limits = ds.Thresholds(max_embedding_drift=0.0)
    monitor = monitor_of(tiny_clip, coloured_images, alerts=limits, on_alert=hear, out=tmp_path)
    monitor.observe(moved(clip_of(tiny_clip)), step=4)
    assert [(alert.kind, alert.step) for alert in heard] == [("large_drift", 4)]
    assert monitor.should_stop is (answer == "stop")
    assert monitor.stop_reason == (heard[0].sentence if answer else None)
    assert ('"kind": "stop"' in (tmp_path / "events.jsonl").read_text()) is (answer == "stop")


@pytest.mark.parametrize("resumed", ["from its folder", "from a checkpoint"])
def test_a_restart_stops_again_on_what_still_holds(
    resumed: str, tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    model = moved(clip_of(tiny_clip))
    options: dict[str, Any] = {
        "alerts": ds.Thresholds(max_embedding_drift=0.0),
        "on_alert": "stop",
        "out": tmp_path,
    }
    first = monitor_of(tiny_clip, coloured_images, **options)
    first.observe(model, step=1)
    assert first.should_stop
    again = monitor_of(tiny_clip, coloured_images, **options)
    if resumed == "from a checkpoint":
        again.load_state_dict(first.state_dict())
    assert not again.should_stop
    again.observe(model, step=2)
    assert again.should_stop
    assert [alert.step for alert in again.alerts] == [1]  # it is one alert that goes on


# ---------------------------------------------------------------- selection


def test_the_best_is_accurate_enough_and_then_has_drifted_least() -> None:
    history = [
        observed(1, 88.0, embedding_drift=0.05),
        observed(2, 93.5, embedding_drift=0.20),
        observed(3, 94.4, embedding_drift=0.30),
        observed(4, None, embedding_drift=0.01),
    ]
    for points, expected in ((1.0, 2), (0.5, 3), (10.0, 1)):
        best = ds.Selection(within_points=points, by="embedding_drift").best(history)
        assert best is not None
        assert best.step == expected
    assert ds.Selection().best(history[3:]) is None
    assert ds.Selection(by="retention_pct").best(history) is None


def test_a_selection_goes_by_the_surest_that_is_known() -> None:
    """The run that drifted least is not the one that kept most: embedding drift saturates."""
    measured = [
        observed(1, 94.0, retention=4.0, embedding_drift=0.72, cka=0.9),
        observed(2, 94.0, retention=84.0, embedding_drift=0.73, cka=0.8),
    ]
    estimated = [
        observed(1, 94.0, estimated_retention_pct=4.0, cka=0.9),
        observed(2, 94.0, estimated_retention_pct=84.0, cka=0.8),
    ]
    unknown = [observed(1, 94.0, cka=0.8), observed(2, 94.0, cka=0.9, embedding_drift=0.5)]
    for history, by in (
        (measured, "retention_pct"),
        (estimated, "estimated_retention_pct"),
        (unknown, "cka"),
    ):
        best = ds.Selection().best(history)
        assert best is not None
        assert best.step == 2
        assert ds.Selection().goes_by(history) == by
    assert ds.Selection().best([]) is None


def test_the_best_by_retention_is_the_highest() -> None:
    history = [observed(1, 90, retention=80.0), observed(2, 90, retention=85.0)]
    best = ds.Selection(by="retention_pct").best(history)
    assert best is not None
    assert best.step == 2


POINTS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=12).map(
    lambda pairs: [
        observed(step, 80 + accuracy / 2, embedding_drift=drift / 10)
        for step, (accuracy, drift) in enumerate(pairs, start=1)
    ]
)


@given(history=POINTS, within=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_what_becomes_the_best_later_was_always_kept(
    history: list[ds.Observation], within: float
) -> None:
    selection = ds.Selection(within_points=within, by="embedding_drift")
    best = selection.best(history)
    assert best is not None
    for end in range(best.step, len(history) + 1):
        assert best in selection.can_be_best(history[:end])


def test_lost_patience_stops(tiny_clip: Path, coloured_images: Path) -> None:
    monitor = monitor_of(
        tiny_clip, coloured_images, selection=ds.Selection(patience=2, within_points=0.0)
    )
    model = clip_of(tiny_clip)
    for step, accuracy in enumerate((50.0, 60.0, 59.0, 58.0), start=1):
        assert not monitor.should_stop
        monitor.observe(moved(model, 0.05, seed=step), step=step, val_accuracy_pct=accuracy)
    assert monitor.should_stop
    assert monitor.stop_reason is not None
    assert monitor.stop_reason.startswith("Step 2 has been the best for 2 more observations")


def test_patience_outlives_a_restart(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    model = clip_of(tiny_clip)
    for step, accuracy in enumerate((60.0, 59.0, 58.0), start=1):
        monitor = monitor_of(
            tiny_clip,
            coloured_images,
            out=tmp_path,
            selection=ds.Selection(patience=2, within_points=0.0),
        )
        monitor.observe(moved(model, 0.05, seed=step), step=step, val_accuracy_pct=accuracy)
    assert monitor.should_stop


def test_only_models_that_can_be_best_are_kept(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    monitor = monitor_of(
        tiny_clip,
        coloured_images,
        out=tmp_path,
        keep_best=True,
        selection=ds.Selection(within_points=2.0),
    )
    model = Classifier(clip_of(tiny_clip))
    weights = {}
    for step, accuracy in enumerate((90.0, 91.0, 92.5), start=1):
        moved(model, 0.05, seed=step)
        monitor.observe(model, step=step, val_accuracy_pct=accuracy)
        weights[step] = from_module(model.encoder)
        weights[step] = weights[step].embed_images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        kept = {folder.name for folder in (tmp_path / "candidates").iterdir()}
        possible = monitor._selection.can_be_best(monitor.history)
        assert kept == {f"step-{one.step}" for one in possible}
    assert monitor.best is not None
    assert monitor.best.step == 2  # the first is out of the margin, the third has drifted more
    assert monitor.best_folder is not None
    best = ds.load(monitor.best_folder)
    torch.testing.assert_close(
        best.embed_images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)), weights[2]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "accuracy"}, "selection by 'accuracy'"),
        ({"within_points": -1}, "within_points is -1"),
        ({"patience": 0}, "patience is 0"),
    ],
)
def test_a_selection_that_cannot_be_meant_is_one_sentence(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        ds.Selection(**options)
