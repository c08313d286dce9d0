"""The error of truncation against K, under its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.bounds.bias import TruncationBound
from tinybilevel.methods.trace import Trace
from tinybilevel.plotting.style import PALETTE, axes, positive

__all__ = ["truncation_error"]

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
        ax.plot(K, positive(bound), dashes, label=name, color=PALETTE[1 + len(ax.lines) % 6])
    line.setdefault("color", PALETTE[0])
    errors = positive(_as_many("errors", errors, K))
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
