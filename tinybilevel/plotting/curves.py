"""Curves along a backward pass and along a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.arrays.checks import as_count
from tinybilevel.methods.trace import Trace
from tinybilevel.outer.result import OptimizeResult
from tinybilevel.plotting.style import PALETTE, WRONG, axes, positive

__all__ = ["learning_curve", "trace"]


def trace(trace: Trace, ax: Any = None) -> Any:
    """Draw the columns of a backward pass against t, which runs backward as the pass does.

    Parameters
    ----------
    trace : Trace
        What ``method.trace(problem, lam)`` returned. Zeros, such as the error of the last row, have
        no place on the log scale and are left out.
    ax : matplotlib axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    TypeError
        If `trace` is no `Trace`, or `ax` no axes.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> ax = tb.plotting.trace(tb.RMD().trace(tb.problems.toy(), [1.0, 1.0]))
    >>> len(ax.lines), ax.get_xlabel()
    (4, 't, from T back')
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"trace must be a Trace, as method.trace(…) returns, got {trace!r}")
    ax, colors = axes(ax), iter((PALETTE[0], PALETTE[2], PALETTE[6]))
    for (name, norms), label, line in zip(
        list(trace.columns.items())[1:],
        (r"$\|\alpha_t\|$", r"$\|B_t\alpha_t\|$", r"$\|h_t\|$", r"$\|h_t - d_\lambda f\|$"),
        ("-", "--", "-.", ":"),
        strict=False,
    ):
        width, color = (2.4, WRONG) if name == "errors" else (None, next(colors))
        ax.plot(trace.t, positive(norms), line, label=label, linewidth=width, color=color)
    ax.set(xlabel="t, from T back", yscale="log")
    if not ax.xaxis_inverted():
        ax.invert_xaxis()
    _whole(ax)
    ax.legend()
    return ax


_SEEN = {
    "value": r"$f(\hat w^*, \lambda)$",
    "loss": "loss",
    "accuracy": "accuracy",
    "validation_loss": "validation loss",
    "grad_norm": "‖hypergradient‖",
    "exact_grad_norm": r"$\|d_\lambda f\|$",
    "iteration": "hyper-iteration",
}


def learning_curve(
    history: Any,
    quantity: str = "value",
    *,
    against: str = "iteration",
    window: int = 1,
    ax: Any = None,
    **line: Any,
) -> Any:
    """Draw one quantity of a run against the hyper-iteration; norms on a log scale.

    Call it again with the same `ax` for another run, and ``ax.legend()`` at the end.

    Parameters
    ----------
    history : OptimizeResult, mapping or sequence of mappings
        A result, its `history`, other arrays (n,) by name, or a line for each iteration, as
        ``metrics.jsonl`` has them: lines without the quantity are skipped.
    quantity : str
        Which entry, such as ``"value"`` or ``"grad_norm"``.
    against : str
        Another entry, such as ``"seconds"``. Without iterations, they are 1, 2, ….
    window : int
        Draw means over this many points, each at the last of them.
    ax : matplotlib axes, optional
        Where to draw; by default in a new figure.
    **line
        `label`, `color` and other properties, for ``ax.plot``.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    TypeError, ValueError
        If the history is none of these or lacks an entry; the error names those that it has.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> ax = None
    >>> for K in (1, 20):
    ...     r = tb.minimize(tb.problems.toy(), method=tb.KRMD(K), iterations=20)
    ...     ax = tb.plotting.learning_curve(r, "grad_norm", label=f"K = {K}", ax=ax)
    >>> ax.legend().get_texts()[1].get_text(), ax.get_yscale()
    ('K = 20', 'log')
    """
    x, y = _columns(history, against, quantity)
    window = min(as_count("window", window, minimum=1), max(len(y), 1))
    ax = axes(ax)
    if len(y):
        means = np.convolve(y, np.full(window, 1 / window), "valid")
        ax.plot(x[window - 1 :], means, **line)
    ax.set(
        xlabel=_SEEN.get(against, against.replace("_", " ")),
        ylabel=_SEEN.get(quantity, quantity.replace("_", " ")),
    )
    if quantity.endswith("norm"):
        ax.set_yscale("log")
    if against == "iteration":
        _whole(ax)
    return ax


def _columns(history: Any, against: str, quantity: str) -> tuple[Array, Array]:
    """Return the points (n,) and (n,) of a curve."""
    if isinstance(history, OptimizeResult):
        history = history.history
    if isinstance(history, Mapping):
        found = {name: np.asarray(to_numpy(column)) for name, column in history.items()}
    elif isinstance(history, Sequence) and all(isinstance(x, Mapping) for x in history):
        lines = [line for line in history if line.get(quantity) is not None]
        names = dict.fromkeys(name for line in (lines or history) for name in line)
        found = {n: np.array([line.get(n, np.nan) for line in lines], object) for n in names}
        if not lines and not history:
            return np.empty(0), np.empty(0)
    else:
        raise TypeError(
            "history must be an OptimizeResult, arrays by name or a sequence of lines, "
            f"got {type(history).__name__}"
        )
    if against == "iteration" and quantity in found:
        found.setdefault("iteration", np.arange(1, len(found[quantity]) + 1))
    for name in (quantity, against):
        if name not in found:
            raise ValueError(f"history has no {name!r}; it has {', '.join(found) or 'nothing'}")
    return found[against].astype(float), found[quantity].astype(float)


def _whole(ax: Any) -> None:
    """Let the ticks below a count be whole numbers."""
    if ax.get_xscale() == "linear":
        ax.xaxis.get_major_locator().set_params(integer=True)
