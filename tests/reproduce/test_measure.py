"""Which commit a measurement belongs to, in repositories made for it."""

import subprocess

import pytest

from comln.reproduce.measure import commit_of


@pytest.fixture
def checkout(tmp_path):
    """A repository with a module in a package and a result."""
    for name in ("package", "benchmarks/results"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "package" / "code.py").write_text("one = 1\n")
    (tmp_path / "benchmarks" / "results" / "race.json").write_text("{}\n")
    author = ("-c", "user.name=A Person", "-c", "user.email=a@person.example")
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-q", "-m", "Begin")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_checkout_is_dirty_by_its_code_and_not_by_its_results(checkout):
    code = checkout / "package" / "code.py"
    clean = commit_of(code)
    assert len(clean) == 12 and int(clean, 16) > 0
    (checkout / "benchmarks" / "results" / "race.json").write_text('{"rows": []}\n')
    assert commit_of(code) == clean
    # A change elsewhere counts too: of a script that measures, for one.
    (checkout / "benchmarks" / "race.py").write_text("turns = 20\n")
    subprocess.run(["git", "add", "benchmarks/race.py"], cwd=checkout, check=True)
    assert commit_of(code) == f"{clean}-dirty"


def test_a_file_that_git_does_not_know_belongs_to_no_commit(checkout, tmp_path_factory):
    installed = checkout / "package" / "installed.py"
    installed.write_text("")
    assert commit_of(installed) == "unknown"
    assert commit_of(tmp_path_factory.mktemp("elsewhere") / "code.py") == "unknown"


def test_a_machine_without_git_is_no_error(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit_of(checkout / "package" / "code.py") == "unknown"
