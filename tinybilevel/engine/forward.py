"""The forward recursion: the paper's eq. (7)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.engine.dynamics import Dynamics

__all__ = ["forward"]


def forward(dynamics: Dynamics) -> tuple[Array, Array]:
    """Run Z_0 = B_0, Z_{t+1} = Z_t A_{t+1} + B_{t+1} beside the dynamics.

    Parameters
    ----------
    dynamics : Dynamics
        The transition at θ.

    Returns
    -------
    w : ndarray (M,)
        w_T.
    Z : ndarray (P, M)
        Z_T = ∇_θ w_T; row i is the derivative by θ_i.
    """
    theta = dynamics.theta
    work, Z = dynamics.empty(2), dynamics.empty(theta.size)
    unit = np.zeros_like(theta)

    def rows() -> Iterator[int]:
        for i in range(theta.size):
            unit[i] = 1
            yield i
            unit[i] = 0

    for i in rows():
        Z[i] = dynamics.initial_jvp(unit)
    w = dynamics.w0
    for t in range(dynamics.T):
        for i in rows():
            Z[i] = dynamics.jvp(t, w, Z[i], unit)
        w = dynamics.step(t, w, out=work[t % 2])
    return w, Z
