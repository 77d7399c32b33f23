from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from driftscope.data import EncodedSet, cache, encoded, open_dataset
from driftscope.errors import DataError
from driftscope.files import SCRATCH_PREFIX


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DRIFTSCOPE_CACHE_GB", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", 12)


def write_images(folder: Path, count: int, first_level: int = 0) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        level = first_level + number
        Image.new("RGB", (9, 9), (level, level, level)).save(folder / f"{number:03}.png")
    return folder


def opened(folder: Path) -> EncodedSet:
    images = open_dataset(folder, "test")
    assert isinstance(images, EncodedSet)
    return images


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    decoded: list[str] = []
    decode = encoded.decode

    def counted(data: bytes, name: str, white: int) -> Image.Image:
        decoded.append(name)
        return decode(data, name, white)

    monkeypatch.setattr(encoded, "decode", counted)
    return decoded


def test_a_set_is_decoded_once_and_mapped_ever_after(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = count_decodes(monkeypatch)
    first = opened(folder).pixels(range(12), 16)
    assert len(decoded) == 12
    again = opened(folder)
    assert torch.equal(again.pixels(range(12), 16), first)
    assert torch.equal(again.pixels([7, 2], 16), first[[7, 2]])
    assert len(decoded) == 12
    assert first[:, 0, 0, 0].tolist() == list(range(12))


def test_a_part_of_a_set_is_gathered_from_the_map_and_never_copied_as_a_whole(
    folder: Path,
) -> None:
    images = opened(folder)
    rows = images.rows([7, 2, 2, 11], 16)
    assert rows.stored.shape == (12, 3, 16, 16)
    assert torch.equal(rows.gathered(), images.pixels([7, 2, 2, 11], 16))
    assert images.rows(range(12), 16).gathered().shape == (12, 3, 16, 16)
    entry = cache.list_entries()[0].path
    assert str(entry) in mapping_at(rows.stored.data_ptr())


def mapping_at(address: int) -> str:
    """The line of this process's memory map that holds an address."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs Linux, which says what is mapped where")
    for line in maps.read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            return line
    return ""


def test_rows_are_indexed_as_the_tensor_of_them_is(folder: Path) -> None:
    images = opened(folder)
    rows = images.rows([7, 2, 5, 11], 16)
    pixels = images.pixels([7, 2, 5, 11], 16)
    assert (len(rows), rows.shape, rows.nbytes) == (4, tuple(pixels.shape), pixels.nbytes)
    for positions in (torch.tensor([3, 0]), torch.tensor([], dtype=torch.int64), slice(1, 3), 2):
        assert torch.equal(rows[positions], pixels[positions])
        assert torch.equal(rows.mirrored()[positions], pixels[positions].flip(-1))
    assert torch.equal(torch.stack(list(rows)), pixels)
    assert torch.equal(rows.select([2, 2]).gathered(), pixels[[2, 2]])
    assert torch.equal(rows.mirrored().mirrored().gathered(), pixels)


def test_another_size_is_another_entry(folder: Path) -> None:
    opened(folder).pixels(range(12), 16)
    opened(folder).pixels(range(12), 24)
    assert {(entry.image_size, entry.num_images) for entry in cache.list_entries()} == {
        (16, 12),
        (24, 12),
    }


def test_a_changed_image_is_never_served_from_before(folder: Path) -> None:
    opened(folder).pixels(range(12), 16)
    Image.new("RGB", (9, 9), (200, 200, 200)).save(folder / "003.png")
    assert opened(folder).pixels(range(12), 16)[3].unique().tolist() == [200]


def test_the_same_images_elsewhere_share_the_entry(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(folder).pixels(range(12), 16)
    decoded = count_decodes(monkeypatch)
    opened(write_images(tmp_path / "copy", 12)).pixels(range(12), 16)
    assert decoded == []
    assert len(cache.list_entries()) == 1


def test_a_few_images_of_many_are_decoded_without_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = count_decodes(monkeypatch)
    opened(folder).pixels([1, 5], 16)
    assert len(decoded) == 2
    assert cache.list_entries() == []


def test_writing_to_mapped_pixels_changes_neither_the_entry_nor_other_users(folder: Path) -> None:
    mine = opened(folder).pixels(range(12), 16)
    mine.fill_(77)
    assert opened(folder).pixels(range(12), 16)[:, 0, 0, 0].tolist() == list(range(12))


def test_nothing_is_left_of_an_entry_whose_writing_failed(folder: Path) -> None:
    (folder / "011.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"011\.png"):
        opened(folder).pixels(range(12), 16)
    assert [path.suffix for path in cache.cache_folder().iterdir()] == [".lock"]


def test_a_torn_entry_is_written_anew(folder: Path) -> None:
    opened(folder).pixels(range(12), 16)
    (entry,) = cache.list_entries()
    entry.path.write_bytes(entry.path.read_bytes()[:-100])
    assert opened(folder).pixels(range(12), 16)[:, 0, 0, 0].tolist() == list(range(12))
    assert cache.list_entries()[0].num_bytes == entry.num_bytes


def test_the_entry_used_longest_ago_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    size_of_one = 4 * 3 * 16 * 16
    monkeypatch.setenv("DRIFTSCOPE_CACHE_GB", str(2.5 * size_of_one / 1e9 + 2e-7))
    folders = [write_images(tmp_path / name, 4, 50 * i) for i, name in enumerate("abc")]
    for folder in folders[:2]:
        opened(folder).pixels(range(4), 16)
    for entry in cache.list_entries():
        os.utime(entry.path, (1, 1 if "-b-" in entry.path.name else 2))
    opened(folders[2]).pixels(range(4), 16)
    kept = sorted(entry.label.split("-")[-2] for entry in cache.list_entries())
    assert kept == ["a", "c"]


def test_a_set_larger_than_the_bound_is_decoded_and_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTSCOPE_CACHE_GB", "0")
    assert opened(folder).pixels(range(12), 16).shape == (12, 3, 16, 16)
    assert cache.list_entries() == []


@pytest.mark.parametrize("bound", ["much", "-1", "nan", "inf", "1e300"])
def test_a_bound_that_is_no_size_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setenv("DRIFTSCOPE_CACHE_GB", bound)
    with pytest.raises(DataError, match="DRIFTSCOPE_CACHE_GB"):
        cache.bound_bytes()


def test_a_full_disk_costs_a_warning_and_no_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        pixels = opened(folder).pixels(range(12), 16)
    assert pixels[:, 0, 0, 0].tolist() == list(range(12))
    assert cache.list_entries() == []


def test_a_cache_folder_that_is_a_file_costs_a_warning(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRIFTSCOPE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not kept"):
        assert len(opened(folder).pixels(range(12), 16)) == 12


def test_clearing_removes_entries_and_nothing_else(folder: Path) -> None:
    opened(folder).pixels(range(12), 16)
    strangers = [cache.cache_folder() / name for name in ("thesis.npy", "thesis.pixels.npy")]
    for stranger in strangers:
        stranger.write_text("mine")
    os.mkfifo(cache.cache_folder() / f"pipe--{'0' * 32}-16px-v1.pixels.npy")
    (entry,) = cache.list_entries()
    assert cache.clear() == (1, entry.num_bytes)
    assert {*strangers} < {*cache.cache_folder().iterdir()}
    assert cache.clear() == (0, 0)


def test_an_absent_cache_is_empty() -> None:
    assert cache.list_entries() == []
    assert cache.clear() == (0, 0)


def test_two_threads_that_want_one_set_decode_it_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = count_decodes(monkeypatch)
    together = threading.Barrier(2)
    results: list[torch.Tensor] = []

    def work() -> None:
        images = opened(folder)
        together.wait()
        results.append(images.pixels(range(12), 16))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(*results)
    assert len(decoded) == 12


def _read_in_another_process(folder: str, start: object, results: object) -> None:
    torch.set_num_threads(1)
    start.wait()  # type: ignore[attr-defined]
    pixels = open_dataset(folder, "test").pixels(range(12), 16)
    results.put(pixels.numpy().copy())  # type: ignore[attr-defined]


def test_two_processes_that_want_one_set_agree_and_leave_one_entry(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    processes = [
        context.Process(target=_read_in_another_process, args=(str(folder), start, results))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    start.set()
    arrays = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    assert np.array_equal(*arrays)
    assert len(cache.list_entries()) == 1


def test_a_killed_writers_lock_and_leftovers_stop_nobody(folder: Path) -> None:
    opened(folder).pixels(range(12), 16)
    (entry,) = cache.list_entries()
    entry.path.unlink()  # what is left is the lock file of a process that is gone
    scratch = cache.cache_folder() / f"{SCRATCH_PREFIX}0123abcd"
    scratch.mkdir()
    opened(folder).pixels(range(12), 16)
    assert [one.path for one in cache.list_entries()] == [entry.path]
    cache.clear()
    assert list(cache.cache_folder().iterdir()) == []
