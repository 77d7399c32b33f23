import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from driftscope import assess, prepared_run, records, reference_cache, run
from driftscope.adapt import AdaptedModel
from driftscope.analysis import StudyTables, answer
from driftscope.backbones.model import VisionLanguageModel
from driftscope.config import parse_run_spec
from driftscope.errors import DataError, RecordError
from driftscope.metrics import ESTIMATED, METRICS
from driftscope.prepared_run import prepare
from driftscope.records.columns import HISTORY_COLUMNS
from driftscope.records.tables import all_tables
from driftscope.reference import make_reference
from driftscope.run import adapted_model, run_one
from driftscope.sources import load
from driftscope.transfer import score

METHODS = [
    "full_ft",
    "linear_probe",
    {"kind": "lp_ft", "probe_epochs": 2},
    "last_block",
    "flyp",
    "lora",
    "ia3",
]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each forward pass of an image tower takes, from now on."""
    counts: list[int] = []
    normalise = VisionLanguageModel.normalise

    def counting(self: VisionLanguageModel, pixels: torch.Tensor) -> torch.Tensor:
        counts.append(len(pixels))
        return normalise(self, pixels)

    monkeypatch.setattr(VisionLanguageModel, "normalise", counting)
    return counts


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_method_runs_from_spec_to_result(
    tiny_run: dict, tmp_path: Path, method: object
) -> None:
    spec = parse_run_spec({**tiny_run, "method": method})
    record = run_one(spec, tmp_path)
    result = record.result
    assert result["status"] == "done"
    assert [event["epoch"] for event in record.events] == [1, 2]
    assert result["last"]["epoch"] == 2
    best = max(record.events, key=lambda event: event["val_accuracy_pct"])
    assert result["selected"]["epoch"] == best["epoch"]
    assert result["selected"]["test_num_images"] == 24
    (main,) = spec.transfer
    assert result["last"]["transfer"][main]["retention_pct"] == record.events[-1]["retention_pct"]
    assert result["last"]["drift"]["cka"] == record.events[-1]["cka"]
    again = load(tmp_path)
    assert again.source == str(tmp_path)


def test_a_run_that_is_done_is_returned_and_not_repeated(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_run_spec(tiny_run)
    first = run_one(spec, tmp_path)
    monkeypatch.setattr(run, "prepare", None)
    assert run_one(spec, tmp_path) == first


def test_the_kept_model_and_classifier_are_those_of_the_selected_epoch(
    tiny_run: dict, tmp_path: Path
) -> None:
    from driftscope.adapt import load_classifier

    spec = parse_run_spec({**tiny_run, "learning_rate": 3e-3, "epochs": 4})
    record = run_one(spec, tmp_path)
    shared = prepare(spec)
    model, classifier = load(tmp_path), load_classifier(tmp_path / records.ADAPTED_FOLDER)
    kept = AdaptedModel(model, classifier)
    found = shared.evaluate(kept)
    assert found.val_accuracy_pct == record.result.selected.val_accuracy_pct
    assert found.record["drift"] == record.result.selected.drift.facts()
    correct = prepared_run.num_correct(
        kept, model.embed_images(shared.test_pixels), shared.test_labels
    )
    assert record.result.selected.test_accuracy_pct == 100 * correct / 24


def test_each_image_passes_the_encoder_once_per_evaluation_and_nothing_is_evaluated_twice(
    tiny_run: dict, tmp_path: Path, encoded: list[int]
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 3})
    shared = prepare(spec)
    watched = 9 + 9 + 24  # validation, probe, transfer
    encoded.clear()
    run_one(spec, tmp_path)
    test, overlays = 24, 6
    num_trained = len(shared.images.labels)
    assert sum(encoded) == 3 * (num_trained + watched) + test + overlays


def test_a_linear_probe_run_encodes_each_image_once_in_all(
    tiny_run: dict, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTSCOPE_CACHE", str(tmp_path / "cache"))
    spec = parse_run_spec({**tiny_run, "method": "linear_probe", "epochs": 9})
    prepared_run._prepare.cache_clear()
    encoded.clear()
    run_one(spec, tmp_path / "one")
    watched, overlays = 9 + 9 + 24, 6  # the transfer images are the test images, too
    assert sum(encoded) == 2 * 30 + watched + overlays  # as they are, and flipped

    encoded.clear()
    run_one(spec.model_copy(update={"seed": 3}), tmp_path / "two")
    assert sum(encoded) == overlays


def test_what_a_frozen_encoder_cannot_change_is_compared_once(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_run_spec({**tiny_run, "method": "linear_probe", "epochs": 3})
    prepared_run._prepare.cache_clear()
    compared: list[dict] = []
    drift = assess.drift

    def counting(*arguments: object, **options: object) -> object:
        compared.append(options)
        return drift(*arguments, **options)

    monkeypatch.setattr(assess, "drift", counting)
    record = run_one(spec, tmp_path)
    assert len(compared) == 1
    assert {event["retention_pct"] for event in record.events} == {100.0}
    assert {event["weight_drift"] for event in record.events} == {0.0}


def test_the_pretrained_reference_is_computed_once_and_shared_through_the_cache(
    tiny_run: dict,
    tmp_path: Path,
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
    other_tiny_clip: Path,
) -> None:
    monkeypatch.setenv("DRIFTSCOPE_CACHE", str(tmp_path / "cache"))
    spec = parse_run_spec(tiny_run)

    def anew(values: dict) -> prepared_run.PreparedRun:
        prepared_run._prepare.cache_clear()  # as another process finds it
        encoded.clear()
        return prepare(parse_run_spec(values))

    computed = anew(tiny_run)
    assert sum(encoded) == 9 + 9 + 24
    cached = anew(tiny_run)
    assert encoded == []
    for name, embeddings in computed.reference.embeddings.items():
        assert torch.equal(cached.reference.embeddings[name], embeddings)
    assert cached.reference.reading.to_dict(tensors=True) == computed.reference.reading.to_dict(
        tensors=True
    )
    assert cached.pretrained_record() == computed.pretrained_record()
    anew({**tiny_run, "model": str(other_tiny_clip)})
    assert sum(encoded) == 9 + 9 + 24
    anew({**tiny_run, "data_seed": 5})
    assert sum(encoded) == 9 + 9  # the transfer set stays the same

    for entry in (tmp_path / "cache" / reference_cache.REFERENCES_FOLDER).glob("*.safetensors"):
        entry.write_bytes(entry.read_bytes()[:-7])
    assert anew(tiny_run).pretrained_record() == computed.pretrained_record()
    assert sum(encoded) == 9 + 9 + 24
    monkeypatch.setenv("DRIFTSCOPE_CACHE_GB", "0")
    anew(tiny_run)
    assert sum(encoded) == 9 + 9 + 24
    assert spec == parse_run_spec(tiny_run)


def test_a_reference_that_cannot_be_kept_is_computed_with_a_warning(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    expected = prepare(parse_run_spec(tiny_run)).pretrained_record()
    monkeypatch.setenv("DRIFTSCOPE_CACHE", str(tmp_path / "file"))
    prepared_run._prepare.cache_clear()
    with pytest.warns(UserWarning, match=r"reference is not kept in .*DRIFTSCOPE_CACHE"):
        found = prepare(parse_run_spec(tiny_run))
    assert found.pretrained_record() == expected


def test_images_of_a_set_on_disk_stay_in_the_map_that_processes_share(tiny_run: dict) -> None:
    prepared_run._prepare.cache_clear()  # another test may have prepared it without a cache
    shared = prepare(parse_run_spec(tiny_run))
    (benchmark,) = shared.reference.transfer
    in_use = [shared.images.pixels, shared.test_pixels, benchmark.pixels]
    assert [len(images.stored) for images in in_use] == [48, 24, 24]
    num_trained = len(shared.images.labels)
    assert len(shared.images.pixels) == num_trained < 48
    for images in shared.reference.further.values():
        assert len(images.rest.stored) in (24, 48)


def test_validation_images_of_the_probe_set_are_encoded_once(tiny_run: dict) -> None:
    model = load(tiny_run["model"])
    generator = torch.Generator().manual_seed(0)
    size = (8, 3, model.image_size, model.image_size)
    pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    chosen = [7, 3, 0, 7, 2]
    reference = make_reference(model, pixels[2:6], further={"one": pixels[chosen]})
    assert len(reference.further["one"].rest) == 2
    found = assess.assess(model, reference).further["one"]
    assert torch.allclose(found, model.embed_images(pixels[chosen]), atol=1e-5)


def test_the_adapted_models_scores_are_those_of_the_separate_passes(
    tiny_run: dict, tmp_path: Path
) -> None:
    spec = parse_run_spec({**tiny_run, "method": "lora", "epochs": 1})
    record = run_one(spec, tmp_path)
    (benchmark,) = prepare(spec).reference.transfer
    separately = benchmark.score(load(tmp_path))
    together = record.result.selected.transfer[benchmark.name]
    assert together.num_correct == separately.num_correct
    assert together.per_class_correct == list(separately.per_class_correct)


def test_a_specs_templates_and_class_words_make_the_captions(tiny_run: dict) -> None:
    rules = {"templates": ["a yellow {}"], "class_words": {"red": "blue red"}}
    spec = parse_run_spec({**tiny_run, "method": "flyp", **rules})
    shared = prepare(spec)
    adapted = adapted_model(shared, spec, shared.images)
    assert shared.class_names == ("blue", "green", "red")
    captions = shared.pretrained.tokenised(["a yellow blue", "a yellow green", "a yellow blue red"])
    assert torch.equal(adapted.class_tokens["input_ids"], captions["input_ids"])


def test_a_contrastive_model_is_scored_by_its_own_text_tower(tiny_run: dict) -> None:
    spec = parse_run_spec({**tiny_run, "method": "flyp"})
    shared = prepare(spec)
    adapted = adapted_model(shared, spec, shared.images)
    before = shared.evaluate(adapted)
    assert before.scalars["retention_pct"] == 100.0
    with torch.no_grad():  # swaps the sides of the text space
        adapted.model.plain.text_projection.weight.neg_()
    after = shared.evaluate(adapted)
    assert after.scalars["zero_shot_pct"] != before.scalars["zero_shot_pct"]
    assert after.scalars["embedding_drift"] == before.scalars["embedding_drift"] == 0.0


def test_text_space_drift_is_unmeasured_where_the_tokenizer_lacks_the_words(
    tiny_run: dict, tmp_path: Path
) -> None:
    drift = run_one(parse_run_spec({**tiny_run, "epochs": 1}), tmp_path).result.selected.drift
    assert drift.number("text_kl_nats") is None
    assert "the tokenizer knows" in drift.unmeasured["text_kl_nats"]


@pytest.mark.parametrize("kind", [None, "apr", "entropy_floor"])
def test_a_diverged_run_is_recorded_and_not_a_crash(
    tiny_run: dict, tmp_path: Path, kind: str | None
) -> None:
    values = {**tiny_run, "learning_rate": 1e30, "clip_norm": None, "warmup_fraction": 0.0}
    values["regularizers"] = [{"kind": kind, "weight": 0.1}] if kind else []
    record = run_one(parse_run_spec(values), tmp_path)
    assert record.result.status == "diverged"
    assert record.events[-1]["kind"] == "diverged"
    assert records.runs_table([record]).loc[0, "status"] == "diverged"


def test_a_run_can_leave_unreadable_images_out_of_every_set_and_says_so(
    tiny_run: dict, coloured_images: Path, tmp_path: Path
) -> None:
    images = shutil.copytree(coloured_images, tmp_path / "images")
    for split in ("train", "test"):
        (images / split / "red" / "00.png").write_bytes(b"broken")
    values = {**tiny_run, "dataset": str(images), "transfer": [str(images)], "epochs": 1}
    with pytest.raises(DataError, match=r"00\.png"):
        run_one(parse_run_spec(values), tmp_path / "refused")
    record = run_one(parse_run_spec({**values, "skip_bad_images": True}), tmp_path / "run")
    assert record.result.splits is not None
    assert record.result.selected is not None
    assert record.result.selected.test_num_images == 23
    said = record.result.splits.notes
    assert sum("1 images cannot be read and are left out" in note for note in said) == 2
    (score,) = record.result.selected.transfer.values()
    assert score.num_images == 23
    assert "1 images cannot be read and are left out" in "".join(score.notes)


def test_the_papers_protocol_reads_the_test_split_once_for_validation_and_test(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[int]
) -> None:
    from driftscope.data import splits

    monkeypatch.setattr(splits, "PAPER_SUBSET_IMAGES", 6)
    monkeypatch.setattr(splits.evaluation_subsets, "__kwdefaults__", {"count": 5, "size": 6})
    prepared_run._prepare.cache_clear()
    spec = parse_run_spec({**tiny_run, "protocol": "paper", "transfer": [], "epochs": 2})
    shared = prepare(spec)
    assert len(shared.reference.probe_pixels) == 30
    unique = {image.numpy().tobytes() for image in shared.test_pixels}
    encoded.clear()
    record = run_one(spec, tmp_path)
    prepared_run._prepare.cache_clear()
    seen_in_probe = {image.numpy().tobytes() for image in shared.reference.probe_pixels}
    each_evaluation = 30 + len(unique - seen_in_probe)
    trained = len(shared.images.labels)
    assert sum(encoded) == 2 * (trained + each_evaluation) + 6
    selected = record.result.selected
    assert selected.test_accuracy_pct == selected.val_accuracy_pct
    expected = score("test", round(0.24 * selected.val_accuracy_pct), 24)
    assert selected.test_wilson_pct == [expected.wilson_low_pct, expected.wilson_high_pct]


def test_a_failure_is_written_down_and_the_folder_can_be_taken_up_again(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_run_spec(tiny_run)
    with monkeypatch.context() as patched:
        patched.setattr(run, "save_adapted", full_disk)
        with pytest.raises(RecordError, match=r"cannot go on \(no space left.*run again to go on"):
            run_one(spec, tmp_path)
    assert "No space left" in (tmp_path / records.FAILURE_FILE).read_text()
    assert run_one(spec, tmp_path).result.status == "done"
    assert not (tmp_path / records.FAILURE_FILE).exists()


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_record_says_what_decided_the_numbers(tiny_run: dict, tmp_path: Path) -> None:
    spec = parse_run_spec(tiny_run)
    result = run_one(spec, tmp_path).result
    environment = result["environment"]
    assert environment["threads"] == torch.get_num_threads()
    assert environment["device"] == "cpu"
    assert set(environment["versions"]) >= {"python", "torch", "transformers", "peft"}
    assert set(environment["data_fingerprints"]) == {"train", "test", *spec.transfer}
    assert result["splits"]["num_images"] == {"train": 30, "val": 9, "probe": 9, "test": 24}
    assert result["spec"] == spec.model_dump(mode="json")


def test_every_column_of_a_runs_history_is_documented_and_filled(
    tiny_run: dict, tmp_path: Path
) -> None:
    penalty = {"kind": "l2_sp", "weight": 0.1}
    values = {**tiny_run, "epochs": 1, "maps": True, "probe_at": [1], "regularizers": [penalty]}
    history = records.history_table([run_one(parse_run_spec(values), tmp_path)])
    # without a pool there is no estimate, and so no ends of its interval
    expected = [name for name, column in HISTORY_COLUMNS.items() if not column.is_optional]
    assert list(history.columns) == expected
    assert list(history["kind"]) == ["probe", "epoch"]
    missing = history.columns[history.iloc[-1].isna()]
    text_space = {one.key for one in METRICS.values() if one.group == "text space"}
    # the tiny tokenizer lacks the words, and neither a pool nor a budget is given
    assert set(missing) == {*text_space, ESTIMATED, "budget_strength", "rate_factor"}


def test_a_record_tells_how_much_the_probe_images_matter(
    tiny_run: dict[str, object], tmp_path: Path
) -> None:
    record = run_one(parse_run_spec({**tiny_run, "epochs": 1, "probe_images": 21}), tmp_path)
    subsets = record.result.last.subsets
    assert [one["num_images"] for one in subsets] == [4, 4, 4, 4, 4, 11, 21]
    drift = record.result.last.drift.facts()
    for signal in ("cka", "cka_debiased", "embedding_drift", "delta_entropy_pct"):
        assert subsets[-1][signal] == pytest.approx(drift[signal])
    tables = all_tables([record])
    found = answer(
        "stability", StudyTables(tables.runs, tables.history, tables.layers, tables.subsets)
    )
    entropies = [one["entropy"] for one in subsets[:5]]
    row = found.table[(found.table["signal"] == "entropy") & (found.table["num_images"] == 4)]
    assert row["cv"].item() == pytest.approx(np.std(entropies) / np.mean(entropies))
