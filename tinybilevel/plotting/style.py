"""What pictures have in common: matplotlib, found late; colours that everybody can tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.errors import missing_extra

__all__ = [
    "PALETTE",
    "RIGHT",
    "WRONG",
    "axes",
    "positive",
    "require_matplotlib",
    "sequence_colors",
    "style",
]

#: The colours of Okabe and Ito (2008), which the colour-blind can tell apart; yellow left out.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
RIGHT, WRONG = PALETTE[0], PALETTE[1]

_STYLE = {
    "axes.facecolor": "white",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.facecolor": "white",
    "figure.figsize": (5.0, 3.5),
    "font.size": 10.0,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "image.interpolation": "nearest",
    "legend.fontsize": "small",
    "legend.framealpha": 0.85,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.6,
    "savefig.dpi": 150,
    "savefig.facecolor": "white",
}


def require_matplotlib() -> Any:
    """Return matplotlib, or say how to install it."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise missing_extra("figures need matplotlib", "plot", error) from error
    return matplotlib


def style() -> Any:
    """Return a context in which figures have the house's style: sizes, grid, white, colours.

    Returns
    -------
    context manager
        matplotlib's ``rc_context``; after it, the settings are what they were.

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import tinybilevel as tb
    >>> with tb.plotting.style():
    ...     figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    """
    matplotlib = require_matplotlib()
    return matplotlib.rc_context({**_STYLE, "axes.prop_cycle": matplotlib.cycler(color=PALETTE)})


def sequence_colors(count: int) -> Any:
    """Return colours from dark to light, for a series such as K = 1, 2, 5, ….

    Parameters
    ----------
    count : int
        How many.

    Returns
    -------
    ndarray (count, 4)
        RGBA, each entry in [0, 1].

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.plotting.sequence_colors(3).shape
    (3, 4)
    """
    return require_matplotlib().colormaps["plasma"](np.linspace(0, 0.85, count))


def axes(ax: Any, figsize: tuple[float, float] | None = None, **subplot: Any) -> Any:
    """Return `ax`, checked; for None the axes of a new figure."""
    if ax is None:
        require_matplotlib()
        from matplotlib import pyplot

        with style():
            return pyplot.subplots(figsize=figsize, layout="constrained", subplot_kw=subplot)[1]
    if not hasattr(ax, "set_xlabel"):
        raise TypeError(f"ax must be matplotlib axes, one of them, got {type(ax).__name__}")
    return ax


def positive(x: Any) -> Any:
    """Return `x` with NaN for what has no place on a log scale."""
    return np.where(x > 0, x, np.nan)
