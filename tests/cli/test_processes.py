"""Runs of several devices and of several processes, by the command line: how they go, and how they end."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from comln.checkpoint import Checkpoints, named_arrays
from comln.run import load_run
from tests.test_devices import environment, free_port

SMALL = ["--tasks-per-step", "4", "--train.queries", "2", "--backbone.filters", "4", "--tasks", "4"]
LIMIT_S = 300
"""After which what hangs is ended; on an idle machine all is done in a tenth of it."""


@contextmanager
def processes(*commands: list[str], devices: int = 1):
    """Start `comln train` with each of the options; what one prints goes to the file named by its number."""
    started = []
    try:
        for i, (command, said) in enumerate(zip(commands, [Path(c[1]).parent for c in commands], strict=True)):
            with (said / f"{i}.txt").open("w") as file:
                words = [sys.executable, "-m", "comln", "train", *command]
                started.append(subprocess.Popen(words, env=environment(devices, double=True), stdout=file, stderr=file))
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def pair(out: Path, *words: str, second: list[str] | None = None) -> list[list[str]]:
    """Return the options of two processes of one run."""
    place = ["--coordinator", f"localhost:{free_port()}", "--processes", "2"]
    options = ["--out", str(out), *SMALL, *words, *place]
    return [[*options, "--process", "0"], [*options, "--process", "1", *(second or [])]]


def ends(started) -> list[int]:
    deadline = time.monotonic() + LIMIT_S
    return [process.wait(timeout=deadline - time.monotonic()) for process in started]


def said(folder: Path, process: int) -> str:
    """Return what a process printed, but for the greeting of the library that connects it with the others."""
    lines = (folder / f"{process}.txt").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("[Gloo] Rank"))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def updates(out: Path) -> int:
    file = out / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_told_to_stop_save_and_go_on_to_the_same_parameters(tmp_path):
    words = ["--steps", "100", "--checkpoint-every", "1000"]  # so many that the signal comes before the end
    with processes(*pair(tmp_path / "whole", *words)) as started:
        assert ends(started) == [0, 0], said(tmp_path, 0)
    out = tmp_path / "r"
    with processes(*pair(out, *words)) as started:
        wait_until(lambda: updates(out) >= 2)
        for process in started:
            process.send_signal(signal.SIGTERM)
        assert ends(started) == [0, 0]
    assert "stopped and saved at step" in said(tmp_path, 0) and len(Checkpoints(out / "checkpoints").steps()) == 1
    assert not (out / "evaluation.json").exists()
    with processes(*pair(out, *words, "--resume")) as started:
        assert ends(started) == [0, 0], said(tmp_path, 0)
    assert losses(out) == losses(tmp_path / "whole")
    whole, resumed = (named_arrays(load_run(folder).learner) for folder in (tmp_path / "whole", out))
    for name, array in whole.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)


@pytest.mark.slow
def test_where_the_first_process_cannot_write_all_end_with_one_line_each(tmp_path):
    out = tmp_path / "r"
    out.mkdir()
    (out / "checkpoints").write_text("in the way")
    with processes(*pair(out, "--steps", "100000", "--checkpoint-every", "2")) as started:
        assert ends(started) == [1, 1]
    first, second = said(tmp_path, 0), said(tmp_path, 1)
    assert "step 2 could not be written" in first and "Traceback" not in first
    assert second.count("\n") == 1 and "another process of this run failed" in second
    assert updates(out) < 10


@pytest.mark.slow
def test_a_process_that_loses_the_other_says_so_in_one_line_and_ends(tmp_path):
    out = tmp_path / "r"
    with processes(*pair(out, "--steps", "100000", "--checkpoint-every", "1")) as started:
        wait_until(lambda: len(Checkpoints(out / "checkpoints").steps()) > 1)
        started[1].kill()
        assert ends(started) == [1, -signal.SIGKILL]
    assert "lost the others of its run" in said(tmp_path, 0).splitlines()[-1]
    assert "Traceback" not in said(tmp_path, 0) and load_run(out).step >= 1


@pytest.mark.slow
def test_a_mistake_in_one_process_ends_all_before_anything_is_written(tmp_path):
    with processes(*pair(tmp_path / "r", "--steps", "4", second=["--test.queries", "99"])) as started:
        assert ends(started) == [2, 2]
    assert "99 queries were asked for" in said(tmp_path, 1)
    assert said(tmp_path, 0).count("\n") == 1 and "another process of this run failed" in said(tmp_path, 0)
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_run_over_four_devices_that_hold_the_examples_is_that_over_one_but_for_the_order_of_sums(tmp_path):
    for devices, place in ((1, "host"), (4, "device")):
        words = ["--out", str(tmp_path / f"r{devices}"), *SMALL, "--steps", "4", "--devices", str(devices)]
        words += ["--examples-on", place]
        with processes(words, devices=4) as started:
            assert ends(started) == [0], said(tmp_path, 0)
    np.testing.assert_allclose(losses(tmp_path / "r4"), losses(tmp_path / "r1"), rtol=1e-9)
    one, four = (json.loads((tmp_path / f"r{devices}" / "evaluation.json").read_text()) for devices in (1, 4))
    assert four["accuracy"] == one["accuracy"] and four["horizon"] == pytest.approx(one["horizon"], rel=1e-9)
