"""Hyperparameter maps θ = Φ(λ): what objectives and transitions see of λ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinybilevel.backend import Array, as_count, as_float, check_shape

__all__ = [
    "Affine",
    "Blocks",
    "Compose",
    "Exp",
    "HyperMap",
    "Identity",
    "Layout",
    "Sigmoid",
    "Softplus",
]


class HyperMap:
    """θ = Φ(λ), evaluated once per hypergradient.

    The recursion gathers h in θ's space, where it is linear in the products B_t α_t, and `vjp`
    pulls it back once: ∇_λ = (∂θ/∂λ)ᵀ h. That equals pulling back at every step.

    Conventions
    -----------
    ==================  =====  ==================
    ``Φ(lam)``          (P,)   θ
    ``vjp(lam, h)``     (N,)   (∂θ/∂λ)ᵀ h
    ``jvp(lam, dlam)``  (P,)   (∂θ/∂λ) dλ
    ==================  =====  ==================

    ``P = N`` for every map but `Affine` with a matrix, `Blocks` and `Compose` that hold one.
    """

    def __call__(self, lam: Array) -> Array:
        """Return θ."""
        raise TypeError(f"{type(self).__name__} must define __call__, vjp and jvp")

    def vjp(self, lam: Array, h: Array) -> Array:
        """Return (∂θ/∂λ)ᵀ h, (N,)."""
        raise TypeError(f"{type(self).__name__} must define __call__, vjp and jvp")

    def jvp(self, lam: Array, dlam: Array) -> Array:
        """Return (∂θ/∂λ) dλ, (P,)."""
        raise TypeError(f"{type(self).__name__} must define __call__, vjp and jvp")


class Identity(HyperMap):
    """θ = λ, the default."""

    def __call__(self, lam: Array) -> Array:
        return lam

    def vjp(self, lam: Array, h: Array) -> Array:
        return h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        return dlam


class Elementwise(HyperMap):
    """θ_i = φ(λ_i): one derivative serves both products."""

    def derivative(self, lam: Array) -> Array:
        """Return φ'(λ_i), (N,)."""
        raise TypeError(f"{type(self).__name__} must define __call__ and derivative")

    def vjp(self, lam: Array, h: Array) -> Array:
        return self.derivative(lam) * h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        return self.derivative(lam) * dlam


class Sigmoid(Elementwise):
    """θ = 1 / (1 + exp(−λ)): weights in (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.Sigmoid()(np.array([0.0, -1000.0]))
    array([0.5, 0. ])
    """

    def __call__(self, lam: Array) -> Array:
        # exp of −|λ| only, so that neither sign overflows.
        e = np.exp(-np.abs(lam))
        return np.where(lam >= 0, 1, e) / (1 + e)

    def derivative(self, lam: Array) -> Array:
        e = np.exp(-np.abs(lam))
        return e / (1 + e) ** 2


class Exp(Elementwise):
    """θ = exp(λ): positive strengths and step sizes on a log scale."""

    def __call__(self, lam: Array) -> Array:
        return np.exp(lam)

    def derivative(self, lam: Array) -> Array:
        return np.exp(lam)


class Softplus(Elementwise):
    """θ = log(1 + exp(λ)): positive, and linear for large λ."""

    def __call__(self, lam: Array) -> Array:
        return np.maximum(lam, 0) + np.log1p(np.exp(-np.abs(lam)))

    def derivative(self, lam: Array) -> Array:
        return Sigmoid()(lam)


class Affine(HyperMap):
    """θ = A λ + b.

    Parameters
    ----------
    A : float, array_like (N,) or array_like (P, N)
        A number or a vector scales λ entry by entry; a matrix multiplies it.
    b : float or array_like (P,)
        Offset.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.Affine(2.0, 1.0)(np.array([0.0, 3.0]))
    array([1., 7.])
    """

    def __init__(self, A: Any = 1.0, b: Any = 0.0) -> None:
        self.A = float(A) if np.ndim(A) == 0 else as_float("A", A)
        self.b = float(b) if np.ndim(b) == 0 else as_float("b", b, ndim=1)
        if np.ndim(self.A) > 2:
            raise ValueError(f"A must be a number, a vector or a matrix, got shape {np.shape(A)}")
        if np.ndim(self.A) > 0 and np.ndim(self.b) > 0:
            check_shape("b", self.b, np.shape(self.A)[:1])

    def _apply(self, lam: Array) -> Array:
        if np.ndim(self.A) > 0:
            check_shape("lam", lam, np.shape(self.A)[-1:])
        return self.A @ lam if np.ndim(self.A) == 2 else self.A * lam

    def __call__(self, lam: Array) -> Array:
        theta = self._apply(lam)
        return theta + (check_shape("b", self.b, theta.shape) if np.ndim(self.b) else self.b)

    def vjp(self, lam: Array, h: Array) -> Array:
        return h @ self.A if np.ndim(self.A) == 2 else self.A * h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        return self._apply(dlam)


class Compose(HyperMap):
    """θ = Φ_n(… Φ_2(Φ_1(λ))): maps in the order in which they are applied."""

    def __init__(self, *maps: HyperMap) -> None:
        if not maps:
            raise ValueError("Compose needs at least one map")
        for phi in maps:
            _require_map("Compose", phi)
        self.maps = maps

    def _inputs(self, lam: Array) -> Iterator[tuple[HyperMap, Array]]:
        for phi in self.maps:
            yield phi, lam
            lam = phi(lam)

    def __call__(self, lam: Array) -> Array:
        for phi in self.maps:
            lam = phi(lam)
        return lam

    def vjp(self, lam: Array, h: Array) -> Array:
        for phi, x in reversed(list(self._inputs(lam))):
            h = phi.vjp(x, h)
        return h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        for phi, x in self._inputs(lam):
            dlam = phi.jvp(x, dlam)
        return dlam


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
            raise ValueError(f"expected a vector of shape ({self.size},), got {x.shape}")
        return {name: x[block] for name, block in self._blocks.items()}


class Blocks(HyperMap):
    """One map per named block of λ; blocks without one pass unchanged.

    Parameters
    ----------
    layout : Layout
        Blocks of λ. θ has the same blocks in the same order, so a block's map keeps its size.
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
            _require_map(name, phi)

    def _join(self, parts: list[Array]) -> Array:
        for name, part in zip(self.layout, parts, strict=True):
            size = self.layout[name].stop - self.layout[name].start
            check_shape(f"what the map of {name!r} returns", part, (size,))
        return np.concatenate(parts)

    def __call__(self, lam: Array) -> Array:
        x = self.layout.unpack(lam)
        return self._join([phi(x[name]) for name, phi in self._maps.items()])

    def vjp(self, lam: Array, h: Array) -> Array:
        x, g = self.layout.unpack(lam), self.layout.unpack(h)
        return self._join([phi.vjp(x[name], g[name]) for name, phi in self._maps.items()])

    def jvp(self, lam: Array, dlam: Array) -> Array:
        x, d = self.layout.unpack(lam), self.layout.unpack(dlam)
        return self._join([phi.jvp(x[name], d[name]) for name, phi in self._maps.items()])


def _require_map(name: str, phi: Any) -> None:
    if not isinstance(phi, HyperMap):
        raise TypeError(f"{name} takes a HyperMap such as Exp(), got {phi!r}")
