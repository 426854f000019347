import contextlib
import json
import os
import random
import socket
import subprocess
import sys

import jax
import pytest

from comln import hosts
from comln.devices import check_divides, is_out_of_memory, task_mesh

FLAG = "--xla_force_host_platform_device_count"


def environment(devices: int, double: bool) -> dict[str, str]:
    flags = {"XLA_FLAGS": f"{FLAG}={devices}", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": str(int(double))}
    return {**os.environ, **flags}


def free_port() -> int:
    """Return a port that is free, of those that systems do not give to whoever asks for any."""
    for port in random.Random().sample(range(12_000, 32_000), 100):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("localhost", port))
            return port
    raise AssertionError("of 100 ports none is free")


def spread(path, processes: int, devices: int, double: bool) -> dict:
    """Return what `tests.spread` finds with so many processes of so many devices."""
    port = free_port()
    places = [[f"localhost:{port}", str(i)] for i in range(processes)] if processes > 1 else [[]]
    command = [sys.executable, "-m", "tests.spread", str(path)]
    started = [subprocess.Popen([*command, *place], env=environment(devices, double)) for place in places]
    try:
        codes = [process.wait(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert codes == [0] * processes
    return json.loads(path.read_text())


def test_too_little_memory_is_known_in_whatever_form_it_comes():
    text = "RESOURCE_EXHAUSTED: Out of memory allocating 72000000000000 bytes."
    assert is_out_of_memory(jax.errors.JaxRuntimeError(text)) and is_out_of_memory(ValueError(text))
    assert not is_out_of_memory(ValueError("another")) and not is_out_of_memory(OSError(text))


@pytest.mark.slow
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize(("processes", "devices"), [(1, 4), (2, 1)], ids=["4 devices", "2 processes"])
def test_losses_and_gradients_over_devices_and_processes_are_those_of_one(tmp_path, processes, devices, double):
    """But for the order of sums, which moves the last bits; in double precision nothing hides behind them."""
    found = spread(tmp_path / "found.json", processes, devices, double)
    assert found["devices"] == processes * devices
    for learner in ("comln", "anil"):
        assert found[learner]["largest_gradient"] > 1e-2
        assert found[learner]["gap"] < (1e-12 if double else 1e-6)
        # A variance is the difference of two means, which costs it a digit.
        assert found[learner]["statistics_gap"] < (1e-12 if double else 1e-5)
    # Inner gradients belong to their own task. Task n steps from 1 to 1 - n: sum n (1 - n) = 6 - 14. Were they summed
    # over the devices, each of the four tasks would step to 1 - 6.
    assert found["inner"] == [-8.0]
    assert found["told"] == "by 0" and found["any"] is True and found["zero"] == 1.0


def test_tasks_that_cannot_be_shared_evenly_are_refused_with_what_can():
    with pytest.raises(ValueError, match=r"6 tasks a step .* 4 devices. Use --tasks-per-step 4 or 8"):
        check_divides(6, 4)
    with pytest.raises(ValueError, match=r"Use --tasks-per-step 4\."):
        check_divides(2, 4)
    check_divides(8, 4)


def test_more_devices_than_there_are_are_refused():
    count = jax.local_device_count()
    with pytest.raises(ValueError, match=rf"--devices {count + 1} was asked for.* Ask for 1 to {count}"):
        task_mesh(count + 1)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("localhost", 2, 0), "HOST:PORT"),
        (("localhost:99999", 2, 0), "HOST:PORT"),
        (("localhost:1", 0, 0), "--processes must be at least 1"),
        (("localhost:1", 2, 2), "below --processes"),
    ],
)
def test_a_wrong_place_among_processes_is_refused(place, message):
    with pytest.raises(ValueError, match=message):
        hosts.Hosts(*place)
