"""The tables of `docs/scaling.md`, from `benchmarks/results/scaling.json` alone."""

__all__ = ["tables"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from comln.reproduce.page import Table
from comln.reproduce.scaling import ALL_TASKS, AT_HORIZON, EACH_TASKS, MANY_HEADS, TRAINING_SHAPE


def tables(result: Mapping[str, Any]) -> list[tuple[str, Sequence[Table]]]:
    """Return the tables of `docs/scaling.md`, by heading, from `benchmarks/results/scaling.json` alone."""
    measured, predicted = result["measured"], result["predicted"]
    return [
        (
            "What there is to do",
            [_networks_table(predicted["networks"]), _steps_table(measured["steps"], predicted["steps"])],
        ),
        (
            "Predicted and measured on this machine",
            [
                _rates_table(measured["rates"]),
                _meta_steps_table(measured["meta_steps"], predicted["meta_steps"]),
                _heads_table(measured["heads"], predicted["heads"]),
                _sampling_table(measured["sampling"], predicted["sampling"]),
            ],
        ),
        (
            "On accelerators, predicted and not measured",
            [
                _assumptions_table(predicted["accelerator"]),
                *_updates_tables(predicted["updates"], predicted["accelerator"]["memory"]),
            ],
        ),
        ("A billion heads, predicted and not measured", [_many_heads_table(predicted["many_heads"])]),
    ]


def _short(value: int | float) -> str:
    """Return a number in three digits.

    >>> _short(0.01234), _short(12345.0)
    ('0.0123', '12,345')
    """
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _duration(seconds: int | float) -> str:
    """Return a time in the unit that suits it.

    >>> _duration(5e-6), _duration(0.5), _duration(7200.0), _duration(864000.0)
    ('5 µs', '500 ms', '2 h', '10 days')
    """
    units = ((86400.0, "days", 2 * 86400.0), (3600.0, "h", 5400.0), (60.0, "min", 100.0), (1.0, "s", 1.0))
    for size, unit, least in units:
        if seconds >= least:
            return f"{_short(seconds / size)} {unit}"
    return f"{_short(1e3 * seconds)} ms" if seconds >= 1e-3 else f"{_short(1e6 * seconds)} µs"


def _bytes(count: int | float) -> str:
    """Return a number of bytes in the unit that suits it.

    >>> _bytes(28784), _bytes(3.2e13)
    ('28.8 kB', '32 TB')
    """
    units = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
    return next((f"{_short(count / size)} {unit}" for size, unit in units if count >= size), f"{count:g} B")


def _timed(row: Mapping[str, Any]) -> list[str]:
    lower, upper = row["quartiles_ms"]
    return [_short(row["median_ms"]), f"{_short(lower)} to {_short(upper)}"]


def _shape_words(shape: Mapping[str, int]) -> str:
    return f"{shape['ways']}-way {shape['shots']}-shot {shape['queries']}-query, {shape['image_size']} pixels"


def _size_words(row: Mapping[str, Any]) -> str:
    return f"{row['support']}, {row['ways']}, {row['features']}"


def _networks_table(networks: Sequence[Mapping[str, Any]]) -> Table:
    rows = [["network", "features", "parameters", "operations", "differentiated", "kept", "at the peak", "gradients"]]
    for row in networks:
        rows.append(
            [
                f"{row['network']}, {row['image_size']} x {row['image_size']} x {row['channels']}",
                f"{row['features']:,}",
                f"{row['parameters']:,}",
                *(f"{_short(row[name] / 1e6)} M" for name in ("forward_operations", "training_operations")),
                *(_bytes(row[name]) for name in ("activation_bytes", "peak_bytes", "gradient_bytes")),
            ]
        )
    return "Networks: operations and bytes of one image in float32; bytes of the gradients of an update", rows


def _steps_table(measured: Sequence[Mapping[str, Any]], counted: Sequence[Mapping[str, Any]]) -> Table:
    header = ["M, N, F", "T", "steps, mean", "slowest", "products", "a step", "back", "an implicit step", "back"]
    rows = [[*header, "store of steps", "in and out"]]
    for row, counts in zip(measured, counted, strict=True):
        names = ("products", "explicit_step", "explicit_step_back", "implicit_step", "implicit_step_back")
        rows.append(
            [
                _size_words(row),
                f"{row['horizon']:g}",
                f"{row['mean']:.1f}",
                f"{row['slowest']}",
                *(f"{_short(counts[name] / 1e6)} M" for name in names),
                _bytes(counts["kept_bytes"]),
                _bytes(counts["moved_bytes"]),
            ]
        )
    return f"One head: explicit steps measured over {measured[0]['heads']} heads; operations and bytes", rows


def _rates_table(rates: Sequence[Mapping[str, Any]]) -> Table:
    rows = [["kind of work", "measured on", "median ms", "quartiles ms", "rate"]]
    for row in rates:
        rows.append([row["kind"], row["where"], *_timed(row), f"{_short(row['rate'] / 1e6)} M {row['unit']}/s"])
    return "One rate for each kind of work, each measured at one size", rows


def _meta_steps_table(measured: Sequence[Mapping[str, Any]], predicted: Sequence[Mapping[str, Any]]) -> Table:
    rows = [["network", "tasks", "steps", "predicted ms", "median ms", "quartiles ms", "ratio", "memory", "ratio"]]
    for row, guess in zip(measured, predicted, strict=True):
        parts = ", ".join(f"{name} {_short(value)}" for name, value in guess["parts_ms"].items())
        rows.append(
            [
                row["network"],
                f"{row['tasks']} x {_shape_words(row['shape'])}",
                f"{row['steps']}",
                f"{_short(guess['predicted_ms'])} ({parts})",
                *_timed(row),
                f"{guess['ratio']:.2f}",
                _bytes(row["temporary_bytes"]),
                f"{guess['bytes_ratio']:.2f}",
            ]
        )
    return "One meta-step; ratios are predicted over measured", rows


def _heads_table(measured: Sequence[Mapping[str, Any]], predicted: Sequence[Mapping[str, Any]]) -> Table:
    header = ["M, N, F", "T", "what", "slowest", "predicted ms", "median ms", "quartiles ms", "ratio", "heads/s"]
    rows = [header]
    for row, guess in zip(measured, predicted, strict=True):
        what = ("implicit" if row["implicit"] else "explicit") + ("" if row["queries"] is None else ", with gradient")
        rows.append(
            [
                _size_words(row),
                f"{row['horizon']:g}",
                what,
                f"{row['steps']}",
                _short(guess["predicted_ms"]),
                *_timed(row),
                f"{guess['ratio']:.2f}",
                _short(1e3 * row["heads"] / row["median_ms"]),
            ]
        )
    return f"Adapting {measured[0]['heads']} heads at once (implicit steps: {measured[-1]['heads']})", rows


def _sampling_table(measured: Sequence[Mapping[str, Any]], predicted: Sequence[Mapping[str, Any]]) -> Table:
    rows = [["tasks", "bytes of a task", "predicted ms", "median ms", "quartiles ms", "ratio", "tasks/s"]]
    for row, guess in zip(measured, predicted, strict=True):
        rows.append(
            [
                f"{row['tasks']} x {_shape_words(row['shape'])}",
                _bytes(row["input_bytes"]),
                _short(guess["predicted_ms"]),
                *_timed(row),
                f"{guess['ratio']:.2f}",
                _short(1e3 * row["tasks"] / row["median_ms"]),
            ]
        )
    return "Making tasks on the host, one thread", rows


def _assumptions_table(accelerator: Mapping[str, Any]) -> Table:
    sheet = {
        "products of matrices, bfloat16": f"{_short(accelerator['matrix_operations'] / 1e12)} T operations/s",
        "float32": f"{_short(accelerator['operations'] / 1e12)} T operations/s",
        "memory": f"{_bytes(accelerator['memory'])}, {_bytes(accelerator['memory_bytes'])}/s",
        "link, each direction": f"{_bytes(accelerator['link_bytes'])}/s",
        "network of each device": f"{_bytes(accelerator['network_bytes'])}/s",
        "host link, each direction": f"{_bytes(accelerator['host_bytes'])}/s",
        "devices in a machine": f"{accelerator['devices']}",
    }
    guesses = {
        "share of the peak in convolutions": f"{accelerator['matrix_share']:g}",
        "share of the float32 peak in the flow": f"{accelerator['small_share']:g}",
        "share of the memory's bytes/s": f"{accelerator['memory_share']:g}",
        "least time of an operation on arrays": _duration(accelerator["kernel_s"]),
        "such operations in a stage, and in a step besides": (
            f"{accelerator['kernels_a_stage']}, {accelerator['kernels_a_step']}"
        ),
        "least time of a message": _duration(accelerator["message_s"]),
    }
    rows = [["assumption", "value", "from"], *([name, value, "data sheet"] for name, value in sheet.items())]
    rows += [[name, value, "our guess"] for name, value in guesses.items()]
    rows.append(["data sheet", accelerator["source"], ""])
    return f"Assumptions: {accelerator['name']}", rows


def _updates_tables(updates: Sequence[Mapping[str, Any]], room: int | float) -> list[Table]:
    found = []
    for network in dict.fromkeys(row["network"] for row in updates):
        header = ["devices", "tasks", "embedding", "flow waits", "flow works", "statistics", "gradients"]
        rows = [[*header, "host draws", "host gathers", "input", "tasks/s", "images on device", "memory"]]
        for row in updates:
            if row["network"] != network:
                continue
            device, host = row["device"], row["drawing"] + row["gathering"]
            names = ("embedding", "waiting", "working", "statistics", "gradients", "drawing", "gathering", "input")
            rates = [_short(row["tasks"] / max(device, host, row["input"]))]
            rates.append(_short(row["tasks"] / max(device, row["drawing"])))
            memory = _bytes(row["memory"]) + ("" if row["memory"] <= room else ", too much")
            rows.append(
                [f"{row['devices']}", f"{row['tasks']:,}", *(_duration(row[name]) for name in names), *rates, memory]
            )
        words = f"{network}, {_shape_words(asdict(TRAINING_SHAPE))}, {updates[0]['steps']} solver steps"
        found.append((f"{words}: an update of {ALL_TASKS} tasks, and one of {EACH_TASKS} tasks a device", rows))
    return found


def _many_heads_table(many: Sequence[Mapping[str, Any]]) -> Table:
    header = ["heads", "2 cores", "devices", "flow", "embedding", "host link", "at once", "embeddings", "weights"]
    rows = [[*header, "coefficients"]]
    for row in many:
        times = [_duration(row[name]) for name in ("flow", "embedding", "link")]
        sizes = [_bytes(row[name]) for name in ("embeddings", "weights", "coefficients")]
        at_once = f"{row['at_once']:,}"
        rows.append([row["name"], _duration(row["here"]), f"{row['devices']}", *times, at_once, *sizes])
    return f"{MANY_HEADS:,.0f} heads, T = {AT_HORIZON:g}", rows
