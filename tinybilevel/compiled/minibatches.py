"""The loop of softmax regression on minibatches, by any lower-level algorithm."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, bound, on_device
from tinybilevel.compiled.forms import TooLarge
from tinybilevel.compiled.loops import HostLoop, Loop
from tinybilevel.engine.dynamics import Cost
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.objectives import L2Penalty, Objective, SoftmaxRegression, Sum
from tinybilevel.objectives.base import OnBlock
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import (
    AdamTransition,
    GradientDescent,
    HeavyBall,
    Nesterov,
    ProximalGradient,
    Transition,
)
from tinybilevel.transitions.coefficient import (
    Coefficient,
    Learned,
    PerEntry,
    PerStep,
    PlainSequence,
)
from tinybilevel.transitions.gradient_descent import GradientTransition

__all__ = ["MinibatchesOnHost", "minibatches"]

Penalties = tuple[tuple[float, L2Penalty, slice], ...]

_ALL = slice(None)
#: Multiply-adds of a product with a batch that the plain code shares among threads; the loop has
#: one, which takes a third to two thirds of its time on one.
_LARGE = 8_000_000
#: The name in `kernels.updates` of each algorithm, and of its second coefficient.
_KINDS: dict[type, tuple[str, str | None]] = {
    GradientDescent: ("DESCENT", None),
    HeavyBall: ("HEAVY_BALL", "momentum"),
    Nesterov: ("NESTEROV", "momentum"),
    AdamTransition: ("ADAM", None),
    ProximalGradient: ("PROXIMAL", "l1"),
}


@dataclass(frozen=True)
class Parts:
    """g = c ℓ + Σ_k c_k p_k, with the blocks of θ that ℓ and each penalty p_k see."""

    scale: float
    loss: SoftmaxRegression
    block: slice
    penalties: Penalties


def parts(g: Objective) -> Parts | None:
    """Return those of a softmax regression with L2 penalties; None of anything else."""
    found: list[tuple[float, SoftmaxRegression, slice]] = []
    penalties: list[tuple[float, L2Penalty, slice]] = []
    for c, term in g.terms if type(g) is Sum else ((1.0, g),):
        inner, block = (term.objective, term.block) if type(term) is OnBlock else (term, _ALL)
        if block.step not in (None, 1):
            return None
        if type(inner) is SoftmaxRegression and inner._rows is None:
            found.append((c * inner.scale, inner, block))
        elif type(inner) is L2Penalty:
            penalties.append((c, inner, block))
        else:
            return None
    return Parts(*found[0], penalties=tuple(penalties)) if len(found) == 1 else None


def coefficients(descent: GradientTransition) -> list[Coefficient]:
    """Return γ, and μ or τ."""
    second = _KINDS[type(descent)][1]
    return [descent.step_size, *([getattr(descent, second)] if second else [])]


def minibatches(problem: BilevelProblem, descent: Transition) -> tuple[type[Loop], Any]:
    """Return the loop and what it needs.

    Raises
    ------
    TypeError
        If the lower level is of another kind.
    """
    g = descent.objective
    found = None if g is None or type(descent) not in _KINDS else parts(g)
    known = (Coefficient, PerStep, PlainSequence, PerEntry, Learned)
    if (
        found is None
        or not isinstance(descent, GradientTransition)
        or on_device(found.loss.y)
        or any(type(each) not in known for each in coefficients(descent))
    ):
        raise TypeError(
            "compile takes minibatches of a SoftmaxRegression with L2Penalty terms on the host, by "
            f"one of tinybilevel's transitions, got {descent!r}"
        )
    start = descent.fixed_start()
    if start is not None and start.dtype != found.loss.dtype:
        raise TooLarge
    from tinybilevel.kernels.batch_rows import Rows
    from tinybilevel.kernels.softmax import Softmax
    from tinybilevel.kernels.threads import threads

    loss = found.loss
    entries = loss.X.size / len(loss.y)  # of a row; of a sparse one those that are not zero
    rows_at_once = max(map(len, (descent.batches or ())[: problem.T]), default=1)
    if rows_at_once * entries * loss.n_classes >= _LARGE and threads() > 1:
        raise TooLarge
    padded = loss.body.padded if isinstance(loss.body, Softmax) else None
    rows = Rows(loss.X, loss.n_classes, padded)
    return MinibatchesOnHost, Kernel(rows, found, problem.T).following(descent)


class Kernel:
    """What the loop reads of a problem, and the loop over the batches of one outer update."""

    loop: Any

    def __init__(self, rows: Any, found: Parts, T: int) -> None:
        self.rows, self.parts, self.T = rows, found, T
        self.y, self.dtype = found.loss.y.astype(np.int64), rows.dtype
        self.weighted, self.size = found.loss.weighted, found.loss.size
        #: As functions of the columns of W where no class has strengths of its own.
        self.by_column = _by_column(found) if rows.sparse else None

    def following(self, descent: GradientTransition) -> Kernel:
        """Return the same with the batches of `descent`."""
        from tinybilevel.kernels import minibatch_loop, touched_columns, updates

        other = copy.copy(self)
        batches = minibatch_loop.Batches(
            (descent.batches or ())[: self.T], self.parts.scale, len(self.y), self.dtype
        )
        learns_ridge = any(p.strength is None for _, p, _ in self.parts.penalties)
        given = self.rows, self.y, batches, learns_ridge
        plain = type(descent) is GradientDescent and _for_all(descent.step_size)
        if plain and self.by_column is not None and self.rows.few_columns(batches.index, self.T):
            other.loop = touched_columns.TouchedColumns(*given)
        else:
            kind = getattr(updates, _KINDS[type(descent)][0])
            learns = any(part.learned for part in coefficients(descent))
            other.loop, other.by_column = minibatch_loop.MinibatchLoop(*given, kind, learns), None
        return other

    def numbers(self, descent: GradientTransition, theta: Array) -> Any:
        """Return what the loop reads of θ; None where the plain code has something to say."""
        from tinybilevel.kernels import updates
        from tinybilevel.kernels.minibatch_loop import Numbers

        weights = theta[self.parts.block] if self.weighted else np.ones(1, self.dtype)
        if self.weighted and weights.shape != self.y.shape:
            return None
        given = [_values(part, theta, self.T) for part in coefficients(descent)]
        steps = [numbers for numbers, _ in given]
        if isinstance(descent, AdamTransition):
            betas = descent.beta1, descent.beta2, descent.eps
            c = updates.adam_numbers(steps[0], *betas, descent._steps_before)
        else:
            c = np.stack([steps[0], steps[-1]], axis=1)
        ridge = np.zeros(self.size if self.by_column is None else self.rows.shape[1], self.dtype)
        for factor, penalty, block in self.penalties:
            ridge += 2 * factor * penalty._rho(ridge, theta[block])
        if self.by_column is not None:
            return Numbers(weights, ridge, c.astype(self.dtype), ridge)
        each = np.ones((2, self.size), self.dtype)
        for row, (_, entries) in zip(each, given, strict=False):
            row[:] = entries
        spread = self.rows.spread
        return Numbers(weights, spread(ridge[None])[0], c.astype(self.dtype), spread(each))

    @property
    def penalties(self) -> Penalties:
        return self.parts.penalties if self.by_column is None else self.by_column


def _by_column(found: Parts) -> Penalties | None:
    """Return the penalties as functions of one entry for each column; None if some are not."""
    penalties: list[tuple[float, L2Penalty, slice]] = []
    for factor, penalty, block in found.penalties:
        if penalty.groups is not None:
            groups = penalty.groups.reshape(found.loss.n_classes, -1)
            if (groups != groups[0]).any():
                return None
            penalty = copy.copy(penalty)
            penalty.groups = groups[0]
        penalties.append((factor, penalty, block))
    return tuple(penalties)


def _for_all(part: Coefficient) -> bool:
    """Return whether a coefficient is one fixed number for all entries of w at each step."""
    return not isinstance(part, PerEntry | Learned)


def _values(part: Coefficient, theta: Array, T: int) -> tuple[Array, Any]:
    """Return a coefficient's value at each step, and the factor of it for each entry of w."""
    if _for_all(part):
        return np.array([part(t, theta) for t in range(T)], float), 1
    return np.ones(T), part(0, theta)


class MinibatchesOnHost(HostLoop):
    """See `tinybilevel.kernels.minibatch_loop`."""

    fixed_start = False
    transition: GradientTransition

    def following(self, transition: Transition) -> Loop:
        return replace(self, kernel=self.kernel.following(transition), transition=transition)

    def run(
        self, problem: BilevelProblem, lam: Any, K: int, start: bool = False
    ) -> Hypergradient | None:
        kernel, descent, f = self.kernel, self.transition, bound(self.upper)
        lam = problem.check(lam)
        with np.errstate(over="ignore", invalid="ignore"):
            theta = self.theta(lam, kernel.dtype)
            if theta is None or (numbers := kernel.numbers(descent, theta)) is None:
                return None
            state = descent.initial(theta)
            if state.dtype != kernel.dtype or state.size != (1 + descent.n_buffers) * kernel.size:
                return None
            state, run = kernel.loop.forward(state.reshape(-1, kernel.size), numbers, K)
            value, alpha, h = f.value_with_grads(state[0], theta)
            h = np.array(h, dtype=kernel.dtype)
            alphas = np.zeros_like(state)
            alphas[0] = alpha
            weights = h[kernel.parts.block] if kernel.weighted else h[:0]
            back = kernel.loop.backward(run, alphas, weights)
            for k, part in enumerate(coefficients(descent)):
                if part.learned:
                    h += part.pull(back.along[k], theta)
            for c, penalty, block in kernel.penalties:
                if penalty.strength is None:
                    h[block] += 2 * c * penalty._per_group(back.ridge, theta[block])
            if start:
                h += descent.initial_vjp(theta, back.alpha.reshape(-1))
            norms = np.sqrt(np.append(alpha @ alpha, back.squares)).astype(float)
            grad = self.pull(lam, h)
        if not math.isfinite(value) or not np.isfinite(grad).all() or not np.isfinite(state).all():
            return None
        cost = Cost(self.T, K + start, run.held)
        kept: dict[str, Any] = {"_lower": (problem, lam.copy())}
        if descent.n_buffers:
            kept["state"] = state.reshape(-1)
        return Hypergradient(float(value), grad.copy(), state[0].copy(), K, norms, cost, **kept)
