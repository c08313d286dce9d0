"""What methods and storages hold, against what they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinybilevel.engine.dynamics import Cost
from tinybilevel.plotting.style import PALETTE, axes

__all__ = ["memory_time"]


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
