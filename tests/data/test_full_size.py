"""A miniImageNet of full size is prepared in little memory, and tasks are drawn from it quickly."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from comln.data.batches import make_batch
from comln.data.prepared import load_prepared
from comln.data.sampling import EpisodeShape, Sampler

ROOT = Path(__file__).parents[2]
MOST_MEMORY = 2 << 30
LEAST_EPISODES_A_SECOND = 1000


def write_pickle(path, images, labels, names):
    """Write a pickle of protocol 2 as Python 2 does, whose texts are bytes: that of Python 3 takes memory and time."""
    import struct

    head = b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01("
    head += b"".join(b"J" + struct.pack("<i", n) for n in images) + b"t"
    head += b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    size = int(np.prod(images))
    rng = np.random.default_rng(images[0])
    with path.open("wb") as file:
        file.write(head + b"T" + struct.pack("<I", size))
        for _ in range(0, size, size // images[0] * 600):
            file.write(rng.bytes(size // images[0] * 600))
        file.write(b"tbU\x06labels](")
        file.write(b"".join(b"K" + bytes([label]) for label in labels) + b"e")
        file.write(b"U\x0dcatname2label}(")
        file.write(b"".join(b"U" + bytes([len(n)]) + n.encode() + b"K" + bytes([i]) for n, i in names.items()) + b"uu.")


@pytest.mark.slow
def test_a_full_mini_imagenet_is_prepared_in_two_gibibytes_and_sampled_fast(tmp_path, capsys):
    (tmp_path / "root").mkdir()
    first = 0
    for split, classes in (("train_phase_train", 64), ("val", 16), ("test", 20)):
        names = {f"n{first + c:08d}": first + c for c in range(classes)}
        labels = np.repeat(np.arange(first, first + classes), 600)
        path = tmp_path / "root" / f"miniImageNet_category_split_{split}.pickle"
        write_pickle(path, (600 * classes, 84, 84, 3), labels.tolist(), names)
        first += classes
    code = (
        "import re, sys\nfrom comln.cli.main import run\n"
        "code = run(['data', 'prepare', 'mini-imagenet', sys.argv[1], '--out', sys.argv[2]])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read()).group(1))\nsys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path / "root"), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    peak = int(done.stdout.split()[-1]) * 1024  # of the program itself: `ru_maxrss` has this process's from before exec
    assert "64 classes, 38400 examples, 600 of each class" in done.stdout
    assert peak < MOST_MEMORY

    splits = load_prepared(tmp_path / "out")
    assert splits["train"].examples.shape == (38_400, 84, 84, 3)
    sampler = Sampler(splits["train"], EpisodeShape(5, 5, 15))
    make_batch(sampler, 1, range(200))  # reads what the disk has not given yet
    # By the clock, and the fastest of many short rounds: how fast this is where nothing else runs for a moment.
    walls = []
    for first in range(0, 1000, 20):
        began = time.perf_counter()
        for start in range(first, first + 20, 4):
            make_batch(sampler, 0, range(start, start + 4))
        walls.append(time.perf_counter() - began)
    fastest, median = (20 / wall for wall in (min(walls), sorted(walls)[len(walls) // 2]))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    with capsys.disabled():
        print(
            f"\npeak {peak / 2**20:.0f} MiB; {fastest:.0f} episodes/s in the fastest round, {median:.0f} in the "
            f"median; this process has {memory} MiB"
        )
    assert fastest >= LEAST_EPISODES_A_SECOND
