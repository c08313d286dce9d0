"""A problem's compiled loop, and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, dot, on_device, promote, to_numpy
from tinybilevel.arrays.checks import check_shape
from tinybilevel.compiled.algorithm import Algorithm
from tinybilevel.compiled.softmax import SoftmaxLower
from tinybilevel.engine.dynamics import Cost
from tinybilevel.maps import HyperMap, Identity
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.objectives import Objective
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import Transition

__all__ = [
    "CleaningOnDevice",
    "CleaningOnHost",
    "DenseOnHost",
    "Loop",
    "QuadraticOnDevice",
    "QuadraticOnHost",
    "quietly",
    "together",
]

#: Of all that a loop does: what is not finite is looked for once, at the end, and explained by the
#: plain code.
quietly = np.errstate(over="ignore", invalid="ignore")

#: Costs can be shared: making one takes a tenth of a call on the smallest problems.
_cost = lru_cache(Cost)


@dataclass(frozen=True)
class Loop:
    """A kernel that runs the whole of one problem's forward and backward pass."""

    kernel: Any
    transition: Transition
    upper: Objective
    T: int
    hyper_map: HyperMap

    #: Whether w_0 is an array, so that there is no B_0 α_0.
    fixed_start = True

    def runs(self, problem: BilevelProblem) -> bool:
        """Return whether this is still the problem that was compiled."""
        same = (
            getattr(self, n) is getattr(problem, n) for n in ("transition", "upper", "hyper_map")
        )
        return all(same) and self.T == problem.T

    def alone(self) -> Loop | None:
        """Return a loop whose `run` keeps to the calling thread, so that others run beside it."""
        return None

    def following(self, transition: Transition) -> Loop:
        """Return the loop of the same problem with the batches of another outer update.

        Here it is this one still, which does not run them.
        """
        return self

    def run(
        self, problem: BilevelProblem, lam: Any, K: int, start: bool = False
    ) -> Hypergradient | None:
        """Return what the loop finds; None where the plain code is to run, or to explain.

        With B_0 α_0 where `start` says so.
        """
        return None

    def batch(self, lams: Array, K: int) -> tuple[Array, Array] | None:
        """Return values and hypergradients at each row of `lams`, or None likewise."""
        return None

    def batch_over(self, loops: Sequence[Loop], lams: Array, K: int) -> tuple[Array, Array] | None:
        """Return those of each loop at a row of its own, or None likewise."""
        return None


class QuadraticOnHost(Loop):
    """See `tinybilevel.kernels.loops`."""

    def run(
        self, problem: BilevelProblem, lam: Any, K: int, start: bool = False
    ) -> Hypergradient | None:
        kernel = self.kernel
        lam = problem.lam0 if lam is None else lam
        if type(lam) is not np.ndarray or lam.dtype != np.float64 or lam.shape != (kernel.N,):
            lam = problem.check(lam)
            if lam.dtype != np.float64 or lam.shape != (kernel.N,):
                return None
        w, grad, norms = np.empty(kernel.M), np.empty(kernel.N), np.empty(K + 1)
        value = kernel(lam, K, w, grad, norms)
        if not math.isfinite(value):
            return None
        cost = _cost(self.T, K, 2 * w.nbytes)
        return Hypergradient(value, grad, w, K, norms, cost, _lower=(problem, lam.copy()))

    def batch(self, lams: Array, K: int) -> tuple[Array, Array] | None:
        if on_device(lams) or lams.dtype != np.float64:
            return None
        values, grads = np.empty(len(lams)), np.empty(lams.shape)
        self.kernel.batch(np.ascontiguousarray(lams), K, values, grads)
        return _if_finite(values, grads)

    def batch_over(self, loops: Sequence[Loop], lams: Array, K: int) -> tuple[Array, Array] | None:
        kernels = [loop.kernel for loop in loops if isinstance(loop, QuadraticOnHost)]
        one_kind = len(kernels) == len(loops) and len({k.sizes for k in kernels}) == 1
        if not one_kind or lams.dtype != np.float64 or lams.shape[1] != self.kernel.N:
            return None
        values, grads = np.empty(len(lams)), np.empty(lams.shape)
        self.kernel.batch_over(kernels, np.ascontiguousarray(lams), K, values, grads)
        return _if_finite(values, grads)


class HostLoop(Loop):
    """A loop that sees θ; λ and its map stay outside."""

    def theta(self, lam: Array, dtype: Any) -> Array | None:
        """Return θ where all is of one dtype: compiled code looks at none."""
        theta = self.hyper_map(lam)
        if (
            not lam.dtype
            == theta.dtype
            == dtype
            == promote(theta, self.transition.dtype, self.upper.dtype)
        ):
            return None
        # Numba would compile for one that is read-only, as `lam0` is, once more.
        return theta if theta.flags.carray else np.require(theta, requirements=["C", "W"])

    def result(
        self,
        problem: BilevelProblem,
        lam: Array,
        value: float,
        h: Array,
        w: Array,
        K: int,
        norms: Any,
        held: int | None = None,
        state: Array | None = None,
        start: bool = False,
        restless: bool = False,
    ) -> Hypergradient | None:
        """Pull h back to λ; None where anything is not finite. By default K + 1 states are held."""
        grad, last = self.pull(lam, h), w if state is None else state
        if not math.isfinite(value) or not np.isfinite(grad).all() or not np.isfinite(last).all():
            return None
        cost = _cost(self.T, K + start, (max(K, 1) + 1) * w.nbytes if held is None else held)
        norms = np.asarray(norms, float)
        kept: dict[str, Any] = {"state": state, "_lower": (problem, lam.copy())}
        return Hypergradient(value, grad, w, K, norms, cost, **kept, _restless=restless)

    def pull(self, lam: Array, h: Array) -> Array:
        return check_shape("the vjp of hyper_map", self.hyper_map.vjp(lam, h), lam.shape)


@dataclass(frozen=True)
class ByAlgorithm(HostLoop):
    """A loop that takes any algorithm, whose w_0 and coefficients may lie in θ."""

    algorithm: Algorithm

    @property
    def fixed_start(self) -> bool:  # type: ignore[override]
        """See `Loop`."""
        return self.transition.fixed_start() is not None

    def start(self, theta: Array, M: int) -> Array | None:
        """Return w_0 and its buffers, a row each; None where it is not of that size and dtype."""
        state = self.transition.initial(theta)
        fits = (
            promote(state, theta) == theta.dtype
            and state.size == (1 + self.transition.n_buffers) * M
        )
        return state.reshape(-1, M) if fits else None


@dataclass(frozen=True)
class DenseOnHost(ByAlgorithm):
    """See `tinybilevel.kernels.dense_loops`."""

    _fixed: list[Array] = field(default_factory=list, repr=False)

    @quietly
    def run(
        self, problem: BilevelProblem, lam: Any, K: int, start: bool = False
    ) -> Hypergradient | None:
        kernel, lam = self.kernel, problem.check(lam)
        theta = self.theta(lam, kernel.dtype)
        given = None if theta is None else self._given(theta)
        if theta is None or given is None:
            return None
        found = kernel(theta, K, given)
        h = found.h
        if self.algorithm.learned:
            self.algorithm.pull(found.along, theta, h)
        if start:
            h += self.transition.initial_vjp(theta, found.alpha.reshape(-1))
        w = found.state[0].copy()
        whole = found.state.reshape(-1) if len(found.state) > 1 else None
        more = kernel.held(K), whole, start, found.restless
        return self.result(problem, lam, found.value, h, w, K, found.norms, *more)

    @quietly
    def batch(self, lams: Array, K: int) -> tuple[Array, Array] | None:
        if not self.fixed_start or self.algorithm.learned:
            return None  # one by one
        direct = type(self.hyper_map) is Identity
        thetas = [self.theta(lam, self.kernel.dtype) for lam in (lams[:1] if direct else lams)]
        if any(theta is None for theta in thetas):
            return None
        stacked: Array = np.ascontiguousarray(lams if direct else thetas)
        given = self._given(stacked[0]) if len(stacked) else None
        if given is None:
            return None
        values, grads = self.kernel.batch(stacked, K, given)
        if not direct:
            grads = np.stack([self.pull(lam, h) for lam, h in zip(lams, grads, strict=True)])
        return _if_finite(values.astype(float), grads)

    def _given(self, theta: Array) -> Array | None:
        """Return w_0, its buffers, and the factors of each entry: once, where none are learned."""
        if self._fixed:
            return self._fixed[0]
        start, each = self.start(theta, self.kernel.M), self.algorithm.at(theta)
        if start is None or each is None:
            return None
        given: Array = np.concatenate([start, each]).astype(theta.dtype)
        if self.fixed_start and not self.algorithm.learned:
            self._fixed.append(given)
        return given

    def theta(self, lam: Array, dtype: Any) -> Array | None:
        theta = super().theta(lam, dtype)
        if theta is not None and theta.shape not in self.kernel.fits:
            # The plain bodies look at the sizes, and say what is wrong with them.
            state = self.transition.initial(theta)
            self.transition.step(0, state, theta)
            self.transition.vjp(0, state, theta, state)
            w = self.transition.readout(state)
            self.upper.grad(w, theta)
            self.upper.grad_lam(w, theta)
            self.kernel.fits.add(theta.shape)
        return theta


@dataclass(frozen=True)
class CleaningOnHost(ByAlgorithm):
    """See `tinybilevel.kernels.softmax_loop`."""

    lower: SoftmaxLower
    f: Objective  # the upper level as it is computed
    _fixed: dict[str, Array] = field(default_factory=dict, repr=False)

    @quietly
    def run(
        self, problem: BilevelProblem, lam: Any, K: int, start: bool = False
    ) -> Hypergradient | None:
        lam, kernel, f = problem.check(lam), self.kernel, self.f
        theta = self.theta(lam, kernel.lower.dtype)
        inputs = None if theta is None else self._inputs(theta)
        if theta is None or inputs is None:
            return None
        state, run = kernel.forward(*inputs, K)
        w = state[0].copy()
        value, alpha, h = f.value_with_grads(w, theta)
        h = h.astype(promote(h, theta))
        norms = np.empty(K + 1)
        norms[0] = dot(alpha, alpha)
        norms[1:] = self._back(kernel, run, alpha, theta, h, start)
        norms = np.sqrt(norms, out=norms)
        whole = state.reshape(-1) if len(state) > 1 else None
        more = run.held, whole, start, run.restless
        return self.result(problem, lam, value, h, w, K, norms, *more)

    def batch(self, lams: Array, K: int) -> tuple[Array, Array] | None:
        return self.batch_over([self] * len(lams), lams, K)

    @quietly
    def batch_over(self, loops: Sequence[Loop], lams: Array, K: int) -> tuple[Array, Array] | None:
        """Return values and hypergradients, each by one thread, as many at once as there are."""
        from tinybilevel.kernels.threads import helpers

        own = [loop for loop in loops if isinstance(loop, CleaningOnHost)]
        if len(own) < len(loops) or len({loop.T for loop in own}) > 1:
            return None
        if not all(loop.fixed_start for loop in own):
            return None  # one by one, which knows whether B_0 α_0 is asked for
        values, grads = np.empty(len(lams)), np.empty_like(lams)
        left = list(zip(own, lams, values.reshape(-1, 1), grads, strict=True))
        while left:
            count = 1 + helpers(len(left))
            if not _at_once(left[:count], K):
                return None
            del left[:count]
        return _if_finite(values, grads)

    def _inputs(self, theta: Array) -> tuple[Array, ...] | None:
        """Return the weights, and w_0, strengths and factors as laid; None where θ doesn't fit."""
        weights = self.lower.weights(theta)
        if weights is None:
            return None
        laid = (
            self._laid("start", self._start, not self.fixed_start, theta),
            self._laid("penalty", self.lower.penalty, self.lower.learned, theta),
            self._laid("each", self.algorithm.at, self.algorithm.learned, theta),
        )
        found = tuple(rows for rows in laid if rows is not None)
        return (weights, *found) if len(found) == len(laid) else None

    def _start(self, theta: Array) -> Array | None:
        return self.start(theta, self.lower.loss.size)

    def _laid(self, name: str, at: Any, learned: bool, theta: Array) -> Array | None:
        """Return what `at` finds, laid: once, where none of it is learned."""
        if not learned and name in self._fixed:
            return self._fixed[name]
        rows = at(theta)
        laid = None if rows is None else self.kernel.lay(np.atleast_2d(rows))
        if not learned and laid is not None:
            self._fixed[name] = laid
        return laid

    def _back(
        self, kernel: Any, run: Any, alpha: Array, theta: Array, h: Array, start: bool = False
    ) -> Array:
        """Add to h what the steps back find; return the squares of the norms."""
        loss = self.lower.loss
        per_example = np.zeros(loss.y.size if loss.weighted else 0, loss.dtype)
        along, squares, alphas = kernel.backward(run, alpha, per_example)
        self.lower.pull(per_example, along[0], h)
        self.algorithm.pull(along[1:], theta, h)
        if start:
            h += self.transition.initial_vjp(theta, kernel.flat(alphas).reshape(-1))
        return np.asarray(squares)


class QuadraticOnDevice(Loop):
    """See `tinybilevel.kernels.cuda_loops`; a single λ is left to the plain code."""

    def batch(self, lams: Array, K: int) -> tuple[Array, Array] | None:
        from tinybilevel.kernels.cuda_loops import batch

        if lams.dtype != self.kernel.numbers.dtype:
            return None
        values, grads = np.empty_like(lams, shape=len(lams)), np.empty_like(lams)
        batch(self.kernel, lams, K, values, grads)
        return _if_finite(values, grads)


class CleaningOnDevice(Loop):
    """See `tinybilevel.kernels.cuda`."""

    def run(
        self, problem: BilevelProblem, lam: Any, K: int, start: bool = False
    ) -> Hypergradient | None:
        lam = problem.check(lam)
        if lam.dtype != self.transition.dtype:
            return None
        theta = self.hyper_map(lam)
        w, h, squares = self.kernel(theta, K)
        value, grad = self.upper.value(w, theta), self.hyper_map.vjp(lam, h)
        if not all(bool(np.isfinite(x).all()) for x in (value, grad, w)):
            return None
        norms = to_numpy(np.sqrt(squares)).astype(float)
        cost = Cost(self.T, K, (max(K, 1) + 1) * w.nbytes)
        return Hypergradient(value, grad, w, K, norms, cost, _lower=(problem, lam.copy()))


def _at_once(runs: Sequence[tuple[CleaningOnHost, Array, Array, Array]], K: int) -> bool:
    """Write f and the hypergradient of each loop at its λ; return False where one does not fit."""
    kernels = [loop.kernel.alone() for loop, *_ in runs]
    thetas, forward, back, hs = [], [], [], []
    for (loop, lam, *_), kernel in zip(runs, kernels, strict=True):
        theta = loop.theta(lam, kernel.lower.dtype)
        inputs = None if theta is None else loop._inputs(theta)
        if theta is None or inputs is None:
            return False
        thetas.append(theta)
        forward.append(partial(kernel.forward, *inputs, K))
    ends = together(forward)
    for (loop, _, value, _), kernel, theta, (state, run) in zip(
        runs, kernels, thetas, ends, strict=True
    ):
        # On this thread: the upper level may have threads of its own.
        w, f = state[0], loop.f
        found, alpha, h = f.value_with_grads(w, theta)
        value[:] = found + 0 * state.sum()  # NaN if it is not finite
        hs.append(h.astype(promote(h, theta)))
        back.append(partial(loop._back, kernel, run, alpha, theta, hs[-1]))
    together(back)
    for (loop, lam, _, grad), h in zip(runs, hs, strict=True):
        grad[:] = loop.pull(lam, h)
    return True


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return what each call returns; each has a thread."""
    from tinybilevel.kernels.threads import in_parallel

    found: list[Any] = [None] * len(calls)

    def put(i: int) -> None:
        found[i] = calls[i]()

    in_parallel([partial(put, i) for i in range(len(calls))])
    return found


def _if_finite(values: Array, grads: Array) -> tuple[Array, Array] | None:
    finite = bool(np.isfinite(values).all()) and bool(np.isfinite(grads).all())
    return (values, grads) if finite else None
