"""Training by a number of updates: kept seed by seed, tested on fixed tasks, on data made here or prepared before."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from comln.cli import main
from comln.data.prepare import prepare
from comln.data.prepared import PreparedEmbeddings
from comln.data.sampling import EpisodeShape
from comln.data.source import Split
from comln.data.sources.image_folder import ImageFolder
from comln.data.sources.leo_embeddings import LEOMiniImageNet
from comln.flow.integrator import Integrator
from comln.recipes import find
from comln.recipes.backbones import Conv4Config
from comln.reproduce import few_shot_cells, figure5, frozen_features, table2, table4, table5
from comln.reproduce.counted_training import Cell, Exam, train_cell
from comln.reproduce.few_shot_cells import cell_of
from comln.reproduce.frozen_embeddings import Supervision, kept_embeddings, unit_norm
from comln.reproduce.measure import environment
from comln.reproduce.svm_heads import CHOICES, CHOSEN, HEADS, svm_heads
from comln.reproduce.update_times import update_cost
from comln.reproduce.workspace import Budget, Workspace
from comln.run import converter
from tests.data.fabricated import SPLITS, Tiny, dump
from tests.data.splits import stripes

FEATURES = 6


@pytest.fixture(autouse=True)
def optax_mixes_integers_and_floats():
    with jax.numpy_dtype_promotion("standard"):
        yield


def embeddings(seed, classes=5, each=12):
    """Return a split of embeddings, of classes that are some way apart."""
    rng = np.random.default_rng(seed)
    centres = 2.0 * rng.normal(size=(classes, FEATURES))
    class_of = np.repeat(np.arange(classes), each)
    rows = centres[class_of] + rng.normal(size=(len(class_of), FEATURES))
    names = tuple(f"class {c}" for c in range(classes))
    return Split(names, rows.astype(np.float32), class_of, np.arange(len(rows)), f"clouds {seed}")


CLOUDS = {split: embeddings(seed) for seed, split in enumerate(SPLITS)}


def cell(learner="comln", seeds=(0, 1), steps=4, **changes):
    experiment = dataclasses.replace(
        find("leo-mini-imagenet-5way-1shot", learner, "house"),
        data=PreparedEmbeddings("clouds", features=FEATURES),
        train=EpisodeShape(3, 2, 4),
        test=EpisodeShape(3, 2, 5),
        steps=steps,
        tasks_per_step=2,
        validate_every=0,
        patience=0,
    )
    experiment = dataclasses.replace(experiment, **changes)
    tests = {"own": Exam(experiment.test), "euler": Exam(experiment.test, Integrator.euler(0.05))}
    if learner != "comln":
        tests.pop("euler")
    return Cell("clouds", experiment, seeds, tests, tasks=12, look_every=2, look_tasks=4)


def nothing(what, done):
    """No progress."""


def test_a_cell_is_trained_seed_by_seed_and_kept(tmp_path):
    said = []
    first = train_cell(Workspace(tmp_path), cell("anil"), CLOUDS, lambda what, done: said.append(done))
    kept, lost = sorted(tmp_path.iterdir())
    assert kept.name.startswith("clouds-seed0-") and lost.name.startswith("clouds-seed1-")
    accuracies = first.accuracies("own")
    assert accuracies is not None and accuracies.shape == (2, 12) and 0.4 < accuracies.mean() <= 1
    assert first.runs[0].accuracies != first.runs[1].accuracies and first.runs[0].horizons == ()
    assert said == sorted(said) and said[-1] < 1

    lost.unlink()
    before = kept.stat().st_mtime_ns
    again = train_cell(Workspace(tmp_path), cell("anil"), CLOUDS, nothing)
    assert kept.stat().st_mtime_ns == before
    # A number of updates, unlike a time, gives the same numbers again.
    assert again.runs[0] == first.runs[0] and again.runs[1].accuracies == first.runs[1].accuracies


def test_training_that_diverges_is_told_and_does_not_end_the_rest(tmp_path):
    broken = dataclasses.replace(CLOUDS["train"], examples=np.full_like(CLOUDS["train"].examples, np.nan))
    found = train_cell(Workspace(tmp_path), cell("anil", (0,)), {**CLOUDS, "train": broken}, nothing)
    assert found.accuracies("own") is None and "step 1" in str(found.runs[0].diverged)
    (part,) = tmp_path.iterdir()
    assert json.loads(part.read_text())["result"]["accuracies"] == {}


@pytest.mark.slow
def test_the_horizon_is_traced_and_another_solver_tests_the_same_weights(tmp_path):
    (run,) = train_cell(Workspace(tmp_path), cell(seeds=(0,)), CLOUDS, nothing).runs
    np.testing.assert_allclose(run.accuracies["euler"], run.accuracies["own"], atol=0.1)
    assert len(run.horizons) == len(run.solver_steps) == 4 and min(run.solver_steps) > 0
    assert run.horizons[0] == pytest.approx(10.0) and run.scalars["horizon"] != run.horizons[-1]
    assert [update for update, _ in run.looks] == [2, 4] and run.update_s > 0 and run.diverged is None


def test_a_fixed_horizon_stays_and_euler_steps_are_another_solver(tmp_path):
    work = Workspace(tmp_path)
    fixed = cell_of(work, "comln", 5, horizon=100.0, horizon_rate=0.0, variant="fixed-100")
    written = converter.unstructure(fixed.experiment)
    assert written["optimiser"]["horizon_learning_rate"] == 0 and written["learner"]["initial_horizon"] == 100
    assert fixed.name == "glyphs-5way-5shot-comln-fixed-100" and set(fixed.tests) == {"5-shot"}
    by_euler = cell_of(work, "comln", 1, integrator=few_shot_cells.EULER, variant="euler")
    assert by_euler.tests[few_shot_cells.OTHER_SOLVER].integrator == Integrator()
    assert cell_of(work, "comln", 1).tests[few_shot_cells.OTHER_SOLVER].integrator == few_shot_cells.EULER


def test_more_training_shots_are_tested_on_all_numbers_of_shots(tmp_path):
    many = cell_of(Workspace(tmp_path), "metaoptnet-rr", 5, training_shots=15, variant="more")
    assert many.experiment.train.shots == 15 and many.experiment.train.queries == 5
    assert {name: exam.shape.shots for name, exam in many.tests.items()} == {"1-shot": 1, "5-shot": 5}


# Frozen embeddings and machines on them


def test_embeddings_are_divided_by_their_norms_but_zeros_stay():
    split = CLOUDS["test"]
    rows = split.examples.copy()
    rows[0] = 0
    ((_, divided),) = unit_norm({"test": dataclasses.replace(split, examples=rows)}).items()
    np.testing.assert_allclose(np.linalg.norm(divided.examples, axis=1), [0, *[1.0] * (len(rows) - 1)], rtol=1e-6)
    assert divided.content_hash != split.content_hash


def test_machines_agree_on_tasks_of_any_solver():
    shape = EpisodeShape(3, 4, 5)
    found = {accuracies.head: accuracies for accuracies in svm_heads(CLOUDS, shape, 8)}
    assert tuple(found) == HEADS
    exact = np.array(found["exact"].accuracies)
    np.testing.assert_array_equal(found["interior point, 15 iterations"].accuracies, exact)
    for head in HEADS[-3:]:
        assert len(found[head].accuracies) == 8
        assert np.mean(found[head].accuracies) == pytest.approx(exact.mean(), abs=0.15)
    assert {head: found[head].penalty for head in HEADS[-3:] if head != CHOSEN} == {HEADS[-3]: 1.0, HEADS[-1]: 1.0}
    assert found[CHOSEN].penalty in CHOICES


@pytest.mark.slow
def test_embeddings_of_supervision_tell_other_classes_apart_and_are_made_once(tmp_path):
    splits = {split: stripes(seed=seed) for seed, split in enumerate(SPLITS)}
    supervision = Supervision(Conv4Config(8, scale_output=False), updates=200, batch=32)
    updates = []
    made, accuracy, commit = kept_embeddings(tmp_path, supervision, splits, lambda update, loss: updates.append(loss))
    assert len(updates) == 200 and updates[-1] < 0.5 * updates[0] and accuracy > 0.9
    assert made["test"].examples.shape == (len(splits["test"].examples), 8)
    again, same, made_by = kept_embeddings(tmp_path, supervision, splits, lambda update, loss: updates.append(loss))
    assert len(updates) == 200 and same == accuracy and made_by == commit == environment()["commit"]
    np.testing.assert_array_equal(again["test"].examples, made["test"].examples)
    *_, exact = (x for x in svm_heads(made, EpisodeShape(3, 2, 5), 20) if x.head == "exact")
    assert np.mean(exact.accuracies) > 0.6

    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    kept_embeddings(tmp_path, supervision, splits, lambda update, loss: updates.append(loss))
    assert len(updates) == 400


@pytest.mark.slow
def test_longer_horizons_cost_steps_and_time():
    experiment = cell().experiment
    cost = update_cost(experiment, CLOUDS, (0.1, 10.0, 1000.0), 0.1)
    assert list(cost.solver_steps) == sorted(cost.solver_steps) and cost.solver_steps[0] < cost.solver_steps[-1]
    assert cost.seconds([cost.solver_steps[1]] * 10) == pytest.approx(cost.ms[1] / 100, abs=1e-6)


# Whole targets


TINY = few_shot_cells.Spending(2, 6, 4, (0,), (1,))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(few_shot_cells.ON_GLYPHS, Budget.SMOKE, TINY)
    monkeypatch.setitem(few_shot_cells.ON_PREPARED, Budget.SMOKE, TINY)


def reproduce(capsys, *words):
    code = main.run(["reproduce", *words, "--budget", "smoke", "--json"])
    printed = capsys.readouterr()
    return code, printed.out if code == 0 else printed.err


@pytest.mark.slow
def test_table2_runs_and_is_told(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(table2, "LEARNERS", ("comln", "anil", *table2.META_OPT_NET))
    code, out = reproduce(capsys, "table2", "--out", str(tmp_path / "table2"))
    assert code == 0
    rows = json.loads(out)["rows"]
    assert len(rows) == 6 and all(0 <= row["accuracy"]["mean"] <= 1 for row in rows)
    assert {path.name for path in (tmp_path / "table2").iterdir()} == {*table2.FILES, "parts"}


@pytest.mark.slow
def test_table4_uses_what_table2_has_trained(tiny, monkeypatch, tmp_path, capsys):
    few = dict(list(table4.SOLVERS.items())[::2])
    monkeypatch.setattr(table4, "SOLVERS", few)
    work = Workspace(tmp_path / "table2" / "parts", Budget.SMOKE)
    (trained,) = few_shot_cells.run_cells(work, [cell_of(work, "comln", 1)])
    code, out = reproduce(capsys, "table4", "--out", str(tmp_path / "table4"))
    assert code == 0
    first, euler = json.loads(out)["rows"]
    assert first["accuracy"]["mean"] == pytest.approx(np.mean(trained.runs[0].accuracies["1-shot"]))
    assert euler["solver_steps"] > 50 and abs(euler["difference"]["mean"]) < 0.1


@pytest.mark.slow
def test_figure5_runs(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("comln.reproduce.horizons.FIXED", (0.1, 100.0))
    code, out = reproduce(capsys, "figure5", "--out", str(tmp_path / "figure5"))
    assert code == 0
    result = json.loads(out)
    assert [row["fixed"] for row in result["compared"]] == [None, 0.1, 100.0]
    assert result["compared"][1]["horizons"] == [[0.1, 0.1]] and result["learned"][0]["horizons"][0][0] == 1.0
    assert (tmp_path / "figure5" / "figure5.png").stat().st_size > 10_000 and figure5.restore(result)


@pytest.mark.slow
def test_table5_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(frozen_features, "METHODS", ("comln", "protonet"))
    monkeypatch.setitem(frozen_features.SPENDING, Budget.SMOKE, frozen_features.Spending(2, 4, 2, 6, (0,), (1,)))
    code, out = reproduce(capsys, "table5", "--out", str(tmp_path / "table5"))
    assert code == 0
    result = json.loads(out)
    assert result["features"] == 4 and len(result["heads"]) == 2 * len(HEADS) and result["unit_norm"]
    accuracy = next(row["accuracy"] for row in result["rows"] if row["learner"] == "comln")
    for head in result["heads"]:
        behind = head["minus_comln"]
        assert (behind is not None) == head["unit_norm"]
        if behind is not None:
            assert behind["mean"] == pytest.approx(head["accuracy"][0] - accuracy["mean"], abs=2e-5)
    assert {path.name for path in (tmp_path / "table5").iterdir()} == {*table5.FILES, "parts"}


# Data that somebody has


@pytest.mark.slow
def test_prepared_data_are_trained_on_in_runs_that_go_on(tiny, monkeypatch, tmp_path, capsys):
    pictures = Tiny(32, classes=5, each=17)
    for split in SPLITS:
        pictures.pictures(split, tmp_path / "pictures" / split)
    prepare(ImageFolder(32), "cifar-fs", tmp_path / "pictures", tmp_path / "data", True, lambda *_: None)
    monkeypatch.setattr(table2, "LEARNERS", ("comln",))
    monkeypatch.setattr(table2, "META_OPT_NET", ())
    monkeypatch.setattr(table2, "facts", lambda result: ())
    words = ("table2", "--data", "cifar-fs", "--root", str(tmp_path / "data"), "--out", str(tmp_path / "out"))
    code, out = reproduce(capsys, *words)
    assert code == 0 and len(json.loads(out)["rows"]) == 1
    (run,) = (path for path in (tmp_path / "out" / "parts").iterdir() if path.is_dir())
    assert main.run(["evaluate", str(run), "--tasks", "4", "--json"]) == 0
    capsys.readouterr()
    next((tmp_path / "out" / "parts").glob("cifar-fs-5way-1shot-comln-seed0-*.json")).unlink()
    written = (run / "metrics.jsonl").read_text()
    assert reproduce(capsys, *words) == (code, out)
    assert (run / "metrics.jsonl").read_text() == written  # it was tested again, and not trained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table2", "--data", "nowhere"], "table2 can be computed on glyphs, mini-imagenet"),
        (["table5", "--data", "mini-imagenet"], "table5 can be computed on glyphs, leo-mini-imagenet"),
        (["figure2", "--data", "mini-imagenet"], "figure2 can be computed on glyphs, not on 'mini-imagenet'"),
        (["table2", "--root", "somewhere"], "Add --data NAME"),
        (["table2", "--data", "mini-imagenet", "--root", "nowhere"], "comln data prepare mini-imagenet"),
    ],
)
def test_data_that_are_not_there_are_told_in_a_line(words, message, tmp_path, capsys):
    code, out = reproduce(capsys, *words, "--out", str(tmp_path / "out"))
    assert code == 2 and message in out and len(out.splitlines()) <= 2


@pytest.mark.slow
def test_prepared_embeddings_are_used_as_they_are(monkeypatch, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split in SPLITS:
        names = [f"n0{split}{c}" for c in range(5) for _ in range(17)]
        content = {
            "embeddings": rng.standard_normal((len(names), 640)).astype(np.float32),
            "labels": np.repeat(np.arange(5), 17).tolist(),
            "keys": np.array([f"{k}-{name}-{name}_{k}" for k, name in enumerate(names)]),
        }
        dump(tmp_path / "root/embeddings/miniImageNet/center" / f"{split}_embeddings.pkl", content)
    prepare(LEOMiniImageNet(), "leo-mini-imagenet", tmp_path / "root", tmp_path / "data", True, lambda *_: None)
    monkeypatch.setattr(frozen_features, "METHODS", ("comln", "metaoptnet-svm"))
    monkeypatch.setitem(frozen_features.SPENDING, Budget.SMOKE, frozen_features.Spending(2, 4, 2, 6, (0,), (1,)))
    words = ("table5", "--data", "leo-mini-imagenet", "--root", str(tmp_path / "data"))
    code, out = reproduce(capsys, *words, "--out", str(tmp_path / "table5"))
    assert code == 0
    result = json.loads(out)
    assert result["features"] == 640 and result["supervised_accuracy"] is None
    assert result["rows"][0]["paper"]["accuracy"] == 50.39 and result["rows"][0]["agrees"] is False
