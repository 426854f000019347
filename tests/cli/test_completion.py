import re
import shutil
import subprocess

import pytest

from comln.cli import completion, main
from tests.cli.test_cli import comln


@pytest.fixture(scope="module")
def script():
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main.run(["completion", "bash"]) == 0
    return text.getvalue()


def completed(script, *words):
    """Return what bash would offer for the last of the words."""
    typed = " ".join(f'"{word}"' for word in ("comln", *words))
    ask = f'COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _comln; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_options_and_names(script):
    assert completed(script, "tra") == ["train"]
    assert completed(script, "evaluate", "--sh") == ["--shots"]
    assert "--learner" in completed(script, "train", "--l") and "glyphs-5way-1shot" in completed(script, "train", "gly")
    assert completed(script, "reproduce", "figure1") == ["figure1"] and "check" in completed(script, "data", "")
    assert set(completed(script, "")) == set(main.COMMANDS)


def test_bash_offers_options_only_where_one_was_begun(script):
    """Otherwise the word may be a file, which bash completes by itself where nothing is offered."""
    assert completed(script, "predict", "") == [] and completed(script, "train", "x") == []
    assert "--support" in completed(script, "predict", "-") and "glyphs-5way-1shot" in completed(script, "train", "")
    assert not any(word.startswith("-") for word in completed(script, "train", ""))


def test_bash_knows_what_takes_a_value_and_which(script):
    """Where a value is due that has no list, nothing is offered, so that files are."""
    for words in (["train", "--out"], ["train", "--learner"], ["reproduce", "figure1", "--out"], ["data", "check"]):
        assert completed(script, *words, "") == []
    assert completed(script, "predict", "--ink", "d") == ["dark"]
    assert "--support" in completed(script, "predict", "--json", "--su")
    assert completed(script, "train", "--resume", "gly") == []


def test_fish_asks_for_values_only_where_there_are_some(capsys):
    out = comln("completion", "fish", capsys=capsys)[1]
    assert re.search(r"from predict' -l out -r$", out, re.MULTILINE)
    # The help of `--resume` names it, too.
    assert re.search(r"from train' -l out -r$", out, re.MULTILINE)
    assert re.search(r"from predict' -l json$", out, re.MULTILINE)
    assert "-l ink -x -a 'auto dark bright'" in out


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_their_script(shell, capsys):
    code, out, _ = comln("completion", shell, capsys=capsys)
    assert code == 0 and "glyphs-5way-1shot" in out and "shots" in out
    if found := shutil.which(shell):
        subprocess.run([found, "-n", "-c", out], check=True)


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_another_shell_is_refused_in_one_line(words, capsys):
    code, _, err = comln("completion", *words, capsys=capsys)
    assert code == 2 and err.count("\n") == 1 and "bash, zsh, fish" in err


def test_the_help_says_where_to_put_it(capsys):
    code, out, _ = comln("completion", "--help", capsys=capsys)
    assert code == 0 and all(shell in out for shell in completion.SHELLS)


def test_zsh_has_what_it_needs_and_its_own_variables_are_left_alone(capsys):
    """`words` is zsh's own in a completion; without `compinit`, `complete` fails on a missing `compdef`."""
    out = comln("completion", "zsh", capsys=capsys)[1]
    assert "compinit; }\nautoload -U +X bashcompinit" in out and re.search(r"\bwords\b", out) is None
