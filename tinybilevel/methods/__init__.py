"""Methods: frozen values that are called with a problem and λ, and return a hypergradient."""

from tinybilevel.methods.base import Method
from tinybilevel.methods.forward import FMD
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.methods.implicit import ImplicitCG
from tinybilevel.methods.series import Neumann
from tinybilevel.methods.smoothness import Smoothness
from tinybilevel.methods.trace import Trace
from tinybilevel.methods.truncation import Tolerance
from tinybilevel.methods.unrolled import KRMD, RMD

__all__ = [
    "FMD",
    "KRMD",
    "RMD",
    "Hypergradient",
    "ImplicitCG",
    "Method",
    "Neumann",
    "Smoothness",
    "Tolerance",
    "Trace",
]
