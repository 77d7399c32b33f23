"""Every form on disk gives the embeddings of the library that wrote it, or is refused well."""

from __future__ import annotations

import json
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from adapter_forms import projection_of_another_name
from families import save_family
from forms_on_disk import FORMS, TOWER, Form, Place, at_another_size, embed_by, in_the_hub, moved
from peft import LoraConfig, get_peft_model
from rarer_forms import RARER_FORMS, two_encoders
from safetensors.torch import load_file, save_file

import driftscope as ds
from driftscope.comparison import compare
from driftscope.errors import ModelError, NoteWarning
from driftscope.report.html import write_compare_report
from driftscope.sources import is_on_hub_alone

MEAN, STD = 0.5, 0.25  # of the tiny model's preprocessor


def pixels(size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def base(tiny_clip: Path) -> ds.VisionLanguageModel:
    return ds.load(tiny_clip)


@pytest.fixture
def place(tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place.within(tmp_path, tiny_clip, monkeypatch)


@pytest.mark.parametrize("form", [*FORMS, *RARER_FORMS], ids=lambda form: form.name)
def test_a_form_is_read_as_its_library_does_or_refused_in_one_sentence(
    form: Form, place: Place, base: ds.VisionLanguageModel, capfd: pytest.CaptureFixture[str]
) -> None:
    source, embed = form.make(place)
    capfd.readouterr()
    if form.refused:
        with pytest.raises(ModelError, match=form.refused) as refusal:
            ds.load(source, like=base)
        assert "\n" not in str(refusal.value)
        assert "weights_only" not in str(refusal.value)
    else:
        assert embed is not None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", NoteWarning)
            model = ds.load(source, like=base)
        with torch.no_grad():
            expected = embed((pixels(model.image_size).float() / 255 - MEAN) / STD)
        if not model.has_own_pixels:
            model = ds.VisionLanguageModel(
                model.module, None, model.image_size, base.mean, base.std, model.source
            )
        found = model.embed_images(pixels(model.image_size))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, base.embed_images(pixels()), atol=1e-3)
    assert "".join(capfd.readouterr()) == ""


def test_a_tokenizer_on_the_hub_that_needs_a_package_is_no_missing_one(place: Place) -> None:
    folder = save_family("SigLIP", place.folder / "siglip")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')
    in_the_hub(place, "google/without-a-tokenizer", folder)
    assert ds.load("google/without-a-tokenizer").tokenizer is None
    (folder / "spiece.model").write_bytes(b"x")
    in_the_hub(place, "google/siglip-x", folder)
    is_installed = find_spec("sentencepiece") is not None
    told = "cannot be read" if is_installed else "pip install sentencepiece protobuf"
    for source in (folder, "google/siglip-x"):
        with pytest.raises(ModelError, match=rf"siglip.* {told}"):
            ds.load(source)


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("tokenizer.json", "{", "the tokenizer of someone/clip cannot be read"),
        ("preprocessor_config.json", "{", "preprocessor_config.json"),
        ("model.safetensors", None, "is stored as I8"),
    ],
)
def test_a_damaged_file_on_the_hub_is_no_missing_one(
    file: str, content: str | None, told: str, place: Place
) -> None:
    folder = Path(shutil.copytree(place.base, place.folder / "clip"))
    if content is not None:
        (folder / file).write_text(content)
    else:
        state = load_file(folder / file)
        odd = {name: (100 * one).to(torch.int8) for name, one in state.items()}
        save_file(odd, folder / file, metadata={"format": "pt"})
    in_the_hub(place, "someone/clip", folder)
    with pytest.raises(ModelError, match=told):
        ds.load("someone/clip")


def test_a_model_of_another_image_size_is_compared_where_that_means_something(
    place: Place, coloured_images: Path
) -> None:
    source, embed = at_another_size(place)
    assert embed is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoteWarning)
        found = compare(place.base, source, coloured_images / "test", transfer=coloured_images)
    photos = ds.open_dataset(coloured_images / "test")
    small, large = (photos.pixels(range(len(photos)), size) for size in (32, 64))
    with torch.no_grad():
        before = embed_by(place.pretrained())((small.float() / 255 - MEAN) / STD)
        after = embed((large.float() / 255 - MEAN) / STD)
    expected = 1 - torch.nn.functional.cosine_similarity(before, after).mean()
    assert found.drift.embedding_drift == pytest.approx(float(expected), abs=1e-5)
    assert found.drift.cka is not None
    assert found.drift.delta_entropy_pct is None
    assert "16 and 64 patches" in found.unmeasured["delta_entropy_pct"]
    assert any("32 pixels" in note and "of 64" in note for note in found.notes)
    score = found.transfer[str(coloured_images)]["adapted"]
    assert score["num_images"] == 24
    page = write_compare_report(found.to_dict(), found.overlay, place.folder / "report.html")
    assert "Head by head" not in page.read_text()


@pytest.mark.parametrize("pair", ["twins", "itself", "merge", "merge first"])
def test_adapters_of_one_base_are_compared(
    pair: str, place: Place, coloured_images: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("a", "b", "merged")]
    for seed, folder in enumerate(folders[:2], start=1):
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=TOWER)
        trained = moved(get_peft_model(place.pretrained(), lora), seed=seed)
        trained.save_pretrained(folder)
        if seed == 1:
            first = trained
    expected = 0.0
    if pair == "twins":
        photos = ds.open_dataset(coloured_images / "test")
        values = (photos.pixels(range(len(photos)), 32).float() / 255 - MEAN) / STD
        with torch.no_grad():
            own = [embed_by(one)(values) for one in (first, trained)]
        expected = 1 - float(torch.nn.functional.cosine_similarity(*own).mean())
        assert expected > 1e-3
    first.merge_and_unload().save_pretrained(folders[2])
    for file in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(place.base / file, folders[2])
    a, b, merged = folders
    pairs = {"twins": (a, b), "itself": (a, a), "merge": (a, merged), "merge first": (merged, a)}
    found = compare(*pairs[pair], coloured_images / "test")
    assert found.drift.embedding_drift == pytest.approx(expected, abs=1e-5)


def test_what_a_source_lacks_and_where_it_comes_from_is_told(place: Place) -> None:
    made = {form.name: form.make for form in (*FORMS, *RARER_FORMS)}
    for name, told in (
        ("CLIPVisionModel", "no image projection and no text tower"),
        ("adapter without a named base", "names no base"),
        ("classifier's state dict around the tower", "no text tower"),
        ("weights and their moving average", "not model_ema"),
        ("Lightning's WeightAveraging", "'state_dict.model.' are read, not current_model_state"),
        ("open_clip's epoch file, no name", "activation"),
        ("folder in fp8 without scales", r"in 8 bits \(F8_E4M3\)"),
        ("merged model beside its adapter's configuration", "no adapter's weights"),
        ("merged tower beside its adapter's configuration", "no adapter's weights"),
        ("folder with a layer beside", "image_adapter.weight of .* is not used"),
    ):
        folder = place.folder / str(len(list(place.folder.iterdir())))
        folder.mkdir()
        source, _ = made[name](Place(folder, place.base, place.cache))
        with pytest.warns(NoteWarning, match=told):
            ds.load(source, like=ds.load(place.base))


def test_a_weight_under_nearly_the_right_name_is_told_with_the_right_one(
    place: Place, tmp_path: Path
) -> None:
    state = place.pretrained().state_dict()
    state["clip_visual_projection.weight"] = state.pop("visual_projection.weight")
    state["head.weight"] = torch.ones(3, 4)
    torch.save(state, tmp_path / "x.pt")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ds.load(tmp_path / "x.pt", like=ds.load(place.base))
    of_file = [str(one.message) for one in told if "projection" in str(one.message)]
    assert of_file[0].endswith(
        "has no visual_projection.weight, but clip_visual_projection.weight is of its shape and is "
        "not read; if it is meant, save it as visual_projection.weight"
    )
    assert "has no image projection" in of_file[1]
    assert any("head.weight of" in str(one.message) for one in told)  # resembles nothing


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_text_tower_with_a_name_of_its_own_is_the_one_that_embeds(
    prefix: str, place: Place
) -> None:
    model = moved(place.pretrained())
    state = two_encoders(model.state_dict())
    torch.save({prefix + name: one for name, one in state.items()}, place.folder / "x.pt")
    tokens = {"input_ids": torch.tensor([[0, 5, 7, 1]])}
    base = ds.load(place.base)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = ds.load(place.folder / "x.pt", like=base)
    assert not any("text" in str(one.message) for one in told)
    with torch.no_grad():
        expected = model.get_text_features(**tokens).pooler_output
        before = base.module.get_text_features(**tokens).pooler_output
        read = found.module.get_text_features(**tokens).pooler_output
    torch.testing.assert_close(read, expected)
    assert not torch.allclose(before, expected, atol=1e-2)


def test_a_text_projection_without_its_tower_is_told_and_not_said_to_be_misspelt(
    place: Place,
) -> None:
    state = two_encoders(place.tuned().state_dict())
    kept = {name: one for name, one in state.items() if not name.startswith("text_encoder.")}
    torch.save(kept, place.folder / "x.pt")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ds.load(place.folder / "x.pt", like=ds.load(place.base))
    said = [str(one.message) for one in told if "text" in str(one.message)]
    assert len(said) == 2
    assert said[0].startswith("text_projection.weight of")
    assert "has no text tower: those are" in said[1]


def test_a_layer_beside_an_adapter_that_no_image_goes_through_here_is_told(place: Place) -> None:
    source, _ = projection_of_another_name(place)
    with pytest.warns(NoteWarning, match=r"net\.fc\.weight of .* is not used$"):
        ds.load(source, like=ds.load(place.base))


@pytest.mark.parametrize("form", ["state dict alone, .pt", "CLIPForImageClassification"])
def test_what_needs_another_model_says_how_to_give_it(form: str, place: Place) -> None:
    source, _ = next(one for one in FORMS if one.name == form).make(place)
    with pytest.raises(ModelError, match=r"second model.*like=MODEL"):
        ds.load(source)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (torch.nn.Linear(1, 1), "Linear is neither"),
        (None, "is neither"),
        ("x" * 300, "so long"),
        ("", "no model was named"),
        ("https://huggingface.co/me/clip/tree/main", "its hub id, me/clip$"),
        ("s3://bucket/clip.pt", "fetch it and give the place"),
    ],
)
def test_what_names_no_model_is_refused_in_one_sentence(given: object, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        ds.load(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_encoder_without_texts_lends_its_configuration_too(prefix: str, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=64, image_size=32, patch_size=8, num_labels=3)
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "before")
    tuned = ViTForImageClassification(config).eval()
    state = {prefix + name: one for name, one in tuned.state_dict().items()}
    state[f"{prefix}vit.embeddings.mask_token"] = torch.ones(1, 1, 32)  # no image goes through it
    torch.save({"model": state}, tmp_path / "x.pt")
    before = ds.load(tmp_path / "before")
    with pytest.warns(NoteWarning, match=r"classifier\.bias of .* is not used \(2 such"):
        model = ds.load(tmp_path / "x.pt", like=before)
    with torch.no_grad():
        expected = tuned.vit(before.normalise(pixels())).last_hidden_state[:, 0]
    torch.testing.assert_close(model.embed_images(pixels()), expected, rtol=1e-4, atol=1e-5)
    torch.save(
        {
            name: one
            for name, one in state.items()
            if "layers.1" not in name and "layer.1" not in name
        },
        tmp_path / "half.pt",
    )
    with pytest.raises(ModelError, match="not complete"):
        ds.load(tmp_path / "half.pt", like=before)


@pytest.mark.parametrize("kind", ["whole numbers", "sparse", "no data"])
def test_weights_that_are_no_plain_numbers_are_refused(
    kind: str, place: Place, base: ds.VisionLanguageModel
) -> None:
    state = place.tuned().state_dict()
    name = "visual_projection.weight"
    odd = {"whole numbers": state[name].to(torch.int8), "sparse": state[name].to_sparse()}
    state[name] = odd.get(kind, state[name].to("meta"))
    torch.save(state, place.folder / "x.pt")
    with pytest.raises(ModelError, match=rf"holds {name} .*floating-point") as refusal:
        ds.load(place.folder / "x.pt", like=base)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("gone", "shard .*00002.* is missing"),
        ("pointer", "git-lfs pointer"),
        ("index", "no weight_map"),
        (
            "shapes",
            r"position_embedding.* is \(17, 32\) in it and \(65, 32\) .* configuration",
        ),
        ("activation", "'bogus', which is not known"),
    ],
)
def test_damaged_folders_are_refused_in_words_of_ones_own(
    damage: str, told: str, place: Place, base: ds.VisionLanguageModel
) -> None:
    place.tuned().save_pretrained(place.folder, max_shard_size="40KB")
    shard = next(place.folder.glob("model-00002*"))
    config = json.loads((place.folder / "config.json").read_text())
    if damage == "gone":
        shard.unlink()
    elif damage == "pointer":
        shard.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif damage == "index":
        (place.folder / "model.safetensors.index.json").write_text("{}")
    else:
        change = {"shapes": {"image_size": 64}, "activation": {"hidden_act": "bogus"}}[damage]
        config["vision_config"] |= change
        (place.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=told):
        ds.load(place.folder, like=base)


def test_an_adapter_of_layers_that_its_base_has_not_is_refused(
    place: Place, base: ds.VisionLanguageModel
) -> None:
    lora = LoraConfig(r=2, target_modules=TOWER)
    get_peft_model(place.pretrained(), lora).save_pretrained(place.folder)
    file = place.folder / "adapter_model.safetensors"
    deeper = "base_model.model.vision_model.encoder.layers.7.self_attn.q_proj"
    save_file({**load_file(file), f"{deeper}.lora_A.weight": torch.ones(2, 32)}, file)
    with pytest.raises(ModelError, match=r"layers\.7\.self_attn\.q_proj, which is not there"):
        ds.load(place.folder, like=base)


@pytest.mark.parametrize("name", [" mini", "mini\n", "a b/c", "a\x00b", "*"])
def test_what_no_id_of_the_hub_looks_like_is_not_waited_for_from_there(name: str) -> None:
    assert not is_on_hub_alone(name)
    with pytest.raises(ModelError, match="no model"):
        ds.load(name)
