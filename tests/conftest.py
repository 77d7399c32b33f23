"""What many tests share: a tiny CLIP in hub layout, a few real image files, one thread."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("any-machine", deadline=None)  # how fast it is says nothing of a test
settings.load_profile("any-machine")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
gc.set_threshold(50_000, 10, 20)  # at Python's own, a tenth of the suite's time goes to collections


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """One thread, and a garbage collector that walks no library.

    A trainer collects garbage several times, and would look at every object of torch and
    transformers each time: 5 % of the suite's time.
    """
    import torch

    torch.set_num_threads(1)
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_pixel_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["DRIFTSCOPE_CACHE"] = str(tmp_path_factory.mktemp("pixel-cache"))


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of two small layers with a word-level tokenizer, as a hub-layout folder."""
    return make_tiny_clip(tmp_path_factory.mktemp("models") / "tiny", seed=0)


@pytest.fixture(scope="session")
def other_tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights."""
    return make_tiny_clip(tmp_path_factory.mktemp("models") / "other", seed=1)


def make_tiny_clip(folder: Path, seed: int, **vision: int) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    words = [
        "[pad]",
        "[unk]",
        "[start]",
        "[end]",
        *["a", "photo", "of", "red", "blue", "green", "yellow"],
    ]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[start] $A [end]", special_tokens=[("[start]", 2), ("[end]", 3)]
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={
            **sizes,
            "num_hidden_layers": 2,
            "image_size": 32,
            "patch_size": 8,
            **vision,
        },
        text_config={
            **sizes,
            "num_hidden_layers": 1,
            "vocab_size": len(words),
            "max_position_embeddings": 16,
            "eos_token_id": 3,
            "bos_token_id": 2,
            "pad_token_id": 0,
        },
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[pad]", unk_token="[unk]", eos_token="[end]"
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    )
    return folder


@pytest.fixture(scope="session")
def coloured_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy PNGs in three colours: train/ (16 a class) and test/ (8 a class)."""
    from PIL import Image

    root = tmp_path_factory.mktemp("images") / "colours"
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 8)):
        for channel, name in enumerate(("red", "green", "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 120, (36, 40, 3))
                pixels[..., channel] += 120
                Image.fromarray(pixels.astype("uint8")).save(folder / f"{index:02}.png")
    return root


@pytest.fixture
def tiny_run(tiny_clip: Path, coloured_images: Path) -> dict[str, object]:
    """The values of a run spec that trains in a second."""
    return {
        "model": str(tiny_clip),
        "dataset": str(coloured_images),
        "method": "full_ft",
        "learning_rate": 1e-3,
        "epochs": 2,
        "batch_size": 16,
        "val_images": 9,
        "probe_images": 9,
        "transfer": [str(coloured_images)],
    }
