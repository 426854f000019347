import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.cli import main
from comln.flow.integrator import Integrator
from comln.reproduce import figure2, reintegration
from comln.reproduce.figure2 import FILES
from comln.reproduce.measure import environment
from comln.reproduce.reintegration import (
    CURVATURES,
    HORIZON,
    HORIZONS,
    LABELS,
    PRECISIONS,
    Figure2,
    GradientErrors,
    SupportRun,
    adjoint_by_reintegration,
    exact_gradients,
    exact_path,
    quadratic,
    quadratic_run,
)


@pytest.fixture(scope="module")
def result():
    """Return the quadratic loss as it is computed, with made-up numbers for the support loss, which takes longer."""
    errors = GradientErrors(reintegrated=1e-2, kept=1e-5)
    support = [SupportRun(name, horizon, 1.0, 1e-5, 1e-3, errors, errors) for name, _ in LABELS for horizon in HORIZONS]
    runs = tuple(quadratic_run(dtype, integrator) for dtype, integrator in PRECISIONS)
    return Figure2(runs, tuple(support), environment())


@pytest.fixture
def computed_before(result, monkeypatch):
    monkeypatch.setattr(figure2, "compute", lambda work: result)


def comln(*words, capsys) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code and what it printed."""
    try:
        code = main.run([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_exact_path_solves_the_flow():
    curvature, minimum, start, _ = quadratic()
    times = np.array([0.0, 1.0, 1.0 + 1e-6])
    begin, now, next_ = exact_path(curvature, minimum, start, times)
    np.testing.assert_allclose(begin, start, rtol=1e-14)
    np.testing.assert_allclose((next_ - now) / (times[2] - times[1]), -curvature @ (now - minimum), rtol=1e-5)


def test_the_exact_gradients_are_differences_of_the_exact_path():
    curvature, minimum, start, query_minimum = quadratic()

    def loss(curvature, start):
        end = exact_path(curvature, minimum, start, np.array([3.0]))[0]
        return np.sum((end - query_minimum) ** 2) / 2

    in_start, in_curvature = exact_gradients(curvature, minimum, start, query_minimum, 3.0)
    for index, unit in enumerate(1e-5 * np.eye(2)):
        difference = (loss(curvature, start + unit) - loss(curvature, start - unit)) / 2e-5
        assert difference == pytest.approx(in_start[index], rel=1e-6)
    for change in (np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])):
        difference = (loss(curvature + 1e-5 * change, start) - loss(curvature - 1e-5 * change, start)) / 2e-5
        assert difference == pytest.approx(np.sum(in_curvature * change), rel=1e-6)


def test_the_continuous_adjoint_is_exact_where_the_flow_does_not_contract():
    """A rotation: nothing grows on the way back, so that the method itself is seen to be right."""
    turn, start, horizon = jnp.asarray(0.7), jnp.array([1.0, 2.0]), jnp.asarray(2.0)
    cotangent = jnp.array([0.3, -1.0])

    def end(turn, start):
        cosine, sine = jnp.cos(turn * horizon), jnp.sin(turn * horizon)
        return jnp.stack([cosine * start[0] - sine * start[1], sine * start[0] + cosine * start[1]])

    def rate(state, turn):
        return turn * jnp.stack([-state[1], state[0]])

    finish, pull_back = jax.vjp(end, turn, start)
    expected = pull_back(cotangent)
    tight = Integrator(rtol=1e-9, atol=1e-9)
    state, state_bar, turn_bar = adjoint_by_reintegration(rate, turn, finish, cotangent, horizon, tight)
    np.testing.assert_allclose(state, start, rtol=1e-7)
    np.testing.assert_allclose(state_bar, expected[1], rtol=1e-7)
    np.testing.assert_allclose(turn_bar, expected[0], rtol=1e-7)


def test_the_backward_trajectory_leaves_the_path_and_ours_does_not(result):
    assert [run.dtype for run in result.quadratic] == ["float32", "float64"]
    for run in result.quadratic:
        assert run.forward_distance[-1] < 10 * run.tolerance
        assert run.backward_distance[0] > 100 * np.max(run.forward_distance)
        assert run.backward_distance[-1] == pytest.approx(run.forward_distance[-1])
        assert run.growth_rate == pytest.approx(max(CURVATURES), rel=0.05)
        assert np.max(run.kept_distance) < 10 * run.tolerance
        assert run.kept_times[-1] == HORIZON and np.all(np.diff(run.kept_times) >= 0)


def test_only_the_gradient_that_needs_the_path_is_lost_on_the_quadratic(result):
    for run in result.quadratic:
        assert max(run.initial_weights.kept, run.curvature.kept) < 1e-4
        assert run.initial_weights.reintegrated < 1e-4
        assert run.curvature.reintegrated > 1e3 * run.curvature.kept


@pytest.mark.slow
def test_the_support_loss_with_a_minimum_loses_its_way_back():
    result = reintegration.compute()
    assert len(result.support) == 8
    for run in result.support:
        assert max(run.initial_weights.kept, run.embeddings.kept) < 1e-4
        assert run.forward_error < 1e-4 and 0.1 < run.moved < 10
    longest = {run.labels: run for run in result.support if run.horizon == 50.0}
    smoothed, one_hot = longest["smoothed"], longest["one-hot"]
    assert smoothed.backward_error > smoothed.moved and smoothed.initial_weights.reintegrated > 1e-2
    assert 10 * one_hot.forward_error < one_hot.backward_error < smoothed.backward_error / 100


@pytest.mark.usefixtures("computed_before")
def test_the_command_writes_numbers_pictures_and_a_page(tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    code, out, _ = comln("reproduce", "figure2", "--out", folder, capsys=capsys)
    assert code == 0 and str(folder) in out and "distance to the exact solution" in out
    assert {path.name for path in folder.iterdir()} == set(FILES)
    content = json.loads((folder / "figure2.json").read_text())
    assert content["target"] == "figure2" and {"device", "versions"} <= content["environment"].keys()
    assert len(content["quadratic"]) == 2 and len(content["support"]) == 8
    assert (folder / "figure2.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "index.html").read_text()
    assert "<svg " in page and page.count("<table>") == 4
    assert not re.search(r"""(src|href)=["'](?!#)|url\((?!#)|@import|<script""", page)
    before = (folder / "figure2.svg").read_bytes()
    code, out, _ = comln("reproduce", "figure2", "--out", folder, "--json", capsys=capsys)
    assert code == 0 and json.loads(out) == content and (folder / "figure2.svg").read_bytes() == before


@pytest.mark.usefixtures("computed_before")
def test_the_default_folder_is_named_after_the_target(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert comln("reproduce", "figure2", capsys=capsys)[0] == 0
    assert (tmp_path / "reproduced" / "figure2" / "index.html").exists()


@pytest.mark.usefixtures("computed_before")
def test_files_of_others_are_left_alone(tmp_path, capsys):
    (tmp_path / "index.html").write_text("mine")
    code, out, err = comln("reproduce", "figure2", "--out", tmp_path, capsys=capsys)
    assert code == 2 and out == "" and "holds index.html, not written by `comln reproduce figure2`" in err
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "mine"


@pytest.mark.parametrize("out", ["file", "file/folder"])
def test_a_folder_that_cannot_be_written_gets_one_line(out, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, printed, err = comln("reproduce", "figure2", "--out", tmp_path / out, capsys=capsys)
    assert code == 2 and printed == "" and err.count("\n") == 1 and "--out" in err


def test_an_unknown_target_gets_one_line_with_the_nearest(capsys):
    code, out, err = comln("reproduce", "figre2", capsys=capsys)
    assert (code, out) == (2, "")
    assert err == "comln: unknown target 'figre2'. Did you mean 'figure2'? See `comln reproduce --help`.\n"


def test_a_number_that_is_not_finite_is_null(result):
    broken = dataclasses.replace(result.support[0], backward_error=float("inf"))
    content = figure2.numbers(dataclasses.replace(result, support=(broken,)))
    assert content["support"][0]["backward_error"] is None
    json.dumps(content, allow_nan=False)
