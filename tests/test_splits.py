from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from driftscope.config import RunSpec, parse_run_spec
from driftscope.data import labelled, open_dataset
from driftscope.data.duplicates import find_duplicates
from driftscope.data.splits import (
    Splits,
    balanced_subset,
    evaluation_subsets,
    make_splits,
    open_train_and_test,
)
from driftscope.errors import DataError

SHARED_IMAGES = Path(__file__).parents[2] / "shared" / "images"


def spec_of(**values: object) -> RunSpec:
    return parse_run_spec({"method": "full_ft", "learning_rate": 1e-3, **values})


def labels_of(num_classes: int, images_a_class: int) -> torch.Tensor:
    return torch.arange(num_classes * images_a_class) % num_classes


def counts(labels: torch.Tensor, indices: torch.Tensor) -> list[int]:
    return torch.bincount(labels[indices]).tolist()


def test_leakfree_sides_are_disjoint_and_balanced() -> None:
    train, test = labels_of(10, 60), labels_of(10, 20)
    splits = make_splits(spec_of(val_images=100, probe_images=50, train_images=200), train, test)
    sides = torch.cat([splits.train, splits.val, splits.probe])
    assert len(sides.unique()) == len(sides) == 350
    assert counts(train, splits.val) == [10] * 10
    assert counts(train, splits.probe) == [5] * 10
    assert counts(train, splits.train) == [20] * 10
    assert splits.test.tolist() == list(range(200))
    assert not splits.held_out_from_test


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(12, 40), min_size=2, max_size=8),
    val=st.integers(2, 20),
    probe=st.integers(2, 20),
    seed=st.integers(0, 1000),
)
def test_sides_are_disjoint_and_as_large_as_asked_whatever_the_classes(
    sizes: list[int], val: int, probe: int, seed: int
) -> None:
    assume(val + probe < sum(sizes))
    train = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    spec = spec_of(val_images=val, probe_images=probe, data_seed=seed, balanced=False)
    splits = make_splits(spec, train, train)
    sides = torch.cat([splits.train, splits.val, splits.probe])
    assert sorted(sides.tolist()) == list(range(len(train)))
    assert (len(splits.val), len(splits.probe)) == (val, probe)


def test_splits_follow_the_data_seed_and_nothing_else_of_the_spec() -> None:
    train, test = labels_of(10, 60), labels_of(10, 20)

    def hashes(**values: object) -> dict[str, str]:
        return make_splits(spec_of(**values), train, test).hashes()

    first = hashes()
    assert hashes(seed=11, method="lora", learning_rate=5e-5, epochs=30) == first
    assert hashes(data_seed=1)["probe"] != first["probe"]


def test_under_paper_validation_is_the_test_split_and_structure_five_subsets_of_it() -> None:
    train, test = labels_of(10, 30), labels_of(10, 50)
    splits = make_splits(spec_of(protocol="paper"), train, test)
    assert torch.equal(splits.val, splits.test)
    assert splits.held_out_from_test
    assert len(splits.train) == 300
    assert [len(subset) for subset in splits.probe_subsets] == [200] * 5
    assert torch.equal(torch.cat(splits.probe_subsets), splits.probe)
    for subset in splits.probe_subsets:
        assert counts(test, subset) == [20] * 10
        assert len(subset.unique()) == 200
    assert len({tuple(subset.tolist()) for subset in splits.probe_subsets}) == 5


def test_the_record_holds_the_probe_images_by_index_with_a_hash() -> None:
    train, test = labels_of(10, 60), labels_of(10, 50)
    paper = make_splits(spec_of(protocol="paper"), train, test).to_dict()
    assert paper["probe_of"] == "test"
    assert [len(subset["indices"]) for subset in paper["probe_subsets"]] == [200] * 5
    assert len({subset["hash"] for subset in paper["probe_subsets"]}) == 5
    positions = make_splits(spec_of(protocol="paper"), train, test).probe_positions() or []
    assert [(one[0], len(one)) for one in positions] == [
        *((start, 200) for start in range(0, 1000, 200)),
        (0, 1000),
    ]
    leakfree = make_splits(spec_of(), train, test).to_dict()
    assert leakfree["num_given"] == paper["num_given"] == 600
    assert leakfree["probe_of"] == "train"
    (subset,) = leakfree["probe_subsets"]
    assert subset["hash"] == leakfree["hashes"]["probe"]
    assert leakfree["num_images"] == {"train": 100, "val": 300, "probe": 200, "test": 500}


def test_a_class_too_small_for_a_subset_is_named_with_its_count() -> None:
    labels = torch.cat([labels_of(2, 100), torch.full((7,), 2)])
    with pytest.raises(DataError, match=r"class 'lynx' has 7 images.* 200 takes 66 of each of 3"):
        evaluation_subsets(labels, ("cat", "dog", "lynx"), torch.Generator())


def test_a_class_too_small_for_validation_and_probe_is_named_with_its_count() -> None:
    train = torch.cat([labels_of(2, 400), torch.full((9,), 2)])
    spec = spec_of(dataset="zoo", val_images=30, probe_images=30)
    with pytest.raises(DataError, match=r"'lynx' of zoo has 9 training images, but 10 .* 10 .* 1"):
        make_splits(spec, train, train, class_names=("cat", "dog", "lynx"))
    unbalanced = spec.model_copy(update={"balanced": False})
    assert len(make_splits(unbalanced, train, train).probe) == 30


def test_a_class_without_training_images_is_named() -> None:
    train = labels_of(2, 400)
    with pytest.raises(DataError, match="class 'lynx' of terrain has 0 training images"):
        make_splits(spec_of(), train, train, class_names=("cat", "dog", "lynx"))


def test_too_few_training_images_are_refused_with_the_counts() -> None:
    with pytest.raises(DataError, match=r"has 370 training images, but 300 .* 200"):
        make_splits(spec_of(), labels_of(37, 10), labels_of(37, 10))


def test_the_paper_protocol_needs_a_test_split_of_a_subsets_size() -> None:
    with pytest.raises(DataError, match=r"subsets of 200 test images.* has 100"):
        make_splits(spec_of(protocol="paper"), labels_of(10, 30), labels_of(10, 10))


def test_a_subset_of_images_that_come_class_by_class_has_all_classes() -> None:
    labels = torch.arange(10).repeat_interleave(50)
    chosen = balanced_subset(labels, 30)
    assert counts(labels, chosen) == [3] * 10
    assert torch.equal(chosen, balanced_subset(labels, 30))
    assert balanced_subset(labels, None).tolist() == list(range(500))
    assert len(balanced_subset(labels, 9999)) == 500


# ---------------------------------------------------------------- groups


def sides_of_groups(splits: Splits, groups: list[str]) -> list[set[str]]:
    sides = (splits.train, splits.val, splits.probe)
    return [{groups[index] for index in side.tolist()} for side in sides]


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), group_size=st.integers(1, 12), balanced=st.booleans())
def test_no_group_is_on_two_sides(seed: int, group_size: int, balanced: bool) -> None:
    train = labels_of(5, 60)
    groups = [f"patient {index // group_size}" for index in range(len(train))]
    spec = spec_of(val_images=40, probe_images=30, data_seed=seed, balanced=balanced)
    splits = make_splits(spec, train, train, groups=groups)
    one, two, three = sides_of_groups(splits, groups)
    assert len(one | two | three) == len(one) + len(two) + len(three)
    assert (len(splits.val), len(splits.probe)) == (40, 30)
    if balanced:
        assert counts(train, splits.val) == [8] * 5
        assert counts(train, splits.probe) == [6] * 5


def test_too_few_groups_are_refused_with_the_count() -> None:
    train = labels_of(5, 60)
    groups = ["left" if index < 150 else "right" for index in range(300)]
    with pytest.raises(DataError, match="has 2 groups, too few"):
        make_splits(spec_of(val_images=40, probe_images=30), train, train, groups=groups)


def write_list(folder: Path, rows: list[tuple[str, str, str]]) -> str:
    lines = ["path,label,split,patient"]
    for number, (label, split, patient) in enumerate(rows):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{label},{split},{patient}")
    (folder / "list.csv").write_text("\n".join(lines))
    return f"{folder / 'list.csv'}?group=patient"


def test_a_group_in_both_given_splits_is_refused_by_name(tmp_path: Path) -> None:
    rows = [("a", "train", "p1"), ("b", "train", "p2"), ("a", "test", "p2"), ("b", "test", "p3")]
    with pytest.raises(DataError, match=r"1 groups .* both the train and the test .* 'p2'"):
        open_train_and_test(write_list(tmp_path, rows), 0)


def test_an_undivided_set_is_divided_by_groups(tmp_path: Path) -> None:
    rows = [("ab"[number % 2], "all", f"p{number // 4}") for number in range(40)]
    train, test = open_train_and_test(write_list(tmp_path, rows), 0)
    assert not set(train.groups) & set(test.groups)  # type: ignore[attr-defined]
    assert (len(train), len(test)) == (32, 8)


# ---------------------------------------------------------------- sets without a test split


def write_folder(folder: Path, sizes: dict[str, int]) -> Path:
    level = 0
    for name, size in sizes.items():
        (folder / name).mkdir(parents=True)
        for number in range(size):
            Image.new("RGB", (8, 8), (level, 0, 0)).save(folder / name / f"{number}.png")
            level += 1
    return folder


def test_a_set_without_a_test_split_is_divided_and_never_tested_on_what_it_trained_on(
    tmp_path: Path,
) -> None:
    folder = write_folder(tmp_path, {"cat": 20, "dog": 10, "lynx": 2})
    train, test = open_train_and_test(str(folder), data_seed=0)
    assert torch.bincount(labelled(train)[0]).tolist() == [16, 8, 1]
    assert torch.bincount(labelled(test)[0]).tolist() == [4, 2, 1]
    levels = [set(part.pixels(range(len(part)), 8)[:, 0, 0, 0].tolist()) for part in (train, test)]
    assert not levels[0] & levels[1]
    assert levels[0] | levels[1] == set(range(32))
    assert open_train_and_test(str(folder), 0)[1].fingerprint == test.fingerprint
    assert open_train_and_test(str(folder), 1)[1].fingerprint != test.fingerprint


def test_the_paper_protocol_does_not_make_up_the_test_split_it_validates_on(
    tmp_path: Path,
) -> None:
    folder = write_folder(tmp_path, {"cat": 4, "dog": 4})
    with pytest.raises(DataError, match="provides none; use protocol: leakfree"):
        open_train_and_test(str(folder), 0, protocol="paper")


def test_given_splits_are_taken_as_they_are(coloured_images: Path) -> None:
    train, test = open_train_and_test(str(coloured_images), 0)
    assert (len(train), len(test)) == (48, 24)
    assert [part.split for part in open_train_and_test("terrain", 0)] == ["train", "test"]


def test_unlabeled_images_cannot_be_trained_on(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="has no labels"):
        open_train_and_test(str(tmp_path), 0)


# ---------------------------------------------------------------- duplicates


def test_equal_images_are_found_within_a_side_and_across_sides() -> None:
    pixels = torch.randint(256, (6, 3, 4, 4), dtype=torch.uint8)
    pixels[3] = pixels[1]
    test = torch.stack([pixels[5], 255 - pixels[5], pixels[1]])
    found = find_duplicates({"train": pixels, "test": test})
    assert found.within == {"train": [(1, 3)], "test": []}
    assert found.across == {("train", "test"): [(1, 2), (5, 0)]}
    assert found.to_dict() == {
        "train": {"num_pairs": 1, "pairs": [[1, 3]]},
        "train/test": {"num_pairs": 2, "pairs": [[1, 2], [5, 0]]},
    }


def test_different_images_are_no_duplicates() -> None:
    pixels = torch.arange(3 * 48, dtype=torch.uint8).view(3, 3, 4, 4)
    assert find_duplicates({"train": pixels[:2], "test": pixels[2:]}).to_dict() == {}


def test_cifar_100s_test_split_holds_two_images_twice_under_different_labels() -> None:
    if not (SHARED_IMAGES / "cifar100").is_dir():
        pytest.skip(f"needs {SHARED_IMAGES / 'cifar100'}")
    images = open_dataset(SHARED_IMAGES / "cifar100", "test")
    labels, names = labelled(images)
    found = find_duplicates({"test": images.pixels(range(len(images)), 32)})
    pairs = [[names[labels[index]] for index in pair] for pair in found.within["test"]]
    assert pairs == [["baby", "girl"], ["seal", "otter"]]
