"""Reverse mode, truncated reverse mode and forward mode."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinybilevel.backend import as_count
from tinybilevel.dynamics import Dynamics
from tinybilevel.forward import forward
from tinybilevel.method import Hypergradient, Method
from tinybilevel.reverse import backward
from tinybilevel.storage import Ring, Storage

__all__ = ["FMD", "KRMD", "RMD"]


@dataclass(frozen=True)
class RMD(Method):
    """Full reverse mode, eq. (6): the exact hypergradient h_{−1} = h_0 + B_0 α_0.

    Parameters
    ----------
    storage : Storage
        Where the states come from: `Ring` (all of them kept), `Checkpoint` or `Binomial`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> r = tb.RMD()(tb.problems.toy(), [1.0, 1.0])
    >>> r.grad.round(6), r.K
    (array([11.092512, 10.989452]), 100)
    """

    storage: Storage = field(default_factory=Ring)

    def _evaluate(self, dynamics: Dynamics) -> Hypergradient:
        w, states = self.storage.run(dynamics, dynamics.T)
        w = w.copy()  # a storage may write over w_T once its iterator runs
        value, alpha, h = dynamics.upper(w)
        alpha, h, norms = backward(dynamics, states, alpha, h)
        h = h + dynamics.initial_vjp(alpha)
        return Hypergradient.at(dynamics, w, value, h, dynamics.T, norms)

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        transitions, states = self.storage.cost(T, T)
        return transitions, T + 1, states


@dataclass(frozen=True)
class KRMD(Method):
    """K-step truncated reverse mode, eq. (8): h_{T−K}, after K products with B.

    K = T returns h_0, which leaves out B_0 α_0; `RMD` does not. They agree where w_0 does not
    depend on λ.

    Parameters
    ----------
    K : int
        Backward steps, 0 … T.
    storage : Storage
        `Ring` (the last K states), `Checkpoint` or `Binomial`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> r = tb.KRMD(K=5)(tb.problems.toy(), [1.0, 1.0])
    >>> r.grad.round(6), len(r.alpha_norms)
    (array([4.542615, 2.50083 ]), 6)
    """

    K: int
    storage: Storage = field(default_factory=Ring)

    def __post_init__(self) -> None:
        as_count("K", self.K)

    def _evaluate(self, dynamics: Dynamics) -> Hypergradient:
        self._check(dynamics.T)
        w, states = self.storage.run(dynamics, self.K)
        w = w.copy()
        value, alpha, h = dynamics.upper(w)
        _, h, norms = backward(dynamics, states, alpha, h)
        return Hypergradient.at(dynamics, w, value, h, self.K, norms)

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        self._check(T)
        transitions, states = self.storage.cost(T, self.K)
        return transitions, self.K, states

    def _check(self, T: int) -> None:
        if self.K > T:
            raise ValueError(f"K must be at most the horizon T = {T}, got {self.K}")


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

    def _evaluate(self, dynamics: Dynamics) -> Hypergradient:
        w, Z = forward(dynamics)
        value, alpha, h = dynamics.upper(w)
        return Hypergradient.at(dynamics, w, value, h + Z @ alpha, dynamics.T)

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        return T, N * (T + 1), N + 2
