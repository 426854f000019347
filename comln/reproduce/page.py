"""What a reproduction writes: a picture, its numbers as JSON and text, and a page that refers to nothing outside."""

__all__ = ["STYLE", "Page", "Table", "as_json", "as_text", "machine", "render", "write_files"]

import html
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
"""Of every picture, for `matplotlib.rc_context`."""

Table = tuple[str, list[list[str]]]
"""A title and rows of words, the header first."""


def machine(environment: Mapping[str, Any]) -> str:
    """Return what something was measured on, in words.

    >>> machine({"device": "cpu", "processor": "A 1000", "cores": 2}), machine({"device": "B 200", "cores": 16})
    ('cpu (A 1000), 2 cores', 'B 200, 16 cores')
    """
    name, processor = environment["device"], environment.get("processor")
    named = f"{name} ({processor})" if name == "cpu" and processor else name
    return f"{named}, {environment['cores']} cores"


@dataclass(frozen=True)
class Page:
    """A picture with tables.

    - `title`: also says what the picture shows.
    - `svg`: the picture.
    - `explanation`: HTML between the picture and the tables.
    - `tables`: below it.
    - `target`: what `comln reproduce` makes it from.
    """

    title: str
    svg: str
    explanation: str
    tables: Iterable[Table]
    target: str

    def html(self, environment: Mapping[str, Any]) -> str:
        """Return the page; `environment` is where its numbers were measured."""
        title = html.escape(self.title)
        element = re.sub(r"<metadata>.*?</metadata>", "", self.svg[self.svg.index("<svg ") :], flags=re.DOTALL)
        element = element.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
        versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
        return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{PAGE_STYLE}</style></head><body><main>
<h1>{title}</h1>
<div class="picture">{element}</div>
{self.explanation}
{"".join(_table(*table) for table in self.tables)}
<p class="small">Measured on {html.escape(machine(environment))};
{html.escape(versions)}; commit {html.escape(environment["commit"])}.
Repeat it with <code>comln reproduce {self.target}</code>.</p>
</main></body></html>
"""


def _table(title: str, rows: list[list[str]]) -> str:
    def cells(row: list[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(word)}</{tag}>' for word in row)}</tr>"

    body = cells(rows[0], "th") + "".join(cells(row, "td") for row in rows[1:])
    return f"<div class='scroll'><table><caption>{html.escape(title)}</caption>{body}</table></div>"


PAGE_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; background: Canvas; color: CanvasText; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; }
.picture { background: white; padding: 0.5rem; border-radius: 4px; } .picture svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.85rem; margin-bottom: 1rem; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { border: 1px solid #8885; padding: 0.25rem 0.5rem; text-align: right; }
.small { font-size: 0.8rem; }
"""


def as_text(tables: Iterable[Table]) -> str:
    """Return tables as text, in columns.

    >>> print(as_text([("Squares", [["n", "n n"], ["10", "100"]])]))
    Squares
     n  n n
    10  100
    """
    blocks = []
    for title, rows in tables:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
        blocks.append("\n".join([title, *lines]))
    return "\n\n".join(blocks)


def as_json(content: Any) -> bytes:
    """Return numbers as the bytes of a file."""
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def render(figure: Figure, salt: str) -> tuple[str, bytes]:
    """Return a picture as SVG and as PNG. The same picture with the same `salt` gives the same SVG."""
    png, svg = io.BytesIO(), io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure.savefig(png, format="png", dpi=200)
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue(), png.getvalue()


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files into an existing folder, each whole or not at all, and return their paths."""
    for name, content in contents.items():
        temporary = folder / f".{name}.part"
        temporary.write_bytes(content)
        os.replace(temporary, folder / name)
    return [folder / name for name in contents]
