"""The methods as configurations: what can be set of each, and how it is built from it."""

__all__ = [
    "ANILConfig",
    "CAVIAConfig",
    "COMLNConfig",
    "FlowMethod",
    "HorizonOf",
    "IMAMLConfig",
    "LEOConfig",
    "LRD2Config",
    "LeapConfig",
    "LearnerConfig",
    "MAMLConfig",
    "MetaOptNetRidgeConfig",
    "MetaOptNetSVMConfig",
    "MetaSGDConfig",
    "ProtoNetConfig",
    "R2D2Config",
]

import dataclasses
import enum
from dataclasses import dataclass, field
from typing import Any

import jax

from comln.backbones import FilmConv4
from comln.flow.integrator import Dopri5, Integrator, Rodas4, Tsit5
from comln.learners import (
    ANIL,
    CAVIA,
    COMLN,
    IMAML,
    LEO,
    LRD2,
    MAML,
    R2D2,
    AbstractLearner,
    ConjugateGradients,
    InitialHead,
    InnerGradient,
    Leap,
    MetaOptNetRidge,
    MetaOptNetSVM,
    MetaSGD,
    PathMeasure,
    ProtoNet,
    ProximalPull,
    TaskHorizon,
)
from comln.recipes.backbones import Conv4Config, size_and_channels
from comln.recipes.learner_config import (
    AbstractLearnerConfig,
    Count,
    CountFrom1,
    Finite,
    NotNegative,
    Positive,
    Setting,
    Share,
)


def _with_steps(learner: Any, steps: int) -> AbstractLearner:
    return dataclasses.replace(learner, steps=steps)


class HorizonOf(enum.StrEnum):
    """What has a horizon: all tasks together, or each task."""

    ALL_TASKS = "all-tasks"
    EACH_TASK = "each-task"


class FlowMethod(enum.StrEnum):
    """How the flow is followed: as the classes of these names in `comln.flow.integrator` do."""

    TSIT5 = "tsit5"
    DOPRI5 = "dopri5"
    RODAS4 = "rodas4"
    EULER = "euler"


@dataclass(frozen=True)
class COMLNConfig(AbstractLearnerConfig):
    """COMLN: a linear head that follows the gradient flow of the support loss for a learned time."""

    initial_horizon: Positive = 10.0
    """T before training"""
    initial_head: InitialHead = InitialHead.LEARNED
    """where the flow starts"""
    proximal: NotNegative = 0.0
    """pull towards the start, lambda"""
    support_smoothing: Share = 0.0
    """share of each support label spread over the other classes"""
    query_smoothing: Share = 0.0
    """the same for query labels, in training"""
    horizon_of: HorizonOf = HorizonOf.ALL_TASKS
    """whether all tasks share T, or each has its own, by statistics of its support"""
    integrator: FlowMethod = FlowMethod.TSIT5
    """how the flow is followed: Tsitouras' pair, that of Dormand and Prince, an implicit one, or gradient descent"""
    euler_step: Positive = 0.1
    """length of a step of gradient descent (euler), in units of T"""

    def flow_integrator(self) -> Integrator:
        """Return what follows the flow.

        >>> COMLNConfig(integrator=FlowMethod.EULER).flow_integrator().method
        Euler(step=0.1)
        """
        match self.integrator:
            case FlowMethod.TSIT5:
                return Integrator(method=Tsit5())
            case FlowMethod.DOPRI5:
                return Integrator(method=Dopri5())
            case FlowMethod.RODAS4:
                return Integrator(method=Rodas4())
            case FlowMethod.EULER:
                return Integrator.euler(self.euler_step)

    def build(self, setting: Setting) -> AbstractLearner:
        head_key = setting.head_key()
        factor = None
        if self.horizon_of is HorizonOf.EACH_TASK:
            factor = TaskHorizon.init(jax.random.fold_in(head_key, 1))
        return COMLN.init(
            setting.backbone(),
            setting.ways,
            head_key,
            initial_horizon=self.initial_horizon,
            initial_head=self.initial_head,
            proximal=self.proximal,
            support_smoothing=self.support_smoothing,
            query_smoothing=self.query_smoothing,
            integrator=self.flow_integrator(),
            task_horizon=factor,
        )


@dataclass(frozen=True)
class ANILConfig(AbstractLearnerConfig):
    """ANIL: a linear head adapted by a few steps of gradient descent."""

    step: NotNegative = 5.0
    """size of an inner step, on the mean support loss"""
    steps: Count = 5
    """inner steps in training"""
    test_steps: Count = 10
    """inner steps in evaluation"""
    inner_gradient: InnerGradient = InnerGradient.EXACT
    """whether meta-gradients go through the gradients of the steps"""
    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        return ANIL.init(
            setting.backbone(),
            setting.ways,
            setting.head_key(),
            self.step,
            self.steps,
            self.inner_gradient,
            self.query_smoothing,
        )

    def at_test(self, learner: AbstractLearner) -> AbstractLearner:
        return _with_steps(learner, self.test_steps)


@dataclass(frozen=True)
class MAMLConfig(AbstractLearnerConfig):
    """MAML: a whole network adapted by a few steps of gradient descent."""

    step: NotNegative = 0.2
    """size of an inner step, on the mean support loss"""
    steps: Count = 5
    """inner steps in training"""
    test_steps: Count = 10
    """inner steps in evaluation"""
    inner_gradient: InnerGradient = InnerGradient.EXACT
    """whether meta-gradients go through the gradients of the steps; first-order is first-order MAML"""
    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        return MAML.init(
            setting.adaptable_backbone(),
            setting.ways,
            setting.head_key(),
            self.step,
            self.steps,
            self.inner_gradient,
            self.query_smoothing,
        )

    def adapts_whole_network(self) -> bool:
        return True

    def at_test(self, learner: AbstractLearner) -> AbstractLearner:
        return _with_steps(learner, self.test_steps)


@dataclass(frozen=True)
class MetaSGDConfig(AbstractLearnerConfig):
    """Meta-SGD: a whole network adapted with a learned step size for every weight."""

    initial_step: Finite = 0.1
    """every step size before training"""
    steps: Count = 1
    """inner steps in training"""
    test_steps: Count = 1
    """inner steps in evaluation"""
    inner_gradient: InnerGradient = InnerGradient.EXACT
    """whether meta-gradients go through the gradients of the steps"""
    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        return MetaSGD.init(
            setting.adaptable_backbone(),
            setting.ways,
            setting.head_key(),
            self.initial_step,
            self.steps,
            self.inner_gradient,
            self.query_smoothing,
        )

    def adapts_whole_network(self) -> bool:
        return True

    def at_test(self, learner: AbstractLearner) -> AbstractLearner:
        return _with_steps(learner, self.test_steps)


@dataclass(frozen=True)
class CAVIAConfig(AbstractLearnerConfig):
    """CAVIA: a context vector adapted by gradient descent, which bends a shared network to the task."""

    context_size: CountFrom1 = 100
    """numbers of the context"""
    step: NotNegative = 1.0
    """size of an inner step, on the mean support loss"""
    steps: Count = 2
    """inner steps in training"""
    test_steps: Count = 2
    """inner steps in evaluation"""
    inner_gradient: InnerGradient = InnerGradient.EXACT
    """whether meta-gradients go through the gradients of the steps"""
    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        if not isinstance(setting.network, Conv4Config):
            raise ValueError(
                "CAVIA adapts a Conv-4 of its own kind, and no other network. Take a recipe whose name ends in the "
                "number of shots, or another --learner."
            )
        if setting.network.scale_output:
            raise ValueError("CAVIA's network ends in logits, not embeddings. Leave out --backbone.scale-output.")
        network = FilmConv4.init(
            *size_and_channels(setting.example_shape),
            setting.network.filters,
            setting.ways,
            self.context_size,
            setting.key,
        )
        return CAVIA(
            network=network,
            step=self.step,
            steps=self.steps,
            inner_gradient=self.inner_gradient,
            query_smoothing=self.query_smoothing,
        )

    def adapts_whole_network(self) -> bool:
        return True

    def at_test(self, learner: AbstractLearner) -> AbstractLearner:
        return _with_steps(learner, self.test_steps)


@dataclass(frozen=True)
class IMAMLConfig(AbstractLearnerConfig):
    """iMAML: a whole network adapted near its start, differentiated at the optimum."""

    step: NotNegative = 0.1
    """size of an inner step, on the mean support loss"""
    steps: Count = 10
    """inner steps in training"""
    test_steps: Count = 10
    """inner steps in evaluation"""
    proximal: Positive = 0.5
    """pull towards the start, lambda"""
    solver: ConjugateGradients = field(default=ConjugateGradients())
    """of the linear system of the implicit gradient"""
    pull: ProximalPull = ProximalPull.EVERY_STEP
    """where the pull acts on the way, in training"""
    test_pull: ProximalPull = ProximalPull.EVERY_STEP
    """the same in evaluation"""
    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        return IMAML.init(
            setting.adaptable_backbone(),
            setting.ways,
            setting.head_key(),
            self.step,
            self.steps,
            self.proximal,
            self.solver,
            self.pull,
            self.query_smoothing,
        )

    def adapts_whole_network(self) -> bool:
        return True

    def at_test(self, learner: AbstractLearner) -> AbstractLearner:
        trained: Any = learner
        return dataclasses.replace(trained, steps=self.test_steps, pull=self.test_pull)


@dataclass(frozen=True)
class LeapConfig(AbstractLearnerConfig):
    """LEAP: a whole network adapted by gradient descent from where all tasks' paths are short."""

    step: NotNegative = 0.3
    """size of an inner step, on the mean support loss"""
    steps: CountFrom1 = 10
    """inner steps in training"""
    test_steps: Count = 10
    """inner steps in evaluation"""
    measure: PathMeasure = PathMeasure.LENGTH
    """what is made small of a path"""

    def build(self, setting: Setting) -> AbstractLearner:
        return Leap.init(
            setting.adaptable_backbone(), setting.ways, setting.head_key(), self.step, self.steps, self.measure
        )

    def adapts_whole_network(self) -> bool:
        return True

    def at_test(self, learner: AbstractLearner) -> AbstractLearner:
        return _with_steps(learner, self.test_steps)


@dataclass(frozen=True)
class LEOConfig(AbstractLearnerConfig):
    """LEO: a linear head decoded from a latent code, which gradient descent adapts."""

    latent_size: CountFrom1 = 64
    """numbers of a class's code"""
    latent_step: NotNegative = 1.0
    """every step size in the code, before training"""
    weight_step: NotNegative = 1e-3
    """every step size in the weights, before training"""
    steps_in_latents: Count = 5
    """inner steps of the code"""
    steps_in_weights: Count = 5
    """inner steps of the weights, after those of the code"""
    dropout: Share = 0.0
    """share of the coordinates of an embedding set to zero, in training"""
    kl_weight: NotNegative = 1e-3
    """of the divergence of the code from a normal distribution"""
    encoder_penalty: NotNegative = 1e-9
    """on how far the steps move the code"""
    l2_penalty: NotNegative = 1e-8
    """on encoder, relation network and decoder"""
    orthogonality_penalty: NotNegative = 1e-3
    """on correlations between the decoder's rows"""
    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        return LEO.init(setting.backbone(), setting.head_key(), **dataclasses.asdict(self))


@dataclass(frozen=True)
class MetaOptNetRidgeConfig(AbstractLearnerConfig):
    """MetaOptNet with ridge regression onto the labels as the head."""

    regularisation: Positive = 50.0
    """weight of the squared norm beside the sum of squares"""
    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        return MetaOptNetRidge.init(setting.backbone(), self.regularisation, self.query_smoothing)


@dataclass(frozen=True)
class MetaOptNetSVMConfig(AbstractLearnerConfig):
    """MetaOptNet with a support vector machine as the head."""

    bound: Positive = 0.1
    """C, of the dual variables"""
    iterations: CountFrom1 = 15
    """of the solver, in training"""
    test_iterations: CountFrom1 = 15
    """of the solver, in evaluation"""
    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        return MetaOptNetSVM.init(setting.backbone(), self.bound, self.iterations, self.query_smoothing)

    def at_test(self, learner: AbstractLearner) -> AbstractLearner:
        trained: Any = learner
        return dataclasses.replace(trained, iterations=self.test_iterations)


@dataclass(frozen=True)
class R2D2Config(AbstractLearnerConfig):
    """R2D2: ridge regression with a bias as the head."""

    regularisation: Positive = 1.0
    """weight of the squared norm beside the mean of squares"""
    initial_scale: Finite = 1.0
    """of the logits, before training"""
    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        return R2D2.init(setting.backbone(), self.regularisation, self.initial_scale, self.query_smoothing)


@dataclass(frozen=True)
class LRD2Config(AbstractLearnerConfig):
    """LRD2: logistic regression with a bias by Newton's method as the head."""

    regularisation: Positive = 1.0
    """weight of half the squared norm beside the sum of the losses"""
    iterations: CountFrom1 = 5
    """Newton steps"""
    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        return LRD2(
            backbone=setting.backbone(),
            regularisation=self.regularisation,
            iterations=self.iterations,
            query_smoothing=self.query_smoothing,
        )


@dataclass(frozen=True)
class ProtoNetConfig(AbstractLearnerConfig):
    """ProtoNet: the nearest class mean."""

    query_smoothing: Share = 0.0
    """share of each query label spread over the other classes, in training"""

    def build(self, setting: Setting) -> AbstractLearner:
        return ProtoNet(setting.backbone(), self.query_smoothing)


LearnerConfig = (
    COMLNConfig
    | MAMLConfig
    | ANILConfig
    | MetaSGDConfig
    | CAVIAConfig
    | IMAMLConfig
    | MetaOptNetRidgeConfig
    | MetaOptNetSVMConfig
    | R2D2Config
    | LRD2Config
    | LeapConfig
    | LEOConfig
    | ProtoNetConfig
)
"""The configuration of any method."""
