import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.cli.test_cli import comln
from tests.data import fabricated as made
from tests.data.fabricated import SPLITS, Tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path):
    """Return a folder of pictures, two classes of three in each split."""
    for split in SPLITS:
        Tiny(8).pictures(split, tmp_path / "root" / split)
    return tmp_path / "root"


def test_check_describes_and_prepare_writes(root, tmp_path, capsys):
    code, out, _ = comln("data", "check", "folder", root, "--image-size", 8, capsys=capsys)
    assert code == 0 and "train 2 classes, 6 examples, 3 of each class" in out and "wrote" not in out
    code, out, _ = comln("data", "prepare", "folder", root, "--out", tmp_path / "out", "--json", capsys=capsys)
    summary = json.loads(out)
    assert code == 0 and summary["splits"]["val"]["examples"] == 6 and summary["example_shape"] == [84, 84, 3]
    assert (tmp_path / "out" / "manifest.json").exists() and summary["folder"] == str(tmp_path / "out")
    code, out, _ = comln("data", "prepare", "folder", root, "--out", tmp_path / "out", capsys=capsys)
    assert code == 0 and "done before and kept: train, val, test" in out


def test_the_cache_is_the_default_place(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COMLN_CACHE_DIR", str(tmp_path / "cache"))
    assert comln("data", "prepare", "folder", root, capsys=capsys)[0] == 0
    assert np.load(tmp_path / "cache" / "folder" / "train.npy", mmap_mode="r").shape == (6, 84, 84, 3)


def test_an_archive_is_read_and_leaves_nothing_behind(root, tmp_path, capsys):
    import shutil

    archive = shutil.make_archive(str(tmp_path / "pictures"), "zip", root)
    code, out, _ = comln("data", "prepare", "folder", archive, "--out", tmp_path / "o" / "out", capsys=capsys)
    assert code == 0 and "wrote" in out
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["out"]


def test_checking_an_archive_writes_only_to_the_folder_for_temporary_files(root, tmp_path, monkeypatch, capsys):
    import shutil
    import tempfile

    archive = shutil.make_archive(str(tmp_path / "pictures"), "zip", root)
    monkeypatch.setenv("COMLN_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    before = sorted(tmp_path.rglob("*"))
    code, out, err = comln("data", "check", "folder", archive, capsys=capsys)
    assert code == 0 and "train 2 classes" in out and "unpacking" in err
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "temporary").rmdir()  # where it was unpacked, then
    code, _, err = comln("data", "check", "folder", archive, capsys=capsys)
    assert code == 1 and str(tmp_path / "temporary") in err and err.count("\n") == 1


@pytest.mark.parametrize("action", ["check", "prepare"])
def test_a_terminated_command_leaves_nothing_unpacked(action, tmp_path):
    """An archive of 30,000 files takes some seconds to unpack; the signal comes after the first."""
    header = tarfile.TarInfo()
    with tarfile.open(tmp_path / "many.tar", "w") as archive:
        for i in range(30_000):
            header.name = f"{i}.png"
            archive.addfile(header)
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")}
    words = ["data", action, "folder", str(tmp_path / "many.tar"), "--out", str(tmp_path / "o" / "out")]
    command = [sys.executable, "-c", "import sys; from comln.cli.main import run; sys.exit(run(sys.argv[1:]))", *words]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        place = tmp_path / ("temporary" if action == "check" else "o")
        while process.poll() is None and not any(place.glob("*/*.png")):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == 130 and not out and "interrupted." in err and "Traceback" not in err
    assert place.exists() and not list(place.iterdir())
    assert action == "prepare" or not (tmp_path / "o").exists()


MISTAKES = {
    "name": (["check", "minimagenet", "."], "unknown data set 'minimagenet'. Did you mean 'mini-imagenet'?"),
    "option": (["check", "cub", ".", "--normalise", "l2"], "--normalise is not for cub, which has --image-size"),
    "no options": (["check", "folder", ".", "--image-size", "0"], "--image-size must be between 1 and 1024, got 0"),
    "no folder": (["check", "folder", "nowhere"], "nowhere: there is no such folder"),
    "file": (["check", "folder", "a.txt"], "a.txt: it is neither a folder nor an archive"),
    "no data": (["check", "omniglot", "empty"], "empty: no files of omniglot here. Looked for:"),
    "no list": (["check", "folder", "root", "--split-file", "x.json"], "x.json: there is no such file"),
    "bad list": (["check", "folder", "root", "--split-file", "a.json"], "a.json: it should look like"),
    "twice": (["check", "folder", "root", "--split-file", "b.json"], "b.json: it names the class 'a' twice"),
    "out": (["prepare", "folder", "root", "--out", "a.txt"], "a.txt: it is a file. Choose a folder with --out"),
    "counts": (["check", "cub", "birds"], "birds: the split 'train' should have 100 classes and 5885 examples"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_clear_line(mistake, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made.write(tmp_path / "a.txt", "x")
    made.write(tmp_path / "a.json", {"training": ["a"]})
    made.write(tmp_path / "b.json", {"train": ["a"], "test": ["a"]})
    (tmp_path / "empty").mkdir()
    for name in "abcd":
        made.write(tmp_path / "birds" / "images" / name / "1.png", "")
    words, message = MISTAKES[mistake]
    code, out, err = comln("data", *words, capsys=capsys)
    assert code == 2 and not out and message in err and err.count("\n") == 1


def test_a_place_that_cannot_be_written_gives_one_clear_line(root, tmp_path, capsys):
    made.write(tmp_path / "file", "x")
    code, _, err = comln("data", "prepare", "folder", root, "--out", tmp_path / "file" / "out", capsys=capsys)
    assert code == 1 and "Free space or change permissions" in err and err.count("\n") == 1


def test_an_interruption_says_how_to_go_on(root, tmp_path, monkeypatch, capsys):
    from comln.cli import data

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "prepare", interrupted)
    code, _, err = comln("data", "prepare", "folder", root, "--out", tmp_path / "out", capsys=capsys)
    assert code == 130 and "interrupted. The same command goes on" in err


SHORT = ["--steps", "2", "--tasks-per-step", "2", "--tasks", "4", "--validate-every", "1", "--validation-tasks", "2"]
SHAPES = ["--train.ways", "2", "--train.queries", "2", "--test.ways", "2", "--test.queries", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["comln", "maml"])
def test_images_go_from_a_folder_to_a_result(learner, tmp_path, capsys):
    for split in SPLITS:
        Tiny(16, classes=3, each=4).pictures(split, tmp_path / "root" / split)
    prepare = ["data", "prepare", "folder", tmp_path / "root", "--out", tmp_path / "ready", "--image-size", 16]
    assert comln(*prepare, capsys=capsys)[0] == 0
    words = [*tiny_training(tmp_path / "ready"), "--learner", learner]
    with jax.numpy_dtype_promotion("standard"):
        code, out, err = comln(*words, "--out", tmp_path / "run", "--json", capsys=capsys)
        assert code == 0, err
        result = json.loads(out)
        assert result["tasks"] == 4 and result["validation_accuracy"] is not None
        code, again, err = comln("evaluate", tmp_path / "run", "--tasks", 4, "--json", capsys=capsys)
        assert code == 0, err
        assert json.loads(again)["accuracy"] == result["accuracy"]
        # The place of the data is no part of the run, nor of what is handed on.
        (tmp_path / "ready").rename(tmp_path / "moved")
        file = tmp_path / "run.safetensors"
        assert comln("export", tmp_path / "run", "--out", file, capsys=capsys)[0] == 0
        assert str(tmp_path).encode() not in file.read_bytes()
        code, _, err = comln("evaluate", file, "--tasks", 4, capsys=capsys)
        assert code == 2 and "add --data-folder" in err and err.count("\n") == 1
        place = ["--data-folder", tmp_path / "moved"]
        code, again, err = comln("evaluate", file, "--tasks", 4, "--json", *place, capsys=capsys)
        assert code == 0, err
        assert json.loads(again)["accuracy"] == result["accuracy"]
        words[words.index(tmp_path / "ready")] = tmp_path / "moved"
        code, again, err = comln(*words, "--out", tmp_path / "run", "--resume", "--json", capsys=capsys)
    assert code == 0, err
    assert json.loads(again)["accuracy"] == result["accuracy"]


@pytest.mark.slow
def test_embeddings_go_from_their_pickles_to_a_result(tmp_path, capsys):
    made.leo(tmp_path / "root")
    prepare = [
        "data",
        "prepare",
        "leo-mini-imagenet",
        tmp_path / "root",
        "--out",
        tmp_path / "ready",
        "--allow-partial",
    ]
    assert comln(*prepare, capsys=capsys)[0] == 0
    words = ["train", "leo-mini-imagenet-5way-1shot", "--data.folder", tmp_path / "ready", *SHORT]
    words += ["--train.ways", 2, "--train.queries", 1, "--test.ways", 2, "--test.queries", 1]
    with jax.numpy_dtype_promotion("standard"):
        code, out, err = comln(*words, "--out", tmp_path / "run", "--json", capsys=capsys)
    assert code == 0, err
    assert json.loads(out)["tasks"] == 4


def test_data_that_are_not_prepared_are_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COMLN_CACHE_DIR", str(tmp_path / "cache"))
    code, _, err = comln("train", "mini-imagenet-5way-1shot", "--out", tmp_path / "run", capsys=capsys)
    assert code == 2 and "Run `comln data prepare mini-imagenet ROOT`" in err and not (tmp_path / "run").exists()


@pytest.fixture
def without_validation(tmp_path, capsys):
    """Return prepared pictures of two splits, those of training and test."""
    for split in ("train", "test"):
        Tiny(16, classes=3, each=4).pictures(split, tmp_path / "root" / split)
    prepare = ["data", "prepare", "folder", tmp_path / "root", "--out", tmp_path / "ready", "--image-size", 16]
    assert comln(*prepare, capsys=capsys)[0] == 0
    return tmp_path / "ready"


def tiny_training(folder):
    """Return the words of a short run on tiny pictures."""
    return [
        *("train", "mini-imagenet-5way-1shot", "--data.folder", folder, "--data.image-size", 16, "--data.padding", 2),
        *("--backbone.filters", 4, *SHORT, *SHAPES),
    ]


def test_training_asks_for_the_split_of_validation(without_validation, tmp_path, capsys):
    code, _, err = comln(*tiny_training(without_validation), "--out", tmp_path / "run", capsys=capsys)
    assert code == 2 and "no split for validation. Add --validate-every 0 --patience 0." in err
    assert "Traceback" not in err and not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.slow
def test_a_split_that_is_not_there_is_not_evaluated(without_validation, tmp_path, capsys):
    words = [*tiny_training(without_validation), "--validate-every", 0, "--patience", 0, "--out", tmp_path / "run"]
    with jax.numpy_dtype_promotion("standard"):
        code, _, err = comln(*words, capsys=capsys)
        assert code == 0, err
        code, _, err = comln("evaluate", tmp_path / "run", "--split", "val", capsys=capsys)
    assert code == 2 and "no split 'val', only train, test" in err and "Traceback" not in err
