"""What the paper says of memory and time, judged by what was measured."""

__all__ = ["facts"]

from collections.abc import Iterator, Sequence

from comln.reproduce.efficiency import PAPER_BYTES, Cell, Efficiency
from comln.reproduce.extrapolation import crossing
from comln.reproduce.facts import Fact, judged
from comln.reproduce.measure import Measurement
from comln.reproduce.meta_gradient_programs import METHODS
from comln.reproduce.quantities import in_bytes, in_time, three_digits

COMLN_NAMES = ("comln-euler", "comln-rk", "comln-span")
ALIKE = 1.05
"""Up to this ratio, either way, two methods take the same memory."""

FLAT = 1.01
"""Up to this ratio of its extremes, the memory of one method does not grow."""

AS_LONG = 1.5
"""Up to this ratio, either way, two times match."""

MUCH = 2.0
"""From this ratio on, one time or amount of memory is much more than another."""

FEW_STEPS = 10
"""Of gradient descent, where the paper says "a small number"."""


def facts(result: Efficiency) -> tuple[Fact, ...]:
    """Return the paper's claims of section 5.2, and two of ours."""
    return tuple(_facts(result))


def _facts(result: Efficiency) -> Iterator[Fact]:
    yield _flat(result)
    yield _growing(result)
    yield _equal_memory(result)
    yield _euler_in_turns(result)
    yield _euler_with_network(result)
    yield from _adaptive(result)
    yield from _ours(result)


def _flat(result: Efficiency) -> Fact:
    spans, parts = [], []
    for name in COMLN_NAMES:
        whole = [cell.memory.value for cell in result.of(name) if cell.memory.measured]
        head = [cell.head_memory.value for cell in result.of(name) if cell.head_memory and cell.head_memory.measured]
        spans += [max(values) / min(values) for values in (whole, head)]
        parts.append(f"{METHODS[name].title} {in_bytes(max(whole))} ({in_bytes(max(head))} without the network)")
    last = result.of(COMLN_NAMES[0])[-1].steps
    evidence = f"it is that of one program for every T, up to that of {last:,} steps: {'; '.join(parts)}."
    return judged("The memory of COMLN does not grow with T.", max(spans) <= FLAT, evidence)


def _growing(result: Efficiency) -> Fact:
    maml, imaml = ([cell for cell in result.of(name) if cell.memory.measured] for name in ("maml", "imaml"))
    anil = [(cell.steps, cell.head_memory.value) for cell in result.of("anil") if cell.head_memory is not None]
    per_step = (maml[-1].memory.value - maml[-2].memory.value) / (maml[-1].steps - maml[-2].steps)
    anil_per_step = (anil[-1][1] - anil[-2][1]) / (anil[-1][0] - anil[-2][0])
    flat = max(cell.memory.value for cell in imaml) / min(cell.memory.value for cell in imaml)
    estimates = [(cell.steps, cell.memory.value) for cell in result.of("maml")]
    full = _crossing_of_limit(*zip(*estimates, strict=True))
    evidence = (
        f"MAML takes {in_bytes(per_step)} and ANIL {in_bytes(anil_per_step)} for each step; {full}; iMAML takes "
        f"{in_bytes(imaml[-1].memory.value)} whatever the number of steps."
    )
    grows = maml[-1].memory.value > MUCH * maml[0].memory.value and anil[-1][1] > MUCH * anil[0][1]
    claim = "The memory of MAML and ANIL grows with the number of steps, that of iMAML does not."
    return judged(claim, grows and flat <= FLAT, evidence)


def _crossing_of_limit(steps: Sequence[int], values: Sequence[float]) -> str:
    at = crossing(steps, values, [float(PAPER_BYTES)] * len(steps))
    what = f"{in_bytes(PAPER_BYTES)}, the paper's GPU,"
    return f"MAML fills {what} at {_steps(at)}" if at is not None else f"MAML does not fill {what} yet"


def _equal_memory(result: Efficiency) -> Fact:
    anil, comln = result.of("anil"), result.of("comln-rk")
    few = next(i for i, cell in enumerate(anil) if cell.steps >= FEW_STEPS)
    ratio = comln[few].memory.value / anil[few].memory.value
    rk, span = (_crossing_of_heads(anil, result.of(name)) for name in ("comln-rk", "comln-span"))
    more = [(a.steps, a.memory.value / c.memory.value) for a, c in zip(anil, comln, strict=True)]
    above = next(((at, times) for at, times in more if times > ALIKE), None)
    percent = f"{100 * (ALIKE - 1):.0f} %"
    since = (
        f"the first number at which ANIL takes over {percent} more is {above[0]:,}, with {three_digits(above[1])} "
        "times as much"
        if above
        else f"ANIL never takes over {percent} more"
    )
    evidence = (
        f"at {anil[few].steps} steps COMLN, RK takes {three_digits(ratio)} times ANIL's, since the network takes most; "
        f"{since}. Without the network ANIL's equals COMLN, RK's at {rk} and SpanAdjoint's at {span}."
    )
    claim = "The memory of COMLN equals that of ANIL at a small number of steps."
    return judged(claim, 1 / ALIKE <= ratio <= ALIKE, evidence)


def _crossing_of_heads(anil: list[Cell], comln: list[Cell]) -> str:
    pairs = [
        (a.steps, a.head_memory.value, c.head_memory.value)
        for a, c in zip(anil, comln, strict=True)
        if a.head_memory is not None and c.head_memory is not None
    ]
    at = crossing(*zip(*pairs, strict=True))
    return "no number of steps" if at is None else _steps(at)


def _euler_in_turns(result: Efficiency) -> Fact:
    heads, steps = result.turns.heads, result.turns.steps
    euler, anil, ours = heads["comln-euler"], heads["anil"], heads["comln-span-euler"]
    words, least, most = _times_in_turns(euler, anil)
    evidence = (
        f"in turns at {_steps(steps)}, {words}. By SpanAdjoint the same Euler steps take {in_time(ours.median_ms)}."
    )
    claim = "With Euler steps, COMLN takes the time of ANIL, the network not counted."
    inside, outside = 1 / AS_LONG <= least and most <= AS_LONG, most < 1 / AS_LONG or least > AS_LONG
    return judged(claim, inside if inside or outside else None, evidence)


def _times_in_turns(ours: Measurement, theirs: Measurement) -> tuple[str, float, float]:
    """Return two times and their ratio in words, and the least and the most that the quartiles make of it."""
    ratio = ours.median_ms / theirs.median_ms
    least, most = ours.quartiles_ms[0] / theirs.quartiles_ms[1], ours.quartiles_ms[1] / theirs.quartiles_ms[0]
    return (
        f"{in_time(ours.median_ms)} against {in_time(theirs.median_ms)}: {three_digits(ratio)} times that "
        f"({three_digits(least)} to {three_digits(most)} by quartiles)",
        least,
        most,
    )


def _both_run(a: list[Cell], b: list[Cell]) -> list[tuple[int, float, float]]:
    """Return the numbers of steps at which both were run, from few to many, with their times in ms."""
    times = [{cell.steps: cell.time_ms.value for cell in cells if cell.time_ms and cell.calls} for cells in (a, b)]
    return [(steps, times[0][steps], times[1][steps]) for steps in sorted(times[0].keys() & times[1].keys())]


def _steps(count: float | int) -> str:
    """Return a number of steps in words.

    >>> _steps(1.0), _steps(1234.5)
    ('1 step', '1,234 steps')
    """
    return f"{count:,.0f} step{'' if round(count) == 1 else 's'}"


def _euler_with_network(result: Efficiency) -> Fact:
    """Judge each number of steps that both were run for, from few, where the network takes most, to many."""
    found = _both_run(result.of("comln-euler"), result.of("anil"))
    ratios = {steps: euler / anil for steps, euler, anil in found}
    alike = [steps for steps, ratio in ratios.items() if 1 / AS_LONG <= ratio <= AS_LONG]
    steps, euler, anil = found[-1]
    evidence = (
        f"not in turns, from {_steps(found[0][0])} to {_steps(steps)} it takes {three_digits(min(ratios.values()))} to "
        f"{three_digits(max(ratios.values()))} times ANIL's; at {len(alike)} of {len(found)} numbers of steps"
        f"{f', the most of them {alike[-1]:,},' if alike else ''} the two match within a factor of {AS_LONG:g}. At the "
        f"most steps at which both were run it is {in_time(euler)} against {in_time(anil)}."
    )
    claim = "With Euler steps, COMLN takes the time of ANIL, the network counted."
    return judged(claim, len(alike) == len(found), evidence)


def _adaptive(result: Efficiency) -> Iterator[Fact]:
    euler_cells, rk_cells = result.of("comln-euler"), result.of("comln-rk")
    steps, euler, rk = _both_run(euler_cells, rk_cells)[-1]
    pairs = [
        (e.steps, e.head_time_ms.value, r.head_time_ms.value)
        for e, r in zip(euler_cells, rk_cells, strict=True)
        if e.head_time_ms is not None and r.head_time_ms is not None
    ]
    euler_head, rk_head = next((euler, rk) for count, euler, rk in pairs if count == steps)
    at = crossing(*zip(*pairs, strict=True))
    since = f"It is the faster one from {_steps(at)} on" if at is not None else "It is never faster"
    last = [cell for cell in rk_cells if cell.calls][-1]
    where = f"at {_steps(steps)}, the most that both were run for,"
    evidence = (
        f"{where} {in_time(rk_head)} against {in_time(euler_head)} with Euler: {three_digits(euler_head / rk_head)} "
        f"times faster. {since}. To the time of {_steps(last.steps)} it takes {last.solver_steps} steps of its own."
    )
    claim = "An adaptive solver is much faster than Euler steps, the network"
    yield judged(f"{claim} not counted.", euler_head >= MUCH * rk_head, evidence)
    evidence = f"{where} {in_time(rk)} against {in_time(euler)} with Euler: {three_digits(euler / rk)} times faster."
    yield judged(f"{claim} counted.", euler >= MUCH * rk, evidence)


def _ours(result: Efficiency) -> Iterator[Fact]:
    rk, span = (result.turns.heads[name] for name in ("comln-rk", "comln-span"))
    words, least, most = _times_in_turns(span, rk)
    claim = "SpanAdjoint (ours) is faster than sensitivities carried forward."
    where = f"in turns at the time of {_steps(result.turns.steps)}, the network not counted, it takes"
    yield judged(claim, most < 1 if most < 1 or least > 1 else None, f"{where} {words}.")
    amounts = f"{in_bytes(span.temporary_bytes)} against {in_bytes(rk.temporary_bytes)}"
    ratio = span.temporary_bytes / rk.temporary_bytes
    claim = "SpanAdjoint (ours) takes less memory than sensitivities carried forward."
    yield judged(claim, ratio < 1, f"without the network it takes {amounts}, {three_digits(ratio)} times that.")
