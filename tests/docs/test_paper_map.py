"""What the pages name exists, and the pages on the paper leave nothing out."""

import importlib
import re

import pytest

from tests.docs.pages import PAGES, ROOT, dotted_names

PAPER_MAP = ROOT / "docs" / "paper_map.md"
ERRATA = ROOT / "docs" / "errata.md"
MAPPED = [
    *(f"Equation {number}" for number in range(4, 15)),
    "Lemma 1",
    *(f"Proposition {number}" for number in range(1, 7)),
    *(f"Algorithm {number}" for number in range(1, 7)),
]


def resolve(name: str):
    """Return what a dotted name stands for: the longest part of it that is a module, then attributes."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):  # the module is there, but not what it imports
                raise
            continue
        for attribute in parts[split:]:
            value = getattr(value, attribute)
        return value
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("name", sorted({name for page in PAGES for name in dotted_names(page)}))
def test_every_name_on_the_pages_exists(name):
    resolve(name)


def test_a_name_that_does_not_exist_would_be_noticed():
    with pytest.raises(AttributeError):
        resolve("comln.losses.CrossEntropy.steepness")
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve("comln.nowhere.at_all")


@pytest.mark.parametrize("item", MAPPED)
def test_every_item_of_the_paper_is_on_the_map(item):
    rows = [line for line in PAPER_MAP.read_text().splitlines() if re.match(rf"\| {item}\b", line)]
    assert len(rows) == 1
    assert re.search(r"`(comln|tests)\.", rows[0]), f"{item} leads nowhere."


def test_every_erratum_is_listed_once_and_in_order():
    assert re.findall(r"^\*\*(E\d+)\.", ERRATA.read_text(), re.MULTILINE) == [f"E{number}" for number in range(1, 17)]


def test_decisions_are_numbered_and_listed():
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text()
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    navigation = (ROOT / "mkdocs.yml").read_text()
    for name in pages:
        assert f"({name})" in listed and f"decisions/{name}" in navigation
