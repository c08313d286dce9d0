"""Reverse mode and truncated reverse mode."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.engine.dynamics import Dynamics
from tinybilevel.engine.reverse import Observer, backward, partial_sums, unobserved
from tinybilevel.engine.storage import Ring, Storage, require_storage
from tinybilevel.errors import ConvergenceWarning
from tinybilevel.methods.hypergradient import Hypergradient, pull_back
from tinybilevel.methods.series import Series
from tinybilevel.methods.trace import Unrolled
from tinybilevel.methods.truncation import Tolerance, as_tolerance, remainder
from tinybilevel.problem import BilevelProblem

__all__ = ["KRMD", "RMD"]


@dataclass(frozen=True)
class RMD(Unrolled):
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

    needs = ("step", "vjp", "initial_vjp")

    def __post_init__(self) -> None:
        require_storage(self.storage)

    def _evaluate(self, dynamics: Dynamics, observe: Observer = unobserved) -> Hypergradient:
        w, states = self.storage.run(dynamics, dynamics.T)
        w = w.copy()  # a storage may write over w_T once its iterator runs
        value, alpha, h = dynamics.upper(w)
        alpha, h, norms = backward(dynamics, states, alpha, h, dynamics.T, observe=observe)
        B_alpha = dynamics.initial_vjp(alpha)
        h = h + B_alpha
        observe(-1, None, None, h, B_alpha)
        return Hypergradient.at(dynamics, w, value, h, dynamics.T, norms)

    def truncations(self, problem: BilevelProblem, lam: Any = None) -> Iterator[Array]:
        """Yield what `KRMD` gives for K = 0, 1, …, T, and last the exact one, in one backward pass.

        The forward pass runs at once; each step backward only when it is asked for.

        Parameters
        ----------
        problem : BilevelProblem
            As for a call.
        lam : array_like (N,), optional
            By default the problem's `lam0`.

        Yields
        ------
        ndarray (N,)
            h_T, h_{T−1}, …, h_0, eq. (8), and h_{−1} = h_0 + B_0 α_0, each pulled back to λ: T + 2
            arrays. ``np.array(list(…))`` stacks them; where N is large, take them one by one.

        Raises
        ------
        TypeError, ValueError, DivergenceError
            As a call does.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> *truncated, exact = tb.RMD().truncations(tb.problems.toy(), [1.0, 1.0])
        >>> errors = [np.linalg.norm(h - exact) for h in truncated]
        >>> len(errors), f"{errors[5]:.3f}"
        (101, '10.722')
        """
        self.require(problem)
        with np.errstate(over="ignore", invalid="ignore"):
            dynamics = Dynamics(problem, problem.check(lam))
            w, states = self.storage.run(dynamics, dynamics.T)
            w = w.copy()
            _, alpha, h = dynamics.upper(w)
        sums = partial_sums(dynamics, states, alpha, h)

        def pulled() -> Iterator[Array]:
            for _ in range(dynamics.T + 2):
                with np.errstate(over="ignore", invalid="ignore"):
                    grad = pull_back(dynamics, w, next(sums))
                yield grad

        return pulled()

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        transitions, states = self.storage.cost(T, T)
        return transitions, T + 1, states


@dataclass(frozen=True)
class KRMD(Unrolled):
    """K-step truncated reverse mode, eq. (8): h_{T−K}, after K products with B.

    K = T returns h_0, which leaves out B_0 α_0; `RMD` does not. They agree where w_0 does not
    depend on λ.

    Parameters
    ----------
    K : int
        Backward steps, 0 … T. With `tol`, the most of them, for which the storage keeps room; by
        default T.
    storage : Storage
        `Ring` (the last K states), `Checkpoint` or `Binomial`.
    tol : float or Tolerance, optional
        Stop as soon as ‖h − d_λ f‖ is certified to be at most `tol`, absolute. The result says
        after how many steps, and the bound. For a number the constants of the certificate are
        measured (`tinybilevel.bounds.measure`) at every call, which costs many times the
        hypergradient and is not counted in its `cost`; a `Tolerance` brings them along. Above 100
        variables they hold with probability 0.999, and of momentum a stop comes after some
        dozens of steps at a time.
    tail : Neumann or ImplicitCG, optional
        Adds an approximation of what the K steps leave out, B_∞ Σ_{k≥K} A_∞ᵏ ∇_w f (end of
        Section 3.3): the series of α_{T−K}, linearised at the oldest state w_{T−K}.

    Raises
    ------
    TypeError, ValueError
        If K is not a count, or left out without `tol`; if `tol` is not above 0; if both `tol` and
        `tail` are given: a tail has no certificate.

    Warns
    -----
    ConvergenceWarning
        If K steps do not reach `tol`; the result then says ``converged=False``. As the tail warns.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> r = tb.KRMD(K=5)(tb.problems.toy(), [1.0, 1.0])
    >>> r.grad.round(6), len(r.alpha_norms)
    (array([4.542615, 2.50083 ]), 6)
    >>> r = tb.KRMD(tol=0.1)(tb.problems.toy(T=400), [1.0, 1.0])
    >>> r.K, f"{r.bound:.3f}"
    (106, '0.097')
    >>> tb.KRMD(K=5, tail=tb.ImplicitCG())(tb.problems.toy(T=400), [1.0, 1.0]).grad.round(6)
    array([11.092974, 11.092974])
    """

    sees_start = False

    K: int | None = None
    storage: Storage = field(default_factory=Ring)
    tol: float | Tolerance | None = field(default=None, kw_only=True)
    tail: Series | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.K is None and self.tol is None:
            raise TypeError("KRMD needs K, the number of backward steps, or a tol to stop at")
        if self.K is not None:
            object.__setattr__(self, "K", as_count("K", self.K))
        require_storage(self.storage)
        if self.tol is not None and not isinstance(self.tol, Tolerance):
            as_tolerance("tol", self.tol)
        if not isinstance(self.tail, Series | None):
            raise TypeError(f"tail must be Neumann(…) or ImplicitCG(…), got {self.tail!r}")
        if self.tol is not None and self.tail is not None:
            raise ValueError("give tol or tail, not both: a tail has no certificate")
        if getattr(self.tail, "constants", None) is not None:
            raise ValueError("constants bound ImplicitCG alone: as a tail it has no certificate")

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `Method`; K = 0 runs the lower level alone."""
        return ("step", "vjp") if self.K != 0 else ("step",)

    def require(self, problem: BilevelProblem) -> None:
        super().require(problem)
        if self.tail is not None:
            self.tail.require(problem)

    def __repr__(self) -> str:
        # Defaults are left out: this text is how a checkpoint knows the run that it belongs to.
        given = {name: getattr(self, name) for name in ("tol", "tail")}
        extra = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
        return f"KRMD(K={self.K!r}, storage={self.storage!r}{extra})"

    def _evaluate(self, dynamics: Dynamics, observe: Observer = unobserved) -> Hypergradient:
        K = self._steps(dynamics.T)
        rest = remainder(self.tol, dynamics.problem, dynamics.lam)
        w, states = self.storage.run(dynamics, K)
        w = oldest = w.copy()
        value, alpha, h = dynamics.upper(w)

        def watched() -> Iterator[tuple[int, Array]]:
            nonlocal oldest
            for pair in states:
                oldest = pair[1]
                yield pair

        enough = rest.enough if rest else None
        alpha, h, norms = backward(dynamics, watched(), alpha, h, K, enough, observe)
        t = dynamics.T + 1 - len(norms)
        solver: dict[str, Any] = {}
        if rest is not None:
            last = float(norms[-1])
            solver = {"bound": rest(t, last), "converged": rest.enough(t, last)}
            if not solver["converged"]:
                warnings.warn(
                    f"KRMD stopped after its {K} steps at a certified remainder of "
                    f"{solver['bound']:.1e}: tol = {rest.tol:.1e} is not met",
                    ConvergenceWarning,
                    stacklevel=5,
                )
        if self.tail is not None:
            h, _, _, residual, converged, _ = self.tail.add(dynamics, t, oldest, alpha, h)
            solver = {"residual": residual, "converged": converged}
        r = Hypergradient.at(dynamics, w, value, h, dynamics.T - t, norms, **solver)
        return r if self.tail is None else self.tail.at_minimum(r)

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        K = self._steps(T)
        transitions, states = self.storage.cost(T, K)
        tail = 0 if self.tail is None else self.tail._predict(T, M, N)[1]
        return transitions, K + tail, states

    def _exact(self, problem: BilevelProblem, lam: Array) -> Array | None:
        return RMD(self.storage).run(problem, lam).grad

    def _steps(self, T: int) -> int:
        if self.K is None:
            return T
        if self.K > T:
            raise ValueError(f"K must be at most the horizon T = {T}, got {self.K}")
        return self.K
