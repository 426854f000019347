import json

import pytest

from comln.cli import main, reproduce
from comln.reproduce import figure1

SMOKE = ["reproduce", "all", "--budget", "smoke"]


@pytest.fixture
def two_targets(monkeypatch):
    """Leave two targets, of which the second says what it does."""
    monkeypatch.setattr(reproduce, "TARGETS", {name: reproduce.TARGETS[name] for name in ("figure2", "figure1")})


@pytest.mark.slow
def test_all_targets_go_into_folders_of_their_own_with_one_page_before_them(two_targets, tmp_path, capsys):
    code = main.run([*SMOKE, "--out", str(tmp_path / "r"), "--json"])
    numbers = json.loads(capsys.readouterr().out)
    assert code == 0 and [numbers[name]["target"] for name in numbers] == ["figure2", "figure1"]
    page = (tmp_path / "r" / "index.html").read_text()
    for name in numbers:
        assert f'href="{name}/index.html"' in page and (tmp_path / "r" / name / "index.html").exists()


def test_the_page_before_them_is_there_also_if_not_all_are_done(two_targets, tmp_path, capsys, monkeypatch):
    def interrupted(workspace):
        raise KeyboardInterrupt

    monkeypatch.setattr(figure1, "compute", interrupted)
    assert main.run([*SMOKE, "--out", str(tmp_path)]) == 130
    page = (tmp_path / "index.html").read_text()
    assert 'href="figure2/index.html"' in page and "figure1/index.html" not in page
    assert "(not computed yet)" in page


def test_progress_is_that_of_all_and_names_the_one_at_work():
    said = []
    say = reproduce._share(lambda what, done: said.append((what, done)), "figure1", 1, 4)
    say("half", 0.5)
    assert said == [("figure1: half", 0.375)]


def test_nothing_is_computed_where_one_folder_belongs_to_somebody_else(two_targets, tmp_path, capsys):
    (tmp_path / "figure1").mkdir()
    (tmp_path / "figure1" / "index.html").write_text("mine")
    code = main.run([*SMOKE, "--out", str(tmp_path)])
    err = capsys.readouterr().err
    assert code == 2 and "figure1 holds index.html, not written by `comln reproduce figure1`" in err
    assert (tmp_path / "figure1" / "index.html").read_text() == "mine" and not (tmp_path / "figure2" / "parts").exists()


def test_all_is_computed_on_glyphs_only(tmp_path, capsys):
    code = main.run([*SMOKE, "--out", str(tmp_path), "--data", "mini-imagenet"])
    assert code == 2 and "all can be computed on glyphs" in capsys.readouterr().err
