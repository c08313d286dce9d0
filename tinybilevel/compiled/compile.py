"""Problems whose whole loop runs in compiled code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, like, moved, on_device, promote, to_numpy
from tinybilevel.compiled import adaptation
from tinybilevel.compiled.algorithm import algorithm, known, of_one_dtype, with_one_number
from tinybilevel.compiled.forms import TooLarge, dense_form, step_work, upper_form
from tinybilevel.compiled.interaction import interaction, parts
from tinybilevel.compiled.loops import (
    CleaningOnDevice,
    CleaningOnHost,
    DenseOnHost,
    Loop,
    QuadraticOnDevice,
    QuadraticOnHost,
)
from tinybilevel.compiled.minibatches import minibatches
from tinybilevel.compiled.problem import CompiledProblem
from tinybilevel.compiled.softmax import kernels_of, softmax_lower, with_kernels
from tinybilevel.errors import missing_extra
from tinybilevel.maps import Identity
from tinybilevel.objectives import Quadratic, SoftmaxRegression
from tinybilevel.problem import BilevelProblem
from tinybilevel.problems.task_stream import TaskStream
from tinybilevel.transitions import GradientDescent

__all__ = ["compile"]

#: What makes a loop, and its kernel.
Made = tuple[Callable[..., Loop], Any]

#: Entries of G from which BLAS, on two threads, multiplies by it faster than the loop.
_LARGEST_MATRIX = 250_000
#: Work of a step up to which the loop for small problems is faster than the kernels', at K = 1.
_SMALL = 3_000
#: Multiply-adds of a product from which those of a GPU's library are faster than the kernels.
_LARGEST_ON_DEVICE = 1_000_000_000


def compile(problem: BilevelProblem) -> BilevelProblem:
    """Return `problem` with its forward and backward pass as one compiled loop.

    `KRMD` and `RMD` that keep their states in a `Ring`, without `tol` or `tail`, then run it; all
    else runs as before. There are seven such loops:

    - Small problems, where the interpreter takes most of the time, by any transition of
      tinybilevel: a call takes microseconds, and `Method.batch` takes many λ at once, on all cores.
      Numba keeps this loop on disk, but not what it compiles around functions of your own: with
      these, the first call in a process takes 1.7 s, or 0.9 s if they are ``cache=True``. Larger
      problems come back as they are, since this loop would be slower than their plain code.
    - Quadratics in float64, by gradient descent with one fixed step size: their products do not
      depend on w_t, so that no state is kept. Those with a diagonal gain at any size, a matrix up
      to 500 × 500. On a GPU, a batch has a thread for each λ (there it is only the batch that is
      compiled), and `Method.batch` takes many problems at once.
    - Softmax regression, as in `problems.hypercleaning`, logistic regression and least squares, by
      any transition of tinybilevel: what their kernels do, without the interpreter between two
      steps. `Method.batch` has a thread for each λ.
      A `Nesterov` keeps the points where its gradients are taken beside its K + 1 states, an
      `AdamTransition`, a `ProximalGradient` and a learned coefficient K gradients: `cost` says so.
      The softmax of the last K steps is kept too where it is no larger than w, uncounted.
    - The same three on minibatches, by any transition of tinybilevel: the rows of each batch are
      read where they lie, by threads where a batch is large. `minimize` gives each outer update
      its batches. Sparse data of one score go the same way, whole data too.
    - `problems.task_interaction`, by the Gram matrix of its training examples: one product with it
      where X takes two forward and three back. With more examples than twice the features it comes
      back as it is.
    - `problems.OneShot` with `features_once`, by the Gram matrix of the patches that the first
      adapted kernel sees. With more patches than twice the numbers in one it comes back as it is.
    - Hypercleaning on a GPU: three launches per step, recorded as a CUDA graph at the first call
      with each K.

    Parameters
    ----------
    problem : BilevelProblem
        Any algorithm of ``tinybilevel.transitions``, with coefficients of any kind (schedules are
        read once, here), on the whole data, from any w_0. Both levels are made of `Quadratic`,
        `L2Penalty`, dense `SoftmaxRegression`, `LogisticRegression` and `LeastSquares`, what is in
        ``tinybilevel.problems``, and objectives from functions that Numba has compiled; of sums of
        these, and of these on a block of λ. Or the lower level is a `SoftmaxRegression`, a
        `LogisticRegression` or a `LeastSquares`, weighted or not, dense or sparse, with
        `L2Penalty` terms, fixed or learned, each on a block of λ if need be, at any size and under
        any upper level, on whole data or with ``batches``; that of
        `problems.task_interaction` from W = 0; or that of `problems.OneShot` with convolutions as
        in `problems.four_blocks`, without bias, under any upper level. A `TaskStream` is compiled
        task by task. On a GPU, a `Quadratic` without a `hyper_map` under an upper level of
        ``tinybilevel.problems``, a fixed `L2Penalty`, or a `Quadratic` with a diagonal G and C = 0;
        or a weighted `SoftmaxRegression` with fixed `L2Penalty` terms under an unweighted one.

    Returns
    -------
    BilevelProblem
        A `CompiledProblem`, equal to `problem`; a change to it by ``dataclasses.replace`` gives a
        plain one. Or `problem` itself, where no loop would be faster.

    Raises
    ------
    TypeError
        If the problem is not of that kind.
    ImportError
        If Numba is not installed.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> toy = tb.problems.toy()
    >>> fast = tb.compile(toy)
    >>> bool(abs(tb.KRMD(K=5)(fast).grad - tb.KRMD(K=5)(toy).grad).max() < 1e-14)
    True
    >>> values, grads = tb.KRMD(K=5).batch(fast, [[1.0, 1.0], [0.5, 0.0]])
    >>> grads.shape
    (2, 2)
    """
    if not isinstance(problem, BilevelProblem):
        raise TypeError(f"problem must be a BilevelProblem, got {problem!r}")
    if isinstance(problem, TaskStream):
        return replace(problem, made=compile)
    descent: Any = problem.transition
    if (adapted := adaptation.parts(problem)) is not None:
        return _made(problem, lambda: adaptation.adaptation(adapted, problem))
    if getattr(descent, "batches", None) is not None:
        return _made(problem, lambda: minibatches(problem, descent))
    if not known(descent):
        raise _unknown(descent)
    g, start = descent.objective, descent.fixed_start()
    special = type(g) is Quadratic and with_one_number(descent) and _special(problem, g)
    make = _quadratic if special else _cleaning_on_device if on_device(start) else _cleaning
    return _made(problem, lambda: make(problem, descent, start))


def _unknown(descent: Any) -> TypeError:
    return TypeError(
        "compile takes the algorithms of tinybilevel.transitions, with any of their coefficients, "
        f"from a w_0 whose size is known (by lam0, if need be), on a host; got {descent!r}"
    )


def _made(problem: BilevelProblem, make: Callable[[], Made]) -> BilevelProblem:
    """Return the problem with the loop that is made, or as it is where none would be faster."""
    try:
        loop, kernel = make()
    except TooLarge:
        return problem
    except ImportError as error:
        raise missing_extra("compile needs Numba", "fast", error) from error
    made = loop(kernel, problem.transition, problem.upper, problem.T, problem.hyper_map)
    parts = {part.name: getattr(problem, part.name) for part in fields(BilevelProblem)}
    return CompiledProblem(**parts, loop=made)


def _special(problem: BilevelProblem, g: Quadratic) -> bool:
    """Return whether the loop for quadratics knows the upper level too, and the dtype."""
    known = upper_form(moved(problem.upper, "numpy"), g.G.shape[0]) is not None
    if not known or type(problem.hyper_map) is not Identity:
        return False
    if on_device(g.G):
        return True
    small = g.G.ndim == 1 or g.G.size <= _LARGEST_MATRIX
    return small and promote(g.dtype, problem.upper.dtype) == np.float64


def _dense(problem: BilevelProblem, descent: Any) -> Made:
    from tinybilevel.kernels.dense_loops import DenseLoop

    start, lam0, M = descent.fixed_start(), problem.lam0, _entries(problem, descent)
    if M is None or on_device(lam0):
        raise _unknown(descent)
    held = [x for x in (descent.dtype, lam0 if start is None else start) if x is not None]
    dtype = promote(*held) if held else np.dtype(float)
    if not of_one_dtype(descent, dtype):
        raise TooLarge
    forms = []
    for level, objective in (("lower", descent.objective), ("upper", problem.upper)):
        form, data = dense_form(objective, M), upper_form(objective, M)
        if form is None and data is None:
            raise TypeError(f"compile knows no compiled form of the {level} level {objective!r}")
        forms.append(("upper", *data) if form is None else form)
    rule = algorithm(descent, problem.T, M)
    kernel = DenseLoop(*forms, M, dtype, rule.kind, rule.numbers, rule.learned)
    return partial(DenseOnHost, algorithm=rule), kernel


def _entries(problem: BilevelProblem, descent: Any) -> int | None:
    """Return how many entries w has; None where that is not known before λ is."""
    size: int | None = descent._initial.size
    if size is None and problem.lam0 is not None:
        state = descent.initial(problem.hyper_map(problem.lam0))
        size = state.size // (1 + descent.n_buffers)
    return size


def _quadratic(problem: BilevelProblem, descent: GradientDescent, start: Array) -> Made:
    g = moved(descent.objective, "numpy")
    M = g.G.shape[0]
    name, data = upper_form(moved(problem.upper, "numpy"), M)
    from tinybilevel.kernels import loops

    d = np.zeros(M) if g.d is None else g.d
    gamma = descent.step_size.values
    kernel = loops.QuadraticLoop(
        g.G, g.C, d, to_numpy(start), gamma, problem.T, getattr(loops, name), data
    )
    if not on_device(start):
        return QuadraticOnHost, kernel
    from tinybilevel.kernels.cuda_loops import LARGEST

    if M > LARGEST:
        raise TypeError(f"compile takes at most {LARGEST} entries of w on a GPU, got {M}")
    kernel.numbers = like(start, kernel.numbers.astype(start.dtype))
    return QuadraticOnDevice, kernel


def _cleaning(problem: BilevelProblem, descent: Any, start: Array) -> Made:
    if with_one_number(descent) and (coupled := parts(descent.objective)) is not None:
        return interaction(coupled, problem, descent, start)
    lower = softmax_lower(descent.objective, one_score=True)
    if lower is None:
        return _dense(problem, descent)
    if on_device(lower.loss.y):
        raise _unknown(descent)
    from tinybilevel.kernels.softmax_loop import SoftmaxLoop

    loss = lower.loss
    if not isinstance(loss, SoftmaxRegression) and not loss.whole_dense():
        return minibatches(problem, descent)
    one_dtype = of_one_dtype(descent, loss.dtype)
    # The kernels' loop takes any size and any upper level.
    with suppress(TooLarge, TypeError):
        if not one_dtype or (loss.backend != "numba" and step_work(loss) <= _SMALL):
            return _dense(problem, descent)
    if not one_dtype:
        raise TooLarge
    if start is not None and start.size != loss.size:
        raise ValueError(f"initial must have {loss.size} entries, got {start.size}")
    rule, remember = algorithm(descent, problem.T, loss.size), getattr(loss, "remember", 0)
    numbers = rule.kind, rule.numbers, lower.scale, rule.learned, remember
    kernels = kernels_of(loss)
    f = with_kernels(problem.upper, loss, kernels)
    kernel = SoftmaxLoop(kernels, *numbers, loss.weighted, lower.learned)
    return partial(CleaningOnHost, lower=lower, algorithm=rule, f=f), kernel


def _cleaning_on_device(problem: BilevelProblem, descent: GradientDescent, start: Array) -> Made:
    g, f = descent.objective, problem.upper
    lower = softmax_lower(g) if with_one_number(descent) else None
    rho = None if lower is None else lower.ridge
    if (
        lower is None
        or rho is None
        or type(f) is not SoftmaxRegression
        or f.weighted
        or not all(part.whole_dense() for part in (lower.loss, f))
        or {lower.loss.dtype, f.dtype} != {start.dtype}
    ):
        raise TypeError(
            "compile takes on a GPU a Quadratic, or a weighted SoftmaxRegression on dense data "
            f"with fixed L2Penalty terms under an unweighted one, got {g!r} under {f!r}"
        )
    loss = lower.loss
    if loss.X.size * loss.n_classes > _LARGEST_ON_DEVICE:
        raise TooLarge
    from tinybilevel.kernels import cuda

    levels = (cuda.Softmax(part.X, part.y, part.n_classes) for part in (loss, f))
    scales, gamma = (lower.scale, f.scale), descent.step_size.values
    return CleaningOnDevice, cuda.Replay(cuda.Loop(*levels, start, gamma, rho, scales, problem.T))
