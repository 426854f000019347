"""The race goes on where an entrant does not. The entrants are scripts of a few lines, the measuring is its own."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "race"

BEGINNING = f"import os, sys, time\nsys.path.insert(0, {str(FOLDER)!r})\nfrom answering import *\n"
STEADY = "serve(lambda work: (lambda: None, lambda result: {}), {'python': '3'})"
DYING = "serve(lambda work: (iter([0, 0]).__next__, lambda result: {}), {})"
KILLED = "tell({'first_s': 0}); sys.stdin.close(); os._exit(1)"
BABBLING = "print('not JSON', flush=True); time.sleep(60)"
SILENT = "sys.exit('No module named torch')"


def loaded(monkeypatch, path):
    """Return a script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def race(monkeypatch, tmp_path):
    module = loaded(monkeypatch, FOLDER / "race.py")
    monkeypatch.setattr(module, "HERE", tmp_path)
    return module


def entrants(race, folder, **scripts):
    for name, script in scripts.items():
        path = folder / f"{name}.py"
        path.write_text(f"{BEGINNING}{script}\n")
    return [race.Entrant(name, "", f"{name}.py") for name in scripts]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (DYING, "StopIteration"),
        (KILLED, "it answered ''"),
        (BABBLING, "it answered 'not JSON'"),
        (SILENT, "No module named torch"),
    ],
)
def test_one_that_fails_has_a_reason_and_the_others_go_on(race, tmp_path, script, reason):
    both = entrants(race, tmp_path, steady=STEADY, failing=script)
    found = race.take_turns(tmp_path, both, [{}, {}], 4)
    assert reason in found["failing"]["reason"] and "times" not in found["failing"]
    assert len(found["steady"]["times"]) == 4 and found["steady"]["versions"] == {"python": "3"}


def test_ours_that_fails_beside_one_costs_that_pair_alone(race, tmp_path, monkeypatch):
    ours, *others = entrants(race, tmp_path, ours=STEADY, greedy=STEADY, modest=STEADY)
    of_two = race.beside_and_alone

    def where_greedy_takes_all(peers, pair, works, rounds):
        found, alone = of_two(peers, pair, works, rounds)
        return found | ({"ours": {"reason": "killed"}} if pair[1].name == "greedy" else {}), alone

    monkeypatch.setattr(race, "beside_and_alone", where_greedy_takes_all)
    found = race.in_pairs(tmp_path, [ours, *others], [{}, {}, {}], 3)
    assert found["greedy"] == {"reason": "ours failed beside it: killed"}
    assert len(found["ours"]["times"]) == len(found["modest"]["times"]) == len(found["modest"]["times of ours"]) == 3


def test_a_turn_takes_as_long_as_its_work_and_memory_is_that_of_the_process(race, tmp_path):
    script = "serve(lambda work: (lambda: time.sleep(0.1) or bytearray(100_000_000), lambda result: {}), {})"
    found = race.take_turns(tmp_path, entrants(race, tmp_path, idle=script, none=STEADY), [{}, {}], 3)
    assert all(spent >= 0.1 for spent in found["idle"]["times"])
    assert 90e6 < found["idle"]["peak_bytes"] < 200e6 and found["none"]["peak_bytes"] < 30e6


def test_a_ratio_is_of_turns_beside_each_other(race):
    median, quartiles = race.ratio({"times": [2.0, 4.0, 6.0, 9.0]}, {"times": [1.0, 2.0, 2.0]})
    assert median == 2.0 and quartiles == [2.0, 2.5]


def test_a_peer_is_as_accurate_unless_the_tasks_say_otherwise(race):
    ours = {"accuracies": [0.9, 1.0, 0.9, 1.0], "times": [1.0, 1.0]}
    peers = {
        "equal": {"accuracies": ours["accuracies"], "times": [4.0, 4.0]},
        "worse": {"accuracies": [0.7, 0.8, 0.7, 0.8], "times": [0.1, 0.1]},
        "unsure": {"accuracies": [1.0, 0.6, 1.0, 0.9], "times": [2.0, 2.0]},
    }
    equal = race.as_accurate(ours, peers)
    assert set(equal) == {"equal", "unsure"}
    assert race.beside_fastest(ours, equal) == {"head": "unsure", "times of it": 0.5, "quartiles": [0.5, 0.5]}
    assert race.beside_fastest(ours, {}) is None


def test_all_heads_choose_among_as_many_numbers(race):
    assert {len(choices) for _, choices in race.HEADS.values()} == {0, race.TRIED}
    for choices in (choices for _, choices in race.HEADS.values() if choices):
        assert np.all(np.diff(choices) > 0)


def test_rows_of_one_race_take_the_place_of_its_earlier_ones(race):
    first, second = (shape.name for shape in race.SHAPES)
    one, other, *_ = race.META_STEPS
    before = [{"shape": first, "race": one, "ms": 1}, {"shape": second, "race": one, "ms": 2}]
    new = [{"shape": first, "race": one, "ms": 3}]
    assert race.merged(before, new) == [*new, before[1]]
    later = [{"shape": first, "race": other, "ms": 4}]
    assert race.merged(before, later) == [before[0], *later, before[1]]
    assert race.is_known({**before[0], "device": "cpu"}) and not race.is_known(before[0])
    assert not race.is_known({"shape": first, "race": "gone", "device": "cpu"})


def test_turns_of_ours_without_the_other_do_not_count(race, tmp_path, monkeypatch):
    ours, slow, dying = entrants(race, tmp_path, ours=STEADY, slow=STEADY, dying=DYING)
    found = race.in_pairs(tmp_path, [ours, dying], [{}, {}], 6)
    assert "reason" in found["ours"] and "reason" in found["dying"]
    rows = list(race.meta_step_rows("MAML", race.SHAPES[0], [ours, dying], {}, found))
    assert all("reason" in row for row in rows) and len(rows) == 2
    of_two = race.beside_and_alone

    def where_slow_is_slow(peers, pair, works, rounds):
        found, alone = of_two(peers, pair, works, rounds)
        found["slow"]["times"] = found["slow"]["times"][: race.FEW]
        return found, alone

    monkeypatch.setattr(race, "beside_and_alone", where_slow_is_slow)
    found = race.in_pairs(tmp_path, [ours, slow], [{}, {}], 6)
    assert len(found["ours"]["times"]) == len(found["slow"]["times of ours"]) == len(found["slow"]["times"]) == race.FEW


def test_heads_of_an_earlier_run_are_kept_where_they_were_judged_as_now(race):
    before = {
        "heads": [{"head": name, "device": "cpu"} for name in race.HEADS],
        "embeddings": {},
        "reference": race.REFERENCE,
        "as accurate": race.AS_ACCURATE,
    }
    assert race.are_known(before) and not race.are_known({})
    for name, other in (("reference", "LogisticRegression"), ("as accurate", 0.01), ("embeddings", None)):
        assert not race.are_known({**before, name: other})
    assert not race.are_known({**before, "heads": before["heads"][1:]})


def test_each_compiles_its_own(race, tmp_path):
    script = "serve(lambda work: (lambda: None, lambda result: {}), {'cache': os.environ['TORCHINDUCTOR_CACHE_DIR']})"
    (tmp_path / "peer.py").write_text(f"{BEGINNING}{script}\n")
    peer = race.Entrant("peer", "torch", "peer.py")
    caches = set()
    for _ in range(2):
        with race.started(sys.executable, peer, {}) as (about, _):
            caches.add(about["versions"]["cache"])
    assert len(caches) == 2 and not any(Path(cache).exists() for cache in caches)


def test_one_that_is_slow_takes_few_turns(race, tmp_path, monkeypatch):
    monkeypatch.setattr(race, "SLOW_S", 0.0)
    found = race.take_turns(tmp_path, entrants(race, tmp_path, one=STEADY), [{}], 6)
    assert len(found["one"]["times"]) == race.FEW


def test_heads_without_the_reference_are_told_without_a_ratio(race):
    answer = {"accuracies": [0.9, 1.0], "times": [1.0, 1.0], "chosen": [], "peak_bytes": 1, "versions": {}}
    found = {name: {**answer, "tasks of a turn": 1} for name in race.HEADS} | {race.REFERENCE: {"reason": "killed"}}
    rows = {row["head"]: row for row in race.head_rows(1, found)}
    assert rows[race.REFERENCE]["reason"] == "killed" and "times of the reference" not in rows["LogisticRegression"]
    assert rows["GradientFlowClassifier"]["fastest peer as accurate"]["times of it"] == 1.0


def test_rows_of_other_versions_and_races_without_heads_are_told(monkeypatch):
    """The page is written also of a race that was run in parts."""
    pages = loaded(monkeypatch, FOLDER.parent / "results_table.py")
    content = pages.committed("race")
    ours = next(row for row in content["meta-steps"] if "comln" in row["versions"])
    older = {**ours, "versions": {"comln": "0123456789ab", "jax": "0.0.1"}, "commit": "ba9876543210", "device": "B 200"}
    content |= {"meta-steps": [older, *content["meta-steps"]], "heads": [], "embeddings": None}
    monkeypatch.setattr(pages, "committed", lambda target: content)
    text = pages.race()
    for words in ("jax 0.0.1, jax ", "0123456789ab", "ba9876543210", ours["commit"], "B 200", ours["processor"]):
        assert words in text.splitlines()[-1]
    assert "Heads on frozen embeddings," not in text and "equally accurate unless" not in text


def test_a_race_that_there_is_not_is_told(race, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["race.py", str(tmp_path), "--only=nothing"])
    with pytest.raises(SystemExit, match="No race has 'nothing' in its title"):
        race.main()


def test_each_is_measured_alone_too(race, tmp_path):
    """Each leaves its number, and writes down, turn by turn, whether the other one runs beside it."""

    def script(name, other):
        return (
            f"folder = {str(tmp_path)!r}\n"
            f"open(f'{{folder}}/{name}.number', 'w').write(str(os.getpid()))\n"
            "def runs(name):\n"
            "    path = f'{folder}/{name}.number'\n"
            "    return os.path.exists(path) and os.path.exists(f'/proc/{open(path).read()}')\n"
            f"turn = lambda: open(f'{{folder}}/{name}.seen', 'a').write(str(int(runs({other!r}))))\n"
            "serve(lambda work: (turn, lambda result: {}), {})"
        )

    both = entrants(race, tmp_path, ours=script("ours", "other"), other=script("other", "ours"))
    found = race.in_pairs(tmp_path, both, [{}, {}], 4)
    assert (tmp_path / "other.seen").read_text() == "1" + 4 * "1" + 2 * "0"
    # Its first turn comes before the other one is there, and in the end it is started anew.
    assert (tmp_path / "ours.seen").read_text() == "0" + 4 * "1" + "0" + 2 * "0"
    assert len(found["other"]["alone"]["times"]) == len(found["other"]["ours alone"]["times"]) == 2
    assert len(found["other"]["times"]) == len(found["ours"]["times"]) == 4


def test_one_that_fails_alone_keeps_what_it_took_beside_ours(race, tmp_path):
    failing = "serve(lambda work: (iter([0] * 4).__next__, lambda result: {}), {})"
    both = entrants(race, tmp_path, ours=STEADY, failing=failing)
    found = race.in_pairs(tmp_path, both, [{}, {}], 2)
    assert len(found["failing"]["times"]) == 2 and len(found["failing"]["alone"]["times"]) == 1
    found = race.in_pairs(tmp_path, both, [{}, {}], 3)
    assert len(found["failing"]["times"]) == len(found["failing"]["times of ours"]) == 3
    assert "StopIteration" in found["failing"]["alone"]["reason"]
    alone = race.each_alone(found["failing"]["alone"], found["failing"]["ours alone"])
    assert alone["reason"].startswith("it failed alone: ")


def test_a_ratio_alone_is_of_what_each_took_alone(race):
    said = {"loss": 0.0, "accuracies": [1.0], "peak_bytes": 1, "first_s": 0.0, "versions": {}}
    alone = {"alone": {"times": [2.0, 3.0]}, "ours alone": {"times": [1.0, 1.0]}}
    found = {"ours": {**said, "times": [9.0, 9.0]}, "other": {**said, **alone, "times": [18.0], "times of ours": [9.0]}}
    both = [race.Entrant(name, "", "") for name in found]
    ours, other = race.meta_step_rows("MAML", race.SHAPES[0], both, {}, found)
    assert other["times ours"] == 2.0 and other["alone"]["times ours"] == 2.5 and "alone" not in ours
    assert other["alone"]["ours"]["median_ms"] == 1000.0


def test_tables_tell_what_each_took_alone_where_it_was_measured(monkeypatch):
    pages = loaded(monkeypatch, FOLDER.parent / "results_table.py")
    rows = [row for row in pages.committed("race")["meta-steps"] if "reason" not in row][:2]
    for row in rows:
        row.pop("alone", None)
    assert pages.meta_steps(rows)[0] == pages.META_STEP
    took = {"median_ms": 3250.0, "quartiles_ms": [3000.0, 4000.0]}
    rows[1]["alone"] = {**took, "ours": {**took, "median_ms": 3800.0}, "times ours": 0.855}
    head, ours, other = pages.meta_steps(rows)
    place = head.index("alone, ms, quartiles")
    assert len(head) == len(ours) == len(other) and ours[place : place + 3] == ["", "", ""]
    assert other[place : place + 3] == ["3,250 [3,000, 4,000]", "3,800 [3,000, 4,000]", "0.855"]
    rows[1]["alone"] = {"reason": "it failed alone: killed"}
    assert pages.meta_steps(rows)[2][place] == "it failed alone: killed"


def test_only_what_is_asked_for_is_raced(race, monkeypatch):
    monkeypatch.setattr(race, "take_turns", lambda peers, entrants, works, rounds: {entrants[0].name: {"reason": "-"}})
    monkeypatch.setattr(race, "in_pairs", lambda peers, entrants, *_: {e.name: {"reason": "-"} for e in entrants})
    monkeypatch.setattr(race, "gap", lambda *_: {})
    raced = list(race.race_meta_steps(FOLDER, 1, "ANIL, 5 steps: noise", {}))
    assert [(row["race"], row["shape"]) for row in raced[0][:1]] == [("ANIL, 5 steps", race.SHAPES[1].name)]
    assert len(raced) == 1


def test_where_ours_fails_nobody_goes_on_alone(race, tmp_path):
    both = entrants(race, tmp_path, ours=DYING, other=STEADY)
    pair, alone = race.beside_and_alone(tmp_path, both, [{}, {}], 4)
    assert "reason" in pair["ours"] and len(pair["other"]["times"]) == 4 and alone == {}


@pytest.mark.parametrize("turns", ["2", "x", "-5", ""])
def test_senseless_turns_are_refused(race, monkeypatch, tmp_path, turns):
    monkeypatch.setattr(sys, "argv", ["race.py", str(tmp_path), f"--turns={turns}"])
    with pytest.raises(SystemExit, match="whole number from 3 on"):
        race.main()
