"""Checkers for objectives, transitions and hyperparameter maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, as_float
from tinybilevel.maps import HyperMap
from tinybilevel.objectives import Objective
from tinybilevel.testing.checks import direction, dot_error, require, taylor_slope
from tinybilevel.transitions import Transition

__all__ = [
    "assert_map_adjoints",
    "assert_objective_derivatives",
    "assert_transition_adjoints",
    "assert_upper_gradients",
]


def assert_upper_gradients(f: Objective, w: Any, lam: Any, *, seed: int = 0) -> dict[str, float]:
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
    dict of str to float
        Taylor slopes ``grad_slope`` and ``grad_lam_slope``: 2, or infinity where f is affine.

    Raises
    ------
    AssertionError
        If a slope is below 1.9.
    """
    w, lam = _point(w, lam)
    rng = np.random.default_rng(seed)
    dw, dlam = direction(rng, w), direction(rng, lam)
    at = f.value(w, lam)
    scale = abs(at) + abs(float(f.grad(w, lam) @ dw)) + abs(float(f.grad_lam(w, lam) @ dlam))
    found = {
        "grad_slope": taylor_slope(
            lambda h: f.value(w + h * dw, lam) - at - h * (f.grad(w, lam) @ dw), scale
        ),
        "grad_lam_slope": taylor_slope(
            lambda h: f.value(w, lam + h * dlam) - at - h * (f.grad_lam(w, lam) @ dlam), scale
        ),
    }
    _require_slopes(type(f).__name__, found, 2)
    return found


def assert_objective_derivatives(
    g: Objective, w: Any, lam: Any, *, seed: int = 0, tol: float = 1e-12
) -> dict[str, float]:
    """Check a lower-level objective: its gradient and both products of the gradient map.

    Parameters
    ----------
    g : Objective
        Needs `value`, `grad`, `grad_vjp` and `grad_jvp`.
    w, lam : array_like (M,), (N,)
        Where to check; cast to float64.
    seed : int
        Seed of the random directions.
    tol : float
        Largest relative error of the dot tests.

    Returns
    -------
    dict of str to float
        ``symmetry``: of the Hessian; ``hessian`` and ``mixed``: `grad_jvp` against `grad_vjp`, both
        relative errors; ``grad_slope``: values against `grad` (2); ``grad_jvp_slope``: gradients
        against `grad_jvp` (2); ``hessian_slope``: values against both (3).

    Raises
    ------
    AssertionError
        If an error is above `tol`, or a slope more than 0.1 below what it must be.
    """
    w, lam = _point(w, lam)
    rng = np.random.default_rng(seed)
    name, v, u, dlam = type(g).__name__, direction(rng, w), direction(rng, w), direction(rng, lam)
    Hv, Mv = g.grad_vjp(w, lam, v)
    Hu, _ = g.grad_vjp(w, lam, u)
    none_w, none_lam = np.zeros_like(w), np.zeros_like(lam)
    mixed = g.grad_jvp(w, lam, none_w, dlam)
    errors = {
        "symmetry": dot_error(Hu, v, u, Hv),
        "hessian": dot_error(g.grad_jvp(w, lam, u, none_lam), v, u, Hv),
        "mixed": dot_error(mixed, v, dlam, Mv),
    }
    _require_errors(name, errors, tol)
    value, grad = g.value(w, lam), g.grad(w, lam)
    slope, curvature = float(grad @ u), float(u @ Hu)
    both = g.grad_jvp(w, lam, u, dlam)
    scale = abs(value) + abs(slope) + abs(curvature)
    size = float(np.linalg.norm(grad) + np.linalg.norm(both))
    slopes = {
        "grad_slope": taylor_slope(lambda h: g.value(w + h * u, lam) - value - h * slope, scale),
        "grad_jvp_slope": taylor_slope(
            lambda h: g.grad(w + h * u, lam + h * dlam) - grad - h * both, size
        ),
    }
    _require_slopes(name, slopes, 2)
    third = {
        "hessian_slope": taylor_slope(
            lambda h: g.value(w + h * u, lam) - value - h * slope - h * h / 2 * curvature, scale
        )
    }
    _require_slopes(name, third, 3)
    return errors | slopes | third


def assert_transition_adjoints(
    transition: Transition,
    w: Any,
    lam: Any,
    *,
    t: int = 0,
    seed: int = 0,
    tol: float = 1e-12,
) -> dict[str, float]:
    """Check a transition at one step, and Ξ_0: `vjp` against `jvp`, `jvp` against `step`.

    Parameters
    ----------
    transition : Transition
        Needs `step`, `vjp` and `jvp`.
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
    dict of str to float
        ``A``, ``B``, ``B0`` and ``readout``: relative errors of the dot tests, apart so that a
        small B does not hide behind a large A; ``step_slope`` and ``initial_slope``: Taylor
        slopes (2).

    Raises
    ------
    AssertionError
        If an error is above `tol` or a slope below 1.9, or `step` does not fill `out`.

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
    A_alpha, B_alpha = transition.vjp(t, w, lam, alpha)
    along_w = transition.jvp(t, w, lam, dw, np.zeros_like(lam))
    along_lam = transition.jvp(t, w, lam, np.zeros_like(w), dlam)
    w0, dw0 = transition.initial(lam), transition.initial_jvp(lam, dlam)
    alpha0, alpha_x = direction(rng, w0), direction(rng, transition.readout(w))
    errors = {
        "A": dot_error(along_w, alpha, dw, A_alpha),
        "B": dot_error(along_lam, alpha, dlam, B_alpha),
        "B0": dot_error(dw0, alpha0, dlam, transition.initial_vjp(lam, alpha0)),
        "readout": dot_error(transition.readout(dw), alpha_x, dw, transition.readout_vjp(alpha_x)),
    }
    name = type(transition).__name__
    _require_errors(name, errors, tol)
    stepped = transition.step(t, w, lam).copy()
    both = transition.jvp(t, w, lam, dw, dlam)
    slopes = {
        "step_slope": taylor_slope(
            lambda h: transition.step(t, w + h * dw, lam + h * dlam) - stepped - h * both,
            float(np.linalg.norm(stepped) + np.linalg.norm(both)),
        ),
        "initial_slope": taylor_slope(
            lambda h: transition.initial(lam + h * dlam) - w0 - h * dw0,
            float(np.linalg.norm(w0) + np.linalg.norm(dw0)),
        ),
    }
    _require_slopes(name, slopes, 2)
    return errors | slopes


def assert_map_adjoints(
    hyper_map: HyperMap, lam: Any, *, seed: int = 0, tol: float = 1e-12
) -> dict[str, float]:
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
    dict of str to float
        ``vjp``: relative error of the dot test; ``jvp_slope``: Taylor slope (2).

    Raises
    ------
    AssertionError
        If the error is above `tol` or the slope below 1.9.
    """
    _, lam = _point([], lam)
    rng = np.random.default_rng(seed)
    theta, dlam = hyper_map(lam), direction(rng, lam)
    dtheta, h = hyper_map.jvp(lam, dlam), direction(rng, theta)
    errors = {"vjp": dot_error(dtheta, h, dlam, hyper_map.vjp(lam, h))}
    name = type(hyper_map).__name__
    _require_errors(name, errors, tol)
    slopes = {
        "jvp_slope": taylor_slope(
            lambda s: hyper_map(lam + s * dlam) - theta - s * dtheta,
            float(np.linalg.norm(theta) + np.linalg.norm(dtheta)),
        )
    }
    _require_slopes(name, slopes, 2)
    return errors | slopes


def _point(w: Any, lam: Any) -> tuple[Array, Array]:
    w, lam = (
        as_float(name, np.array(x, dtype=np.float64), ndim=1)
        for name, x in (("w", w), ("lam", lam))
    )
    w.flags.writeable = lam.flags.writeable = False
    return w, lam


def _require_errors(name: str, errors: dict[str, float], tol: float) -> None:
    bad = {key: error for key, error in errors.items() if not error <= tol}
    require(not bad, f"{name}: adjoint and forward product disagree by {bad}, tolerance {tol}")


def _require_slopes(name: str, slopes: dict[str, float], order: int) -> None:
    bad = {key: round(slope, 3) for key, slope in slopes.items() if not slope >= order - 0.1}
    require(not bad, f"{name}: Taylor slopes {bad}, expected {order}")
