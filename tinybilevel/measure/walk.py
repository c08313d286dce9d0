"""A walk along w_0 … w_T that measures, at each state or over stretches of them, one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.engine.dynamics import Dynamics
from tinybilevel.measure.convexity import strong_convexity
from tinybilevel.measure.spectra import DENSE, Ends, Value, eigenvalue_ends, singular_ends
from tinybilevel.objectives import Objective
from tinybilevel.problem import BilevelProblem

__all__ = ["Numbers", "Walk"]

#: Steps whose product with A is measured as one, where no single A_t need contract.
_STRETCH = 50


@dataclass(frozen=True)
class Numbers:
    """One constant at each state, rounded to the safe side by its errors, and where it is from."""

    safe: Array
    errors: Array
    source: str  # "exact", "iteration" or "given"
    rank: Array | None = None

    @classmethod
    def lower(cls, values: list[Value], exact: bool, rank: Array | None = None) -> Numbers:
        return cls._of(values, -1, exact, rank)

    @classmethod
    def upper(cls, values: list[Value], exact: bool) -> Numbers:
        return cls._of(values, 1, exact, None)

    @classmethod
    def _of(cls, values: list[Value], side: int, exact: bool, rank: Array | None) -> Numbers:
        table = np.array(values, dtype=np.float64).reshape(-1, 2)
        source = "exact" if exact else "iteration"
        return cls(table[:, 0] + side * table[:, 1], table[:, 1], source, rank)


class Walk:
    """A problem at one λ, in float64."""

    def __init__(self, problem: BilevelProblem, lam: Array, seed: int, delta: float | None) -> None:
        self.problem, self.T, self.seed = problem, problem.T, seed
        self.lam, self.hyper_map = lam.astype(np.float64), problem.hyper_map
        self.theta, self.transition = problem.hyper_map(self.lam), problem.transition
        # At most seven numbers a state are measured, each by a run that looks at two ends.
        self.delta = None if delta is None else delta / (16 * (self.T + 1))

    def start(self) -> Array:
        return self.transition.initial(self.theta).astype(np.float64)

    def states(self) -> Iterator[tuple[int, Array]]:
        """Yield (t, w_t) for t = 0 … T."""
        w = self.start()
        for t in range(self.T + 1):
            with np.errstate(over="ignore", invalid="ignore"):
                if not np.isfinite(w).all():
                    Dynamics(self.problem, self.lam).check(w)  # raises, and says why
            yield t, w
            if t < self.T:
                with np.errstate(over="ignore", invalid="ignore"):
                    w = self.transition.step(t, w, self.theta).copy()

    def curvature(self, gamma: float | None) -> dict[str, Numbers]:
        """Measure α and β, and with them ‖I − γH‖."""
        if gamma is None:
            none = Numbers.upper([], True)
            return {"alpha": none, "beta": none}
        g, theta = self.transition.objective, self.theta
        assert g is not None
        known = strong_convexity(g, theta) or 0.0
        lows, highs, norms = [], [], []
        for t, w in self.states():
            ends = eigenvalue_ends(
                partial(_hessian, g, w, theta),
                w.size,
                seed=self.seed,
                delta=self.delta,
                low=known <= 0,
            )
            low = ends.low
            if ends.rank is None and known > low.value - low.error:
                low = Value(known)
            lows.append(low)
            highs.append(max(ends.high, Value(-low.value, low.error), key=sum))
            if t < self.T:
                norms.append(_contraction(gamma, low, ends.high))
        small = w.size <= DENSE
        only_known = all(low.error == 0 for low in lows)
        return {
            "alpha": Numbers.lower(lows, small or only_known),
            "beta": Numbers.upper(highs, small),
            "A_norms": Numbers.upper(norms, small),
        }

    def A(self, gamma: float | None) -> dict[str, Numbers]:
        """Measure ‖A_1‖ … ‖A_T‖."""
        if gamma is not None:
            return self.curvature(gamma)
        found = [self._A(t, w) for t, w in self.states() if t < self.T]
        return {"A_norms": Numbers.upper(found, self.start().size <= DENSE)}

    def B(self, gamma: float | None) -> dict[str, Numbers]:
        """Measure ‖B_0‖ … ‖B_T‖; of small ones all singular values are at hand."""
        if self._small:
            return self.B_rank(gamma)
        return {"B_norms": Numbers.upper([e.high for e in self._every_B(low=False)], False)}

    def B_rank(self, gamma: float | None) -> dict[str, Numbers]:
        """Measure the least singular values of B_0 … B_T, and their ranks."""
        ends = self._every_B(high=False)
        rank = np.array([e.rank for e in ends]) if self._small else None
        found = {"B_smallest": Numbers.lower([e.low for e in ends], self._small, rank)}
        if self._small:
            found["B_norms"] = Numbers.upper([e.high for e in ends], True)
        return found

    @property
    def _small(self) -> bool:
        return min(self.lam.size, self.start().size) <= DENSE

    def _A(self, t: int, w: Array) -> Value:
        still = np.zeros_like(self.theta)
        return singular_ends(
            lambda alpha: self.transition.vjp(t, w, self.theta, alpha)[0],
            lambda dw: self.transition.jvp(t, w, self.theta, dw, still),
            (w.size, w.size),
            seed=self.seed,
            delta=self.delta,
            low=False,
        ).high

    def _every_B(self, low: bool = True, high: bool = True) -> list[Ends]:
        theta, found = self.theta, []
        w0 = self.start()
        still = np.zeros_like(w0)

        def ends(product: Callable[[Array], Array], adjoint: Callable[[Array], Array]) -> Ends:
            return singular_ends(
                lambda alpha: self.hyper_map.vjp(self.lam, product(alpha)),
                lambda dlam: adjoint(self.hyper_map.jvp(self.lam, dlam)),
                (self.lam.size, w0.size),
                seed=self.seed,
                delta=self.delta,
                low=low,
                high=high,
            )

        move = self.transition
        found.append(
            ends(
                lambda alpha: move.initial_vjp(theta, alpha),
                lambda dtheta: move.initial_jvp(theta, dtheta),
            )
        )
        for t, w in self.states():
            if t < self.T:
                back = partial(move.vjp, t, w, theta)
                found.append(ends(partial(_second, back), partial(move.jvp, t, w, theta, still)))
        return found


def _hessian(g: Objective, w: Array, theta: Array, v: Array) -> Array:
    return g.grad_vjp(w, theta, v)[0]


def _second(pair: Callable[[Array], tuple[Array, Array]], alpha: Array) -> Array:
    return pair(alpha)[1]


def _contraction(gamma: float, low: Value, high: Value) -> Value:
    """Return ‖I − γH‖ from the ends of the spectrum of H."""
    sizes = [abs(1 - gamma * end.value) for end in (low, high)]
    return Value(max(sizes), gamma * max(low.error, high.error))
