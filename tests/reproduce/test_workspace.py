import json

import pytest

from comln.reproduce import workspace
from comln.reproduce.measure import environment, numerics
from comln.reproduce.workspace import Budget, Workspace


class Counter:
    def __init__(self, result):
        self.calls, self.result = 0, result

    def __call__(self):
        self.calls += 1
        return self.result


def test_a_part_is_computed_once_and_again_when_its_configuration_changes(tmp_path):
    compute = Counter({"value": [1.5]})
    for _ in range(2):
        assert Workspace(tmp_path / "parts").kept("one", {"shape": (1, 2)}, compute) == {"value": [1.5]}
    assert compute.calls == 1
    Workspace(tmp_path / "parts").kept("one", {"shape": (1, 3)}, compute)
    Workspace(tmp_path / "parts").kept("two", {"shape": (1, 3)}, compute)
    assert compute.calls == 3


def test_a_part_of_another_configuration_stays(tmp_path):
    """A cheap run in the folder of an expensive one must not cost what took days."""
    compute = Counter(3)
    for steps in (60_000, 10, 60_000):
        Workspace(tmp_path).kept("one", {"steps": steps}, compute)
    assert compute.calls == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"configuration": {}}', '{"configuration": {"a": 2}, "result": 1}'])
def test_a_damaged_part_is_computed_again(tmp_path, damage):
    compute = Counter(3)
    Workspace(tmp_path).kept("one", {"a": 1}, compute)
    (part,) = tmp_path.iterdir()
    part.write_text(damage)
    assert Workspace(tmp_path).kept("one", {"a": 1}, compute) == 3 and compute.calls == 2
    content = json.loads(part.read_text())
    assert content["result"] == 3 and content["configuration"]["a"] == 1
    assert list(tmp_path.iterdir()) == [part] and part.name.startswith("one-")


def test_a_part_that_was_interrupted_leaves_nothing(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Workspace(tmp_path / "parts").kept("one", {}, interrupted)
    assert not (tmp_path / "parts").exists()


def test_a_number_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Workspace(tmp_path).kept("one", {}, lambda: float("nan"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"precision": "float16"}, {"device": "another"}, {"versions": {"jax": "0.0.1"}}])
def test_a_part_of_another_device_precision_or_version_is_computed_again(monkeypatch, tmp_path, change):
    compute = Counter(3)
    Workspace(tmp_path).kept("one", {}, compute)
    monkeypatch.setattr(workspace, "numerics", lambda: numerics() | change)
    Workspace(tmp_path).kept("one", {}, compute)
    assert compute.calls == 2 and len(list(tmp_path.iterdir())) == 2


def test_the_commits_of_all_parts_are_told(monkeypatch, tmp_path):
    where = environment()
    for commit in ("old", "new"):
        monkeypatch.setattr(workspace, "COMMIT", commit)
        work = Workspace(tmp_path)
        assert work.environment()["commit"] == commit
        work.kept("one", {}, Counter(1))
        work.kept(commit, {}, Counter(1))
    assert work.environment() == where | {"commit": "new, old"}
    elsewhere = Workspace(tmp_path / "other", elsewhere=(tmp_path,))
    elsewhere.kept("one", {}, Counter(1))
    assert elsewhere.environment()["commit"] == "new, old"


def test_budgets_are_words():
    assert [str(budget) for budget in Budget] == ["smoke", "committed", "full"]


def test_a_part_of_another_folder_is_used_and_kept_here_too(tmp_path):
    compute = Counter(3)
    Workspace(tmp_path / "table2" / "parts").kept("one", {"a": 1}, compute)
    there = tmp_path / "table4" / "parts"
    work = Workspace(there, elsewhere=(tmp_path / "nowhere", tmp_path / "table2" / "parts"))
    assert work.kept("one", {"a": 1}, compute) == 3 and compute.calls == 1
    assert [path.name.split("-")[0] for path in there.iterdir()] == ["one"]
    assert Workspace(there).kept("one", {"a": 1}, compute) == 3 and compute.calls == 1
    work.kept("one", {"a": 2}, compute)
    assert compute.calls == 2
