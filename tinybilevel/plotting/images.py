"""Images in a grid, and those whose labels are distrusted most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import to_numpy
from tinybilevel.arrays.checks import as_count
from tinybilevel.plotting.style import RIGHT, WRONG, axes

__all__ = ["image_grid", "rejected_labels"]


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
