"""The shipped mini CLIPs: plain transformers folders that know the 100 concepts."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerBase

import driftscope as ds
from driftscope.data.procedural import ATTRIBUTES, concept_surroundings, load_procedural
from driftscope.sources.embedded import EMBEDDED
from driftscope.sources.live import from_module

NUM_IMAGES = 1000
both = pytest.mark.parametrize("name", EMBEDDED)


@cache
def mini(name: str = "mini") -> tuple[CLIPModel, PreTrainedTokenizerBase]:
    model = CLIPModel.from_pretrained(EMBEDDED[name], dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(EMBEDDED[name])


@torch.no_grad()
def embed_texts(texts: list[str], name: str = "mini", **padding: object) -> Tensor:
    model, tokenizer = mini(name)
    tokens = tokenizer(texts, return_tensors="pt", **({"padding": True} | padding))
    return model.get_text_features(**tokens).pooler_output


@cache
def image_embeddings(name: str) -> Tensor:
    model, _ = mini(name)
    processor = CLIPImageProcessorPil.from_pretrained(EMBEDDED[name])
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std)
    )
    concepts = load_procedural("concepts100", "test")
    chunks = torch.arange(NUM_IMAGES).split(200)
    with torch.no_grad():
        return torch.cat(
            [
                model.get_image_features((concepts.render(c) / 255 - mean) / std).pooler_output
                for c in chunks
            ]
        )


def zero_shot_hits(name: str, prompts: list[str], truth: Tensor) -> int:
    texts = torch.nn.functional.normalize(embed_texts(prompts, name), dim=-1)
    guesses = (image_embeddings(name) @ texts.T).argmax(1)
    return int((guesses == truth[:NUM_IMAGES]).sum())


@cache
def hits_by_question(name: str) -> dict[str, int]:
    concepts = load_procedural("concepts100", "test")
    fills, backgrounds = concept_surroundings(concepts).unbind(1)
    questions = {
        "concepts100": (concepts.class_names, "a photo of a {}", concepts.labels),
        "colour": (ATTRIBUTES["colour"], "a photo of a {} shape", concepts.labels // 10),
        "shape": (ATTRIBUTES["shape"], "a photo of a {}", concepts.labels % 10),
        "fill": (ATTRIBUTES["fill"], "a photo of a {} shape", fills),
        "background": (
            ATTRIBUTES["background"],
            "a photo of a shape on a {} background",
            backgrounds,
        ),
    }
    return {
        question: zero_shot_hits(name, [prompt.format(choice) for choice in choices], truth)
        for question, (choices, prompt, truth) in questions.items()
    }


def card_accuracy_pct(name: str, question: str) -> float:
    card = (EMBEDDED[name] / "README.md").read_text()
    row = re.search(rf"^\| {question} \|.*\| ([\d.]+) % \|$", card, re.M)
    assert row, f"the card has no row for {question}"
    return float(row[1])


@both
def test_the_folder_is_small_and_complete(name: str):
    files = {path.name: path.stat().st_size for path in EMBEDDED[name].iterdir()}
    assert set(files) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(files.values()) <= 10 * 2**20


@pytest.mark.parametrize(("name", "num_patches"), [("mini", 49), ("mini-p14", 16)])
def test_it_is_a_clip_of_so_many_patch_tokens(name: str, num_patches: int):
    vision = mini(name)[0].config.vision_config
    assert (vision.image_size // vision.patch_size) ** 2 == num_patches
    assert vision.num_hidden_layers >= 6


@both
def test_weights_are_stored_in_half_precision(name: str):
    assert json.loads((EMBEDDED[name] / "config.json").read_text())["dtype"] == "float16"
    assert CLIPModel.from_pretrained(EMBEDDED[name]).dtype == torch.float16


@pytest.mark.parametrize(("name", "share"), [("mini", 0.95), ("mini-p14", 0.92)])
def test_nearly_all_concepts_are_recognised(name: str, share: float):
    assert hits_by_question(name)["concepts100"] >= share * NUM_IMAGES


@both
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_is_readable_from_text(name: str, attribute: str):
    assert hits_by_question(name)[attribute] >= 0.90 * NUM_IMAGES


@both
@pytest.mark.parametrize("question", ["concepts100", *ATTRIBUTES])
def test_the_cards_accuracy_is_within_the_recounts_interval(name: str, question: str):
    recount = binomtest(hits_by_question(name)[question], NUM_IMAGES)
    interval = recount.proportion_ci(0.99, method="wilson")
    assert 100 * interval.low <= card_accuracy_pct(name, question) <= 100 * interval.high


@both
def test_it_is_loaded_by_name_and_knows_its_name(name: str):
    model = ds.load(name)
    assert model.source == name
    assert from_module(CLIPModel.from_pretrained(EMBEDDED[name])).source == name


def test_text_embeddings_do_not_depend_on_padding():
    text = ["a striped blue ring on a teal background"]
    alone = embed_texts(text)
    assert torch.allclose(alone, embed_texts([*text, "a heart"])[:1], atol=1e-5)
    assert torch.allclose(alone, embed_texts(text, padding="max_length"), atol=1e-5)


@torch.no_grad()
def test_text_is_pooled_at_the_end_token_not_at_the_highest_id():
    model, tokenizer = mini()
    tokens = tokenizer(["a heart", "a photo of a red star"], padding=True, return_tensors="pt")
    output = model.text_model(**tokens)
    at_end = tokens.input_ids == tokenizer.eos_token_id
    assert at_end.sum(1).tolist() == [1, 1]
    assert (tokens.input_ids.argmax(1) != at_end.int().argmax(1)).all()
    assert torch.equal(output.pooler_output, output.last_hidden_state[at_end])


def test_every_word_of_the_captions_is_in_the_vocabulary():
    _, tokenizer = mini()
    words = {word for values in ATTRIBUTES.values() for word in values}
    ids = tokenizer.convert_tokens_to_ids(sorted(words))
    assert tokenizer.unk_token_id not in ids
    assert len(set(ids)) == len(words)


def test_capitals_make_no_difference_and_unknown_words_are_marked():
    _, tokenizer = mini()
    assert tokenizer("A Red HEART").input_ids == tokenizer("a red heart").input_ids
    assert tokenizer.unk_token_id in tokenizer("a red giraffe").input_ids


def test_the_saved_image_processor_leaves_images_of_its_size_alone():
    pixels = load_procedural("concepts100", "test").render([0])
    processor = CLIPImageProcessorPil.from_pretrained(EMBEDDED["mini"])
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    processed = processor(image, return_tensors="pt").pixel_values
    assert torch.allclose(processed, (pixels / 255 - 0.5) / 0.25, atol=1e-5)
