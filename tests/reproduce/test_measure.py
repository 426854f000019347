"""Which commit a measurement belongs to, in repositories made for it."""

import os
import shutil
import subprocess

import pytest

from comln.reproduce.measure import commit_of

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder, *words):
    """Run git with no configuration but this, and not on the repository of a hook."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    author = ("-c", "user.name=A Person", "-c", "user.email=a@person.example")
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *author, *words], cwd=folder, check=True, env=around | alone)


@pytest.fixture
def checkout(tmp_path):
    """A project in a folder of a repository, with a module and a result."""
    project = tmp_path / "project"
    for name in ("package/part", "benchmarks/results"):
        (project / name).mkdir(parents=True)
    (project / "package" / "part" / "code.py").write_text("one = 1\n")
    (project / "benchmarks" / "results" / "race.json").write_text("{}\n")
    (tmp_path / "other.txt").write_text("another project\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "Begin")
    return project


@pytest.fixture
def code(checkout):
    return checkout / "package" / "part" / "code.py"


@needs_git
def test_a_project_is_dirty_by_its_code_and_not_by_its_results(checkout, code):
    clean = commit_of(code)
    assert len(clean) == 12 and int(clean, 16) > 0
    (checkout / "benchmarks" / "results" / "race.json").write_text('{"rows": []}\n')
    (checkout.parent / "other.txt").write_text("changed\n")
    assert commit_of(code) == clean
    (checkout / "benchmarks" / "race.py").write_text("turns = 20\n")
    git(checkout, "add", "benchmarks/race.py")
    assert commit_of(code) == f"{clean}-dirty"


@needs_git
def test_a_file_that_git_does_not_know_belongs_to_no_commit(code, tmp_path_factory):
    installed = code.with_name("installed.py")
    installed.write_text("")
    assert commit_of(installed) == "unknown"
    assert commit_of(tmp_path_factory.mktemp("elsewhere") / "package" / "part" / "code.py") == "unknown"


@needs_git
def test_the_repository_of_a_hook_is_not_asked(code, monkeypatch, tmp_path_factory):
    clean = commit_of(code)
    monkeypatch.setenv("GIT_DIR", str(tmp_path_factory.mktemp("hook")))
    assert commit_of(code) == clean != "unknown"


@needs_git
def test_a_machine_without_git_is_no_error(code, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit_of(code) == "unknown"
