"""Named blocks of one flat λ, and one map per block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count, as_float, check_shape
from tinybilevel.maps.base import HyperMap, Identity, require_map
from tinybilevel.products import Missing

__all__ = ["Blocks", "Layout"]


class Layout:
    """Named blocks of one flat vector.

    Parameters
    ----------
    **sizes : int
        Size of each block, in the order of the vector.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> layout = tb.Layout(weights=3, l2=1)
    >>> layout.size, layout["l2"]
    (4, slice(3, 4, None))
    >>> lam = layout.pack(weights=np.zeros(3), l2=np.array([-2.0]))
    >>> layout.unpack(lam)["l2"]
    array([-2.])
    """

    def __init__(self, **sizes: int) -> None:
        if not sizes:
            raise ValueError("Layout needs at least one block, as in Layout(weights=3)")
        self._blocks: dict[str, slice] = {}
        start = 0
        for name, size in sizes.items():
            stop = start + as_count(name, size, minimum=1)
            self._blocks[name] = slice(start, stop)
            start = stop
        self.size = start

    def __getitem__(self, name: str) -> slice:
        if name not in self._blocks:
            raise KeyError(f"no block named {name!r}; the layout has {list(self._blocks)}")
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __repr__(self) -> str:
        sizes = [f"{name}={block.stop - block.start}" for name, block in self._blocks.items()]
        more = [f"… {len(sizes) - 8} more"] if len(sizes) > 9 else []
        return f"Layout({', '.join(sizes[: 8 if more else None] + more)})"

    def pack(self, **parts: Any) -> Array:
        """Join one array per block into a flat vector, (size,)."""
        if set(parts) != set(self._blocks):
            raise ValueError(f"expected the blocks {list(self._blocks)}, got {list(parts)}")
        arrays = [as_float(name, np.atleast_1d(parts[name]), ndim=1) for name in self]
        for name, part in zip(self, arrays, strict=True):
            block = self[name]
            if part.size != block.stop - block.start:
                raise ValueError(
                    f"{name} must have {block.stop - block.start} entries, got {part.size}"
                )
        return np.concatenate(arrays)

    def unpack(self, x: Array) -> dict[str, Array]:
        """Return a view of each block of a flat vector."""
        if x.shape != (self.size,):
            raise ValueError(f"{self!r} takes a vector of shape ({self.size},), got {x.shape}")
        return {name: x[block] for name, block in self._blocks.items()}


class Blocks(HyperMap):
    """One map per named block of λ; blocks without one pass unchanged.

    Parameters
    ----------
    layout : Layout
        Blocks of λ. θ has the same blocks in the same order; a map such as `Symmetric` may change
        the size of its block, and ``theta_layout`` says where each then lies.
    **maps : HyperMap
        Map of each block, by name.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> layout = tb.Layout(weights=2, l2=1)
    >>> phi = tb.Blocks(layout, weights=tb.Sigmoid(), l2=tb.Exp())
    >>> phi(np.zeros(3))
    array([0.5, 0.5, 1. ])
    """

    def __init__(self, layout: Layout, /, **maps: HyperMap) -> None:
        self.layout = layout
        self._maps = {name: maps.pop(name, Identity()) for name in layout}
        if maps:
            raise ValueError(f"maps for unknown blocks {list(maps)}; the layout has {list(layout)}")
        for name, phi in self._maps.items():
            require_map(name, phi)
        sizes = {name: layout[name].stop - layout[name].start for name in layout}
        sizes = {name: phi.out_size(sizes[name]) for name, phi in self._maps.items()}
        self.theta_layout = Layout(**sizes)

    def out_size(self, n: int) -> int:
        return self.theta_layout.size

    def _join(self, layout: Layout, parts: list[Array]) -> Array:
        for name, part in zip(layout, parts, strict=True):
            size = layout[name].stop - layout[name].start
            check_shape(f"what the map of {name!r} returns", part, (size,))
        return np.concatenate(parts)

    def __call__(self, lam: Array) -> Array:
        x = self.layout.unpack(lam)
        return self._join(self.theta_layout, [phi(x[name]) for name, phi in self._maps.items()])

    def blame(self, lam: Array) -> str:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            theta = self.theta_layout.unpack(self(lam))
        name = next(name for name, part in theta.items() if not bool(np.isfinite(part).all()))
        return f"block {name!r}: {self._maps[name].blame(self.layout.unpack(lam)[name])}"

    def lacking(self, product: str) -> Missing | None:
        return next(filter(None, (phi.lacking(product) for phi in self._maps.values())), None)

    def vjp(self, lam: Array, h: Array) -> Array:
        x, g = self.layout.unpack(lam), self.theta_layout.unpack(h)
        parts = [phi.vjp(x[name], g[name]) for name, phi in self._maps.items()]
        return self._join(self.layout, parts)

    def jvp(self, lam: Array, dlam: Array) -> Array:
        x, d = self.layout.unpack(lam), self.layout.unpack(dlam)
        parts = [phi.jvp(x[name], d[name]) for name, phi in self._maps.items()]
        return self._join(self.theta_layout, parts)

    def __repr__(self) -> str:
        given = {n: phi for n, phi in self._maps.items() if type(phi) is not Identity}
        maps = [f"{name}={phi!r}" for name, phi in given.items()]
        more = [f"… {len(maps) - 8} more"] if len(maps) > 9 else []
        return f"Blocks({', '.join([repr(self.layout), *maps[: 8 if more else None], *more])})"
