"""`comln recipes`: list what can be trained, and with what result others have trained it."""

__all__ = ["run"]

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from comln.cli.options import fail, parse
from comln.recipes import LEARNERS, PROTOCOLS, RECIPES, Experiment, find
from comln.recipes.backbones import BACKBONES
from comln.recipes.benchmarks import EXPERIMENTS as BENCHMARKS
from comln.recipes.benchmarks import REMEMBERED, Number, published, published_of
from comln.recipes.originals import original_of
from comln.run import converter


@dataclass(frozen=True)
class RecipesOptions:
    """List what can be trained, with its cost and the number to expect."""

    recipe: tyro.conf.Positional[str | None] = None
    """list what the paper has for each method in this recipe, and from whom"""
    learner: str | None = None
    """say how each protocol sets this method in the recipe (in the first one, if none is named), and how its authors'
    settings are known"""
    json: bool = False
    """print JSON only"""


def run(arguments: list[str]) -> int:
    """Print the recipes, one recipe, or one method in it; return the exit code."""
    options = parse(RecipesOptions, arguments, "recipes")
    try:
        if options.learner is not None:
            return _describe(options.recipe or RECIPES[0].EXPERIMENT.name, options.learner, options.json)
        if options.recipe is not None:
            return _results(options.recipe, options.json)
    except ValueError as error:
        return fail(error)
    rows = [_row(module.EXPERIMENT, module.COST, module.EXPECTED) for module in RECIPES]
    rows += [_row(experiment, "your data, accelerator", _expected(name)) for name, experiment in BENCHMARKS.items()]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    console = Console()
    console.print(_table("comln train RECIPE", rows, first="recipe"))
    console.print(f"--learner: {', '.join(LEARNERS)}    --protocol: {', '.join(PROTOCOLS)}", highlight=False)
    console.print(f"with another network: RECIPE-{', RECIPE-'.join(BACKBONES)}", highlight=False)
    return 0


def _table(title: str, rows: list[dict[str, Any]], first: str) -> Table:
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column == first)
    for row in rows:
        table.add_row(*map(str, row.values()))
    return table


def _row(experiment: Experiment, cost: str, expected: str) -> dict[str, Any]:
    return {
        "recipe": experiment.name,
        "ways": experiment.test.ways,
        "shots": experiment.test.shots,
        "steps": experiment.steps,
        "cost": cost,
        "expected": expected,
    }


def _expected(name: str) -> str:
    """Return what the paper reports for COMLN in this recipe."""
    number = published(name, "comln")
    return "not in the paper" if number is None else f"paper, Table {number.table}: {_percent(number)}"


def _percent(number: Number) -> str:
    return f"{number.accuracy:.2f} ± {number.ci95:.2f} %"


def _results(recipe: str, as_json: bool) -> int:
    """Print what the paper has for every method in a recipe; return the exit code."""
    find(recipe, LEARNERS[0], PROTOCOLS[0])
    of_paper = published_of(recipe)
    ordered = sorted(of_paper.items(), key=lambda row: LEARNERS.index(row[0][0]))
    found = {f"{learner} {options}".rstrip(): number for (learner, options), number in ordered}
    if as_json:
        numbers = {learner: dataclasses.asdict(number) for learner, number in found.items()}
        print(json.dumps({"recipe": recipe, "published": numbers}, indent=2))
        return 0
    console = Console()
    if found:
        rows = [
            {
                "learner": learner,
                "published": _percent(number),
                "table": number.table,
                "source": number.source,
                "note": number.note,
            }
            for learner, number in found.items()
        ]
        console.print(_table(f"comln train {recipe} --learner LEARNER", rows, first="learner"))
        _explain_remembered(console, found.values())
    others = [learner for learner in LEARNERS if (learner, "") not in of_paper]
    console.print(f"not in the paper: {', '.join(others)}", highlight=False)
    return 0


def _explain_remembered(console: Console, numbers: Iterable[Number]) -> None:
    if any(REMEMBERED in number.source for number in numbers):
        console.print(
            f"{REMEMBERED}: the paper copied it; from which of the sources that Table 3 names was not legible.",
            highlight=False,
        )


def _describe(recipe: str, learner: str, as_json: bool) -> int:
    """Print what the protocols set for a learner in a recipe, and the published number; return the exit code."""
    experiments = {protocol: find(recipe, learner, protocol) for protocol in PROTOCOLS}
    original, number = original_of(learner, experiments["house"]), published(recipe, learner)
    provenance = {
        "from the paper": original.from_paper,
        "from the authors' program": original.from_code,
        "from memory": original.from_memory,
        "chosen here": original.chosen,
    }
    settings = {protocol: _settings(experiment) for protocol, experiment in experiments.items()}
    if as_json:
        content = {
            "recipe": recipe,
            "learner": learner,
            "settings": settings,
            "original": provenance,
            "published": None if number is None else dataclasses.asdict(number),
        }
        print(json.dumps(content, indent=2))
        return 0
    names = dict.fromkeys(name for values in settings.values() for name in values)
    rows = [
        {"setting": name} | {protocol: settings[protocol].get(name, "") for protocol in PROTOCOLS} for name in names
    ]
    console = Console()
    console.print(_table(f"comln train {recipe} --learner {learner} --protocol ...", rows, first="setting"))
    for where, what in provenance.items():
        if what:
            console.print(f"original, {where}: {what}.", highlight=False)
    if number is not None:
        console.print(f"published, Table {number.table}: {_percent(number)}. Source: {number.source}.", highlight=False)
        _explain_remembered(console, [number])
        if number.note:
            console.print(f"published, note: {number.note}.", highlight=False)
    return 0


def _settings(experiment: Experiment) -> dict[str, Any]:
    """Return the settings of an experiment that protocols change, by the name of their option."""
    written, settings = converter.unstructure(experiment), {}
    for part in ("learner", "optimiser", "backbone", "train"):
        settings |= {f"{part}.{name}": value for name, value in written[part].items()}
    if "padding" in written["data"]:
        settings["data.padding"] = written["data"]["padding"]
    others = ("steps", "tasks_per_step", "normalisation", "validate_every", "validation_tasks", "patience")
    return settings | {name: written[name] for name in others}
