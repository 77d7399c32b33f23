from __future__ import annotations

import io
import re
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from driftscope.data import open_dataset
from driftscope.data.pixels import decode, resized, to_model_size
from driftscope.errors import DataError
from driftscope.limits import IMAGE_PIXELS

SHARED_IMAGES = Path(__file__).parents[2] / "shared" / "images"


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("size", [56, 224])
@pytest.mark.parametrize(
    ("dataset", "num_images"),
    [("oxford-iiit-pet", 60), ("captions", 32), ("rsscn7", 40), ("cifar100", 40)],
)
def test_real_images_become_what_clips_processor_makes_of_them_to_the_bit(
    dataset: str, num_images: int, size: int
) -> None:
    if not (SHARED_IMAGES / dataset).is_dir():
        pytest.skip(f"needs {SHARED_IMAGES / dataset}")
    from transformers import CLIPImageProcessorPil

    images = open_dataset(SHARED_IMAGES / dataset, "test")
    ours = images.pixels(range(num_images), size)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        do_rescale=False,
        do_normalize=False,
    )
    originals = [Image.open(io.BytesIO(data)) for data in images.encoded.read(range(num_images))]
    theirs = np.stack([np.asarray(processor(one)["pixel_values"][0]) for one in originals])
    difference = np.abs(ours.numpy().astype(int) - theirs.astype(int))
    assert difference.max() == 0


@pytest.mark.parametrize("long", [61, 97, 119, 211, 447])
def test_odd_sizes_are_cropped_as_clips_processor_crops_them(long: int) -> None:
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        do_rescale=False,
        do_normalize=False,
    )
    for shape in ((61, long, 3), (long, 61, 3)):
        image = Image.fromarray(noise(*shape))
        theirs = np.asarray(processor(image)["pixel_values"][0])
        assert np.array_equal(to_model_size(image, 56).numpy(), theirs)


def test_square_tensors_are_resized_within_two_levels_of_pillow() -> None:
    smooth = Image.fromarray(noise(8, 8, 3)).resize((56, 56), Image.Resampling.BICUBIC)
    tensor = torch.from_numpy(np.array(smooth)).permute(2, 0, 1)[None].contiguous()
    difference = resized(tensor, 32)[0].int() - to_model_size(smooth, 32).int()
    assert difference.abs().max() <= 2
    assert resized(tensor, 56) is tensor


def test_grey_palette_and_one_bit_images_show_their_colours() -> None:
    grey = Image.fromarray(noise(9, 9))
    assert np.array_equal(decode(encoded(grey), "x"), np.stack([np.asarray(grey)] * 3, -1))
    rgb = Image.fromarray(noise(3, 3, 3))
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=9)
    assert np.array_equal(decode(encoded(palette), "x"), np.asarray(palette.convert("RGB")))
    one_bit = Image.fromarray(noise(9, 9) > 127)
    assert set(np.unique(decode(encoded(one_bit), "x"))) == {0, 255}


def test_transparent_parts_lie_on_white_whatever_colour_the_file_keeps_there() -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 0] = 200
    pixels[0, :, 3] = (255, 0, 128)
    red, hidden, half = np.asarray(decode(encoded(Image.fromarray(pixels, "RGBA")), "x"))[0]
    assert red.tolist() == [200, 0, 0]
    assert hidden.tolist() == [255, 255, 255]
    assert half.tolist() == [227, 127, 127]


def test_a_transparent_palette_entry_lies_on_white() -> None:
    palette = Image.new("P", (1, 2))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    top, bottom = np.asarray(decode(encoded(palette, transparency=0), "x"))[:, 0]
    assert (top.tolist(), bottom.tolist()) == ([255, 255, 255], [40, 50, 60])


def test_grey_with_alpha_lies_on_white() -> None:
    image = Image.fromarray(np.array([[[100, 255], [0, 0]]], np.uint8), "LA")
    assert np.asarray(decode(encoded(image), "x"))[0, :, 0].tolist() == [100, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white(kind: str) -> None:
    levels = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    shown = np.asarray(decode(encoded(Image.fromarray(levels), kind), "x"))
    assert shown[0, :, 0].tolist() == [0, 1, 128, 255]


def test_cmyk_becomes_rgb() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = np.asarray(decode(encoded(cyan, "TIFF"), "x"))[0, 0]
    assert (red, green, blue) == (0, 255, 255)
    through_jpeg = np.asarray(decode(encoded(cyan, "JPEG", quality=95), "x"))[0, 0]
    assert np.abs(through_jpeg.astype(int) - [0, 255, 255]).max() < 10


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_rotated_images_are_upright(orientation: int) -> None:
    image = Image.fromarray(noise(20, 30, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = image.transpose(
        {
            3: Image.Transpose.ROTATE_180,
            6: Image.Transpose.ROTATE_90,
            8: Image.Transpose.ROTATE_270,
        }[orientation]
    )
    upright = decode(encoded(stored, "PNG", exif=exif), "x")
    assert np.array_equal(upright, np.asarray(image))


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(decode(data, "x"))[0, 0].tolist() == [255, 0, 0]


def test_one_pixel_fills_the_square() -> None:
    image = decode(encoded(Image.new("RGB", (1, 1), (1, 2, 3))), "x")
    square = to_model_size(image, 56)
    assert square.shape == (3, 56, 56)
    assert square.flatten(1).unique(dim=1).flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize("shape", [(20, 10_000, 3), (10_000, 20, 3)])
def test_of_a_panorama_the_centre_is_taken(shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    middle = slice(4990, 5010)
    centre = pixels[:, middle] if shape[1] > shape[0] else pixels[middle]
    square = to_model_size(Image.fromarray(pixels), 56)
    # the inside only: at its edge the centre alone has no neighbours
    difference = square.int() - to_model_size(Image.fromarray(centre), 56).int()
    assert difference[:, 6:-6, 6:-6].abs().max() == 0


def test_a_strip_one_pixel_high_does_not_become_an_enormous_image_on_the_way() -> None:
    strip = Image.fromarray(noise(1, 2_000_000, 3))  # 2,000,000 × 224² × 3 bytes would not fit
    assert to_model_size(strip, 224).shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty (0 bytes)"),
        (b"no image at all", "not an image"),
        (encoded(Image.fromarray(noise(64, 64, 3)))[:5000], "truncated"),
        (encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")[:1500], "truncated"),
        (encoded(Image.fromarray(noise(4, 4).astype(np.int32)), "TIFF"), "32-bit"),
        (encoded(Image.fromarray(noise(4, 4).astype(np.float32)), "TIFF"), "32-bit"),
    ],
)
def test_what_cannot_be_shown_rightly_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=re.escape(reason)) as refusal:
        decode(data, "holiday/beach.png")
    assert "holiday/beach.png" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("side", [9_300, 20_000])
@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_refused_before_it_unpacks(side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    with pytest.raises(DataError, match=rf"bomb\.png: .* {IMAGE_PIXELS.default:,}"):
        decode(bomb, "bomb.png")


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files_decode_or_are_refused_but_raise_nothing_else(seed: int) -> None:
    random = np.random.default_rng(seed)
    kind = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")[seed % 6]
    data = bytearray(encoded(Image.fromarray(noise(24, 24, 3, seed=seed)), kind))
    for place in random.integers(0, len(data), 20):
        data[place] = random.integers(256)
    with suppress(DataError):
        assert decode(bytes(data), "damaged").mode == "RGB"
