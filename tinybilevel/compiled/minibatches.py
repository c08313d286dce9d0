"""The loop of softmax regression or one score on minibatches, by any lower-level algorithm.

A sparse X with one score goes the same way, with all rows in every step.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, bound, dot, on_device, promote
from tinybilevel.compiled.algorithm import Algorithm, algorithm, known, of_one_dtype
from tinybilevel.compiled.forms import TooLarge
from tinybilevel.compiled.loops import HostLoop, Loop, quietly
from tinybilevel.compiled.softmax import SoftmaxLower, softmax_lower
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.objectives import SoftmaxRegression
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import GradientDescent, Transition

__all__ = ["MinibatchesOnHost", "minibatches"]


def minibatches(problem: BilevelProblem, descent: Any) -> tuple[Any, Any]:
    """Return the loop and its kernel.

    Raises
    ------
    TypeError
        If the lower level is of another kind.
    """
    lower = softmax_lower(descent.objective, one_score=True) if known(descent) else None
    if lower is None or on_device(lower.loss.y):
        raise TypeError(
            "compile takes minibatches of a SoftmaxRegression, LogisticRegression or LeastSquares "
            "with L2Penalty terms on the host, by one of tinybilevel's transitions, got "
            f"{descent!r}"
        )
    from tinybilevel.kernels import one_score
    from tinybilevel.kernels.batch_rows import Rows
    from tinybilevel.kernels.softmax import Softmax

    loss = lower.loss
    softmax = isinstance(loss, SoftmaxRegression)
    n_classes = loss.n_classes if softmax else 1
    if not of_one_dtype(descent, loss.dtype):
        raise TooLarge
    if softmax:
        padded = loss.body.padded if isinstance(loss.body, Softmax) else None
        rows, y = Rows(loss.X, n_classes, padded), loss.y.astype(np.int64)
    else:
        kind = getattr(one_score, str(loss.compiled))
        rows = Rows(loss.X, 1, loss=kind, targets=loss.y)
        y = np.zeros(len(loss.y), np.int64)  # its targets are with the rows
    columns = by_column(lower) if rows.sparse and softmax else None
    data = Data(rows, y, lower, columns, problem.T)
    rule = algorithm(descent, problem.T, loss.size)
    return partial(MinibatchesOnHost, data=data, rule=rule), data.loop(descent, rule)


@dataclass(frozen=True)
class Data:
    """What stays the same from one outer update to the next."""

    rows: Any
    y: Array
    lower: SoftmaxLower
    by_column: SoftmaxLower | None
    T: int

    def loop(self, descent: Any, rule: Algorithm) -> Any:
        """Return the kernel that runs the batches of `descent`."""
        from tinybilevel.kernels import minibatch_loop, touched_columns

        rows, of = self.rows, (self.lower.scale, len(self.y), self.rows.dtype)
        if descent.batches is None:
            batches = minibatch_loop.Batches.whole(self.T, *of)
        else:
            batches = minibatch_loop.Batches(descent.batches[: self.T], *of)
        given = rows, self.y, batches, self.lower.learned
        simple = type(descent) is GradientDescent and rule.uniform
        if simple and rows.few_columns(batches.index, self.T) and self.by_column is not None:
            return touched_columns.TouchedColumns(*given)
        return minibatch_loop.MinibatchLoop(*given, rule.kind, rule.learned)


def by_column(lower: SoftmaxLower) -> SoftmaxLower | None:
    """Return the penalties as of one class, where no class has strengths of its own; or None."""
    loss, penalties = copy.copy(lower.loss), []
    for c, penalty, path in lower.penalties:
        if penalty.groups is not None:
            if penalty.groups.size != lower.loss.size:
                return None
            groups = penalty.groups.reshape(loss.n_classes, -1)
            if (groups != groups[0]).any():
                return None
            penalty = copy.copy(penalty)
            penalty.groups = groups[0]
        penalties.append((c, penalty, path))
    loss.n_classes = 1
    return replace(lower, loss=loss, penalties=tuple(penalties))


@dataclass(frozen=True)
class MinibatchesOnHost(HostLoop):
    """See `tinybilevel.kernels.minibatch_loop` and `tinybilevel.kernels.touched_columns`."""

    data: Data
    rule: Algorithm

    fixed_start = False

    def alone(self) -> MinibatchesOnHost:
        return replace(self, kernel=self.kernel.alone())

    def following(self, transition: Transition) -> Loop:
        kernel = self.data.loop(transition, self.rule)
        return replace(self, kernel=kernel, transition=transition)

    @quietly
    def run(
        self, problem: BilevelProblem, lam: Any, K: int, start: bool = False
    ) -> Hypergradient | None:
        data, rule, kernel, f = self.data, self.rule, self.kernel, bound(self.upper)
        size, dtype = data.lower.loss.size, data.rows.dtype
        lam = problem.check(lam)
        theta = self.theta(lam, dtype)
        numbers = None if theta is None else self._numbers(theta)
        if theta is None or numbers is None:
            return None
        state = self.transition.initial(theta)
        if promote(state, theta) != dtype or state.size != (1 + self.transition.n_buffers) * size:
            return None
        state, run = kernel.forward(state.astype(dtype).reshape(-1, size), numbers, K)
        value, alpha, h = f.value_with_grads(state[0], theta)
        h = h.astype(promote(h, theta))
        alphas, per_example = np.zeros_like(state), np.zeros(len(data.y), dtype)
        alphas[0] = alpha
        back = kernel.backward(
            run, alphas, per_example if data.lower.loss.weighted else per_example[:0]
        )
        self._strengths.pull(per_example, 2 * back.ridge, h)
        rule.pull(back.along, theta, h)
        if start:
            h += self.transition.initial_vjp(theta, back.alpha.reshape(-1))
        norms = np.sqrt(np.append(dot(alpha, alpha), back.squares))
        whole = state.reshape(-1) if len(state) > 1 else None
        w = state[0].copy()
        more = run.held, whole, start, run.restless
        return self.result(problem, lam, float(value), h, w, K, norms, *more)

    @property
    def _strengths(self) -> SoftmaxLower:
        """What the kernel takes the strengths of: each entry of w, or each column."""
        by_column = self.data.by_column if self.kernel.by_column else None
        return self.data.lower if by_column is None else by_column

    def _numbers(self, theta: Array) -> Any:
        """Return what the kernel reads of θ; None where θ does not fit."""
        from tinybilevel.kernels.minibatch_loop import Numbers

        rows, rule = self.data.rows, self.rule
        weights, ridge, each = self.data.lower.weights(theta), self._strengths.penalty(theta), None
        if weights is None:
            return None
        if not self.kernel.by_column:
            ridge = rows.spread(ridge[None])[0]
            each = rule.at(theta)
            if each is None:
                return None
            each = rows.spread(each)
        return Numbers(weights, ridge, rule.numbers.astype(rows.dtype), each)
