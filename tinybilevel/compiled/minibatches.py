"""The loop of softmax regression on minibatches, by any lower-level algorithm."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
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
    penalties: tuple[tuple[float, L2Penalty, slice], ...]


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
    """The loop of the kernels, and what of it belongs to the batches of one outer update."""

    def __init__(self, rows: Any, found: Parts, T: int) -> None:
        self.rows, self.parts, self.T = rows, found, T
        self.y = found.loss.y.astype(np.int64)
        self.dtype = rows.dtype

    def following(self, descent: GradientTransition) -> Kernel:
        """Return the same for another batch at each step."""
        from tinybilevel.kernels.minibatch_loop import Batches

        other = copy.copy(self)
        batches: Sequence[Array] = (descent.batches or ())[: self.T]
        other.batches = Batches(batches, self.parts.scale, len(self.y), self.dtype)
        return other

    batches: Any

    def numbers(self, descent: GradientTransition, theta: Array) -> Any:
        """Return what the loop reads of θ; None where the plain code has something to say."""
        from tinybilevel.kernels import updates
        from tinybilevel.kernels.minibatch_loop import Numbers

        loss, M, dtype = self.parts.loss, self.parts.loss.size, self.dtype
        weights = theta[self.parts.block] if loss.weighted else np.ones(1, dtype)
        if loss.weighted and weights.shape != self.y.shape:
            return None
        ridge = np.zeros(M, dtype)
        for c, penalty, block in self.parts.penalties:
            ridge += 2 * c * penalty._rho(ridge, theta[block])
        given = [_values(part, theta, self.T) for part in coefficients(descent)]
        each = np.ones((2, M), dtype)
        for row, (_, entries) in zip(each, given, strict=False):
            row[:] = entries
        steps = [each_step for each_step, _ in given]
        if isinstance(descent, AdamTransition):
            betas = descent.beta1, descent.beta2, descent.eps
            over = updates.adam_numbers(steps[0], *betas, descent._steps_before)
        else:
            over = np.stack([steps[0], steps[-1]], axis=1)
        spread = self.rows.spread
        return Numbers(weights, spread(ridge[None])[0], over.astype(dtype), spread(each))

    def loop(self, descent: GradientTransition) -> Any:
        from tinybilevel.kernels import updates
        from tinybilevel.kernels.minibatch_loop import MinibatchLoop

        kind = getattr(updates, _KINDS[type(descent)][0])
        learns = any(part.learned for part in coefficients(descent))
        learns_ridge = any(p.strength is None for _, p, _ in self.parts.penalties)
        return MinibatchLoop(self.rows, self.y, kind, learns, learns_ridge)


def _values(part: Coefficient, theta: Array, T: int) -> tuple[Array, Any]:
    """Return a coefficient's value at each step, and the factor of it for each entry of w."""
    if isinstance(part, PerEntry | Learned):
        return np.ones(T), part(0, theta)
    return np.array([part(t, theta) for t in range(T)], float), 1


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
            size = kernel.parts.loss.size
            if state.dtype != kernel.dtype or state.size != (1 + descent.n_buffers) * size:
                return None
            loop = kernel.loop(descent)
            state, run = loop.forward(state.reshape(-1, size), kernel.batches, numbers, K)
            value, alpha, h = f.value_with_grads(state[0], theta)
            h = np.array(h, dtype=kernel.dtype)
            alphas = np.zeros_like(state)
            alphas[0] = alpha
            weights = h[kernel.parts.block] if kernel.parts.loss.weighted else h[:0]
            back = loop.backward(run, alphas, weights)
            for k, part in enumerate(coefficients(descent)):
                if part.learned:
                    h += part.pull(back.along[k], theta)
            for c, penalty, block in kernel.parts.penalties:
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
