import dataclasses
import json
import re

import jax
import pytest

from comln.backbones import Identity
from comln.cli import main
from comln.flow.adaptive import ADAPTIVE_SLOTS
from comln.learners import IMAML
from comln.learners.imaml import ConjugateGradients
from comln.recipes.backbones import Conv4Config
from comln.reproduce import memory_orders, table1
from comln.reproduce.facts import Verdict
from comln.reproduce.implicit_error import GradientError, gradient_error
from comln.reproduce.measure import environment
from comln.reproduce.memory_orders import LINES, Counts, Orders, Row, Size, Spending
from comln.reproduce.workspace import Budget
from tests.learners.tasks import episode

COUNTS = Counts(support=3, ways=2, features=5, weights=70, steps=16)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("maml", 70 * 16),
        ("anil", 2 * 5 * 16),
        ("checkpointed-maml", 70 * 4),
        ("imaml", 70),
        ("comln-naive", 4 * 25 + 3 * 2 * 25),
        ("comln-rk", 9 * 4 + 27 * 2),
        ("comln-span", 256 * 3 * 2 + 9),
    ],
)
def test_theory_by_hand(method, expected):
    (line,) = (line for line in LINES if line.method == method)
    assert line.theory(COUNTS) == expected


def test_theory_knows_how_many_states_are_kept():
    assert memory_orders.KEPT_STATES == ADAPTIVE_SLOTS


def test_imaml_is_exact_at_the_optimum_and_not_before():
    def error(step, steps):
        learner = IMAML.init(Identity(4), 3, jax.random.key(0), step, steps, solver=ConjugateGradients(40))
        return gradient_error(learner, episode())

    before, there = error(0.1, 3), error(0.5, 400)
    assert before.steps == 3 and before.relative > 0.1 and 0 < before.cosine < 0.9999
    assert there.relative < 1e-7 and there.cosine == pytest.approx(1.0)


def test_counts_are_those_of_the_network():
    counts = memory_orders._counts(table1.CONV4)
    kernels = 9 * (3 * 64 + 3 * 64 * 64)
    assert dataclasses.astuple(counts) == (5, 5, 1600, kernels + 5 * 1600 + 5, 1)


@pytest.fixture
def result():
    sizes = Size("small", Conv4Config(4), 28, 5, 1), Size("large", Conv4Config(8), 28, 5, 5)
    rows = [
        Row(size.name, line.method, (1000, 10_000), (4000, 4000 if line.method == "comln-rk" else 40_000))
        for size in sizes
        for line in LINES
    ]
    counts = {size.name: COUNTS for size in sizes}
    spending = Spending(sizes, (10, 100), (10,))
    return Orders(Budget.COMMITTED, spending, counts, tuple(rows), (GradientError(10, 0.25, 0.875),), environment())


def test_the_table_has_theory_beside_measurement(result):
    (title, (header, maml, *_, comln, _span)), _, (_, imaml) = table1.tables(result)
    assert title == "small: M = 3, N = 2, d = 5, |θ| = 70"
    assert dict(zip(header[:4], maml[:4], strict=True)) == {
        "method": "MAML",
        "exact": "yes",
        "whole network": "yes",
        "O()": "|θ| n",
    }
    assert maml[4:] == ["1.00 kB", "4.00 kB", "10.0 kB", "40.0 kB", "4.00", "n^1.00"]
    assert comln[0] == "COMLN" and comln[-1] == "n^0.00"
    assert imaml[1] == ["10", "0.250", "0.875"]


def test_claims_are_judged_by_the_rows(result):
    """By these made-up rows everything grows as n in theory, and all but COMLN when measured."""
    orders, decomposed, exact = table1.facts(result)
    assert orders.verdict is Verdict.REFUTED and "COMLN, RK grows as n^0.00 and not n^1.00 at small" in orders.evidence
    assert decomposed.verdict is Verdict.HOLDS and "10.0 times less at large" in decomposed.evidence
    assert exact.verdict is Verdict.HOLDS and "25 % off at n = 10" in exact.evidence
    as_theory = [dataclasses.replace(row, measured_bytes=row.theory_bytes) for row in result.rows]
    near = dataclasses.replace(result, rows=tuple(as_theory), imaml=(GradientError(10, 1e-5, 1.0),))
    assert [fact.verdict for fact in table1.facts(near)] == [Verdict.HOLDS, Verdict.REFUTED, Verdict.REFUTED]


def test_the_page_stands_alone_and_the_numbers_come_back(result, tmp_path):
    paths = table1.write(result, tmp_path)
    assert [path.name for path in paths] == list(table1.FILES)
    page = (tmp_path / "index.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!#)|url\((?!#)|@import|<script""", page) and page.count("<table>") == 3
    content = json.loads((tmp_path / "table1.json").read_text())
    assert content["rows"][0]["growth"] == 1.0 and len(content["facts"]) == 3 and table1.restore(content) == result


@pytest.mark.slow
def test_measured_memory_grows_as_the_theory_says(tmp_path, monkeypatch, capsys):
    sizes = Size("small", Conv4Config(2), 28, 2, 1), Size("large", Conv4Config(2), 28, 2, 3)
    monkeypatch.setitem(table1.SPENDING, Budget.SMOKE, Spending(sizes, (256, 4096), (10,)))
    assert main.run(["reproduce", "table1", "--budget", "smoke", "--out", str(tmp_path / "out"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [error["steps"] for error in content["imaml"]] == [10] and content["imaml"][0]["relative"] > 0.01
    rows = content["rows"]
    powers = {"maml": 1.0, "anil": 1.0, "checkpointed-maml": 0.5}
    for row in rows:
        assert row["growth"] == pytest.approx(powers.get(row["method"], 0.0), abs=0.05), row
    bytes_of = {(row["size"], row["method"]): row["measured_bytes"][0] for row in rows}
    # 27 times as many support triples, and Jacobians of d^2: both are most of what their methods take.
    assert bytes_of["large", "comln-rk"] > 9 * bytes_of["small", "comln-rk"]
    assert bytes_of["large", "comln-naive"] > 20 * bytes_of["large", "comln-rk"]
