"""The constants of the theory, measured from the hand-written products along one trajectory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.measure.spectra import Ends, Value, eigenvalue_ends, singular_ends
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import GradientDescent

__all__ = ["Constants", "measure", "step_size"]


@dataclass(frozen=True)
class Constants:
    """What the statements of Section 3 ask of a problem, measured at one λ along w_0 … w_T.

    Nothing is known of g elsewhere, and the proofs of the bounds use it nowhere else.

    Attributes
    ----------
    gamma : float or None
        γ, where the transition is gradient descent on one g with one constant step size. Else
        None, and `alpha` and `beta` are empty.
    alpha, beta : ndarray (T + 1,)
        Smallest and largest eigenvalue of ∇²_ww g at w_0 … w_T; `beta` is the larger of that and
        of minus the smallest, the Lipschitz constant of ∇_w g there.
    A_norms : ndarray (T,)
        ‖A_1‖ … ‖A_T‖, spectral.
    B_norms, B_smallest : ndarray (T + 1,)
        Largest and smallest of the min(M, N) singular values of B_0 … B_T, by λ.
    rank : ndarray (T + 1,) of int, or None
        Rank of B_0 … B_T; None for a large problem, where only the ends of a spectrum are found.
    shape : (int, int)
        N and M, the shape of B_t.
    error : float
        The largest error of any of these numbers: 0 where all were computed exactly, to rounding;
        the residual of the iteration for a large problem.
    """

    gamma: float | None
    alpha: Array
    beta: Array
    A_norms: Array
    B_norms: Array
    B_smallest: Array
    rank: Array | None
    shape: tuple[int, int]
    error: float

    @property
    def rate(self) -> float:
        """max_t ‖A_t‖; 0 for T = 0."""
        return float(self.A_norms.max(initial=0.0))

    @property
    def B_norm(self) -> float:
        """max_t ‖B_t‖, B_0 included."""
        return float(self.B_norms.max())

    @property
    def remainders(self) -> Array:
        """S_0 … S_T, (T + 1,): what h_t leaves out is at most S_t ‖α_t‖.

        It is Σ_{s≤t} B_s A_{s+1} ⋯ A_t α_t, so S_t = ‖B_t‖ + ‖A_t‖ S_{t−1}, norms rounded up by
        `error`.
        """
        A, B = self.A_norms + self.error, self.B_norms + self.error
        S = [B[0]]
        with np.errstate(over="ignore"):
            for A_t, B_t in zip(A, B[1:], strict=True):
                S.append(B_t + A_t * S[-1])
        return np.array(S)


def measure(problem: BilevelProblem, lam: Any = None, *, seed: int = 0) -> Constants:
    """Measure β, α, ‖A_t‖, ‖B_t‖ and the rank of B_t along the trajectory at one λ.

    Up to 100 variables a matrix is written out from its products and its spectrum is exact. Above,
    the ends of a spectrum are found from products alone by SciPy's Lanczos iteration; that needs
    the transition's `jvp`, and costs some dozens of products for each of the T steps.

    Parameters
    ----------
    problem : BilevelProblem
        Any; α and β are measured for gradient descent alone.
    lam : array_like (N,), optional
        Where; by default the problem's `lam0`.
    seed : int
        Of the start of the iterations.

    Returns
    -------
    Constants

    Raises
    ------
    TypeError, ValueError
        If `lam` does not fit the problem, or the problem lies on a GPU.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> c = tb.bounds.measure(tb.problems.toy())
    >>> c.gamma, c.rate, c.B_norm, c.shape
    (0.1, 0.95, 0.1, (2, 2))
    """
    if problem.namespace != "numpy":
        raise TypeError('measure runs SciPy, on the host: take problem.to("numpy")')
    walk = _Walk(problem, problem.check(lam), seed)
    w = walk.transition.initial(walk.theta).astype(np.float64)
    gamma = step_size(problem, walk.theta)
    curvature: list[Ends] = []
    A: list[Value] = []
    B = [walk.initial(w)]
    for t in range(problem.T):
        if gamma is None:
            A.append(walk.A(t, w).high)
        else:
            curvature.append(walk.curvature(w))
            A.append(_contraction(gamma, curvature[-1]))
        B.append(walk.B(t, w))
        w = walk.transition.step(t, w, walk.theta)
    if gamma is not None:
        curvature.append(walk.curvature(w))
    ranks = [b.rank for b in B]
    low = np.array([c.low.value for c in curvature])
    return Constants(
        gamma=gamma,
        alpha=low,
        beta=np.maximum(np.array([c.high.value for c in curvature]), -low),
        A_norms=np.array([a.value for a in A]),
        B_norms=np.array([b.high.value for b in B]),
        B_smallest=np.array([b.low.value for b in B]),
        rank=None if None in ranks else np.array(ranks),
        shape=(walk.lam.size, w.size),
        error=max(v.error for v in [*A, *(end for c in curvature + B for end in c[:2])]),
    )


def _contraction(gamma: float, curvature: Ends) -> Value:
    """Return ‖I − γH‖ from the ends of the spectrum of H."""
    sizes = [abs(1 - gamma * end.value) for end in curvature[:2]]
    return Value(max(sizes), gamma * max(end.error for end in curvature[:2]))


class _Walk:
    """A problem at one λ, in float64: what is measured at each state on the way."""

    def __init__(self, problem: BilevelProblem, lam: Array, seed: int) -> None:
        self.lam, self.hyper_map, self.seed = lam.astype(np.float64), problem.hyper_map, seed
        self.theta, self.transition = problem.hyper_map(self.lam), problem.transition

    def curvature(self, w: Array) -> Ends:
        """Return the ends of the spectrum of ∇²_ww g."""
        g = self.transition.objective
        assert g is not None
        return eigenvalue_ends(lambda v: g.grad_vjp(w, self.theta, v)[0], w.size, seed=self.seed)

    def initial(self, w: Array) -> Ends:
        """Return the ends of the singular values of B_0."""
        return self._singular(
            w.size,
            lambda alpha: self.transition.initial_vjp(self.theta, alpha),
            lambda dtheta: self.transition.initial_jvp(self.theta, dtheta),
        )

    def A(self, t: int, w: Array) -> Ends:
        still = np.zeros_like(self.theta)
        return singular_ends(
            lambda alpha: self.transition.vjp(t, w, self.theta, alpha)[0],
            lambda dw: self.transition.jvp(t, w, self.theta, dw, still),
            (w.size, w.size),
            seed=self.seed,
        )

    def B(self, t: int, w: Array) -> Ends:
        still = np.zeros_like(w)
        return self._singular(
            w.size,
            lambda alpha: self.transition.vjp(t, w, self.theta, alpha)[1],
            lambda dtheta: self.transition.jvp(t, w, self.theta, still, dtheta),
        )

    def _singular(
        self, M: int, product: Callable[[Array], Array], adjoint: Callable[[Array], Array]
    ) -> Ends:
        return singular_ends(
            lambda alpha: self.hyper_map.vjp(self.lam, product(alpha)),
            lambda dlam: adjoint(self.hyper_map.jvp(self.lam, dlam)),
            (self.lam.size, M),
            seed=self.seed,
        )


def step_size(problem: BilevelProblem, theta: Array) -> float | None:
    """Return γ, if the transition is gradient descent on one g with one γ."""
    transition, T = problem.transition, problem.T
    if not isinstance(transition, GradientDescent) or transition.batches is not None:
        return None
    steps = np.concatenate([np.ravel(transition.step_size(t, theta)) for t in range(max(T, 1))])
    return float(steps[0]) if (steps == steps[0]).all() else None
