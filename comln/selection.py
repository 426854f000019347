"""Which state of a training run is the best, by accuracy on validation tasks, and when to stop looking."""

__all__ = ["Selection"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Selection:
    """What validations so far have shown.

    - `best_step`, `best_accuracy`: where the accuracy was highest, the first time; `None` before any validation.
    - `waited`: validations since then.

    >>> selection = Selection().after(100, 0.5).after(200, 0.4)
    >>> selection
    Selection(best_step=100, best_accuracy=0.5, waited=1)
    >>> selection.is_exhausted(patience=1), selection.is_exhausted(patience=2)
    (True, False)
    """

    best_step: int | None = None
    best_accuracy: float | None = None
    waited: int = 0

    def after(self, step: int, accuracy: float) -> "Selection":
        """Return the selection after one more validation."""
        if self.best_accuracy is None or accuracy > self.best_accuracy:
            return Selection(step, accuracy, 0)
        return Selection(self.best_step, self.best_accuracy, self.waited + 1)

    def is_exhausted(self, patience: int) -> bool:
        """Whether training should stop: `patience` validations brought nothing better. A patience of 0 never ends."""
        return 0 < patience <= self.waited
