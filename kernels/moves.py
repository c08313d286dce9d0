"""How the states of a loop move: what a step size that is too large is first seen by.

As `tinybilevel.engine.dynamics.Dynamics` has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.compiling import LEAN

__all__ = ["restless", "square", "watch"]


@njit(**LEAN, fastmath={"reassoc", "contract"})
def watch(t, T, w, new, move, moves, first, last):  # type: ignore[no-untyped-def]
    """Add to `moves` what some entries have of ‖m_1‖², m_{T−1} · m_T and ‖m_T‖².

    m_t = w_t − w_{t−1}; `move` keeps that of step T − 2.
    """
    square, turn = w.dtype.type(0), w.dtype.type(0)
    if t == 0:
        for j in range(first, last):
            m = new[j] - w[j]
            square += m * m
        moves[0] += square
    elif t == T - 2:
        for j in range(first, last):
            move[j] = new[j] - w[j]
    elif t == T - 1:
        for j in range(first, last):
            m = new[j] - w[j]
            turn += m * move[j]
            square += m * m
        moves[1] += turn
        moves[2] += square


def restless(T: int, moves: np.ndarray[Any, Any]) -> bool:
    """Return whether the last step goes back on the one before, and is longer than the first."""
    first, turn, last = moves[0] if len(moves) == 1 else moves.sum(axis=0)
    return bool(T > 2 and turn < 0 and last > first)


@njit(**LEAN, fastmath={"reassoc", "contract"})
def square(x):  # type: ignore[no-untyped-def]
    """Return ‖x‖², as of α."""
    total = x.dtype.type(0)
    for j in range(x.size):
        total += x[j] * x[j]
    return total
