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

from tinybilevel.kernels.compiling import LEAN

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


@njit(**LEAN)
def point(kind, c, each, state, y, first, last):  # type: ignore[no-untyped-def]
    """y = w + μ v of Nesterov; w of all others."""
    y, w = y[first:last], state[0, first:last]
    if kind != NESTEROV:
        for j in range(y.size):
            y[j] = w[j]
        return
    mu, factor, v = c[1], each[1, first:last], state[1, first:last]
    for j in range(y.size):
        y[j] = w[j] + mu * factor[j] * v[j]


@njit(**LEAN)
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


@njit(**LEAN)
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


@njit(**LEAN)
def retreat(kind, c, each, Hu, state, alpha, along, first, last):  # type: ignore[no-untyped-def]
    """End the step back."""
    if kind == ADAM:
        _adam_retreat(c, Hu, alpha, first, last)
    elif kind in (HEAVY_BALL, NESTEROV):
        _roll_retreat(kind == NESTEROV, c, each, Hu, state, alpha, along, first, last)
    else:
        _subtract(Hu[first:last], alpha[0, first:last])


# Each takes its range out of the arrays first: a loop from 0 needs no look at negative indices,
# which would keep it from being vectorised.


@njit(**LEAN)
def _subtract(x, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] -= x[j]


@njit(**LEAN)
def _descend(c, each, g, state, new, first, last):  # type: ignore[no-untyped-def]
    gamma, factor = c[0], each[0, first:last]
    g, w, w_next = g[first:last], state[0, first:last], new[0, first:last]
    for j in range(w.size):
        w_next[j] = w[j] - gamma * factor[j] * g[j]


@njit(**LEAN)
def _descend_direction(c, each, g, alpha, u, along, first, last):  # type: ignore[no-untyped-def]
    """u = γ α."""
    gamma, factor = c[0], each[0, first:last]
    a, u = alpha[0, first:last], u[first:last]
    for j in range(u.size):
        u[j] = gamma * factor[j] * a[j]
    if along.size:
        _subtract_product(g[first:last], a, along[0, first:last])


@njit(**LEAN)
def _subtract_product(x, y, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] -= x[j] * y[j]


@njit(**LEAN)
def _roll(c, each, g, state, new, first, last):  # type: ignore[no-untyped-def]
    """Heavy ball and Nesterov."""
    gamma, mu, step, rate = c[0], c[1], each[0, first:last], each[1, first:last]
    g, w, v = g[first:last], state[0, first:last], state[1, first:last]
    w_next, v_next = new[0, first:last], new[1, first:last]
    for j in range(w.size):
        velocity = mu * rate[j] * v[j] - gamma * step[j] * g[j]
        v_next[j] = velocity
        w_next[j] = w[j] + velocity


@njit(**LEAN)
def _roll_direction(c, each, g, alpha, u, along, first, last):  # type: ignore[no-untyped-def]
    """u = γ (a + b)."""
    gamma, factor = c[0], each[0, first:last]
    a, b, u = alpha[0, first:last], alpha[1, first:last], u[first:last]
    for j in range(u.size):
        u[j] = gamma * factor[j] * (a[j] + b[j])
    if along.size:
        g, more = g[first:last], along[0, first:last]
        for j in range(u.size):
            more[j] -= g[j] * (a[j] + b[j])


@njit(**LEAN)
def _roll_retreat(ahead, c, each, Hu, state, alpha, along, first, last):  # type: ignore[no-untyped-def]
    mu, factor = c[1], each[1, first:last]
    a, b, Hu = alpha[0, first:last], alpha[1, first:last], Hu[first:last]
    for j in range(a.size):
        b[j] += a[j]
        a[j] -= Hu[j]
    if ahead:
        _subtract(Hu, b)
    if along.size:
        v, more = state[1, first:last], along[1, first:last]
        for j in range(a.size):
            more[j] += v[j] * b[j]
    for j in range(a.size):
        b[j] *= mu * factor[j]


@njit(**LEAN, error_model="numpy")
def _adam(c, each, g, state, new, first, last):  # type: ignore[no-untyped-def]
    gamma, beta1, beta2, rest1, rest2, c1, c2, eps = _adam_row(c)
    factor, g, w = each[0, first:last], g[first:last], state[0, first:last]
    m, s = state[1, first:last], state[2, first:last]
    w_next, m_next, s_next = new[0, first:last], new[1, first:last], new[2, first:last]
    for j in range(w.size):
        m_next[j] = beta1 * m[j] + rest1 * g[j]
        s_next[j] = beta2 * s[j] + rest2 * (g[j] * g[j])
    for j in range(w.size):
        D = np.sqrt(s_next[j] / c2) + eps
        w_next[j] = w[j] - gamma * factor[j] * (m_next[j] / D) / c1


@njit(**LEAN, error_model="numpy")
def _adam_direction(c, each, g, state, alpha, u, along, first, last):  # type: ignore[no-untyped-def]
    """u = −(1 − β₁) b − 2 (1 − β₂) g c, with what a adds to b and c, which stays in `alpha`."""
    gamma, beta1, beta2, rest1, rest2, c1, c2, eps = _adam_row(c)
    a, b, c = alpha[0, first:last], alpha[1, first:last], alpha[2, first:last]
    factor, g, u = each[0, first:last], g[first:last], u[first:last]
    m, s = state[1, first:last], state[2, first:last]
    zero, one = u.dtype.type(0), u.dtype.type(1)
    for j in range(u.size):
        m_hat = (beta1 * m[j] + rest1 * g[j]) / c1
        root = np.sqrt((beta2 * s[j] + rest2 * (g[j] * g[j])) / c2)
        D = root + eps
        # ∂√ŝ/∂s', and 0 where ŝ = 0.
        rho = one / (c2 * (root + root)) if root != zero else zero
        if along.size:
            along[0, first + j] -= a[j] * m_hat / D
        moved = gamma * factor[j] * a[j] / D
        b[j] -= moved / c1
        c[j] += moved * m_hat / D * rho
        u[j] = -rest1 * b[j] - (rest2 + rest2) * (g[j] * c[j])


@njit(**LEAN)
def _adam_retreat(c, Hu, alpha, first, last):  # type: ignore[no-untyped-def]
    beta1, beta2 = c[1], c[2]
    a, b, c, Hu = alpha[0, first:last], alpha[1, first:last], alpha[2, first:last], Hu[first:last]
    for j in range(a.size):
        a[j] -= Hu[j]
        b[j] *= beta1
        c[j] *= beta2


@njit(**LEAN, inline="always")
def _adam_row(c):  # type: ignore[no-untyped-def]
    return c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]


@njit(**LEAN)
def _threshold(c, each, g, state, new, first, last):  # type: ignore[no-untyped-def]
    """soft(z, κ), z = w − γ g, κ = γ τ."""
    gamma, tau, zero = c[0], c[1], g.dtype.type(0)
    step, strength = each[0, first:last], each[1, first:last]
    g, w, w_next = g[first:last], state[0, first:last], new[0, first:last]
    for j in range(w.size):
        z = w[j] - gamma * step[j] * g[j]
        kappa = gamma * step[j] * (tau * strength[j])
        w_next[j] = np.copysign(max(abs(z) - kappa, zero), z)


@njit(**LEAN)
def _threshold_direction(c, each, g, state, alpha, u, along, first, last):  # type: ignore[no-untyped-def]
    """u = γ α where w moves with z, and 0 elsewhere, as α then is."""
    gamma, tau, zero = c[0], c[1], g.dtype.type(0)
    step, strength = each[0, first:last], each[1, first:last]
    g, w, a, u = g[first:last], state[0, first:last], alpha[0, first:last], u[first:last]
    for j in range(u.size):
        gamma_j, tau_j = gamma * step[j], tau * strength[j]
        z, kappa = w[j] - gamma_j * g[j], gamma_j * tau_j
        a[j] = a[j] if abs(z) > kappa or kappa == zero else zero
        u[j] = gamma_j * a[j]
        if along.size:
            sign = np.sign(z)
            along[0, first + j] -= (g[j] + tau_j * sign) * a[j]
            along[1, first + j] -= gamma_j * sign * a[j]
