"""The outer loop: minimise f(ŵ*(λ), λ) over λ with a method's hypergradients."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, as_count
from tinybilevel.errors import DivergenceError, missing_extra
from tinybilevel.methods.base import Hypergradient, Method
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.outer.bounds import Projection
from tinybilevel.outer.optimizers import Adam, Optimizer
from tinybilevel.outer.run import Run
from tinybilevel.problem import BilevelProblem

__all__ = ["OptimizeResult", "Progress", "minimize"]


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each evaluation, before λ moves.

    Attributes
    ----------
    iteration : int
        τ = 1, 2, ….
    lam : ndarray (N,)
        λ_τ, where the hypergradient was taken.
    hypergradient : Hypergradient
        What the method returned there.
    """

    iteration: int
    lam: Array
    hypergradient: Hypergradient


@dataclass(frozen=True)
class OptimizeResult:
    """What `minimize` returns.

    Attributes
    ----------
    lam : ndarray (N,)
        The hyperparameters after the last update.
    value : float
        f(ŵ*, λ) at `lam`.
    w : ndarray (M,)
        ŵ* at `lam`.
    iterations : int
        Updates made, resumed ones included.
    history : dict of str to ndarray (iterations,)
        ``value`` and ``grad_norm`` at λ_1, λ_2, … and ``seconds``, the wall-clock time of the run
        after each, earlier parts of a resumed run included.
    stopped : str
        ``"iterations"``, ``"gtol"`` or ``"callback"``.
    """

    lam: Array
    value: float
    w: Array
    iterations: int
    history: dict[str, Array]
    stopped: str


def minimize(
    problem: BilevelProblem,
    lam0: Any = None,
    method: Method | None = None,
    *,
    optimizer: Optimizer | None = None,
    iterations: int = 1000,
    bounds: Any = None,
    projection: Callable[[Array], Array] | None = None,
    warm_start: bool = False,
    gtol: float = 0.0,
    callback: Callable[[Progress], Any] | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
) -> OptimizeResult:
    """Minimise f(ŵ*(λ), λ) by following a method's hypergradients.

    Parameters
    ----------
    problem : BilevelProblem
        What to minimise.
    lam0 : array_like (N,), optional
        λ_1; by default the problem's own `lam0`.
    method : Method, optional
        By default `RMD`, the exact hypergradient.
    optimizer : Optimizer, optional
        By default ``Adam(0.1)``; `SGD` is the paper's η_0/√τ.
    iterations : int
        Updates of λ, those before a resume included.
    bounds : scipy.optimize.Bounds, N pairs, or (low, high), optional
        Box for λ, as SciPy's: `Bounds`, or a list of N pairs (low_i, high_i), None for no bound.
        Also (low, high), two numbers or two arrays (N,). What can be read in two ways is refused.
        λ_1, and λ after each update, is clipped to the box.
    projection : callable, optional
        λ → λ, applied after each update (and after `bounds`).
    warm_start : bool
        Start each lower level from the ŵ* before it, rather than from the problem's w_0. This
        changes the problem: ŵ* then depends on all earlier λ, and B_0 is taken as 0.
    gtol : float
        Stop when ‖hypergradient‖ ≤ gtol.
    callback : callable, optional
        Called with a `Progress` after each evaluation; a true value back stops the run.
    progress : bool
        Show a progress bar with the current value (needs tqdm).
    checkpoint : path-like, optional
        File that the run is saved to every `checkpoint_every` updates, at the end, and when it is
        interrupted. It is replaced as a whole, so that a kill at any moment leaves a good one.
    checkpoint_every : int
        Updates between two saves.
    resume : bool
        Continue from `checkpoint`, bit for bit, if that file exists. Without it, an existing
        file is refused rather than overwritten.

    Returns
    -------
    OptimizeResult

    Raises
    ------
    DivergenceError
        If the lower level diverges; its ``last_good`` is the last λ with a finite hypergradient.
    FileExistsError
        If `checkpoint` exists and `resume` is False.
    TypeError, ValueError
        If an argument is wrong, or the checkpoint belongs to another run.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> result = tb.minimize(
    ...     tb.problems.toy(), method=tb.KRMD(K=20), optimizer=tb.SGD(0.05), iterations=100
    ... )
    >>> result.lam.round(3)
    array([-0.   , -0.012])
    """
    method, optimizer = method or RMD(), optimizer or Adam()
    if not isinstance(method, Method):
        raise TypeError(f"method must be a Method such as KRMD(K=5), got {method!r}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an Optimizer such as Adam(0.1), got {optimizer!r}")
    iterations = as_count("iterations", iterations)
    checkpoint_every = as_count("checkpoint_every", checkpoint_every, minimum=1)
    if resume and checkpoint is None:
        raise ValueError("resume needs the checkpoint to resume from")
    lam = problem.check(lam0)
    project = Projection(bounds, projection, lam)
    run = Run(project(lam.copy()), optimizer)
    settings = f"{method!r} {optimizer!r} T={problem.T} warm_start={bool(warm_start)}"
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder; the checkpoint needs one")
    if path is not None and path.exists():
        if not resume:
            raise FileExistsError(f"{path} exists: pass resume=True to continue it, or remove it")
        run.load(path, settings)
        if run.at.iteration and not warm_start:
            _check_same_problem(problem, run, path)

    def here() -> BilevelProblem:
        return problem.starting_at(run.at.w) if warm_start and run.at.iteration else problem

    stopped = "iterations"
    started = time.perf_counter() - run.at.seconds
    bar = _bar(progress, run.at.iteration, iterations)
    try:
        while run.at.iteration < iterations:
            r = method(here(), run.at.lam)
            norm = float(np.linalg.norm(r.grad))
            told = Progress(run.at.iteration + 1, run.at.lam.copy(), r)
            if callback is not None and callback(told):
                stopped = "callback"
            elif norm <= gtol:
                stopped = "gtol"
            if stopped != "iterations":
                break
            run.update(r, norm, time.perf_counter() - started, project)
            bar.set_postfix(value=f"{r.value:.4f}", grad=f"{norm:.1e}", refresh=False)
            bar.update()
            if path is not None and run.at.iteration % checkpoint_every == 0:
                run.save(path, settings)
        # K = 0 runs the lower level alone.
        last = KRMD(K=0)(here(), run.at.lam)
    except DivergenceError as error:
        error.last_good = run.at.last_good
        raise
    finally:
        bar.close()
        if path is not None:  # also on Ctrl-C and after an error
            run.save(path, settings)
    return OptimizeResult(run.at.lam, last.value, last.w, run.at.iteration, run.arrays(), stopped)


def _check_same_problem(problem: BilevelProblem, run: Run, path: Path) -> None:
    """Refuse a checkpoint whose last value this problem does not give: other data, say."""
    here, was = KRMD(K=0)(problem, run.at.last_good).value, run.history["value"][-1]
    # Rounding may differ from one machine to another.
    if abs(here - was) > np.sqrt(np.finfo(run.at.lam.dtype).eps) * max(abs(here), abs(was)):
        raise ValueError(
            f"{path} belongs to another problem: at its last λ, f was {was:.6g}; here it is "
            f"{here:.6g}"
        )


class _NoBar:
    def set_postfix(self, **_: Any) -> None: ...

    def update(self) -> None: ...

    def close(self) -> None: ...


def _bar(progress: bool, done: int, iterations: int) -> Any:
    if not progress:
        return _NoBar()
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise missing_extra("progress=True needs tqdm", "plot", error) from error
    return tqdm(total=iterations, initial=done, desc="minimize", unit="it")
