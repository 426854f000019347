"""`comln recipes`: list what can be trained."""

__all__ = ["run"]

import json
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from comln.cli.options import parse
from comln.recipes import LEARNERS, PROTOCOLS, RECIPES
from comln.recipes.backbones import BACKBONES


@dataclass(frozen=True)
class RecipesOptions:
    """List what can be trained, with its cost and the number to expect."""

    json: bool = False
    """print JSON only"""


def run(arguments: list[str]) -> int:
    """Print the recipes; return the exit code."""
    options = parse(RecipesOptions, arguments, "recipes")
    rows = [
        {
            "recipe": module.EXPERIMENT.name,
            "ways": module.EXPERIMENT.test.ways,
            "shots": module.EXPERIMENT.test.shots,
            "steps": module.EXPERIMENT.steps,
            "cost": module.COST,
            "expected": module.EXPECTED,
        }
        for module in RECIPES
    ]
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
