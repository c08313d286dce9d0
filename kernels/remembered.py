"""What the forward pass has computed and the backward pass takes up again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Remembered", "Remembering"]

Array = np.ndarray[Any, np.dtype[Any]]


class Remembered:
    """The latest results at some w, which are asked for once, newest first.

    It knows nothing of steps: what was computed at a w is found by the numbers in w, which takes
    far less time than the softmax of many examples.

    Parameters
    ----------
    slots : sequence of pairs of ndarray
        Memory for w and for a result, for each of those that are kept at most.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.kernels.remembered import Remembered
    >>> squares, w = Remembered([(np.empty(1), np.empty(1))]), np.array([3.0])
    >>> squares.add(w)[:] = w**2
    >>> squares.pop(w), squares.pop(w)
    (array([9.]), None)
    """

    def __init__(self, slots: Sequence[tuple[Array, Array]]) -> None:
        self._slots = slots
        self._count = self._next = 0  # slots in use, of which the newest comes before `_next`
        self._same = np.empty(slots[0][0].shape, bool)

    def add(self, w: Array) -> Array:
        """Return where to write what is found at `w`, over the oldest result if need be."""
        at, result = self._slots[self._next]
        at[...] = w
        self._next = (self._next + 1) % len(self._slots)
        self._count = min(self._count + 1, len(self._slots))
        return result

    def pop(self, w: Array) -> Array | None:
        """Return what was found at `w`, and forget it and all that is newer; None if not there."""
        while self._count:
            self._next = (self._next - 1) % len(self._slots)
            self._count -= 1
            at, result = self._slots[self._next]
            if np.equal(at, w, out=self._same).all():
                return result
        return None


class Remembering:
    """A `Softmax` bound to a call, whose products take up the softmaxes of its gradients.

    Parameters
    ----------
    softmax : Softmax
        Of `tinybilevel.kernels.softmax` or `tinybilevel.kernels.blocked_softmax`.
    count : int
        How many to keep.
    """

    def __init__(self, softmax: Any, count: int) -> None:
        self._softmax, shape = softmax, (softmax.n_classes, softmax.shape[1])
        slots = [(np.empty(shape, softmax.dtype), softmax.room()) for _ in range(count)]
        self._remembered = Remembered(slots)

    def losses(self, W: Array) -> Array:
        return self._softmax.losses(W)

    def grad(self, W: Array, weights: Array) -> Array:
        keep = self._remembered.add(W) if self._knows(W, weights) else None
        return self._softmax.grad(W, weights, keep)

    def grad_vjp(self, W: Array, V: Array, weights: Array) -> tuple[Array, Array]:
        kept = self._remembered.pop(W) if self._knows(W, V, weights) else None
        return self._softmax.grad_vjp(W, V, weights, kept)

    def grad_jvp(self, W: Array, dW: Array, weights: Array, dweights: Array) -> Array:
        return self._softmax.grad_jvp(W, dW, weights, dweights)

    def _knows(self, *arrays: Array) -> bool:
        """Return whether all is of the dtype of X, as what is kept."""
        return all(a.dtype == self._softmax.dtype for a in arrays)
