"""Forward mode."""

from __future__ import annotations

from dataclasses import dataclass

from tinybilevel.engine.dynamics import Dynamics
from tinybilevel.engine.forward import forward
from tinybilevel.methods.base import Method
from tinybilevel.methods.hypergradient import Hypergradient

__all__ = ["FMD"]


@dataclass(frozen=True)
class FMD(Method):
    """Forward mode, eq. (7): exact, N times the work of one pass, and no history of states.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> r = tb.FMD()(tb.problems.toy(), [1.0, 1.0])
    >>> r.grad.round(6)
    array([11.092512, 10.989452])
    """

    needs = ("step", "jvp", "initial_jvp")

    def _evaluate(self, dynamics: Dynamics) -> Hypergradient:
        w, Z = forward(dynamics)
        value, alpha, h = dynamics.upper(w)
        return Hypergradient.at(dynamics, w, value, h + Z @ alpha, dynamics.T)

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        return T, N * (T + 1), N + 2
