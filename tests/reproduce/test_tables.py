"""Tables 2, 4 and 5 and Figures 1 and 5: what they conclude, and what they write."""

import dataclasses
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from comln.recipes.benchmarks import published
from comln.reproduce import figure1, figure5, table2, table4, table5
from comln.reproduce.facts import Verdict
from comln.reproduce.scores import Score
from comln.reproduce.workspace import Workspace
from tests.reproduce.results import points, result2, result4, result5, result_of_embeddings

HOLDS, REFUTED, UNDECIDED = Verdict.HOLDS, Verdict.REFUTED, Verdict.UNDECIDED


def verdicts(facts):
    return [fact.verdict for fact in facts]


# What is concluded


@pytest.mark.parametrize(
    ("rivals", "nets", "more", "expected"),
    [
        (-3.0, 0.5, 1.0, [HOLDS, HOLDS, HOLDS, HOLDS]),
        (3.0, 0.5, -1.0, [REFUTED, HOLDS, REFUTED, REFUTED]),
        (0.1, 4.0, 0.0, [UNDECIDED, REFUTED, UNDECIDED, UNDECIDED]),
        (-3.0, -5.0, 1.0, [HOLDS, HOLDS, REFUTED, REFUTED]),  # it gains, and has no lead
    ],
)
def test_table2_is_judged_by_every_seed_and_the_interval(rivals, nets, more, expected):
    assert verdicts(table2.facts(result2(rivals, nets, more))) == expected


@pytest.mark.parametrize(
    ("trained", "same", "expected"),
    [(0.1, 0.0, [HOLDS, HOLDS]), (3.0, 0.5, [REFUTED, REFUTED]), (0.9, 0.1, [UNDECIDED, UNDECIDED])],
)
def test_table4_calls_alike_what_is_surely_close(trained, same, expected):
    assert verdicts(table4.facts(result4(trained, same)))[::-1] == expected[::1]


def test_figure5_compares_the_horizons_of_all_seeds():
    harder, shots, as_good, saves, soonest = figure5.facts(result5())
    # By the number of ways, one seed of the harder tasks is shorter.
    assert harder.verdict is UNDECIDED and "4.75 to 25.5" in harder.evidence and "18 to 22" in harder.evidence
    assert shots.verdict is HOLDS and as_good.verdict is HOLDS
    assert saves.verdict is HOLDS and "2.50 to 2.50 times the solver steps" in saves.evidence
    assert soonest.verdict is UNDECIDED and "T = 1000 in 0.3 s" in soonest.evidence
    assert verdicts(figure5.facts(result5(best_fixed=5.0, five=(10.0, 20.0, 30.0))))[1:3] == [REFUTED, REFUTED]


@pytest.mark.parametrize(("seconds", "expected"), [(0.1, HOLDS), (1.0, REFUTED), (0.31, UNDECIDED), (None, REFUTED)])
def test_figure5_tells_whether_a_fixed_horizon_is_sooner_there(seconds, expected):
    found = result5()
    learned = dataclasses.replace(found.compared[0], seconds_to_accuracy=seconds)
    assert verdicts(figure5.facts(dataclasses.replace(found, compared=(learned, *found.compared[1:]))))[-1] is expected


def test_trainings_that_diverged_leave_claims_undecided_and_pictures_whole():
    two = result2(-3.0, 0.5, 1.0)
    diverged = tuple(dataclasses.replace(row, accuracy=None, difference=None) for row in two.rows)
    assert verdicts(table2.facts(dataclasses.replace(two, rows=diverged))) == [UNDECIDED] * 4 * len(two.shots)
    four = result4()
    euler = [row for row in four.rows if row.solver == "Euler"]
    gone = {id(row): dataclasses.replace(row, accuracy=None, difference=None, of_same_weights=None) for row in euler}
    without = dataclasses.replace(four, rows=tuple(gone.get(id(row), row) for row in four.rows))
    assert (
        euler and table4.facts(without)[1].verdict is REFUTED and "Diverged: Euler" in table4.facts(without)[1].evidence
    )
    five = result5()
    first = five.compared[1]
    cut = dataclasses.replace(
        first,
        accuracy=None,
        difference=None,
        solver_steps=((10,), *first.solver_steps[1:]),
        validation=((), *first.validation[1:]),
    )
    broken = dataclasses.replace(five, compared=(five.compared[0], cut, *five.compared[2:]))
    figure5.draw(broken)
    assert len(figure5.facts(broken)) == 5


@pytest.mark.parametrize(
    ("others", "short", "separate", "expected"),
    [
        (0.5, 0.0, 90.0, [HOLDS, REFUTED, HOLDS]),
        (5.0, -10.0, 80.0, [REFUTED, HOLDS, REFUTED]),
        (2.0, -1.0, 90.0, [UNDECIDED, UNDECIDED, HOLDS]),
    ],
)
def test_table5_judges_methods_and_solver(others, short, separate, expected):
    assert verdicts(table5.facts(result_of_embeddings(others, short, separate))) == expected


@pytest.mark.parametrize(
    ("five", "expected"), [((30.0, 31.0, 32.0), HOLDS), ((10.0, 11.0, 12.0), REFUTED), ((10.0, 21.0, 30.0), UNDECIDED)]
)
def test_table5_compares_the_horizons_of_one_and_of_five_shots(five, expected):
    one = result_of_embeddings()  # with horizons of 20, 21 and 22
    row = dataclasses.replace(one.rows[0], shots=5, horizons=five)
    both = dataclasses.replace(one, rows=(*one.rows, row))
    assert table5.facts(both)[-1].claim.startswith("T is shorter") and table5.facts(both)[-1].verdict is expected


def test_intervals_that_overlap_agree_with_the_paper():
    number = published("mini-imagenet-5way-1shot", "comln")  # 53.01 ± 0.62
    assert table2.overlap(points(52.3, 0.2), number) and not table2.overlap(points(52.1, 0.2), number)
    assert table2.overlap(None, number) is None and table2.overlap(points(52.0), None) is None


def test_a_method_that_diverged_is_beaten_and_named():
    whole = result2()
    rows = tuple(
        table2.Row(**{**vars(row), "accuracy": None, "difference": None}) if row.learner == "cavia" else row
        for row in whole.rows
    )
    less = table2.Table2(**{**vars(whole), "rows": rows})
    assert "cavia diverged" in table2.facts(less)[0].evidence
    assert "diverged" in table2.describe(less)


# What is written


CASES = {
    "table2": (table2, result2()),
    "table4": (table4, result4()),
    "table5": (table5, result_of_embeddings()),
    "figure5": (figure5, result5()),
}


@pytest.mark.parametrize("target", CASES)
def test_all_files_are_written_and_the_page_stands_alone(target, tmp_path):
    module, result = CASES[target]
    paths = module.write(result, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(module.FILES)
    assert all(path.stat().st_size > 500 for path in paths)
    page = (tmp_path / "index.html").read_text()
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page)
    assert "a stand-in for the data of the paper" in page and f"comln reproduce {target}" in page
    assert all(html.escape(fact.claim) in page for fact in module.facts(result))


@pytest.mark.parametrize("target", CASES)
def test_a_result_is_restored_from_its_numbers(target):
    module, result = CASES[target]
    content = json.loads(json.dumps(module.numbers(result)))
    assert content["target"] == target and content["facts"][0]["verdict"] in ("holds", "refuted", "undecided")
    assert module.restore(content) == result


def test_the_table_puts_the_papers_numbers_beside_ours():
    ((_, (header, comln, *_)),) = table2.tables(result2())
    cells = dict(zip(header, comln, strict=True))
    assert cells["accuracy, %"] == "90.00 ± 0.20 (89.9 to 90.1)" and cells["tasks seen"] == "1,280"
    assert cells["paper, mini-imagenet"] == "53.01 ± 0.62" and "agrees" not in header
    ((title, (header, comln, *others)),) = table2.tables(result2(data="mini-imagenet"))
    assert comln[header.index("agrees")] == "fail" and title.startswith("mini-imagenet")
    by_name = {row[0]: row[header.index("paper, mini-imagenet")] for row in others}
    assert by_name["metaoptnet-rr, 15 shots"] == "53.23 ± 0.59" and by_name["metaoptnet-rr"] == ""


def test_a_seed_that_diverged_leaves_a_word():
    assert table2.in_percent(None) == "diverged"
    assert table2.in_percent(Score(0.5, 0.01, (0.5,), 10), "+") == "+50.00 ± 1.00"


# Figure 1


@pytest.fixture(scope="module")
def plane():
    return figure1.compute(Workspace(Path()))


def test_descent_comes_to_the_flow_by_first_order_and_is_comln_by_euler(plane):
    assert verdicts(figure1.facts(plane)) == [HOLDS, HOLDS]
    near, far = plane.steps[-1], plane.steps[-2]
    assert near.distance == pytest.approx(far.distance / 2, rel=0.1) and near.count == 2 * far.count
    assert all(row.from_euler < 1e-10 for row in plane.steps)  # in double precision


def test_both_ways_begin_at_one_point_and_the_loss_falls_along_the_flow(plane):
    assert plane.path[0] == pytest.approx(figure1.START) and plane.descent[0] == pytest.approx(figure1.START)
    embeddings = np.array(plane.embeddings)
    signs = np.repeat([1.0, -1.0], len(embeddings) // 2)
    margins = 2 * signs * (np.array(plane.path) @ embeddings.T)
    losses = np.mean(np.logaddexp(0.0, -margins), axis=1)
    assert np.all(np.diff(losses) < 0)
    slope = np.mean((-signs / (1 + np.exp(margins[0])))[:, None] * embeddings, axis=0)
    moved = np.array(plane.path[1]) - plane.path[0]
    assert moved @ -slope == pytest.approx(np.linalg.norm(moved) * np.linalg.norm(slope), rel=1e-2)


def test_figure1_is_written_and_restored(plane, tmp_path):
    figure1.write(plane, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(figure1.FILES)
    assert figure1.restore(json.loads((tmp_path / "figure1.json").read_text())) == plane
