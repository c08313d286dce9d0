"""What a method returns."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.arrays.checks import check_shape
from tinybilevel.engine.dynamics import Cost, Dynamics
from tinybilevel.problem import BilevelProblem

__all__ = ["Hypergradient", "pull_back"]


@dataclass(frozen=True, init=False, repr=False)
class Hypergradient:
    """What a method returns.

    Attributes
    ----------
    value : float
        f(ŵ*, λ).
    grad : ndarray (N,)
        The hypergradient, exact or approximate.
    w : ndarray (M,)
        ŵ* = w_T, the lower-level variable without its buffers.
    K : int
        Terms taken: backward steps of `KRMD` (T for the exact methods), terms of `Neumann`,
        iterations of `ImplicitCG`.
    alpha_norms : ndarray (K + 1,)
        ‖α_T‖, …, ‖α_{T−K}‖ where the method runs the backward recursion; empty elsewhere.
    cost : Cost
        What was run and held.
    residual : float
        Relative residual of the linear system of `ImplicitCG`; 0 elsewhere.
    converged : bool
        False where an iterative method stopped before its tolerance, its series grows, its system
        is not positive definite, or w_T is not the minimum that it takes it for.
    bound : float or None
        ‖grad − d_λ f‖ is at most this. By `KRMD(tol=…)` d_λ f is that of T steps; by
        ``ImplicitCG(constants=…)`` it is that of f(w*(λ), λ) at the minimum. None without.
    state : ndarray (M,) or None
        w_T with its buffers, where the transition has any: what `BilevelProblem.continuing` takes.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> r = tb.KRMD(K=20)(tb.problems.toy(), [1.0, 1.0])
    >>> r.grad.shape, r.w.shape, r.alpha_norms.shape, r.K
    ((2,), (2,), (21,), 20)
    """

    value: float
    grad: Array
    w: Array
    K: int
    alpha_norms: Array
    cost: Cost
    residual: float = 0.0
    converged: bool = True
    bound: float | None = None
    state: Array | None = None
    _lower: tuple[Any, Any] = field(default=(None, None), repr=False, compare=False)
    _restless: bool = field(default=False, repr=False, compare=False)  # see `Dynamics`

    def __init__(
        self,
        value: float,
        grad: Array,
        w: Array,
        K: int,
        alpha_norms: Array,
        cost: Cost,
        residual: float = 0.0,
        converged: bool = True,
        bound: float | None = None,
        state: Array | None = None,
        _lower: tuple[Any, Any] = (None, None),
        _restless: bool = False,
    ) -> None:
        # A frozen class sets its fields one by one, which takes longer than a small compiled loop.
        self.__dict__.update(
            value=value,
            grad=grad,
            w=w,
            K=K,
            alpha_norms=alpha_norms,
            cost=cost,
            residual=residual,
            converged=converged,
            bound=bound,
            state=state,
            _lower=_lower,
            _restless=_restless,
        )

    @property
    def lower_grad_norm(self) -> float | None:
        """‖∇_w g(w_T)‖ on the whole lower-level objective: how far w_T is from a minimum of it.

        None where the transition does not minimise one. It takes two gradients, which run when one
        of both properties is first asked for; the result holds the problem until then.
        """
        return self._lower_gradient()[0]

    @property
    def lower_grad_ratio(self) -> float | None:
        """‖∇_w g(w_T)‖ / ‖∇_w g(w_0)‖; None as `lower_grad_norm`."""
        return self._lower_gradient()[1]

    def _lower_gradient(self) -> tuple[Any, Any]:
        first, second = self._lower
        if isinstance(first, BilevelProblem):  # with the λ of the call
            self.__dict__["_lower"] = lower_gradient(first, second, self.w)
        return self._lower

    def __copy__(self) -> Hypergradient:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __getstate__(self) -> dict[str, Any]:
        self._lower_gradient()  # numbers travel, the data stay
        return dict(self.__dict__)

    def _rows(self) -> dict[str, str]:
        rows = {
            "value": f"{self.value:.6g}",
            "grad": _summary(self.grad),
            "w": _summary(self.w),
            "K": str(self.K),
        }
        if len(self.alpha_norms):
            first, last = self.alpha_norms[0], self.alpha_norms[-1]
            rows["alpha_norms"] = f"{first:.3g} … {last:.3g} {self.alpha_norms.shape}"
        if self.residual:
            rows["residual"] = f"{self.residual:.1e}"
        if self.bound is not None:
            rows["bound"] = f"{self.bound:.3g}"
        if not self.converged:
            rows["converged"] = "False"
        return rows

    def __repr__(self) -> str:
        return f"Hypergradient({', '.join(f'{k}={text}' for k, text in self._rows().items())})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self._rows().items()
        )
        return f"<table><caption>Hypergradient</caption>{rows}</table>"

    @classmethod
    def at(
        cls,
        dynamics: Dynamics,
        w: Array,
        value: float,
        h: Array,
        K: int,
        norms: Any = (),
        **solver: Any,
    ) -> Hypergradient:
        """Pull h back from θ to λ, and check that all of the result is finite."""
        grad = pull_back(dynamics, w, h, value)
        # Copies, so that a result does not keep a storage alive.
        state = w.copy() if dynamics.transition.n_buffers else None
        w = dynamics.transition.readout(w).copy()
        norms = to_numpy(norms).astype(float)
        lower = (dynamics.problem, dynamics.lam.copy())
        kept: dict[str, Any] = dict(state=state, _lower=lower, _restless=dynamics.restless)
        return cls(value, grad, w, K, norms, dynamics.cost(), **kept, **solver)


def lower_gradient(problem: BilevelProblem, lam: Array, w: Array) -> tuple[Any, Any]:
    """Return ‖∇_w g(w)‖, and that over ‖∇_w g(w_0)‖; None for both where there is no such g."""
    move = problem.transition
    if move.objective is None or not move.stationary_at_minimum:
        return None, None
    with np.errstate(over="ignore", invalid="ignore"):
        theta = problem.hyper_map(lam)
        start = move.readout(move.initial(theta))
        last, first = (float(np.linalg.norm(move.objective.grad(x, theta))) for x in (w, start))
    if first == 0:
        return last, 0.0 if last == 0 else float("inf")
    return last, last / first


def pull_back(dynamics: Dynamics, w: Array, h: Array, value: float = 0.0) -> Array:
    """Return h by λ, an array that is nobody else's; check that it, w_T and f are finite."""
    grad = dynamics.hyper_map.vjp(dynamics.lam, h)
    grad = check_shape("the vjp of hyper_map", grad, dynamics.lam.shape)
    dynamics.check(w, value, grad)
    return grad.copy()


def _summary(x: Array) -> str:
    """Return the entries of a short vector; the norm and the shape of a long one."""
    if x.size <= 4:
        return str(np.array2string(to_numpy(x), precision=4, separator=", "))
    return f"‖{float(np.linalg.norm(x)):.4g}‖ {x.shape} {x.dtype}"
