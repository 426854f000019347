"""Results as JSON holds them, with what is concluded, and back."""

__all__ = ["as_numbers", "from_numbers"]

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from comln.reproduce.facts import Fact
from comln.run import converter

Result = TypeVar("Result")
ADDED = ("target", "facts")
"""What stands in JSON besides a result's own fields."""


def as_numbers(target: str, result: Any, facts: Iterable[Fact]) -> dict[str, Any]:
    """Return a result, a dataclass, ready for JSON, with the name of what was reproduced and what is concluded."""
    return {"target": target, **converter.unstructure(result), "facts": [asdict(fact) for fact in facts]}


def from_numbers(content: Mapping[str, Any], kind: type[Result]) -> Result:
    """Return the result that `as_numbers` was given, of the dataclass `kind`."""
    return converter.structure({name: value for name, value in content.items() if name not in ADDED}, kind)
