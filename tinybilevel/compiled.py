"""Problems whose whole loop runs in compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinybilevel.backend import Array, like, moved, on_device, promote, to_numpy
from tinybilevel.dynamics import Cost
from tinybilevel.maps import HyperMap, Identity
from tinybilevel.method import Hypergradient
from tinybilevel.objectives import L2Penalty, Objective, Quadratic, SoftmaxRegression, Sum
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import GradientDescent, Transition

__all__ = ["Loop", "compile"]


@dataclass(frozen=True)
class Loop:
    """A kernel that runs the whole of one problem's forward and backward pass."""

    kernel: Any
    transition: Transition
    upper: Objective
    T: int
    hyper_map: HyperMap

    def runs(self, problem: BilevelProblem) -> bool:
        """Return whether this is still the problem that was compiled."""
        same = (
            getattr(self, n) is getattr(problem, n) for n in ("transition", "upper", "hyper_map")
        )
        return all(same) and self.T == problem.T

    def run(self, problem: BilevelProblem, lam: Any, K: int) -> Hypergradient | None:
        """Return what the loop finds; None where the plain code is to run, or to explain."""
        return None

    def batch(self, lams: Array, K: int) -> tuple[Array, Array] | None:
        """Return values and hypergradients at each row of `lams`, or None likewise."""
        return None

    def batch_over(
        self, problems: Sequence[BilevelProblem], lams: Array, K: int
    ) -> tuple[Array, Array] | None:
        """Return those of each problem at a row of its own, or None likewise."""
        return None


class QuadraticOnHost(Loop):
    """See `tinybilevel.kernels.loops`."""

    def run(self, problem: BilevelProblem, lam: Any, K: int) -> Hypergradient | None:
        kernel = self.kernel
        lam = problem.lam0 if lam is None else lam
        if type(lam) is not np.ndarray or lam.dtype != np.float64 or lam.shape != (kernel.N,):
            lam = problem.check(lam)
            if lam.dtype != np.float64 or lam.shape != (kernel.N,):
                return None
        w, grad, norms = np.empty(kernel.M), np.empty(kernel.N), np.empty(K + 1)
        value = kernel(lam, K, w, grad, norms)
        # One number that is not finite makes this sum so.
        if not np.isfinite(value + grad.sum() + w.sum()):
            return None
        return Hypergradient(value, grad, w, K, norms, Cost(self.T, K, 2 * w.nbytes))

    def batch(self, lams: Array, K: int) -> tuple[Array, Array] | None:
        if on_device(lams) or lams.dtype != np.float64:
            return None
        values, grads = np.empty(len(lams)), np.empty(lams.shape)
        self.kernel.batch(np.ascontiguousarray(lams), K, values, grads)
        return _if_finite(values, grads)

    def batch_over(
        self, problems: Sequence[BilevelProblem], lams: Array, K: int
    ) -> tuple[Array, Array] | None:
        kernels = [p.loop.kernel for p in problems if isinstance(p.loop, QuadraticOnHost)]
        one_kind = len(kernels) == len(problems) and len({k.sizes for k in kernels}) == 1
        if not one_kind or lams.dtype != np.float64 or lams.shape[1] != self.kernel.N:
            return None
        values, grads = np.empty(len(lams)), np.empty(lams.shape)
        self.kernel.batch_over(kernels, np.ascontiguousarray(lams), K, values, grads)
        return _if_finite(values, grads)


class DenseOnHost(Loop):
    """See `tinybilevel.kernels.dense_loops`."""

    def run(self, problem: BilevelProblem, lam: Any, K: int) -> Hypergradient | None:
        kernel, lam = self.kernel, problem.check(lam)
        theta = self._theta(lam)
        if theta is None:
            return None
        w, h = np.empty(kernel.M, kernel.dtype), np.empty_like(theta)
        norms = np.empty(K + 1, kernel.dtype)
        value = float(kernel(theta, K, w, h, norms))
        grad = self.hyper_map.vjp(lam, h)
        if not np.isfinite(value + grad.sum() + w.sum()):
            return None
        cost = Cost(self.T, K, (max(K, 1) + 1) * w.nbytes)
        return Hypergradient(value, grad, w, K, norms.astype(float), cost)

    def batch(self, lams: Array, K: int) -> tuple[Array, Array] | None:
        direct = isinstance(self.hyper_map, Identity)
        thetas = [self._theta(lam) for lam in (lams[:1] if direct else lams)]
        if any(theta is None for theta in thetas):
            return None
        stacked: Array = np.ascontiguousarray(lams if direct else thetas)
        values, grads = np.empty(len(lams), lams.dtype), np.empty_like(stacked)
        self.kernel.batch(stacked, K, values, grads)
        if not direct:
            grads = np.stack(
                [self.hyper_map.vjp(lam, h) for lam, h in zip(lams, grads, strict=True)]
            )
        return _if_finite(values.astype(float), grads)

    def _theta(self, lam: Array) -> Array | None:
        """Return θ where compiled code may have it: it looks at neither dtypes nor sizes."""
        theta = self.hyper_map(lam)
        if promote(lam, theta, self.transition.dtype, self.upper.dtype) != self.kernel.dtype:
            return None
        if theta.size not in self.kernel.fits:
            # The plain bodies look at the sizes, and say what is wrong with them.
            w = self.transition.initial(theta)
            self.transition.step(0, w, theta)
            self.transition.vjp(0, w, theta, w)
            self.upper.grad(w, theta)
            self.upper.grad_lam(w, theta)
            self.kernel.fits.add(theta.size)
        # Numba would compile for one that is read-only, as `lam0` is, once more.
        return np.require(theta, requirements=["C", "W"])


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

    def run(self, problem: BilevelProblem, lam: Any, K: int) -> Hypergradient | None:
        lam = problem.check(lam)
        if lam.dtype != self.transition.dtype:
            return None
        theta = self.hyper_map(lam)
        w, h, squares = self.kernel(theta, K)
        value, grad = self.upper.value(w, theta), self.hyper_map.vjp(lam, h)
        if not all(bool(np.isfinite(x).all()) for x in (value, grad, w)):
            return None
        norms = to_numpy(np.sqrt(squares)).astype(float)
        return Hypergradient(value, grad, w, K, norms, Cost(self.T, K, (max(K, 1) + 1) * w.nbytes))


def compile(problem: BilevelProblem) -> BilevelProblem:
    """Return `problem` with its forward and backward pass as one compiled loop.

    `KRMD` and `RMD` that keep their states in a `Ring`, without `tol` or `tail`, then run it; all
    else runs as before. There are three such loops:

    - Small problems, where the interpreter takes most of the time: a call takes microseconds, and
      `Method.batch` takes many λ at once, on all cores. They are made when first called, which
      takes some seconds in each process.
    - Quadratics among them, in float64: their products do not depend on w_t, so that no state is
      kept. Numba keeps this loop on disk. On a GPU, a batch has a thread for each λ (there it is
      only the batch that is compiled), and `Method.batch` takes many problems at once.
    - Weighted softmax regression on a GPU, as in `problems.hypercleaning`: three launches per
      step, recorded as a CUDA graph at the first call with each K.

    Parameters
    ----------
    problem : BilevelProblem
        Gradient descent with one fixed step size, on the whole data, from a fixed w_0. Both levels
        are made of `Quadratic`, `L2Penalty`, small dense `SoftmaxRegression`, what is in
        ``tinybilevel.problems``, and objectives from functions that Numba has compiled; of sums of
        these, and of these on a block of λ. On a GPU, a `Quadratic` without a `hyper_map` under an
        upper level of ``tinybilevel.problems`` or a `Quadratic` with a diagonal G and C = 0, or a
        weighted `SoftmaxRegression` with fixed `L2Penalty` terms under an unweighted one.

    Returns
    -------
    BilevelProblem
        Equal to `problem`. A change to it by ``dataclasses.replace`` gives a plain one.

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
    descent = problem.transition
    start = descent.fixed_start()
    if (
        type(descent) is not GradientDescent
        or start is None
        or descent.batches is not None
        or not isinstance(descent.step_size.values, float)
    ):
        raise TypeError(
            "compile takes gradient descent with one fixed step size from a fixed w_0, got "
            f"{descent!r}"
        )
    g = descent.objective
    special = type(g) is Quadratic and _special(problem, g)
    make = _quadratic if special else _cleaning if on_device(start) else _dense
    try:
        loop, kernel = make(problem, descent, start)
    except ImportError as error:
        raise ImportError('compile needs Numba: pip install "tinybilevel[fast]"') from error
    T, phi = problem.T, problem.hyper_map
    return replace(problem, loop=loop(kernel, descent, problem.upper, T, phi))


def _special(problem: BilevelProblem, g: Quadratic) -> bool:
    """Return whether the loop for quadratics knows the upper level too, and the dtype."""
    known = moved(problem.upper, "numpy").loop_data(g.G.shape[0]) is not None
    return (
        known
        and isinstance(problem.hyper_map, Identity)
        and (on_device(g.G) or promote(g.dtype, problem.upper.dtype) == np.float64)
    )


def _dense(
    problem: BilevelProblem, descent: GradientDescent, start: Array
) -> tuple[type[Loop], Any]:
    from tinybilevel.kernels.dense_loops import DenseLoop

    forms = []
    for level, objective in (("lower", descent.objective), ("upper", problem.upper)):
        form, data = objective.form(), objective.loop_data(start.size)
        if form is None and data is None:
            raise TypeError(
                f"compile knows no compiled form of the {level} level {objective!r}, or it is too "
                "large to gain by one"
            )
        forms.append(("upper", *data) if form is None else form)  # type: ignore[misc]
    lower, upper = forms
    return DenseOnHost, DenseLoop(lower, upper, start, descent.step_size.values, problem.T)


def _quadratic(
    problem: BilevelProblem, descent: GradientDescent, start: Array
) -> tuple[type[Loop], Any]:
    g = moved(descent.objective, "numpy")
    M = g.G.shape[0]
    name, data = moved(problem.upper, "numpy").loop_data(M)
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


def _cleaning(
    problem: BilevelProblem, descent: GradientDescent, start: Array
) -> tuple[type[Loop], Any]:
    g, f = descent.objective, problem.upper
    terms = g.terms if isinstance(g, Sum) else ((1.0, g),)
    losses = [(c, term) for c, term in terms if isinstance(term, SoftmaxRegression)]
    ridges = [
        (c, term.strength)
        for c, term in terms
        if isinstance(term, L2Penalty) and isinstance(term.strength, float)
    ]
    if (
        not on_device(start)
        or len(losses) != 1
        or len(losses) + len(ridges) != len(terms)
        or not isinstance(f, SoftmaxRegression)
        or f.weighted
        or not all(part.whole_dense() for part in (losses[0][1], f))
        or not losses[0][1].weighted
        or {losses[0][1].dtype, f.dtype} != {start.dtype}
    ):
        raise TypeError(
            "compile takes a Quadratic, or on a GPU a weighted SoftmaxRegression on dense data "
            f"with fixed L2Penalty terms under an unweighted one, got {g!r} under {f!r}"
        )
    from tinybilevel.kernels import cuda

    (c, loss), rho = losses[0], sum(c * strength for c, strength in ridges)
    lower, upper = (cuda.Softmax(part.X, part.y, part.n_classes) for part in (loss, f))
    scales = c * loss.scale, f.scale
    gamma = descent.step_size.values
    return CleaningOnDevice, cuda.Replay(
        cuda.Loop(lower, upper, start, gamma, rho, scales, problem.T)
    )


def _if_finite(values: Array, grads: Array) -> tuple[Array, Array] | None:
    finite = bool(np.isfinite(values).all()) and bool(np.isfinite(grads).all())
    return (values, grads) if finite else None
