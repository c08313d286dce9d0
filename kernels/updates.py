"""What a step of each lower-level algorithm does to entry j of w, forward and backward.

None of it looks at another entry, so that a loop calls it for all of w or for a piece of it:

==========================================================  ===================================
``point(kind, c, each, state, y, …)``                       y, where step t takes its gradient
``advance(kind, c, each, g, state, new, …)``                state t + 1 from g = ∇g(y)
``direction(kind, c, each, g, state, alpha, u, along, …)``  u, by which A α and B α take ∇²g(y)
``retreat(kind, c, each, Hu, state, alpha, along, …)``      α_t in the place of α_{t+1}
==========================================================  ===================================

and … is the range ``first, last`` of entries. Between the last two of them the caller takes
H u = ∇²_ww g(y) u and subtracts ∇²_λw g(y) u from h. The transitions' docstrings say why.

Conventions, in one dtype:

=========  =========  ==========================================================================
``state``  (1+b, M)   w, and the b = `BUFFERS[kind]` buffers of step t; `new` and `alpha` likewise
``c``      (2,)       γ_t, and μ_t or τ_t; for Adam a row of `adam_numbers`
``each``   (2, M)     factors of these, entry by entry: 1, or what is learned or given for each
``g``      (M,)       the gradient; of use backward where `keeps_gradient` says so
``along``  (2, M)     h has this much more, entry by entry, for γ and for μ or τ; or (2, 0)
=========  =========  ==========================================================================

`direction` leaves in `alpha` what `retreat` needs of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = [
    "ADAM",
    "BUFFERS",
    "DESCENT",
    "HEAVY_BALL",
    "NESTEROV",
    "PROXIMAL",
    "adam_numbers",
    "advance",
    "direction",
    "keeps_gradient",
    "point",
    "retreat",
]

DESCENT, HEAVY_BALL, NESTEROV, ADAM, PROXIMAL = range(5)
BUFFERS = 0, 1, 1, 2, 0

Array = np.ndarray[Any, np.dtype[Any]]


def keeps_gradient(kind: int, learned: bool) -> bool:
    """Return whether a backward step needs the gradient, besides the state."""
    return learned or kind in (ADAM, PROXIMAL)


def adam_numbers(gammas: Any, beta1: float, beta2: float, eps: float, before: int = 0) -> Array:
    """Return a row for each step: γ_t, β₁, β₂, 1 − β₁, 1 − β₂, 1 − β₁ᵗ⁺¹, 1 − β₂ᵗ⁺¹ and ε.

    `before` steps came before the first.
    """
    rows = [
        (gamma, beta1, beta2, 1 - beta1, 1 - beta2, 1 - beta1**t, 1 - beta2**t, eps)
        for t, gamma in enumerate(gammas, before + 1)
    ]
    return np.array(rows).reshape(-1, 8)


@njit(nogil=True, cache=True)
def point(kind, c, each, state, y, first, last):  # type: ignore[no-untyped-def]
    """y = w + μ v of Nesterov; w of all others."""
    for j in range(first, last):
        y[j] = state[0, j]
    if kind == NESTEROV:
        for j in range(first, last):
            y[j] += c[1] * each[1, j] * state[1, j]


@njit(nogil=True, cache=True)
def advance(kind, c, each, g, state, new, first, last):  # type: ignore[no-untyped-def]
    """Take the step."""
    if kind == DESCENT:
        _descend(c, each, g, state, new, first, last)
    elif kind == ADAM:
        _adam(c, each, g, state, new, first, last)
    elif kind == PROXIMAL:
        _threshold(c, each, g, state, new, first, last)
    else:
        _roll(c, each, g, state, new, first, last)


@njit(nogil=True, cache=True)
def direction(kind, c, each, g, state, alpha, u, along, first, last):  # type: ignore[no-untyped-def]
    """Begin the step back."""
    if kind == DESCENT:
        _descend_direction(c, each, g, alpha, u, along, first, last)
    elif kind == ADAM:
        _adam_direction(c, each, g, state, alpha, u, along, first, last)
    elif kind == PROXIMAL:
        _threshold_direction(c, each, g, state, alpha, u, along, first, last)
    else:
        _roll_direction(c, each, g, alpha, u, along, first, last)


@njit(nogil=True, cache=True)
def retreat(kind, c, each, Hu, state, alpha, along, first, last):  # type: ignore[no-untyped-def]
    """End the step back."""
    if kind == ADAM:
        _adam_retreat(c, Hu, alpha, first, last)
    elif kind in (HEAVY_BALL, NESTEROV):
        _roll_retreat(kind == NESTEROV, c, each, Hu, state, alpha, along, first, last)
    else:
        for j in range(first, last):
            alpha[0, j] -= Hu[j]


@njit(nogil=True, cache=True)
def _descend(c, each, g, state, new, first, last):  # type: ignore[no-untyped-def]
    gamma = c[0]
    for j in range(first, last):
        new[0, j] = state[0, j] - gamma * each[0, j] * g[j]


@njit(nogil=True, cache=True)
def _descend_direction(c, each, g, alpha, u, along, first, last):  # type: ignore[no-untyped-def]
    """u = γ α."""
    gamma = c[0]
    for j in range(first, last):
        u[j] = gamma * each[0, j] * alpha[0, j]
    if along.size:
        for j in range(first, last):
            along[0, j] -= g[j] * alpha[0, j]


@njit(nogil=True, cache=True)
def _roll(c, each, g, state, new, first, last):  # type: ignore[no-untyped-def]
    """Heavy ball and Nesterov."""
    gamma, mu = c[0], c[1]
    for j in range(first, last):
        v = mu * each[1, j] * state[1, j] - gamma * each[0, j] * g[j]
        new[0, j] = state[0, j] + v
        new[1, j] = v


@njit(nogil=True, cache=True)
def _roll_direction(c, each, g, alpha, u, along, first, last):  # type: ignore[no-untyped-def]
    """u = γ (a + b)."""
    gamma = c[0]
    for j in range(first, last):
        u[j] = gamma * each[0, j] * (alpha[0, j] + alpha[1, j])
    if along.size:
        for j in range(first, last):
            along[0, j] -= g[j] * (alpha[0, j] + alpha[1, j])


@njit(nogil=True, cache=True)
def _roll_retreat(ahead, c, each, Hu, state, alpha, along, first, last):  # type: ignore[no-untyped-def]
    mu = c[1]
    for j in range(first, last):
        rest = alpha[0, j] + alpha[1, j]
        if ahead:
            rest -= Hu[j]
        if along.size:
            along[1, j] += state[1, j] * rest
        alpha[0, j] -= Hu[j]
        alpha[1, j] = mu * each[1, j] * rest


@njit(nogil=True, cache=True, error_model="numpy")
def _adam(c, each, g, state, new, first, last):  # type: ignore[no-untyped-def]
    gamma, beta1, beta2, rest1, rest2, c1, c2, eps = _adam_row(c)
    for j in range(first, last):
        m = beta1 * state[1, j] + rest1 * g[j]
        s = beta2 * state[2, j] + rest2 * (g[j] * g[j])
        new[0, j] = state[0, j] - gamma * each[0, j] * (m / (np.sqrt(s / c2) + eps)) / c1
        new[1, j] = m
        new[2, j] = s


@njit(nogil=True, cache=True, error_model="numpy")
def _adam_direction(c, each, g, state, alpha, u, along, first, last):  # type: ignore[no-untyped-def]
    """u = −(1 − β₁) b − 2 (1 − β₂) g c, with what a adds to b and c, which stays in `alpha`."""
    gamma, beta1, beta2, rest1, rest2, c1, c2, eps = _adam_row(c)
    zero, one = u.dtype.type(0), u.dtype.type(1)
    for j in range(first, last):
        m_hat = (beta1 * state[1, j] + rest1 * g[j]) / c1
        root = np.sqrt((beta2 * state[2, j] + rest2 * (g[j] * g[j])) / c2)
        D = root + eps
        # ∂√ŝ/∂s', and 0 where ŝ = 0.
        rho = one / (c2 * (root + root)) if root != zero else zero
        moved = gamma * each[0, j] * alpha[0, j] / D
        if along.size:
            along[0, j] -= alpha[0, j] * m_hat / D
        alpha[1, j] -= moved / c1
        alpha[2, j] += moved * m_hat / D * rho
        u[j] = -rest1 * alpha[1, j] - (rest2 + rest2) * (g[j] * alpha[2, j])


@njit(nogil=True, cache=True)
def _adam_retreat(c, Hu, alpha, first, last):  # type: ignore[no-untyped-def]
    beta1, beta2 = c[1], c[2]
    for j in range(first, last):
        alpha[0, j] -= Hu[j]
        alpha[1, j] *= beta1
        alpha[2, j] *= beta2


@njit(nogil=True, cache=True, inline="always")
def _adam_row(c):  # type: ignore[no-untyped-def]
    return c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]


@njit(nogil=True, cache=True)
def _threshold(c, each, g, state, new, first, last):  # type: ignore[no-untyped-def]
    """soft(z, κ), z = w − γ g, κ = γ τ."""
    gamma, tau, zero = c[0], c[1], g.dtype.type(0)
    for j in range(first, last):
        step = gamma * each[0, j]
        z = state[0, j] - step * g[j]
        new[0, j] = np.copysign(max(abs(z) - step * (tau * each[1, j]), zero), z)


@njit(nogil=True, cache=True)
def _threshold_direction(c, each, g, state, alpha, u, along, first, last):  # type: ignore[no-untyped-def]
    """u = γ α where w moves with z, and 0 elsewhere, as α then is."""
    gamma, tau, zero = c[0], c[1], g.dtype.type(0)
    for j in range(first, last):
        step, strength = gamma * each[0, j], tau * each[1, j]
        z, kappa = state[0, j] - step * g[j], step * strength
        a = alpha[0, j] if abs(z) > kappa or kappa == zero else zero
        alpha[0, j] = a
        u[j] = step * a
        if along.size:
            sign = np.sign(z)
            along[0, j] -= (g[j] + strength * sign) * a
            along[1, j] -= step * sign * a
