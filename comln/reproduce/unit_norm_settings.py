"""What methods need on embeddings of norm one in place of their recipe's settings, and what was tried. For Table 5."""

__all__ = ["CHOSEN", "TRIED", "Settings"]

from collections.abc import Mapping

Settings = Mapping[str, float]
"""Fields of a learner's configuration, by name."""

_STEPS: tuple[Settings, ...] = tuple({"step": step} for step in (1.0, 2.0, 5.0, 10.0, 20.0))

_WEIGHTS: tuple[Settings, ...] = tuple({"regularisation": 10.0**power} for power in range(-4, 4))

TRIED: Mapping[str, tuple[Settings, ...]] = {
    "maml": _STEPS,
    "anil": _STEPS,
    "leap": _STEPS,
    "meta-sgd": tuple({"initial_step": step} for step in (5.0, 10.0, 20.0, 50.0, 100.0)),
    "imaml": tuple({"step": step, "proximal": pull} for step in (2.0, 5.0, 10.0) for pull in (1e-4, 0.001, 0.01, 0.1)),
    "r2d2": _WEIGHTS,
    "lrd2": _WEIGHTS,
    "metaoptnet-rr": _WEIGHTS,
    "metaoptnet-svm": tuple({"bound": bound} for bound in (0.1, 1.0, 10.0, 100.0)),
    "leo": tuple(
        {"weight_step": step, "kl_weight": weight}
        for step in (1e-3, 0.1, 1.0, 10.0)
        for weight in (1e-3, 1e-5, 1e-7, 1e-9)
    ),
}
"""By method, what is tried. A recipe's settings are for a whole network, or for embeddings that are not divided by
their norms. COMLN, which learns its horizon, and ProtoNet keep theirs."""

CHOSEN: Mapping[tuple[str, int], Settings] = {
    ("maml", 1): {"step": 5.0},
    ("anil", 1): {"step": 10.0},
    ("leap", 1): {"step": 5.0},
    ("meta-sgd", 1): {"initial_step": 20.0},
    ("imaml", 1): {"step": 5.0, "proximal": 0.0001},
    ("r2d2", 1): {"regularisation": 100.0},
    ("lrd2", 1): {"regularisation": 100.0},
    ("metaoptnet-rr", 1): {"regularisation": 100.0},
    ("metaoptnet-svm", 1): {"bound": 1.0},
    ("leo", 1): {"weight_step": 1.0, "kl_weight": 1e-05},
    ("maml", 5): {"step": 5.0},
    ("anil", 5): {"step": 10.0},
    ("leap", 5): {"step": 5.0},
    ("meta-sgd", 5): {"initial_step": 20.0},
    ("imaml", 5): {"step": 5.0, "proximal": 0.0001},
    ("r2d2", 5): {"regularisation": 0.001},
    ("lrd2", 5): {"regularisation": 0.01},
    ("metaoptnet-rr", 5): {"regularisation": 0.1},
    ("metaoptnet-svm", 5): {"bound": 1.0},
    ("leo", 5): {"weight_step": 1.0, "kl_weight": 1e-09},
}
"""By method and number of shots: what was best on tasks of the validation classes, after training with the first seed.
`python benchmarks/unit_norm_settings.py` tries them all, and writes what came of it."""
