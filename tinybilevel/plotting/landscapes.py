"""The upper level over two hyperparameters, and what moves on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.arrays.checks import as_count
from tinybilevel.methods.unrolled import KRMD
from tinybilevel.plotting.style import PALETTE, axes, sequence_colors
from tinybilevel.problem import BilevelProblem

__all__ = ["landscape"]


def landscape(
    f: BilevelProblem | Callable[[Array], float],
    lims: Any = None,
    *,
    paths: Mapping[str, Any] | None = None,
    arrows: Mapping[str, tuple[Any, Any]] | None = None,
    arrow_length: float = 0.25,
    resolution: int = 60,
    ax: Any = None,
) -> Any:
    """Draw f(ŵ*(λ), λ) over the plane of two hyperparameters: level lines, or in 3D its graph.

    Parameters
    ----------
    f : BilevelProblem or callable
        A problem with N = 2, or λ (2,) → a number. The toy takes a second, and after
        `tinybilevel.compile` none.
    lims : pair or pair of pairs, optional
        (low, high) for both λ, or one pair for each. By default 0.5 around paths and the feet of
        arrows; without them, ±3 around the origin.
    paths : mapping of str to array_like (n, 2), optional
        Iterates λ_1, λ_2, …, by what they are called; coloured from dark to light.
    arrows : mapping of str to (array_like, array_like), optional
        (where, direction), each (2,) or (n, 2), by what they are called: for gradient descent the
        direction is minus the gradient. All are drawn to one scale.
    arrow_length : float
        Length of the longest arrow, as a share of the picture's width.
    resolution : int
        Evaluations along each axis, at least 2.
    ax : matplotlib axes, optional
        Where to draw; by default in a new figure. On 3D axes (``projection="3d"``) it is the graph
        alone, without paths or arrows.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    TypeError, ValueError
        If `f` is neither, or sizes are wrong.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem, lam = tb.problems.toy(), [1.0, 1.0]
    >>> arrows = {
    ...     "exact": (lam, -tb.RMD()(problem, lam).grad),
    ...     "K = 5": (lam, -tb.KRMD(K=5)(problem, lam).grad),
    ... }
    >>> ax = tb.plotting.landscape(problem, (-2, 2), arrows=arrows, resolution=20)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['exact', 'K = 5']
    """
    if not callable(f) and not isinstance(f, BilevelProblem):
        raise TypeError(f"f must be a BilevelProblem or a function of λ, got {f!r}")
    walks = {name: _points(f"paths[{name!r}]", at) for name, at in (paths or {}).items()}
    given = {
        name: (_points(f"arrows[{name!r}][0]", at), _points(f"arrows[{name!r}][1]", by))
        for name, (at, by) in (arrows or {}).items()
    }
    ax = axes(ax)
    solid = ax.name == "3d"
    if solid and (walks or given):
        raise ValueError("paths and arrows lie in the plane: ax must not be 3D axes")
    low, high = _limits(lims, [*walks.values(), *(at for at, _ in given.values())])
    resolution = as_count("resolution", resolution, minimum=2)
    x, y = np.linspace(low, high, resolution).T
    values = _values(f, np.array([[a, b] for b in y for a in x])).reshape(resolution, -1)
    ax.set(xlabel=r"$\lambda_1$", ylabel=r"$\lambda_2$")
    if solid:
        ax.plot_surface(
            *np.meshgrid(x, y), values, cmap="viridis", linewidth=0, rcount=80, ccount=80
        )
        return ax
    ax.grid(False)
    ax.contourf(x, y, values, levels=24, cmap="Greys", alpha=0.55)
    for color, (name, lam) in zip(sequence_colors(len(walks)), walks.items(), strict=True):
        ax.plot(*lam.T, "o-", color=color, markersize=3, linewidth=1, label=name)
    # The colours of paths hold orange and blue.
    colors = PALETTE[2::-1] if walks else PALETTE[1::-1] + PALETTE[2:]
    _draw(ax, given, arrow_length * float(high[0] - low[0]), colors)
    # Only where both axes have one scale is a gradient seen to cross its level line squarely.
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal")
    if walks or given:
        ax.legend()
    return ax


def _values(f: Any, lams: Array) -> Array:
    if isinstance(f, BilevelProblem):
        return to_numpy(KRMD(K=0).batch(f, lams)[0])
    return np.array([float(f(lam)) for lam in lams])


def _points(name: str, x: Any) -> Array:
    x = np.atleast_2d(np.asarray(x, float))
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"{name} must have two numbers a row, got shape {x.shape}")
    return x


def _limits(lims: Any, points: list[Array]) -> tuple[Array, Array]:
    """Return the lower left and the upper right corner."""
    if lims is None and points:
        stacked = np.concatenate(points)
        return stacked.min(axis=0) - 0.5, stacked.max(axis=0) + 0.5
    try:
        corners = np.broadcast_to(np.asarray((-3, 3) if lims is None else lims, float), (2, 2))
    except ValueError:
        raise ValueError(f"lims must be (low, high), or one for each λ, got {lims!r}") from None
    if not (corners[:, 0] < corners[:, 1]).all():
        raise ValueError(f"lims must be (low, high) with low < high, got {lims!r}")
    return corners[:, 0], corners[:, 1]


def _draw(ax: Any, arrows: Mapping[str, tuple[Array, Array]], longest: float, colors: Any) -> None:
    sizes = [np.linalg.norm(by, axis=1).max() for _, by in arrows.values()]
    scale = max(sizes, default=0) / longest or 1.0
    for k, (name, (at, by)) in enumerate(arrows.items()):
        at, by = np.broadcast_arrays(at, by)
        ax.quiver(
            *at.T,
            *by.T,
            angles="xy",
            scale_units="xy",
            scale=scale,
            width=0.011,
            edgecolor="white",
            linewidth=0.6,
            color=colors[k % len(colors)],
            label=name,
            zorder=3,
        )
