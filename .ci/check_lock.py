"""Check that every lock file holds no address, no path and no option, and names every direct dependency."""

import re
import sys
import tomllib
from pathlib import Path

ADDRESS = re.compile(r"://|^\s*(?!--hash=)--|^\s*-[a-z]\b|file:|git\+|@\s*/|^\s*[./]", re.MULTILINE)


def names(lines: list[str]) -> set[str]:
    """Return the normalised project names of requirement lines."""
    matches = (re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line) for line in lines)
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in matches if match}


def main(root: Path) -> int:
    """Print what is wrong; return the exit code."""
    problems = []
    locks = sorted(root.glob("requirements*.lock"))
    for lock in locks:
        for match in ADDRESS.finditer(lock.read_text()):
            line = lock.read_text().count("\n", 0, match.start()) + 1
            problems.append(f"{lock.name}:{line} holds an address, a path or an option; write it with `make lock`.")
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["test"]
    wanted += project["dependency-groups"]["dev"]
    missing = names(wanted) - names((root / "requirements.lock").read_text().splitlines())
    problems += [f"requirements.lock lacks {name}; write it with `make lock`." for name in sorted(missing)]
    print(
        "\n".join(problems) or f"{', '.join(lock.name for lock in locks)}: no address, and every dependency is there."
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1]))
