import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_models import moved
from transformers import CLIPModel

import driftscope as ds
from driftscope.adapt import export_merged, save_adapted
from driftscope.data import open_dataset
from driftscope.errors import ConfigError, DataError, ModelError, NonFiniteError, RecordError


def test_a_model_compared_with_itself_has_not_drifted(
    tiny_clip: Path, coloured_images: Path
) -> None:
    result = ds.compare(tiny_clip, tiny_clip, coloured_images, transfer=[str(coloured_images)])
    assert result.num_images == 24
    assert result.drift.delta_entropy_pct == 0
    assert result.drift.weight_drift == 0
    assert result.drift.embedding_drift == pytest.approx(0, abs=1e-6)
    assert result.drift.cka == pytest.approx(1)
    assert result.transfer[str(coloured_images)]["retention_pct"] == 100


def test_rounding_to_half_precision_is_told_where_the_pretrained_model_has_more(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    CLIPModel.from_pretrained(tiny_clip).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    halves = ds.compare(tmp_path / "half", tmp_path / "half", coloured_images)
    found = ds.compare(tiny_clip, tmp_path / "half", coloured_images)
    assert found.drift.weight_drift > 0
    assert any("are in 16 bits (bfloat16" in note for note in found.notes)
    assert not any("16 bits" in note for note in halves.notes)


def test_one_transfer_set_needs_no_list(tiny_clip: Path, coloured_images: Path) -> None:
    result = ds.compare(tiny_clip, tiny_clip, coloured_images, transfer=coloured_images)
    assert list(result.transfer) == [str(coloured_images)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"transfer": 5}, "transfer is 5; give a labeled dataset's name or folder"),
        ({"max_images": "8"}, "max_images is '8'; give a whole number of 4 or more"),
        ({"max_images": 3}, "max_images is 3"),
    ],
)
def test_an_option_that_cannot_be_meant_is_one_sentence(
    options: dict, words: str, tiny_clip: Path, coloured_images: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        ds.compare(tiny_clip, tiny_clip, coloured_images, **options)


@pytest.mark.parametrize("given", [torch.zeros(8, 3, 32, 32, dtype=torch.uint8), ["a.png"], None])
def test_probe_images_in_memory_are_refused_before_a_model_is_loaded(given: object) -> None:
    kind = type(given).__name__
    with pytest.raises(DataError, match=f"given as {kind}; give the name of one, or a folder"):
        ds.compare("no such model", "nor this", given)
    with pytest.raises(DataError, match=f"a dataset was given as {kind}; give the name of one"):
        open_dataset(given)


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_a_saved_and_a_merged_adapted_model_compare_alike(
    method: str, tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    adapted = moved(tiny_clip, method)
    save_adapted(adapted, ds.load(tiny_clip), tmp_path / "adapted")
    export_merged(adapted.model, tmp_path / "plain")
    ours = ds.compare(tiny_clip, tmp_path / "adapted", coloured_images).drift
    plain = ds.compare(tiny_clip, tmp_path / "plain", coloured_images).drift
    assert ours.weight_drift is not None
    assert ours.weight_drift > 0
    assert ours.weight_drift == pytest.approx(plain.weight_drift, rel=1e-4)
    assert ours.cka == pytest.approx(plain.cka, rel=1e-4)
    assert ours.delta_entropy_pct == pytest.approx(plain.delta_entropy_pct, rel=1e-2)


def test_a_checkpoint_of_weights_alone_is_read_as_its_pretrained_model_is(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    clip = ds.load(tiny_clip).module
    with torch.no_grad():
        clip.text_projection.weight.neg_()  # type: ignore[operator,union-attr]
    clip.save_pretrained(tmp_path)  # type: ignore[operator]  # neither tokenizer nor preprocessor
    found = ds.compare(tiny_clip, tmp_path, coloured_images, transfer=[str(coloured_images)])
    assert found.drift.delta_entropy_pct == 0
    assert found.transfer[str(coloured_images)]["adapted_text_tower"] == "its own"


def test_an_adapter_compared_with_a_model_that_is_not_its_base_is_refused(
    tiny_clip: Path, other_tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    save_adapted(moved(tiny_clip, "lora"), ds.load(tiny_clip), tmp_path)
    with pytest.raises(ModelError, match="adapted from another model"):
        ds.compare(other_tiny_clip, tmp_path, coloured_images)


def test_models_of_different_shape_are_refused_naming_the_tensor(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    from conftest import make_tiny_clip

    deeper = make_tiny_clip(tmp_path / "deeper", seed=0, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"layers\.2.*absent against"):
        ds.compare(tiny_clip, deeper, coloured_images)


def test_an_unreadable_image_is_named_or_skipped_and_counted(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    for index, file in enumerate(sorted((coloured_images / "test" / "red").iterdir())):
        (tmp_path / f"{index}.png").write_bytes(file.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"broken\.png.*--skip-bad-images"):
        ds.compare(tiny_clip, tiny_clip, tmp_path)
    result = ds.compare(tiny_clip, tiny_clip, tmp_path, skip_bad_images=True)
    assert result.num_images == 8
    assert len(result.skipped_images) == 1
    assert "broken.png" in result.skipped_images[0]


def names_of_numbers(value: object, name: str = "") -> set[str]:
    """The nearest key above every number in nested JSON values."""
    if isinstance(value, dict):
        return set().union(*(names_of_numbers(item, key) for key, item in value.items()))
    if isinstance(value, list):
        return set().union(*(names_of_numbers(item, name) for item in value))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {name} if is_number else set()


def test_every_number_of_a_comparison_is_json_and_has_a_unit(
    tiny_clip: Path, coloured_images: Path
) -> None:
    after = moved(tiny_clip, "full_ft").model
    result = ds.compare(
        tiny_clip,
        after,
        coloured_images,
        transfer=[str(coloured_images)],
        maps=True,
        intruders=True,
    )
    assert len(result.intruder_dimensions_per_layer or []) == 2
    assert [one["num_images"] for one in result.stability["probe_sizes"]] == [4, 6, 12, 24]
    assert result.stability["probe_sizes"][-1]["cka"] == pytest.approx(result.drift.cka)
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["drift"]["cka"] == result.drift.cka
    assert torch.tensor(values["reading_adapted"]["entropy"]).shape == (2, 2)
    units = values.pop("units")
    assert names_of_numbers(values) - units.keys() == set()


def test_a_broken_model_is_refused_and_not_read_as_unchanged(
    tiny_clip: Path, coloured_images: Path
) -> None:
    broken = ds.load(tiny_clip)
    with torch.no_grad():
        broken.module.visual_projection.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="NaN"):
        ds.compare(tiny_clip, broken, coloured_images)


def test_a_text_tower_that_was_adapted_too_is_the_one_that_scores(
    tiny_clip: Path, coloured_images: Path
) -> None:
    name = str(coloured_images)
    same = ds.compare(tiny_clip, tiny_clip, name, transfer=[name]).transfer[name]
    assert same["adapted_text_tower"] == "the pretrained one"
    both = ds.load(tiny_clip)
    with torch.no_grad():
        both.module.text_projection.weight.neg_()  # every similarity changes its sign
    changed = ds.compare(tiny_clip, both, name, transfer=[name]).transfer[name]
    assert changed["adapted_text_tower"] == "its own"
    assert changed["adapted"]["num_correct"] != same["adapted"]["num_correct"]


def test_what_holds_of_both_models_is_said_once(tiny_clip: Path, coloured_images: Path) -> None:
    model = ds.load(tiny_clip)
    own = {"before": ("images for before are squashed",), "after": ("after has no head",)}
    own["after"] = ("images for after are squashed", *own["after"])
    before, after = (replace(model, source=name, notes=notes) for name, notes in own.items())
    found = ds.compare(before, after, coloured_images / "test")
    assert found.notes == ("images for before and after are squashed", "after has no head")


def test_a_comparison_tells_the_prompts_that_it_was_measured_with(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("red: scarlet\n")
    options = {"transfer": coloured_images, "templates": ["a {}", "the {}"]}
    result = ds.compare(tiny_clip, tiny_clip, coloured_images, class_words=words, **options)
    told = result.transfer[str(coloured_images)]
    assert told["class_words"] == {"blue": "blue", "green": "green", "red": "scarlet"}
    assert told["templates"] == ["a {}", "the {}"]


def test_class_words_of_other_classes_are_refused(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("cat: kitten\ndog: puppy\n")
    alike = (tiny_clip, tiny_clip, coloured_images)
    for given in (words, {"cat": "kitten"}):
        with pytest.raises(DataError, match=r"of this set.*blue, green, red"):
            ds.compare(*alike, transfer=coloured_images, class_words=given)
        with pytest.raises(DataError, match=r"of this set.*blue, green, red"):
            ds.estimate_retention(*alike, ["blue", "green", "red", "teal"], class_words=given)
        with pytest.raises(DataError, match="nothing is told by its class's name"):
            ds.compare(*alike, class_words=given)


def test_options_that_nothing_is_told_by_are_refused(
    tiny_clip: Path, coloured_images: Path
) -> None:
    alike = (tiny_clip, tiny_clip, coloured_images)
    for by in ("knn", ["zero_shot"]):
        with pytest.raises(ConfigError, match="no transfer set is given"):
            ds.compare(*alike, transfer_by=by)
    with pytest.raises(DataError, match="templates are given, but nothing is told"):
        ds.compare(*alike, templates="a {}")
    with pytest.raises(DataError, match="templates are given, but nothing is told"):
        ds.compare(*alike, transfer=coloured_images, transfer_by="knn", templates="a {}")


def test_a_page_of_something_else_is_never_written_over(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    result = ds.compare(tiny_clip, tiny_clip, coloured_images)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "spec.json").write_text("{}")
    with pytest.raises(RecordError, match="holds a study or a run"):
        result.report(tmp_path / "run")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "report.html").write_text("<title>my own page</title>")
    with pytest.raises(RecordError, match="there already"):
        result.report(tmp_path / "own")
    assert (tmp_path / "own" / "report.html").read_text() == "<title>my own page</title>"
    page = result.report(tmp_path / "new")
    assert result.report(tmp_path / "new") == page  # its own successor
