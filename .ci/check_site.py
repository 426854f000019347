"""Check that the built documentation loads nothing from elsewhere: no script, style, font or image with an address."""

import re
import sys
from pathlib import Path

LOADS = {
    ".html": re.compile(
        r"""<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    ),
    ".css": re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')]+)"""),
}


def main(site: Path) -> int:
    """Print what is loaded from elsewhere; return the exit code."""
    pages = [path for path in site.rglob("*") if path.suffix in LOADS]
    found = [
        (path, address) for path in pages for address in LOADS[path.suffix].findall(path.read_text(encoding="utf-8"))
    ]
    for path, address in found:
        print(f"{path} loads {address}")
    if not (site / "index.html").exists():
        print(f"{site} holds no built documentation.")
        return 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
