"""The loop of `tinybilevel.problems.task_interaction`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, dot
from tinybilevel.compiled.forms import TooLarge
from tinybilevel.compiled.loops import HostLoop, Loop, quietly
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.objectives import L2Penalty, Objective, PairwisePenalty, SoftmaxRegression, Sum
from tinybilevel.objectives.base import OnBlock
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import GradientDescent

__all__ = ["InteractionOnHost", "interaction"]


@dataclass(frozen=True)
class Parts:
    """g = c ℓ + c_C Σ_{i,j} C_ij ‖w_i − w_j‖² + c_ρ ρ Σ_v ‖w_v‖², without the last column of W."""

    c: float
    loss: SoftmaxRegression
    c_pairs: float
    pairs: slice
    c_ridge: float
    ridge: slice

    def matrix(self, theta: Array) -> Array:
        """Return P of ½⟨W, P W⟩, the two penalties together."""
        V = self.loss.n_classes
        C = theta[self.pairs].reshape(V, V)
        S = C + C.T
        own = 2 * self.c_pairs * S.sum(axis=1) + 2 * self.c_ridge * theta[self.ridge]
        return np.diag(own) - 2 * self.c_pairs * S

    def add_mixed(self, gram: Array, factor: float, h: Array) -> None:
        """Add factor · ∇²_{λw} g · Σ_t α_t to h, where `gram` is Σ_t α_t W_tᵀ."""
        own = np.diag(gram)
        between = own[:, None] + own - gram - gram.T
        h[self.pairs] += 2 * factor * self.c_pairs * between.ravel()
        h[self.ridge] += 2 * factor * self.c_ridge * own.sum()


def parts(g: Objective) -> Parts | None:
    """Return those of a `task_interaction`'s lower level; None of anything else."""
    found: dict[type, tuple[float, Any, slice]] = {}
    for c, term in g.terms if type(g) is Sum else ():
        inner, block = (
            (term.objective, term.block) if type(term) is OnBlock else (term, slice(None))
        )
        if type(inner) in found:
            return None
        found[type(inner)] = c, inner, block
    if set(found) != {SoftmaxRegression, PairwisePenalty, L2Penalty}:
        return None
    c, loss, everywhere = found[SoftmaxRegression]
    c_pairs, pairwise, pairs = found[PairwisePenalty]
    c_ridge, penalty, ridge = found[L2Penalty]
    V, d = loss.n_classes, loss.n_features
    free = np.tile(np.append(np.zeros(d - 1, int), -1), V)
    fits = (
        everywhere == slice(None)
        and not loss.weighted
        and loss.whole_dense()
        and (pairwise.n_vectors, pairwise.n_features, pairwise.n_free) == (V, d, 1)
        and penalty.strength is None
        and penalty.groups is not None
        and np.array_equal(penalty.groups, free)
    )
    return Parts(c, loss, c_pairs, pairs, c_ridge, ridge) if fits else None


def interaction(
    found: Parts, problem: BilevelProblem, descent: GradientDescent, start: Array
) -> tuple[type[Loop], Any]:
    """Return the loop and its kernel."""
    from tinybilevel.kernels.coupled_softmax import CoupledSoftmax

    loss = found.loss
    n, d = loss.X.shape
    if start.any() or n > 2 * d or loss.dtype != start.dtype:
        raise TooLarge  # the Gram matrix takes one product where X takes two, and no other start
    X, z = np.ascontiguousarray(loss.X[:, :-1]), np.ascontiguousarray(loss.X[:, -1])
    gamma, scale = descent.step_size.values, found.c * loss.scale
    return InteractionOnHost, (
        found,
        CoupledSoftmax(X, z, loss.y, loss.n_classes, gamma, scale, problem.T),
    )


class InteractionOnHost(HostLoop):
    """See `tinybilevel.kernels.coupled_softmax`."""

    def alone(self) -> InteractionOnHost:
        return self

    @quietly
    def run(
        self, problem: BilevelProblem, lam: Any, K: int, start: bool = False
    ) -> Hypergradient | None:
        lam, f, (found, kernel) = problem.check(lam), self.upper, self.kernel
        theta = self.theta(lam, kernel.dtype)
        if theta is None:
            return None
        W, run = kernel.forward(found.matrix(theta), K)
        w = W.ravel()
        value, alpha, h = f.value(w, theta), f.grad(w, theta), f.grad_lam(w, theta).copy()
        gram, squares = kernel.backward(run, alpha.reshape(W.shape))
        found.add_mixed(gram, -kernel.step_size, h)
        norms = np.sqrt([dot(alpha, alpha), *squares])
        return self.result(problem, lam, value, h, w, K, norms, held=run.held)
