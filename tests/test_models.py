import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from forms_on_disk import Place, in_the_hub
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel

import driftscope as ds
from driftscope.adapt import adapt, export_merged, save_adapted
from driftscope.backbones.evaluating import evaluating
from driftscope.backbones.weights import encoder_fingerprint, encoder_state
from driftscope.config import parse_run_spec
from driftscope.errors import ModelError, NoteWarning


def pixels(count: int = 5, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def moved(source: Path | str, method: str) -> ds.VisionLanguageModel:
    """An adapted model whose trainable tensors have all moved a little."""
    spec = parse_run_spec({"method": method, "learning_rate": 1e-3})
    adapted = adapt(ds.load(source), spec.method, 3, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.trainable().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return adapted


def test_embeddings_are_those_of_transformers(tiny_clip: Path) -> None:
    model, reference = ds.load(tiny_clip), CLIPModel.from_pretrained(tiny_clip).eval()
    values = (pixels().float() / 255 - 0.5) / 0.25
    texts = ["a photo of a red", "blue"]
    tokens = AutoTokenizer.from_pretrained(tiny_clip)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        image, text = (
            reference.get_image_features(pixel_values=values).pooler_output,
            reference.get_text_features(**tokens).pooler_output,
        )
    torch.testing.assert_close(model.embed_images(pixels(), batch_size=2), image)
    torch.testing.assert_close(model.embed_texts(texts), text)


def test_embedding_restores_the_mode_of_every_submodule(tiny_clip: Path) -> None:
    clip = ds.load(tiny_clip).module.train()
    clip.text_model.eval()
    before = [child.training for child in clip.modules()]
    with evaluating(clip):
        assert not any(child.training for child in clip.modules())
    assert [child.training for child in clip.modules()] == before


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_saved_adapted_models_load_with_equal_embeddings(
    method: str, tiny_clip: Path, tmp_path: Path
) -> None:
    adapted = moved(tiny_clip, method)
    save_adapted(adapted, ds.load(tiny_clip), tmp_path / "adapted")
    loaded = ds.load(tmp_path / "adapted")
    torch.testing.assert_close(
        loaded.embed_images(pixels()), adapted.model.embed_images(pixels()), rtol=0, atol=0
    )
    assert loaded.base_fingerprint == encoder_fingerprint(ds.load(tiny_clip))


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_exported_models_are_plain_clip_folders(
    method: str, tiny_clip: Path, tmp_path: Path
) -> None:
    adapted = moved(tiny_clip, method)
    export_merged(adapted.model, tmp_path / "plain")
    assert "adapter_config.json" not in {path.name for path in (tmp_path / "plain").iterdir()}
    plain = CLIPModel.from_pretrained(tmp_path / "plain").eval()
    values = (pixels().float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        embeddings = plain.get_image_features(pixel_values=values).pooler_output
    torch.testing.assert_close(
        embeddings, adapted.model.embed_images(pixels()), rtol=1e-5, atol=1e-5
    )
    assert ds.load(tmp_path / "plain").mean == (0.5, 0.5, 0.5)


def test_encoder_state_of_an_adapter_has_plain_names_and_the_change_merged_in(
    tiny_clip: Path,
) -> None:
    adapted = moved(tiny_clip, "lora").model
    before = {name: tensor.clone() for name, tensor in adapted.module.state_dict().items()}
    state = encoder_state(adapted)
    assert state.keys() == encoder_state(ds.load(tiny_clip)).keys()
    layer = adapted.plain.vision_model.encoder.layers[0].self_attn.q_proj
    expected = layer.base_layer.weight + 2.0 * (
        layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    )
    torch.testing.assert_close(
        state["vision_model.encoder.layers.0.self_attn.q_proj.weight"].float(), expected
    )
    after = adapted.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_adapter_on_a_base_that_has_changed_is_refused(
    tiny_clip: Path, other_tiny_clip: Path, tmp_path: Path
) -> None:
    save_adapted(moved(tiny_clip, "lora"), ds.load(tiny_clip), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(other_tiny_clip)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="the base differs"):
        ds.load(tmp_path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("no-such-model", "no model 'no-such-model'"),
        ("./nowhere", "there is no such folder or file"),
        ("{empty}", "holds no model"),
        ("{file}", "is a file"),
        ("{other_kind}", "'bert' model"),
        ("{damaged}", "cannot be loaded"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_sentence(
    source: str, says: str, tiny_clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "other_kind").mkdir()
    (tmp_path / "other_kind" / "config.json").write_text('{"model_type": "bert"}')
    shutil.copytree(tiny_clip, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"not safetensors")
    name = source.format(**{path.name: path for path in tmp_path.iterdir()})
    with pytest.raises(ModelError, match=says) as error:
        ds.load(name)
    assert "\n" not in str(error.value)


def test_without_a_way_to_the_hub_a_hub_name_is_answered_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked: list[str] = []

    def no_network(host: tuple[str, int], *_: object, **__: object) -> None:
        asked.append(host[0])
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", no_network)
    with pytest.raises(ModelError) as refusal:
        ds.load("someone/some-clip")
    assert asked == ["huggingface.co"]
    for part in ("no model 'someone/some-clip'", constants.HF_HUB_CACHE, "be reached", "a copy"):
        assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not constants.HF_HUB_OFFLINE


def test_a_model_without_tokenizer_says_so_when_texts_are_wanted(
    tiny_clip: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_clip / name, tmp_path / name)
    model = ds.load(tmp_path)
    assert model.tokenizer is None
    with pytest.raises(ModelError, match="no tokenizer"):
        model.embed_texts(["a red"])


def test_weights_that_are_not_complete_are_refused_and_not_made_up(
    tiny_clip: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_clip, tmp_path / "torn")
    state = load_file(tiny_clip / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "torn" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="not complete: it has no image projection"):
        ds.load(tmp_path / "torn")


def test_an_adapter_whose_weights_are_another_models_is_not_read_as_the_base(
    tiny_clip: Path, tmp_path: Path
) -> None:
    save_adapted(moved(tiny_clip, "lora"), ds.load(tiny_clip), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({f"other.{name}": tensor for name, tensor in load_file(file).items()}, file)
    with pytest.raises(ModelError, match="does not fit its base"):
        ds.load(tmp_path)
    file.unlink()
    with pytest.raises(ModelError, match="has no weights"):
        ds.load(tmp_path)


def test_a_damaged_preprocessor_config_is_refused_and_not_replaced(
    tiny_clip: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_clip, tmp_path / "torn")
    (tmp_path / "torn" / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        ds.load(tmp_path / "torn")


@pytest.mark.parametrize("device", ["foo", "cuda:77"])
def test_a_device_that_is_not_there_is_answered_by_those_that_are(
    device: str, tiny_clip: Path
) -> None:
    with pytest.raises(ModelError, match="there is cpu"):
        ds.load(tiny_clip, device=device)


def test_an_open_clip_checkpoint_loads_by_name_and_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="open_clip:NAME:FILE"):
        ds.load(f"open_clip:ViT-B-32:{tmp_path}/none.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="did you mean 'ViT-B-32'"):
        ds.load(f"open_clip:ViT-B32:{tmp_path}/weights.pt")


def test_a_failed_export_leaves_nothing(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_args: object, **_kwargs: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    model = ds.load(tiny_clip)
    monkeypatch.setattr(CLIPModel, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        export_merged(model, tmp_path / "plain")
    assert list(tmp_path.iterdir()) == []


def test_a_merged_model_on_the_hub_is_read_whole_beside_a_left_adapter_configuration(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place.within(tmp_path, tiny_clip, monkeypatch)
    moved(tiny_clip, "full_ft").model.plain.save_pretrained(place.folder)
    for file in tiny_clip.iterdir():
        if not (place.folder / file.name).exists():
            shutil.copy(file, place.folder)
    (place.folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "someone/base", "r": 4})
    )
    in_the_hub(place, "someone/merged", place.folder)
    said = "the cached copy of someone/merged holds adapter_config.json and no adapter's weights"
    with pytest.warns(NoteWarning, match=said) as told:
        of_hub = ds.load("someone/merged")
    assert len(told) == 1
    with pytest.warns(NoteWarning, match="no adapter's weights: the whole model there is read"):
        of_folder = ds.load(place.folder)
    torch.testing.assert_close(
        of_hub.embed_images(pixels()), of_folder.embed_images(pixels()), rtol=0, atol=0
    )
    assert of_hub.source == "someone/merged"
    assert len(of_hub.notes) == len(of_folder.notes) == 1
