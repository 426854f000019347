"""comln against what people use today, on the same tasks, weights and shapes: meta-steps, and heads on embeddings.

Every entrant is a process of its own, with the interpreter of its own virtual environment, and entrants take turns, so
that a ratio is not that of two moments: heads all of them, meta-steps ours and each other one, since more would not fit
into the memory together. As two programs may hinder each other, each of the two then takes turns alone as well, one
after the other, half as many. A meta-step is the meta-gradient of a batch of tasks; that MAML's and ANIL's compute the
same is shown by their losses and gradients. Heads are fitted to embeddings of a network that was trained with plain
supervision on the training classes; where a number must be chosen, tasks of the validation classes choose it.

Run:     python benchmarks/race/race.py PEERS            PEERS: a folder for the environments of the others, which are
                                                         made where they are missing; more than an hour and a half on
                                                         two cores, much of it PyTorch's compiler
         python benchmarks/race/race.py PEERS --short    a few turns of each, and nothing written
         python benchmarks/race/race.py PEERS --only=ANIL    the races with that in their titles, anew, which name the
                                                         race and the shape; heads are one
         python benchmarks/race/race.py PEERS --turns=12    so many of each, instead of 20
Writes:  benchmarks/results/race.json
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from comln.backbones import Conv4
from comln.data.sampling import EpisodeShape, Sampler
from comln.data.source import content_hash
from comln.evaluate import mean_and_ci95
from comln.recipes.backbones import Conv4Config
from comln.recipes.experiment import GlyphsData
from comln.reproduce.frozen_embeddings import Supervision, kept_embeddings, unit_norm
from comln.reproduce.measure import environment

HERE = Path(__file__).parent
PEERS = {
    "torch": ["torch", "numpy"],
    "higher": ["torch", "numpy", "higher"],
    "scikit-learn": ["scikit-learn"],
    "learn2learn": ["learn2learn"],
    "torchmeta": ["torchmeta"],
}
"""What is installed into each environment. The last two are only tried: their makers let them rest."""

WAYS, SHOTS, QUERIES = 5, 5, 15
THREADS = os.cpu_count()
SLOW_S, FEW = 10.0, 3
"""What takes longer than that many seconds in the median of so few turns takes no more."""


@dataclass(frozen=True)
class Shape:
    """Images of a batch of tasks."""

    name: str
    tasks: int
    size: int
    channels: int
    filters: int


SHAPES = (
    Shape("glyphs, 28 x 28, 32 filters, 4 tasks", 4, 28, 1, 32),
    Shape("noise of 84 x 84 x 3, 32 filters, 2 tasks", 2, 84, 3, 32),
)


@dataclass(frozen=True)
class Entrant:
    """One process of a race.

    - `peer`: whose environment; empty for this one.
    - `script`: beside this file.
    - `work`: what it is told.
    """

    name: str
    peer: str
    script: str
    work: dict = field(default_factory=dict)


def torch_meta_step(name, method, step, steps, *, together=True, compiled=False, last=False):
    """Return an entrant that computes a meta-gradient in PyTorch; `last`: with the channels last in memory."""
    work = {"method": method, "step": step, "steps": steps, "tasks together": together, "compiled": compiled}
    return Entrant(name, "torch", "torch_entrant.py", work | {"channels last": last})


def our_meta_step(name, method, step, steps):
    """Return the same of this package."""
    return Entrant(name, "", "comln_entrant.py", {"method": method, "step": step, "steps": steps})


MAML = (0.05, 5)
ANIL = (0.1, 5)
LONG = (0.1, 1000)
"""Length and number of inner steps; the last is as far as COMLN goes here, T = 100."""

META_STEPS = {
    "MAML, 5 steps": [
        our_meta_step("comln", "maml", *MAML),
        torch_meta_step("PyTorch, vmap", "maml", *MAML),
        torch_meta_step("PyTorch, vmap, compiled", "maml", *MAML, compiled=True),
        torch_meta_step("PyTorch, task by task", "maml", *MAML, together=False),
        torch_meta_step("PyTorch, task by task, channels last", "maml", *MAML, together=False, last=True),
        torch_meta_step("PyTorch, task by task, compiled", "maml", *MAML, together=False, compiled=True),
        torch_meta_step(
            "PyTorch, task by task, channels last, compiled", "maml", *MAML, together=False, compiled=True, last=True
        ),
        Entrant(
            "PyTorch, higher",
            "higher",
            "higher_entrant.py",
            {"step": MAML[0], "steps": MAML[1], "channels last": False},
        ),
    ],
    "ANIL, 5 steps": [
        our_meta_step("comln", "anil", *ANIL),
        torch_meta_step("PyTorch, vmap", "anil", *ANIL),
        torch_meta_step("PyTorch, vmap, channels last", "anil", *ANIL, last=True),
        torch_meta_step("PyTorch, vmap, compiled", "anil", *ANIL, compiled=True),
        torch_meta_step("PyTorch, vmap, channels last, compiled", "anil", *ANIL, compiled=True, last=True),
    ],
    "a gradient flow to T = 100": [
        our_meta_step("COMLN", "comln", *LONG),
        our_meta_step("comln's ANIL, 1000 steps", "anil", *LONG),
        torch_meta_step("PyTorch's ANIL, 1000 steps, channels last", "anil", *LONG, last=True),
        torch_meta_step("the same, inner gradient by hand", "anil by hand", *LONG, last=True),
    ],
}
"""By race: the entrants, ours first."""

TRIED = 9
"""How many numbers are tried where one is chosen on validation tasks: as many for all heads."""


def spread(low, high):
    """Return the numbers that are tried between two powers of ten."""
    return tuple(float(f"{x:.3g}") for x in np.logspace(low, high, TRIED))


HEADS = {
    "GradientFlowClassifierCV": ("", ()),
    "GradientFlowClassifier": ("", ()),
    "GradientFlowClassifier, T chosen": ("", spread(0, 4)),
    "gradient flow, T chosen": ("", spread(0, 4)),
    "ridge, chosen": ("", spread(-3, 3)),
    "support vector machine, bound chosen": ("", spread(-2, 2)),
    "LogisticRegression": ("scikit-learn", ()),
    "LogisticRegression, C chosen": ("scikit-learn", spread(-1, 4)),
    "LogisticRegressionCV": ("scikit-learn", ()),
    "RidgeClassifier, alpha chosen": ("scikit-learn", spread(-3, 3)),
    "RidgeClassifierCV": ("scikit-learn", ()),
    "SVC, linear, C chosen": ("scikit-learn", spread(-4, 2)),
}
"""By name: the peer, and what is tried on validation tasks."""

LEFT_OUT = {("LogisticRegressionCV", 1): "cannot be fitted to one example a class"}
REFERENCE = "LogisticRegression, C chosen"
AS_ACCURATE = 0.001
"""A peer is as accurate as one of our heads unless it is worse by more than that, by the 95 % interval over tasks."""


def interpreter(peers, name):
    """Return the interpreter of a peer's environment, made where it is missing, or the reason why there is none."""
    folder = peers / name
    python, ready = folder / "bin" / "python", folder / "installed.txt"
    if not ready.exists():
        venv.create(folder, with_pip=True)
        print(f"installing {', '.join(PEERS[name])} ...", flush=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", *PEERS[name]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            # It is tried again the next time: a network may have failed.
            return python, reason_of(done.stderr)
        ready.write_text("\n".join(PEERS[name]))
    return python, ""


REASONS = (r"fatal error: .*", r"requires a different .*|No matching .*", r"Cannot install .*", r".*(?i:error).*")
"""What says why an installation failed, the most telling first."""


def reason_of(text):
    """Return what says most of why an installation failed, without addresses."""
    found = next((match for pattern in REASONS if (match := re.search(pattern, text))), None)
    return "no reason was given" if found is None else re.sub(r"https?://\S+|/\S+", "...", found[0])[:160]


@contextmanager
def started(python, entrant, work):
    """Start an entrant; give what it says of its first turn, and a call that tells the seconds of another."""
    script = HERE / entrant.script
    with (
        tempfile.TemporaryFile("w+") as errors,
        tempfile.TemporaryDirectory() as cache,
        subprocess.Popen(
            [str(python), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # PyTorch keeps what it has compiled: each compiles its own.
            env={
                **os.environ,
                **({"TORCHINDUCTOR_CACHE_DIR": cache} if entrant.peer else {"PYTHONPATH": str(HERE.parent.parent)}),
            },
        ) as process,
    ):
        to_process, from_process = process.stdin, process.stdout
        assert to_process is not None and from_process is not None

        def ask(line):
            answer = ""
            try:
                to_process.write(line + "\n")
                to_process.flush()
                answer = from_process.readline()
                return json.loads(answer)
            except (OSError, ValueError) as error:
                # It is dead, or does not do what is asked: what it has said last is why.
                process.kill()
                process.wait()
                errors.seek(0)
                lines = errors.read().strip().splitlines() or [f"it answered {answer.strip()!r}"]
                raise Failed(re.sub(r"/\S+", "...", lines[-1])[:200]) from error

        try:
            about = ask(json.dumps(work))
            yield about, lambda: ask("")["seconds"]
        finally:
            process.kill()
            with suppress(OSError):
                to_process.close()


class Failed(RuntimeError):
    """An entrant could not take part."""


def entered(stacks, peers, entrants, works):
    """Start entrants, each on a stack that ends it; return what each says of its first turn, and calls of other turns.

    One that cannot take part says why, and has no call.
    """
    said, calls = {}, {}
    for stack, entrant, work in zip(stacks, entrants, works, strict=True):
        print(f"  {entrant.name} ...", flush=True)
        python, reason = interpreter(peers, entrant.peer) if entrant.peer else (sys.executable, "")
        try:
            if reason:
                raise Failed(reason)
            said[entrant.name], calls[entrant.name] = stack.enter_context(started(python, entrant, work))
        except Failed as error:
            said[entrant.name] = {"reason": str(error)}
    return said, calls


def turns_of(calls, rounds):
    """Return, by name, the times of entrants that take turns, or why one failed; the others go on then."""
    found: dict[str, dict] = {name: {"times": []} for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            times = found[name].get("times")
            # What is slow takes few turns.
            if times is None or (turn >= FEW and np.median(times[:FEW]) >= SLOW_S):
                continue
            try:
                times.append(call())
            except Failed as error:
                found[name] = {"reason": str(error)}
    return found


def told(said, times):
    """Return, by name, what each entrant said with the times of its turns, or why it has none."""
    return {name: of_it if "reason" in (of_it := times.get(name, {})) else said[name] | of_it for name in said}


def take_turns(peers, entrants, works, rounds):
    """Return, by name, what each entrant said of its first turn and the times of its others, or why it has none."""
    with ExitStack() as stack:
        said, calls = entered([stack] * len(entrants), peers, entrants, works)
        return told(said, turns_of(calls, rounds))


def beside_and_alone(peers, entrants, works, rounds):
    """Return what `take_turns` does of two entrants, and by name what half as many turns of each alone came to, if any.

    The second takes them when the process of the first has ended, and the first then, in a new process.
    """
    (first, second), few = entrants, -(-rounds // 2)
    with ExitStack() as of_second:
        with ExitStack() as of_first:
            said, calls = entered([of_first, of_second], peers, entrants, works)
            beside = turns_of(calls, rounds)
        if not all("times" in beside.get(name, {}) for name in said):
            return told(said, beside), {}
        alone = turns_of({second.name: calls[second.name]}, few)
    return told(said, beside), alone | take_turns(peers, [first], works[:1], few)


def in_pairs(peers, entrants, works, rounds):
    """Return what `take_turns` does, of the first entrant with each other one, with the first's times beside theirs.

    Only turns in which both were there count. With each other one are also its times alone, and the first's.
    """
    found, ours = {}, entrants[0].name
    for entrant, work in zip(entrants[1:], works[1:], strict=True):
        pair, alone = beside_and_alone(peers, [entrants[0], entrant], [works[0], work], rounds)
        if "reason" in pair[ours]:
            failed = pair[ours]["reason"]
            found[entrant.name] = {"reason": f"{ours} failed beside it: {failed}"}
            continue
        beside = pair[ours]["times"][: len(pair[entrant.name].get("times", []))]
        found.setdefault(ours, {**pair[ours], "times": []})["times"] += beside
        found[entrant.name] = pair[entrant.name] | {"times of ours": beside}
        if alone:
            found[entrant.name] |= {"alone": alone[entrant.name], "ours alone": alone[ours]}
    if not found.get(ours, {}).get("times"):
        found[ours] = {"reason": "it never took turns with another"}
    return found


def times_of(spent, over=1):
    """Return median and quartiles in milliseconds, of a turn shared by `over` tasks."""
    lower, middle, upper = (float(f"{1e3 * np.percentile(spent, p) / over:.4g}") for p in (25, 50, 75))
    return {"median_ms": middle, "quartiles_ms": [lower, upper], "turns": len(spent)}


def images_of(shape):
    """Return support and query images of a batch of tasks, with their classes."""
    if shape.channels == 1:
        sampler = Sampler(GlyphsData().load()["train"], EpisodeShape(WAYS, SHOTS, QUERIES))
        drawn = [sampler.draw(0, task) for task in range(shape.tasks)]
        support, query = (
            np.stack([sampler.split.examples[getattr(task, part)] for task in drawn]) for part in ("support", "query")
        )
        support, query = (x.astype(np.float32) / 255 for x in (support, query))
    else:
        rng = np.random.default_rng(0)
        patterns = rng.random((shape.tasks, WAYS, 1, shape.size, shape.size, shape.channels))
        noise = rng.normal(size=(shape.tasks, WAYS, SHOTS + QUERIES, shape.size, shape.size, shape.channels))
        both = (patterns + 0.5 * noise).astype(np.float32)
        support, query = both[:, :, :SHOTS], both[:, :, SHOTS:]

    def flat(images):
        return images.reshape(shape.tasks, -1, shape.size, shape.size, shape.channels)

    def labels(count):
        return np.tile(np.repeat(np.arange(WAYS), count), (shape.tasks, 1))

    return {
        "support": flat(support),
        "labels": labels(SHOTS),
        "query": flat(query),
        "of_query": labels(QUERIES),
    }


def weights_of(shape):
    """Return where all start from."""
    network = Conv4.init(shape.size, shape.channels, shape.filters, jax.random.key(0))
    features = network.embedding_size
    rng = np.random.default_rng(1)
    weights = {"weights": rng.normal(size=(WAYS, features)) / np.sqrt(features), "bias": np.zeros(WAYS)}
    for i, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
        weights |= {f"kernel{i}": convolution.kernel, f"scale{i}": norm.scale, f"shift{i}": norm.shift}
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def gradient_gap(path, reference):
    """Return the largest distance of two gradients, part by part, over the size of the part."""
    with np.load(path) as ours, np.load(reference) as theirs:
        return max(
            float(np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(theirs[name])) for name in theirs.files
        )


def title(race, shape):
    """Return how a race at one shape is called."""
    return f"{race}: {shape.name}"


def race_meta_steps(peers, rounds, only, where):
    """Yield the rows of each race at each shape that `only` is in the title of."""
    for shape in SHAPES:
        races = {race: entrants for race, entrants in META_STEPS.items() if only in title(race, shape)}
        if not races:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            arrays = {**images_of(shape), **weights_of(shape)}
            for race, entrants in races.items():
                print(title(race, shape), flush=True)
                checked = [entrant for entrant in entrants if not entrant.work.get("compiled")]
                doubles = works_of(folder, shape, checked, arrays, np.float64)
                # One at a time: in double precision two of them may not fit into the memory.
                exact = {e.name: take_turns(peers, [e], [w], 0)[e.name] for e, w in zip(checked, doubles, strict=True)}
                gaps = {
                    entrant.name: gap(exact[entrant.name], exact[entrants[0].name], work, doubles[0])
                    for entrant, work in zip(checked[1:], doubles[1:], strict=True)
                }
                works = works_of(folder, shape, entrants, arrays, np.float32)
                found = in_pairs(peers, entrants, works, rounds)
                yield [row | where for row in meta_step_rows(race, shape, entrants, gaps, found)]


def gap(theirs, ours, their_work, our_work):
    """Return how far an entrant's result is from ours, or why that is not known."""
    for answer in (theirs, ours):
        if "reason" in answer:
            return {"not compared in double precision": answer["reason"]}
    return {
        "loss minus ours, double precision": theirs["loss"] - ours["loss"],
        "gradient's distance from ours, double precision": gradient_gap(their_work["gradient"], our_work["gradient"]),
    }


def works_of(folder, shape, entrants, arrays, dtype):
    """Return what the entrants are told, with tasks and weights in a file of this precision."""
    double = dtype == np.float64
    file = folder / f"{np.dtype(dtype).name}.npz"
    np.savez(
        file, **{name: x.astype(dtype) if np.issubdtype(x.dtype, np.floating) else x for name, x in arrays.items()}
    )
    common = {"file": str(file), "filters": shape.filters, "threads": THREADS, "double": double}
    return [
        {**entrant.work, **common, "gradient": str(folder / f"{number}.npz")} for number, entrant in enumerate(entrants)
    ]


def meta_step_rows(race, shape, entrants, gaps, found):
    """Yield what came of one race: times in single precision, and the distances from our result in double precision."""
    for entrant in entrants:
        answer = found[entrant.name]
        row = {"shape": shape.name, "race": race, "entrant": entrant.name}
        if "reason" in answer:
            yield {**row, "reason": answer["reason"]}
            continue
        times_ours, quartiles = ratio(answer, {"times": answer.get("times of ours", answer["times"])})
        yield {
            **row,
            **gaps.get(entrant.name, {}),
            **times_of(answer["times"]),
            "ours beside it": times_of(answer["times of ours"]) if "times of ours" in answer else None,
            "times ours": times_ours,
            "times ours, quartiles": quartiles,
            **({"alone": each_alone(answer["alone"], answer["ours alone"])} if "alone" in answer else {}),
            "first_s": round(answer["first_s"], 1),
            "peak_bytes": answer["peak_bytes"],
            "loss": answer["loss"],
            "accuracy": float(np.mean(answer["accuracies"])),
            "versions": answer["versions"],
        }


def each_alone(other, ours):
    """Return the times of an entrant alone and those of ours, with the ratio of the medians, or why there are none."""
    for name, times in (("it", other), ("ours", ours)):
        if "reason" in times:
            return {"reason": f"{name} failed alone: {times['reason']}"}
    times, times_ours = times_of(other["times"]), times_of(ours["times"])
    return {**times, "ours": times_ours, "times ours": float(f"{times['median_ms'] / times_ours['median_ms']:.3g}")}


def embedded_tasks(splits, shots, count):
    """Return tasks of frozen embeddings as arrays, those of the test and the validation classes."""
    arrays = {}
    for split, number in (("test", count), ("validation", min(count, 100))):
        embeddings = splits[{"validation": "val"}.get(split, split)]
        sampler = Sampler(embeddings, EpisodeShape(WAYS, shots, QUERIES))
        drawn = [sampler.draw(0, task) for task in range(number)]
        for side, of_side, each in (("support", "labels", shots), ("query", "of_query", QUERIES)):
            positions = np.stack([getattr(task, side) for task in drawn]).reshape(number, -1)
            arrays[f"{split}_{side}"] = embeddings.examples[positions].astype(np.float32)
            arrays[f"{split}_{of_side}"] = np.tile(np.repeat(np.arange(WAYS), each), (number, 1))
    return arrays


def race_heads(peers, splits, count, rounds, where):
    """Yield a row for each head and number of shots."""
    for shots in (1, 5):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "tasks.npz"
            np.savez(path, **embedded_tasks(splits, shots, count))
            entrants = [
                Entrant(head, peer, "sklearn_entrant.py" if peer else "comln_heads_entrant.py")
                for head, (peer, _) in HEADS.items()
                if (head, shots) not in LEFT_OUT
            ]
            works = [
                {"name": e.name, "shots": shots, "choices": list(HEADS[e.name][1]), "file": str(path)} for e in entrants
            ]
            print(f"heads, {shots}-shot", flush=True)
            found = take_turns(peers, entrants, works, rounds)
            for row in head_rows(shots, found):
                yield row | where


def head_rows(shots, found):
    """Yield what came of the race of heads."""
    reference = found[REFERENCE]
    peers = {name: found[name] for name, (peer, _) in HEADS.items() if peer and "times" in found.get(name, {})}
    for name in HEADS:
        row = {"head": name, "shots": shots}
        answer = found.get(name, {"reason": LEFT_OUT.get((name, shots))})
        if "reason" in answer:
            yield {**row, "reason": answer["reason"]}
            continue
        accuracies = np.array(answer["accuracies"])
        row |= {
            "accuracy": mean_and_ci95(accuracies),
            "tasks": len(accuracies),
            "chosen": answer["chosen"],
            "peak_bytes": answer["peak_bytes"],
            **times_of(answer["times"], answer["tasks of a turn"]),
            "versions": answer["versions"],
        }
        if "reason" not in reference and name != REFERENCE:
            row["minus the reference"] = mean_and_ci95(accuracies - np.array(reference["accuracies"]))
            row["times of the reference"], row["times of the reference, quartiles"] = ratio(answer, reference)
        if name not in peers:
            row["fastest peer as accurate"] = beside_fastest(answer, as_accurate(answer, peers))
        yield row


def as_accurate(ours, peers):
    """Return the peers that are as accurate as one of our heads, on the same tasks."""
    found = {}
    for name, peer in peers.items():
        mean, interval = mean_and_ci95(np.array(peer["accuracies"]) - np.array(ours["accuracies"]))
        if mean + interval >= -AS_ACCURATE:
            found[name] = peer
    return found


def beside_fastest(ours, equal):
    """Return which peer is the fastest, and how long ours takes beside it; `None` if there is no peer."""
    if not equal:
        return None
    fastest = min(equal, key=lambda peer: np.median(equal[peer]["times"]))
    median, quartiles = ratio(ours, equal[fastest])
    return {"head": fastest, "times of it": median, "quartiles": quartiles}


def ratio(answer, other):
    """Return by how much one takes longer than another one, turn by turn: the median, and the quartiles."""
    turns = min(len(answer["times"]), len(other["times"]))
    ratios = np.array(answer["times"][:turns]) / np.array(other["times"][:turns])
    low, middle, high = (float(f"{np.percentile(ratios, p):.3g}") for p in (25, 50, 75))
    return middle, [low, high]


HEADS_RACE = "heads"
"""The title of the race between heads."""


def main():
    """Run the races, write the JSON after each."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if len(words) != 1:
        sys.exit(__doc__)
    short = "--short" in sys.argv[1:]
    only = next((word.removeprefix("--only=") for word in sys.argv[1:] if word.startswith("--only=")), "")
    turns = next((word.removeprefix("--turns=") for word in sys.argv[1:] if word.startswith("--turns=")), "20")
    if not turns.isdecimal() or int(turns) < FEW:
        sys.exit(f"--turns must be a whole number from {FEW} on, got {turns!r}.")
    rounds = FEW if short else int(turns)
    path = HERE.parent / "results" / "race.json"
    titles = [*(title(race, shape) for shape in SHAPES for race in META_STEPS), HEADS_RACE]
    wanted = [name for name in titles if only in name]
    if not wanted:
        sys.exit(f"No race has {only!r} in its title. There are:\n" + "\n".join(titles))
    before = json.loads(path.read_text()) if path.exists() else {}
    peers = Path(words[0]).absolute()
    peers.mkdir(parents=True, exist_ok=True)
    began, where = time.perf_counter(), environment()
    here = {name: where[name] for name in ("commit", "device", "processor", "cores")}
    result = {
        "meta-steps": [row for row in before.get("meta-steps", []) if is_known(row)],
        "heads": [],
        "embeddings": None,
        "reference": REFERENCE,
        "as accurate": AS_ACCURATE,
        "peers not raced": {name: interpreter(peers, name)[1] or "installed" for name in ("learn2learn", "torchmeta")},
        "environment": where,
    }
    if are_known(before):
        result |= {name: before[name] for name in ("heads", "embeddings")}

    def write():
        if not short:
            path.write_text(json.dumps(result, indent=1) + "\n")

    for rows in race_meta_steps(peers, rounds, only, here):
        result["meta-steps"] = merged(result["meta-steps"], rows)
        write()
    if HEADS_RACE in wanted:
        supervision = Supervision(Conv4Config(64, scale_output=False), 20 if short else 800)
        made = kept_embeddings(peers / "embeddings", supervision, GlyphsData().load())
        splits = unit_norm(made.splits)
        result["heads"] = list(race_heads(peers, splits, 20 if short else 300, rounds, here))
        result["embeddings"] = {"commit": made.commit, "accuracy": made.accuracy, "hash": content_hash(splits)}
        write()
    print(json.dumps(result, indent=1), f"\n{time.perf_counter() - began:.0f} s")


def is_known(row):
    """Return whether a row of an earlier run is of a race that there is, and tells its machine."""
    return row["race"] in META_STEPS and row["shape"] in [shape.name for shape in SHAPES] and "device" in row


def are_known(before):
    """Return whether the heads of an earlier run are those that there are, judged by the same numbers."""
    names = {row["head"] for row in before.get("heads", []) if "device" in row}
    judged = (before.get("reference"), before.get("as accurate"))
    return names == set(HEADS) and judged == (REFERENCE, AS_ACCURATE) and before.get("embeddings") is not None


def merged(before, rows):
    """Return rows of one race at one shape in place of the earlier ones, in the order of shapes and races."""
    shapes, races = [shape.name for shape in SHAPES], list(META_STEPS)
    new = {(row["shape"], row["race"]) for row in rows}
    kept = [row for row in before if (row["shape"], row["race"]) not in new]
    return sorted([*kept, *rows], key=lambda row: (shapes.index(row["shape"]), races.index(row["race"])))


if __name__ == "__main__":
    main()
