"""`comln predict` and `comln embed` on folders that people might have."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from comln.cli.main import run
from comln.cli.own_examples import open_examples
from comln.data.embedding_file import open_embeddings
from comln.predict import predict
from comln.run import export_run, load_run
from tests.cli.test_cli import comln
from tests.own_runs import experiment, glyphs, save, untrained, untrained_on_embeddings

ROOT = Path(__file__).parents[2]
NAMES = ("ant", "bee", "=cat", "dog", "owl")
SHOTS = (1, 2, 3, 1, 4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """Return the file of an untrained run on glyphs."""
    path = tmp_path_factory.mktemp("exported") / "run.safetensors"
    export_run(untrained(experiment("protonet")), path)
    return path


@pytest.fixture
def folders(tmp_path) -> Path:
    """Return a folder with support and query, five classes of glyphs."""
    write_glyphs(tmp_path)
    return tmp_path


def write_glyphs(folder, shots=SHOTS, queries=2, names=NAMES):
    pictures = glyphs(len(names), max(shots) + queries)
    for name, of_class, count in zip(names, pictures, shots, strict=True):
        for i, picture in enumerate(of_class):
            part = "support" if i < count else "query"
            if i < count or i >= max(shots):
                save(folder / part / name / f"{i}.png", picture)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def predicted(folder, run_path, *words, capsys):
    out = folder / "out.csv"
    given = ("--support", folder / "support", "--query", folder / "query", "--out", out)
    code, printed, err = comln("predict", run_path, *given, *words, capsys=capsys)
    return code, printed, err, rows(out) if out.exists() else None


def test_the_file_holds_what_the_function_returns(folders, exported, capsys):
    code, printed, err, table = predicted(folders, exported, "--json", capsys=capsys)
    assert code == 0 and table is not None
    summary = json.loads(printed)
    assert summary["classes"] == {"=cat": 3, "ant": 1, "bee": 2, "dog": 1, "owl": 4} and summary["skipped"] == []
    assert table[0] == ["file", "predicted", "p(=cat)", "p(ant)", "p(bee)", "p(dog)", "p(owl)"]
    files = sorted(path.relative_to(folders / "query").as_posix() for path in (folders / "query").rglob("*.png"))
    assert [row[0].removeprefix("./") for row in table[1:]] == files and table[1][0] == "./=cat/4.png"
    support = [(path, path.parent.name) for path in sorted((folders / "support").rglob("*.png"))]
    images = np.stack([np.asarray(Image.open(path)) for path, _ in support])[..., None]
    queries = np.stack([np.asarray(Image.open(folders / "query" / name)) for name in files])[..., None]
    expected = predict(load_run(exported), images, [label for _, label in support], queries)
    np.testing.assert_allclose([[float(x) for x in row[2:]] for row in table[1:]], expected.probabilities, rtol=1e-4)
    assert [row[1] for row in table[1:]] == list(expected.predicted)
    right = [row[1] == row[0].removeprefix("./").split("/")[0] for row in table[1:]]
    assert summary["accuracy"] == np.mean(right) and summary["labelled"] == 10
    assert np.trace(summary["confusion"]) == sum(right) and np.sum(summary["confusion"]) == 10
    assert summary["interval95"][0] < summary["accuracy"] < summary["interval95"][1]
    assert "Traceback" not in err and "Warning" not in err


def test_what_is_printed_for_people(folders, exported, capsys):
    code, printed, err, _ = predicted(folders, exported, "--plot", folders / "matrix.png", capsys=capsys)
    assert code == 0 and "5 classes, 11 support examples" in printed and "10 queries" in printed
    assert "% on 10 labelled queries (95 % interval" in printed
    assert printed.splitlines()[-5].split()[0] == "=cat" and len(printed.splitlines()[-1].split()) == 6
    with Image.open(folders / "matrix.png") as picture:
        assert min(picture.size) > 300 and np.ptp(np.asarray(picture.convert("L"))) > 200
    assert err == "classifying ...\n"


def test_damaged_files_are_skipped_with_a_line_each_and_listed(folders, exported, capsys):
    (folders / "support" / "owl" / "broken.png").write_bytes((folders / "support" / "owl" / "0.png").read_bytes()[:60])
    (folders / "query" / "note.txt").write_text("not a picture")
    (folders / "support" / "stray.png").write_bytes(b"")
    code, printed, err, table = predicted(folders, exported, "--json", capsys=capsys)
    assert code == 0 and table is not None and len(table) == 11
    lines = [line for line in err.splitlines() if line.startswith("comln: skipped")]
    assert len(lines) == 3 and "support/owl/broken.png: the picture is damaged" in lines[1]
    assert "support/stray.png: it lies in no folder of a class" in lines[0] and "note.txt: it is not a pict" in lines[2]
    skipped = {(one["in"], one["file"]) for one in json.loads(printed)["skipped"]}
    assert skipped == {("support", "stray.png"), ("support", "owl/broken.png"), ("query", "note.txt")}


def test_queries_without_labels_are_predicted_only(folders, exported, capsys):
    for i, path in enumerate(sorted((folders / "query").rglob("*.png"))):
        path.rename(folders / "query" / f"{i}.png")
    for name in NAMES:
        (folders / "query" / name).rmdir()
    shutil.copy(folders / "support" / "owl" / "0.png", folders / "query" / "again.png")
    (folders / "query" / "heron").mkdir()
    (folders / "query" / "0.png").rename(folders / "query" / "heron" / "0.png")
    code, printed, err, table = predicted(folders, exported, "--json", capsys=capsys)
    assert code == 0 and table is not None and len(table) == 12
    assert json.loads(printed)["accuracy"] is None and json.loads(printed)["confusion"] is None
    assert "no class of the support is named 'heron'" in err and "1 of the queries are in the support too" in err
    assert "in another class too" not in err
    shutil.copy(folders / "support" / "owl" / "0.png", folders / "support" / "dog" / "9.png")
    assert "1 of the support examples stand in another class too" in predicted(folders, exported, capsys=capsys)[2]
    (folders / "support" / "dog" / "9.png").unlink()
    (folders / "out.csv").unlink()
    code, printed, err, table = predicted(folders, exported, "--plot", folders / "m.png", capsys=capsys)
    assert code == 2 and "no confusion matrix to --plot" in err and table is None and not (folders / "m.png").exists()


def test_drawings_of_any_size_place_and_ink_are_classified_alike(folders, exported, capsys):
    for path in (folders / "query").rglob("*.png"):
        with Image.open(path) as picture:
            picture.resize((140, 140), Image.Resampling.BICUBIC).save(path)
    bright = predicted(folders, exported, capsys=capsys)[3]
    for path in (folders / "query").rglob("*.png"):
        with Image.open(path) as picture:
            ink = np.asarray(picture)
        paper = np.full((300, 500, 3), 255, np.uint8)
        paper[130:270, 30:170] -= ink[..., None]
        Image.fromarray(paper).save(path)
    code, _, err, dark = predicted(folders, exported, capsys=capsys)
    assert code == 0 and dark is not None and len(dark) == 11 and dark == bright and "skipped" not in err
    for path in (folders / "support").rglob("*.png"):
        with Image.open(path) as picture:
            turned = 255 - np.asarray(picture)
        save(path, turned)
    assert predicted(folders, exported, capsys=capsys)[3] == dark
    assert predicted(folders, exported, "--ink", "dark", capsys=capsys)[3] == dark
    code, _, err, wrong = predicted(folders, exported, "--ink", "bright", capsys=capsys)
    assert code == 0 and wrong != dark


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--horizon", "3"], "A horizon is for runs of COMLN; this is one of ProtoNet"),
        (["--support", "{tmp}/nowhere"], "there is no such folder"),
        (["--query", "{tmp}/nowhere"], "there is no such folder"),
        (["--support", "{tmp}/flat"], "Make a folder for each class"),
        (["--support", "{tmp}/one"], "1 class in the support. Give at least two"),
        (["--support", "{tmp}/empty"], "no picture can be read in its folder 'b'"),
        (["--query", "{tmp}/bad"], "none of its pictures can be read"),
        (["--query", "{tmp}/e.npz"], "this run embeds pictures itself"),
        (["--out", "{tmp}"], "is a folder. Name a file"),
        (["--plot", "{tmp}"], "is a folder. Name a file"),
        (["--plot", "{tmp}/out.csv"], "out.csv would be written over"),
    ],
)
def test_a_mistake_gets_one_line_and_no_file(words, message, folders, exported, capsys):
    picture = folders / "support" / "owl" / "0.png"
    for name in ("flat/1.png", "one/a/1.png", "empty/a/1.png"):
        (folders / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folders / name)
    (folders / "empty" / "b").mkdir()
    (folders / "bad").mkdir()
    (folders / "bad" / "1.png").write_bytes(b"")
    np.savez(folders / "e.npz", embeddings=np.ones((2, 3)))
    words = [word.format(tmp=folders) for word in words]
    code, printed, err, table = predicted(folders, exported, *words, capsys=capsys)
    lines = [line for line in err.splitlines() if "skipped" not in line and line != "classifying ..."]
    assert code == 2 and printed == "" and table is None
    assert len(lines) == 1 and message in lines[0]


def test_a_folder_that_cannot_be_written_is_said(folders, exported, capsys):
    (folders / "file").write_text("")
    code, _, err, _ = predicted(folders, exported, "--out", folders / "file" / "out.csv", capsys=capsys)
    assert code == 1 and "File exists" in err and "Traceback" not in err


def test_embeddings_are_taken_where_the_run_has_no_network(tmp_path, capsys):
    export_run(untrained_on_embeddings("protonet", normalise="l2"), tmp_path / "run.safetensors")
    points = np.random.default_rng(0).normal(size=(6, 3))
    np.savez(tmp_path / "s.npz", embeddings=points, labels=np.array(["a", "b", "c"] * 2))
    np.savez(tmp_path / "q.npz", embeddings=points + 0.01, labels=np.array(["a", "b", "c"] * 2))
    words = ["--support", tmp_path / "s.npz", "--query", tmp_path / "q.npz", "--out", tmp_path / "o.csv", "--json"]
    code, printed, _ = comln("predict", tmp_path / "run.safetensors", *words, capsys=capsys)
    assert code == 0 and json.loads(printed)["labelled"] == 6 and [row[0] for row in rows(tmp_path / "o.csv")][1] == "0"
    expected = predict(load_run(tmp_path / "run.safetensors"), points, ["a", "b", "c"] * 2, points + 0.01)
    table = [[float(x) for x in row[2:]] for row in rows(tmp_path / "o.csv")[1:]]
    np.testing.assert_allclose(table, expected.probabilities, rtol=1e-4)
    for name, arrays, message in (
        ("wide", {"embeddings": np.ones((2, 4)), "labels": np.array([1, 2])}, "have 4 numbers, but this run takes 3"),
        ("bare", {"embeddings": points}, "it has no labels, which the support needs"),
        ("none", {"embeddings": np.ones((0, 3)), "labels": np.array([], int)}, "it holds no examples"),
    ):
        np.savez(tmp_path / f"{name}.npz", allow_pickle=False, **arrays)
        words[1] = tmp_path / f"{name}.npz"
        code, _, err = comln("predict", tmp_path / "run.safetensors", *words, capsys=capsys)
        assert code == 2 and message in err and err.count("\n") == 1
    words[1], before = tmp_path / "s.npz", (tmp_path / "q.npz").read_bytes()
    code, _, err = comln("predict", tmp_path / "run.safetensors", *words[:5], words[3], capsys=capsys)
    assert code == 2 and "q.npz would be written over" in err and (tmp_path / "q.npz").read_bytes() == before
    words[1] = tmp_path
    code, _, err = comln("predict", tmp_path / "run.safetensors", *words, capsys=capsys)
    assert code == 2 and "This run has no network for pictures: it takes embeddings of 3 numbers" in err


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embed_writes_the_embeddings_of_a_folder(suffix, folders, exported, capsys):
    (folders / "support" / "owl" / "bad.png").write_bytes(b"")
    out = folders / f"embeddings{suffix}"
    code, printed, err = comln("embed", exported, folders / "support", "--out", out, "--json", capsys=capsys)
    assert code == 0 and err.count("skipped") == 1
    summary = json.loads(printed)
    assert summary["embeddings"] == 11 and summary["features"] == 4 and len(summary["skipped"]) == 1
    file, loaded = open_embeddings(out), load_run(exported)
    assert file.names is not None and file.labels == tuple(name.split("/")[0] for name in file.names)
    images = np.stack([np.asarray(Image.open(folders / "support" / name)) for name in file.names])[..., None]
    from comln.backbones import Normalisation

    numbers = jax.numpy.asarray(images).astype(float) / 255
    expected = loaded.learner.backbone(numbers, loaded.statistics, Normalisation.RUNNING)[0]
    np.testing.assert_allclose(np.concatenate(list(file.blocks())), expected, rtol=1e-4, atol=1e-6)


def test_embed_of_pictures_without_classes_has_no_labels(folders, exported, capsys):
    shutil.copy(folders / "support" / "owl" / "0.png", folders / "support" / "loose.png")
    words = (exported, folders / "support", "--out", folders / "e.npz")
    code, printed, err = comln("embed", *words, capsys=capsys)
    assert code == 0 and "12 embeddings of 4 numbers, without labels" in printed and "no labels are written" in err
    assert open_embeddings(folders / "e.npz").labels is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "{tmp}/support", "--out", "{tmp}/e.csv"], "should end in .npz or .parquet"),
        (["{tmp}/support", "--out", "{tmp}/e.npz"], "Usage: comln embed RUN DIR --out FILE; 1 paths were given"),
        (["{run}", "{tmp}/support", "--backbone", "onnx:x", "--out", "{tmp}/e.npz"], "embed --backbone onnx:FILE DIR"),
        (["{tmp}/support", "--backbone", "x.onnx", "--out", "{tmp}/e.npz"], "--backbone must be onnx:FILE"),
        (["{run}", "{tmp}/support", "--mean", "0.5", "--out", "{tmp}/e.npz"], "are for --backbone onnx:FILE"),
        (["{run}", "{tmp}/nowhere", "--out", "{tmp}/e.npz"], "there is no such folder"),
        (["{tmp}/support", "--backbone", "onnx:{tmp}/no.onnx", "--out", "{tmp}/e.npz"], "no.onnx: "),
    ],
)
def test_a_mistake_in_embed_gets_one_line_and_no_file(words, message, folders, exported, capsys):
    words = [word.format(tmp=folders, run=exported) for word in words]
    code, printed, err = comln("embed", *words, capsys=capsys)
    lines = [line for line in err.splitlines() if line != "embedding ..."]
    assert code == 2 and printed == "" and len(lines) == 1 and message in lines[0]
    assert not list(folders.glob("e.*")) and not list(folders.glob(".e*"))


def test_embed_by_a_network_of_ones_own(folders, capsys):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'comln[onnx]'")
    pytest.importorskip("onnx", reason="needs onnx, with which the model of this test is made: pip install onnx")
    from tests.test_onnx_network import model

    path = model(folders / "mean.onnx", ("n", 1, 28, 28))
    words = ["--backbone", f"onnx:{path}", folders / "query", "--out", folders / "e.npz"]
    code, printed, _ = comln("embed", *words, capsys=capsys)
    assert code == 0 and "10 embeddings of 1 numbers, of 5 classes" in printed and "28 x 28, grey" in printed
    file = open_embeddings(folders / "e.npz")
    assert file.names is not None
    expected = [np.asarray(Image.open(folders / "query" / name)).mean() / 255 for name in file.names]
    np.testing.assert_allclose(np.concatenate(list(file.blocks()))[:, 0], expected, rtol=1e-5)


BAR_SHOTS, BAR_SECONDS = (1, 2, 4, 6, 7), 10.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return the folder of a run that was trained for a little while."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ["--steps", "60", "--tasks", "4", "--checkpoint-every", "60"]
    with jax.numpy_dtype_promotion("standard"):
        assert run(["train", "--out", str(folder), *words]) == 0
    return folder


@pytest.mark.slow
def test_a_folder_of_glyphs_is_classified_by_one_command(trained, tmp_path, record_property):
    """The bar: 5 classes with 1 to 7 pictures, 50 queries, two corrupt files; under 10 s on an idle machine."""
    write_glyphs(tmp_path, BAR_SHOTS, 10, tuple("abcde"))
    whole = (tmp_path / "support" / "e" / "0.png").read_bytes()
    (tmp_path / "support" / "e" / "corrupt.png").write_bytes(whole[:100])
    (tmp_path / "query" / "a" / "corrupt.png").write_bytes(whole[:50] + bytes(20) + whole[70:])
    words = [
        sys.executable,
        "-m",
        "comln",
        "predict",
        str(trained),
        "--support",
        "support",
        "--query",
        "query",
        "--json",
    ]
    began = time.monotonic()
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
    )
    record_property("seconds", seconds := time.monotonic() - began)
    print(f"{seconds:.1f} s cold, of {BAR_SECONDS:.0f}")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert (
        len(lines) == 3
        and sum("skipped" in line and "corrupt.png: the picture is damaged" in line for line in lines) == 2
    )
    summary, table = json.loads(done.stdout), rows(tmp_path / "predictions.csv")
    assert {(one["in"], one["file"]) for one in summary["skipped"]} == {
        ("support", "e/corrupt.png"),
        ("query", "a/corrupt.png"),
    }
    assert summary["classes"] == dict(zip("abcde", BAR_SHOTS, strict=True)) and len(table) == 51
    support = [(path, path.parent.name) for path in sorted((tmp_path / "support").rglob("[0-9]*.png"))]
    images = np.stack([np.asarray(Image.open(path)) for path, _ in support])[..., None]
    queries = np.stack([np.asarray(Image.open(tmp_path / "query" / row[0])) for row in table[1:]])[..., None]
    with jax.numpy_dtype_promotion("standard"):
        loaded = load_run(trained)
    expected = predict(loaded, images, [label for _, label in support], queries)
    np.testing.assert_allclose(
        [[float(x) for x in row[2:]] for row in table[1:]], expected.probabilities, rtol=1e-3, atol=1e-5
    )
    assert [row[1] for row in table[1:]] == list(expected.predicted)
    inputs = json.loads((trained / "config.json").read_text())["inputs"]
    assert inputs == {"shape": [28, 28, 1], "mean": [], "std": [], "ink": "centred", "normalise": "none"}
    assert summary["accuracy"] == np.mean([row[1] == row[0].split("/")[0] for row in table[1:]]) > 0.8


def test_blocks_that_are_normalised_together_are_mixtures_to_the_last(folders):
    """Of 10 queries in blocks of at most 8, none is the rest of a longer row: that would be one of the last classes."""
    found = experiment("protonet").data.input_form()
    examples = open_examples(folders / "query", found, "auto", "--query")
    blocks = [positions for positions, _ in examples.blocks(8, mixed=True)]
    assert blocks == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert all(len({examples.labels[i] for i in block}) == 5 for block in blocks)


def test_names_in_any_script_and_of_any_length_are_drawn_without_remarks(tmp_path, exported, capsys):
    names = ("猫", "b" * 200, "c", "d", "$e")
    write_glyphs(tmp_path, names=names)
    code, _, err, _ = predicted(tmp_path, exported, "--plot", tmp_path / "plot.png", capsys=capsys)
    assert code == 0 and err == "classifying ...\n"
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.size == (round(120 * (2.5 + 5 * 0.45)), round(120 * (2.0 + 5 * 0.45)))


def test_a_run_of_another_precision_is_told_with_the_remedy(folders, exported, capsys):
    with jax.enable_x64(not jax.config.read("jax_enable_x64")):
        code, printed, err, table = predicted(folders, exported, capsys=capsys)
    assert code == 2 and printed == "" and table is None and err.count("\n") == 1
    assert "run.safetensors was exported in double precision (float64). Set JAX_ENABLE_X64=1" in err
