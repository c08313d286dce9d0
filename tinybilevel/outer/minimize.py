"""The outer loop: minimise f(ŵ*(λ), λ) over λ with a method's hypergradients."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, dot
from tinybilevel.arrays.checks import as_count, call_user
from tinybilevel.errors import DivergenceError, missing_extra
from tinybilevel.methods.base import Method
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.outer.arguments import (
    check_flags,
    check_kinds,
    check_single,
    checkpoint_path,
    stops,
)
from tinybilevel.outer.bounds import Projection
from tinybilevel.outer.identity import identity
from tinybilevel.outer.optimizers import Adam, Optimizer
from tinybilevel.outer.result import OptimizeResult, Progress
from tinybilevel.outer.run import Run
from tinybilevel.outer.sketch import sketch
from tinybilevel.outer.tasks import Tasks
from tinybilevel.outer.trail import Trail
from tinybilevel.outer.watch import Watch, warn_of_zero_gradient
from tinybilevel.problem import BilevelProblem

__all__ = ["minimize"]


def minimize(
    problem: BilevelProblem | Sequence[BilevelProblem],
    lam0: Any = None,
    method: Method | None = None,
    *,
    optimizer: Optimizer | None = None,
    iterations: int = 1000,
    bounds: Any = None,
    projection: Callable[[Array], Array] | None = None,
    warm_start: bool | str = False,
    gtol: float = 0.0,
    callback: Callable[[Progress], Any] | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    keep_lam: bool | int = False,
    check_derivatives: bool = True,
    executor: Executor | None = None,
) -> OptimizeResult:
    """Minimise f(ŵ*(λ), λ) by following a method's hypergradients.

    Parameters
    ----------
    problem : BilevelProblem or sequence of them
        What to minimise; over many problems (tasks), which are functions of the same λ, the mean
        of their values, by the mean of their hypergradients. A problem with `FreshMinibatches` is
        given new ones at each update.
    lam0 : array_like (N,), optional
        λ_1; by default the problem's own `lam0`, on which many problems must agree. For many λ_1,
        `minimize_many`.
    method : Method, optional
        By default `RMD`, the exact hypergradient.
    optimizer : Optimizer, optional
        By default ``Adam(0.1)``; `SGD` is the paper's η_0/√τ.
    iterations : int
        Updates of λ, those before a resume included.
    bounds : scipy.optimize.Bounds, N pairs, or (low, high), optional
        Box for λ, as SciPy's: `Bounds`, or a list of N pairs (low_i, high_i), None for no bound.
        Also (low, high), two numbers or two arrays (N,). What can be read in two ways is refused.
        λ_1, and λ after each update, is clipped to the box. The default is the problem's own
        `bounds`; (None, None) is no box.
    projection : callable, optional
        λ → λ, applied after each update and after `bounds`, which it must keep to.
    warm_start : bool or "state"
        True: start each lower level from the ŵ* before it, rather than from the problem's w_0.
        "state": from all of w_T, so that momentum and Adam's moments, and its count of steps, go
        on as well: with λ fixed, the lower levels are one long run. Either changes the problem: ŵ*
        then depends on all earlier λ, and B_0 is taken as 0. Schedules begin anew.
    gtol : float
        Stop when ‖hypergradient‖ ≤ gtol, at least 0.
    callback : callable, optional
        Called with a `Progress` after each evaluation; True stops the run, False or None does not.
        What it is given cannot be written into.
    progress : bool
        Show a progress bar with the current value (needs tqdm).
    checkpoint : path-like, optional
        File that the run is saved to every `checkpoint_every` updates, at the end, and when it is
        interrupted, once there has been an update. It is replaced as a whole, so that a kill at any
        moment leaves a good one.
    checkpoint_every : int
        Updates between two saves.
    resume : bool
        Continue from `checkpoint`, bit for bit, if that file exists. Without it, an existing
        file is refused rather than overwritten. A file from another method, optimizer, horizon,
        warm start, box, projection, λ_1 or data is refused; `iterations`, `gtol` and `callback`
        may change, and act from the first resumed update.
    keep_lam : bool or int
        Keep λ in the history: True at every update, k at every k-th. That is N numbers each time
        (5000 of them in float32 over 1000 updates: 20 MB); beside a checkpoint they are appended
        to a file of their own, named as it with ".lam" added.
    check_derivatives : bool
        At the first evaluation, compare derivatives of your own with differences along one
        direction each, which takes a few evaluations of them.
    executor : concurrent.futures.Executor, optional
        Evaluates many problems side by side, in threads or processes (for which problems and method
        must be picklable). The results are the same.

    Returns
    -------
    OptimizeResult

    Raises
    ------
    DivergenceError
        If the lower level diverges, or an update leaves the finite numbers. Its ``last_good`` is
        the last λ with a finite hypergradient, its ``best_lam`` the one with the lowest value.
    FileExistsError
        If `checkpoint` exists and `resume` is False.
    TypeError, ValueError
        If an argument is wrong, or the checkpoint belongs to another run.

    Warns
    -----
    ConvergenceWarning
        If the first hypergradient is exactly 0.
    DerivativeWarning
        If derivatives of your own do not fit their functions.
    StabilityWarning
        If the lower level's step size is beyond what its curvature allows, at the first evaluation
        or at one with a value far above the first. Each look takes up to 80 Hessian products.
    TruncationWarning
        If w_0 depends on λ and the method leaves that out.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> result = tb.minimize(
    ...     tb.problems.toy(), method=tb.KRMD(K=20), optimizer=tb.SGD(0.05), iterations=100
    ... )
    >>> result.lam.round(3)
    array([-0.   , -0.012])
    """
    tasks = Tasks.of(problem, warm_start, executor)
    method = RMD() if method is None else method
    optimizer = Adam() if optimizer is None else optimizer
    check_kinds(lam0, method, optimizer, callback, warm_start, gtol)
    check_single(lam0)
    check_flags(progress=progress, resume=resume, check_derivatives=check_derivatives)
    iterations = as_count("iterations", iterations)
    checkpoint_every = as_count("checkpoint_every", checkpoint_every, minimum=1)
    stride = int(keep_lam) if isinstance(keep_lam, bool) else as_count("keep_lam", keep_lam)
    path = checkpoint_path(checkpoint, resume)
    lam = tasks.check(lam0)
    project = Projection(tasks.bounds if bounds is None else bounds, projection, lam)
    data = None if path is None else sketch(tasks.parts)
    run = Run(project(lam.copy()), optimizer, Trail(lam, stride), data)
    settings = {
        "method": identity(method),
        "optimizer": identity(optimizer),
        "problems": str(len(tasks.problems)),
        "T": ", ".join(str(p.T) for p in tasks.problems),
        "warm_start": repr(warm_start),
        "bounds": identity(project.box),
        "projection": identity(projection),
        "keep_lam": str(stride),
    }
    if path is not None and path.exists():
        run.load(path, settings)
        if run.at.iteration > iterations:
            raise ValueError(
                f"{path} has {run.at.iteration} updates already: iterations must be at least "
                f"that, got {iterations}"
            )
        _check_same_problem(tasks, run, path)

    watch, stopped = Watch(method, check_derivatives), "iterations"
    started = time.perf_counter() - run.at.seconds
    bar = progress_bar(progress, run.at.iteration, iterations)
    try:
        while run.at.iteration < iterations:
            tau, at = run.at.iteration + 1, run.at
            now = tasks.start(tau, at.states)
            results = tasks.evaluate(method, now, at.lam)
            r = tasks.join(results)
            norm = float(np.sqrt(dot(r.grad, r.grad)))
            check_finite(r.value, r.grad, method, at.lam)
            watch(now, at.lam, results, r.value, bool(warm_start))
            if callback is not None and stops(
                call_user("callback", callback, Progress.of(tau, at.lam, r))
            ):
                stopped = "callback"
            elif norm == 0:
                stopped = "zero gradient"
                if tau == 1:
                    warn_of_zero_gradient(method)
            elif norm <= gtol:
                stopped = "gtol"
            if stopped != "iterations":
                break
            now_seconds, states = time.perf_counter() - started, tasks.states(results)
            run.update(r.value, r.grad, norm, now_seconds, project, states)
            bar.set_postfix(value=f"{r.value:.4f}", grad=f"{norm:.1e}", refresh=False)
            bar.update()
            if path is not None and run.at.iteration % checkpoint_every == 0:
                run.save(path, settings)
        # K = 0 runs the lower level alone.
        now = tasks.start(run.at.iteration + 1, run.at.states)
        last = tasks.join(tasks.evaluate(KRMD(K=0), now, run.at.lam))
    except DivergenceError as error:
        error.last_good = run.at.last_good
        error.best_lam, error.best_value = run.at.best_lam, run.at.best_value
        raise
    finally:
        bar.close()
        # Also on Ctrl-C and after an error, but not of a run that has not begun.
        if path is not None and run.at.iteration:
            run.save(path, settings)
    return run.result(last, stopped)


def check_finite(value: float, grad: Array, method: Method, lam: Array) -> None:
    """Refuse what a method of the user's own may return."""
    if not (bool(np.isfinite(grad).all()) and np.isfinite(value)):
        norm = float(np.linalg.norm(grad))
        error = DivergenceError(
            f"{type(method).__name__} returned value {value} and a hypergradient of norm {norm}"
        )
        error.lam = lam.copy()
        raise error


def _check_same_problem(tasks: Tasks, run: Run, path: Path) -> None:
    """Refuse a checkpoint whose last value these problems do not give: other data, say."""
    at = run.at
    if at.last_good is None:
        return
    now = tasks.start(at.iteration, at.before)
    try:
        here = tasks.join(tasks.evaluate(KRMD(K=0), now, at.last_good)).value
    except (DivergenceError, ValueError) as error:
        raise ValueError(f"{path} belongs to another problem: at its last λ, {error}") from error
    was = run.history["value"][-1]
    # Rounding may differ from one machine to another.
    if not abs(here - was) <= np.sqrt(np.finfo(at.lam.dtype).eps) * max(abs(here), abs(was)):
        raise ValueError(
            f"{path} belongs to another problem: at its last λ, f was {was:.6g}; here it is "
            f"{here:.6g}"
        )


class _NoBar:
    def set_postfix(self, **_: Any) -> None: ...

    def update(self) -> None: ...

    def close(self) -> None: ...


def progress_bar(progress: bool, done: int, iterations: int) -> Any:
    """Return a bar of tqdm's, or what does nothing in its place."""
    if not progress:
        return _NoBar()
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise missing_extra("progress=True needs tqdm", "plot", error) from error
    return tqdm(total=iterations, initial=done, desc="minimize", unit="it")
