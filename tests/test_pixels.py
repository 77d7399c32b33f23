from __future__ import annotations

import base64
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

from driftscope.data import EncodedSet, open_dataset
from driftscope.data.given import some_pixels
from driftscope.data.pixels import decode, resized, to_model_size
from driftscope.errors import DataError, NoteWarning
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


def grey_files(folder: Path, *greatest: int) -> Path:
    folder.mkdir()
    for at, most in enumerate(greatest):
        levels = np.array([[0, most // 2, most]], np.uint16)
        Image.fromarray(levels.repeat(3, 0)).save(folder / f"{at}.png")
    return folder


@pytest.mark.parametrize(
    ("greatest", "white"),
    [(4095, 4095), (3900, 4095), (255, 255), (9000, 16383), (30000, 65535), (0, 65535)],
)
def test_the_depth_of_sixteen_bit_images_is_told_by_their_set(
    tmp_path: Path, greatest: int, white: int
) -> None:
    images = open_dataset(grey_files(tmp_path / "set", greatest, greatest // 4), "test")
    assert isinstance(images, EncodedSet)
    shown = images.pixels([0, 1], 3)[:, 0, 0].tolist()
    assert shown == [
        [round(255 * value / white) for value in (0, most // 2, most)]
        for most in (greatest, greatest // 4)
    ]
    told = [note for note in images.notes if "taken for white" in note]
    assert len(told) == (white < 65535)
    alone = images.select(torch.tensor([1]))
    assert alone.pixels([0], 3)[0, 0, 0].tolist() == shown[1]


def test_an_image_brighter_than_what_is_white_in_its_set_is_refused(tmp_path: Path) -> None:
    levels = [5000 if at == 9 else 4000 for at in range(33)]  # 9.png is the last by name
    place = grey_files(tmp_path / "set", *levels)
    images = open_dataset(place, "test")
    with pytest.raises(DataError, match=r"9\.png: it has 16-bit values up to 5,000.*above 4,095"):
        images.pixels(range(33), 3)


def test_pictures_given_as_objects_have_the_depth_of_all(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((4, 4), level, np.uint16)) for level in (1000, 4095, 0, 2)]
    with pytest.warns(NoteWarning, match="no value above 4,095"):
        pixels = some_pixels(pictures, 4, None, "images").pixels
    assert pixels[:, 0, 0, 0].tolist() == [62, 255, 0, 0]


def test_colours_of_sixteen_bits_that_use_twelve_are_refused() -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    for value, is_dark in ((4095, True), (65535, False)):
        row = zlib.compress(b"\0" + np.full(6, value, ">u2").tobytes())
        parts = [(b"IHDR", header), (b"IDAT", row), (b"IEND", b"")]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in parts
        )
        if is_dark:
            with pytest.raises(DataError, match="12 or fewer are used"):
                decode(data, "x")
        else:
            assert np.asarray(decode(data, "x")).min() == 255


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
    data = encoded(stored, "PNG", exif=exif)
    assert np.array_equal(decode(data, "x"), np.asarray(image))
    given = [Image.open(io.BytesIO(data)) for _ in range(4)]
    seen = some_pixels(given, 20, None, "images").pixels
    assert torch.equal(seen, to_model_size(image, 20).expand(4, -1, -1, -1))
    assert given[0].size == stored.size  # the user's own image stays as it was


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


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 9), (9, 1), (5, 41), (41, 5), (83, 10), (100, 801), (10, 80), (2000, 100), (7, 300)],
)
@pytest.mark.parametrize("size", [56, 224])
def test_a_strip_is_the_middle_of_what_resizing_all_of_it_gives(
    width: int, height: int, size: int
) -> None:
    strip = Image.fromarray(noise(height, width, 3))
    long = size * max(width, height) // min(width, height)
    whole = (size, long) if width <= height else (long, size)
    resized_whole = strip.resize(whole, Image.Resampling.BICUBIC)
    left, top = ((side - size) // 2 for side in whole)
    expected = np.asarray(resized_whole.crop((left, top, left + size, top + size))).astype(int)
    found = to_model_size(strip, size).numpy().transpose(1, 2, 0).astype(int)
    assert np.abs(found - expected).max() <= 2


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


def tiff_of_bands(bands: int, kind: type = np.uint16) -> bytes:
    """An uncompressed TIFF of so many interleaved bands, written by hand: Pillow writes none."""
    pixels = noise(4, 4, bands).astype(kind)
    bits = struct.pack(f"<{bands}H", *[8 * pixels.itemsize] * bands)
    entries = [
        *((256, 3, 1, 4), (257, 3, 1, 4), (258, 3, bands, 134), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, 1, 134 + len(bits)), (277, 3, 1, bands), (278, 3, 1, 4)),
        *((279, 4, 1, pixels.nbytes), (284, 3, 1, 1)),
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + bits + pixels.tobytes()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer and not the file"),
        (b"<!DOCTYPE html><html><body>404", "a web page: its download failed"),
        (b"  <html>", "a web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing: convert it to PNG"),
        (b'<?xml version="1.0"?><svg/>', "XML"),
        (b"%PDF-1.7", "a PDF: convert its pages"),
        (b"PK\x03\x04\x14", "a zip archive: unpack it"),
        (b"Rar!\x1a\x07", "a RAR archive: unpack it"),
        (b"\x1f\x8b\x08", "packed by gzip: unpack it"),
        (b"\x93NUMPY\x01", "a NumPy array"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\xff\x0a\xfa", "JPEG XL"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image, which this Pillow does not read"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "a HEIC image"),
        (base64.b64encode(encoded(Image.fromarray(noise(4, 4, 3)))), "written out as base64 text"),
        (tiff_of_bands(13), "a TIFF of 13 bands of 16 bits, of which none is plainly red"),
        (tiff_of_bands(3), "a TIFF of 3 bands of 16 bits"),
        (b"iVBORw0KGgo but then words", "not an image"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(data: bytes, what: str) -> None:
    with pytest.raises(DataError, match=rf"the image x: it is .*{re.escape(what)}"):
        decode(data, "x")


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


def test_a_jpeg_of_thousands_of_scans_is_refused_and_one_of_ten_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(IMAGE_PIXELS.variable, "10000")
    buffer = io.BytesIO()
    Image.new("L", (100, 100), 120).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    assert decode(whole, "a.jpg").size == (100, 100)
    with pytest.raises(DataError, match=r"a\.jpg: it has 206 scans of 10,000 pixels"):
        decode(whole[:-2] + last * 200 + b"\xff\xd9", "a.jpg")


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files_decode_or_are_refused_but_raise_nothing_else(seed: int) -> None:
    random = np.random.default_rng(seed)
    kind = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")[seed % 6]
    data = bytearray(encoded(Image.fromarray(noise(24, 24, 3, seed=seed)), kind))
    for place in random.integers(0, len(data), 20):
        data[place] = random.integers(256)
    with suppress(DataError):
        assert decode(bytes(data), "damaged").mode == "RGB"


def test_a_gif_of_endless_comments_is_refused_and_one_with_a_word_is_read() -> None:
    """Pillow took minutes for 25 MB of comments in blocks of 255 bytes."""
    buffer = io.BytesIO()
    Image.new("P", (8, 8), 3).save(buffer, "GIF", comment=b"a word")
    whole = buffer.getvalue()
    assert decode(whole, "a.gif").size == (8, 8)
    start = whole.index(b"\x21\xfe")
    comment = b"\x21\xfe" + (b"\xff" + b"a" * 255) * 5_000 + b"\x00"
    with pytest.raises(DataError, match=r"a\.gif: it has 1\.3 MB of comments"):
        decode(whole[:start] + comment + whole[start:], "a.gif")
