"""The backward recursion: the paper's eq. (6), and stopped early eq. (8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np

from tinybilevel.arrays.backend import Array, dot, promote
from tinybilevel.engine.dynamics import Dynamics

__all__ = ["Observer", "backward", "partial_sums", "unobserved"]

#: Told (t, w_t, α_t, h_t, B_{t+1} α_{t+1}) at each row, None for what there is not; h grows on.
Observer: TypeAlias = Callable[[int, Array | None, Array | None, Array, Array | None], None]


def unobserved(*row: object) -> None:
    """Watch nothing."""


def backward(
    dynamics: Dynamics,
    states: Iterable[tuple[int, Array]],
    alpha: Array,
    h: Array,
    K: int,
    enough: Callable[[int, float], bool] | None = None,
    observe: Observer = unobserved,
) -> tuple[Array, Array, Array]:
    """Run h_{t−1} = h_t + B_t α_t, α_{t−1} = A_t α_t over the states it is fed, newest first.

    Parameters
    ----------
    dynamics : Dynamics
        The transition at θ.
    states : iterable of (int, ndarray (M,))
        (t, w_t) for t = T−1, T−2, …; from a storage. K pairs give h_{T−K}.
    alpha : ndarray (M,)
        α_T = ∇_w f.
    h : ndarray (P,)
        h_T = ∇_θ f.
    K : int
        The most steps that `states` has.
    enough : callable, optional
        (t, ‖α_t‖) → whether to stop at h_t; asked before each step.
    observe : callable, optional
        Told of each row (t, w_t, α_t, h_t, B_{t+1} α_{t+1}) as it comes; at T, w and the product
        are None.

    Returns
    -------
    alpha : ndarray (M,)
        α_{T−K}.
    h : ndarray (P,)
        h_{T−K}.
    norms : ndarray (K + 1,)
        ‖α_T‖, …, ‖α_{T−K}‖.
    """
    h = h.astype(promote(h, alpha, dynamics.w0))
    squares, count = np.empty_like(h, shape=K + 1), 1
    squares[0] = dot(alpha, alpha)
    observe(dynamics.T, None, alpha, h, None)
    for t, w in states:
        if enough is not None and enough(t + 1, float(np.sqrt(squares[count - 1]))):
            break
        alpha, B_alpha = dynamics.vjp(t, w, alpha)
        h += B_alpha
        observe(t, w, alpha, h, B_alpha)
        squares[count] = dot(alpha, alpha)
        count += 1
    return alpha, h, np.sqrt(squares[:count])


def partial_sums(
    dynamics: Dynamics, states: Iterable[tuple[int, Array]], alpha: Array, h: Array
) -> Iterator[Array]:
    """Yield h_T, h_{T−1}, … and, after the last of the states, h_{−1} = h_0 + B_0 α_0."""
    yield h
    for pair in states:
        alpha, h, _ = backward(dynamics, [pair], alpha, h, 1)
        yield h
    yield h + dynamics.initial_vjp(alpha)
