"""The outer loop over λ: one run or many, their optimizers and checkpoints, and SciPy's solvers."""

from tinybilevel.outer.combined import Clipped, PerBlock
from tinybilevel.outer.many import OptimizeResults, minimize_many
from tinybilevel.outer.minimize import minimize
from tinybilevel.outer.optimizers import SGD, Adam, Optimizer
from tinybilevel.outer.result import OptimizeResult, Progress
from tinybilevel.outer.schedules import Cosine
from tinybilevel.outer.value_and_grad import value_and_grad

__all__ = [
    "SGD",
    "Adam",
    "Clipped",
    "Cosine",
    "OptimizeResult",
    "OptimizeResults",
    "Optimizer",
    "PerBlock",
    "Progress",
    "minimize",
    "minimize_many",
    "value_and_grad",
]
