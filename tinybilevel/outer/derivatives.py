"""A cheap look at a user's own derivatives before a run trusts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, like
from tinybilevel.objectives import Objective
from tinybilevel.objectives.base import FunctionObjective, OnBlock, Sum
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions.base import FunctionTransition

__all__ = ["wrong_derivatives"]

Function = Callable[[Array], Any]


def wrong_derivatives(
    problem: BilevelProblem, lam: Array, w: Array, *, forward: bool = False
) -> list[str]:
    """Compare a user's own products with differences along one seeded direction each.

    What the package brings is not looked at. The products are A α and B α of a transition, the
    Hessian and mixed products of a lower objective, the gradients of an upper one, and the vjp of
    a map and of Ξ_0: five evaluations and one product for each. A function that is not smooth
    along the direction, or not defined there, is passed over: `tinybilevel.testing` says more.

    Parameters
    ----------
    problem : BilevelProblem
        What to look at.
    lam : ndarray (N,)
        Hyperparameters.
    w : ndarray (M,)
        A lower-level variable; ŵ* is generic, where w_0 often is not.
    forward : bool
        Look at the jvps instead, where forward mode needs them.

    Returns
    -------
    list of str
        One sentence for each product that is wrong by more than a hundredth.
    """
    rng = np.random.default_rng(0)
    found: list[str] = []
    with np.errstate(all="ignore"):
        for name, x, f, product in _products(problem, lam, w, forward):
            try:
                difference = _check(rng, x, f, product, forward)
            except (TypeError, ValueError, ArithmeticError):
                continue  # not defined here; what is missing altogether, the method names
            if difference is not None:
                found.append(f"{name} {difference}")
    return found


def _products(
    problem: BilevelProblem, lam: Array, w: Array, forward: bool
) -> Iterator[tuple[str, Array, Function, Callable[[Array], Array]]]:
    """Yield name, x, f and the product to check: df·v for v → vjp, or dx for x → jvp."""
    move, phi, t = problem.transition, problem.hyper_map, max(problem.T - 1, 0)
    theta = phi(lam)
    none_w, none_lam = np.zeros_like(w), np.zeros_like(theta)
    kind = "jvp" if forward else "vjp"
    if _own(phi):
        pull = (lambda d: phi.jvp(lam, d)) if forward else (lambda a: phi.vjp(lam, a))
        yield f"the {kind} of {type(phi).__name__}", lam, phi, pull
    if problem.T and _own(move) and move.n_buffers == 0:
        name = f"{kind} of {type(move).__name__}, by"
        if forward:
            yield (
                f"{name} w,",
                w,
                lambda x: move.step(t, x, theta),
                lambda d: move.jvp(t, w, theta, d, none_lam),
            )
            yield (
                f"{name} lam,",
                theta,
                lambda x: move.step(t, w, x),
                lambda d: move.jvp(t, w, theta, none_w, d),
            )
        else:
            yield (
                f"{name} w (A alpha),",
                w,
                lambda x: move.step(t, x, theta),
                lambda a: move.vjp(t, w, theta, a)[0],
            )
            yield (
                f"{name} lam (B alpha),",
                theta,
                lambda x: move.step(t, w, x),
                lambda a: move.vjp(t, w, theta, a)[1],
            )
    if (_own(move) or move._initial._functions) and not forward:
        yield (
            "the vjp of initial",
            theta,
            lambda x: move.readout(move.initial(x)),
            lambda a: move.initial_vjp(theta, move.readout_vjp(a)),
        )
    if move.objective is not None:
        for g, part in _parts(move.objective, theta):
            yield from _objective_products(g, part, w, forward)
    for f, part in _parts(problem.upper, theta):
        name = f"of {type(f).__name__}"
        yield from _gradients(f, part, w, name)


def _objective_products(g: Objective, theta: Array, w: Array, forward: bool) -> Iterator[Any]:
    name, none_w, none_lam = f"of {type(g).__name__}", np.zeros_like(w), np.zeros_like(theta)
    by_w, by_lam = (lambda x: g.grad(x, theta)), (lambda x: g.grad(w, x))
    if forward:
        yield f"grad_jvp {name}, by w,", w, by_w, lambda d: g.grad_jvp(w, theta, d, none_lam)
        yield f"grad_jvp {name}, by lam,", theta, by_lam, lambda d: g.grad_jvp(w, theta, none_w, d)
    else:
        hessian, mixed = "(the Hessian product)", "(the mixed product)"
        yield f"grad_vjp[0] {name} {hessian}", w, by_w, lambda a: g.grad_vjp(w, theta, a)[0]
        yield f"grad_vjp[1] {name} {mixed}", theta, by_lam, lambda a: g.grad_vjp(w, theta, a)[1]


def _gradients(f: Objective, theta: Array, w: Array, name: str) -> Iterator[Any]:
    # A gradient is the vjp of the value with the number 1.
    yield f"grad {name}", w, lambda x: f.value(x, theta), lambda a: a * f.grad(w, theta)
    yield f"grad_lam {name}", theta, lambda x: f.value(w, x), lambda a: a * f.grad_lam(w, theta)


def _parts(g: Objective, theta: Array) -> Iterator[tuple[Objective, Array]]:
    """Yield the user's own objectives in g, with the λ that each sees."""
    if isinstance(g, Sum):
        for _, term in g.terms:
            yield from _parts(term, theta)
    elif isinstance(g, OnBlock):
        yield from _parts(g.objective, theta[g.block])
    elif _own(g):
        yield g, theta


def _own(x: Any) -> bool:
    """Return whether x is the user's own, not the package's."""
    ours = type(x).__module__.split(".")[0] == "tinybilevel"
    return not ours or isinstance(x, FunctionObjective | FunctionTransition)


def _check(
    rng: np.random.Generator, x: Array, f: Function, product: Any, forward: bool
) -> str | None:
    """Return what is wrong with a product along one direction u; None where nothing is seen."""
    u = like(x, rng.standard_normal(x.size).astype(x.dtype))
    u /= np.linalg.norm(u)
    eps = float(np.finfo(x.dtype).eps)
    h = eps ** (1 / 3) * max(1.0, float(np.linalg.norm(x)))
    at, plus, minus, half, back = (_as_array(f(x + s * u)) for s in (0, h, -h, h / 2, -h / 2))
    coarse, fine = (plus - minus) / (2 * h), (half - back) / h
    central = fine + (fine - coarse) / 3  # Richardson
    size, doubt = float(np.linalg.norm(central)), float(np.linalg.norm(fine - coarse))
    noise = 50 * eps * float(np.linalg.norm(at)) / h
    kink = float(np.linalg.norm(plus - 2 * at + minus)) / h
    if not np.isfinite(size) or max(kink, doubt) > 0.1 * size + noise:
        return None
    if forward and central.ndim:
        pushed = product(u)
        wrong = float(np.linalg.norm(pushed - central))
        is_, is_not = float(np.linalg.norm(pushed)), size
    else:
        # Along the difference itself, so that nothing of it is lost among many entries.
        alpha = central / size if size > noise else np.ones_like(central) / central.size**0.5
        pulled = product(alpha)
        is_, is_not = float(u @ pulled), float((alpha * central).sum())
        wrong = abs(is_ - is_not)
        noise += 1e-9 * float(np.linalg.norm(pulled))
    if wrong <= 0.01 * size + doubt + 10 * noise:
        return None
    return f"gives {is_:.6g} along a direction in which differences give {is_not:.6g}"


def _as_array(y: Any) -> Array:
    # A copy: a function may return a buffer of its own, each time the same.
    return y.copy() if hasattr(y, "copy") else np.asarray(y)
