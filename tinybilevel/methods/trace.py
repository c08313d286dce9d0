"""The backward pass row by row, for reading: what `RMD` and `KRMD` go through on their way."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, like
from tinybilevel.arrays.checks import as_flag, as_float
from tinybilevel.engine.dynamics import Dynamics
from tinybilevel.engine.stability import look
from tinybilevel.methods.base import Method
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.problem import BilevelProblem

__all__ = ["Trace", "Unrolled"]

_SHOWN = 32  # rows of a table; a longer one shows its two ends


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """The rows of one backward pass, from t = T back; what ``method.trace(…)`` returns.

    A row holds what there is at t, and the next row follows from it: h_{t−1} = h_t + B_t α_t and
    α_{t−1} = A_t α_t. After K steps the last is t = T − K, whose product is not taken any more;
    `RMD` adds a row t = −1 for h_{−1} = h_0 + B_0 α_0. So there are R = K + 1 rows of `KRMD` and
    R = T + 2 of `RMD`. Printed it is a table, in a notebook an HTML one;
    ``pandas.DataFrame(trace.columns)`` is a data frame.

    α_t belongs to the whole state, buffers such as a velocity included. h_t and B_t α_t are pulled
    back from θ = Φ(λ) to λ, so that h_{T−K} is what ``KRMD(K)`` returns.

    Attributes
    ----------
    t : ndarray (R,) of int
        T, T − 1, …, T − K; −1 last where the method is `RMD`.
    alpha_norms : ndarray (R,)
        ‖α_t‖; NaN at t = −1.
    product_norms : ndarray (R,)
        ‖B_t α_t‖; NaN in the last row.
    h_norms : ndarray (R,)
        ‖h_t‖.
    errors : ndarray (R,) or None
        ‖h_t − d_λ f‖, where the exact gradient is at hand.
    exact : ndarray (N,) or None
        d_λ f, that `errors` are taken from.
    result : Hypergradient
        What a call of the method returns: `value`, `grad`, `w`, ….
    method : RMD or KRMD
        The method.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> trace = tb.KRMD(K=3).trace(tb.problems.toy(), [1.0, 1.0], exact=True, keep=True)
    >>> print(trace)
    KRMD(K=3, storage=Ring()) on T = 100 steps: h_{t−1} = h_t + B_t α_t, α_{t−1} = A_t α_t
      t   ‖α_t‖  ‖B_t α_t‖   ‖h_t‖  ‖h_t − d_λ f‖
    100  15.661     1.2394       0         15.614
     99  14.490     1.1280  1.2394         14.443
     98  13.427     1.0277  2.3673         13.378
     97  12.459          —  3.3945         12.409
    >>> trace.w.shape, trace.alpha.shape, trace.h.shape
    ((4, 2), (4, 2), (4, 2))
    """

    t: Array
    alpha_norms: Array
    product_norms: Array
    h_norms: Array
    errors: Array | None
    exact: Array | None
    result: Hypergradient
    method: Method
    _kept: dict[str, Array] = field(default_factory=dict)

    @property
    def grad(self) -> Array:
        """The hypergradient (N,) that the method returns: the last h_t, and a tail if any."""
        return self.result.grad

    @property
    def w(self) -> Array:
        """w_T, w_{T−1}, …, w_{T−K}, (K + 1, S): whole states; ``transition.readout`` has their w.

        As `alpha` and `h`, it is there after ``trace(…, keep=True)``; without, an AttributeError.
        """
        return self._on_request("w")

    @property
    def alpha(self) -> Array:
        """α_T, α_{T−1}, …, α_{T−K}, (K + 1, S)."""
        return self._on_request("alpha")

    @property
    def h(self) -> Array:
        """h_T, h_{T−1}, …, by λ, (R, N); row K is what ``KRMD(K)`` returns."""
        return self._on_request("h")

    def _on_request(self, name: str) -> Array:
        if name not in self._kept:
            raise AttributeError(f"{name} was not kept: ask for method.trace(…, keep=True)")
        return self._kept[name]

    @property
    def columns(self) -> dict[str, Array]:
        """The columns (R,) of the table by their names, for a data frame or a file."""
        names = ("t", "alpha_norms", "product_norms", "h_norms", "errors")
        return {n: getattr(self, n) for n in names if getattr(self, n) is not None}

    def _caption(self) -> str:
        return (
            f"{self.method!r} on T = {self.t[0]} steps: "
            "h_{t−1} = h_t + B_t α_t, α_{t−1} = A_t α_t"
        )

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Return the heads of the columns, and the rows that are shown."""
        heads = ["t", "‖α_t‖", "‖B_t α_t‖", "‖h_t‖", "‖h_t − d_λ f‖"][: len(self.columns)]
        rows = [
            [str(t), *(_cell(x) for x in norms)]
            for t, *norms in zip(*self.columns.values(), strict=True)
        ]
        if len(rows) > _SHOWN:
            half = _SHOWN // 2
            rows = [*rows[:half], ["…"] * len(heads), *rows[-half:]]
        return heads, rows

    def __repr__(self) -> str:
        heads, rows = self._table()
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = [
            "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
            for row in (heads, *rows)
        ]
        return "\n".join([self._caption(), *lines])

    def _repr_html_(self) -> str:
        heads, rows = self._table()
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
        body = "".join(f"<tr>{''.join(f'<td>{x}</td>' for x in row)}</tr>" for row in rows)
        caption = f"<caption>{html.escape(self._caption())}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(x: float) -> str:
    return "—" if np.isnan(x) else f"{x:#.5g}" if x else "0"


class Unrolled(Method):
    """Base of the methods that go back over the steps of the dynamics."""

    def trace(
        self, problem: BilevelProblem, lam: Any = None, *, exact: Any = None, keep: bool = False
    ) -> Trace:
        """Return the backward pass row by row: t, ‖α_t‖, ‖B_t α_t‖, ‖h_t‖ and the running error.

        It is the method's own pass, watched; a map, a velocity and moments are seen to. Always step
        by step, as ``method.run``: of a problem from `tinybilevel.compile` too.

        Parameters
        ----------
        problem : BilevelProblem
            As for a call.
        lam : array_like (N,), optional
            By default the problem's `lam0`.
        exact : bool or array_like (N,), optional
            d_λ f, from which the errors are taken, or whether to find it. By default `RMD`, which
            ends with it, shows errors and `KRMD` does not; for True `KRMD` runs `RMD` as well.
            The errors hold (K + 1) N numbers until the end.
        keep : bool
            Whether to keep all w_t, α_t and h_t.

        Returns
        -------
        Trace

        Raises
        ------
        TypeError, ValueError, DivergenceError
            As a call does; if `exact` is no vector of λ's size.

        Warns
        -----
        StabilityWarning, ConvergenceWarning
            As a call does.

        Examples
        --------
        >>> import tinybilevel as tb
        >>> print(tb.RMD().trace(tb.problems.toy(T=2), [1.0, 1.0]))
        RMD(storage=Ring()) on T = 2 steps: h_{t−1} = h_t + B_t α_t, α_{t−1} = A_t α_t
         t   ‖α_t‖  ‖B_t α_t‖    ‖h_t‖  ‖h_t − d_λ f‖
         2  2.5504    0.15336        0        0.29591
         1  2.4043    0.14258  0.15336        0.14258
         0  2.2682          0  0.29591              0
        -1       —          —  0.29591              0
        """
        trace = follow(self, problem, lam, exact, as_flag("keep", keep))
        if trace.result._restless:
            look(problem, lam, trace.result.w, stacklevel=3)
        return trace

    def _exact(self, problem: BilevelProblem, lam: Array) -> Array | None:
        """Return d_λ f; None where the method's own result is it."""
        return None


def follow(method: Unrolled, problem: BilevelProblem, lam: Any, exact: Any, keep: bool) -> Trace:
    """Return the trace of a method."""
    if not isinstance(problem, BilevelProblem):
        raise TypeError(f"problem must be a BilevelProblem, got {problem!r}")
    method.require(problem)
    lam = problem.check(lam)
    wanted = method.sees_start if exact is None else exact is not False
    if wanted and not isinstance(exact, bool | None):
        exact = like(lam, as_float("exact", exact, ndim=1))
        if exact.shape != lam.shape:
            raise ValueError(f"exact must have the shape {lam.shape} of lam, got {exact.shape}")
    elif wanted:
        exact = method._exact(problem, lam)
    rows = _Rows(problem, lam, keep, wanted)
    r = rows.fill(method)
    if not wanted:
        exact = errors = None
    else:
        exact = r.grad if exact is None else exact
        errors = np.array([float(np.linalg.norm(h - exact)) for h in rows.h])
    alpha_norms = np.full(len(rows.t), np.nan)
    alpha_norms[: len(r.alpha_norms)] = r.alpha_norms
    product_norms = np.array([*rows.product_norms, np.nan])
    kept = {}
    if keep:
        w_T = r.w if r.state is None else r.state
        kept = {"w": [w_T, *rows.w], "alpha": rows.alpha, "h": rows.h}
    return Trace(
        np.array(rows.t),
        alpha_norms,
        product_norms,
        np.array(rows.h_norms),
        errors,
        exact,
        r,
        method,
        {name: np.stack(arrays) for name, arrays in kept.items()},
    )


class _Rows:
    """What is gathered as the recursion runs; `add` is its observer."""

    def __init__(self, problem: BilevelProblem, lam: Array, keep: bool, errors: bool) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            self.dynamics = Dynamics(problem, lam)
        self.keep, self.keep_h = keep, keep or errors
        self.t: list[int] = []
        self.product_norms: list[float] = []
        self.h_norms: list[float] = []
        self.w: list[Array] = []
        self.alpha: list[Array] = []
        self.h: list[Array] = []

    def fill(self, method: Unrolled) -> Hypergradient:
        with np.errstate(over="ignore", invalid="ignore"):
            return method._evaluate(self.dynamics, self.add)  # type: ignore[call-arg]

    def add(
        self, t: int, w: Array | None, alpha: Array | None, h: Array, B_alpha: Array | None
    ) -> None:
        self.t.append(t)
        if B_alpha is not None:
            self.product_norms.append(float(np.linalg.norm(self._by_lam(B_alpha))))
        grad = self._by_lam(h)
        self.h_norms.append(float(np.linalg.norm(grad)))
        if self.keep_h:
            self.h.append(grad.copy())  # an identity map returns h itself, which goes on growing
        if self.keep:
            self.w += [] if w is None else [w.copy()]
            self.alpha += [] if alpha is None else [alpha.copy()]

    def _by_lam(self, h: Array) -> Array:
        return self.dynamics.hyper_map.vjp(self.dynamics.lam, h)
