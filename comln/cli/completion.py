"""`comln completion SHELL`: print a script by which a shell completes commands, their options and names."""

__all__ = ["run"]

import contextlib
import importlib
import io
import re

from comln.cli.main import COMMANDS
from comln.cli.options import fail

SHELLS = ("bash", "zsh", "fish")
USAGE = f"""usage: comln completion {"|".join(SHELLS)}

Print a script by which the shell completes commands, their options, and names of recipes and results. To have it
always, write it to a file once, and have the shell read that file when it starts:

  bash   comln completion bash > ~/.comln.bash     and in ~/.bashrc:  source ~/.comln.bash
  zsh    comln completion zsh > ~/.comln.zsh       and in ~/.zshrc:   source ~/.comln.zsh
  fish   comln completion fish > ~/.config/fish/completions/comln.fish
"""

BASH = """\
_comln() {{
    local choices="" word="${{COMP_WORDS[COMP_CWORD]}}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        choices="{commands}"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=()
    local choice
    for choice in $(compgen -W "$choices" -- "$word"); do
        # Options only where one was begun: otherwise the word may be a file.
        if [[ "$choice" != -* || "$word" == -* ]]; then COMPREPLY+=("$choice"); fi
    done
}}
complete -o default -F _comln comln
"""
ZSH = """\
(( $+functions[compdef] )) || { autoload -U +X compinit && compinit; }
autoload -U +X bashcompinit && bashcompinit
"""


def run(arguments: list[str]) -> int:
    """Print the script; return the exit code."""
    if arguments in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        return fail(f"name one shell of {', '.join(SHELLS)}. See `comln completion --help`.")
    words = {command: [*_options(command), *_names(command)] for command in COMMANDS if command != "completion"}
    words["completion"] = [*SHELLS]
    print(_fish(words) if arguments[0] == "fish" else _bash(words, arguments[0] == "zsh"), end="")
    return 0


def _options(command: str) -> list[str]:
    """Return the options that a command's help names, sorted."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        importlib.import_module(f"comln.cli.{command}").run(["--help"])
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text.getvalue())))


def _names(command: str) -> list[str]:
    """Return what a command's first word may be, where there is a list of it."""
    if command in ("train", "recipes"):
        from comln.recipes import NAMES

        return [*NAMES]
    if command == "reproduce":
        from comln.cli.reproduce import ALL, TARGETS

        return [*TARGETS, ALL]
    return ["check", "prepare"] if command == "data" else []


def _bash(words: dict[str, list[str]], for_zsh: bool) -> str:
    cases = "\n".join(f'        {command}) choices="{" ".join(of)}" ;;' for command, of in words.items())
    script = BASH.format(commands=" ".join(COMMANDS), cases=cases)
    return f"{ZSH}{script}" if for_zsh else script


def _fish(words: dict[str, list[str]]) -> str:
    lines = [
        f"complete -c comln -n __fish_use_subcommand -f -a {name} -d '{text.replace(chr(39), '')}'"
        for name, text in COMMANDS.items()
    ]
    for command, of in words.items():
        condition = f"complete -c comln -n '__fish_seen_subcommand_from {command}'"
        lines += [f"{condition} -l {word[2:]} -r" if word.startswith("--") else f"{condition} -a {word}" for word in of]
    return "\n".join(lines) + "\n"
