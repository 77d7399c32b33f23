"""What makes a zero-shot number mean something else is said beside it, and no gate passes on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from small_sets import classes, write

from driftscope.backbones.model import VisionLanguageModel
from driftscope.data import EncodedSet, encoded, open_dataset
from driftscope.data.given import some_pixels
from driftscope.data.names import benchmark_words, imagenet_names, read_names
from driftscope.data.prompts import PromptRules, prompt_rules, words_of
from driftscope.errors import DataError
from driftscope.limits import Megabytes
from driftscope.sources import load
from driftscope.transfer import retention_pct, retrieval_set, score, transfer_set
from driftscope.transfer.doubts import DoubtWarning, doubts_of_names, doubts_of_score
from driftscope.transfer.features import labelled_sets
from driftscope.transfer.scores import above_chance_pct, outcome_of

WORDS = ("red circle", "red square", "red triangle", "red star")
PER_CLASS = 5


@pytest.fixture(scope="module")
def mini() -> VisionLanguageModel:
    return load("mini")


def pictures(root: Path, folders: Iterable[str]) -> Path:
    """A folder a class, with pictures of `WORDS` in their order."""
    world = open_dataset("concepts100", "test")
    assert world.class_names is not None
    assert world.labels is not None
    for folder, word in zip(folders, WORDS, strict=False):
        rows = (world.labels == world.class_names.index(word)).nonzero().flatten()[:PER_CLASS]
        (root / folder).mkdir(parents=True)
        for row, image in zip(rows, world.pixels(rows, 64), strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / folder / f"{row}.png")
    return root


def change(place: Path | str, mini: VisionLanguageModel, **options: object) -> dict[str, object]:
    """A model against itself on a set, without the warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtWarning)
        benchmark = transfer_set(str(place), mini, **options)  # type: ignore[arg-type]
    outcome = benchmark.outcome(mini)
    return benchmark.change(outcome, outcome)


def test_a_plain_set_has_no_doubts(tmp_path: Path, mini: VisionLanguageModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DoubtWarning)
        benchmark = transfer_set(str(pictures(tmp_path, WORDS)), mini)
    outcome = benchmark.outcome(mini)
    found = benchmark.change(outcome, outcome)
    assert found["doubts"] == []
    assert found["retention_pct"] == found["above_chance_pct"] == 100
    assert found["chance_pct"] == found["constant_pct"] == 25
    assert found["pretrained_accuracy_pct"] == outcome.score.accuracy_pct
    assert found["pretrained_low_pct"] == outcome.score.wilson_low_pct > 25


def test_names_that_are_no_words_are_warned_of_and_words_may_come_beside_them(
    tmp_path: Path, mini: VisionLanguageModel
) -> None:
    place = pictures(tmp_path, "0123")
    with pytest.warns(DoubtWarning, match=r"4 of its 4 class names are no words \(0, 1, 2, …\)"):
        transfer_set(str(place), mini)
    (place / "classnames.txt").write_text("\n".join(WORDS))
    assert change(place, mini)["doubts"] == []
    (place / "classnames.txt").rename(tmp_path / "other.txt")
    assert change(f"{place}?names={tmp_path / 'other.txt'}", mini)["retention_pct"] == 100
    own = PromptRules(class_words=tuple(zip("0123", WORDS, strict=True)))
    assert change(place, mini, rules=own)["doubts"] == []


@pytest.mark.parametrize("name", ["12", "-1", "3.5", "class_7", "c0", "n99999999", "True", "nan"])
def test_no_words(name: str) -> None:
    assert any(doubts_of_names([name, "cat"], words_of([name, "cat"], {})))


@pytest.mark.parametrize("name", ["other", "BACKGROUND_Google", "misc", "N/A", "unlabeled"])
def test_words_that_say_nothing_of_a_picture(name: str) -> None:
    assert any(doubts_of_names([name, "cat"], words_of([name, "cat"], {})))


def test_words_that_marks_join() -> None:
    (said,) = doubts_of_names(["red.fox", "blue+emu"], ["red.fox", "blue+emu"])
    assert "2 of its 2 class names are joined by marks (red.fox, blue+emu)" in said
    assert not any(doubts_of_names(["St. Bernard", "v1.x", "cat"], ["St. Bernard", "v1.x", "cat"]))


def test_names_that_differ_in_marks_alone(tmp_path: Path, mini: VisionLanguageModel) -> None:
    place = pictures(pictures(tmp_path, WORDS), ["Red-Circle"])
    *of_copies, said = change(place, mini)["doubts"]  # type: ignore[misc]
    assert all("byte" in one for one in of_copies)
    assert "2 of its 5 class names differ from another in marks alone" in said
    assert "'Red-Circle' = 'red circle'" in said


@pytest.mark.parametrize(
    "names",
    [
        {"words.txt": "n99999990\tred circle, ring\nn99999991\tred square\n"},
        {"LOC_synset_mapping.txt": "n99999990 red circle, ring\nn99999991 red square\n"},
        {
            "imagenet_class_index.json": '{"0": ["n99999990", "red circle"], '
            '"1": ["n99999991", "red square"]}'
        },
    ],
)  # fmt: skip
def test_the_published_lists_of_wordnet_ids_are_known(
    tmp_path: Path, mini: VisionLanguageModel, names: dict[str, str]
) -> None:
    place = pictures(tmp_path, ["n99999990", "n99999991"])
    for name, text in names.items():
        (place / name).write_text(text)
    found = change(place, mini)
    assert (found["doubts"], found["accuracy_pct"]) == ([], 100)


def test_words_of_a_file_hold_for_a_world_that_comes_along(
    tmp_path: Path, mini: VisionLanguageModel
) -> None:
    (tmp_path / "words.txt").write_text("red circle: crimson disc\n")
    rules = PromptRules(names=read_names(tmp_path / "words.txt"))
    told = transfer_set("concepts100", mini, 100, rules).prompts()["class_words"]
    assert (told["red circle"], told["red square"]) == ("crimson disc", "red square")


def test_imagenets_own_words_are_not_its_synonyms(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("n01440764\tTinca tinca, tench\n")
    words = read_names(tmp_path / "words.txt").words_of(["n01440764"], must_fit=True)
    assert words == {"n01440764": "tench"}


@pytest.mark.parametrize(
    "name", ["707-320", "Boeing 737", "class act", "n01440764", "iPod", "1970s"]
)
def test_words(name: str) -> None:
    assert not any(doubts_of_names([name], words_of([name], {})))


def test_equal_prompts_are_one_class_whatever_the_threads(
    tmp_path: Path, mini: VisionLanguageModel
) -> None:
    place = pictures(tmp_path, ("red_circle", "red_square", "red_triangle"))
    pictures(tmp_path, ("Red Circle",))
    with pytest.warns(DoubtWarning, match="'Red Circle' = 'red_circle'"):
        benchmark = transfer_set(str(place), mini)
    assert torch.equal(benchmark.text_embeddings[0], benchmark.text_embeddings[1])
    counts = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        counts.append(torch.bincount(benchmark.outcome(mini).predicted, minlength=4).tolist())
    torch.set_num_threads(1)
    assert counts == [[10, 0, 5, 5]] * 2


def test_rounding_does_not_break_ties_of_equal_texts() -> None:
    texts = torch.eye(3)[[0, 1, 1, 2]]
    found = outcome_of(torch.eye(3)[[1, 1, 2]], torch.tensor([2, 1, 3]), texts, "x")
    assert found.predicted.tolist() == [1, 1, 3]


def test_prompts_that_are_cut_are_named(tmp_path: Path, mini: VisionLanguageModel) -> None:
    pictures(tmp_path / "set", WORDS)
    rows = [
        f"set/{word}/{file.name},{'very ' * 80}{word}"
        for word in WORDS
        for file in (tmp_path / "set" / word).iterdir()
    ]
    (tmp_path / "long.csv").write_text("\n".join(["path,label", *rows]))
    doubts = change(tmp_path / "long.csv", mini)["doubts"]
    assert isinstance(doubts, list)
    assert any("are longer than the model reads and are cut" in doubt for doubt in doubts)


def test_without_ability_there_is_no_retention(tmp_path: Path, mini: VisionLanguageModel) -> None:
    place = pictures(tmp_path, (*WORDS[1:], WORDS[0]))  # every picture under another's name
    found = change(place, mini)
    assert found["retention_pct"] is found["above_chance_pct"] is None
    assert "is not above chance (25.0 %)" in str(found["doubts"])


def test_above_chance_leaves_out_what_guessing_gives() -> None:
    def counted(right: int) -> object:
        found = outcome_of(
            torch.eye(2)[[0] * right + [1] * (100 - right)],
            torch.tensor([0] * 100),
            torch.eye(2),
            "x",
        )
        return found.score

    before, dead = counted(90), counted(50)
    assert retention_pct(dead, before) == pytest.approx(100 * 50 / 90)  # type: ignore[arg-type]
    assert above_chance_pct(dead, before) == 0  # type: ignore[arg-type]
    assert above_chance_pct(before, before) == 100  # type: ignore[arg-type]


def test_a_score_below_that_of_one_answer_to_all_is_doubted() -> None:
    labels = torch.tensor([0] * 90 + [1] * 5 + [2] * 5)
    said = torch.tensor([0] * 80 + [1] * 20)
    (doubt,) = doubts_of_score(outcome_of(torch.eye(3)[said], labels, torch.eye(3), "x").score)
    assert "always giving the commonest class (90.0 %)" in doubt


def test_a_count_alone_knows_no_chance() -> None:
    assert retention_pct(score("x", 30, 100), score("x", 60, 100)) == 50


def test_words_and_templates_are_given_by_hand_or_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(WORDS))
    (tmp_path / "templates.txt").write_text("a picture of a {c}.\nthe {}")
    rules = prompt_rules(tmp_path / "names.txt", [str(tmp_path / "templates.txt"), "a {}"])
    filled = rules.filled(list("0123"), {"0": "other"}, ("never {}",))
    assert filled.prompts(list("0123"))[0] == [
        "a picture of a red circle.",
        "the red circle",
        "a red circle",
    ]
    assert prompt_rules({"x": "y"}, "pets").prompts(["x"]) == [["a photo of a y, a type of pet."]]
    with pytest.raises(DataError, match="neither a file nor a set of templates"):
        prompt_rules(templates="satelite")


def test_a_draw_and_what_is_left_out_are_noted(tmp_path: Path, mini: VisionLanguageModel) -> None:
    place = pictures(tmp_path, WORDS)
    assert change(place, mini, max_images=8)["notes"] == [
        "8 of its 20 images, drawn evenly over classes"
    ]
    (place / WORDS[0] / "zero.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        change(place, mini)
    found = change(place, mini, skip_bad_images=True)
    assert found["num_images"] == 20
    assert "1 images cannot be read and are left out" in str(found["notes"])


def test_classes_that_skipping_leaves_without_an_image_are_counted(
    tmp_path: Path, mini: VisionLanguageModel
) -> None:
    place = pictures(tmp_path, WORDS)
    for file in (place / WORDS[1]).iterdir():
        file.write_bytes(b"")
    said = "1 of its 4 classes have no image among those that"
    found = change(place, mini, skip_bad_images=True)
    assert f"{said} are scored" in str(found["notes"])
    (knn,) = labelled_sets(str(place), mini, by="knn", skip_bad_images=True)
    assert f"{said} are scored" in str(knn.notes)
    assert f"{said} tell the classes" in str(knn.notes)


def test_a_set_of_which_no_image_can_be_read_is_refused_where_bad_ones_are_skipped(
    tmp_path: Path, mini: VisionLanguageModel
) -> None:
    place = pictures(tmp_path / "set", WORDS)
    files = sorted(place.rglob("*.png"))
    for file in files:
        file.write_bytes(b"")
    rows = [f"{file},a caption" for file in files]
    (tmp_path / "captions.csv").write_text("\n".join(["path,caption", *rows]))
    skips = {"skip_bad_images": True}
    reads = (
        lambda: transfer_set(str(place), mini, **skips),
        lambda: labelled_sets(str(place), mini, by="knn", **skips),
        lambda: retrieval_set(str(tmp_path / "captions.csv"), mini, **skips),
        lambda: some_pixels(place, 56, None, "pool", **skips),
        lambda: open_dataset(f"{place}?bad=skip", "test"),
    )
    for read in reads:
        with pytest.raises(
            DataError, match=r"none of its \d+ images can be read, such as: .* empty"
        ):
            read()


def test_rows_without_an_image_are_left_out_where_bad_ones_are_skipped(
    tmp_path: Path, mini: VisionLanguageModel
) -> None:
    place = pictures(tmp_path, WORDS)
    files = [
        (word, file.read_bytes()) for word in WORDS for file in sorted((place / word).iterdir())
    ]
    rows = {"image": [None, b"no image", *(data for _, data in files)]}
    said = [WORDS[0], WORDS[1], *(word for word, _ in files)]
    parquet.write_table(pa.table({**rows, "caption": said}), tmp_path / "captions.parquet")
    parquet.write_table(pa.table({**rows, "label": said}), tmp_path / "labels.parquet")
    skips = {"skip_bad_images": True}
    with pytest.raises(DataError, match="the row holds none"):
        retrieval_set(str(tmp_path / "captions.parquet"), mini)
    captioned = retrieval_set(str(tmp_path / "captions.parquet"), mini, **skips)
    assert captioned.matches.shape == (len(files), len(WORDS))
    for reason in ("the row holds none", "not an image"):
        assert any("1 images cannot be" in one and reason in one for one in captioned.notes)
    (knn,) = labelled_sets(str(tmp_path / "labels.parquet"), mini, by="knn", **skips)
    assert len(knn.labels) + len(knn.bank_labels) == len(files)


def test_a_few_images_of_many_are_scored_without_reading_the_others(
    tmp_path: Path, mini: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pictures(tmp_path, WORDS)
    read: set[str] = set()
    read_bytes = encoded.read_bytes

    def counted(file: Path, limit: Megabytes) -> bytes:
        read.add(str(file))
        return read_bytes(file, limit)

    monkeypatch.setattr(encoded, "read_bytes", counted)
    assert transfer_set(str(place), mini, 4).labels.tolist() == [0, 1, 2, 3]
    assert len(read) <= 5  # those, and the first, which tells how deep the images are


# ---------------------------------------------------------------- names


def test_imagenets_ids_are_words_all_of_them_different() -> None:
    names = imagenet_names()
    assert len(names) == len({name.lower() for name in names.values()}) == 1000
    assert list(names) == sorted(names)
    assert words_of(["n01440764"], {}) == ["tench"]
    assert words_of(["n99999999"], {}) == ["n99999999"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("3.5mm jack", "3.5mm jack"),
    ],
)
def test_numbers_before_a_name_go(name: str, words: str) -> None:
    assert words_of([name], {}) == [words]


def test_usual_benchmarks_numbers_are_known_by_the_sets_name() -> None:
    assert benchmark_words("data/GTSRB", [f"{n:05}" for n in range(43)])["00014"] == "stop"
    assert benchmark_words("flowers-102", [str(n) for n in range(1, 103)])["54"] == "sunflower"
    assert benchmark_words("imagenetv2", [str(n) for n in range(1000)])["0"] == "tench"
    assert benchmark_words("imagenetv2", [str(n) for n in range(10)]) == {}
    assert benchmark_words("things", [str(n) for n in range(43)]) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "n1 tench\nn2 great white shark"),
        ("a.txt", "n1: tench\nn2: great white shark"),
        ("a.json", '{"n1": "tench", "n2": "great white shark"}'),
        ("a.yaml", "n1: tench\nn2: great white shark"),
    ],
)
def test_files_of_names_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    words = read_names(tmp_path / name).words_of(["n1", "n2"], must_fit=True)
    assert words == {"n1": "tench", "n2": "great white shark"}


def test_lines_without_classes_are_for_numbers_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("zero\none\ntwo")
    names = read_names(tmp_path / "a.txt")
    assert names.words_of(["0", "1", "2"], must_fit=True)["2"] == "two"
    assert names.words_of(["2", "3", "1"], must_fit=True)["1"] == "zero"
    for others in (["cat", "dog", "emu"], ["0", "1"], ["0", "5", "10"]):
        with pytest.raises(DataError, match="none of the"):
            names.words_of(others, must_fit=True)
        assert names.words_of(others, must_fit=False) == {}


# ---------------------------------------------------------------- captions


def test_rows_of_one_image_are_one_image_with_several_captions(
    tmp_path: Path, mini: VisionLanguageModel
) -> None:
    pictures(tmp_path, WORDS)
    forms = ("a photo of a {}", "a {}", "the {}")
    rows = [
        f'{word}/{min((tmp_path / word).iterdir()).name},"{form.format(word)}"'
        for word in WORDS
        for form in forms
    ]
    rows.append(rows[0].split(",")[0] + ",")  # what is no caption is none
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption", *rows]))
    benchmark = retrieval_set(str(tmp_path / "captions.csv"), mini)
    assert benchmark.matches.shape == (4, 12)
    found = benchmark.score(mini)
    assert found.text_to_image.recall_at_1_pct == 100
    assert found.image_to_text.num_queries == 4


@pytest.mark.parametrize("form", ["class_{}", "c{}", "Label-0{}", "s{}"])
def test_numbers_behind_one_word_are_named_by_lines_beside(tmp_path: Path, form: str) -> None:
    write(tmp_path, classes("", [form.format(number) for number in (1, 2, 3)]))
    (tmp_path / "classes.txt").write_text("tiger_shark\ncar\nbird\n")
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert [images.words[form.format(number)] for number in (1, 2, 3)] == [
        "tiger shark",
        "car",
        "bird",
    ]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            "1 001.Black_footed_Albatross\n2 002.Laysan_Auklet",
            ["Black footed Albatross", "Laysan Auklet"],
        ),
        ("AnnualCrop\nSeaLake", ["annual crop", "sea lake"]),
    ],
)
def test_words_beside_are_written_as_class_names_are_and_those_that_are_asked_for_as_they_are(
    tmp_path: Path, lines: str, words: list[str]
) -> None:
    write(tmp_path / "set", classes("", ["1", "2"]))
    (tmp_path / "set" / "classes.txt").write_text(lines)
    (tmp_path / "own.txt").write_text("AnnualCrop\nSeaLake")
    found = open_dataset(tmp_path / "set", "test")
    asked_for = open_dataset(f"{tmp_path / 'set'}?names={tmp_path / 'own.txt'}", "test")
    assert isinstance(found, EncodedSet)
    assert isinstance(asked_for, EncodedSet)
    assert found.words == dict(zip("12", words, strict=True))
    assert asked_for.words == {"1": "AnnualCrop", "2": "SeaLake"}


def test_imagenets_words_beside_hold_as_they_are(tmp_path: Path) -> None:
    ids = [one for one, said in imagenet_names().items() if said in ("iPod", "tench")]
    write(tmp_path, classes("", ids))
    (tmp_path / "classnames.txt").write_text(
        "\n".join(f"{one} {imagenet_names()[one]}" for one in ids)
    )
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert set(images.words.values()) == {"iPod", "tench"}


def test_words_that_are_found_are_doubted_and_those_that_are_asked_for_are_not(
    tmp_path: Path, mini: VisionLanguageModel
) -> None:
    place = pictures(tmp_path / "set", "0123")
    for file in (place / "classnames.txt", tmp_path / "own.txt"):
        file.write_text("\n".join(f"type_{letter}" for letter in "wxyz"))
    said = change(place, mini)["doubts"]
    assert "4 of its 4 class names are no words" in said[0]  # type: ignore[index]
    asked_for = change(f"{place}?names={tmp_path / 'own.txt'}", mini)["doubts"]
    assert not any("are no words" in one for one in asked_for)  # type: ignore[attr-defined]


@pytest.mark.parametrize("lines", ["c1\nc2\nc3", "c2\nc3\nc1", "x\ny"])
def test_lines_that_are_the_names_themselves_name_no_class(tmp_path: Path, lines: str) -> None:
    write(tmp_path, classes("", ["c1", "c2", "c3"]))
    (tmp_path / "classes.txt").write_text(lines)
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.words == {}


def test_names_that_differ_in_numbers_alone_are_doubted() -> None:
    names = ["patient_000_node_1", "patient_000_node_2", "patient_017_node_1"]
    (doubt,) = doubts_of_names(names, words_of(names, {}))
    assert "its 3 class names differ in numbers alone (patient_000_node_1, " in doubt
    assert not list(doubts_of_names(["A320", "737 300"], ["A320", "737 300"]))
    assert not list(doubts_of_names(names, ["given", "given", "given"]))


def test_the_ranks_of_inaturalist_are_cut_to_the_species(tmp_path: Path) -> None:
    ranks = (
        "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris",
        "09999_Plantae_Tracheophyta_Polypodiopsida_Polypodiales_Pteridaceae_Vittaria_lineata_nova",
    )
    write(tmp_path, classes("", ranks))
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert list(images.words.values()) == ["Lumbricus terrestris", "Vittaria lineata nova"]
    assert any("told in words: 00000_Animalia" in note for note in images.notes)
