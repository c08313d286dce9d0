"""Layers that depend on λ alone, run once per λ and not once per step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_float, check_shape, frozen
from tinybilevel.layers.network import Network
from tinybilevel.maps.base import HyperMap

__all__ = ["FeatureMap"]


class FeatureMap(HyperMap):
    """θ = the features that a network with parameters λ makes of sets of examples.

    The lower level sees the same support examples at every step, and layers that depend on λ alone
    make the same features of them. As θ they are computed once; the recursion gathers their
    cotangents over its steps, and `vjp` sends the sum back through the layers once. That equals
    sending each back, because h is linear in the products.

    Parameters
    ----------
    network : Network
        The layers, of which λ holds the parameters.
    sets : sequence of array_like (n_k, ...)
        Sets of examples of `input_shape`; each is a batch of its own to a `BatchNorm`.

    Attributes
    ----------
    slices : list of slice
        Where the features of each set lie in θ.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> body = tb.layers.Network([tb.layers.Dense(2), tb.layers.Tanh()], input_shape=(3,))
    >>> train, val = np.ones((5, 3)), np.zeros((4, 3))
    >>> phi = tb.layers.FeatureMap(body, [train, val])
    >>> theta = phi(body.init(seed=0))
    >>> theta.shape, phi.slices
    ((18,), [slice(0, 10, None), slice(10, 18, None)])
    """

    def __init__(self, network: Network, sets: Sequence[Any]) -> None:
        self.network = network
        self.sets = [
            frozen(name, network._examples(as_float(name, X), name))
            for name, X in ((f"sets[{k}]", X) for k, X in enumerate(sets))
        ]
        if not self.sets:
            raise ValueError("sets must hold at least one set of examples")
        self._networks = [network] * len(self.sets)
        self._last: list[tuple[Any, Any]] = []  # of each set, where bound
        each = int(np.prod(network.output_shape))
        ends = np.cumsum([0, *(len(X) * each for X in self.sets)])
        self.slices = [slice(int(a), int(b)) for a, b in pairwise(ends)]

    def out_size(self, n: int) -> int:
        return self.slices[-1].stop

    def bound(self) -> FeatureMap:
        """Return the same map with memory of its own: `vjp` finds what `__call__` has computed."""
        other = copy.copy(self)
        other._networks = [self.network.bound() for _ in self.sets]
        other._last = [(np.empty(0), None)] * len(self.sets)
        return other

    def __call__(self, lam: Array) -> Array:
        return np.concatenate([self._run(k, lam)[0].ravel() for k in range(len(self.sets))])

    def vjp(self, lam: Array, h: Array) -> Array:
        check_shape("h", h, (self.out_size(lam.size),))
        tensors, total = self.network.tensors(lam), np.zeros_like(lam, dtype=np.result_type(lam, h))
        for k, at in enumerate(self.slices):
            features, kept = self._run(k, lam)
            g = h[at].reshape(features.shape)
            found, _ = self._networks[k].backward(tensors, kept, g, inputs=False)
            total += np.concatenate([found[name].ravel() for name in self.network.layout])
        return total

    def jvp(self, lam: Array, dlam: Array) -> Array:
        tensors, directions = self.network.tensors(lam), self.network.tensors(dlam)
        moved = []
        for k, X in enumerate(self.sets):
            _, kept = self._run(k, lam)
            along, _ = self._networks[k].tangents(tensors, kept, directions, np.zeros_like(X))
            moved.append(along.ravel())
        return np.concatenate(moved)

    def _run(self, k: int, lam: Array) -> tuple[Array, list[Any]]:
        """Return the features of a set, and what the layers keep of them."""
        if self._last and np.array_equal(self._last[k][0], lam):
            return self._last[k][1]
        result = self._networks[k].run(self.network.tensors(lam), self.sets[k])
        if self._last:
            self._last[k] = (lam.copy(), result)
        return result
