"""A model folder is looked at before a library builds from it; each refusal is one sentence."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from random_models import random_clip
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from driftscope.adapt import export_merged
from driftscope.backbones.weights import refuse_non_finite
from driftscope.cli import app
from driftscope.cli.failures import FAULT, plain_errors, readable
from driftscope.errors import ModelError, NonFiniteError, told_as
from driftscope.sources import load
from driftscope.sources.embedded import EMBEDDED
from driftscope.sources.hub import load_tokenizer
from driftscope.sources.plausible import refuse_implausible


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "clip"
    random_clip().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    adapted = get_peft_model(random_clip(), LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.peft_config["default"].base_model_name_or_path = str(model)
    adapted.save_pretrained(model.parent / "adapter")
    return model.parent / "adapter"


def changed(folder: Path, place: Path, **values: Any) -> Path:
    shutil.copytree(folder, place)
    file = place / ("adapter_config.json" if "adapter" in folder.name else "config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return place


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"r": 10**9}, "says r 1000000000"),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "says megatron_config"),
        ({"target_modules": "(a+)+("}, "is no pattern"),
        ({"init_lora_weights": "pissa_niter_1000000"}, "at most 99 iterations"),
        ({"lora_alpha": float("nan")}, "says lora_alpha nan, which is no number"),
        ({"lora_alpha": True}, "says lora_alpha True, which is no number"),
        ({"alora_invocation_tokens": [1]}, "says alora_invocation_tokens"),
        ({"base_model_name_or_path": 3}, "base"),
    ],
)
def test_an_adapter_that_would_harm_is_refused(
    adapter: Path, tmp_path: Path, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence.replace("(", r"\(")):
        load(changed(adapter, tmp_path / "adapter", **values))


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64, torch.int64])
def test_an_adapters_whole_numbers_are_no_weights(
    adapter: Path, tmp_path: Path, kind: torch.dtype
) -> None:
    """PEFT made of them what they were cast to: of small weights zeros, so that nothing drifted."""
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    cast = {key: one.to(kind) for key, one in weights.items()}
    save_file(cast, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=rf"lora_[AB].* as {kind}, and no weights can be made"):
        load(folder)


_EACH_TIMES_TEN = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        (
            {"normalizer": {"type": "Sequence", "normalizers": [_EACH_TIMES_TEN] * 9}},
            "make a text more than 100 times longer",
        ),
        (
            {"normalizer": {"type": "Prepend", "prepend": "a" * 10_000}},
            "make a text more than 100 times longer",
        ),
        (
            {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": "([a-z ]+)+([a-z ]+)+([a-z ]+)+[^ -~]{2}"},
                    "behavior": "Removed",
                    "invert": True,
                }
            },
            "retry-limit-in-match over",
        ),
    ],
    ids=["replaced", "put before", "endless pattern"],
)
def test_a_tokenizer_whose_rules_would_never_end_or_fill_the_memory_is_refused(
    tmp_path: Path, rules: dict[str, Any], sentence: str
) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED["mini"] / name, tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **rules}))
    with pytest.raises(ModelError, match=sentence):
        load_tokenizer(str(tmp_path), 43)


def test_a_panic_of_the_tokenizers_library_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED["mini"] / name, tmp_path)
    file = tmp_path / "tokenizer.json"
    values = json.loads(file.read_text())
    values["post_processor"]["single"][0]["SpecialToken"]["id"] = "<|nowhere|>"
    file.write_text(json.dumps(values))
    with pytest.raises(ModelError, match="the tokenizer of"):
        load_tokenizer(str(tmp_path), 43)
    assert "panicked" not in capfd.readouterr().err


def test_a_tokenizer_of_another_model_is_told_by_its_numbers(tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(EMBEDDED["mini"], place)
    values = json.loads((place / "tokenizer.json").read_text())
    words = values["model"]["vocab"]
    values["model"]["vocab"] = {word: at + 100 * (at > 9) for word, at in words.items()}
    (place / "tokenizer.json").write_text(json.dumps(values))
    model = load(place)
    with pytest.raises(ModelError, match=r"gives a token the number 1\d\d, and the model knows 43"):
        model.embed_texts(["a photo of a red square"])


def test_a_pattern_that_never_ends_is_stopped(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftscope.sources.plausible._PATTERN_SECONDS", 0.5)
    place = changed(adapter, tmp_path / "adapter", target_modules=r"(([a-z_]|\d|\.)+)+!")
    with pytest.raises(ModelError, match="a pattern that takes more than"):
        load(place)


def test_an_adapter_that_stands_on_itself_is_refused(adapter: Path, tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    changed(adapter, place, base_model_name_or_path=str(place))
    with pytest.raises(ModelError, match="stands on itself"):
        load(place)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["vision_config"].update(num_hidden_layers=10**8),
        lambda values: values["vision_config"].update(hidden_size=60_000, intermediate_size=10**6),
        lambda values: values.update(num_labels=10**9),
        lambda values: values["vision_config"].update(num_attention_heads=0),
        lambda values: values["vision_config"].update(layer_norm_eps=1e308),
    ],
)
def test_a_configuration_of_a_giant_is_refused(
    model: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    shutil.copytree(model, tmp_path / "clip")
    values = json.loads((tmp_path / "clip" / "config.json").read_text())
    change(values)
    (tmp_path / "clip" / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"the configuration of .* (says|describes)"):
        load(tmp_path / "clip")


def test_a_value_of_the_wrong_kind_is_named_without_pythons_words(
    model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"its projection_dim is 1.5, which is of the wrong kind$"):
        load(changed(model, tmp_path / "clip", projection_dim=1.5))
    with pytest.raises(ModelError, match=r"its text_config is 'x', which is of the wrong kind$"):
        load(changed(model, tmp_path / "other", text_config="x"))


def test_a_class_that_is_a_number_is_no_fault_of_ours(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a value in it is of the wrong kind"):
        load(changed(model, tmp_path / "clip", architectures=3))


def test_yes_and_no_are_no_weights(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("post_layernorm.weight"))
    save_file({**weights, name: weights[name] > 0}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"post_layernorm\.weight is stored as BOOL"):
        load(folder)


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}, {"metadata": float("nan")}])
def test_an_index_of_shards_without_metadata_is_told(
    model: Path, tmp_path: Path, metadata: dict[str, Any]
) -> None:
    folder = shutil.copytree(model, tmp_path / "clip")
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model-1.safetensors"), **metadata}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"index\.json cannot be read: it has no metadata"):
        load(folder)


def test_packed_weights_are_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    with (
        zipfile.ZipFile(tmp_path / "clip" / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("data.pkl", "w", force_zip64=True) as member,
    ):
        for _ in range(70):
            member.write(bytes(1 << 24))
    with pytest.raises(ModelError, match=r"would unpack to 1\.2 GB"):
        load(tmp_path / "clip")


def test_a_damaged_tokenizer_is_no_missing_one(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "clip")
    (tmp_path / "clip" / "tokenizer.json").write_text('{"version": "1.0", "trunc')
    with pytest.raises(ModelError, match=r"the tokenizer of .* cannot be read"):
        load(tmp_path / "clip")


def test_nan_is_never_written(model: Path, tmp_path: Path) -> None:
    loaded = load(model)
    with torch.no_grad():
        next(loaded.module.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="nothing is written"):
        export_merged(loaded, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    refuse_non_finite({"whole numbers": torch.tensor([1])})


@pytest.mark.parametrize("name", ["model.safetensors", "adapted/adapter_config.json"])
def test_a_pipe_in_a_models_folder_is_named_and_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match=f"{name} is a pipe and not a file"):
        load(tmp_path)
    with pytest.raises(ModelError, match="is a pipe"):
        load(tmp_path / name)


@pytest.mark.parametrize("name", ["tokenizer.json", "merges.txt", "tokenizer_config.json"])
def test_a_gigantic_tokenizer_is_refused_by_its_size(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(3_000_000_000)  # no block of it is on disk
    with pytest.raises(ModelError, match=rf"{name} has 3,000.0 MB; at most 64 MB"):
        load(tmp_path)


def test_a_text_in_the_place_of_a_number_is_no_word_of_pythons() -> None:
    with pytest.raises(ModelError, match="says lora_alpha '16', which is no number"):
        refuse_implausible({"r": 4, "lora_alpha": "16"}, "mine")
    digits = "Exceeds the limit (4300 digits) for integer string conversion"
    for error, told in (
        (AssertionError(), "it is damaged"),
        (ValueError(b"too long"), "too long"),
        (ValueError(digits), "a number in it has thousands of digits"),
    ):
        with pytest.raises(ModelError, match=f"^mine: {told}$"), told_as(ModelError, "mine"):
            raise error
    wrong = pytest.raises(ModelError, match="mine: a value in it is of the wrong kind")
    with wrong, told_as(ModelError, "mine"):
        _ = "16" / 4  # type: ignore[operator]


def test_what_nobody_foresaw_exits_with_70_and_a_saved_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    @plain_errors
    def broken() -> None:
        raise TypeError("unsupported operand type(s)")

    with pytest.raises(typer.Exit) as ended:
        broken()
    told = capsys.readouterr().err
    assert ended.value.exit_code == FAULT
    assert "this is a fault of driftscope (TypeError: unsupported operand" in told
    place = Path(told.split("traceback is in ")[1].split(". Please")[0])
    assert "broken" in place.read_text()
    place.unlink()


def test_a_value_is_cut_at_a_hundred_characters(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"name: x\nbase: {{method: {'a' * 5000}, seed: 1}}\n")
    told = CliRunner().invoke(app, ["study", "plan", str(tmp_path / "s.yaml")]).output
    assert "unknown method" in told
    assert len(told) < 1000


def test_a_path_of_a_thousand_folders_is_cut_in_its_middle() -> None:
    path = f"/{'a' * 50}" * 70
    told = readable(f"cannot read {path}: no such file")
    assert len(told) < 500
    assert told.startswith(f"cannot read {path[:300]}…")
    assert told.endswith("aaa: no such file")
