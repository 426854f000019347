"""Small data sets made on the spot."""

import numpy as np

from comln.data.augmentation import AffineJitter
from comln.data.source import Split

STILL = AffineJitter(size=16, pixel=1.0, rotation=0.0, log_scale=0.0, shear=0.0, shift=0.0)


def stripes(
    classes: int = 6, groups: int = 8, variants: int = 3, augmentation=None, scaling=None, seed: int = 0
) -> Split:
    """Return 16 x 16 pictures whose rows are bright where the class says so, with noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.random((classes, 16, 1)) > 0.5
    count = classes * groups * variants
    class_of = np.repeat(np.arange(classes), groups * variants)
    pictures = 200 * patterns[class_of] + rng.integers(0, 50, (count, 16, 16))
    return Split(
        class_names=tuple(f"class {c}" for c in range(classes)),
        examples=pictures.astype(np.uint8)[..., None],
        class_of=class_of,
        group_of=np.tile(np.repeat(np.arange(groups), variants), classes),
        content_hash=f"stripes {seed}",
        augmentation=augmentation,
        scaling=scaling,
    )
