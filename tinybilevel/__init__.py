"""Bilevel optimization by truncated back-propagation, with every derivative written by hand.

After Shaban, Cheng, Hatch and Boots, *Truncated Back-propagation for Bilevel Optimization*,
AISTATS 2019.
"""

from tinybilevel import bounds, data, problems, testing
from tinybilevel.compiled import compile
from tinybilevel.dynamics import Cost
from tinybilevel.errors import ConvergenceWarning, DivergenceError
from tinybilevel.implicit import ImplicitCG, Neumann
from tinybilevel.layout import Blocks, Layout
from tinybilevel.maps import Affine, Compose, Exp, HyperMap, Identity, Sigmoid, Softplus
from tinybilevel.method import Hypergradient, Method, value_and_grad
from tinybilevel.methods import FMD, KRMD, RMD
from tinybilevel.minimize import OptimizeResult, Progress, minimize
from tinybilevel.objectives import L2Penalty, Objective, Quadratic, SoftmaxRegression
from tinybilevel.optimizers import SGD, Adam, Optimizer
from tinybilevel.problem import BilevelProblem
from tinybilevel.storage import Binomial, Checkpoint, Ring, Storage
from tinybilevel.transitions import (
    AdamTransition,
    GradientDescent,
    HeavyBall,
    Learned,
    Nesterov,
    ProximalGradient,
    Transition,
    minibatches,
)
from tinybilevel.truncation import Tolerance

__version__ = "0.1.0"

__all__ = [
    "FMD",
    "KRMD",
    "RMD",
    "SGD",
    "Adam",
    "AdamTransition",
    "Affine",
    "BilevelProblem",
    "Binomial",
    "Blocks",
    "Checkpoint",
    "Compose",
    "ConvergenceWarning",
    "Cost",
    "DivergenceError",
    "Exp",
    "GradientDescent",
    "HeavyBall",
    "HyperMap",
    "Hypergradient",
    "Identity",
    "ImplicitCG",
    "L2Penalty",
    "Layout",
    "Learned",
    "Method",
    "Nesterov",
    "Neumann",
    "Objective",
    "OptimizeResult",
    "Optimizer",
    "Progress",
    "ProximalGradient",
    "Quadratic",
    "Ring",
    "Sigmoid",
    "SoftmaxRegression",
    "Softplus",
    "Storage",
    "Tolerance",
    "Transition",
    "bounds",
    "compile",
    "data",
    "minibatches",
    "minimize",
    "problems",
    "testing",
    "value_and_grad",
]
