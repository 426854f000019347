"""Few-shot learners, one file each."""

__all__ = [
    "ANIL",
    "CAVIA",
    "COMLN",
    "IMAML",
    "LEO",
    "LRD2",
    "MAML",
    "R2D2",
    "AbstractLearner",
    "AdaptationInfo",
    "ConjugateGradients",
    "InitialHead",
    "InnerGradient",
    "Leap",
    "MetaOptNetRidge",
    "MetaOptNetSVM",
    "MetaSGD",
    "NetworkInContext",
    "Outcome",
    "PathMeasure",
    "ProtoNet",
    "ProximalPull",
    "TaskHorizon",
]

from comln.learners.anil import ANIL
from comln.learners.base import AbstractLearner, AdaptationInfo, Outcome
from comln.learners.cavia import CAVIA, NetworkInContext
from comln.learners.comln import COMLN, InitialHead
from comln.learners.imaml import IMAML, ConjugateGradients, ProximalPull
from comln.learners.inner_loop import InnerGradient
from comln.learners.leap import Leap, PathMeasure
from comln.learners.leo import LEO
from comln.learners.lrd2 import LRD2
from comln.learners.maml import MAML
from comln.learners.meta_sgd import MetaSGD
from comln.learners.metaoptnet import MetaOptNetRidge, MetaOptNetSVM
from comln.learners.protonet import ProtoNet
from comln.learners.r2d2 import R2D2
from comln.learners.task_horizon import TaskHorizon
