"""Curves: along a backward pass, along a run, against K; and memory against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.arrays.checks import as_count
from tinybilevel.bounds.bias import TruncationBound
from tinybilevel.engine.dynamics import Cost
from tinybilevel.methods.trace import Trace
from tinybilevel.outer.result import OptimizeResult
from tinybilevel.plotting.style import PALETTE, WRONG, axes

__all__ = ["learning_curve", "memory_time", "trace", "truncation_error"]


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
        ax.plot(trace.t, _positive(norms), line, label=label, linewidth=width, color=color)
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


#: How far above the errors a bound is worth its room: eq. (9) starts with 2^T.
_BEYOND = 1e3


def truncation_error(
    errors: Any,
    bounds: Mapping[str, Any] | None = None,
    *,
    K: Any = None,
    label: str = r"$\|h_{T-K} - d_\lambda f\|$",
    ax: Any = None,
    **line: Any,
) -> Any:
    """Draw the error of the truncated hypergradient against K on a log scale, under its bounds.

    Parameters
    ----------
    errors : array_like (n,), sequence of TruncationBound, or Trace
        Errors, at `K`; or what `tinybilevel.bounds.proposition_3_1` returned for some K, which
        brings its right-hand sides along; or a trace with errors, whose row t is K = T − t. Zeros,
        as at K = T, have no place on the scale and are left out, and so is what of a bound lies a
        thousand times above all errors.
    bounds : mapping of str to array_like (n,), optional
        Right-hand sides by what they are called, at the same K.
    K : array_like (n,), optional
        By default 0, 1, …, n − 1.
    label : str
        What the errors are called.
    ax : matplotlib axes, optional
        Where to draw; by default in a new figure.
    **line
        Properties of the errors' line, for ``ax.plot``.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    TypeError, ValueError
        If a trace has no errors, or there are not as many numbers as K.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy()
    >>> c = tb.bounds.measure(problem)
    >>> rows = [tb.bounds.proposition_3_1(problem, K=K, constants=c) for K in range(0, 100, 20)]
    >>> ax = tb.plotting.truncation_error(rows)
    >>> [text.get_text() for text in ax.get_legend().get_texts()[:3]]
    ['eq. (10)', 'eq. (9)', 'a posteriori']
    """
    errors, K, sides = _against_K(errors, K)
    ax = axes(ax)
    for (name, bound), dashes in zip(
        {**sides, **(bounds or {})}.items(), ("--", ":", "-.") * 9, strict=False
    ):
        bound = _as_many(f"bounds[{name!r}]", bound, K)
        ax.plot(K, _positive(bound), dashes, label=name, color=PALETTE[1 + len(ax.lines) % 6])
    line.setdefault("color", PALETTE[0])
    errors = _positive(_as_many("errors", errors, K))
    ax.plot(K, errors, label=label, **line)
    ax.set(xlabel="K", ylabel="error of the hypergradient", yscale="log")
    if np.isfinite(errors).any() and ax.get_ylim()[1] > _BEYOND * np.nanmax(errors):
        least = np.nanmin(np.concatenate([curve.get_ydata() for curve in ax.lines]))
        ax.set_ylim(least / 2, _BEYOND * np.nanmax(errors))
    ax.legend()
    return ax


def _against_K(errors: Any, K: Any) -> tuple[Any, Array, dict[str, Any]]:
    if isinstance(errors, Trace):
        if errors.errors is None:
            raise ValueError("errors must have them: ask for method.trace(…, exact=True)")
        inside = errors.t >= 0  # h_{−1} is no truncation
        return errors.errors[inside], errors.t[0] - errors.t[inside], {}
    if len(errors) and all(isinstance(row, TruncationBound) for row in errors):
        sides = {
            "eq. (10)": [row.eq_10 for row in errors],
            "eq. (9)": [row.eq_9 for row in errors],
            "a posteriori": [row.a_posteriori for row in errors],
        }
        known = {n: np.array(s, float) for n, s in sides.items() if any(x is not None for x in s)}
        return [row.error for row in errors], np.array([row.K for row in errors]), known
    return errors, np.arange(len(errors)) if K is None else np.asarray(K), {}


def _as_many(name: str, numbers: Any, K: Array) -> Array:
    numbers = np.asarray(to_numpy(numbers), float)
    if numbers.shape != K.shape:
        raise ValueError(f"{name} must have a number for each of {K.size} K, got {numbers.shape}")
    return numbers


def memory_time(
    costs: Mapping[str, Cost | tuple[float, float]],
    ax: Any = None,
) -> Any:
    """Draw what methods hold against what they run, both on log scales, a named point for each.

    Parameters
    ----------
    costs : mapping of str to Cost or (float, float)
        `Method.cost` of each, or ``result.cost``: transitions and products are added up. Or
        (seconds, bytes) that were measured; one kind for all.
    ax : matplotlib axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    TypeError
        If `costs` is empty or mixes both kinds.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy()
    >>> methods = {"ring": tb.RMD(), "√T": tb.RMD(tb.Checkpoint()), "K = 5": tb.KRMD(5)}
    >>> ax = tb.plotting.memory_time({name: m.cost(problem) for name, m in methods.items()})
    >>> [text.get_text() for text in ax.texts]
    ['ring', '√T', 'K = 5']
    """
    if not isinstance(costs, Mapping) or not costs:
        raise TypeError(f"costs must be a mapping of names to costs, got {costs!r}")
    counted = [isinstance(cost, Cost) for cost in costs.values()]
    if any(counted) and not all(counted):
        raise TypeError("costs must be counted, Cost, or measured, (seconds, bytes): not both")
    ax = axes(ax)
    for k, (name, cost) in enumerate(costs.items()):
        time, held = (
            (cost.transitions + cost.products, cost.bytes) if isinstance(cost, Cost) else cost
        )
        ax.plot(time, held, "osD^vP*"[k % 7], color=PALETTE[k % 7], markersize=7)
        ax.annotate(
            name,
            (time, held),
            xytext=(7, 5),
            textcoords="offset points",
            fontsize="small",
        )
    ax.set(
        xlabel="transitions and products run" if all(counted) else "seconds",
        ylabel="bytes of states held" if all(counted) else "bytes",
        xscale="log",
        yscale="log",
    )
    for axis in (ax.xaxis, ax.yaxis):
        _in_thousands(axis)
    ax.margins(x=0.25, y=0.15)  # room for the names
    return ax


def _in_thousands(axis: Any) -> None:
    """Label 1, 2, 5, 10, …, as 1 k, 1 M, …: on a log scale the ticks' own crowd each other."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(EngFormatter())
    axis.set_minor_formatter(NullFormatter())


def _whole(ax: Any) -> None:
    """Let the ticks below a count be whole numbers."""
    if ax.get_xscale() == "linear":
        ax.xaxis.get_major_locator().set_params(integer=True)


def _positive(x: Array) -> Array:
    return np.where(x > 0, x, np.nan)
