"""Embeddings from a network that was trained with plain supervision on the meta-train classes, and is then frozen.

They are to the glyphs what the embeddings of LEO (Rusu et al., 2019) are to miniImageNet.
"""

__all__ = ["KeptEmbeddings", "Supervision", "kept_embeddings", "train_supervised", "unit_norm"]

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from comln.backbones import AbstractBackbone, Normalisation
from comln.backbones.layers import convolve
from comln.data.augmentation import AbstractAugmentation
from comln.data.batches import scale_bytes
from comln.data.pixel_scaling import PixelScaling
from comln.data.prefetch import prefetch
from comln.data.source import Split, content_hash
from comln.recipes.backbones import BackboneConfig
from comln.reproduce.measure import COMMIT, numerics
from comln.reproduce.page import write_files
from comln.run import converter
from comln.typing import Array, Float, Int, PRNGKeyArray, Scalar

VIEWS = 4
"""How often each training example is embedded, varied anew each time."""

AT_ONCE = 512


@dataclass(frozen=True)
class Supervision:
    """How the network is trained.

    - `backbone`: the network, with a linear layer of a row for each class on top of it.
    - `updates`, `batch`: how many, on how many examples each.
    - `learning_rate`: of Adam, at its highest; it rises over a tenth of the updates, and falls by a cosine.
    - `seed`: of weights, batches and variation.
    """

    backbone: BackboneConfig
    updates: int
    batch: int = 128
    learning_rate: float = 3e-3
    seed: int = 0


class _Classifier(eqx.Module):
    """A network and a linear layer: a row of weights and a bias for each class."""

    backbone: AbstractBackbone
    weights: Float[Array, "class feature"]
    biases: Float[Array, " class"]


def train_supervised(
    supervision: Supervision, split: Split, on_update: Callable[[int, float], None] = lambda update, loss: None
) -> tuple[AbstractBackbone, Any, float]:
    """Return the network, its running batch statistics, and the mean accuracy on the last tenth of the batches.

    - `on_update`: called with the number of an update, from 1, and its loss.
    """
    network_key, weights_key, variation_key = jax.random.split(jax.random.key(supervision.seed), 3)
    backbone = supervision.backbone.build(split.examples.shape[1:], network_key, convolve)
    size, classes = backbone.embedding_size, len(split.class_names)
    weights = jax.random.normal(weights_key, (classes, size)) / jnp.sqrt(size)
    model = _Classifier(backbone, weights, jnp.zeros(classes, weights.dtype))
    rise = max(1, supervision.updates // 10)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, supervision.learning_rate, rise, max(supervision.updates, rise + 1)
    )
    optimiser = optax.adamw(schedule, weight_decay=5e-4)

    @eqx.filter_jit
    def update(
        model: _Classifier, statistics: Any, state: Any, examples: Array, classes: Int[Array, " example"], number: Array
    ) -> tuple[_Classifier, Any, Any, Scalar, Scalar]:
        key = jax.random.fold_in(variation_key, number)
        images = _varied(examples, split.augmentation, split.scaling, key)
        parameters, fixed = eqx.partition(model, eqx.is_inexact_array)

        def loss_of(parameters: Any) -> Any:
            whole: _Classifier = eqx.combine(parameters, fixed)
            embeddings, moved = whole.backbone(images, statistics, Normalisation.BATCH)
            logits = embeddings @ whole.weights.T + whole.biases[None, :]
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
            return jnp.mean(losses), (moved, jnp.mean(jnp.argmax(logits, axis=1) == classes))

        (loss, (moved, accuracy)), gradient = jax.value_and_grad(loss_of, has_aux=True)(parameters)
        changes, new = optimiser.update(gradient, state, parameters)
        return eqx.combine(eqx.apply_updates(parameters, changes), fixed), moved, new, loss, accuracy

    def batch_of(number: int) -> tuple[np.ndarray, np.ndarray, np.integer]:
        rng = np.random.default_rng((supervision.seed, number))
        chosen = rng.choice(len(split.examples), supervision.batch)
        return split.examples[chosen], split.class_of[chosen].astype(np.int32), np.uint32(number)

    statistics = backbone.initial_statistics()
    state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))
    accuracies = []
    for number, batch in enumerate(prefetch(batch_of, 0, supervision.updates)):
        model, statistics, state, loss, accuracy = update(model, statistics, state, *map(jnp.asarray, batch))
        accuracies.append(float(accuracy))
        on_update(number + 1, float(loss))
    return model.backbone, statistics, float(np.mean(accuracies[-rise:]))


def _embed_split(backbone: AbstractBackbone, statistics: Any, split: Split) -> dict[str, np.ndarray]:
    """Return the embeddings of a split with their classes and groups; `VIEWS` of examples that are varied."""
    views = 1 if split.augmentation is None else VIEWS
    starts = range(0, len(split.examples), AT_ONCE)
    rows = [_embed(backbone, statistics, split, view, start) for view in range(views) for start in starts]
    return {
        "rows": np.concatenate(rows),
        "class_of": np.tile(split.class_of, views),
        "group_of": np.tile(split.group_of, views),
    }


def _embed(backbone: AbstractBackbone, statistics: Any, split: Split, view: int, start: int) -> np.ndarray:
    chosen = np.arange(start, start + AT_ONCE).clip(max=len(split.examples) - 1)
    key = jax.random.fold_in(jax.random.key(view), start)
    rows = _embed_varied(backbone, statistics, split.examples[chosen], split.augmentation, split.scaling, key)
    return np.asarray(rows)[: len(split.examples) - start]


@eqx.filter_jit
def _embed_varied(
    backbone: AbstractBackbone,
    statistics: Any,
    examples: Array | np.ndarray,
    augmentation: AbstractAugmentation | None,
    scaling: PixelScaling | None,
    key: PRNGKeyArray,
) -> Array:
    return backbone(_varied(examples, augmentation, scaling, key), statistics, Normalisation.RUNNING)[0]


def _varied(
    examples: Array | np.ndarray,
    augmentation: AbstractAugmentation | None,
    scaling: PixelScaling | None,
    key: PRNGKeyArray,
) -> Array:
    images = jnp.asarray(examples)
    return scale_bytes(images if augmentation is None else augmentation(images, key), scaling)


class KeptEmbeddings(NamedTuple):
    """Embeddings that were made once.

    - `splits`: by name, with embeddings for examples; they are not divided by their norms.
    - `accuracy`: of the network on its training classes.
    - `commit`: of the code that made them.
    """

    splits: dict[str, Split]
    accuracy: float
    commit: str


def kept_embeddings(
    folder: Path,
    supervision: Supervision,
    splits: Mapping[str, Split],
    on_update: Callable[[int, float], None] = lambda update, loss: None,
) -> KeptEmbeddings:
    """Return embeddings of the splits, made where they are not in `folder` yet, and kept there."""
    made_from = {
        "supervision": converter.unstructure(supervision),
        "data_hash": content_hash(splits),
        "views": VIEWS,
        "numerics": numerics(),
    }
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    path = folder / f"embeddings-{digest[:12]}.npz"
    arrays = _read(path)
    if arrays is None:
        backbone, statistics, accuracy = train_supervised(supervision, splits["train"], on_update)
        arrays = {"accuracy": np.array(accuracy), "commit": np.array(COMMIT)}
        for name, split in splits.items():
            arrays |= {f"{name}_{what}": x for what, x in _embed_split(backbone, statistics, split).items()}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        folder.mkdir(parents=True, exist_ok=True)
        write_files(folder, {path.name: buffer.getvalue()})
    embedded = {
        name: Split(
            class_names=split.class_names,
            examples=arrays[f"{name}_rows"],
            class_of=arrays[f"{name}_class_of"],
            group_of=arrays[f"{name}_group_of"],
            content_hash=f"embeddings {_hash_of(arrays, name)} {name}",
        )
        for name, split in splits.items()
    }
    return KeptEmbeddings(embedded, float(arrays["accuracy"]), str(arrays["commit"]))


def _hash_of(arrays: Mapping[str, np.ndarray], split: str) -> str:
    whole = hashlib.sha256()
    for name in ("rows", "class_of", "group_of"):
        whole.update(np.ascontiguousarray(arrays[f"{split}_{name}"]).tobytes())
    return whole.hexdigest()


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of a file that is there and whole."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def unit_norm(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Return embeddings divided by their norms; one of zeros stays as it is."""

    def divided(rows: np.ndarray) -> np.ndarray:
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norms > 0, norms, 1.0)

    return {
        name: dataclasses.replace(
            split, examples=divided(split.examples), content_hash=f"{split.content_hash}, of norm one"
        )
        for name, split in splits.items()
    }
