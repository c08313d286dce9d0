"""Whole loops in compiled code: an overlay that no other folder knows of."""

from tinybilevel.compiled.compile import compile
from tinybilevel.compiled.problem import CompiledProblem

__all__ = ["CompiledProblem", "compile"]
