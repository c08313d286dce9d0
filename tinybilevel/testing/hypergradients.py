"""Checkers for hypergradients: between methods, by differences, by the dense chain rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.methods.base import Method
from tinybilevel.methods.unrolled import KRMD
from tinybilevel.problem import BilevelProblem
from tinybilevel.testing.checks import direction, require

__all__ = [
    "assert_matches_differences",
    "assert_methods_agree",
    "dense_hypergradient",
    "relative_error",
]


def relative_error(a: Array, b: Array) -> float:
    """Return ‖a − b‖ / max(‖a‖, ‖b‖).

    Parameters
    ----------
    a, b : array_like (n,)
        Two vectors, or arrays of any one shape.

    Returns
    -------
    float
        0 for two zeros; infinity where the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> round(tb.testing.relative_error(np.array([3.0, 4.0]), np.array([3.0, 3.5])), 3)
    0.1
    >>> tb.testing.relative_error(np.ones(2), np.ones(3))
    inf
    """
    if np.shape(a) != np.shape(b):
        return float("inf")
    scale = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    error = float(np.linalg.norm(a - b))
    return error / scale if scale else error  # max(0, NaN) is 0: a NaN must come through


def assert_methods_agree(
    problem: BilevelProblem, lam: Any, methods: Sequence[Method], *, tol: float = 1e-12
) -> list[float]:
    """Check that methods return the same value, state and hypergradient as the first of them.

    Parameters
    ----------
    problem : BilevelProblem
        The problem.
    lam : array_like (N,)
        Where to check.
    methods : sequence of Method
        At least two.
    tol : float
        Largest relative error.

    Returns
    -------
    list of float
        Relative error of the hypergradient of each method after the first.

    Raises
    ------
    AssertionError
        If one disagrees by more than `tol`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> methods = [tb.RMD(), tb.FMD(), tb.RMD(tb.Checkpoint())]
    >>> errors = tb.testing.assert_methods_agree(tb.problems.toy(), [1.0, 1.0], methods)
    >>> max(errors) < 1e-12
    True
    """
    if len(methods) < 2:
        raise ValueError(f"methods must hold at least two to compare, got {len(methods)}")
    first, *others = [method(problem, lam) for method in methods]
    errors = []
    for method, r in zip(methods[1:], others, strict=True):
        compared = {
            "value": (np.array([first.value]), np.array([r.value])),
            "w": (first.w, r.w),
            "grad": (first.grad, r.grad),
        }
        bad = {k: e for k, (a, b) in compared.items() if not (e := relative_error(a, b)) <= tol}
        require(not bad, f"{method} and {methods[0]} disagree by {bad}, tolerance {tol}")
        errors.append(relative_error(first.grad, r.grad))
    return errors


def assert_matches_differences(
    problem: BilevelProblem,
    lam: Any,
    method: Method,
    *,
    directions: int = 3,
    seed: int = 0,
    step: float = 1e-3,
    tol: float = 1e-7,
) -> float:
    """Check an exact method's hypergradient against central differences of the value.

    Parameters
    ----------
    problem : BilevelProblem
        The problem, in float64.
    lam : array_like (N,)
        Where to check.
    method : Method
        An exact one.
    directions : int
        Random dense directions to check along.
    seed : int
        Their seed.
    step : float
        Step of the differences, which are of fourth order.
    tol : float
        Largest error relative to the hypergradient's norm.

    Returns
    -------
    float
        The largest error found.

    Raises
    ------
    AssertionError
        If it is above `tol`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.testing.assert_matches_differences(tb.problems.toy(), [1.0, 1.0], tb.RMD()) < 1e-6
    True
    """
    lam = problem.check(lam).astype(np.float64)
    rng = np.random.default_rng(seed)
    grad = method(problem, lam).grad
    norm = float(np.linalg.norm(grad))

    def value(shift: Array) -> float:
        return KRMD(K=0)(problem, lam + shift).value

    errors = [0.0]
    for _ in range(directions):
        d = direction(rng, lam)
        d = d / np.linalg.norm(d)
        near = (value(step * d) - value(-step * d)) / (2 * step)
        far = (value(2 * step * d) - value(-2 * step * d)) / (4 * step)
        difference = (4 * near - far) / 3
        errors.append(abs(difference - float(grad @ d)) / (norm or 1.0))
    worst = float(np.max(errors))  # unlike max, keeps a NaN
    require(
        worst <= tol,
        f"{method}: {worst:.1e} off central differences relative to its norm, tolerance {tol}",
    )
    return worst


def dense_hypergradient(problem: BilevelProblem, lam: Any, K: int | None = None) -> Array:
    """Compute eq. (5), or with `K` its partial sum eq. (8), by multiplying out dense Jacobians.

    An independent route for small problems: A_t and B_t are built row by row from `jvp`, so that no
    line of it is shared with the backward pass.

    Parameters
    ----------
    problem : BilevelProblem
        A small one.
    lam : array_like (N,)
        Where.
    K : int, optional
        Terms of eq. (8), 0 … T. The default is all of them and B_0's.

    Returns
    -------
    ndarray (N,)

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy()
    >>> dense = tb.testing.dense_hypergradient(problem, [1.0, 1.0])
    >>> tb.testing.relative_error(tb.RMD()(problem, [1.0, 1.0]).grad, dense) < 1e-12
    True
    """
    lam = problem.check(lam)
    T, transition, theta = problem.T, problem.transition, problem.hyper_map(lam)
    K_terms = T if K is None else as_count("K", K)
    if K_terms > T:
        raise ValueError(f"K must be at most the horizon T = {T}, got {K}")
    w = transition.initial(theta)
    rows_w, rows_theta = np.eye(w.size, dtype=w.dtype), np.eye(theta.size, dtype=theta.dtype)
    no_w, no_theta = np.zeros_like(w), np.zeros_like(theta)
    B = [np.array([transition.initial_jvp(theta, d) for d in rows_theta])]
    A: list[Array] = []
    for t in range(T):
        A.append(np.array([transition.jvp(t, w, theta, d, no_theta) for d in rows_w]))
        B.append(np.array([transition.jvp(t, w, theta, no_w, d) for d in rows_theta]))
        w = transition.step(t, w, theta)
    x = transition.readout(w)
    vector = transition.readout_vjp(problem.upper.grad(x, theta))
    h = problem.upper.grad_lam(x, theta).astype(vector.dtype)
    for t in range(T, T - K_terms, -1):
        h = h + B[t] @ vector
        vector = A[t - 1] @ vector
    if K is None:
        h = h + B[0] @ vector
    pull = np.array([problem.hyper_map.jvp(lam, d) for d in np.eye(lam.size, dtype=lam.dtype)])
    return pull @ h
