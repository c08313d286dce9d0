"""Which body computes a network's layers: the one place here that knows of the overlays.

An overlay has the methods of a `Layer`, may stand for several that follow each other, and is held
to their definitions by ``tests/layers/test_overlays.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tinybilevel.errors import missing_extra
from tinybilevel.layers.base import Layer, Shape
from tinybilevel.layers.batch_norm import BatchNorm
from tinybilevel.layers.conv2d import Conv2d
from tinybilevel.layers.max_pool import MaxPool
from tinybilevel.layers.relu import ReLU

__all__ = ["choose", "following"]

#: Multiply-adds of the convolutions for one example from which compiled code repays being loaded.
_LARGE = 100_000
#: A place in a window is one byte, of which one value says that nothing is chosen.
_LARGEST_POOL = 15


def choose(
    layers: Sequence[Layer], inputs: Sequence[Shape], backend: str
) -> list[tuple[Any, int]] | None:
    """Return bodies in place of `layers`, each with how many of these it stands for.

    Parameters
    ----------
    layers : sequence of Layer
        One after the other.
    inputs : sequence of tuple of int
        Shape of one example that each takes.
    backend : {"auto", "plain", "numba"}
        The definitions; compiled convolutions with what follows them, other layers as they are.
        "auto" takes these where Numba is installed and the convolutions are large.

    Returns
    -------
    list of (body, int), or None
        None where the definitions do it all.

    Raises
    ------
    ValueError
        If `backend` is none of these.
    ImportError
        If `backend` is "numba" and Numba is not installed.
    """
    if backend not in ("auto", "plain", "numba"):
        raise ValueError(f'backend must be "auto", "plain" or "numba", got {backend!r}')
    work = sum(_work(layer, shape) for layer, shape in zip(layers, inputs, strict=True))
    if backend == "auto":
        backend = "numba" if work >= _LARGE and find_spec("numba") is not None else "plain"
    if backend == "plain" or not work:
        return None
    try:
        kernels = import_module("tinybilevel.kernels.network")
    except ImportError as error:
        raise missing_extra('backend="numba" needs Numba', "fast", error) from error
    bodies: list[tuple[Any, int]] = []
    at = 0
    while at < len(layers):
        layer = layers[at]
        if type(layer) is not Conv2d:
            bodies.append((layer, 1))
            at += 1
            continue
        options, count = following(layers[at + 1 :])
        window = (layer.kernel_size, layer.stride, layer.padding)
        body = kernels.Convolution(window, layer.bias, first=at == 0, **options)
        bodies.append((body, 1 + count))
        at += 1 + count
    return bodies


def following(layers: Sequence[Layer]) -> tuple[dict[str, Any], int]:
    """Return what a convolution takes along of the layers after it, and how many these are.

    A subclass may compute anything, and is left alone.
    """
    kinds = [type(layer) for layer in layers[:3]]
    if kinds[:1] != [BatchNorm]:
        return {}, 0
    options: dict[str, Any] = {"eps": layers[0].eps}  # type: ignore[attr-defined]
    if kinds[1:2] != [ReLU]:
        return options, 1
    options["rectify"] = True
    pool = layers[2] if len(layers) > 2 else None
    if type(pool) is not MaxPool or pool.size > _LARGEST_POOL:
        return options, 2
    return {**options, "pool": pool.size}, 3


def _work(layer: Layer, shape: Shape) -> int:
    """Return the multiply-adds of a convolution of one example."""
    if type(layer) is not Conv2d:
        return 0
    channels, height, width = layer.output_shape(shape)
    return channels * height * width * shape[0] * layer.kernel_size**2
