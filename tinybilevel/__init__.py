"""Bilevel optimization by truncated back-propagation, with every derivative written by hand.

After Shaban, Cheng, Hatch and Boots, *Truncated Back-propagation for Bilevel Optimization*,
AISTATS 2019.
"""

from tinybilevel import bounds, data, problems, testing
from tinybilevel.compiled import CompiledProblem, compile
from tinybilevel.engine import Binomial, Checkpoint, Cost, Ring, Storage
from tinybilevel.errors import (
    ConvergenceWarning,
    DerivativeWarning,
    DivergenceError,
    StabilityWarning,
    TruncationWarning,
)
from tinybilevel.maps import (
    Affine,
    Blocks,
    Compose,
    Exp,
    HyperMap,
    Identity,
    Layout,
    Sigmoid,
    Softplus,
)
from tinybilevel.methods import (
    FMD,
    KRMD,
    RMD,
    Hypergradient,
    ImplicitCG,
    Method,
    Neumann,
    Tolerance,
)
from tinybilevel.objectives import (
    L2Penalty,
    LeastSquares,
    LinearLoss,
    LogisticRegression,
    Objective,
    Quadratic,
    SoftmaxRegression,
)
from tinybilevel.outer import (
    SGD,
    Adam,
    Optimizer,
    OptimizeResult,
    Progress,
    minimize,
    value_and_grad,
)
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import (
    AdamTransition,
    FreshMinibatches,
    GradientDescent,
    HeavyBall,
    Learned,
    Nesterov,
    PerEntry,
    PerStep,
    ProximalGradient,
    Transition,
    minibatches,
)

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
    "CompiledProblem",
    "Compose",
    "ConvergenceWarning",
    "Cost",
    "DerivativeWarning",
    "DivergenceError",
    "Exp",
    "FreshMinibatches",
    "GradientDescent",
    "HeavyBall",
    "HyperMap",
    "Hypergradient",
    "Identity",
    "ImplicitCG",
    "L2Penalty",
    "Layout",
    "Learned",
    "LeastSquares",
    "LinearLoss",
    "LogisticRegression",
    "Method",
    "Nesterov",
    "Neumann",
    "Objective",
    "OptimizeResult",
    "Optimizer",
    "PerEntry",
    "PerStep",
    "Progress",
    "ProximalGradient",
    "Quadratic",
    "Ring",
    "Sigmoid",
    "SoftmaxRegression",
    "Softplus",
    "StabilityWarning",
    "Storage",
    "Tolerance",
    "Transition",
    "TruncationWarning",
    "bounds",
    "compile",
    "data",
    "minibatches",
    "minimize",
    "problems",
    "testing",
    "value_and_grad",
]
