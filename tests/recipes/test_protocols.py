import dataclasses
import json

import pytest

from comln.backbones import Normalisation, ResNet12
from comln.learners import ConjugateGradients
from comln.optimiser import SGD, Adam, StepwiseAdam
from comln.recipes import LEARNERS, PROTOCOLS, RECIPES, Experiment, find
from comln.recipes.backbones import Conv4Config, IdentityConfig, ResNet12Config
from comln.recipes.benchmarks import EXPERIMENTS as BENCHMARKS
from comln.recipes.benchmarks import PUBLISHED, published
from comln.recipes.learners import (
    ANILConfig,
    IMAMLConfig,
    LEOConfig,
    LRD2Config,
    MAMLConfig,
    MetaOptNetSVMConfig,
    R2D2Config,
)
from comln.recipes.originals import original_of
from comln.run import converter

NAMES = [module.EXPERIMENT.name for module in RECIPES]
RESNET = f"{NAMES[0]}-resnet12"
ALL = [(name, learner, protocol) for name in (*NAMES, RESNET) for learner in LEARNERS for protocol in PROTOCOLS]


@pytest.mark.parametrize(("name", "learner", "protocol"), ALL)
def test_every_experiment_survives_being_written_down(name, learner, protocol):
    experiment = find(name, learner, protocol)
    written = converter.unstructure(experiment)
    assert converter.structure(written, Experiment) == experiment
    # A run that is resumed compares what it was started with, read back, with what it is asked for.
    assert json.loads(json.dumps(written)) == written
    assert experiment.name == name


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_protocol_changes_the_training_and_not_the_test(learner):
    for name in NAMES:
        tests = {find(name, learner, protocol).test for protocol in PROTOCOLS}
        assert len(tests) == 1


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_optimisers_are_those_of_the_protocols(learner):
    assert isinstance(find(NAMES[0], learner, "house").optimiser, Adam)
    paper = find(NAMES[0], learner, "paper")
    assert paper.optimiser == SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4)
    assert (paper.tasks_per_step, paper.steps) == (8, 60_000)
    assert isinstance(paper.backbone, Conv4Config) and paper.backbone.filters == 64


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_original_says_where_its_settings_come_from(learner):
    original = original_of(learner, RECIPES[0].EXPERIMENT)
    assert any((original.from_paper, original.from_code, original.from_memory))
    assert isinstance(original.optimiser, SGD | StepwiseAdam)


def original(learner: str, shots: int):
    return original_of(learner, find(f"glyphs-5way-{shots}shot", learner, "house"))


def test_settings_of_the_authors_programs():
    maml = original("maml", 1)
    assert maml.learner == MAMLConfig(step=0.05, steps=5, test_steps=10)  # 0.01 on a sum over examples by the shots
    assert (maml.optimiser, maml.tasks_per_step, maml.steps) == (StepwiseAdam(1e-3, clip_numbers=10.0), 4, 60_000)
    assert original("cavia", 1).tasks_per_step == 4 and original("cavia", 5).tasks_per_step == 2
    imaml = original("imaml", 1).learner
    assert isinstance(imaml, IMAMLConfig) and imaml.solver == ConjugateGradients(5, damping=1.0, shift=10.0)
    svm = original("metaoptnet-svm", 1).learner
    assert isinstance(svm, MetaOptNetSVMConfig) and (svm.iterations, svm.test_iterations) == (15, 3)
    leo = original("leo", 5).learner
    assert isinstance(leo, LEOConfig) and (leo.kl_weight, leo.dropout) == (0.466, 0.300)
    assert (leo.latent_step, leo.weight_step, leo.steps_in_latents, leo.steps_in_weights) == (1.0, 1e-3, 5, 5)
    lrd2 = original("lrd2", 1).learner
    assert isinstance(lrd2, LRD2Config) and lrd2.regularisation == 50.0
    assert original("r2d2", 1).learner == R2D2Config(regularisation=50.0, initial_scale=1e-4)


def test_the_ways_and_shots_of_r2d2_fill_up_its_images():
    mixture = original("r2d2", 1).train_mixture
    assert [shape.shots for shape in mixture] == list(range(1, 10))
    assert {shape.ways * (shape.shots + shape.queries) for shape in mixture} == {240}
    assert {s.ways * (s.shots + s.queries) for s in original("lrd2", 1).train_mixture} == {200}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_methods_that_adapt_a_whole_network_say_that_they_use_the_statistics_of_the_batch(protocol):
    for learner in ("maml", "meta-sgd", "cavia", "imaml", "leap"):
        assert find(NAMES[0], learner, protocol).normalisation is Normalisation.BATCH


@pytest.mark.parametrize("learner", ["maml", "anil", "leap", "imaml", "cavia", "meta-sgd"])
def test_evaluation_takes_the_steps_that_are_set_for_it(learner):
    experiment = find(NAMES[0], learner, "house")
    changed = dataclasses.replace(
        experiment,
        backbone=dataclasses.replace(experiment.backbone, filters=4),
        learner=dataclasses.replace(experiment.learner, steps=3, test_steps=7),
    )
    model = changed.build(0)
    assert (getattr(model, "steps"), getattr(changed.at_test(model), "steps")) == (3, 7)  # noqa: B009


def test_the_paper_takes_ten_steps_of_a_hundredth():
    for learner in ("maml", "anil"):
        config = find(NAMES[0], learner, "paper").learner
        assert isinstance(config, MAMLConfig | ANILConfig)
        assert (config.step, config.steps, config.test_steps) == (0.01, 10, 10)


def test_nobody_elses_settings_are_made_up():
    with pytest.raises(ValueError, match=r"'mine' are known\. Use --protocol house"):
        original_of("mine", RECIPES[0].EXPERIMENT)


def test_a_name_that_is_not_known_gets_the_nearest_that_is():
    for words, message in (
        (("glyphs-5way-1shoot", "comln", "house"), "Unknown recipe 'glyphs-5way-1shoot'. Did you mean 'glyphs-5way-1"),
        (("glyphs-5way-1shot", "mamll", "house"), "Unknown learner 'mamll'. Did you mean 'maml'"),
        (("glyphs-5way-1shot", "maml", "hause"), "Unknown protocol 'hause'. Did you mean 'house'"),
    ):
        with pytest.raises(ValueError, match=message):
            find(*words)


def test_the_end_of_a_name_asks_for_the_network_and_changes_nothing_else():
    for learner in ("comln", "protonet"):
        plain, other = find(NAMES[0], learner, "house"), find(RESNET, learner, "house")
        assert other.backbone == ResNet12Config(scale_output=plain.backbone.scale_output)
        assert dataclasses.replace(other, name=plain.name, backbone=plain.backbone) == plain
    with pytest.raises(ValueError, match=f"Did you mean '{RESNET}'"):
        find(f"{RESNET}x", "comln", "house")


@pytest.mark.parametrize("learner", ["comln", "maml"])
def test_both_kinds_of_learners_are_built_on_either_network(learner):
    narrow = ResNet12Config(widths=(2, 3, 4, 5), bfloat16=True)
    model = dataclasses.replace(find(RESNET, learner, "house"), backbone=narrow).build(0)
    network = model.backbone if learner == "comln" else getattr(model, "network").network  # noqa: B009
    assert isinstance(network, ResNet12) and network.embedding_size == 5 and network.bfloat16


def test_cavia_refuses_a_network_that_is_not_its_own():
    with pytest.raises(ValueError, match=r"CAVIA adapts a Conv-4 of its own kind"):
        find(RESNET, "cavia", "house").build(0)


@pytest.mark.parametrize("backbone", [ResNet12Config(dropout=0.1), ResNet12Config(drop_block=0.1)])
def test_methods_that_adapt_a_whole_network_refuse_dropout(backbone):
    with pytest.raises(ValueError, match=r"without dropout and DropBlock.*--backbone.dropout 0"):
        dataclasses.replace(find(RESNET, "maml", "house"), backbone=backbone).build(0)


def test_a_run_from_before_there_were_several_networks_can_be_read():
    written = converter.unstructure(find(NAMES[0], "comln", "house"))
    written["backbone"] = {"filters": 7, "scale_output": False}
    assert converter.structure(written, Experiment).backbone == Conv4Config(7, scale_output=False)


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_benchmark_has_every_method_and_survives_being_written_down(name, learner):
    for protocol in PROTOCOLS:
        experiment = find(name, learner, protocol)
        assert converter.structure(converter.unstructure(experiment), Experiment) == experiment
        assert experiment.data.example_shape == BENCHMARKS[name].data.example_shape
        assert isinstance(experiment.backbone, IdentityConfig) == name.startswith("leo-")


def test_the_numbers_of_the_paper_are_found_by_recipe_and_method():
    for recipe, learner, expected in (
        ("mini-imagenet-5way-1shot", "comln", (53.01, 0.62)),
        ("tiered-imagenet-5way-5shot-resnet12", "metaoptnet-svm", (81.56, 0.53)),
        ("leo-mini-imagenet-5way-5shot", "r2d2", (70.38, 0.52)),
    ):
        found = published(recipe, learner)
        assert found is not None and (found.accuracy, found.ci95) == expected
    assert published("cub-5way-1shot", "comln") is None and published("glyphs-5way-1shot", "comln") is None
    for row in PUBLISHED:
        assert all(row.sources)
        for shots in (1, 5):
            network = "-resnet12" if row.network == "resnet12" else ""
            find(f"{row.data}-5way-{shots}shot{network}", row.learner, "paper")


def test_embeddings_have_no_network_to_choose():
    with pytest.raises(ValueError, match="Unknown recipe 'leo-mini-imagenet-5way-1shot-resnet12'"):
        find("leo-mini-imagenet-5way-1shot-resnet12", "comln", "house")
    with pytest.raises(ValueError, match="embeddings already"):
        dataclasses.replace(find("leo-mini-imagenet-5way-1shot", "comln", "house"), backbone=Conv4Config()).build(0)
    with pytest.raises(ValueError, match="these are images"):
        dataclasses.replace(find(NAMES[0], "comln", "house"), backbone=IdentityConfig()).build(0)
