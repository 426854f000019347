"""Interrupt training at random moments, go on with --resume, and compare the end with that of a run left alone.

Run:     python benchmarks/interruptions.py [--trials 20] [--out FILE]
Writes:  benchmarks/results/interruptions.json, after each trial; `--trials` of each signal, SIGKILL and SIGTERM
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from comln.checkpoint import named_arrays
from comln.run import RunFolder

STEPS = 30
WORDS = ["--steps", str(STEPS), "--checkpoint-every", "4", "--validate-every", "10", "--validation-tasks", "4"]
WORDS += ["--tasks-per-step", "2", "--train.queries", "2", "--backbone.filters", "4", "--tasks", "4", "--seed", "3"]
LONGEST_WAIT = 0.3
PATIENCE = 1800.0


def start(folder, *words):
    """Start training in a process of its own."""
    command = [sys.executable, "-m", "comln", "train", "--out", str(folder), *WORDS, *words]
    with said_in(folder).open("wb") as file:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)


def said_in(folder):
    """Return the file for what a run says; a pipe that nobody reads would fill up and block it."""
    return folder.with_suffix(".log")


def steps_made(folder):
    """Return how many updates are on record."""
    return sum(1 for _ in RunFolder(folder).metrics())


def wait_for(condition, process):
    """Wait until something is so, or the process has ended."""
    began = time.monotonic()
    while not condition() and process.poll() is None:
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError("The process did not come so far.")
        time.sleep(0.02)


def end(folder, process):
    """Wait for the last checkpoint, end the process, and return the checkpoint's arrays."""
    checkpoints = RunFolder(folder).checkpoints
    wait_for(lambda: STEPS in checkpoints.steps(), process)
    process.kill()
    process.wait()
    return arrays(folder)


def arrays(folder):
    """Return all arrays of the newest checkpoint by name, and what validations had shown."""
    from comln.meta_train import start_training

    run = RunFolder(folder)
    experiment = run.experiment()
    learner = experiment.build(run.configuration()["seed"])
    restored = run.restore_newest(start_training(learner, experiment.optimiser.build(learner, experiment.steps)))
    assert restored is not None
    return {name: np.asarray(array) for name, array in named_arrays(restored[0]).items()}, restored[1]


def trial(folder, number, rng, whole):
    """Interrupt one run at a random moment, resume it, and return what was seen."""
    process = start(folder)
    after, pause = int(rng.integers(STEPS)), float(rng.random() * LONGEST_WAIT)
    wait_for(lambda: steps_made(folder) >= after, process)
    time.sleep(pause)
    process.send_signal(number)
    process.wait()
    said = said_in(folder).read_text().replace(str(folder), "RUN").strip().splitlines()[-1:]
    seen = {
        "signal": signal.Signals(number).name,
        "step": steps_made(folder),
        "checkpoints": RunFolder(folder).checkpoints.steps(),
        "exit": process.returncode,
        "said": said if number == signal.SIGTERM else [],
    }
    found, selection = end(folder, start(folder, "--resume"))
    expected, expected_selection = whole
    same = found.keys() == expected.keys() and all(
        found[name].tobytes() == array.tobytes() for name, array in expected.items()
    )
    return {**seen, "identical": same and selection == expected_selection}


def commit():
    """Return the commit that is checked out."""
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()


def main():
    """Make all trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "interruptions.json")
    options = parser.parse_args()
    rng, trials = np.random.default_rng(0), []
    about = {
        "device": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("comln", "jax", "jaxlib", "orbax-checkpoint", "numpy")},
        "commit": commit(),
        "steps": STEPS,
        "compilation cache": "JAX_COMPILATION_CACHE_DIR" in os.environ,
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = end(folder / "whole", start(folder / "whole"))
        # By turns, so that a benchmark that is cut short has seen both.
        for i in range(options.trials):
            for number in (signal.SIGKILL, signal.SIGTERM):
                trials.append(trial(folder / f"{number}-{i}", number, rng, whole))
                print(json.dumps(trials[-1]), flush=True)
                options.out.write_text(json.dumps({**about, "trials": trials}, indent=2) + "\n")
    for number in (signal.SIGKILL, signal.SIGTERM):
        of_signal = [t["identical"] for t in trials if t["signal"] == signal.Signals(number).name]
        print(f"{signal.Signals(number).name}: {sum(of_signal)} of {len(of_signal)} bit-identical")


if __name__ == "__main__":
    main()
