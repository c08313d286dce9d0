"""Grids: of images, and matrices as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.arrays.checks import as_count
from tinybilevel.plotting.style import PALETTE, RIGHT, WRONG, axes

__all__ = ["confusion", "image_grid", "interaction", "rejected_labels"]


def image_grid(
    images: Any,
    captions: Sequence[str] | None = None,
    colors: Sequence[Any] | None = None,
    *,
    columns: int = 10,
    ax: Any = None,
) -> Any:
    """Draw images row by row, dark where an entry is large, each under its caption.

    Parameters
    ----------
    images : array_like (n, height, width)
        Grey images, each drawn from its own least to its own greatest entry.
    captions : sequence of str, optional
        One for each.
    colors : sequence, optional
        Colours of the captions.
    columns : int
        Images in a row, at least 1.
    ax : matplotlib axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib axes
        With `captions` as its `texts`, in their order.

    Raises
    ------
    TypeError, ValueError
        If there is no image, or another number of captions or colours.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> digits = tb.data.digits()
    >>> images = digits.X_train[:20].reshape(-1, *digits.image_shape)
    >>> ax = tb.plotting.image_grid(images, [f"a {y}" for y in digits.y_train[:20]])
    >>> len(ax.images), ax.texts[3].get_text()
    (20, 'a 2')
    """
    images = np.asarray(to_numpy(images), float)
    if images.ndim != 3 or not len(images):
        raise ValueError(f"images must have shape (n, height, width), n > 0, got {images.shape}")
    for name, given in (("captions", captions), ("colors", colors)):
        if given is not None and len(given) != len(images):
            raise ValueError(f"{name} must be one for each of {len(images)} images: {len(given)}")
    columns = min(as_count("columns", columns, minimum=1), len(images))
    rows = -(-len(images) // columns)
    ax = axes(ax, figsize=(0.9 * columns, (1.15 if captions else 0.9) * rows + 0.3))
    # In units of one image: a gap beside it, and a taller one above it for the caption.
    step_x, step_y = 1.12, 1.4 if captions else 1.12
    for k, image in enumerate(images):
        x, y = step_x * (k % columns), step_y * (k // columns)
        least, most = image.min(), image.max()
        shown = (image - least) / ((most - least) or 1.0)
        ax.imshow(shown, cmap="gray_r", vmin=0, vmax=1, extent=(x, x + 1, y + 1, y))
        if captions is not None:
            color = "black" if colors is None else colors[k]
            ax.text(
                x + 0.5, y - 0.05, captions[k], color=color, ha="center", va="bottom",
                fontsize="small",
            )  # fmt: skip
    ax.set(xlim=(-0.1, step_x * columns), ylim=(step_y * rows - step_y + 1.1, 0.95 - step_y))
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def rejected_labels(
    images: Any,
    labels: Any,
    lam: Any,
    true: Any = None,
    *,
    count: int = 40,
    columns: int = 10,
    ax: Any = None,
) -> Any:
    """Draw the images with the smallest weights, and what they were labelled.

    Parameters
    ----------
    images : array_like (n, height, width)
        All images.
    labels : array_like (n,)
        The labels that were learned from.
    lam : array_like (n,)
        One weight for each image, before or after a map that keeps their order.
    true : array_like (n,), optional
        The right labels, where they are known: blue then is a label that was rightly distrusted,
        orange one that was right.
    count : int
        How many images to draw, at least 1.
    columns : int
        Images in a row, at least 1.
    ax : matplotlib axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError
        If there are not as many labels or weights as images.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> lam = np.array([0.3, -2.0, 0.1])
    >>> ax = tb.plotting.rejected_labels(np.eye(3)[:, None], [7, 1, 2], lam, [7, 5, 2], count=2)
    >>> [text.get_text() for text in ax.texts]
    ['1 is 5', '2 is right']
    """
    images, labels, lam = (np.asarray(to_numpy(x)) for x in (images, labels, lam))
    known = {} if true is None else {"true": np.asarray(to_numpy(true))}
    for name, given in ({"labels": labels, "lam": lam} | known).items():
        if given.shape != (len(images),):
            raise ValueError(f"{name} must have shape ({len(images)},), got {given.shape}")
    order = np.argsort(lam, kind="stable")[: as_count("count", count, minimum=1)]
    if not known:
        return image_grid(images[order], [str(labels[i]) for i in order], columns=columns, ax=ax)
    wrong = [bool(labels[i] != known["true"][i]) for i in order]
    captions = [
        f"{labels[i]} is {known['true'][i]}" if bad else f"{labels[i]} is right"
        for i, bad in zip(order, wrong, strict=True)
    ]
    colors = [RIGHT if bad else WRONG for bad in wrong]
    return image_grid(images[order], captions, colors, columns=columns, ax=ax)


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
