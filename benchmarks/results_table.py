"""Write the numbers of the README and of the pages in docs/ from the committed results.

Run:     python benchmarks/results_table.py            to write them
         python benchmarks/results_table.py --check    to fail where they differ
"""

import json
import sys
from pathlib import Path

from comln.reproduce import (
    efficiency_page,
    figure1,
    figure5,
    glyphs,
    own_horizons,
    scaling_page,
    table1,
    table2,
    table4,
    table5,
    task_horizon,
)
from comln.reproduce.efficiency_facts import facts
from comln.reproduce.facts import Fact
from comln.reproduce.page import Table, machine

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


def cell(value):
    """Return a horizon or a time in few characters."""
    return "∞" if value == "inf" else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def speed_table(result, size, count):
    """Return what a meta-gradient costs for `count` tasks of a size as a table: methods down, horizons across."""
    rows = [row for row in result["rows"] if row["size"] == size and row["tasks"] == count]
    timed = [row for row in rows if "median_ms" in row]
    horizons = sorted({row["horizon"] for row in timed if row["method"] == "SpanAdjoint"})
    methods = dict.fromkeys(row["method"] for row in rows)
    lines = [
        "| method | " + " | ".join(f"T = {cell(horizon)}" for horizon in horizons) + " | memory |",
        "|---|" + "---|" * (len(horizons) + 1),
    ]
    for method in methods:
        mine = [row for row in timed if row["method"] == method]
        reasons = [row["left out"] for row in rows if row["method"] == method and "left out" in row]
        by_horizon = {row["horizon"]: f"{cell(row['median_ms'])} ms" for row in mine}
        if not mine:
            lines.append(f"| {method} | {reasons[0]} |" + " |" * len(horizons))
            continue
        if not set(by_horizon) & set(horizons) or method == "one gradient step":
            # Methods that follow no flow to these horizons: the floor, and the limits.
            only = ", ".join(by_horizon.values())
            where = "" if method == "one gradient step" else " (T = ∞)"
            lines.append(f"| {method}{where} | {only} |" + " |" * (len(horizons) - 1) + f" {memory(mine)} |")
            continue
        times = [by_horizon.get(horizon, reasons[0] if reasons else "") for horizon in horizons]
        lines.append(f"| {method} | " + " | ".join(times) + f" | {memory(mine)} |")
    return "\n".join(lines)


def memory(rows):
    """Return the compiler's figure of temporary memory."""
    return f"{cell(rows[0]['temporary_bytes'] / 1e6)} MB"


def title(size, count):
    """Return what a table is about."""
    what = "one task" if count == 1 else f"{count} tasks at once"
    return f"{size['support']} support examples, {size['ways']} ways, {size['features']} features, {what}"


def where_measured(result):
    """Return the device and versions."""
    where = result["environment"]
    return (
        f"In float32, the gradient in the initial weights, support, query and T (medians; memory besides arguments and "
        f"results); {where['device']}, {where['cores']} cores,\njax {where['versions']['jax']}, "
        f"commit {where['commit']}."
    )


def speed_tables(result):
    """Return the tables of all sizes and numbers of tasks."""
    pairs = []
    for row in result["rows"]:
        if (row["size"], row["tasks"]) not in pairs and row["method"] != "adaptation alone":
            pairs.append((row["size"], row["tasks"]))
    parts = [f"### {title(size, count)}\n\n{speed_table(result, size, count)}" for size, count in pairs]
    for row in result["rows"]:
        if row["method"] == "adaptation alone":
            rate = 1e3 * row["tasks"] / row["median_ms"]
            parts.append(
                f"### Adaptation without a gradient\n\n{title(row['size'], row['tasks'])}, T = {cell(row['horizon'])}: "
                f"{cell(row['median_ms'])} ms, {rate:,.0f} heads a second."
            )
    return "\n\n".join([*parts, where_measured(result)])


def markdown(table: Table):
    """Return a table whose first row is its header."""
    title, (header, *body) = table
    lines = [header, ["---"] * len(header), *([word.replace("|", "\\|") for word in row] for row in body)]
    return "\n".join([f"### {title}", "", *("| " + " | ".join(row) + " |" for row in lines)])


def where(result):
    """Return the device and versions of a reproduction."""
    return f"On {machine(result['environment'])}, jax {result['environment']['versions']['jax']}."


def comparison():
    """Return the tables of all methods on glyphs, and of a horizon for each task."""
    result = json.loads((ROOT / "benchmarks/results/glyphs.json").read_text())
    rows = [glyphs.Row(**row) for row in result["rows"]]
    spending = result["spending"]
    parts = [markdown(table) for table in glyphs.tables(rows, result["tasks"])]
    parts.append(
        f"{spending['seconds']:g} s of updates for each method in each setting, compilation not counted; "
        f"{spending['filters']} channels; one seed. Mean over test tasks with its 95 % confidence interval, "
        "differences paired by task. Memory is the compiler's, for one update, besides its arguments and results. "
        "The machine did other work at low priority. "
        f"{where(result)}"
    )
    return "\n\n".join(
        [
            *parts,
            f"## A horizon for each task\n\n{HORIZONS}",
            *horizons(),
            f"## Memory and time of the meta-gradient\n\n{EFFICIENCY}",
            *efficiency("figure3", "Conv-4"),
            *efficiency("figure4", "ResNet-12"),
            f"## Memory in theory and measured\n\n{ORDERS}",
            *orders(),
            "## Figure 2: the adjoint method on a gradient flow (`comln reproduce figure2`)",
            *backward(),
        ]
    )


def horizons():
    """Return the table of a horizon for each task, or that it was not measured yet."""
    path = ROOT / "benchmarks/results/task-horizon.json"
    if not path.exists():
        return ["Not measured yet; the command writes the numbers."]
    result = json.loads(path.read_text())
    kinds = [own_horizons.KindRow(**row) for row in result["rows"]]
    total = kinds[-1]
    (accuracy, accuracy_ci), (loss, loss_ci) = total.difference, total.loss_difference
    closed = (total.shared_loss - total.own_loss) / (total.shared_loss - total.oracle_loss)
    better = [row.kind for row in kinds[:-1] if row.difference[0] > row.difference[1]]
    worse = [row.kind for row in kinds[:-1] if row.difference[0] < -row.difference[1]]
    return [
        f"Over all kinds a T of its own changes the query loss by {loss:+.4f} ± {loss_ci:.4f}, which is "
        f"{100 * closed:.0f} % of what the best T of each task would bring, and the accuracy by "
        f"{100 * accuracy:+.2f} ± {100 * accuracy_ci:.2f} points. Accuracy is better for "
        f"{'; '.join(better) or 'no kind'}. It is worse for {'; '.join(worse) or 'no kind'}. T is learned by the loss "
        f"and the best T has the least loss: that T has {100 * (total.oracle[0] - total.shared[0]):+.2f} points of "
        "accuracy against the shared one.",
        *(markdown(table) for table in task_horizon.tables(kinds, result["shared_horizons"])),
        f"{result['spending']['tasks']} tasks of each kind; the horizons were trained three times, and each task's "
        f"numbers are means over them. {where(result)}",
    ]


HORIZONS = """\
Does a task-specific horizon win over a shared one, where tasks differ in difficulty? The network is trained once on
tasks of all shapes; the horizons are then learned on embeddings of the validation scripts and compared on those of
the test scripts, 30 % of the support labels wrong in half of the kinds. The best T of each task is the one of least
loss on its own query examples, of 25 from 0.1 to 1000: nobody can know it. `comln reproduce task-horizon` repeats
it."""


def networks():
    """Return the times of Conv-4 beside PyTorch's, and of a meta-step beside a supervised step."""
    path = ROOT / "benchmarks/results/convolution.json"
    if not path.exists():
        return "Not measured yet: `python benchmarks/convolution.py TORCH_PYTHON`."
    result = json.loads(path.read_text())
    parts = []
    for name, rows in result.items():
        if name.startswith(("Conv-4", "one step")):
            against = next(column for row in rows.values() for column in row if column.startswith("over "))
            body = [
                [
                    kind,
                    f"{row['median_ms']:.0f}",
                    "-".join(f"{x:.0f}" for x in row["quartiles_ms"]),
                    f"{row[against]:.2f}",
                ]
                for kind, row in rows.items()
            ]
            parts.append(markdown((f"{name}; {result['dtype']}", [["", "ms", "quartiles", against], *body])))
    torch = result["PyTorch"]
    parts.append(
        f"Taken in turns; PyTorch {torch['version']} in channels-last format, with {torch['threads']} threads. Commit "
        f"{result['environment']['commit']}. {where(result)}"
    )
    return "\n\n".join(parts)


def interruptions():
    """Return how many interrupted runs came to the end of the run that was left alone."""
    path = ROOT / "benchmarks/results/interruptions.json"
    if not path.exists():
        return "Not measured yet: `python benchmarks/interruptions.py`."
    result = json.loads(path.read_text())
    trials = result["trials"]
    words = []
    for signal in dict.fromkeys(trial["signal"] for trial in trials):
        same = [trial["identical"] for trial in trials if trial["signal"] == signal]
        words.append(f"{sum(same)} of {len(same)} after {signal}")
    return (
        f"Runs of {result['steps']} updates were interrupted at random moments and resumed: all arrays of the last "
        f"checkpoint, and what validations had shown, were those of the run left alone, bit for bit, in "
        f"{' and '.join(words)} (`python benchmarks/interruptions.py`, commit {result['commit'][:12]})."
    )


def efficiency(target, network):
    """Return the claims and the tables of Figure 3 or 4, or that it was not measured yet."""
    content = committed(target)
    if content is None:
        return [f"{network}: not measured yet; `comln reproduce {target}` writes the numbers."]
    result = efficiency_page.restore(content)
    tables = [
        markdown((f"{network}: {title[0].lower()}{title[1:]}", rows)) for title, rows in efficiency_page.tables(result)
    ]
    return [
        f"### {network} (`comln reproduce {target}`)",
        claims(facts(result)),
        *tables,
        f"{efficiency_page.note(result)} Commit {content['environment']['commit']}. {where(content)}",
    ]


def orders():
    """Return the tables of Table 1, or that it was not measured yet."""
    content = committed("table1")
    if content is None:
        return ["Not measured yet; the command writes the numbers."]
    result = table1.restore(content)
    tables = [markdown(table) for table in table1.tables(result)]
    note = f"{table1.note()} Commit {content['environment']['commit']}. {where(content)}"
    return [claims(table1.facts(result)), *tables, note]


def backward():
    """Return what Figure 2 says, or that it was not measured yet."""
    content = committed("figure2")
    if content is None:
        return ["Not measured yet; the command writes the numbers."]
    note = f"Commit {content['environment']['commit']}. {where(content)}"
    return [claims(Fact(**fact) for fact in content["facts"]), note]


def claims(found):
    """Return claims with their verdicts as a list."""
    return "\n".join(f"- **{fact.verdict}**: {fact.claim} Here, {fact.evidence}" for fact in found)


def not_run():
    """Return what is missing, and the commands that will measure it."""
    lines = []
    for target in ("figure3", "figure4", "table1"):
        content = committed(target)
        if content is None or content["environment"]["device"] == "cpu":
            lines.append(f"- {target} on an accelerator, with its peak memory: `comln reproduce {target}` there.")
    for module, target in ((table2, "table2"), (table4, "table4"), (figure5, "figure5"), (table5, "table5")):
        content = committed(target)
        others = [data for data in module.DATA if content is None or data != content["data"]]
        lines.append(
            f"- {target} on {', '.join(others)}: `comln data prepare {others[0]} ROOT`, then `comln reproduce {target} "
            f"--data {others[0]} --budget full`, and likewise the others."
        )
    lines.append("- All on glyphs with more updates and tasks, for days: `comln reproduce all --budget full`.")
    return "\n".join(["## What was not run", "", *lines])


def committed(target):
    """Return the numbers of a target, if there are any."""
    path = ROOT / f"benchmarks/results/{target}.json"
    return json.loads(path.read_text()) if path.exists() else None


EFFICIENCY = """\
The paper's Figures 3 and 4: what the meta-gradient of one 5-way 5-shot task takes against the number of inner steps,
a horizon T standing for T / 0.01 steps. Their absolute numbers are of another machine, and depend on it. Each claim
of the paper's section 5.2 stands with its verdict and the numbers that it rests on. On this machine short times
differ by half from one moment to another, so the ratios that a verdict rests on are of programs that took turns where
it says so. Methods that adapt the whole network have their convolutions by patches, which is faster here where
gradients of gradients are needed, and takes more memory. That the adjoint method is unstable is what Figure 2 below
shows."""

ORDERS = """\
The paper's Table 1 has orders of magnitude; here they stand in bytes beside what the compiler says. That of iMAML is
judged where it is used: after few steps of gradient descent on a network, far from the minimum that its gradient
assumes. Solved to the end, and with many iterations of conjugate gradients, it comes near to the exact one; that is
not measured here. `comln reproduce table1` repeats it."""


def scaling():
    """Return the tables of the cost model: counted, checked on this machine, predicted for others."""
    result = json.loads((ROOT / "benchmarks/results/scaling.json").read_text())
    parts = []
    for heading, tables in scaling_page.tables(result):
        parts.append(f"## {heading}")
        parts += [markdown(table) for table in tables]
    commits = ", ".join(dict.fromkeys(part["commit"] for part in result["environment"].values()))
    parts.append(
        f"Measured in {result['dtype']}, commit {commits}. {where({'environment': result['environment']['rates']})}"
    )
    return "\n\n".join([*parts, "## Conv-4 beside PyTorch, and a meta-step beside a supervised step", networks()])


def race():
    """Return the tables of the race against what people use today, or that it was not run yet."""
    content = committed("race")
    if content is None:
        return f"{RACE}\n\nNot measured yet; the command writes the numbers."
    rows = content["meta-steps"]
    tables = []
    for shape, name in dict.fromkeys((row["shape"], row["race"]) for row in rows):
        of_one = [row for row in rows if (row["shape"], row["race"]) == (shape, name)]
        tables.append(markdown((f"{name}: {shape}", meta_steps(of_one))))
    for shots in dict.fromkeys(row["shots"] for row in content["heads"]):
        body = [head(row, content["reference"]) for row in content["heads"] if row["shots"] == shots]
        title = f"Heads on frozen embeddings, 5-way {shots}-shot"
        tables.append(markdown((title, [HEAD, *body])))
    alone_as_well = [BY_THEMSELVES] if any("alone" in row for row in rows) else []
    return "\n\n".join([RACE, *alone_as_well, *tables, race_note(content)])


BY_THEMSELVES = """\
Two programs may hinder each other: beside some entrants of more than 7 GB our own MAML was slower than alone, for a
reason that we do not know. In the tables that say "alone", each entrant took up to half as many turns by itself too,
when the process of ours had ended, and ours then in a new process; that ratio is of the medians."""


def race_note(content):
    """Return versions, commits and machines of a race, each once, and who could not take part."""
    rows = [row for row in (*content["meta-steps"], *content["heads"]) if "versions" in row]
    numbers = dict.fromkeys((library, number) for row in rows for library, number in row["versions"].items())
    named = ", ".join(f"{library} {number}" for library, number in numbers if library != "comln")
    commits = [row["commit"] for row in rows] + [number for library, number in numbers if library == "comln"]
    absent = "; ".join(f"{name}: {why}" for name, why in content["peers not raced"].items())
    machines = "; ".join(dict.fromkeys(machine(row) for row in rows))
    return (
        f"{embeddings_note(content)}Versions: {named}. Not raced, for what the installer said: {absent}. Commit "
        f"{', '.join(dict.fromkeys(commits))}. On {machines}."
    )


def embeddings_note(content):
    """Return what heads were fitted to, if any were, and which peers are as accurate."""
    embeddings = content["embeddings"]
    if embeddings is None:
        return ""
    return (
        f"The network of the embeddings had {100 * embeddings['accuracy']:.1f} % right on its last batches; commit "
        f"{embeddings['commit']}. A peer counts as equally accurate unless all of the 95 % interval of the difference, "
        f"paired by task, is below -{100 * content['as accurate']:g} points. "
    )


def meta_steps(rows):
    """Return the cells of one race at one shape, with what each took alone where that was measured."""
    measured = any("alone" in row for row in rows)
    place = 1 + META_STEP.index("times ours, quartiles")
    table = [META_STEP, *(meta_step(row) for row in rows)]
    if not measured:
        return table
    added = [ALONE, *(alone(row) for row in rows)]
    return [[*cells[:place], *more, *cells[place:]] for cells, more in zip(table, added, strict=True)]


def meta_step(row):
    """Return one entrant's cells of `META_STEP`."""
    if "reason" in row:
        return [row["entrant"], row["reason"], *[""] * (len(META_STEP) - 2)]
    distance = row.get("gradient's distance from ours, double precision")
    unknown = "not compared" if "not compared in double precision" in row else ""
    beside = row["ours beside it"]
    return [
        row["entrant"],
        f"{row['median_ms']:,.0f}",
        "" if beside is None else f"{beside['median_ms']:,.0f}",
        str(row["turns"]),
        "1" if beside is None else with_quartiles(row["times ours"], row["times ours, quartiles"]),
        f"{row['first_s']:.1f}",
        f"{row['peak_bytes'] / 1e6:,.0f}",
        f"{row['loss']:.5f}",
        unknown if distance is None else f"{distance:.0e}",
    ]


def alone(row):
    """Return the cells of what an entrant and ours took alone."""
    measured = row.get("alone")
    if measured is None:
        return ["", "", ""]
    if "reason" in measured:
        return [measured["reason"], "", ""]
    both = (measured, measured["ours"])
    return [
        *("{:,.0f} [{:,.0f}, {:,.0f}]".format(x["median_ms"], *x["quartiles_ms"]) for x in both),
        f"{measured['times ours']:.3g}",
    ]


META_STEP = [
    "entrant",
    "ms",
    "ours beside it, ms",
    "turns",
    "times ours, quartiles",
    "first, s",
    "memory, MB",
    "loss",
    "gradient's distance",
]


ALONE = ["alone, ms, quartiles", "ours alone, ms, quartiles", "alone, times ours"]


def with_quartiles(median, quartiles):
    """Return a ratio in words."""
    return "{:.3g} [{:.3g}, {:.3g}]".format(median, *quartiles)


def head(row, reference):
    """Return one head's cells of `HEAD`."""
    if "reason" in row:
        return [row["head"], row["reason"], *[""] * (len(HEAD) - 2)]
    mean, interval = row["accuracy"]
    difference, times = "", "1" if row["head"] == reference else ""
    if "minus the reference" in row:
        difference = "{:+.2f} ± {:.2f}".format(*(100 * x for x in row["minus the reference"]))
        times = with_quartiles(row["times of the reference"], row["times of the reference, quartiles"])
    fastest = row.get("fastest peer as accurate")
    return [
        row["head"],
        f"{100 * mean:.2f} ± {100 * interval:.2f}",
        difference,
        "{:.2f} [{:.2f}, {:.2f}]".format(row["median_ms"], *row["quartiles_ms"]),
        times,
        ", ".join(f"{chosen:g}" for chosen in row["chosen"]),
        f"{row['peak_bytes'] / 1e6:,.0f}",
        "" if fastest is None else f"{with_quartiles(fastest['times of it'], fastest['quartiles'])} {fastest['head']}",
    ]


HEAD = [
    "head",
    "accuracy, %",
    "minus the reference's, %",
    "ms, quartiles",
    "times the reference's, quartiles",
    "chosen",
    "memory, MB",
    "times the fastest equally accurate peer's",
]

RACE = """\
## A race against what people use today

The same tasks and weights in other libraries, each in a process with an environment of its own. A meta-step is the
meta-gradient of a batch of 5-way 5-shot tasks with 15 queries a class; ours, the first of each table, and each other
entrant take turns, and a ratio is of turns beside each other: "ours beside it" is what ours took in these, and the
first row has all turns of ours. MAML's and ANIL's entrants compute the same, as the losses and the distance of the
gradients from the first entrant's show, relative and in double precision (compiled entrants are the same code, and
not compared again). In the last race the flow and 1000 steps are two methods, so near to each other as their losses
and gradients say: what COMLN gains by the flow is the ratio of our own ANIL's 1000 steps, and what is left of
PyTorch's ratio is the library's. PyTorch's 1000 steps were not compiled, since its compiler would unroll them. ANIL
is there in both layouts of images in memory, its 1000 steps with the channels last, and MAML task by task in both.
"First" is the time to the first result, with all compilation, and memory by how much a process itself grew at most
until then. Ratios of entrants with few turns are not sure. Heads are fitted to embeddings of norm one of a network
that was trained with plain supervision on the training classes; time is for fitting and predicting one task, all
heads taking turns; what is chosen was best on tasks of the validation classes, of as many numbers for each head, and
choosing it is not timed, while the heads with CV in their names choose within their time; the reference is logistic
regression with the chosen penalty. With one example a class nothing can be held out: `GradientFlowClassifierCV` takes
its default horizon, with a warning, where `LogisticRegressionCV` refuses. `python benchmarks/race/race.py PEERS`
repeats it, with a folder for the environments of the others."""


def tables_of_accuracy():
    """Return Tables 2, 4 and 5 and Figures 1 and 5 with what they say of the paper's claims."""
    parts = [ACCURACY]
    for target, (module, heading, note) in ACCURACIES.items():
        parts.append(f"## {heading} (`comln reproduce {target}`)")
        content = committed(target)
        if content is None:
            parts.append("Not measured yet; the command writes the numbers.")
            continue
        result = module.restore(content)
        commit = content["environment"]["commit"]
        parts += [
            claims(module.facts(result)),
            *(markdown(table) for table in module.tables(result)),
            f"{note} Commit {commit}. {where(content)}".strip(),
        ]
    return "\n\n".join(parts)


ACCURACY = """\
## The paper's tables of accuracy

The same experiments on glyphs, which stand in for the paper's data; its own numbers stand beside ours, and are of
photographs. Trainings have a number of updates and not a time, so that a machine that does other work gives the same
numbers. An accuracy has its 95 % interval over the test tasks and, in brackets, the lowest and the highest seed.
A claim about accuracies holds or is refuted where the interval and every single seed say so, and is undecided else.
With data that `comln data prepare` has prepared, `--data mini-imagenet --root DIR` runs the same on them, and tells of
each number whether it agrees with the paper's."""

ACCURACIES = {
    "table2": (
        table2,
        "Table 2: every method, for the same number of updates",
        "COMLN's T starts at 10 here and may change by one percent an update at most, which suits the recipe's 1400 "
        "updates; in so few it comes to about 20. Figure 5 below has it faster, and COMLN better. MAML, Meta-SGD, "
        "CAVIA and iMAML have 4 tasks in an update, as in their recipes here, and see half as many as the others.",
    ),
    "table4": (
        table4,
        "Table 4: the solver of the flow",
        "T is that of Table 2, about 20: of long horizons it says nothing.",
    ),
    "table5": (
        table5,
        "Table 5: methods on frozen embeddings",
        "The settings of the methods are not their recipes', which are for a whole network, but were chosen for "
        "embeddings of norm one and for each number of shots, on tasks of the validation classes and with the first "
        "seed; COMLN and ProtoNet have their recipes'. `python benchmarks/unit_norm_settings.py PARTS` chooses again. "
        "The best of LEO's settings differ by less than their intervals, so that its choice is one of several; iMAML's "
        "pull and, for 5 shots, LEO's weight are the least that were tried. On the embeddings as they are MetaOptNet's "
        "machine has its recipe's C, and of scikit-learn's machines only the one that says so has a C that was chosen.",
    ),
    "figure1": (figure1, "Figure 1: steps and flow", ""),
    "figure5": (
        figure5,
        "Figure 5: a T that is learned",
        "Seconds are updates and solver steps at the times of the last table.",
    ),
}


def pages():
    """Return the text between the marks, by file."""
    result = json.loads((ROOT / "benchmarks/results/meta_gradients.json").read_text())
    main = {"support": 25, "ways": 5, "features": 1600}
    readme = f"{runs_table()}\n\n{title(main, 1)}:\n\n{speed_table(result, main, 1)}\n\n{where_measured(result)}"
    return {
        "README.md": readme,
        "docs/how-to-choose-a-meta-gradient.md": speed_tables(result),
        "docs/results.md": f"{comparison()}\n\n{tables_of_accuracy()}\n\n{race()}\n\n{not_run()}",
        "docs/long-runs.md": interruptions(),
        "docs/scaling.md": scaling(),
    }


def main():
    """Write or check the blocks between the marks."""
    for name, block in pages().items():
        text = (ROOT / name).read_text()
        before, rest = text.split(BEGIN)
        wanted = f"{before}{BEGIN}{block}\n{END}{rest.split(END)[1]}"
        if "--check" not in sys.argv[1:]:
            (ROOT / name).write_text(wanted)
        elif text != wanted:
            sys.exit(f"{name} does not show the committed results. Run: python benchmarks/results_table.py")


if __name__ == "__main__":
    main()
