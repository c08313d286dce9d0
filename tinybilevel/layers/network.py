"""Layers one after the other, and all their parameters as one flat vector."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinybilevel.arrays.backend import FLOATS, Array, bound, on_device
from tinybilevel.arrays.checks import as_count
from tinybilevel.layers.base import Layer, Params, Shape
from tinybilevel.layers.overlays import choose
from tinybilevel.maps.layout import Layout

__all__ = ["Network"]


class Network:
    """s = φ_L(… φ_2(φ_1(x))), with parameters w in one flat vector, layer by layer.

    Within a layer come weight (outputs, inputs) or kernel (out, in, height, width), then bias;
    scale, then shift.

    Parameters
    ----------
    layers : sequence of Layer, or mapping of str to Layer or sequence of Layer
        In the order in which they are applied. A mapping names blocks of layers, which can then be
        told apart: ``adapt=`` of `NetworkLoss` chooses by these names. In a sequence each layer is
        a block, ``"dense1"`` or ``"conv2d1"``, counted by kind.
    input_shape : tuple of int
        Shape of one example.
    backend : {"auto", "plain", "numba"}
        Who computes: "plain" are the layers' own definitions, "numba" compiled code for Conv2d and
        for BatchNorm, ReLU and MaxPool after one, and the definitions for all others. "auto" takes
        compiled code where Numba is installed and the convolutions are large.

    Attributes
    ----------
    size : int
        Parameters in all.
    layout : Layout
        Where each tensor lies in w, such as ``layout["dense1.weight"]``; with a mapping, in a block
        of several layers, ``"block1.conv2d.weight"``.
    blocks : dict of str to slice
        Where each block's parameters lie in w; blocks without any are left out.
    output_shape : tuple of int
        Shape of what comes out for one example.

    Raises
    ------
    TypeError, ValueError
        If something is no layer, or a layer does not fit what comes out of the one before it.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> net = tb.layers.Network(
    ...     [tb.layers.Dense(3), tb.layers.Tanh(), tb.layers.Dense(2)], input_shape=(4,)
    ... )
    >>> net.size, list(net.layout)
    (23, ['dense1.weight', 'dense1.bias', 'dense2.weight', 'dense2.bias'])
    >>> net.forward(net.init(seed=0), np.ones((5, 4))).shape
    (5, 2)
    """

    def __init__(
        self,
        layers: Sequence[Layer] | Mapping[str, Layer | Sequence[Layer]],
        input_shape: Sequence[int],
        *,
        backend: str = "auto",
    ) -> None:
        if isinstance(input_shape, str) or not isinstance(input_shape, Iterable):
            raise TypeError(f"input_shape must be a tuple such as (4,), got {input_shape!r}")
        self.input_shape = shape = tuple(as_count("input_shape", n, minimum=1) for n in input_shape)
        if not shape:
            raise ValueError("input_shape must have at least one axis, got ()")
        self.layers: list[Layer] = []
        self._inputs: list[Shape] = []
        self._names: list[list[str]] = []  # of each layer's tensors
        tensors: dict[str, Shape] = {}
        for prefix, layer in _named(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layers must be Layer objects such as Dense(10), got {layer!r}")
            try:
                out = layer.output_shape(shape)
            except ValueError as error:
                raise ValueError(f"layer {len(self.layers)}, {prefix!r}: {error}") from error
            own = {f"{prefix}.{name}": part for name, part in layer.shapes(shape).items()}
            self.layers.append(layer)
            self._inputs.append(shape)
            self._names.append(list(own))
            tensors |= own
            shape = out
        if not tensors:
            raise ValueError("a network needs at least one layer with parameters")
        self.output_shape = shape
        self.shapes = tensors
        self.layout = Layout(**{name: int(np.prod(part)) for name, part in tensors.items()})
        self.size = self.layout.size
        self._plain = list(zip(self.layers, self._names, strict=True))
        self._bodies: list[tuple[Any, list[str]]] = self._plain
        chosen = choose(self.layers, self._inputs, backend)
        if chosen is not None:
            ends = np.cumsum([0, *(count for _, count in chosen)])
            self._bodies = [
                (body, [*chain.from_iterable(self._names[start : start + count])])
                for (body, count), start in zip(chosen, ends, strict=False)
            ]

    def bound(self) -> Network:
        """Return the same network with working memory of its own, for one call of a method."""
        other = copy.copy(self)
        other._bodies = [(bound(body), names) for body, names in self._bodies]
        return other

    @property
    def blocks(self) -> dict[str, slice]:
        found: dict[str, slice] = {}
        for name in self.layout:
            block, at = name.partition(".")[0], self.layout[name]
            found[block] = slice(found[block].start if block in found else at.start, at.stop)
        return found

    def init(self, seed: int | np.random.Generator = 0, dtype: DTypeLike = np.float64) -> Array:
        """Draw starting values w, (size,); each layer says from what."""
        if np.dtype(dtype) not in FLOATS:
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        rng = np.random.default_rng(seed)
        drawn = (
            part.ravel()
            for layer, shape in zip(self.layers, self._inputs, strict=True)
            for part in layer.init(rng, shape)
        )
        return np.concatenate([np.empty(0), *drawn]).astype(dtype)

    def tensors(self, w: Array, layout: Layout | None = None) -> dict[str, Array]:
        """Return the tensors in a flat vector by name, views; by default those of all layers."""
        parts = (self.layout if layout is None else layout).unpack(w)
        return {name: part.reshape(self.shapes[name]) for name, part in parts.items()}

    def forward(self, w: Array, X: Array, batch: Array | None = None) -> Array:
        """Return the scores of n examples X, of `input_shape` each: n of `output_shape`.

        With a `batch` of other examples, each `BatchNorm` takes its mean and variance from what the
        layers before it make of those; X alone by default.
        """
        tensors = self.tensors(w)
        if batch is None:
            return self.run(tensors, X)[0]
        x, others = self._examples(X), self._examples(batch, "batch")
        for layer, names in self._plain:
            p = tuple(tensors[name] for name in names)
            x, others = layer.forward_with(p, x, others), layer.forward(p, others)[0]
        return x

    def run(self, tensors: Mapping[str, Array], X: Array) -> tuple[Array, list[Any]]:
        """Return the scores, and what each layer keeps."""
        x, all_kept = self._examples(X), []
        for layer, p, _ in self._each(tensors):
            x, kept = layer.forward(p, x)
            all_kept.append(kept)
        return x, all_kept

    def tangents(
        self,
        tensors: Mapping[str, Array],
        all_kept: list[Any],
        directions: Mapping[str, Array],
        dX: Array,
    ) -> tuple[Array, list[Any]]:
        """Return how the scores move along the directions and dX, and what each layer keeps."""
        dx, all_dkept = dX, []
        along = (dp for _, dp, _ in self._each(directions))
        for (layer, p, _), kept, dp in zip(self._each(tensors), all_kept, along, strict=True):
            dx, dkept = layer.tangent(p, kept, dp, dx)
            all_dkept.append(dkept)
        return dx, all_dkept

    def backward(
        self, tensors: Mapping[str, Array], all_kept: list[Any], g: Array, *, inputs: bool = True
    ) -> tuple[dict[str, Array], Array | None]:
        """Return the cotangent of each tensor and of X, from that of the scores.

        Where nobody asks for the `inputs`, that of X may be None.
        """
        found: dict[str, Array] = {}
        cotangent: Array | None = g
        for k, (layer, p, names) in reversed(list(enumerate(self._each(tensors)))):
            gp, cotangent = layer.gradients(p, all_kept[k], cotangent, inputs or k > 0)
            found |= zip(names, gp, strict=True)
        return found, cotangent

    def backward_tangents(
        self,
        tensors: Mapping[str, Array],
        all_kept: list[Any],
        directions: Mapping[str, Array],
        all_dkept: list[Any],
        g: Array,
        dg: Array,
    ) -> tuple[dict[str, Array], dict[str, Array], Array]:
        """Return `backward`'s cotangents of tensors, and how they and that of X move along."""
        found: dict[str, Array] = {}
        moved: dict[str, Array] = {}
        along = [dp for _, dp, _ in self._each(directions)]
        for k, (layer, p, names) in reversed(list(enumerate(self._each(tensors)))):
            pair = layer.products(p, all_kept[k], along[k], all_dkept[k], g, dg, k > 0)
            (gp, g), (dgp, dg) = pair
            found |= zip(names, gp, strict=True)
            moved |= zip(names, dgp, strict=True)
        return found, moved, dg

    def _each(self, tensors: Mapping[str, Array]) -> Iterable[tuple[Any, Params, list[str]]]:
        device = on_device(next(iter(tensors.values())))
        for body, names in self._plain if device else self._bodies:
            yield body, tuple(tensors[name] for name in names), names

    def _examples(self, X: Any, name: str = "X") -> Array:
        X = X if on_device(X) else np.asarray(X)
        if X.shape[1:] != self.input_shape or not len(X):
            sizes = ", ".join(map(str, self.input_shape))
            raise ValueError(f"{name} must have shape (n, {sizes}), n ≥ 1, got {X.shape}")
        return X

    def __repr__(self) -> str:
        kinds = " → ".join(type(layer).__name__ for layer in self.layers)
        return f"Network({self.input_shape} → {kinds} → {self.output_shape}, size={self.size})"


def _named(
    layers: Sequence[Layer] | Mapping[str, Layer | Sequence[Layer]],
) -> Iterable[tuple[str, Layer]]:
    """Yield each layer with the name that goes before those of its tensors."""
    if not isinstance(layers, Mapping):
        if not isinstance(layers, Iterable):
            raise TypeError(f"layers must be a sequence or a mapping of layers, got {layers!r}")
        yield from _counted(layers, always=True)
        return
    for block, inside in layers.items():
        if not isinstance(block, str) or "." in block:
            raise ValueError(f"names of blocks must be strings without a dot, got {block!r}")
        if isinstance(inside, Sequence):
            yield from ((f"{block}.{name}", layer) for name, layer in _counted(inside))
        else:
            yield block, inside


def _counted(layers: Iterable[Layer], always: bool = False) -> Iterable[tuple[str, Layer]]:
    layers = list(layers)
    kinds = [type(layer).__name__.lower() for layer in layers]
    for k, layer in enumerate(layers):
        number = str(kinds[: k + 1].count(kinds[k]))
        yield kinds[k] + (number if always or kinds.count(kinds[k]) > 1 else ""), layer
