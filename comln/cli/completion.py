"""`comln completion SHELL`: print a script by which a shell completes commands, their options and names."""

__all__ = ["run"]

import contextlib
import importlib
import io
import re

from comln.cli.main import COMMANDS
from comln.cli.options import fail

Options = dict[str, tuple[str, ...] | None]
"""By name: the values that it may have, none where they have no list, and `None` for a switch."""
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
    local choices="" names="" word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD - 1]}}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        choices="{commands}"
    else
        case "${{COMP_WORDS[1]}} $before" in
{values}
        *) case "${{COMP_WORDS[1]}}" in
{cases}
            esac
            if [ "$COMP_CWORD" -eq 2 ]; then choices="$choices $names"; fi ;;
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
    options = {command: {} if command == "completion" else _options(command) for command in COMMANDS}
    print(_fish(options) if arguments[0] == "fish" else _bash(options, arguments[0] == "zsh"), end="")
    return 0


def _options(command: str) -> Options:
    """Return the options that a command's help names, sorted."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        importlib.import_module(f"comln.cli.{command}").run(["--help"])
    found: Options = {}
    # After the name of an option comes what stands for its value, in capitals or braces; after that of a switch, none.
    for name, value in re.findall(r"(?<![\w-])(--[a-z][\w.-]*\w)(?: ([A-Z{]\S*))?", text.getvalue()):
        listed = re.fullmatch(r"\{([\w,.-]+)\}", value)
        values = tuple(listed[1].split(",")) if listed else () if value else None
        # Another option's help may name it, without its value.
        if found.get(name) is None:
            found[name] = values
    return dict(sorted(found.items()))


def _names(command: str) -> list[str]:
    """Return what a command's first word may be, where there is a list of it."""
    if command == "completion":
        return [*SHELLS]
    if command in ("train", "recipes"):
        from comln.recipes import NAMES

        return [*NAMES]
    if command == "reproduce":
        from comln.cli.reproduce import ALL, TARGETS

        return [*TARGETS, ALL]
    return ["check", "prepare"] if command == "data" else []


def _bash(options: dict[str, Options], for_zsh: bool) -> str:
    values = "\n".join(
        f"""        "{command} {name}") choices="{" ".join(of)}" ;;"""
        for command, found in options.items()
        for name, of in found.items()
        if of is not None
    )
    cases = "\n".join(
        f"""            {command}) choices="{" ".join(found)}" names="{" ".join(_names(command))}" ;;"""
        for command, found in options.items()
    )
    script = BASH.format(commands=" ".join(COMMANDS), values=values, cases=cases)
    return f"{ZSH}{script}" if for_zsh else script


def _fish(options: dict[str, Options]) -> str:
    lines = [
        f"complete -c comln -n __fish_use_subcommand -f -a {name} -d '{text.replace(chr(39), '')}'"
        for name, text in COMMANDS.items()
    ]
    for command, found in options.items():
        seen = f"__fish_seen_subcommand_from {command}"
        for name, values in found.items():
            takes = "" if values is None else f" -x -a '{' '.join(values)}'" if values else " -r"
            lines.append(f"complete -c comln -n '{seen}' -l {name[2:]}{takes}")
        first = f"{seen}; and test (count (commandline -opc)) -eq 2"
        lines += [f"complete -c comln -n '{first}' -a {name}" for name in _names(command)]
    return "\n".join(lines) + "\n"
