import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from comln.cli.main import run
from comln.recipes.learners import ProtoNetConfig
from comln.run import export_run
from tests.demo.runs import untrained_run

ROOT = Path(__file__).parents[2]


def exported(folder: Path, **changes) -> str:
    export_run(untrained_run(**changes), folder / "run.safetensors")
    return str(folder / "run.safetensors")


def test_a_run_without_a_time_is_refused_in_one_line(tmp_path, capsys):
    assert run(["demo", exported(tmp_path, learner=ProtoNetConfig())]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("comln: run.safetensors is a run of ProtoNet, and the page shows") and "COMLN" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port must be between 0 and 65535, got 70000."),
        (["--data-folder", "."], "--data-folder is for prepared data"),
    ],
)
def test_a_users_mistake_gets_one_clear_line(words, message, tmp_path, capsys):
    assert run(["demo", exported(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert run(["demo", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err.splitlines()[-1]


def test_a_port_that_is_taken_is_told(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run(["demo", exported(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be listened at" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_interrupted_and_ends_well(number, tmp_path):
    command = [sys.executable, "-m", "comln", "demo", exported(tmp_path), "--port", "0", "--host", "0.0.0.0"]
    before = sorted(tmp_path.iterdir())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_ENABLE_X64": "1"}  # as the run was made here
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("http://0.0.0.0:"), process.stderr.read()
        address = line.split()[0].replace("0.0.0.0", "127.0.0.1")
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.status == 200 and b"<!doctype html>" in answer.read()
        process.send_signal(number)
        assert process.wait(30) == 0
        said = process.stderr.read()
    assert "lets everybody who reaches this machine use the page" in said and "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == before
