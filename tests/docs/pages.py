"""The pages that are tested: the README and everything in `docs/`."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class CodeBlock(NamedTuple):
    """A fenced block of a page: its language, its text, and the line of the page that it begins on."""

    page: Path
    language: str
    text: str
    line: int

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def code_blocks(page: Path) -> list[CodeBlock]:
    """Return the fenced blocks of a page, whatever their language."""
    text = page.read_text(encoding="utf-8")
    fences = re.finditer(r"^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [CodeBlock(page, m["language"], m["text"], text.count("\n", 0, m.start("text")) + 1) for m in fences]


def dotted_names(page: Path) -> list[str]:
    """Return the dotted names of this package and its tests that a page quotes."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"`((?:comln|tests)(?:\.\w+)+)`", text) + re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
