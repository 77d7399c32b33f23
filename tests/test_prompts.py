from __future__ import annotations

from pathlib import Path

import pytest

from driftscope.config import parse_run_spec
from driftscope.data import labelled, open_dataset
from driftscope.data.names import NamesFile, read_names, read_templates
from driftscope.data.prompts import (
    PromptRules,
    class_prompts,
    expand_templates,
    words_of,
)
from driftscope.data.templates import IMAGENET_80
from driftscope.errors import DataError
from driftscope.suites import member_of

SHARED_IMAGES = Path(__file__).parents[2] / "shared" / "images"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("apple", "apple"),
        ("aquarium_fish", "aquarium fish"),
        ("cra", "crab"),
        ("crab", "crab"),
        ("AnnualCrop", "annual crop"),
        ("HerbaceousVegetation", "herbaceous vegetation"),
        ("RiverLake", "river lake"),
        ("Grass", "Grass"),
        ("SUVCar", "SUV car"),
        ("MRIScan_brain", "MRIScan brain"),
        ("large_man-made_outdoor_things", "large man-made outdoor things"),
        ("saint__bernard ", "saint bernard"),
        ("BirdOfPrey", "bird of prey"),
        ("iPod", "iPod"),
        ("eBay", "eBay"),
        ("LaTeX", "LaTeX"),
        ("EntleBucher", "EntleBucher"),
        ("10.euro", "10 euro"),
        ("CT", "CT"),
        ("_", "_"),
    ],
)
def test_class_names_become_words(name: str, words: str) -> None:
    assert words_of([name], {})[0] == words


EUROSAT = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture",
    "PermanentCrop", "Residential", "River", "SeaLake",
)  # fmt: skip
EUROSAT_WORDS = (
    "annual crop", "Forest", "herbaceous vegetation", "Highway", "Industrial", "Pasture",
    "permanent crop", "Residential", "River", "sea lake",
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("00_red_fox", "01_emu"), ["red fox", "emu"]),
        (("1 - cat", "2 - dog"), ["cat", "dog"]),
        (("1_cat", "1_dog"), ["1 cat", "1 dog"]),  # not another number each
        (("3_wheeler", "cat"), ["3 wheeler", "cat"]),  # not before each
        (("beer-mug", "bear", "dog-bowl"), ["beer mug", "bear", "dog bowl"]),
        (("t-shirt", "coat", "bag"), ["t-shirt", "coat", "bag"]),  # a single one
        (("man-made", "ice_cream", "x-ray"), ["man-made", "ice cream", "x-ray"]),
        (("red%20fox", "emu"), ["red fox", "emu"]),
        (("10.euro", "20.euro", "5.coins"), ["10 euro", "20 euro", "5 coins"]),
        (("01.cat", "10.dog"), ["cat", "dog"]),
        (EUROSAT, [*EUROSAT_WORDS]),
        (("Grass", "RiverLake", "Forest"), ["Grass", "river lake", "Forest"]),  # RSSCN7
        (("1_AnnualCrop", "2_SeaLake"), ["annual crop", "sea lake"]),
        (("McLaren MP4-12C Coupe 2012", "BMW ActiveHybrid 5 Sedan 2012"),
         ["McLaren MP4-12C Coupe 2012", "BMW ActiveHybrid 5 Sedan 2012"]),
        (("MacBook Pro", "iPad", "YouTube logo", "LaTeX", "WhatsApp"),
         ["MacBook Pro", "iPad", "YouTube logo", "LaTeX", "WhatsApp"]),
        (("EntleBucher", "iPod", "tabby_cat"), ["EntleBucher", "iPod", "tabby cat"]),
        (("TShirt", "Dress", "Bag"), ["T shirt", "Dress", "Bag"]),
        (("VitaminB", "VitaminC", "SeaLake"), ["vitamin B", "vitamin C", "sea lake"]),
        (("tennisCourt", "golfCourse", "parking lot", "storage tank", "river"),
         ["tennis court", "golf course", "parking lot", "storage tank", "river"]),
        (("AnnualCrop", "Tomato___Late_blight"), ["annual crop", "Tomato Late blight"]),
    ],
)  # fmt: skip
def test_what_all_names_of_a_set_have_in_common_is_no_part_of_them(
    names: tuple[str, ...], words: list[str]
) -> None:
    assert words_of(names, {}) == words
    assert words_of(names, {names[0]: "own"}) == ["own", *words[1:]]


def test_the_papers_prompt_is_the_default() -> None:
    assert class_prompts(["palm_tree"]) == ["a photo of a palm tree"]
    assert class_prompts(["01_cat", "02_dog"]) == ["a photo of a cat", "a photo of a dog"]
    assert PromptRules().prompts(["palm_tree"]) == [["a photo of a palm tree"]]


def test_own_words_hold_as_they_are_and_may_be_for_other_datasets() -> None:
    rules = PromptRules(class_words=(("AnnualCrop", "Wheat_field"), ("Elsewhere", "x")))
    assert rules.prompts(["AnnualCrop", "SeaLake"]) == [
        ["a photo of a Wheat_field"],
        ["a photo of a sea lake"],
    ]


def test_own_words_are_found_in_another_spelling_of_one_class_alone() -> None:
    rules = PromptRules(class_words=(("red fox", "vixen"), ("Dog", "hound"), ("CAT", "lion")))
    names = ["red_fox", "dog", "cat", "Cat"]
    assert rules.own_words(names) == {"red_fox": "vixen", "dog": "hound"}
    assert rules.own_words(["Dog", "dog"]) == {"Dog": "hound"}


def test_templates_are_crossed_with_classes() -> None:
    rules = PromptRules(templates=("a {}", "satellite"))
    first, second = rules.prompts(["River", "Forest"])
    assert first == [
        "a River",
        *(f"a centered satellite photo of {a}River." for a in ("", "a ", "the ")),
    ]
    assert len(second) == 4


def test_a_prompt_says_number_once() -> None:
    digits = {"0": "number 0", "1": "number 1"}
    told = PromptRules().filled(["0", "1"], digits, member_of("clip-benchmark/wds_mnist").templates)
    assert told.prompts(["0", "1"])[1] == ['a photo of the number: "1".']
    plain = PromptRules().filled(["0", "1"], digits, ())
    assert plain.prompts(["0", "1"])[1] == ["a photo of a number 1"]


def test_the_eighty_imagenet_templates_are_eighty_and_hold_the_known_ones() -> None:
    assert len(set(IMAGENET_80)) == 80
    assert all(template.count("{}") == 1 and template.endswith(".") for template in IMAGENET_80)
    # the seven that CLIP's authors found to be enough
    assert {
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    } <= set(IMAGENET_80)


@pytest.mark.parametrize(
    "template", ["a photo", "a {} and a {}", "a {name}", "imagenet_80", "{", ""]
)
def test_a_template_without_one_place_for_the_name_is_refused(template: str) -> None:
    with pytest.raises(DataError, match="imagenet80"):
        expand_templates([template])


def test_no_template_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="no prompt template"):
        expand_templates([])


def test_own_words_come_from_a_spec_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "words.yaml"
    file.write_text("AnnualCrop: field of wheat\n1: one\n")
    assert dict(read_names(file).by_class) == {"AnnualCrop": "field of wheat", "1": "one"}
    spec = parse_run_spec(
        {"method": "lora", "learning_rate": 1, "class_words": {"b": "bee", "a": "ant"}}
    )
    assert spec.class_words == (("a", "ant"), ("b", "bee"))
    assert parse_run_spec(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize("text", ["a: [1]\n", "a: b: c\n", "\x00"])
def test_a_words_file_of_another_form_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "words.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=r"words\.yaml"):
        read_names(file)


def test_a_file_of_giant_or_countless_names_is_told_and_beside_images_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("cat\n" + "d" * 1_001 + "\n")
    with pytest.raises(DataError, match=r"a text of 1,001 characters; at most 1,000 are taken"):
        read_names(file)
    with pytest.raises(DataError, match="1,001 characters"):
        read_templates(str(file))
    assert NamesFile.beside(tmp_path) is None
    monkeypatch.setenv("DRIFTSCOPE_MAX_CLASS_NAMES", "3")
    file.write_text("cat\ndog\nbird\nfish\n")
    with pytest.raises(DataError, match="has 4 texts; at most 3 are taken"):
        read_names(file)


def test_real_class_names_become_plain_words() -> None:
    if not SHARED_IMAGES.is_dir():
        pytest.skip(f"needs {SHARED_IMAGES}")
    _, cifar = labelled(open_dataset(SHARED_IMAGES / "cifar100", "test"))
    words = [words_of([name], {})[0] for name in cifar]
    assert "cra" in cifar
    assert words[26] == "crab"
    assert not any("_" in word for word in words)
    assert len(set(words)) == 100
    _, scenes = labelled(open_dataset(SHARED_IMAGES / "rsscn7", "test"))
    assert words_of([scenes[3]], {})[0] == "river lake"
