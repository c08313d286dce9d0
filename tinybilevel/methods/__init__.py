"""Methods: frozen values that are called with a problem and λ, and return a hypergradient."""

from tinybilevel.methods.base import Hypergradient, Method
from tinybilevel.methods.implicit import ImplicitCG, Neumann
from tinybilevel.methods.truncation import Tolerance
from tinybilevel.methods.unrolled import FMD, KRMD, RMD

__all__ = ["FMD", "KRMD", "RMD", "Hypergradient", "ImplicitCG", "Method", "Neumann", "Tolerance"]
