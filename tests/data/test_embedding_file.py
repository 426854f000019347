"""Files of embeddings come back as they were written, and are what `comln data prepare` reads."""

import numpy as np
import pytest

from comln.data.data_error import DataError
from comln.data.embedding_file import open_embeddings, write_embeddings
from comln.data.prepare import prepare
from comln.data.prepared import load_prepared
from comln.data.sources.embeddings import Embeddings

ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
NAMES, LABELS = [f"{i}.png" for i in range(5)], ["owl", "cat", "owl", 'Ä, "b"', "cat"]
SUFFIX = pytest.mark.parametrize("suffix", [".npz", ".parquet"])


def blocks():
    yield ROWS[:2], NAMES[:2], LABELS[:2]
    yield ROWS[2:], NAMES[2:], LABELS[2:]


@SUFFIX
def test_embeddings_come_back_as_they_were_written(suffix, tmp_path):
    path = tmp_path / f"embeddings{suffix}"
    assert write_embeddings(path, 3, True, blocks()) == 5
    file = open_embeddings(path)
    np.testing.assert_array_equal(np.concatenate(list(file.blocks())), ROWS)
    assert (file.features, file.count, file.labels, file.names) == (3, 5, tuple(LABELS), tuple(NAMES))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@SUFFIX
def test_they_are_what_data_prepare_reads(suffix, tmp_path):
    (tmp_path / "root").mkdir()
    write_embeddings(tmp_path / "root" / f"embeddings{suffix}", 3, True, blocks())
    prepare(Embeddings(), "embeddings", tmp_path / "root", tmp_path / "out", False, lambda *progress: None)
    split = load_prepared(tmp_path / "out")["test"]
    np.testing.assert_array_equal(split.examples, ROWS)
    assert [split.class_names[c] for c in split.class_of] == LABELS


@SUFFIX
def test_without_labels_there_are_none(suffix, tmp_path):
    path = tmp_path / f"e{suffix}"
    write_embeddings(path, 3, False, ((rows, names, [None] * len(names)) for rows, names, _ in blocks()))
    assert open_embeddings(path).labels is None and open_embeddings(path).names == tuple(NAMES)


@SUFFIX
def test_what_fails_half_way_leaves_nothing(suffix, tmp_path):
    def failing():
        yield ROWS, NAMES, LABELS
        raise ValueError("half way")

    path = tmp_path / f"e{suffix}"
    with pytest.raises(ValueError, match="half way"):
        write_embeddings(path, 3, True, failing())
    with pytest.raises(DataError, match="nothing to write"):
        write_embeddings(path, 3, True, iter(()))
    assert not list(tmp_path.iterdir())


def test_embeddings_made_elsewhere_need_no_labels_or_names(tmp_path):
    np.savez_compressed(tmp_path / "e.npz", embeddings=ROWS.astype(np.float64))
    file = open_embeddings(tmp_path / "e.npz")
    assert (file.labels, file.names) == (None, None)
    np.testing.assert_array_equal(np.concatenate(list(file.blocks())), ROWS)
    np.savez(tmp_path / "e.npz", embeddings=ROWS, labels=np.array([3, 1, 2, 3, 1]))
    assert open_embeddings(tmp_path / "e.npz").labels == ("3", "1", "2", "3", "1")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": ROWS}, "it lacks the array embeddings; it has features"),
        ({"embeddings": ROWS[0]}, r"not numbers \(example, feature\)"),
        ({"embeddings": ROWS, "labels": np.zeros(4, int)}, "5 embeddings need as many labels"),
        ({"embeddings": ROWS, "labels": np.zeros(5)}, "5 embeddings need as many labels, texts or whole numbers"),
        ({"embeddings": ROWS, "labels": np.array([None] * 5)}, "only unpickling could read"),
    ],
)
def test_what_does_not_fit_is_said(arrays, message, tmp_path):
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_embeddings(tmp_path / "e.npz")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    np.savez(tmp_path / "e.npz", embeddings=np.where(ROWS > 1, np.nan, ROWS))
    with pytest.raises(DataError, match="a number that is not finite"):
        list(open_embeddings(tmp_path / "e.npz").blocks())


def test_another_kind_of_file_is_not_written(tmp_path):
    with pytest.raises(DataError, match=r"should end in \.npz or \.parquet"):
        write_embeddings(tmp_path / "e.csv", 3, True, blocks())
    with pytest.raises(DataError, match="there is no such file"):
        open_embeddings(tmp_path / "e.npz")
