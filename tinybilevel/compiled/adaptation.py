"""The loop of `tinybilevel.problems.OneShot`: the last blocks of a network adapt to a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import FLOATS, bound, dot
from tinybilevel.compiled.forms import TooLarge
from tinybilevel.compiled.loops import HostLoop, Loop, quietly
from tinybilevel.engine.dynamics import Cost
from tinybilevel.layers import Conv2d, Dense, FeatureLoss, Flatten, Layer
from tinybilevel.layers.losses import CrossEntropy
from tinybilevel.layers.overlays import following
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.objectives import ProximityPenalty, Sum
from tinybilevel.objectives.base import OnBlock
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import GradientDescent
from tinybilevel.transitions.coefficient import Learned

__all__ = ["AdaptationOnHost", "adaptation", "parts"]


@dataclass(frozen=True)
class Parts:
    """g = c ℓ(network(x), y) + c_ρ Σ_j ρ_j ‖w_j − c_j‖², and where x, c, ρ and γ lie in θ."""

    scale: float
    loss: FeatureLoss
    pull: float
    x: slice
    c: slice
    rho: slice
    gamma: slice


def parts(problem: BilevelProblem) -> Parts | None:
    """Return those of a lower level like that of `problems.OneShot`; None of anything else."""
    descent = problem.transition
    if type(descent) is not GradientDescent or descent.batches is not None:
        return None
    g, gamma, start = descent.objective, descent.step_size, descent._initial._block
    terms = g.terms if type(g) is Sum and len(g.terms) == 2 else ()
    found: dict[type, tuple[float, Any, slice]] = {
        type(term.objective): (c, term.objective, term.block)
        for c, term in terms
        if type(term) is OnBlock
    }
    if set(found) != {FeatureLoss, ProximityPenalty} or type(gamma) is not Learned:
        return None
    (scale, loss, x), (pull, penalty, block) = found[FeatureLoss], found[ProximityPenalty]
    sizes = tuple(math.prod(shape) for shape in loss.network.shapes.values())
    M, begin = sum(sizes), block.start
    fits = (
        penalty.sizes == gamma.sizes == sizes
        and all(each.step in (None, 1) for each in (x, block, gamma.block))
        and start == slice(begin, begin + M)
        and type(loss.loss) is CrossEntropy
        and chain(loss.network.layers) is not None
    )
    if not fits:
        return None
    c, rho = slice(begin, begin + M), slice(begin + M, begin + penalty.n_lam)
    return Parts(scale * loss.scale, loss, pull, x, c, rho, gamma.block)


def chain(layers: Sequence[Layer]) -> list[tuple[Conv2d, dict[str, Any]]] | None:
    """Return each convolution with what follows it, where a linear head comes last."""
    found, rest = [], list(layers)
    while rest and type(rest[0]) is Conv2d:
        options, count = following(rest[1:])
        if rest[0].bias or not options.get("rectify"):
            return None
        found.append((rest[0], options))
        rest = rest[1 + count :]
    head = [type(layer) for layer in rest] == [Flatten, Dense] and rest[1].bias  # type: ignore[attr-defined]
    return found if found and head else None


def adaptation(found: Parts, problem: BilevelProblem) -> tuple[type[Loop], Any]:
    """Return the loop and its kernel."""
    from tinybilevel.kernels.adaptation import Adaptation, Block

    network = found.loss.network
    blocks = [
        Block(
            conv.channels,
            (conv.kernel_size, conv.stride, conv.padding),
            options["eps"],
            options.get("pool", 1),
        )
        for conv, options in chain(network.layers) or ()
    ]
    classes, T = network.output_shape[0], problem.T
    kernel = Adaptation(blocks, network.input_shape, found.loss.y, classes, found.scale, T)
    if not kernel.worth_it:
        raise TooLarge
    return AdaptationOnHost, (found, kernel)


class AdaptationOnHost(HostLoop):
    """See `tinybilevel.kernels.adaptation`."""

    fixed_start = False

    def alone(self) -> AdaptationOnHost:
        return self

    @quietly
    def run(
        self, problem: BilevelProblem, lam: Any, K: int, start: bool = False
    ) -> Hypergradient | None:
        found, kernel = self.kernel
        lam, phi, f = problem.check(lam), bound(self.hyper_map), bound(self.upper)
        theta = phi(lam)
        x, c = theta[found.x], theta[found.c]
        known = lam.dtype == theta.dtype in FLOATS and isinstance(theta, np.ndarray)
        if not known or x.size != found.loss.n_lam or c.size != kernel.order.size:
            return None  # for the plain code to explain
        gamma, rho = theta[found.gamma], theta.dtype.type(found.pull) * theta[found.rho]
        there = kernel.forward(x.reshape(found.loss.shape), c, rho, gamma, K)
        w = there.w
        value, alpha, h = f.value_with_grads(w, theta)
        back = there.backward(alpha, K)
        h = h.copy()
        h[found.x] += back.x.ravel()
        h[found.c] += back.c + back.alpha if start else back.c
        h[found.rho] += theta.dtype.type(found.pull) * back.rho
        h[found.gamma] += back.gamma
        norms = np.sqrt(np.append(dot(alpha, alpha), back.squares)).astype(float)
        grad = phi.vjp(lam, h).copy()
        if not all(bool(np.isfinite(part).all()) for part in (value, grad, w)):
            return None
        cost = Cost(self.T, K + start, there.held)
        kept: dict[str, Any] = {"_lower": (problem, lam.copy()), "_restless": there.restless}
        return Hypergradient(float(value), grad, w, K, norms, cost, **kept)
