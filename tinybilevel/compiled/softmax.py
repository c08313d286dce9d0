"""A lower level of softmax regression, or of one score, with L2 penalties, as its loop takes it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.objectives import L2Penalty, Objective, SoftmaxRegression
from tinybilevel.objectives.base import OnBlock, Sum
from tinybilevel.objectives.one_score import OneScore

__all__ = ["SoftmaxLower", "kernels_of", "softmax_lower", "with_kernels"]

#: Blocks of θ, of which each is a block of the one before.
Path = tuple[slice, ...]


@dataclass(frozen=True)
class SoftmaxLower:
    """g = s Σ_i θ_i ℓ_i(W) + Σ_k c_k Σ_j ρ_{k(j)} w_j², and where θ_i and ρ lie in θ."""

    scale: float
    loss: Any
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

    @cached_property
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


def softmax_lower(g: Objective, one_score: bool = False) -> SoftmaxLower | None:
    """Return that of an objective, also of one score if need be; None of any other."""
    losses, penalties = [], []
    for c, term, path in _terms(g):
        if type(term) is SoftmaxRegression or (one_score and _known(term)):
            losses.append((c * term.scale, term, path))
        elif type(term) is L2Penalty:
            penalties.append((c, term, path))
        else:
            return None
    if len(losses) != 1 or losses[0][1]._rows is not None:
        return None
    return SoftmaxLower(*losses[0], tuple(penalties))


def _known(g: Any) -> bool:
    """Return whether the kernels for one score know all of an objective."""
    return isinstance(g, OneScore) and bool(g.compiled) and g.X.dtype == g.dtype


def kernels_of(loss: SoftmaxRegression | OneScore) -> Any:
    """Return the kernels that are in the loss, or others for its data."""
    from tinybilevel.kernels import one_score
    from tinybilevel.kernels.softmax import Softmax

    if isinstance(loss.body, Softmax):
        return loss.body
    if isinstance(loss, SoftmaxRegression):
        return Softmax(loss.X, loss.y, loss.n_classes)
    return one_score.OneScore(loss.X, loss.y, getattr(one_score, str(loss.compiled)))


def with_kernels(f: Objective, loss: Any, kernels: Any) -> Objective:
    """Return an upper level of one score with kernels in it, those of `loss` if it has its data."""
    if not _known(f) or not f.whole_dense() or f.body is not None:  # type: ignore[attr-defined]
        return f
    same = type(f) is type(loss) and f.X is loss.X and f.y is loss.y  # type: ignore[attr-defined]
    found: Any = copy.copy(f)
    found.body = kernels if same else kernels_of(found)
    return found


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
