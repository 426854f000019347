"""Results of the tables of accuracy, made up, so that what is concluded and written can be told beforehand."""

import dataclasses

from comln.recipes.benchmarks import published
from comln.reproduce import frozen_features, table2, table4
from comln.reproduce.horizons import FROM_SMALL, Figure5, HorizonRow
from comln.reproduce.measure import environment
from comln.reproduce.scores import Score
from comln.reproduce.svm_heads import HEADS
from comln.reproduce.update_times import UpdateCost
from comln.reproduce.workspace import Budget

TASKS, SEEDS = 300, (0, 1, 2)


def points(mean, ci95=0.2, spread=0.1):
    """Return a score in percent: three seeds, `spread` apart."""
    seeds = tuple((mean + spread * k) / 100 for k in (-1, 0, 1))
    return Score(mean / 100, ci95 / 100, seeds, TASKS)


def row2(learner, training_shots, shots, mean, minus, **changes):
    difference = None if learner == "comln" else points(minus)
    row = table2.Row(learner, training_shots, shots, points(mean), difference, 0, 160, 8, 0.1, None, None)
    return dataclasses.replace(row, **changes)


def result2(rivals=-3.0, nets=0.5, more=1.0, data="glyphs"):
    """Return Table 2 in which the others differ from COMLN by so many points, and 15 shots bring `more`."""
    rows = [row2("comln", 1, 1, 90.0, 0.0)]
    rows += [row2(learner, 1, 1, 90 + rivals, rivals) for learner in table2.GRADIENT_BASED]
    rows += [row2(learner, 1, 1, 90 + nets, nets) for learner in table2.META_OPT_NET]
    rows += [row2(learner, 15, 1, 90 + nets + more, nets + more) for learner in table2.META_OPT_NET]
    if data != "glyphs":
        number = published(f"{data}-5way-1shot", "comln")
        rows[0] = dataclasses.replace(rows[0], paper=number, agrees=table2.overlap(rows[0].accuracy, number))
    return table2.Table2(data, Budget.COMMITTED, 32, SEEDS, TASKS, (1,), tuple(rows), environment())


def result4(trained=0.1, same=0.0):
    """Return Table 4 in which the solver of training, and that of the test, bring so many points."""
    rows = [
        table4.Row(
            solver,
            1,
            points(90.0),
            None if solver == table4.FIRST else points(trained),
            points(same, 0.01, 0.01),
            20.0,
            (11.0, 12.0, 13.0),
            0,
            None,
            None,
        )
        for solver in table4.SOLVERS
    ]
    return table4.Table4("glyphs", Budget.COMMITTED, 32, SEEDS, TASKS, 160, 0.1, tuple(rows), environment())


def horizon_row(name, ways, shots, horizons, minus=None, fixed=None, steps=10):
    runs = tuple((1.0, 2.0, last) for last in horizons)
    taken = tuple((steps,) * 3 for _ in horizons)
    validation = tuple((0.2, 0.9) for _ in horizons)
    difference = None if minus is None else points(minus)
    return HorizonRow(
        name, ways, shots, fixed, runs, taken, (1, 3), validation, points(90.0), difference, 0.3, 3, 3 * steps, 0.3
    )


def result5(best_fixed=-1.0, five=(300.0, 310.0, 320.0)):
    """Return Figure 5 with a best fixed T so many points from the learned one, and these T of 5-shot tasks."""
    learned = (
        horizon_row(FROM_SMALL, 5, 1, (90.0, 100.0, 110.0)),
        horizon_row(FROM_SMALL, 5, 5, five),
        horizon_row(FROM_SMALL, 20, 1, (95.0, 500.0, 510.0)),
    )
    fixed = (
        horizon_row("fixed, 1", 5, 5, (1.0,) * 3, -5.0, 1.0, 5),
        horizon_row("fixed, 1000", 5, 5, (1e3,) * 3, best_fixed, 1e3, 25),
    )
    cost = UpdateCost((1.0, 1000.0), (5, 25), (101.0, 105.0))
    return Figure5(
        "glyphs",
        Budget.COMMITTED,
        32,
        SEEDS,
        TASKS,
        3,
        5,
        0.85,
        cost,
        learned,
        (learned[1], *fixed),
        environment(),
    )


def result_of_embeddings(others=0.5, short=0.0, separate=90.0):
    """Return Table 5: methods that differ from COMLN, a solver cut short, and separate machines, by so many points."""
    rows = [
        frozen_features.Row(
            learner,
            1,
            points(90.0),
            None if learner == "comln" else points(others),
            0,
            (20.0, 21.0, 22.0) if learner == "comln" else (),
            None,
            None,
        )
        for learner in frozen_features.METHODS
    ]
    heads = [
        frozen_features.HeadRow(
            head,
            1,
            True,
            TASKS,
            ((separate if head.startswith("scikit") else 90.0) / 100, 0.005),
            None if head == "exact" else (short / 100 if head == HEADS[0] else 0.0, 0.001),
            points(separate - 90.0),
            1.0,
        )
        for head in HEADS
    ]
    spending = frozen_features.Spending(800, 64, 500, TASKS, SEEDS, (1,))
    return frozen_features.Table5(
        "glyphs", Budget.COMMITTED, spending, 64, 0.6, 40.0, True, tuple(rows), tuple(heads), environment()
    )
