"""What differs from one data set and network to another, in the protocols that other people wrote."""

import equinox as eqx
import pytest

from comln.data.prepared import PreparedData
from comln.data.sampling import EpisodeShape
from comln.optimiser import SGD, StepwiseAdam
from comln.recipes import LEARNERS, find
from comln.recipes.backbones import Conv4Config, IdentityConfig, ResNet12Config
from comln.recipes.benchmarks import EXPERIMENTS
from comln.recipes.learners import LEOConfig, MetaOptNetRidgeConfig, MetaOptNetSVMConfig
from comln.recipes.originals import original_of

BENCHMARKS = (*EXPERIMENTS, *(f"{name}-resnet12" for name in EXPERIMENTS if not name.startswith("leo-")))
MINI, TIERED = "mini-imagenet-5way-1shot", "tiered-imagenet-5way-1shot"


def last_fall(optimiser: SGD | StepwiseAdam, steps: int) -> int:
    """Return the update at which the rate falls for the last time; 0 where it is constant."""
    if isinstance(optimiser, SGD):
        return round(steps * 49 / 60) if optimiser.falls[-1] < 1 else 0
    return 0 if optimiser.decay == 1 else (steps - 1) // optimiser.decay_every * optimiser.decay_every


@pytest.mark.parametrize("protocol", ["paper", "original"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_no_run_ends_before_its_rate_has_fallen(learner, protocol):
    """A flat stretch before the first fall, or between two, must not end a run that others trained to its end."""
    for name in BENCHMARKS:
        run = find(name, learner, protocol)
        assert isinstance(run.optimiser, SGD | StepwiseAdam)
        assert run.patience == 0 or run.patience * run.validate_every > run.steps - last_fall(run.optimiser, run.steps)
        assert (run.validate_every, run.validation_tasks) == (1000, 2000)
        # Only the authors of these two stop, after 200 of their epochs of 100 updates.
        stops = protocol == "original" and learner in ("r2d2", "lrd2")
        assert run.patience == (20 if stops else 0)


@pytest.mark.parametrize("learner", LEARNERS)
def test_no_run_of_the_house_ends_before_its_rate_has_fallen_to_zero(learner):
    for name in BENCHMARKS:
        run = find(name, learner, "house")
        assert run.validate_every and run.patience == 0


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_recipe_without_validation_stays_without(learner):
    for protocol in ("house", "paper", "original"):
        run = find("glyphs-5way-1shot", learner, protocol)
        assert (run.validate_every, run.patience) == (0, 0)


@pytest.mark.parametrize(
    ("data", "shots"),
    [
        ("mini-imagenet", 15),
        ("tiered-imagenet", 10),
        ("cifar-fs", 5),
        ("fc100", 15),
        ("leo-mini-imagenet", 15),
        ("leo-tiered-imagenet", 10),
        ("cub", 5),
        ("glyphs", 5),
    ],
)
@pytest.mark.parametrize("learner", ["metaoptnet-rr", "metaoptnet-svm"])
def test_metaoptnet_trains_with_the_shots_of_its_authors(learner, data, shots):
    for name in (f"{data}-5way-1shot", f"{data}-5way-5shot"):
        assert find(name, learner, "original").train == EpisodeShape(5, shots, 6)
    original = original_of(learner, find(f"{data}-5way-1shot", learner, "house"))
    by_the_program = f"{shots} training shots" in original.from_code
    assert by_the_program == (data in ("mini-imagenet", "tiered-imagenet", "cifar-fs", "fc100"))
    assert by_the_program != (f"{shots} training shots" in original.chosen)


@pytest.mark.parametrize("learner", ["metaoptnet-rr", "metaoptnet-svm"])
def test_metaoptnet_smooths_labels_for_resnet_12_on_mini_imagenet_alone(learner):
    for name in BENCHMARKS:
        config = find(name, learner, "original").learner
        assert isinstance(config, MetaOptNetRidgeConfig | MetaOptNetSVMConfig)
        assert config.query_smoothing == (0.1 if name.startswith("mini") and name.endswith("resnet12") else 0.0)
        in_paper = find(name, learner, "paper").learner
        assert isinstance(in_paper, MetaOptNetRidgeConfig | MetaOptNetSVMConfig) and in_paper.query_smoothing == 0.0


@pytest.mark.parametrize("learner", LEARNERS)
def test_images_are_varied_where_the_authors_vary_them(learner):
    varies = learner in ("comln", "metaoptnet-rr", "metaoptnet-svm")
    for name in (MINI, f"{MINI}-resnet12", "cifar-fs-5way-1shot", "cub-5way-5shot"):
        house, original, paper = (find(name, learner, protocol).data for protocol in ("house", "original", "paper"))
        assert (
            isinstance(house, PreparedData) and isinstance(original, PreparedData) and isinstance(paper, PreparedData)
        )
        assert house.padding is not None and paper.padding == house.padding
        assert original.padding == (house.padding if varies else None)


@pytest.mark.parametrize("learner", LEARNERS)
def test_what_is_said_of_the_settings_is_of_this_data_set_and_network(learner):
    """Nothing is said of glyphs, filters or a trained network where there are none."""
    for name in BENCHMARKS:
        experiment = find(name, learner, "house")
        said = original_of(learner, experiment)
        fields = (said.from_paper, said.from_code, said.from_memory, said.chosen)
        assert all("; ;" not in field and field.strip("; ") == field for field in fields)
        words = "; ".join(fields)
        assert "glyph" not in words
        if isinstance(experiment.backbone, IdentityConfig):
            assert "trained along" not in words and "the house network" not in words
        if not isinstance(experiment.backbone, Conv4Config) and learner not in ("r2d2", "lrd2", "cavia"):
            assert "filters" not in words
    at_home = original_of(learner, find("glyphs-5way-1shot", learner, "house"))
    assert ("glyphs are jittered" in at_home.chosen) == (learner not in ("comln", "leo"))


@pytest.mark.parametrize(
    ("name", "rate", "dropout", "kl_weight", "penalties"),
    [
        ("leo-mini-imagenet-5way-1shot", 2.739e-4, 0.308, 0.756, (5.76e-6, 3.62e-10, 0.188)),
        ("leo-mini-imagenet-5way-5shot", 4.102e-4, 0.300, 0.466, (2.66e-7, 8.54e-9, 1.52e-3)),
        ("leo-tiered-imagenet-5way-1shot", 8.659e-4, 0.475, 2.03e-3, (8.30e-5, 4.15e-10, 5.45e-3)),
        ("leo-tiered-imagenet-5way-5shot", 6.110e-4, 0.415, 1.62, (2.67e-5, 1.69e-10, 2.48e-2)),
    ],
)
def test_leo_is_tuned_for_each_data_set_and_number_of_shots(name, rate, dropout, kl_weight, penalties):
    experiment = find(name, "leo", "original")
    config, optimiser = experiment.learner, experiment.optimiser
    assert isinstance(config, LEOConfig) and isinstance(optimiser, StepwiseAdam)
    assert (optimiser.learning_rate, config.dropout, config.kl_weight) == (rate, dropout, kl_weight)
    assert (config.encoder_penalty, config.l2_penalty, config.orthogonality_penalty) == penalties


@pytest.mark.parametrize("learner", ["metaoptnet-rr", "metaoptnet-svm"])
def test_metaoptnet_drops_features_of_resnet_12(learner):
    for name, size in ((f"{MINI}-resnet12", 5), (f"{TIERED}-resnet12", 5), ("fc100-5way-5shot-resnet12", 2)):
        experiment = find(name, learner, "original")
        assert experiment.backbone == ResNet12Config(
            scale_output=False, dropout=0.1, drop_block=0.1, drop_block_size=size, drop_block_calls=20_000
        )
        assert find(name, learner, "paper").backbone == ResNet12Config(scale_output=False)
    for name in ("glyphs-5way-1shot-resnet12", "omniglot-5way-1shot-resnet12"):
        assert find(name, learner, "original").backbone == ResNet12Config(scale_output=False, dropout=0.1)


@pytest.mark.parametrize("learner", LEARNERS)
def test_no_other_method_drops_features(learner):
    if not learner.startswith("metaoptnet"):
        backbone = find(f"{MINI}-resnet12", learner, "original").backbone
        assert isinstance(backbone, ResNet12Config) and (backbone.dropout, backbone.drop_block) == (0.0, 0.0)


@pytest.mark.parametrize("name", [f"{MINI}-resnet12", "fc100-5way-1shot-resnet12", "glyphs-5way-1shot-resnet12"])
def test_the_squares_that_are_dropped_fit_the_features(name):
    """The network refuses squares that are wider than its last features: this builds it."""
    experiment = find(name, "metaoptnet-rr", "original")
    assert isinstance(experiment.backbone, ResNet12Config)
    shapes = eqx.filter_eval_shape(experiment.build, 0)
    assert shapes.backbone.embedding_size == 640 * (experiment.data.example_shape[0] // 16) ** 2
