"""Many outer runs side by side: what `minimize` does from one λ_1, from each row of a matrix."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, dot, to_numpy
from tinybilevel.arrays.checks import as_count, as_float
from tinybilevel.errors import DivergenceError
from tinybilevel.methods.base import Method
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.outer.arguments import check_flags, check_kinds
from tinybilevel.outer.bounds import Projection
from tinybilevel.outer.minimize import check_finite, progress_bar
from tinybilevel.outer.optimizers import Adam, Optimizer
from tinybilevel.outer.result import OptimizeResult
from tinybilevel.outer.run import Run
from tinybilevel.outer.tasks import naming
from tinybilevel.outer.trail import Trail
from tinybilevel.outer.watch import Watch, warn_of_zero_gradient
from tinybilevel.problem import BilevelProblem

__all__ = ["OptimizeResults", "minimize_many"]


class OptimizeResults(list[OptimizeResult]):
    """What `minimize_many` returns: a list with the result of each run.

    Attributes
    ----------
    best : OptimizeResult
        That with the lowest `best_value`.
    best_index : int
        Which one it is.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> starts = [[-1.0, 1.0], [1.0, 1.0], [3.0, 3.0]]
    >>> found = tb.minimize_many(tb.problems.toy(), starts, tb.KRMD(K=20), iterations=100)
    >>> len(found), found.best_index, found.best is found[1]
    (3, 1, True)
    """

    @property
    def best_index(self) -> int:
        return int(np.argmin([r.best_value for r in self]))

    @property
    def best(self) -> OptimizeResult:
        return self[self.best_index]

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (str(k), r.stopped, str(r.iterations), f"{r.value:.6g}", f"{r.best_value:.6g}")
            for k, r in enumerate(self)
        ]

    def __repr__(self) -> str:
        rows = [_HEADS, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(f"{c:>{n}}" for c, n in zip(r, widths, strict=True)) for r in rows]
        return "\n".join([type(self).__name__, *lines])

    def _repr_html_(self) -> str:
        rows = [
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
            for tag, row in [("th", _HEADS), *(("td", row) for row in self._rows())]
        ]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><caption>{type(self).__name__}</caption>{body}</table>"


_HEADS = ("run", "stopped", "updates", "value", "best")


def minimize_many(
    problem: BilevelProblem | Sequence[BilevelProblem],
    lam0: Any = None,
    method: Method | None = None,
    *,
    optimizer: Optimizer | None = None,
    iterations: int = 1000,
    bounds: Any = None,
    projection: Callable[[Array], Array] | None = None,
    gtol: float = 0.0,
    on_divergence: str = "raise",
    progress: bool = False,
    keep_lam: bool | int = False,
    check_derivatives: bool = True,
) -> OptimizeResults:
    """Do B runs of `minimize` side by side, each as if it were alone.

    All hypergradients of an update are one `Method.batch`, which problems of `compile` run on all
    cores. The runs know nothing of each other: each has its own λ and its own optimizer's state,
    and ends for itself.

    Parameters
    ----------
    problem : BilevelProblem or sequence of B of them
        One for all runs, or one for each, such as seeds or folds. With `minimize` many problems are
        one run; here they are one run each.
    lam0 : array_like (B, N) or (N,), optional
        λ_1 of each run; of many problems also one λ_1 for all, or by default their own.
    method : Method, optional
        By default `RMD`.
    optimizer : Optimizer, optional
        By default ``Adam(0.1)``; each run has a state of its own.
    iterations : int
        Updates of each λ, at most.
    bounds : optional
        Box for each λ, as of `minimize`; by default each problem's own.
    projection : callable, optional
        λ → λ, applied to each after each update and after `bounds`.
    gtol : float
        A run ends when ‖hypergradient‖ ≤ gtol.
    on_divergence : {"raise", "stop"}
        What is to happen where a run diverges after its first update: all end with the error, or
        that one ends at its last good λ, with ``stopped="diverged"``, and the others go on.
    progress : bool
        Show one progress bar for all (needs tqdm).
    keep_lam : bool or int
        Keep each λ, or every k-th, in its history.
    check_derivatives : bool
        Check derivatives of your own at the first evaluation; of one problem for all runs once.

    Returns
    -------
    OptimizeResults
        A list of B results. The ``seconds`` of their histories are those of all runs together.

    Raises
    ------
    DivergenceError
        As by `minimize`; it says which run.
    TypeError, ValueError
        If an argument is wrong.

    Notes
    -----
    What belongs to one run has no place here: callbacks, checkpoints, warm starts and executors.
    For those call `minimize` for each run.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> fast = tb.compile(tb.problems.toy())
    >>> starts = [[-1.0, 1.0], [1.0, 1.0], [3.0, 3.0]]
    >>> options = {"optimizer": tb.SGD(0.05), "iterations": 100}
    >>> found = tb.minimize_many(fast, starts, tb.KRMD(K=20), **options)
    >>> found.best.lam.round(3)
    array([-0.   , -0.012])
    >>> alone = tb.minimize(fast, starts[0], tb.KRMD(K=20), **options)
    >>> bool((alone.lam == found[0].lam).all())
    True
    """
    method = RMD() if method is None else method
    optimizer = Adam() if optimizer is None else optimizer
    check_kinds(lam0, method, optimizer, None, False, gtol)
    check_flags(progress=progress, check_derivatives=check_derivatives)
    if on_divergence not in ("raise", "stop"):
        raise ValueError(f'on_divergence must be "raise" or "stop", got {on_divergence!r}')
    iterations = as_count("iterations", iterations)
    stride = int(keep_lam) if isinstance(keep_lam, bool) else as_count("keep_lam", keep_lam)
    problems, lams = _starts(problem, lam0)
    projects, runs, watches = [], [], []
    for k, (each, lam) in enumerate(zip(problems, lams, strict=True)):
        with naming(f"run {k}: "):
            project = Projection(each.bounds if bounds is None else bounds, projection, lam)
            runs.append(Run(project(lam.copy()), optimizer, Trail(lam, stride)))
        first = not any(each is other for other in problems[:k])
        watches.append(Watch(method, check_derivatives and first))
        projects.append(project)
    stopped = ["iterations"] * len(runs)
    started, bar = time.perf_counter(), progress_bar(progress, 0, iterations)
    try:
        for tau in range(1, iterations + 1):
            going = [k for k, why in enumerate(stopped) if why == "iterations"]
            if not going:
                break
            now = _at_iteration(problems, tau)
            found = _evaluate(method, [now[k] for k in going], [runs[k].at.lam for k in going], tau)
            for k, (value, grad) in zip(going, found, strict=True):
                run, lam = runs[k], runs[k].at.lam
                try:
                    with naming(f"run {k}: "):
                        if value is None or watches[k].wants(value):
                            r = method.unwatched(now[k], lam)
                            value, grad = r.value, r.grad
                            check_finite(value, grad, method, lam)
                            watches[k]([now[k]], lam, [r], value, False)
                        check_finite(value, grad, method, lam)
                        norm = float(np.sqrt(dot(grad, grad)))
                        if norm <= gtol:
                            stopped[k] = "gtol" if norm else "zero gradient"
                            if not norm and tau == 1:
                                warn_of_zero_gradient(method)
                            continue
                        run.update(value, grad, norm, time.perf_counter() - started, projects[k])
                except DivergenceError as error:
                    at = run.at
                    error.last_good, error.best_lam = at.last_good, at.best_lam
                    error.best_value = at.best_value
                    if on_divergence == "raise" or at.last_good is None:
                        raise
                    stopped[k], run.at = "diverged", replace(at, lam=at.last_good)
            bar.update()
    finally:
        bar.close()
    results = OptimizeResults()
    for k, (run, why) in enumerate(zip(runs, stopped, strict=True)):
        last_problem = problems[k].at_iteration(run.at.iteration + (why != "diverged"))
        # K = 0 runs the lower level alone.
        with naming(f"run {k}: "):
            last = KRMD(K=0).unwatched(last_problem, run.at.lam)
        results.append(run.result(last, why))
    return results


def _starts(problem: Any, lam0: Any) -> tuple[list[BilevelProblem], list[Array]]:
    """Return for each run its problem and λ_1."""
    one = isinstance(problem, BilevelProblem)
    if not one and not isinstance(problem, list | tuple):
        raise TypeError(f"problem must be a BilevelProblem or a list, got {problem!r}")
    for k, each in enumerate(() if one else problem):
        if not isinstance(each, BilevelProblem):
            raise TypeError(f"problem[{k}] must be a BilevelProblem, got {each!r}")
    if one:
        if lam0 is None:
            raise ValueError("lam0 must have a row for each run, (B, N), got None")
        rows: Any = as_float("lam0", lam0, ndim=2)
        problems = [problem] * len(rows)
    else:
        problems = list(problem)
        rows = [None] * len(problems)
        if lam0 is not None:
            rows = as_float("lam0", lam0)
            if rows.ndim not in (1, 2):
                raise ValueError(f"lam0 must be (B, N) or (N,), got shape {rows.shape}")
            rows = [rows] * len(problems) if rows.ndim == 1 else rows
        if len(rows) != len(problems):
            raise ValueError(
                f"lam0 must have a row for each of {len(problems)} problems, got {len(rows)}"
            )
    if not len(rows):
        raise ValueError("there must be a run: lam0 has no row")
    lams = []
    for k, (each, row) in enumerate(zip(problems, rows, strict=True)):
        with naming(f"run {k}: "):
            lams.append(each.check(row))
    if len(found := {(lam.shape, str(lam.dtype)) for lam in lams}) > 1:
        raise ValueError(f"λ_1 must be of one size and dtype in all runs, got {sorted(found)}")
    return problems, lams


def _at_iteration(problems: list[BilevelProblem], tau: int) -> list[BilevelProblem]:
    """Return the problems of update τ; one that comes twice draws its batches once."""
    now = {id(p): p for p in problems}
    now = {key: p.at_iteration(tau) for key, p in now.items()}
    return [now[id(p)] for p in problems]


def _evaluate(
    method: Method, problems: list[BilevelProblem], lams: list[Array], tau: int
) -> list[tuple[Any, Any]]:
    """Return f and the hypergradient of each run; None where it is to be looked at alone."""
    alone: list[tuple[Any, Any]] = [(None, None)] * len(lams)
    one = all(p is problems[0] for p in problems)
    # The first is looked at closely, and plain problems are taken one after the other anyway.
    if tau == 1 or type(problems[0]).evaluate_many is BilevelProblem.evaluate_many:
        return alone
    try:
        values, grads = method.batch(problems[0] if one else problems, np.stack(lams))
    except DivergenceError:
        return alone  # in its turn the one that diverges says so
    return [(float(value), grad) for value, grad in zip(to_numpy(values), grads, strict=True)]
