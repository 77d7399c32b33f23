"""The published study's and its follow-up's numbers, from the authors' own records."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(__file__).parents[2] / "shared"

pytestmark = pytest.mark.skipif(
    not (SHARED / "records").is_dir(),
    reason="the authors' records (shared/records beside the repository) are not here",
)

KNOWN_TO_DIFFER = {
    "E2_full_ft_eurosat, published against corrected",
    "E5_lora_r8_eurosat, published against corrected",
    "pets, Holm p, our default family",
}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    path = REPOSITORY / "tools" / "published_table.py"
    spec = importlib.util.spec_from_file_location("published_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["published_table"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(generator: ModuleType) -> list:
    return list(generator.comparisons(SHARED))


@pytest.mark.parametrize(
    ("section", "count"),
    [
        ("Table 7: learning rate", 6),
        ("Table 7: regularizers", 10),
        ("Table 6: fullft_vs_lora_eurosat", 20),
        ("Table 6: fullft_vs_lora_pets", 20),
        ("Table 2: mean layerwise CKA", 6),
        ("Table 2: coefficient of variation", 6),
        ("Table 1", 12),
        ("Follow-up: cell means", 6),
        ("Follow-up: Spearman", 8),
        ("Follow-up: means of the four", 3),
        ("Follow-up: LoRA − full FT", 7),
        ("Follow-up: EuroSAT, runs within", 5),
        ("Follow-up: EuroSAT frontier", 1),
    ],
)
def test_the_numbers_of_a_section_are_reproduced(rows: list, section: str, count: int):
    own = [row for row in rows if row.section.startswith(section)]
    assert len(own) == count
    wrong = [row for row in own if not row.is_equal and row.name not in KNOWN_TO_DIFFER]
    assert wrong == []


def test_what_differs_is_known_and_explained(rows: list):
    differing = {row.name: row.note for row in rows if not row.is_equal}
    assert set(differing) == KNOWN_TO_DIFFER
    assert all(len(note) > 60 for note in differing.values())


def test_the_page_is_what_the_generator_makes(generator: ModuleType, rows: list):
    page = REPOSITORY / "docs" / "published.md"
    assert page.read_text(encoding="utf-8") == generator.page(rows)
