"""Matrices between classes, as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.plotting.style import PALETTE, axes

__all__ = ["confusion", "interaction"]


def confusion(matrix: Any, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Draw a confusion matrix: counts, on the share of their row as a colour.

    Parameters
    ----------
    matrix : array_like (C, C)
        Entry (i, j) counts the examples of class i that were taken for j, as
        ``sklearn.metrics.confusion_matrix`` has them.
    names : sequence of str, optional
        What the classes are called; by default 0, 1, ….
    ax : matplotlib axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError
        If the matrix is not square, or there are not C names.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> ax = tb.plotting.confusion([[8, 2], [1, 9]], ["cat", "dog"])
    >>> [text.get_text() for text in ax.texts]
    ['8', '2', '1', '9']
    """
    matrix = _square("matrix", matrix)
    names = _names(names, len(matrix))
    size = min(2.6 + 0.36 * len(matrix), 9)
    ax = axes(ax, figsize=(size, size))
    totals = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.where(totals > 0, totals, 1)
    _heat(ax, shares, cmap="Blues", vmin=0, vmax=1)
    if len(matrix) <= 20:
        for (i, j), count in np.ndenumerate(matrix):
            color = "white" if shares[i, j] > 0.6 else "black"
            ax.text(j, i, f"{count:g}", ha="center", va="center", color=color, fontsize="small")
    every = range(len(matrix))
    ax.set_xticks(every, names, rotation=_turned(names))
    ax.set_yticks(every, names)
    ax.set(xlabel="taken for", ylabel="is")
    return ax


def interaction(
    C: Any,
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """Draw a matrix between classes as a heat map, with the classes of a group side by side.

    Parameters
    ----------
    C : array_like (V, V)
        Not negative; what `tinybilevel.problems.interactions` returns.
    names : sequence of str, optional
        What the V classes are called; by default 0, 1, ….
    groups : sequence of str, optional
        The group of each class, such as its superclass. Classes are then sorted by group and name;
        above 30 of them the groups are named instead.
    ax : matplotlib axes, optional
        Where to draw; by default in a new figure. Its figure gets a colour bar.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError
        If C is not square, or there are not V names or groups.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> C = tb.problems.interactions(np.array([0.1, 2.0, 0.3, 0.5]))
    >>> ax = tb.plotting.interaction(C, ["cat", "bus", "dog"], ["animal", "thing", "animal"])
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['cat', 'dog', 'bus']
    """
    C = _square("C", C)
    V = len(C)
    names = _names(names, V)
    if groups is not None and len(groups) != V:
        raise ValueError(f"groups must be one for each of {V} classes, got {len(groups)}")
    above = [""] * V if groups is None else list(groups)
    order = sorted(range(V), key=lambda i: (above[i], names[i] if groups is not None else i))
    size = 9 if V > 30 else 4.5 + 0.12 * V
    ax = axes(ax, figsize=(1.15 * size, size))
    image = _heat(ax, C[np.ix_(order, order)], cmap="magma_r", vmin=0)
    ax.figure.colorbar(image, ax=ax, label="$C_{ij}$", shrink=0.8)
    at, labels = [float(k) for k in range(V)], [names[i] for i in order]
    edges = [k for k in range(1, V) if above[order[k]] != above[order[k - 1]]]
    if groups is not None and V > 30:
        starts = [0, *edges]
        at = [(a + b - 1) / 2 for a, b in zip(starts, [*edges, V], strict=True)]
        labels = [above[order[k]] for k in starts]
    labels = [label.replace("_", " ") for label in labels]
    ax.set_xticks(at, labels, rotation=_turned(labels))
    ax.set_yticks(at, labels)
    ax.tick_params(labelsize=4 if len(at) > 30 else 8)
    for edge in edges:
        ax.axhline(edge - 0.5, color=PALETTE[5], linewidth=1.2)
        ax.axvline(edge - 0.5, color=PALETTE[5], linewidth=1.2)
    return ax


def _heat(ax: Any, matrix: Array, **how: Any) -> Any:
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax.imshow(matrix, interpolation="nearest", **how)


def _turned(labels: list[str]) -> int:
    return 90 if max(map(len, labels)) > 3 else 0


def _square(name: str, matrix: Any) -> Array:
    matrix = np.asarray(to_numpy(matrix))
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"{name} must be a square matrix, got shape {matrix.shape}")
    return matrix


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    names = [str(k) for k in range(count)] if names is None else [str(name) for name in names]
    if len(names) != count:
        raise ValueError(f"names must be one for each of {count} classes, got {len(names)}")
    return names
