"""What a file is that is not what it should be, told by its first bytes, with the way out."""

from __future__ import annotations

import base64
import binascii
import io
import re
from pathlib import Path

_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself: run `git lfs pull`"),
    (b"<!doctype html", "a web page: its download failed, fetch it again"),
    (b"<html", "a web page: its download failed, fetch it again"),
    (b"<svg", "an SVG drawing: convert it to PNG"),
    (b"<?xml", "XML: if it is an SVG drawing, convert it to PNG"),
    (b"%pdf", "a PDF: convert its pages to PNG"),
    (b"pk\x03\x04", "a zip archive: unpack it"),
    (b"rar!", "a RAR archive: unpack it"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"\x1f\x8b", "packed by gzip: unpack it"),
    (b"\x93numpy", "a NumPy array: save it as an image of three 8-bit bands"),
    (b"\x89hdf", "an HDF5 file: save its images as PNG"),
    (b"\xff\x0a", "JPEG XL: convert it to JPEG or PNG"),
    (b"\x00\x00\x00\x0cjxl ", "JPEG XL: convert it to JPEG or PNG"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")
_HEAD_BYTES = 512
_BASE64_OF_AN_IMAGE = (b"ivborw0kggo", b"/9j/", b"r0lgod", b"uklgr", b"data:image")

ARCHIVES = (
    ".zip", ".rar", ".7z", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst",
)  # fmt: skip
"""Endings of what must be unpacked."""
VIDEOS = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg")
UNREAD_IMAGES = (
    ".dcm", ".nii", ".nii.gz", ".nrrd", ".mha", ".svs", ".ndpi", ".dng", ".cr2", ".cr3", ".nef",
    ".arw", ".raw", ".exr", ".hdr", ".jxl", ".svg",
)  # fmt: skip
"""Images of medicine, cameras and graphics that Pillow does not decode."""
FROM_VIDEOS = (
    "write frames of each into a folder of its class (ffmpeg -i FILE CLASS/NAME_%04d.png), and "
    "give the folder of those"
)
_ARRAYS = re.compile(
    r"(?i).*\.(mat|h5|hdf5|npy|npz|pkl|pickle|mdb|lmdb|beton|tfrecords?.*)(\.gz)?|.*-ubyte(\.gz)?|.*_[xy]\.bin"
    r"|(data|test)_batch(_\d)?(\.bin)?|.*_batch\.bin"
)
"""Files of many images at once: MATLAB's, HDF5, NumPy's, pickles, MNIST's, STL-10's, TFDS's."""
FROM_ARRAYS = (
    "write each image to a file (PIL.Image.fromarray(ARRAY).save) in a folder of its class, or "
    "take the set as parquet from the hub (owner/name)"
)


def is_array(name: str) -> bool:
    """Whether a file of this name holds many images as arrays."""
    return _ARRAYS.fullmatch(name) is not None


def kind_of(data: bytes) -> str:
    """What bytes are, with what to do, as what follows "it is"; "" for an unknown kind."""
    head = data[:_HEAD_BYTES].lstrip().lower()
    for start, what in _KINDS:
        if head.startswith(start) or data[:32].lower().startswith(start):
            return what
    return ""


def kind_of_file(file: Path) -> str:
    """As `kind_of`, of a file; "" where it cannot be read."""
    try:
        with file.open("rb") as opened:
            return kind_of(opened.read(_HEAD_BYTES))
    except OSError:
        return ""


def no_image(data: bytes) -> str:
    """What bytes are that Pillow does not know, in words that follow "it is"."""
    if known := kind_of(data):
        return known
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        kind = "an AVIF" if data[8:10] == b"av" else "a HEIC"
        return f"{kind} image, which this Pillow does not read: convert it to JPEG or PNG"
    if data[:16].lower().startswith(_BASE64_OF_AN_IMAGE) and _is_base64(data):
        return "an image written out as base64 text: write the bytes themselves"
    bands = _tiff_bands(data)
    if bands:
        return (
            f"a TIFF of {len(bands)} bands of {'/'.join(map(str, sorted(set(bands))))} bits, "
            "of which none is plainly red, green or blue: pick three and save them as an RGB image "
            "of 8 bits a band"
        )
    return "not an image"


def _is_base64(data: bytes) -> bool:
    try:
        base64.b64decode(data.rpartition(b",")[2].strip(), validate=True)
    except binascii.Error:
        return False
    return True


def _tiff_bands(data: bytes) -> tuple[int, ...]:
    """The bits of each band of a TIFF; () for anything else."""
    from PIL.TiffImagePlugin import BITSPERSAMPLE, SAMPLESPERPIXEL, ImageFileDirectory_v2

    try:
        directory = ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        bits = directory.get(BITSPERSAMPLE, (1,))
        return tuple(bits) * (directory.get(SAMPLESPERPIXEL, 1) if len(bits) == 1 else 1)
    except Exception:  # no TIFF, or a broken one
        return ()
