import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

from comln.checkpoint import Checkpoints
from comln.cli.main import run
from comln.cli.train import _options, runaway_note
from comln.data.sampling import EpisodeShape
from comln.optimiser import SGD
from comln.recipes import LEARNERS
from comln.recipes.backbones import Conv4Config, ResNet12Config
from comln.run import RunError, RunFolder, export_run, load_run
from comln.weights import read_metadata

ROOT = Path(__file__).parents[2]

SMALL = ["--tasks-per-step", "2", "--train.queries", "2", "--backbone.filters", "4", "--tasks", "4"]
VALIDATED = [*SMALL, "--validate-every", "2", "--validation-tasks", "4"]


@pytest.fixture(autouse=True)
def optax_may_mix_types():
    import jax

    with jax.numpy_dtype_promotion("standard"):
        yield


def comln(*words, capsys) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code and what it printed."""
    try:
        code = run([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return the folder of a short finished run."""
    import jax

    folder = tmp_path_factory.mktemp("run") / "r"
    with jax.numpy_dtype_promotion("standard"):
        assert run(["train", "--out", str(folder), "--steps", "4", "--checkpoint-every", "2", *VALIDATED]) == 0
    return folder


def test_output_that_cannot_be_written_is_told_in_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "comln", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "the output: No space left on device." in done.stderr


def test_a_name_that_is_no_text_is_printed_with_escapes():
    """Names of files may hold any bytes; standard output refuses those that are no text, unless told otherwise."""
    script = (
        "import sys; from comln.cli import main; main.run = lambda words: print(words[0]) or 0; main.main(sys.argv[1:])"
    )
    place = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-c", script, b"\xe4"], capture_output=True, env=place, check=False)
    assert done.returncode == 0 and done.stdout == b"\\udce4\n"


@pytest.mark.float32
def test_a_run_folder_describes_itself(trained):
    configuration = json.loads((trained / "config.json").read_text())
    assert configuration["experiment"]["steps"] == 4 and configuration["seed"] == 0
    assert {"jax", "numpy", "python", "comln"} <= configuration["versions"].keys()
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2, 3, 4, 4]
    assert [line["step"] for line in lines if "validation_accuracy" in line] == [2, 4]
    assert {"loss", "accuracy", "horizon", "solver_steps", "tasks_per_second", "dropped_tasks"} <= lines[0].keys()
    assert Checkpoints(trained / "checkpoints").steps() == [2, 4]
    assert (trained / "report" / "index.html").stat().st_size > 10_000
    leftovers = [path for path in trained.rglob("*.part")]
    assert not leftovers


def test_the_recipe_may_come_after_the_options(tmp_path, capsys):
    words = ["--steps", "0", "glyphs-20way-1shoot"]
    assert "Unknown recipe 'glyphs-20way-1shoot'" in comln("train", *words, "--out", tmp_path / "r", capsys=capsys)[2]
    assert _options([]).experiment.name == "glyphs-5way-1shot"
    options = _options(["--seed", "3", "glyphs-20way-1shot", "--train.queries", "4"])
    assert options.recipe == options.experiment.name == "glyphs-20way-1shot" and options.seed == 3
    assert options.experiment.train == EpisodeShape(ways=20, shots=1, queries=4)
    optimiser = _options(["--protocol", "paper", "--optimiser.momentum", "0.5"]).experiment.optimiser
    assert isinstance(optimiser, SGD) and optimiser.momentum == 0.5


@pytest.mark.float32
def test_evaluating_gives_the_number_of_training_to_the_last_digit_twice(trained, capsys):
    first, second = (comln("evaluate", trained, "--tasks", 4, "--json", capsys=capsys) for _ in range(2))
    assert first[0] == 0 and first[1] == second[1]
    result, trained_result = json.loads(first[1]), json.loads((trained / "evaluation.json").read_text())
    assert result["accuracy"] == trained_result["accuracy"] and result["ci95"] == trained_result["ci95"]


def test_evaluating_with_other_ways_says_what_becomes_of_the_learned_start(trained, capsys):
    code, out, err = comln("evaluate", trained, "--tasks", 4, "--ways", 3, "--shots", 2, capsys=capsys)
    assert code == 0 and "3-way 2-shot accuracy on 4 test tasks" in out and "W0 was learned for 5 ways" in err


def test_resuming_a_finished_run_evaluates_it_again_with_the_same_result_and_names_other_versions(
    trained, tmp_path, capsys
):
    shutil.copytree(trained, tmp_path / "r")
    configuration = json.loads((trained / "config.json").read_text())
    now = configuration["versions"]["jax"]
    configuration["versions"] |= {"jax": "0.0.1", "matplotlib": "0.0.1"}
    (tmp_path / "r" / "config.json").write_text(json.dumps(configuration))
    code, _, err = comln("train", "--out", tmp_path / "r", "--resume", "--steps", 4, *VALIDATED, capsys=capsys)
    before, after = (json.loads((folder / "evaluation.json").read_text()) for folder in (trained, tmp_path / "r"))
    assert code == 0 and after["accuracy"] == before["accuracy"]
    assert len((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()) == 6
    assert f"comln: started with jax 0.0.1, now {now}: the end may differ in its last digits.\n" in err


@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["anew", "resumed"])
def test_checkpoints_whose_configuration_is_lost_are_not_trained_over(trained, tmp_path, resume, capsys):
    shutil.copytree(trained, tmp_path / "r")
    (tmp_path / "r" / "config.json").unlink()
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    code, _, err = comln("train", "--out", tmp_path / "r", "--steps", 4, *VALIDATED, *resume, capsys=capsys)
    assert code == 2 and "its config.json is lost" in err and err.count("\n") == 1
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))


def test_the_place_of_the_data_is_not_part_of_a_run(tmp_path, trained, capsys):
    words = ["mini-imagenet-5way-1shot", "--data.folder", str(tmp_path)]
    elsewhere, other = _options([*words[:2], "elsewhere"]).experiment, _options([*words, "--steps", "3"]).experiment
    folder = RunFolder(tmp_path / "r")
    folder.start(_options(words).experiment, "comln", "house", 0, "hash", "comln train")
    assert folder.is_of(elsewhere, 0) and not folder.is_of(elsewhere, 1) and not folder.is_of(other, 0)
    code, _, err = comln("evaluate", trained, "--data-folder", tmp_path, capsys=capsys)
    assert code == 2 and "--data-folder is for prepared data" in err and err.count("\n") == 1


@pytest.mark.slow
def test_resume_without_a_checkpoint_starts_from_the_beginning_says_so_and_ends_the_same(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "checkpoints")
    code, _, err = comln("train", "--out", tmp_path / "r", "--resume", "--steps", 4, *VALIDATED, capsys=capsys)
    assert code == 0 and "no checkpoint" in err and "starting from the beginning" in err
    first, again = (json.loads((folder / "evaluation.json").read_text()) for folder in (trained, tmp_path / "r"))
    assert first["accuracy"] == again["accuracy"] and first["horizon"] == again["horizon"]
    assert len((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "glyphs-5way-1shoot"], "Unknown recipe 'glyphs-5way-1shoot'. Did you mean 'glyphs-5way-1shot'?"),
        (["train", "--learner", "komln"], "Unknown learner 'komln'. Did you mean 'comln'?"),
        (["train", "--protocol", "hause"], "Unknown protocol 'hause'. Did you mean 'house'?"),
        (["train", "--train.ways", "9999"], "9999-way tasks need 9999 classes, but this split has"),
        (["train", "--test.queries", "99"], "99 queries were asked for, but class"),
        (["train", "--learner.initial-horizon", "-1"], "initial_horizon must be above 0 and finite, got -1"),
        (["train", "--learner.initial-horizon", "nan"], "initial_horizon must be above 0 and finite"),
        (["train", "--seed", "-1"], "--seed must be at least 0"),
        (["train", "--seed", "5000000000"], "below 2^32"),
        (["train", "--backbone.filters", "0"], "at least 1 filter"),
        (["train", "--learner.support-smoothing", "1.5"], "support_smoothing must be at least 0 and below 1"),
        (["train", "--learner.proximal", "-1"], "proximal must be at least 0"),
        (["train", "glyphs-5way-1shot-resnet12", "--learner", "cavia"], "CAVIA adapts a Conv-4 of its own kind"),
        (["train", "glyphs-5way-1shot-resnet12", "--backbone.drop-block", "0.1"], "between 1 and 1 pixels wide"),
        (["train", "--optimiser.learning-rate", "nan"], "learning_rate must be at least 0 and finite"),
        (["train", "--optimiser.warmup", "-3"], "warm-up is a share of the steps"),
        (["train", "--tasks", "1"], "--tasks must be at least 2"),
        (["train", "--steps", "0"], "--steps and --tasks-per-step must be at least 1"),
        (["train", "--learner", "maml", "--normalisation", "running"], "pass --normalisation batch"),
        (["train", "--learner", "anil", "--learner.steps", "-1"], "steps must be at least 0"),
        (["train", "--learner", "cavia", "--backbone.scale-output"], "Leave out --backbone.scale-output"),
        (["recipes", "--learner", "mamll"], "Unknown learner 'mamll'. Did you mean 'maml'"),
        (["train", "--checkpoint-every", "0"], "--checkpoint-every must be at least 1"),
        (["train", "--train.shots", "0"], "`shots` must be at least 1"),
        (["train", "--validate-every", "-1"], "--validate-every and --patience must be at least 0"),
        (["train", "--patience", "2"], "--patience counts validations, but there are none"),
        (["train", "--validate-every", "1", "--validation-tasks", "1"], "--validation-tasks must be at least 2"),
        (["train", "--devices", "1000"], "--devices 1000 was asked for"),
        (["train", "--processes", "2"], "need --coordinator HOST:PORT"),
        (["train", "--coordinator", "here", "--processes", "2"], "--coordinator must be HOST:PORT, got 'here'"),
        (["evaluate", "{nowhere}"], "holds no run"),
        (["export", "{nowhere}", "--out", "{nowhere}/file"], "holds no run"),
        (["trian"], "unknown command 'trian'. Did you mean 'train'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_mistake_gets_one_clear_line_and_leaves_nothing(words, message, tmp_path, capsys):
    out = [] if words[0] != "train" else ["--out", str(tmp_path / "r")]
    words = [word.format(nowhere=tmp_path / "nowhere") for word in words]
    code, printed, err = comln(*words, *out, capsys=capsys)
    assert code == 2 and printed == ""
    assert message in " ".join(err.split()) and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_recipes_network_decides_which_options_there_are():
    name = "glyphs-5way-1shot-resnet12"
    for words in ([name, "--backbone.global-average"], ["--resume", name, "--backbone.global-average"]):
        assert _options(words).experiment.backbone == ResNet12Config(global_average=True)
    # Where the name is the value of an option, it asks for nothing.
    options = _options(["--out", name, "--backbone.filters", "4"])
    assert options.experiment.backbone == Conv4Config(4) and options.recipe == "glyphs-5way-1shot"


def test_a_wrong_option_is_explained(tmp_path, capsys):
    code, _, err = comln("train", "--out", tmp_path / "r", "--stepz", "4", capsys=capsys)
    assert code == 2 and "--stepz" in err and not list(tmp_path.iterdir())


def test_a_folder_that_holds_a_run_is_not_written_over(trained, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))
    code, _, err = comln("train", "--out", trained, capsys=capsys)
    assert code == 2 and "already holds a run. Add --resume" in err
    code, _, err = comln("train", "--out", trained, "--resume", "--steps", 5, *VALIDATED, capsys=capsys)
    assert code == 2 and "another configuration or seed" in err
    assert before == sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))


def test_a_run_on_other_data_is_not_evaluated(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "r")
    configuration = json.loads((tmp_path / "r" / "config.json").read_text())
    (tmp_path / "r" / "config.json").write_text(json.dumps({**configuration, "data_hash": "another"}))
    code, _, err = comln("evaluate", tmp_path / "r", capsys=capsys)
    assert code == 2 and "not the one that" in err and "was trained on" in err


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    code, _, err = comln("train", "--out", tmp_path / "file", capsys=capsys)
    assert code == 2 and "is a file" in err and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("damage", ["{", '{"experiment": {"steps": "many"}, "seed": 0}', '{"experiment": 3}'])
def test_a_damaged_configuration_is_named(tmp_path, capsys, damage):
    (tmp_path / "config.json").write_text(damage)
    code, _, err = comln("evaluate", tmp_path, capsys=capsys)
    assert code == 2 and "config.json" in err and len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_diverging_run_names_the_step_the_checkpoint_and_the_remedy(tmp_path, capsys):
    words = ["--optimiser.learning-rate", "1e30", "--optimiser.clip", "1e30", "--optimiser.warmup", "0"]
    code, _, err = comln("train", "--out", tmp_path / "r", "--steps", 9, *SMALL, *words, capsys=capsys)
    line = err.strip().splitlines()[-1]
    assert (
        code == 1
        and "of step" in line
        and "not finite" in line
        and "checkpoint" in line
        and "--optimiser.learning-rate" in line
    )


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["house", "original"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_method_is_trained_and_evaluated_by_one_command_each(learner, protocol, tmp_path, capsys):
    small = SMALL if protocol == "house" else ["--backbone.filters", "4", "--tasks", "4", "--tasks-per-step", "1"]
    words = ["--steps", "2", *small, "--learner", learner, "--protocol", protocol, "--out", tmp_path / "r"]
    code, _, err = comln("train", *words, capsys=capsys)
    assert code == 0, err
    trained_result = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    code, out, err = comln("evaluate", tmp_path / "r", "--tasks", 4, "--json", capsys=capsys)
    assert code == 0, err
    assert json.loads(out)["accuracy"] == trained_result["accuracy"] and trained_result["failed_tasks"] == 0
    assert (tmp_path / "r" / "report" / "index.html").stat().st_size > 10_000


def test_a_horizon_that_ran_away_is_told():
    experiment = _options(["--protocol", "paper"]).experiment
    assert "T went from 1 to 1.3e+03" in runaway_note(experiment, {"horizon": 1300.0})
    assert "T went from 1 to 1e-05" in runaway_note(experiment, {"horizon": 1e-5})
    assert runaway_note(experiment, {"horizon": 200.0}) == ""
    assert runaway_note(_options(["--learner", "maml"]).experiment, {}) == ""


def test_recipes_are_listed_for_people_and_programs(capsys):
    code, out, _ = comln("recipes", "--json", capsys=capsys)
    rows = json.loads(out)
    assert code == 0 and next(row["recipe"] for row in rows) == "glyphs-5way-1shot"
    assert all("%" in row["expected"] and "min" in row["cost"] for row in rows if row["recipe"].startswith("glyphs"))
    expected = {row["recipe"]: row["expected"] for row in rows}
    assert len(rows) == 3 + 16 and expected["mini-imagenet-5way-5shot"] == "paper, Table 2 and 4: 70.54 ± 0.54 %"
    assert "glyphs-20way-1shot" in comln("recipes", capsys=capsys)[1]


@pytest.mark.parametrize("learner", LEARNERS)
def test_what_the_protocols_set_is_shown(learner, capsys):
    code, out, _ = comln("recipes", "--learner", learner, "--json", capsys=capsys)
    shown = json.loads(out)
    assert code == 0 and shown["settings"].keys() == {"house", "original", "paper"}
    assert shown["settings"]["paper"]["steps"] == 60_000 and any(shown["original"].values())
    assert "original, chosen here" in comln("recipes", "--learner", learner, capsys=capsys)[1]


def test_a_recipe_shows_what_the_paper_has_for_each_method_and_from_whom(capsys):
    code, out, _ = comln("recipes", "tiered-imagenet-5way-1shot", "--json", capsys=capsys)
    shown = json.loads(out)["published"]
    assert code == 0 and "protonet" not in shown and all(number["source"] for number in shown.values())
    assert (shown["cavia"]["accuracy"], shown["cavia"]["ci95"], shown["cavia"]["table"]) == (52.41, 2.64, "2")
    assert "own program" in shown["cavia"]["source"] and "Liu et al." in shown["maml"]["source"]
    words = " ".join(comln("recipes", "tiered-imagenet-5way-1shot", capsys=capsys)[1].split())
    assert "52.41" in words and "not in the paper: r2d2" in words and "remembered: the paper copied it" in words
    assert "not in the paper: comln" in comln("recipes", "glyphs-5way-1shot", capsys=capsys)[1]
    mini = json.loads(comln("recipes", "mini-imagenet-5way-5shot", "--json", capsys=capsys)[1])["published"]
    euler = mini["comln --learner.integrator euler"]
    assert (euler["accuracy"], euler["ci95"], euler["table"]) == (70.50, 0.72, "4") and "comln" in mini
    code, _, err = comln("recipes", "tiered-imagnet-5way-1shot", capsys=capsys)
    assert code == 2 and "Did you mean 'tiered-imagenet-5way-1shot'" in err and err.count("\n") == 1


def test_a_method_is_described_in_the_recipe_that_is_named(capsys):
    name = "mini-imagenet-5way-5shot-resnet12"
    code, out, _ = comln("recipes", name, "--learner", "metaoptnet-svm", "--json", capsys=capsys)
    shown = json.loads(out)
    original, number = shown["settings"]["original"], shown["published"]
    assert code == 0 and (number["accuracy"], number["ci95"]) == (78.63, 0.46) and "Lee et al." in number["source"]
    assert (original["train.shots"], original["learner.query_smoothing"], original["backbone.drop_block"]) == (
        15,
        0.1,
        0.1,
    )
    assert (original["data.padding"], original["patience"], shown["settings"]["house"]["patience"]) == (8, 0, 0)
    words = " ".join(comln("recipes", name, "--learner", "metaoptnet-svm", capsys=capsys)[1].split())
    assert "published, Table 2: 78.63 ± 0.46 %. Source: Lee et al., 2019" in words and "published, note: " in words
    leo = comln("recipes", "leo-tiered-imagenet-5way-1shot", "--learner", "leo", "--json", capsys=capsys)[1]
    assert json.loads(leo)["settings"]["original"]["learner.kl_weight"] == 2.03e-3
    assert json.loads(leo)["published"] is None


def test_a_network_that_no_memory_holds_gives_one_clear_line(tmp_path, capsys):
    code, out, err = comln("train", "--out", tmp_path / "r", "--backbone.filters", "1000000", capsys=capsys)
    assert code == 1, err
    assert not out and "Traceback" not in err and "Lower --tasks-per-step" in err.splitlines()[-1]


@pytest.mark.parametrize("words", [[], ["--help"], ["train", "--help"], ["evaluate", "--help"], ["recipes", "--help"]])
def test_every_command_explains_itself(words, capsys):
    code, out, _ = comln(*words, capsys=capsys)
    assert code == 0 and "usage" in out.lower()


def test_help_and_version_are_quick_and_import_no_jax():
    # Processor time, which other programs do not lengthen as they do the time by the clock.
    script = "import sys, time; from comln.cli.main import run; run(['--help']); assert 'jax' not in sys.modules; "
    script += "assert time.process_time() < 5.0"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_best_state_by_validation_is_what_is_evaluated(trained):
    evaluation = json.loads((trained / "evaluation.json").read_text())
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["validation_accuracy"] for line in lines if "validation_accuracy" in line}
    assert evaluation["validation_accuracy"] == max(scores.values())
    assert evaluation["step"] == max(scores, key=lambda step: scores[step]) and evaluation["last_step"] == 4
    assert evaluation["selected_by"] == "validation accuracy" and load_run(trained).step == evaluation["step"]


def test_an_exported_file_gives_the_same_logits_and_the_same_number(trained, tmp_path, capsys):
    file = tmp_path / "deep" / "run.safetensors"
    code, out, _ = comln("export", trained, "--out", file, "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["bytes"] == file.stat().st_size
    assert [path.name for path in file.parent.iterdir()] == ["run.safetensors"]
    run, exported = load_run(trained), load_run(file)
    assert eqx.tree_equal(
        (run.learner, run.statistics, run.step, run.experiment, run.selection),
        (exported.learner, exported.statistics, exported.step, exported.experiment, exported.selection),
    )
    code, out, _ = comln("evaluate", file, "--tasks", 4, "--json", capsys=capsys)
    accuracy = json.loads((trained / "evaluation.json").read_text())["accuracy"]
    assert code == 0 and json.loads(out)["accuracy"] == accuracy


def test_events_for_tensorboard_hold_the_same_numbers(trained):
    event_of = importlib.import_module("tensorboardX.proto.event_pb2").Event.FromString
    found = set()
    for path in (trained / "tensorboard").iterdir():
        content, place = path.read_bytes(), 0
        while place < len(content):
            # A record: its length in 8 bytes, a checksum in 4, itself, a checksum in 4.
            length = int.from_bytes(content[place : place + 8], "little")
            event = event_of(content[place + 12 : place + 12 + length])
            found |= {(event.step, value.tag, value.simple_value) for value in event.summary.value}
            place += 16 + length
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    written = {
        (line["step"], name, float(np.float32(value)))
        for line in lines
        for name, value in line.items()
        if name != "step"
    }
    assert found == written and len(written) > 4 * 6


def test_a_file_that_is_no_export_is_named_in_one_line(trained, tmp_path, capsys):
    from safetensors.numpy import save_file

    (tmp_path / "noise").write_bytes(b"\xff" * 100)
    save_file({"x": np.zeros(3)}, tmp_path / "foreign")
    for name, message in (("noise", "no safetensors file, or damaged"), ("foreign", "does not describe a run")):
        code, _, err = comln("evaluate", tmp_path / name, capsys=capsys)
        assert code == 2 and message in err and name in err and len(err.strip().splitlines()) == 1
    export_run(load_run(trained), tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-50])
    code, _, err = comln("evaluate", tmp_path / "cut", capsys=capsys)
    assert code == 2 and "damaged" in err and len(err.strip().splitlines()) == 1
    about = json.loads(read_metadata(tmp_path / "whole")["run"])
    for changed in ({"seed": "x"}, {"seed": -1}, {"step": None}, {"selection": {"best_step": "x"}}):
        save_file({"x": np.zeros(3)}, tmp_path / "changed", {"run": json.dumps({**about, **changed})})
        with pytest.raises(RunError, match=r"changed does not describe a run of this version"):
            load_run(tmp_path / "changed")
    code, _, err = comln("export", trained, "--out", tmp_path, capsys=capsys)
    assert code == 2 and "is a folder" in err


@pytest.mark.slow
def test_patience_ends_a_run_which_then_is_finished(tmp_path, capsys):
    # At such a learning rate, and with statistics of the batch, no validation differs from the first.
    still = [
        "--normalisation",
        "batch",
        "--optimiser.learning-rate",
        "0",
        "--optimiser.horizon-learning-rate",
        "0",
        "--patience",
        "2",
    ]
    words = ["--out", tmp_path / "r", "--steps", "20", *VALIDATED, *still]
    assert comln("train", *words, capsys=capsys)[0] == 0
    first = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    steps = [json.loads(line)["step"] for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert comln("train", *words, "--resume", capsys=capsys)[0] == 0
    again = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert steps[-1] == first["last_step"] == again["last_step"] < 20
    assert first["step"] == again["step"] and first["accuracy"] == again["accuracy"]


@pytest.mark.slow
def test_runs_killed_or_told_to_stop_at_random_moments_resume_to_the_same_parameters(tmp_path):
    out = tmp_path / "found.json"
    command = [sys.executable, "benchmarks/interruptions.py", "--trials", "3", "--out", str(out)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    found = json.loads(out.read_text())
    trials = found["trials"]
    assert len(trials) == 6 and all(trial["identical"] for trial in trials)
    # A signal during the imports ends a process as it ends any other, and one after the last update saves nothing.
    polite = [t for t in trials if t["signal"] == "SIGTERM" and 0 < t["step"] < found["steps"]]
    assert all(trial["exit"] == 0 for trial in polite)
    assert all("--resume" in line for trial in polite for line in trial["said"])
