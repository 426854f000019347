"""Write the README's numbers from the committed results.

Run:     python benchmarks/results_table.py            to write them
         python benchmarks/results_table.py --check    to fail where they differ
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->"


def runs_table():
    """Return the accuracies of the recipes as a table."""
    rows = json.loads((ROOT / "benchmarks/results/runs.json").read_text())
    lines = ["| recipe, seed | test accuracy, 1000 tasks | learned T | training |", "|---|---|---|---|"]
    for row in rows:
        accuracy = f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f} %"
        minutes = f"{row['training_s'] / 60:.1f} min"
        lines.append(f"| {row['recipe']}, {row['training seed']} | {accuracy} | {row['horizon']:.0f} | {minutes} |")
    first = rows[0]
    note = (
        f"On {first['device']}, {first['cores']} cores, jax {first['versions']['jax']}; accuracy with its 95 % "
        "confidence interval, on unseen characters of unseen scripts,\nsupport and query in different typefaces, with "
        "running batch statistics. The machine did other work at the same time."
    )
    return "\n".join([*lines, "", note])


def speed_table():
    """Return what a meta-gradient costs as a table."""
    result = json.loads((ROOT / "benchmarks/results/meta_gradients.json").read_text())
    lines = ["| meta-gradient | time (quartiles) | temporary memory |", "|---|---|---|"]
    for name, row in result["measurements"].items():
        low, high = row["quartiles_ms"]
        time = f"{row['median_ms']:.2f} ms ({low:.2f} to {high:.2f})"
        lines.append(f"| {name} | {time} | {row['temporary_bytes'] / 1e6:.2f} MB |")
    where = result["environment"]
    note = (
        f"One 5-way 5-shot task with 1600 features in float32, gradient in the initial weights, support, query and T; "
        f"{where['device']}, {where['cores']} cores,\njax {where['versions']['jax']}, commit {where['commit']}."
    )
    return "\n".join([*lines, "", note])


def main():
    """Write or check the block between the marks."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    wanted = f"{before}{BEGIN}{runs_table()}\n\n{speed_table()}\n{END}{after}"
    if "--check" not in sys.argv[1:]:
        readme.write_text(wanted)
    elif text != wanted:
        sys.exit("README.md does not show the committed results. Run: python benchmarks/results_table.py")


if __name__ == "__main__":
    main()
