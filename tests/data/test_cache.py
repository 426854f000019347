import json
import logging
import multiprocessing

import numpy as np
import pytest

from comln.data.cache import _read, cache_folder, cached_arrays

ARRAYS = {"a": np.arange(1000), "b": np.ones((3, 4), np.float32)}


def make():
    return ARRAYS


def must_not_make():
    raise AssertionError("found in the cache")


def test_arrays_are_made_once_and_found_again(tmp_path):
    _, digest = cached_arrays(tmp_path / "set", make)
    found, again = cached_arrays(tmp_path / "set", must_not_make)
    assert again == digest
    np.testing.assert_array_equal(found["a"], ARRAYS["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    "damage",
    ["no manifest", "truncated", "flipped", "empty", "no arrays", "not json", "a list", "older", "other digest"],
)
def test_a_damaged_cache_is_built_again_with_a_warning(tmp_path, caplog, damage):
    folder = tmp_path / "set"
    cached_arrays(folder, make)
    arrays, manifest = folder / "arrays.npz", folder / "manifest.json"
    content = bytearray(arrays.read_bytes())
    match damage:
        case "no manifest":
            manifest.unlink()
        case "truncated":
            arrays.write_bytes(content[: len(content) // 2])
        case "flipped":
            content[len(content) // 3] ^= 1
            arrays.write_bytes(content)
        case "empty":
            arrays.write_bytes(b"")
        case "no arrays":
            arrays.unlink()
        case "not json":
            manifest.write_text("{")
        case "a list":
            manifest.write_text("[]")
        case "older":
            manifest.write_text(json.dumps({"sha256": json.loads(manifest.read_text())["sha256"]}))
        case "other digest":
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "sha256": "0" * 64}))
    with caplog.at_level(logging.WARNING, "comln"):
        found, _ = cached_arrays(folder, make)
    np.testing.assert_array_equal(found["a"], ARRAYS["a"])
    assert len(caplog.records) == 1 and "is damaged" in caplog.text
    cached_arrays(folder, must_not_make)


def test_every_flipped_bit_of_the_archives_head_is_found(tmp_path):
    folder = tmp_path / "set"
    cached_arrays(folder, make)
    content = (folder / "arrays.npz").read_bytes()
    for place in range(40):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        (folder / "arrays.npz").write_bytes(flipped)
        with pytest.raises(ValueError, match="does not match its digest"):
            _read(folder)


def test_the_manifest_names_what_made_the_arrays(tmp_path):
    cached_arrays(tmp_path / "set", make, {"pillow": "13"})
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["made_with"] == {"pillow": "13"}


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING, "comln"):
        found, digest = cached_arrays(tmp_path / "file" / "set", make)
    assert "cannot be written" in caplog.text and len(digest) == 64
    np.testing.assert_array_equal(found["a"], ARRAYS["a"])


def build(folder):
    return cached_arrays(folder, make)[1]


def test_two_processes_building_at_once_both_end_well(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        digests = pool.map(build, [tmp_path / "set"] * 4)
    assert len(set(digests)) == 1
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["sha256"] == digests[0]


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("COMLN_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
