"""Pickles of every writer are read right, and hostile ones do nothing but raise."""

import codecs
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from comln.data import safe_pickle
from comln.data.data_error import DataError
from comln.data.safe_pickle import load_pickle
from comln.data.stored_array import StoredArray

PYTHON2 = sorted((Path(__file__).parent / "python2").glob("*.pkl"))
IMAGES = (np.arange(4 * 2 * 2 * 3) * 5 % 256).astype(np.uint8).reshape(4, 2, 2, 3)
BIG = (np.arange(2 * 20 * 20 * 3) * 7 % 256).astype(np.uint8).reshape(2, 20, 20, 3)


def content():
    """Return what the files of Python 2 in `python2/` hold too; see the program there."""
    return {
        "data": IMAGES,
        "big": BIG,
        "fortran": np.asfortranarray(IMAGES[..., 0]),
        "labels": [3, 3, 70000, 70000],
        "catname2label": {"n01532829": 3, "n01558993": 70000},
        "unicode": "caf\u00e9",
        "floats": np.array([[0.5, -1.0], [2.0, 1e-3]], np.float32),
        "big_endian": np.array([1, 2, 3], ">i4"),
        "scalar": np.int64(7),
        "keys": np.array(["a-n01532829-n01532829_1", "b-n01558993-n01558993_2"], "S"),
        "object_keys": np.array(["a-n01532829-n01532829_1", "b-n01558993-n01558993_2"], dtype=object),
        "png": [np.arange(5, dtype=np.uint8)[:, None], np.arange(3, dtype=np.uint8)[:, None]],
        "long": 12345678901234567890,
        "flags": (True, False, None),
    }


def plain(value):
    """Return a value with its arrays in memory."""
    if isinstance(value, StoredArray):
        blocks = np.concatenate(list(value.blocks(3))) if value.shape else value.load()
        np.testing.assert_array_equal(blocks, value.load())
        return value.load()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def assert_equal_content(found):
    for name, expected in content().items():
        got = plain(found[name])
        if isinstance(expected, list):
            assert len(got) == len(expected)
            assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))
        else:
            np.testing.assert_array_equal(got, expected)
            assert isinstance(got, list) or getattr(got, "dtype", None) == getattr(expected, "dtype", None)


@pytest.mark.parametrize("path", PYTHON2, ids=lambda path: path.name)
def test_pickles_of_the_real_python_2_are_read(path):
    assert_equal_content(load_pickle(path))


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read(protocol, tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content(), protocol))
    assert_equal_content(load_pickle(path))


def test_a_long_array_stays_in_the_file_and_is_read_in_blocks(tmp_path):
    path, array = tmp_path / "x.pkl", np.random.default_rng(0).integers(0, 256, (3000, 5000), np.uint8)
    for protocol in (0, 2, 4, 5):
        path.write_bytes(pickle.dumps({"data": array}, protocol))
        tracemalloc.start()
        stored = load_pickle(path)["data"]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        blocks = 0
        for start, block in enumerate(stored.blocks(100)):
            np.testing.assert_array_equal(block, array[100 * start : 100 * start + 100])
            blocks += 1
        assert blocks == 30 and tracemalloc.get_traced_memory()[1] < 40 << 20
        tracemalloc.stop()


def refused(tmp_path, program, reason):
    """Assert that a pickle is refused with its name and a reason, within little memory."""
    path = tmp_path / "hostile.pkl"
    path.write_bytes(program)
    tracemalloc.start()
    with pytest.raises(DataError, match=reason) as caught:
        found = load_pickle(path)
        if isinstance(found, StoredArray):
            found.load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert peak < 16 << 20


class Command:
    """Runs a command when an ordinary reader unpickles it."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_executed(protocol, tmp_path):
    program = pickle.dumps({"data": Command(f"touch {tmp_path}/executed")}, protocol)
    refused(tmp_path, program, r"it asks for posix.system, which could run code. It is refused; nothing was run")
    assert not (tmp_path / "executed").exists()


def called(module, name, arguments):
    """Return a pickle that calls a name with arguments that are pickles without an end."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR."


TEXT = b"U\x01x"
DTYPE = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"


def array_of(shape, dtype=DTYPE, data=b"U\x04abcd"):
    """Return a pickle of an array with the pickle of its shape."""
    return b"\x80\x02" + EMPTY + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb."


def dtype_of(code, state):
    return b"cnumpy\ndtype\n(" + code + b"K\x00K\x01tR(" + state + b"tb"


def test_the_bricks_of_hostile_arrays_make_an_honest_one(tmp_path):
    (tmp_path / "x").write_bytes(array_of(b"(K\x04t"))
    assert load_pickle(tmp_path / "x").load().tolist() == [97, 98, 99, 100]


DEEP = 500
NOT_ALLOWED = "which could run code. It is refused"
UNKNOWN = "which no data set needs. It is refused"
HOSTILE = {
    "builtins": (called("builtins", "eval", [TEXT]), NOT_ALLOWED),
    "old builtins": (called("__builtin__", "eval", [TEXT]), NOT_ALLOWED),
    "unpickling reader": (called("numpy", "load", [TEXT]), NOT_ALLOWED),
    "subclass": (called("numpy", "matrix", [TEXT]), NOT_ALLOWED),
    "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", NOT_ALLOWED),
    "name that is no text": (b"\x80\x04K\x01K\x02\x93.", "a name that is no text"),
    "unhashable name": (b"\x80\x04]]\x93.", "a name that is no text"),
    "name of nested tuples": (b"\x80\x04)" + b"\x85" * DEEP + b"\x8c\x01x\x93.", "a name that is no text"),
    "nested tuples as a key": (b"\x80\x02})" + b"\x85" * DEEP + b"Ns.", "neither a text nor a whole number"),
    "nested tuples among keys": (
        b"\x80\x02}(" + TEXT + b"N)" + b"\x85" * DEEP + b"Nu.",
        "neither a text nor a whole number",
    ),
    "a key of doubling tuples": (
        b"\x80\x02})" + b"q\x00h\x00\x86" * 80 + b"Ns.",
        "neither a text nor a whole number",
    ),
    "a shape of doubling tuples": (array_of(b")" + b"q\x00h\x00\x86" * 80), "claims the shape of something other"),
    "order of bytes as a size": (
        array_of(b"(K\x01t", dtype_of(b"U\x02u4", b"K\x03J\x00\x00\x00\x7fNNNK\x00K\x01K\x00")),
        "neither < nor >",
    ),
    "many marks": (b"\x80\x02" + b"(" * 5000 + b".", "more than 1000 marks"),
    "codec": (called("_codecs", "encode", [TEXT, b"U\x05rot13"]), "in a way that numpy does not"),
    "lone array": (called("numpy", "ndarray", [b"(K\x09t"]), "in a way that numpy does not"),
    "array of a subclass": (
        called("numpy.core.multiarray", "_reconstruct", [b"cnumpy\ndtype\n(K\x00tU\x01b"]),
        "in a way that numpy does not",
    ),
    "call of a text": (b"\x80\x02" + TEXT + b")R.", "calls something that is no permitted name"),
    "persistent id": (b"\x80\x02U\x01xQ.", UNKNOWN),
    "old persistent id": (b"Pfile\n.", UNKNOWN),
    "extension 1": (b"\x80\x02\x82\x01.", UNKNOWN),
    "extension 2": (b"\x80\x02\x83\x01\x00.", UNKNOWN),
    "extension 4": (b"\x80\x02\x84\x01\x00\x00\x00.", UNKNOWN),
    "instance": (b"(ios\nsystem\n.", UNKNOWN),
    "object": (b"(cos\nsystem\no.", NOT_ALLOWED),
    "new object": (b"\x80\x02cnumpy\nndarray\n)\x81.", UNKNOWN),
    "new object with keywords": (b"\x80\x04cnumpy\nndarray\n)}\x92.", UNKNOWN),
    "buffer from outside": (b"\x80\x05\x97.", UNKNOWN),
    "protocol": (b"\x80\x09.", "protocol"),
    "state of a list": (b"\x80\x02]}b.", "sets the state of something that is no array"),
    "item of a name": (b"\x80\x02cnumpy\nndarray\nK\x01K\x02s.", "no dictionary"),
    "append to an array": (array_of(b"(K\x04t")[:-1] + b"K\x01a.", "no list"),
    "10 GB of bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 10**10) + b"abc.", "claims a run of 10000000000 bytes"),
    "10 GB of text": (b"\x80\x04\x8d" + struct.pack("<Q", 10**10) + b"abc.", "claims a run of 10000000000 bytes"),
    "10 GB of buffer": (b"\x80\x05\x96" + struct.pack("<Q", 10**10) + b"abc.", "claims a run of 10000000000 bytes"),
    "4 GB of old text": (b"\x80\x02T\xff\xff\xff\xffabc.", "claims a run of 4294967295 bytes"),
    "10 GB frame": (b"\x80\x04\x95" + struct.pack("<Q", 10**10) + b"K\x01.", "claims a run of 10000000000 bytes"),
    "huge number": (b"L" + b"9" * 5000 + b"L\n.", "does not end"),
    "memory that is not there": (b"\x80\x02j\xff\xff\xff\x7f.", "damaged"),
    "shape larger than its bytes": (array_of(b"(J\x00\xca\x9a\x3bt"), r"claims the shape \(1000000000,\)"),
    "negative shape": (array_of(b"(J\xff\xff\xff\xfft"), r"claims the shape \(-1,\)"),
    "overflowing shape": (array_of(b"(" + b"J\xff\xff\xff\x7f" * 4 + b"t"), "claims the shape"),
    "too many axes": (array_of(b"(" + b"K\x01" * 60 + b"t"), "claims the shape"),
    "shape of texts": (array_of(b"(U\x014t"), "claims the shape"),
    "objects in bytes": (
        array_of(
            b"(K\x01t",
            dtype_of(b"U\x02O8", b"K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"),
            b"U\x08" + 8 * b"x",
        ),
        "an array of objects is no list",
    ),
    "fields": (
        array_of(b"(K\x01t", dtype_of(b"U\x02V4", b"K\x03U\x01|N(U\x01at}K\x04K\x01K\x00")),
        "arrays of the type 'V4'",
    ),
    "fields of a number": (
        array_of(b"(K\x01t", dtype_of(b"U\x02i4", b"K\x03U\x01<N(U\x01at}K\x04K\x01K\x00")),
        "arrays of the type 'i4'",
    ),
    "dates": (array_of(b"(K\x01t", dtype_of(b"U\x02M8", b"K\x03U\x01<NNNK\x08K\x01K\x00")), "arrays of the type 'M8'"),
    "empty texts": (
        array_of(b"(K\x01t", dtype_of(b"U\x02S0", b"K\x03U\x01|NNNK\x00K\x01K\x00")),
        "arrays of the type 'S0'",
    ),
    "type by expression": (
        array_of(b"(K\x01t", dtype_of(b"U\x05i4,i4", b"K\x03U\x01<NNNK\x08K\x01K\x00")),
        "arrays of the type 'i4,i4'",
    ),
    "type that is none": (array_of(b"(K\x01t", TEXT), "not what numpy writes"),
    "empty": (b"", "ends early"),
    "text": (b"hello world\n", "pickle"),
    "picture": (b"\x89PNG\r\n\x1a\n", "pickle"),
    "marks that are not there": (b"\x80\x02t.", "lacks its arguments"),
    "end at once": (b"\x80\x02.", "lacks its arguments"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_pickle_is_refused(attack, tmp_path):
    refused(tmp_path, *HOSTILE[attack])


def test_a_far_place_in_memory_costs_nothing(tmp_path):
    """An ordinary reader makes room for every place below it."""
    (tmp_path / "x").write_bytes(b"\x80\x02K\x05r\xff\xff\xff\x7f0"[:-1] + b".")
    tracemalloc.start()
    assert load_pickle(tmp_path / "x") == 5
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_text_that_is_turned_into_bytes_over_and_over_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_pickle, "MOST_KEPT", 1 << 20)
    once = b"g0\n(g1\nU\x06latin1tR"
    program = b"\x80\x02c_codecs\nencode\np0\nX" + struct.pack("<I", 1000) + b"x" * 1000 + b"p1\n" + 2000 * once + b"."
    refused(tmp_path, program, "takes more than 1 MiB of memory")


def test_a_program_of_too_many_instructions_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_pickle, "MOST_INSTRUCTIONS", 1000)
    refused(tmp_path, b"\x80\x02" + b"}" * 2000 + b".", "more than 1000 instructions")


NESTED = b")" + b"\x85" * 2_000_000
BOMBS = {
    "nested tuples as a key": (b"}" + NESTED + b"Ns", "too much for its"),
    "a name of nested tuples": (NESTED + TEXT + b"\x93", "too much for its"),
    "shallower tuples as a key": (b"}" + NESTED[:200_000] + b"Ns", "neither a text nor a whole number"),
    "a name of shallower tuples": (NESTED[:200_000] + TEXT + b"\x93", "a name that is no text"),
    "lists": (b"]" * 4_000_000, "too much for its"),
    "dictionaries": (b"}" * 4_000_000, "too much for its"),
    "dictionaries of one item": (b"(K\x01Nd" * 1_000_000, "too much for its"),
    "lists of one item": (b"]Na" * 2_000_000, "too much for its"),
    "tuples of one item": (b")\x85" * 2_000_000, "too much for its"),
    "numbered places": (b"K\x01" + b"\x94" * 4_000_000, "too much for its"),
    "marks": (b"(" * 4_000_000, "more than 1000 marks"),
}
"""Pickles that would end the interpreter by a hash that goes down too deep, or take more than a gigabyte."""
LOADING = """
import sys, time
from pathlib import Path
from comln.data.data_error import DataError
from comln.data.safe_pickle import load_pickle
for name in sys.argv[1:]:
    began = time.process_time()
    try:
        load_pickle(Path(name))
    except DataError as error:
        print(error)
    assert time.process_time() - began < 5, name  # each takes less than 1 s where nothing else runs
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(peak.split()[1])
"""


def test_pickles_that_would_end_the_interpreter_or_fill_the_memory_are_refused_at_once(tmp_path):
    """In a process of their own, which they may end, and without the checks of types, which take most of the time."""
    for i, (program, _) in enumerate(BOMBS.values()):
        (tmp_path / f"bomb{i}.pkl").write_bytes(b"\x80\x04" + program + b".")
    command = [sys.executable, "-c", LOADING, *(f"bomb{i}.pkl" for i in range(len(BOMBS)))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *messages, peak = done.stdout.splitlines()
    for i, (message, (_, reason)) in enumerate(zip(messages, BOMBS.values(), strict=True)):
        assert message.startswith(f"bomb{i}.pkl: ") and reason in message
    assert int(peak) < 300 << 10  # kB, of which this program takes a third before it reads anything


@pytest.mark.parametrize(
    "instruction", [b"}", b"]", b")\x85", b"(l", b"(d", b"(K\x01t", b"h\x00h\x01\x93", b"\x94", b"I1\n"]
)
def test_everything_that_takes_memory_is_counted(instruction, tmp_path, monkeypatch):
    monkeypatch.setattr(safe_pickle, "MOST_KEPT", 1 << 16)
    program = b"\x80\x02X\x05\x00\x00\x00numpyq\x00X\x05\x00\x00\x00dtypeq\x01"
    refused(tmp_path, program + instruction * 2000 + b".", "takes more than 0 MiB of memory")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_tiered_imagenet_is_far_from_every_limit(protocol, tmp_path, monkeypatch):
    """The limits are made smaller by as much as these 300 pictures are fewer than the 448,695 of the training split."""
    rng, share = np.random.default_rng(0), 300 / 448_695
    pictures = [rng.integers(0, 256, (2000, 1), np.uint8) for _ in range(300)]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(pictures, protocol))
    for limit in ("MOST_KEPT", "KEPT_FREE", "MOST_INSTRUCTIONS"):
        monkeypatch.setattr(safe_pickle, limit, int(getattr(safe_pickle, limit) * share))
    assert len(load_pickle(tmp_path / "x.pkl")) == 300


@pytest.mark.parametrize("path", PYTHON2, ids=lambda path: path.name)
def test_a_truncated_pickle_is_refused_wherever_it_ends(path, tmp_path):
    whole, cut = path.read_bytes(), tmp_path / "cut.pkl"
    for length in range(0, len(whole) - 1, 29):
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.pkl"):
            load_pickle(cut)


@pytest.mark.parametrize("path", [*PYTHON2, None], ids=lambda path: path.name if path else "protocol 5")
def test_a_damaged_pickle_raises_nothing_but_a_data_error(path, tmp_path, recwarn):
    whole = bytearray(path.read_bytes() if path else pickle.dumps(content(), 5))
    damaged, rng = tmp_path / "damaged.pkl", np.random.default_rng(0)
    for place in rng.integers(len(whole), size=300):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(flipped)
        try:
            found = load_pickle(damaged)
            for value in found.values() if isinstance(found, dict) else []:
                plain(value)
        except DataError:
            continue


def test_a_text_that_stands_for_no_bytes_is_refused(tmp_path):
    text = "\u20ac" * 700
    program = b"\x80\x02" + EMPTY + b"(K\x01(M\xbc\x02t" + DTYPE + b"\x89c_codecs\nencode\n(X"
    encoded = codecs.encode(text, "utf-8")
    refused(
        tmp_path, program + struct.pack("<I", len(encoded)) + encoded + b"U\x06latin1tRtb.", "does not stand for bytes"
    )
