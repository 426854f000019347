"""What it takes to gather the images of an update on the host, and on the device where they lie there as bytes.

Run:     python benchmarks/residence.py     half a minute on two cores
Writes:  benchmarks/results/residence.json  (residence-DEVICE.json on an accelerator)
"""

import json
import time
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np

from comln.data.batches import look_up, make_batch, make_positions
from comln.data.residence import Residence, place
from comln.data.sampling import EpisodeShape, Sampler
from comln.data.source import Split
from comln.reproduce.measure import environment, interleaved

CLASSES, EACH, PIXELS = 64, 100, 84
TASKS, SHAPE = 8, EpisodeShape(5, 5, 15)
ROUNDS = 60


def images():
    """Return random images, more of them than a cache holds."""
    rng = np.random.default_rng(0)
    count = CLASSES * EACH
    return Split(
        class_names=tuple(map(str, range(CLASSES))),
        examples=rng.integers(0, 256, (count, PIXELS, PIXELS, 3), np.uint8),
        class_of=np.repeat(np.arange(CLASSES), EACH),
        group_of=np.arange(count),
        content_hash="random",
    )


def median_ms(make, sampler):
    """Return the median time of making the tasks of an update, each time other ones."""
    times = []
    for i in range(ROUNDS):
        began = time.perf_counter()
        make(sampler, 0, range(i * TASKS, (i + 1) * TASKS))
        times.append(time.perf_counter() - began)
    return round(1e3 * float(np.median(times)), 3)


def main():
    """Measure both, and write what was found."""
    split = images()
    sampler = Sampler(split, SHAPE)
    median_ms(make_batch, sampler)
    on_device = place([split], Residence.DEVICE, None)(split)
    positions = make_positions(sampler, 0, range(TASKS))
    found = {
        "images": list(split.examples.shape),
        "tasks of an update": TASKS,
        "host draws and gathers, ms": median_ms(make_batch, sampler),
        "host draws positions only, ms": median_ms(make_positions, sampler),
        "device gathers, ms": asdict(interleaved({"gather": (look_up, (positions, on_device))})["gather"]),
    }
    device = jax.devices()[0]
    name = "residence" if device.platform == "cpu" else f"residence-{device.device_kind.replace(' ', '-')}"
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.write_text(json.dumps({**found, "environment": environment()}, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
