import json
import re

import jax
import numpy as np
import pytest

from comln.cli import main
from comln.reproduce import glyphs
from comln.reproduce.measure import environment
from comln.reproduce.workspace import Budget, Workspace

LEARNERS = ("comln", "protonet")


@pytest.fixture
def short(monkeypatch):
    """Let a comparison be of two methods, for a moment. (Optax mixes integers and floats.)"""
    monkeypatch.setattr(glyphs, "LEARNERS", LEARNERS)
    monkeypatch.setitem(glyphs.SPENDING, Budget.SMOKE, glyphs.Spending(0.2, 20, 20, 4, glyphs.SETTINGS[:1]))
    with jax.numpy_dtype_promotion("standard"):
        yield


def row(setting, learner, accuracy, difference):
    ci95 = None if difference is None else 0.01
    return glyphs.Row(setting, learner, accuracy, 0.02, difference, ci95, 0, 101, 4, 10.0, 5_000_000, 1.25, {})


@pytest.fixture
def result():
    setting = glyphs.SETTINGS[0]
    rows = row(setting, "comln", 0.97, None), row(setting, "protonet", 0.95, -0.02)
    return glyphs.Comparison(Budget.COMMITTED, glyphs.SPENDING[Budget.COMMITTED], {setting: 1000}, rows, environment())


def test_the_table_says_what_the_numbers_are(result):
    ((title, (header, comln, other)),) = glyphs.tables(result.rows, result.tasks)
    assert title == "5way-1shot, 1000 test tasks"
    cells = dict(zip(header, other, strict=True))
    assert cells["accuracy, %"] == "95.00 ± 2.00" and cells["minus COMLN's, %"] == "-2.00 ± 1.00"
    assert cells["tasks seen"] == "404" and cells["ms/update"] == "100" and cells["memory, MB"] == "5"
    assert comln[header.index("minus COMLN's, %")] == ""


def test_all_files_are_written_and_the_page_stands_alone(result, tmp_path):
    paths = glyphs.write(result, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(glyphs.FILES)
    assert all(path.stat().st_size > 500 for path in paths)
    page = (tmp_path / "index.html").read_text()
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page) and "protonet" in page
    assert json.loads((tmp_path / "glyphs.json").read_text())["rows"][1]["difference"] == -0.02


@pytest.mark.slow
def test_a_comparison_is_paired_and_goes_on_where_it_stopped(short, tmp_path):
    said = []
    work = Workspace(tmp_path, Budget.SMOKE, lambda what, done: said.append(done))
    first = glyphs.compute(work)
    assert [(r.learner, r.difference is None) for r in first.rows] == [("comln", True), ("protonet", False)]
    files = {learner: next(tmp_path.glob(f"{glyphs.SETTINGS[0]}-{learner}-*.json")) for learner in LEARNERS}
    of = {learner: np.array(json.loads(file.read_text())["result"]["accuracies"]) for learner, file in files.items()}
    assert all(len(x) == 20 for x in of.values())
    difference = of["protonet"] - of["comln"]
    assert first.rows[1].difference == pytest.approx(difference.mean(), abs=1e-9)
    assert first.rows[1].difference_ci95 == pytest.approx(1.96 * difference.std(ddof=1) / 20**0.5, abs=1e-9)
    assert said == sorted(said) and all(0 <= done <= 1 for done in said)

    files["protonet"].unlink()
    kept = files["comln"]
    before = kept.stat().st_mtime_ns
    again = glyphs.compute(Workspace(tmp_path, Budget.SMOKE))
    assert kept.stat().st_mtime_ns == before and again.rows[0] == first.rows[0]


@pytest.mark.slow
def test_the_command_writes_where_it_is_told(short, tmp_path, capsys):
    code = main.run(["reproduce", "glyphs", "--budget", "smoke", "--out", str(tmp_path / "g"), "--json"])
    printed = capsys.readouterr()
    assert code == 0 and json.loads(printed.out)["budget"] == "smoke"
    assert {path.name for path in (tmp_path / "g").iterdir()} == {*glyphs.FILES, "parts"}
