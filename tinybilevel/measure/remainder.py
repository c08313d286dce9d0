"""How much of h is still to come, S_t: the norm of its recursion over many steps at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.measure.spectra import DENSE, Value, singular_ends
from tinybilevel.measure.walk import Walk

__all__ = ["Remainders"]

#: Steps whose product with A is measured as one; twice as many where that does not contract.
_STRETCH, _LONGEST = 50, 400


class Remainders:
    """S_t ≥ ‖R_t‖, where R_t α_t = Σ_{s≤t} B_s A_{s+1} ⋯ A_t α_t is what h_t leaves out.

    R_t = B_t + R_{t−1} A_t. A single A_t of momentum does not contract, whatever the step size, but
    many together do; so R_t is written out where the state is small, and else bounded over
    stretches (s, t]: S_t = ‖R_{s,t}‖ + S_s ‖A_{s+1} ⋯ A_t‖, R_{s,t} the h of those steps alone.
    """

    def __init__(self, walk: Walk) -> None:
        self.walk, self.error = walk, 0.0
        self._extra: dict[int, float] = {}

    @property
    def small(self) -> bool:
        """Whether R_t is written out."""
        return self.walk.start().size <= DENSE

    @cached_property
    def all(self) -> Array:
        """S_0 … S_T; infinity within a stretch."""
        return self._written_out() if self.small else self._by_stretches()

    def at(self, t: int) -> float:
        """Return S_t, also within a stretch."""
        known = self.all[t]
        if np.isfinite(known) or self.small:
            return float(known)
        if t not in self._extra:
            s = int(np.flatnonzero(np.isfinite(self.all[:t]))[-1]) if t else 0
            states = [w for tau, w in self.walk.states() if s <= tau < t]
            self._extra[t] = self._over(s, states, float(self.all[s]))[0]
        return self._extra[t]

    def _written_out(self) -> Array:
        walk, S = self.walk, []
        theta, move = walk.theta, walk.transition
        units = np.eye(walk.start().size)
        R = np.array([self._pull(move.initial_vjp(theta, e)) for e in units]).T
        with np.errstate(over="ignore", invalid="ignore"):
            for t, w in walk.states():
                S.append(_norm(R))
                if t < walk.T:
                    A, B = zip(*(_copies(move.vjp(t, w, theta, e)) for e in units), strict=True)
                    R = np.array([self._pull(b) for b in B]).T + R @ np.array(A).T
        return np.array(S)

    def _by_stretches(self) -> Array:
        walk, T = self.walk, self.walk.T
        S = np.full(T + 1, np.inf)
        S[0] = self._initial()
        last, length, states = 0, _STRETCH, list[Array]()
        for t, w in walk.states():
            if t == T or t - last == length:
                if t > last:
                    S[t], contraction = self._over(last, states, float(S[last]))
                    length = min(2 * length, _LONGEST) if contraction > 0.5 else length
                last, states = t, []
            states.append(w)
        return S

    def _initial(self) -> float:
        walk = self.walk
        return self._norm_of(
            lambda alpha: self._pull(walk.transition.initial_vjp(walk.theta, alpha)),
            lambda dlam: walk.transition.initial_jvp(walk.theta, self._push(dlam)),
            walk.lam.size,
        )

    def _over(self, s: int, states: list[Array], S: float) -> tuple[float, float]:
        """Return S_t from S_s over the states w_s … w_{t−1}, and ‖A_{s+1} ⋯ A_t‖."""
        walk, theta, move = self.walk, self.walk.theta, self.walk.transition
        steps = list(enumerate(states, start=s))

        def back(alpha: Array) -> tuple[Array, Array]:
            h = np.zeros_like(theta)
            for tau, w in reversed(steps):
                alpha, B_alpha = move.vjp(tau, w, theta, alpha)
                h = h + B_alpha
            return alpha, h

        def along(dw: Array, dtheta: Array) -> Array:
            for tau, w in steps:
                dw = move.jvp(tau, w, theta, dw, dtheta)
            return dw

        M = states[0].size
        still_w, still = np.zeros(M), np.zeros_like(theta)
        contraction = self._norm_of(lambda a: back(a)[0], lambda dw: along(dw, still), M)
        own = self._norm_of(
            lambda a: self._pull(back(a)[1]),
            lambda dlam: along(still_w, self._push(dlam)),
            walk.lam.size,
        )
        return own + S * contraction, contraction

    def _norm_of(
        self,
        product: Callable[[Array], Array],
        adjoint: Callable[[Array], Array],
        rows: int,
    ) -> float:
        walk = self.walk
        found: Value = singular_ends(
            product,
            adjoint,
            (rows, walk.start().size),
            seed=walk.seed,
            delta=walk.delta,
            low=False,
            rtol=0.2,
        ).high
        self.error = max(self.error, found.error)
        return found.value + found.error

    def _pull(self, h: Array) -> Array:
        return self.walk.hyper_map.vjp(self.walk.lam, h)

    def _push(self, dlam: Array) -> Array:
        return self.walk.hyper_map.jvp(self.walk.lam, dlam)


def _copies(pair: tuple[Array, Array]) -> tuple[Array, Array]:
    return pair[0].copy(), pair[1].copy()


def _norm(R: Array) -> float:
    """Return the spectral norm of an N × M matrix, M small, by its Gram matrix."""
    scale = float(np.abs(R).max(initial=0.0))
    if not np.isfinite(scale):
        return float("inf")
    if scale == 0:
        return 0.0
    R = R / scale
    return scale * float(np.linalg.eigvalsh(R.T @ R)[-1]) ** 0.5
