import dataclasses
import json
import re

import pytest

from comln.cli import main
from comln.recipes.backbones import Conv4Config
from comln.reproduce import table1
from comln.reproduce.measure import environment
from comln.reproduce.table1 import LINES, Counts, Row, Size, Spending, Table1
from comln.reproduce.workspace import Budget

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


def test_counts_are_those_of_the_network():
    counts = table1._counts(table1.CONV4)
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
    return Table1(Budget.COMMITTED, Spending(sizes, (10, 100)), counts, tuple(rows), environment())


def test_the_table_has_theory_beside_measurement(result):
    (title, (header, maml, *_, comln, _span)), _ = table1.tables(result)
    assert title == "small: M = 3, N = 2, d = 5, |θ| = 70"
    assert dict(zip(header[:4], maml[:4], strict=True)) == {
        "method": "MAML",
        "exact": "yes",
        "whole network": "yes",
        "O()": "|θ| n",
    }
    assert maml[4:] == ["1.00 kB", "4.00 kB", "10.0 kB", "40.0 kB", "4.00", "n^1.00"]
    assert comln[0] == "COMLN" and comln[-1] == "n^0.00"


def test_the_page_stands_alone_and_the_numbers_come_back(result, tmp_path):
    paths = table1.write(result, tmp_path)
    assert [path.name for path in paths] == list(table1.FILES)
    page = (tmp_path / "index.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!#)|url\((?!#)|@import|<script""", page) and page.count("<table>") == 2
    content = json.loads((tmp_path / "table1.json").read_text())
    assert content["rows"][0]["growth"] == 1.0 and table1.restore(content) == result


@pytest.mark.slow
def test_measured_memory_grows_as_the_theory_says(tmp_path, monkeypatch, capsys):
    sizes = Size("small", Conv4Config(2), 28, 2, 1), Size("large", Conv4Config(2), 28, 2, 3)
    monkeypatch.setitem(table1.SPENDING, Budget.SMOKE, Spending(sizes, (256, 4096)))
    assert main.run(["reproduce", "table1", "--budget", "smoke", "--out", str(tmp_path / "out"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    powers = {"maml": 1.0, "anil": 1.0, "checkpointed-maml": 0.5}
    for row in rows:
        assert row["growth"] == pytest.approx(powers.get(row["method"], 0.0), abs=0.05), row
    bytes_of = {(row["size"], row["method"]): row["measured_bytes"][0] for row in rows}
    # 27 times as many support triples, and Jacobians of d^2: both are most of what their methods take.
    assert bytes_of["large", "comln-rk"] > 9 * bytes_of["small", "comln-rk"]
    assert bytes_of["large", "comln-naive"] > 20 * bytes_of["large", "comln-rk"]
