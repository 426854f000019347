"""The comparison of memory and time: its programs, how it goes on where nothing was run, and what it concludes."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Identity
from comln.cli import main
from comln.flow.integrator import Integrator
from comln.flow.meta_gradients import ForwardSensitivity
from comln.learners import ANIL, COMLN, MAML
from comln.recipes.backbones import Conv4Config, ResNet12Config
from comln.reproduce import efficiency, efficiency_page, figure3, figure4
from comln.reproduce.checkpointing import CheckpointedANIL, CheckpointedMAML
from comln.reproduce.efficiency import NAMES, Cell, Efficiency, Interleaved, Limit, Spending
from comln.reproduce.efficiency_facts import facts
from comln.reproduce.extrapolation import Estimate
from comln.reproduce.facts import Verdict
from comln.reproduce.measure import Measurement, environment
from comln.reproduce.meta_gradient_programs import METHODS, STEP, _flow, head_program, images_of_task, whole_program
from comln.reproduce.workspace import Budget, Workspace
from tests.learners.tasks import episode, objective_and_gradient, vector_of

STEPS = (1, 10, 1000)


# Programs


@pytest.mark.parametrize("steps", [pytest.param(1, marks=pytest.mark.slow), 11])
def test_checkpoints_do_not_change_the_meta_gradient(steps):
    anil = ANIL.init(Identity(4), 3, jax.random.key(0), 0.3, steps)
    maml = MAML.init(Identity(4), 3, jax.random.key(0), 0.3, steps)
    for plain, checkpointed in (
        (anil, CheckpointedANIL(backbone=anil.backbone, initial_weights=anil.initial_weights, step=0.3, steps=steps)),
        (maml, CheckpointedMAML(network=maml.network, step=0.3, steps=steps)),
    ):
        (value, gradient), (expected, slope) = (objective_and_gradient(m, episode()) for m in (checkpointed, plain))
        assert float(value) == pytest.approx(float(expected), rel=1e-12)
        np.testing.assert_allclose(vector_of(gradient)[0], vector_of(slope)[0], rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_all_exact_ways_with_euler_steps_give_one_meta_gradient():
    """ANIL, with and without checkpoints, and COMLN with Euler, by sensitivities and by SpanAdjoint."""
    names = ("anil", "checkpointed-anil", "comln-euler", "comln-span-euler")
    found = []
    for name in names:
        program = head_program(METHODS[name].build_head(4, 3, 25), episode())
        (parameters, support, query), (steps, ok) = program.function(*program.arguments)
        assert ok and int(steps) == 25
        found.append((parameters.initial_weights, support, query))
    for other in found[1:]:
        for ours, first in zip(other, found[0], strict=True):
            np.testing.assert_allclose(ours, first, rtol=1e-8, atol=1e-12)


def test_an_adaptive_method_follows_the_flow_to_the_time_of_the_steps():
    learner = METHODS["comln-rk"].build_head(4, 3, 250)
    assert isinstance(learner, COMLN)
    assert float(learner.horizon) == pytest.approx(2.5)


def test_a_task_has_images_of_any_multiple_of_a_glyph():
    small, large = images_of_task(28, 5, 1, 2), images_of_task(84, 5, 1, 2)
    assert large.support.inputs.shape == (5, 84, 84, 3) and large.query.inputs.shape == (10, 84, 84, 3)
    np.testing.assert_array_equal(large.support.inputs[:, 1::3, 2::3], small.support.inputs)
    assert float(jnp.std(small.support.inputs)) > 0.1
    with pytest.raises(ValueError, match="multiple of 28"):
        images_of_task(40, 5, 1, 2)


# What is concluded


def milliseconds(value, size=1000):
    return Measurement(value, (0.9 * value, 1.1 * value), size, 1.0, 5)


def known(value):
    return Estimate(float(value), True)


def made_up(euler_slowness=1.0):
    """Return numbers as the paper has them: a network of 100 MB and 50 ms, an ANIL step of 1 MB and 1 ms."""
    cells = []
    for name in NAMES:
        for steps in STEPS:
            memory, time = {
                "maml": (100e6 * (1 + steps), 100.0 * steps),
                "imaml": (150e6, 100.0 + 50 * steps),
                "anil": (1e6 * steps, 1.0 * steps),
                "checkpointed-anil": (1e6 * steps**0.5, 2.0 * steps),
                "comln-euler": (5e6, euler_slowness * steps),
                "comln-rk": (20e6, 8.0),
                "comln-span": (1e6, 0.5),
            }[name]
            horizon = steps / 100
            if METHODS[name].whole_network:
                limit = Limit.MEMORY if memory > 1e10 else None
                estimates = Estimate(memory, memory < 1e12), Estimate(time, limit is None)
                cells.append(Cell(name, steps, horizon, *estimates, limit=limit))
            else:
                estimates = known(max(100e6, memory)), known(time + 50), known(memory), known(time)
                cells.append(Cell(name, steps, horizon, *estimates, (time, time), 5, steps))
    heads = {name: milliseconds(1.0) for name in efficiency.HEAD_NAMES} | {
        "anil": milliseconds(10.0),
        "comln-euler": milliseconds(10.0 * euler_slowness),
        "comln-rk": milliseconds(8.0, 20_000_000),
        "comln-span": milliseconds(0.5, 1_000_000),
    }
    turns = Interleaved(10, heads, milliseconds(50.0), {name: milliseconds(60.0) for name in ("anil", "comln-span")})
    spending = Spending(Conv4Config(), 28, STEPS, STEPS, 5.0, 1.0, 1.0, 10)
    return Efficiency(Budget.COMMITTED, spending, 1600, 10**10, milliseconds(50.0), tuple(cells), turns, environment())


def test_claims_hold_where_the_numbers_are_those_of_the_paper():
    found = facts(made_up())
    assert len(found) == 9 and all(fact.verdict is Verdict.HOLDS for fact in found)
    evidence = {fact.claim: fact.evidence for fact in found}
    assert "20.0 MB" in evidence["The memory of COMLN does not grow with T."]
    grows = evidence["The memory of MAML and ANIL grows with the number of steps, that of iMAML does not."]
    assert "MAML takes 100 MB and ANIL 1.00 MB for each step" in grows and "at 343 steps" in grows
    equal = evidence["The memory of COMLN equals that of ANIL at a small number of steps."]
    assert "over 5 % more is 1,000, with 10.0 times as much" in equal and "RK's at 20 steps" in equal
    assert "SpanAdjoint's at 1 step." in equal
    assert "from 8 steps on" in evidence["An adaptive solver is much faster than Euler steps, the network not counted."]


def test_claims_are_refuted_where_the_numbers_are_others():
    by_claim = {fact.claim: fact.verdict for fact in facts(made_up(euler_slowness=10.0))}
    for which in ("not counted", "counted"):
        assert by_claim[f"With Euler steps, COMLN takes the time of ANIL, the network {which}."] is Verdict.REFUTED
    result = made_up()
    cells = [
        dataclasses.replace(cell, head_memory=known(1e6 * cell.steps)) if cell.method == "comln-rk" else cell
        for cell in result.cells
    ]
    growing = facts(dataclasses.replace(result, cells=tuple(cells)))
    assert growing[0].verdict is Verdict.REFUTED


def test_two_times_whose_spread_reaches_both_sides_leave_a_claim_undecided():
    result = made_up()
    heads = result.turns.heads | {"comln-euler": Measurement(10.0, (8.0, 20.0), 1000, 1.0, 5)}
    found = facts(dataclasses.replace(result, turns=dataclasses.replace(result.turns, heads=heads)))
    assert [fact.claim for fact in found if fact.verdict is Verdict.UNDECIDED] == [
        "With Euler steps, COMLN takes the time of ANIL, the network not counted."
    ]


def test_a_method_of_which_nothing_could_be_run_has_memory_and_no_time():
    result = made_up()
    cells = [
        dataclasses.replace(cell, time_ms=None, limit=Limit.MEMORY) if cell.method == "maml" else cell
        for cell in result.cells
    ]
    result = dataclasses.replace(result, cells=tuple(cells))
    tables = dict(efficiency_page.tables(result))
    assert tables["Time, network included"][1] == ["MAML", "", "", ""]
    assert tables["Memory, network included"][1][1] == "200 MB"
    memory, time, *_ = efficiency_page.draw(result).axes
    crosses = [axes.lines[-1] if axes is time else axes.lines[len(NAMES)] for axes in (memory, time)]
    assert [np.asarray(line.get_xdata()).tolist() for line in crosses] == [[1], []]
    assert efficiency_page.restore(efficiency_page.numbers(result, "figure3")) == result
    assert all(fact.verdict is Verdict.HOLDS for fact in facts(result))


def test_tables_mark_what_was_not_measured():
    tables = dict(efficiency_page.tables(made_up()))
    header, *rows = tables["Time, network included"]
    maml = dict(zip(header, rows[0], strict=True))
    assert maml["method"] == "MAML" and maml["n = 10"] == "1.00 s" and maml["n = 1,000"] == "~100 s"
    assert len(tables["Memory, head alone"]) == 1 + len(NAMES) - 2
    whole = tables["Whole programs at 10 steps, and the sum of their parts"]
    assert whole[1] == ["ANIL", "60.0 ms", "54.0 ms to 66.0 ms", "60.0 ms", "1.00"]


def test_the_page_stands_alone_and_the_numbers_come_back(tmp_path):
    result = made_up()
    paths = figure3.write(result, tmp_path)
    assert [path.name for path in paths] == list(figure3.FILES)
    page = (tmp_path / "index.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!#)|url\((?!#)|@import|<script""", page)
    assert page.count("<table>") == 5 and page.count("<li><b>holds</b>: ") == 9
    content = json.loads((tmp_path / "figure3.json").read_text())
    assert content["target"] == "figure3" and len(content["facts"]) == 9
    assert efficiency_page.restore(content) == result
    assert figure4.numbers(result) == content | {"target": "figure4"} and figure4.describe(result) == figure3.describe(
        result
    )
    assert "~100 s" in figure3.describe(result) and "HOLDS: An adaptive" in figure3.describe(result)


# The whole


@pytest.fixture
def short(monkeypatch):
    """Measure few steps with a small network, and leave out a method. Nearly all of the time is compilation."""
    monkeypatch.setattr(efficiency, "ORDER", tuple(name for name in efficiency.ORDER if name != "checkpointed-anil"))
    spending = Spending(Conv4Config(2), 28, (1, 1_000_000), (1, 1_000_000), 0.5, 0.01, 60.0, 10)
    monkeypatch.setitem(figure3.SPENDING, Budget.SMOKE, spending)


@pytest.mark.slow
def test_a_resnet12_has_a_finite_meta_gradient_by_the_whole_program():
    method, network = METHODS["comln-span"], ResNet12Config(widths=(2, 2, 2, 2))
    program = whole_program(method.build(network, 28, 5, 100), images_of_task(28, 5, 1, 2))
    gradient, (_, ok) = program.compile()(*program.arguments)
    vector = vector_of(gradient)[0]
    assert ok and jnp.all(jnp.isfinite(vector)) and jnp.linalg.norm(vector) > 0


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_the_command_measures_what_it_can_and_goes_on_from_what_is_there(tmp_path, capsys):
    folder = tmp_path / "out"
    command = ["reproduce", "figure3", "--budget", "smoke", "--out", str(folder), "--json"]
    assert main.run(command) == 0
    first = json.loads(capsys.readouterr().out)
    cells = {(cell["method"], cell["steps"]): cell for cell in first["cells"]}
    many = 1_000_000
    assert cells["maml", 1]["time_ms"]["measured"] and cells["maml", 1]["limit"] is None
    # A million steps of MAML are too large, those of Euler and of iMAML too slow; an adaptive solver takes few.
    assert cells["maml", many]["limit"] == "memory" and not cells["maml", many]["time_ms"]["measured"]
    for name in ("comln-euler", "imaml"):
        assert cells[name, many]["limit"] == "time" and cells[name, many]["memory"]["measured"]
    assert cells["comln-span", many]["calls"] >= 5 and cells["comln-span", many]["solver_steps"] < 1000
    assert cells["comln-span", many]["memory"] == cells["comln-span", 1]["memory"]
    assert {fact["verdict"] for fact in first["facts"]} <= {"holds", "refuted"}
    parts = {path: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()}
    assert main.run(command) == 0
    # A checkout may have a new commit by now.
    again = json.loads(capsys.readouterr().out) | {"environment": first["environment"]}
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()} == parts


@pytest.fixture
def measuring(short, tmp_path):
    with jax.enable_x64(False):
        yield efficiency._Measuring(Workspace(tmp_path, Budget.SMOKE), figure3.SPENDING[Budget.SMOKE])


def test_single_precision_is_measured_whatever_the_setting(measuring):
    """Here double precision is on; the kept states would take twice the memory."""
    assert measuring._images.support.inputs.dtype == jnp.float32


@pytest.mark.slow
def test_a_solver_that_gives_up_has_no_time(measuring):
    method = dataclasses.replace(METHODS["comln-euler"], learner=_flow(ForwardSensitivity(), Integrator.euler(STEP, 5)))
    row = measuring._measure(method, 10, True)
    assert row["failed"] and row["time"] is None
    cell = measuring._cell(method, 10, [], row, 10**6, 50.0)
    assert cell.limit is Limit.FAILURE and cell.time_ms is None and cell.memory == known(10**6)


@pytest.mark.slow
def test_where_nothing_fits_only_memory_is_told(measuring):
    measuring.limit_bytes = 1000
    few, many = measuring._cells(METHODS["anil"], 50.0)
    assert few.limit is many.limit is Limit.MEMORY and few.time_ms is many.head_time_ms is None
    assert few.memory.measured and many.head_memory.value > 1000 * few.head_memory.value
