"""A problem at one λ: its transition bound to θ, counted and watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, bound, dot, promote
from tinybilevel.arrays.checks import as_float, check_pair, check_shape
from tinybilevel.engine.stability import stability
from tinybilevel.errors import DivergenceError
from tinybilevel.problem import BilevelProblem

__all__ = ["Cost", "Dynamics"]


@dataclass(frozen=True)
class Cost:
    """What one hypergradient takes: the row of the paper's Table 1, counted.

    Attributes
    ----------
    transitions : int
        Evaluations of Ξ.
    products : int
        Products with A and B (one vjp, jvp or Hessian pass each).
    bytes : int
        Bytes of the states, and in forward mode of Z, that are held at the peak.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy()  # M = 2 numbers of 8 bytes, T = 100
    >>> tb.RMD().cost(problem)
    Cost(transitions=100, products=101, bytes=1616)
    >>> tb.KRMD(K=5).cost(problem)
    Cost(transitions=100, products=5, bytes=96)
    """

    transitions: int
    products: int
    bytes: int


class Dynamics:
    """A problem's transition at one θ; it counts what is run, so that a `Cost` can be reported."""

    def __init__(self, problem: BilevelProblem, lam: Array) -> None:
        self.problem, self.transition, self.T = problem, problem.transition.bound(), problem.T
        self.hyper_map, self._upper = bound(problem.hyper_map), bound(problem.upper)
        # Before the map, so that a float32 λ does not cost float64 data their precision.
        dtype = promote(lam, self.transition.dtype, problem.upper.dtype)
        self.lam = lam.astype(dtype, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            theta = self.hyper_map(self.lam)
        self.theta = as_float("hyper_map(lam)", theta, ndim=1, finite=False)
        if not bool(np.isfinite(self.theta).all()):
            raise self._diverged(
                f"θ is not finite: {problem.hyper_map.blame(self.lam)}; keep λ within bounds", None
            )
        w0 = self.transition.initial(self.theta)
        self.w0 = w0.astype(promote(w0, self.theta), copy=False)
        self.transitions = self.products = self.bytes = 0
        self._moves: list[Array] = []  # see _watch

    def step(self, t: int, w: Array, out: Array) -> Array:
        self.transitions += 1
        out[...] = check_shape("step", self.transition.step(t, w, self.theta), out.shape)
        if self.T > 2 and t in (0, self.T - 2, self.T - 1) and len(self._moves) < 3:
            self._watch(out - w)
        return out

    def _watch(self, move: Array) -> None:
        """Gather ‖m_1‖², m_{T−1} · m_T and ‖m_T‖² of the moves m_t = w_t − w_{t−1}, once."""
        move = self.transition.readout(move)
        if len(self._moves) == 2:
            self._moves = [self._moves[0], dot(move, self._moves[1]), dot(move, move)]
        else:
            self._moves.append(move if self._moves else dot(move, move))

    @property
    def restless(self) -> bool:
        """Whether the last step goes back on the one before it, and is no shorter than the first.

        That is how an iteration looks whose step size is too large. It costs no gradient to see.
        """
        if len(self._moves) < 3:
            return False
        first, turn, last = self._moves
        return bool((turn < 0) & (last > first))

    def advance(self, w: Array, start: int, stop: int, work: Array) -> Array:
        """Return w_stop from w = w_start, by turns in the two rows of `work`."""
        for t in range(start, stop):
            w = self.step(t, w, out=work[t % 2])
        return w

    def vjp(self, t: int, w: Array, alpha: Array) -> tuple[Array, Array]:
        self.products += 1
        result = self.transition.vjp(t, w, self.theta, alpha)
        return check_pair("vjp", result, w.shape, self.theta.shape)

    def initial_vjp(self, alpha: Array) -> Array:
        self.products += 1
        result = self.transition.initial_vjp(self.theta, alpha)
        return check_shape("initial_vjp", result, self.theta.shape)

    def jvp(self, t: int, w: Array, dw: Array, dtheta: Array) -> Array:
        self.products += 1
        return check_shape("jvp", self.transition.jvp(t, w, self.theta, dw, dtheta), w.shape)

    def initial_jvp(self, dtheta: Array) -> Array:
        self.products += 1
        result = self.transition.initial_jvp(self.theta, dtheta)
        return check_shape("initial_jvp", result, self.w0.shape)

    def upper(self, w: Array) -> tuple[float, Array, Array]:
        """Return f, α_T = ∇_w f over the whole state, and h_T = ∇_θ f, at the readout of w_T."""
        x = self.transition.readout(w)
        value, grad, h = self._upper.value_with_grads(x, self.theta)
        grad = check_shape("grad of upper", grad, x.shape)
        if grad.dtype.kind != "f":  # a constant one may be of whole numbers
            grad = grad.astype(promote(grad, x))
        h = check_shape("grad_lam of upper", h, self.theta.shape)
        return float(value), self.transition.readout_vjp(grad), h

    def empty(self, count: int) -> Array:
        """Allocate `count` rows of a state's size, and count their bytes."""
        rows = np.empty_like(self.w0, shape=(count, self.w0.size))
        self.bytes += rows.nbytes
        return rows

    def cost(self) -> Cost:
        return Cost(self.transitions, self.products, self.bytes)

    def check(self, w: Array, *results: Any) -> None:
        """Raise a DivergenceError if w_T or a result of the upper level is not finite."""
        if all(bool(np.isfinite(x).all()) for x in (w, *results)):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            t, norm = self._first_divergence()
        if not np.isfinite(self.w0).all():
            t, norm, message = None, float("nan"), "the initial state w_0 is not finite"
        elif t is None:
            message = (
                f"all states are finite (‖w_T‖ = {norm:.3g}), the upper level or a product is not"
            )
            if norm > 1e6 * max(1, _norm(self.w0)):
                message += self._cause(0, "")
        else:
            message = (
                f"the state w_{t + 1} after step t={t} is not finite (norm of the last finite "
                f"state: {norm:.3g})" + self._cause(t, "; the lower-level iteration diverges")
            )
        raise self._diverged(message, t, norm)

    def _diverged(self, message: str, t: int | None, norm: float = float("nan")) -> DivergenceError:
        error = DivergenceError(message, t=t, norm=norm)
        error.lam = self.lam.copy()
        return error

    def _first_divergence(self) -> tuple[int | None, float]:
        # Only a run that failed is paid for twice; the inner loop stays free of checks.
        w, norm = self.w0, _norm(self.w0)
        for t in range(self.T):
            w = self.transition.step(t, w, self.theta)
            if not np.isfinite(w).all():
                return t, norm
            norm = _norm(w)
        return None, norm

    def _cause(self, t: int, otherwise: str) -> str:
        w = self.transition.readout(self.w0)
        with np.errstate(over="ignore", invalid="ignore"):
            found = stability(self.problem.transition, self.theta, t, w, "w_0")
        if found is None or found.stable:
            return otherwise
        if found.limit == 0:
            return "; likely cause: curvature beyond all numbers, as lam is too large"
        return f"; likely cause: {found}"


def _norm(w: Array) -> float:
    """‖w‖ without squaring what is about to overflow."""
    scale = float(np.abs(w).max()) if w.size else 0.0
    return scale * float(np.linalg.norm(w / scale)) if scale else 0.0
