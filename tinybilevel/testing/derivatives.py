"""Checkers for objectives, transitions and hyperparameter maps."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_float
from tinybilevel.maps import HyperMap
from tinybilevel.objectives import Objective
from tinybilevel.testing.checks import direction
from tinybilevel.testing.findings import Findings
from tinybilevel.transitions import Transition

__all__ = [
    "assert_map_adjoints",
    "assert_objective_derivatives",
    "assert_transition_adjoints",
    "assert_upper_gradients",
]


def assert_upper_gradients(f: Objective, w: Any, lam: Any, *, seed: int = 0) -> Findings:
    """Check an upper-level objective: ∇_w f and ∇_λ f against its values.

    Parameters
    ----------
    f : Objective
        Needs `value`, `grad` and, where f depends on λ, `grad_lam`.
    w, lam : array_like (M,), (N,)
        Where to check; cast to float64.
    seed : int
        Seed of the random directions.

    Returns
    -------
    Findings
        A dict of str to float: Taylor slopes ``grad_slope`` and ``grad_lam_slope``, 2, or infinity
        where f is affine.

    Raises
    ------
    AssertionError
        If a slope is below 1.9.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> f = tb.Objective.from_functions(value=lambda w, lam: w @ w, grad=lambda w, lam: 2 * w)
    >>> slopes = tb.testing.assert_upper_gradients(f, np.array([0.3, -0.8]), np.array([0.5]))
    >>> round(slopes["grad_slope"], 1)
    2.0
    """
    w, lam = _point(w, lam)
    rng = np.random.default_rng(seed)
    dw, dlam = direction(rng, w), direction(rng, lam)
    along_w, along_lam = float(f.grad(w, lam) @ dw), float(f.grad_lam(w, lam) @ dlam)
    scale = abs(f.value(w, lam)) + abs(along_w) + abs(along_lam)
    found = Findings(type(f).__name__)
    for key, along, product, by in (
        ("grad_slope", lambda h: f.value(w + h * dw, lam), along_w, "grad"),
        ("grad_lam_slope", lambda h: f.value(w, lam + h * dlam), along_lam, "grad_lam"),
    ):
        found.slope(key, 2, along, product, scale=scale, what="value", by=by)
    found.require_slopes(2)
    return found


def assert_objective_derivatives(
    g: Objective, w: Any, lam: Any, *, seed: int = 0, tol: float = 1e-12
) -> Findings:
    """Check a lower-level objective: its gradient and both products of the gradient map.

    What is not written out is not checked, and the result says so in `unchecked`: reverse mode
    never calls `grad_jvp`, forward mode alone does. Without it `grad_vjp` is held against
    differences of `grad`, to fewer digits.

    Parameters
    ----------
    g : Objective
        Needs `grad`, and `grad_vjp` or `grad_jvp`.
    w, lam : array_like (M,), (N,)
        Where to check; cast to float64.
    seed : int
        Seed of the random directions.
    tol : float
        Largest relative error of the dot tests.

    Returns
    -------
    Findings
        A dict of str to float. ``symmetry``: of the Hessian; ``hessian`` and ``mixed``: `grad_jvp`
        against `grad_vjp`, all three relative errors; ``grad_slope``: values against `grad` (2);
        ``grad_jvp_slope``: gradients against `grad_jvp` (2), or without it ``grad_vjp_slope`` and
        ``mixed_slope``: gradients against each half of `grad_vjp` (2); ``hessian_slope``: values
        against `grad` and a Hessian product (3).

    Raises
    ------
    AssertionError
        If an error is above `tol`, or a slope more than 0.1 below what it must be; it names the
        product, the two numbers that should be equal, and a likely cause.
    TypeError
        If neither product is written out: there is nothing to check.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> reverse_only = tb.Objective.from_functions(
    ...     value=lambda w, lam: 0.5 * ((w - lam) ** 2).sum(),
    ...     grad=lambda w, lam: w - lam,
    ...     grad_vjp=lambda w, lam, v: (v, -v),
    ... )
    >>> found = tb.testing.assert_objective_derivatives(reverse_only, [0.3, 2.0], [1.1, -0.7])
    >>> found.unchecked
    ('grad_jvp is not written out: FMD cannot run, nor a measurement of more than 100 variables',)
    """
    w, lam = _point(w, lam)
    rng = np.random.default_rng(seed)
    v, u, dlam = direction(rng, w), direction(rng, w), direction(rng, lam)
    has = {p: g.lacking(p) is None for p in ("value", "grad_vjp", "grad_jvp")}
    found = Findings(type(g).__name__, tol)
    found.unchecked = tuple(f"{p} is not written out: {_NEEDED[p]}" for p in has if not has[p])
    if not has["grad_vjp"] and not has["grad_jvp"]:
        raise TypeError(f"{type(g).__name__} has neither grad_vjp nor grad_jvp to check")
    none_w, none_lam = np.zeros_like(w), np.zeros_like(lam)
    grad = g.grad(w, lam)
    if has["grad_vjp"]:
        (Hv, Mv), (Hu, _) = g.grad_vjp(w, lam, v), g.grad_vjp(w, lam, u)
        back = "grad_vjp[0]"
        found.dot("symmetry", (f"{back} of u", f"{back} of v"), Hu, v, u, Hv)
    else:
        Hu = g.grad_jvp(w, lam, u, none_lam)
    if has["grad_vjp"] and has["grad_jvp"]:
        Ju, Jlam = g.grad_jvp(w, lam, u, none_lam), g.grad_jvp(w, lam, none_w, dlam)
        found.dot("hessian", ("grad_jvp(dw, 0)", "grad_vjp[0]"), Ju, v, u, Hv)
        found.dot("mixed", ("grad_jvp(0, dlam)", "grad_vjp[1]"), Jlam, v, dlam, Mv)
    found.require_dots()
    value = g.value(w, lam) if has["value"] else 0.0
    slope, curvature = float(grad @ u), float(u @ Hu)
    scale = abs(value) + abs(slope) + abs(curvature)
    if has["value"]:
        found.slope(
            "grad_slope",
            2,
            lambda h: g.value(w + h * u, lam),
            slope,
            scale=scale,
            what="value",
            by="grad",
        )
    if has["grad_jvp"]:
        both = g.grad_jvp(w, lam, u, dlam)
        found.slope(
            "grad_jvp_slope",
            2,
            lambda h: g.grad(w + h * u, lam + h * dlam),
            both,
            scale=float(np.linalg.norm(grad) + np.linalg.norm(both)),
            what="grad",
            by="grad_jvp",
        )
    else:
        found.slope(
            "grad_vjp_slope",
            2,
            lambda h: g.grad(w + h * u, lam),
            Hu,
            scale=float(np.linalg.norm(grad) + np.linalg.norm(Hu)),
            what="grad along w",
            by="grad_vjp[0]",
        )
        found.slope(
            "mixed_slope",
            2,
            lambda h: float(g.grad(w, lam + h * dlam) @ v),
            float(Mv @ dlam),
            scale=abs(float(grad @ v)) + abs(float(Mv @ dlam)),
            what="grad along λ",
            by="grad_vjp[1]",
        )
    found.require_slopes(2)
    if has["value"]:
        found.slope(
            "hessian_slope",
            3,
            lambda h: g.value(w + h * u, lam),
            slope,
            scale=scale,
            what="value, twice",
            by="grad_vjp[0]" if has["grad_vjp"] else "grad_jvp",
            curvature=curvature,
        )
    found.require_slopes(3)
    return found


_NEEDED = {
    "value": "grad was not held against it",
    "grad_vjp": "reverse mode and ImplicitCG cannot run",
    "grad_jvp": "FMD cannot run, nor a measurement of more than 100 variables",
    "vjp": "reverse mode cannot run",
    "jvp": "FMD cannot run, nor a measurement of more than 100 variables",
}


def assert_transition_adjoints(
    transition: Transition,
    w: Any,
    lam: Any,
    *,
    t: int = 0,
    seed: int = 0,
    tol: float = 1e-12,
) -> Findings:
    """Check a transition at one step, and Ξ_0: `vjp` against `jvp`, `jvp` against `step`.

    What is not written out is not checked, and the result says so in `unchecked`. Without `jvp`,
    which reverse mode never calls, `vjp` is held against differences of `step`, to fewer digits.

    Parameters
    ----------
    transition : Transition
        Needs `step`, and `vjp` or `jvp`.
    w, lam : array_like (M,), (N,)
        State w_t, buffers included, and θ; cast to float64. For Adam, take second moments of
        order 1: the random directions must not make them negative.
    t : int
        The step.
    seed : int
        Seed of the random directions.
    tol : float
        Largest relative error of the dot tests.

    Returns
    -------
    Findings
        A dict of str to float. ``A``, ``B``, ``B0`` and ``readout``: relative errors of the dot
        tests, apart so that a small B does not hide behind a large A; ``step_slope`` and
        ``initial_slope``: Taylor slopes (2); without `jvp`, ``A_slope`` and ``B_slope`` instead.

    Raises
    ------
    AssertionError
        If an error is above `tol` or a slope below 1.9; it names the product, the two numbers that
        should be equal, and a likely cause.
    TypeError
        If neither product is written out: there is nothing to check.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy()
    >>> errors = tb.testing.assert_transition_adjoints(problem.transition, [2.0, 2.0], [1.0, 1.0])
    >>> errors["A"] < 1e-12
    True
    """
    w, lam = _point(w, lam)
    rng = np.random.default_rng(seed)
    dw, dlam, alpha = direction(rng, w), direction(rng, lam), direction(rng, w)
    has = {p: transition.lacking(p) is None for p in ("vjp", "jvp")}
    name = type(transition).__name__
    if not any(has.values()):
        raise TypeError(f"{name} has neither vjp nor jvp to check")
    w0 = transition.initial(lam)
    if w0.shape != w.shape:
        raise ValueError(
            f"w must be a whole state, its buffers included, of {w0.size} entries as `initial` of "
            f"{name} gives it ({1 + transition.n_buffers} times what is given as `initial`, the "
            f"variable alone), got {w.size} entries"
        )
    found = Findings(name, tol)
    found.unchecked = tuple(f"{p} is not written out: {_NEEDED[p]}" for p in has if not has[p])
    none_w, none_lam = np.zeros_like(w), np.zeros_like(lam)
    if has["vjp"]:
        A_alpha, B_alpha = transition.vjp(t, w, lam, alpha)
    if all(has.values()):
        along_w = transition.jvp(t, w, lam, dw, none_lam)
        along_lam = transition.jvp(t, w, lam, none_w, dlam)
        found.dot("A", ("jvp(dw, 0)", "vjp[0]"), along_w, alpha, dw, A_alpha)
        found.dot("B", ("jvp(0, dlam)", "vjp[1]"), along_lam, alpha, dlam, B_alpha)
    dw0 = transition.initial_jvp(lam, dlam)
    alpha0, x = direction(rng, w0), transition.readout(w)
    alpha_x = direction(rng, x)
    B0_alpha = transition.initial_vjp(lam, alpha0)
    found.dot("B0", ("initial_jvp", "initial_vjp"), dw0, alpha0, dlam, B0_alpha)
    dx, back = transition.readout(dw), transition.readout_vjp(alpha_x)
    found.dot("readout", ("readout", "readout_vjp"), dx, alpha_x, dw, back)
    found.require_dots()
    stepped = transition.step(t, w, lam).copy()
    if has["jvp"]:
        both = transition.jvp(t, w, lam, dw, dlam)
        found.slope(
            "step_slope",
            2,
            lambda h: transition.step(t, w + h * dw, lam + h * dlam),
            both,
            scale=float(np.linalg.norm(stepped) + np.linalg.norm(both)),
            what="step",
            by="jvp",
        )
    else:
        for key, move_w, move_lam, said in (
            ("A_slope", dw, none_lam, float(A_alpha @ dw)),
            ("B_slope", none_w, dlam, float(B_alpha @ dlam)),
        ):
            found.slope(
                key,
                2,
                partial(_stepped, transition, t, (w, move_w), (lam, move_lam), alpha),
                said,
                scale=abs(float(stepped @ alpha)) + abs(said),
                what=f"step along {'w' if key == 'A_slope' else 'λ'}",
                by="vjp[0]" if key == "A_slope" else "vjp[1]",
            )
    found.slope(
        "initial_slope",
        2,
        lambda h: transition.initial(lam + h * dlam),
        dw0,
        scale=float(np.linalg.norm(w0) + np.linalg.norm(dw0)),
        what="initial",
        by="initial_jvp",
    )
    found.require_slopes(2)
    return found


def assert_map_adjoints(
    hyper_map: HyperMap, lam: Any, *, seed: int = 0, tol: float = 1e-12
) -> Findings:
    """Check a hyperparameter map: `vjp` against `jvp`, and `jvp` against the map.

    Parameters
    ----------
    hyper_map : HyperMap
        Φ.
    lam : array_like (N,)
        Where to check; cast to float64.
    seed : int
        Seed of the random directions.
    tol : float
        Largest relative error of the dot test.

    Returns
    -------
    Findings
        A dict of str to float. ``vjp``: relative error of the dot test; ``jvp_slope``: Taylor slope
        (2); without `jvp`, ``vjp_slope`` instead, and `unchecked` says so.

    Raises
    ------
    AssertionError
        If the error is above `tol` or the slope below 1.9.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> found = tb.testing.assert_map_adjoints(tb.Exp(), [-1.0, 0.0, 1.0])
    >>> found["vjp"] < 1e-12, round(found["jvp_slope"], 1)
    (True, 2.0)
    """
    _, lam = _point([], lam)
    rng = np.random.default_rng(seed)
    name = type(hyper_map).__name__
    has = {p: hyper_map.lacking(p) is None for p in ("vjp", "jvp")}
    if not any(has.values()):
        raise TypeError(f"{name} has neither vjp nor jvp to check")
    found = Findings(name, tol)
    found.unchecked = tuple(f"{p} is not written out: {_NEEDED[p]}" for p in has if not has[p])
    theta, dlam = hyper_map(lam), direction(rng, lam)
    h_theta = direction(rng, theta)
    if has["jvp"]:
        dtheta = hyper_map.jvp(lam, dlam)
    if has["vjp"]:
        pulled = hyper_map.vjp(lam, h_theta)
    if all(has.values()):
        found.dot("vjp", ("jvp", "vjp"), dtheta, h_theta, dlam, pulled)
    found.require_dots()
    if has["jvp"]:
        found.slope(
            "jvp_slope",
            2,
            lambda s: hyper_map(lam + s * dlam),
            dtheta,
            scale=float(np.linalg.norm(theta) + np.linalg.norm(dtheta)),
            what="the map",
            by="jvp",
        )
    else:
        said = float(pulled @ dlam)
        found.slope(
            "vjp_slope",
            2,
            lambda s: float(hyper_map(lam + s * dlam) @ h_theta),
            said,
            scale=abs(float(theta @ h_theta)) + abs(said),
            what="the map",
            by="vjp",
        )
    found.require_slopes(2)
    return found


def _stepped(
    transition: Transition,
    t: int,
    w: tuple[Array, Array],
    lam: tuple[Array, Array],
    alpha: Array,
    h: float,
) -> float:
    return float(transition.step(t, w[0] + h * w[1], lam[0] + h * lam[1]) @ alpha)


def _point(w: Any, lam: Any) -> tuple[Array, Array]:
    w, lam = (
        as_float(name, np.array(x, dtype=np.float64), ndim=1)
        for name, x in (("w", w), ("lam", lam))
    )
    w.flags.writeable = lam.flags.writeable = False
    return w, lam
