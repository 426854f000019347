"""Claims of the paper, judged by what was measured."""

__all__ = ["Fact", "Verdict", "as_html", "as_lines", "judged"]

import enum
import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """Whether a claim is borne out here."""

    HOLDS = "holds"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Fact:
    """A claim, its verdict, and the numbers that it rests on."""

    claim: str
    verdict: Verdict
    evidence: str


def judged(claim: str, holds: bool | None, evidence: str) -> Fact:
    """Return a claim with its verdict; `None` where the numbers leave both possible.

    >>> judged("One is less than two.", True, "they differ by 1.").verdict.value
    'holds'
    """
    if holds is None:
        return Fact(claim, Verdict.UNDECIDED, evidence)
    return Fact(claim, Verdict.HOLDS if holds else Verdict.REFUTED, evidence)


def as_lines(facts: Iterable[Fact]) -> Iterator[str]:
    """Yield a line of text for each claim."""
    return (f"{fact.verdict.upper()}: {fact.claim} Here, {fact.evidence}" for fact in facts)


def as_html(facts: Iterable[Fact]) -> str:
    """Return a list for a page."""
    items = (
        f"<li><b>{fact.verdict}</b>: {html.escape(fact.claim)} Here, {html.escape(fact.evidence)}</li>"
        for fact in facts
    )
    return f"<p>What the paper says, judged by these numbers:</p><ul>{''.join(items)}</ul>"
