"""A lower level of softmax regression with L2 penalties, as its compiled loop takes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.objectives import L2Penalty, Objective, SoftmaxRegression
from tinybilevel.objectives.base import OnBlock, Sum

__all__ = ["SoftmaxLower", "softmax_lower"]

#: Blocks of θ, of which each is a block of the one before.
Path = tuple[slice, ...]


@dataclass(frozen=True)
class SoftmaxLower:
    """g = s Σ_i θ_i ℓ_i(W) + Σ_k c_k Σ_j ρ_{k(j)} w_j², and where θ_i and ρ lie in θ."""

    scale: float
    loss: SoftmaxRegression
    path: Path
    penalties: tuple[tuple[float, L2Penalty, Path], ...]

    @property
    def ridge(self) -> float | None:
        """Return ρ where g = s Σ_i θ_i ℓ_i(W) + ρ‖w‖², with θ the whole of it; otherwise None."""
        total = 0.0
        for c, term, _ in self.penalties:
            everywhere = term.groups is None or term.groups.min() >= 0
            if not everywhere or not isinstance(term.strength, float):
                return None
            total += c * term.strength
        return total if self.loss.weighted and not self.path else None

    @property
    def learned(self) -> bool:
        """Whether a strength lies in θ."""
        return any(term.strength is None for _, term, _ in self.penalties)

    def penalty(self, theta: Array) -> Array:
        """Return Σ_k 2 c_k ρ_{k(j)} at θ, (M,)."""
        total = np.zeros(self.loss.size, theta.dtype)
        for c, term, path in self.penalties:
            total += theta.dtype.type(2 * c) * term._rho(total, _at(theta, path))
        return total

    def weights(self, theta: Array) -> Array | None:
        """Return the θ_i, or one 1 for all; None where there are too few or too many."""
        if not self.loss.weighted:
            return np.ones(1, theta.dtype)
        weights = _at(theta, self.path)
        return np.ascontiguousarray(weights) if weights.shape == self.loss.y.shape else None

    def pull(self, per_example: Array, along: Array, h: Array) -> None:
        """Add to h what it has more by example, and by entry of w along ρ."""
        if self.loss.weighted:
            _at(h, self.path)[...] += per_example
        for c, term, path in self.penalties:
            if term.strength is None:
                _at(h, path)[...] += h.dtype.type(c) * term._per_group(along, h)


def softmax_lower(g: Objective) -> SoftmaxLower | None:
    """Return that of an objective; None of any other."""
    losses, penalties = [], []
    for c, term, path in _terms(g):
        if type(term) is SoftmaxRegression:
            losses.append((c * term.scale, term, path))
        elif type(term) is L2Penalty:
            penalties.append((c, term, path))
        else:
            return None
    if len(losses) != 1 or losses[0][1]._rows is not None:
        return None
    return SoftmaxLower(*losses[0], tuple(penalties))


def _terms(g: Objective, c: float = 1.0, path: Path = ()) -> Iterator[tuple[float, Any, Path]]:
    """Yield the terms of sums within blocks within sums."""
    if type(g) is Sum:
        for factor, term in g.terms:
            yield from _terms(term, c * factor, path)
    elif type(g) is OnBlock:
        yield from _terms(g.objective, c, (*path, g.block))
    else:
        yield c, g, path


def _at(theta: Array, path: Path) -> Array:
    for block in path:
        theta = theta[block]
    return theta
