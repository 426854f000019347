"""`comln recipes`: list what can be trained."""

__all__ = ["run"]

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from comln.cli.options import fail, parse
from comln.recipes import LEARNERS, PROTOCOLS, RECIPES, Experiment, find
from comln.recipes.backbones import BACKBONES
from comln.recipes.benchmarks import EXPERIMENTS as BENCHMARKS
from comln.recipes.benchmarks import published
from comln.recipes.originals import original_of
from comln.run import converter


@dataclass(frozen=True)
class RecipesOptions:
    """List what can be trained, with its cost and the number to expect."""

    learner: str | None = None
    """say how each protocol sets this method, for 5-way 1-shot tasks, and how its authors' settings are known"""
    json: bool = False
    """print JSON only"""


def run(arguments: list[str]) -> int:
    """Print the recipes; return the exit code."""
    options = parse(RecipesOptions, arguments, "recipes")
    if options.learner is not None:
        return _describe(options.learner, options.json)
    rows = [_row(module.EXPERIMENT, module.COST, module.EXPECTED) for module in RECIPES]
    rows += [_row(experiment, "your data, accelerator", _published(name)) for name, experiment in BENCHMARKS.items()]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table(title="comln train RECIPE")
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column == "recipe")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = Console()
    console.print(table)
    console.print(f"--learner: {', '.join(LEARNERS)}    --protocol: {', '.join(PROTOCOLS)}", highlight=False)
    console.print(f"with another network: RECIPE-{', RECIPE-'.join(BACKBONES)}", highlight=False)
    return 0


def _row(experiment: Experiment, cost: str, expected: str) -> dict[str, Any]:
    return {
        "recipe": experiment.name,
        "ways": experiment.test.ways,
        "shots": experiment.test.shots,
        "steps": experiment.steps,
        "cost": cost,
        "expected": expected,
    }


def _published(name: str) -> str:
    """Return what the paper reports for COMLN in this recipe."""
    found = published(name, "comln")
    if found is None:
        return "not in the paper"
    row, (accuracy, ci95) = found
    return f"paper, Table {row.table}: {accuracy} ± {ci95} %"


def _describe(learner: str, as_json: bool) -> int:
    """Print what the protocols set for a learner; return the exit code."""
    try:
        experiments = {protocol: find(RECIPES[0].EXPERIMENT.name, learner, protocol) for protocol in PROTOCOLS}
    except ValueError as error:
        return fail(error)
    original = original_of(learner, experiments["house"])
    provenance = {
        "from the paper": original.from_paper,
        "from the authors' program": original.from_code,
        "from memory": original.from_memory,
        "chosen here": original.chosen,
    }
    settings = {protocol: _settings(experiment) for protocol, experiment in experiments.items()}
    if as_json:
        print(json.dumps({"learner": learner, "settings": settings, "original": provenance}, indent=2))
        return 0
    table = Table(title=f"comln train --learner {learner} --protocol ...")
    for column in ("setting", *PROTOCOLS):
        table.add_column(column, overflow="fold", no_wrap=column == "setting")
    for name in dict.fromkeys(name for values in settings.values() for name in values):
        table.add_row(name, *(str(settings[protocol].get(name, "")) for protocol in PROTOCOLS))
    console = Console()
    console.print(table)
    for where, what in provenance.items():
        if what:
            console.print(f"original, {where}: {what}.", highlight=False)
    return 0


def _settings(experiment: Experiment) -> dict[str, Any]:
    """Return the settings of an experiment that protocols change, by the name of their option."""
    written, settings = converter.unstructure(experiment), {}
    for part in ("learner", "optimiser", "backbone", "train"):
        settings |= {f"{part}.{name}": value for name, value in written[part].items()}
    return settings | {name: written[name] for name in ("steps", "tasks_per_step", "normalisation")}
