"""The constants of the theory, measured from the hand-written products along one trajectory."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_number
from tinybilevel.measure.remainder import Remainders
from tinybilevel.measure.walk import Numbers, Walk
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import GradientDescent

__all__ = ["Constants", "measure", "step_size"]


class Constants:
    """What the statements of Section 3 ask of a problem, measured at one λ along w_0 … w_T.

    Each is measured when it is first asked for, and kept. Nothing is known of g elsewhere, and the
    proofs of the bounds use it nowhere else. A number that an iteration found is rounded to the
    safe side by its error: `alpha` and `B_smallest` down, the others up.

    Attributes
    ----------
    gamma : float or None
        γ, where the transition is gradient descent on one g with one constant step size. Else
        None, and `alpha` and `beta` are empty.
    alpha, beta : ndarray (T + 1,)
        Smallest and largest eigenvalue of ∇²_ww g at w_0 … w_T; `beta` is the larger of that and
        of minus the smallest, the Lipschitz constant of ∇_w g there. Above 100 variables `alpha`
        is what `strong_convexity` knows of g in closed form, if that is above 0.
    A_norms : ndarray (T,)
        ‖A_1‖ … ‖A_T‖, spectral.
    B_norms, B_smallest : ndarray (T + 1,)
        Largest and smallest of the min(M, N) singular values of B_0 … B_T, by λ.
    rank : ndarray (T + 1,) of int, or None
        Rank of B_0 … B_T; None for a large problem, where only the ends of a spectrum are found.
    remainders : ndarray (T + 1,)
        S_0 … S_T: what h_t leaves out is at most S_t ‖α_t‖.
    shape : (int, int)
        N and M, the shape of B_t; M counts the whole state, buffers included.
    confidence : float or None
        As given to `measure`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> c = tb.bounds.measure(tb.problems.toy())
    >>> c.alpha.shape, float(c.alpha.min()), float(c.beta.max())
    ((101,), 0.5, 1.0)
    >>> c.A_norms.shape, c.words("A_norms")
    ((100,), 'certified, by exact spectra')
    >>> float(c.given(alpha=0.4).alpha.min())  # a constant of yours in place of the measured one
    0.4
    """

    def __init__(
        self, walk: Walk, gamma: float | None, shape: tuple[int, int], confidence: float | None
    ) -> None:
        self.gamma, self.shape, self.confidence = gamma, shape, confidence
        self._walk, self._found, self._given = walk, dict[str, Numbers](), dict[str, Numbers]()
        self._rest = Remainders(walk)

    def _get(self, name: str) -> Numbers:
        if name in self._given:
            return self._given[name]
        if name not in self._found:
            self._found.update(getattr(self._walk, _GROUPS[name])(self.gamma))
        return self._found[name]

    def check(self, problem: BilevelProblem, lam: Array) -> None:
        """Raise ValueError if these are constants of another problem, or of another λ."""
        if self._walk.T != problem.T or self._walk.transition is not problem.transition:
            raise ValueError("constants must be what measure returned for this very problem")
        if not np.array_equal(self._walk.lam, lam):
            raise ValueError("constants must be what measure returned at this lam, got another one")

    def given(self, **values: Any) -> Constants:
        """Return the same with the caller's numbers for `alpha`, `beta`, `A_norms` or others."""
        other = copy.copy(self)  # what is measured for one is measured for both
        other._given = dict(self._given)
        for name, value in values.items():
            if name not in _GROUPS:
                raise ValueError(f"a constant must be one of {', '.join(_GROUPS)}, got {name!r}")
            size = self._walk.T + (name != "A_norms")
            empty = self.gamma is None and name in ("alpha", "beta")
            known = np.broadcast_to(np.asarray(value, dtype=np.float64), 0 if empty else size)
            other._given[name] = Numbers(known, np.zeros(known.size), source="given")
        return other

    @property
    def T(self) -> int:
        """The horizon."""
        return self._walk.T

    @property
    def alpha(self) -> Array:
        return self._get("alpha").safe

    @property
    def beta(self) -> Array:
        return self._get("beta").safe

    @property
    def A_norms(self) -> Array:
        return self._get("A_norms").safe

    @property
    def B_norms(self) -> Array:
        return self._get("B_norms").safe

    @property
    def B_smallest(self) -> Array:
        return self._get("B_smallest").safe

    @property
    def rank(self) -> Array | None:
        return self._get("B_smallest").rank

    @property
    def remainders(self) -> Array:
        """S_0 … S_T; how they are found is in docs/statements.md.

        Gradient descent: S_t = ‖B_t‖ + ‖A_t‖ S_{t−1}. Other small problems: ‖R_t‖, R_t = B_t +
        R_{t−1} A_t, the operator itself. A large state with buffers, whose single A_t need not
        contract: by stretches of steps, infinity within one (see `remainder`).
        """
        if not self._together:
            S = [self.B_norms[0]]
            with np.errstate(over="ignore"):
                for A, B in zip(self.A_norms, self.B_norms[1:], strict=True):
                    S.append(B + A * S[-1])
            return np.array(S)
        return self._rest.all

    def remainder(self, t: int) -> float:
        """Return S_t, also within a stretch.

        Examples
        --------
        >>> import tinybilevel as tb
        >>> problem = tb.problems.toy()
        >>> c, r = tb.bounds.measure(problem), tb.KRMD(K=50)(problem)
        >>> print(f"left out: at most {c.remainder(problem.T - 50) * r.alpha_norms[-1]:.2f}")
        left out: at most 1.57
        """
        return self._rest.at(t) if self._together else float(self.remainders[t])

    @property
    def _together(self) -> bool:
        """Whether h's recursion is measured over many steps, and not step by step."""
        return self.gamma is None and (self._rest.small or self._walk.transition.n_buffers > 0)

    @property
    def remainder_words(self) -> str:
        """The status of S_t in words."""
        if not self._together:
            return self.words("A_norms", "B_norms")
        return self._words({"exact" if self._rest.small else "iteration"}, self._rest.error)

    @property
    def rate(self) -> float:
        """max_t ‖A_t‖; 0 for T = 0."""
        return float(self.A_norms.max(initial=0.0))

    @property
    def B_norm(self) -> float:
        """max_t ‖B_t‖, B_0 included."""
        return float(self.B_norms.max())

    @property
    def error(self) -> float:
        """The largest error of any number measured so far; 0 where all were exact, to rounding."""
        return max((float(n.errors.max(initial=0)) for n in self._found.values()), default=0.0)

    def unrounded(self, name: str) -> Array:
        """Return what the iteration found, before it was rounded to the safe side.

        A Ritz value is a value of the quadratic form: the smallest eigenvalue lies below it and
        the largest above, so that it can show that an assumption fails.
        """
        numbers = self._get(name)
        return numbers.safe + numbers.errors * (1 if name in ("alpha", "B_smallest") else -1)

    def bounds(self, name: str) -> bool:
        """Return whether a constant is a bound, and no estimate; see `words`."""
        return bool(self.confidence) or self._get(name).source != "iteration"

    def words(self, *names: str) -> str:
        """Say whether the numbers, asked for by name, are bounds ("certified") or "estimated".

        They are bounds where a spectrum is exact, a constant known in closed form or given by the
        caller, or where a `confidence` was asked for; with an iteration's residual they are not.
        """
        numbers = [self._get(name) for name in names]
        error = max((float(n.errors.max(initial=0)) for n in numbers), default=0.0)
        return self._words({n.source for n in numbers}, error)

    def _words(self, sources: set[str], error: float) -> str:
        given = " and the given constants" if "given" in sources else ""
        if "iteration" not in sources:
            return f"certified, by exact spectra{given}"
        if self.confidence:
            return (
                f"certified with probability {self.confidence:g} over the start of iterations"
                + (f", by {given[5:]}" if given else "")
            )
        return f"estimated, by iterations with residuals up to {error:.1e}{given}"

    def __repr__(self) -> str:
        (N, M), T = self.shape, self._walk.T
        known = self._found | self._given
        seen = [f"{name} {_range(n.safe)}" for name, n in known.items() if n.safe.size]
        text = "; ".join([f"N = {N}, M = {M}, T = {T}", f"γ = {self.gamma}", *seen])
        later = [name for name in _GROUPS if name not in known]
        return f"<Constants {text}" + (f"; not measured yet: {', '.join(later)}>" if later else ">")


_GROUPS = {
    "alpha": "curvature",
    "beta": "curvature",
    "A_norms": "A",
    "B_norms": "B",
    "B_smallest": "B_rank",
}


def _range(x: Array) -> str:
    low, high = float(x.min()), float(x.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} … {high:.3g}"


def measure(
    problem: BilevelProblem, lam: Any = None, *, seed: int = 0, confidence: float | None = None
) -> Constants:
    """Measure β, α, ‖A_t‖, ‖B_t‖ and the rank of B_t along the trajectory at one λ.

    Nothing is measured until it is asked for. Up to 100 variables a matrix is written out from its
    products and its spectrum is exact. Above, the ends of a spectrum are found from products alone
    by Lanczos' iteration; that needs the transition's `jvp`, and costs some dozens of products for
    each of the T steps.

    Parameters
    ----------
    problem : BilevelProblem
        Any; α and β are measured for gradient descent alone.
    lam : array_like (N,), optional
        Where; by default the problem's `lam0`.
    seed : int
        Of the start of the iterations.
    confidence : float, optional
        1 − δ, above 0 and below 1. Every number that an iteration finds is then a bound, and all
        of them hold together with at least this probability over `seed` (Kuczyński and
        Woźniakowski 1992; derived in docs/statements.md). By default they are estimates: a Lanczos
        value bounds the largest eigenvalue from below, and its residual says only that *some*
        eigenvalue is near. Where spectra are exact it changes nothing.

    Returns
    -------
    Constants

    Raises
    ------
    TypeError, ValueError
        If `lam` does not fit the problem, or the problem lies on a GPU.
    DivergenceError
        When a number is asked for, if the trajectory is not finite.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> c = tb.bounds.measure(tb.problems.toy())
    >>> c.gamma, c.rate, c.B_norm, c.shape
    (0.1, 0.95, 0.1, (2, 2))
    >>> c  # with all that has been measured by now
    <Constants N = 2, M = 2, T = 100; γ = 0.1; alpha 0.5; beta 1; A_norms 0.95; ...>
    """
    if problem.namespace != "numpy":
        raise TypeError('measure runs SciPy, on the host: take problem.to("numpy")')
    if confidence is not None and not 0 < as_number("confidence", confidence) < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    walk = Walk(problem, problem.check(lam), seed, None if confidence is None else 1 - confidence)
    gamma = step_size(problem, walk.theta)
    return Constants(walk, gamma, (walk.lam.size, walk.start().size), confidence)


def step_size(problem: BilevelProblem, theta: Array) -> float | None:
    """Return γ, if the transition is gradient descent on one g with one γ."""
    transition, T = problem.transition, problem.T
    if not isinstance(transition, GradientDescent) or transition.batches is not None:
        return None
    steps = np.concatenate([np.ravel(transition.step_size(t, theta)) for t in range(max(T, 1))])
    return float(steps[0]) if (steps == steps[0]).all() else None
