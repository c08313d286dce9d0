"""Who is timed: each function builds a case, and returns a call that computes a hypergradient."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

import tinybilevel as tb
from benchmarks.cases import Case, numbers, problem

Call = Callable[[], np.ndarray]
#: Rows from which not everyone's copy of X fits into memory beside the others'.
_MANY = 100_000


def ours(backend: str, *, compiled: bool = False, remember: bool = False) -> Callable[[Case], Call]:
    """Return tinybilevel with one of its backends, by the public call."""

    def build(case: Case) -> Call:
        at, method = problem(case, backend, case.K if remember else 0), tb.KRMD(K=case.K)
        at = tb.compile(at) if compiled else at
        if case.many:
            return lambda: method.batch(at, numbers(case).lam)[1]
        return lambda: method(at, at.lam0).grad

    return build


def on_gpu(compiled: bool) -> Callable[[Case], Call]:
    """Return tinybilevel on CuPy's arrays: the plain bodies, or kernels in a recorded loop."""

    def build(case: Case) -> Call:
        import cupy

        at, method = problem(case, "numpy").to("cupy"), tb.KRMD(K=case.K)
        at = tb.compile(at) if compiled else at
        if case.many:
            lams = cupy.asarray(numbers(case).lam)
            return lambda: method.batch(at, lams)[1].get()
        return lambda: method(at, at.lam0).grad.get()

    return build


def kernel(case: Case) -> Call:
    """The toy problem's compiled loop itself, without the public call around it."""
    at = tb.compile(problem(case, "numba"))
    w, grad, norms, lam = np.empty(2), np.empty(2), np.empty(case.K + 1), np.array(at.lam0)

    def call() -> np.ndarray:
        at.loop.kernel(lam, case.K, w, grad, norms)
        return grad

    return call


def own_functions(case: Case) -> Call:
    """The toy problem from jitted functions, as a user writes them, by the loop made for them."""
    from numba import njit

    plain, method = problem(case, "numpy"), tb.KRMD(K=case.K)

    @njit
    def value(w, lam):  # type: ignore[no-untyped-def]
        return (w * w + 10 * np.sin(w) ** 2).sum()

    @njit
    def slope(w, lam):  # type: ignore[no-untyped-def]
        return 2 * w + 10 * np.sin(2 * w)

    @njit
    def grad(w, lam):  # type: ignore[no-untyped-def]
        return np.array([w[0] - lam[0], 0.5 * (w[1] - lam[1])])

    @njit
    def grad_vjp(w, lam, v):  # type: ignore[no-untyped-def]
        return np.array([v[0], 0.5 * v[1]]), np.array([-v[0], -0.5 * v[1]])

    g = tb.Objective.from_functions(value, grad, grad_vjp)
    f = tb.Objective.from_functions(value, slope)
    descent = tb.GradientDescent(g, numbers(case).step_size, numbers(case).w0)
    at = tb.compile(tb.BilevelProblem(descent, f, T=case.T, lam0=plain.lam0))
    return lambda: method(at, at.lam0).grad


def gpu_limit(copy: bool) -> Callable[[Case], Call]:
    """Return reading or copying X once for each of the T + K products on a GPU: a limit."""

    def build(case: Case) -> Call:
        import cupy

        X = cupy.asarray(numbers(case).data["X"])
        target, total = cupy.empty_like(X), cupy.empty((), X.dtype)

        def call() -> np.ndarray:
            for _ in range(case.T + case.K):
                if copy:
                    cupy.copyto(target, X)
                else:
                    X.sum(out=total)
            return total.get()

        return call

    return build


def jax(style: str) -> Callable[[Case], Call]:
    """Return JAX, jitted: ``scan``, ``checkpoint`` or ``adjoint``."""

    def build(case: Case) -> Call:
        from benchmarks.opponents import jax_

        return jax_.build(case, style)

    return build


def torch(style: str) -> Callable[[Case], Call]:
    """Return torch: ``autograd``, ``adjoint``, ``higher`` or ``torchopt``."""

    def build(case: Case) -> Call:
        from benchmarks.opponents import torch_

        return torch_.build(case, style)

    return build


def network(who: str, style: str) -> Callable[[Case], Call]:
    """Return one-shot learning by a backend of tinybilevel, by JAX or by torch."""

    def build(case: Case) -> Call:
        if who == "JAX":
            from benchmarks.opponents import jax_network

            return jax_network.build(case, style)
        if who == "torch":
            from benchmarks.opponents import torch_network

            return torch_network.build(case)
        from benchmarks import one_shot

        at, method = one_shot.problem(case, style), tb.KRMD(K=case.K)
        at = tb.compile(at) if who == "loop" else at
        return lambda: method(at).grad

    return build


def logistic(backend: str, compiled: bool = False) -> Callable[[Case], Call]:
    """Return logistic regression by a backend of tinybilevel, step by step or as one loop."""

    def build(case: Case) -> Call:
        from benchmarks import logistic

        at, method = logistic.problem(case, backend), tb.KRMD(K=case.K)
        at = tb.compile(at) if compiled else at
        return lambda: method(at).grad

    return build


def logistic_in_jax(style: str) -> Callable[[Case], Call]:
    """Return the same in JAX, jitted: ``scan`` or ``adjoint``."""

    def build(case: Case) -> Call:
        from benchmarks.opponents import jax_logistic

        return jax_logistic.build(case, style)

    return build


def reading(case: Case) -> Call:
    """Read X once for each of the T + K products, and do nothing else: a limit, not a contender."""
    X, passes = numbers(case).data["X"], case.T + case.K
    if find_spec("numba") is None:
        return lambda: np.array([X.sum() for _ in range(passes)])
    from numba import njit, prange

    @njit(parallel=True, fastmath=True)
    def total(X):  # type: ignore[no-untyped-def]
        sums = np.empty(len(X), X.dtype)
        for i in prange(len(X)):
            s = X[i, 0]
            for j in range(1, X.shape[1]):
                s += X[i, j]
            sums[i] = s
        return sums

    return lambda: np.array([total(X)[0] for _ in range(passes)])


def products(case: Case) -> Call:
    """The bare matrix products of T steps and K backward steps by BLAS: a limit."""
    n = numbers(case)
    X, W = n.data["X"], np.ones((10, n.data["X"].shape[1]), n.data["X"].dtype)
    both, S = np.concatenate([W, W]), np.ones((10, len(X)), X.dtype)

    def call() -> np.ndarray:
        for _ in range(case.T):
            X @ W.T
            S @ X
        for _ in range(case.K):
            X @ both.T
            S @ X
        return W

    return call


def multiply_adds(case: Case) -> Call:
    """As many multiply-adds as the nonzeros of X ask for, in BLAS's best shape: another limit."""
    X, side = numbers(case).data["X"], 512
    A = np.ones((side, side), X.dtype)
    each = np.count_nonzero(X) * case.classes
    squares = round((2 * case.T + 3 * case.K) * each / side**3)

    def call() -> np.ndarray:
        for _ in range(squares):
            A @ A
        return A

    return call


OURS = {
    "tinybilevel, NumPy": ours("numpy"),
    "tinybilevel, Numba": ours("numba", compiled=True),
}
CHOICES = {
    "tinybilevel, Numba, step by step": ours("numba"),
    "tinybilevel, Numba, remember=K": ours("numba", compiled=True, remember=True),
}
OPPONENTS = {
    "JAX jit": jax("scan"),
    "JAX jit, checkpoint": jax("checkpoint"),
    "JAX, explicit adjoint": jax("adjoint"),
    "torch": torch("autograd"),
    "torch, explicit adjoint": torch("adjoint"),
    "higher": torch("higher"),
    "TorchOpt": torch("torchopt"),
    "jaxopt": jax("jaxopt"),
}
TASKS = {
    "tinybilevel, NumPy": ours("numpy"),
    "tinybilevel, NumPy, remember=K": ours("numpy", remember=True),
    "tinybilevel, Numba": ours("auto", compiled=True),
    "JAX jit": jax("scan"),
    "JAX, explicit adjoint": jax("adjoint"),
    "JAX jit, pairwise": jax("pairwise"),
    "JAX, explicit adjoint, X Xᵀ": jax("examples"),
    "torch": torch("autograd"),
    "torch, explicit adjoint": torch("adjoint"),
}
LIMITS = {
    "reading X": reading,
    "multiply-adds": multiply_adds,
    "matrix products": products,
}
NETWORKS = {
    "tinybilevel, definitions": network("ours", "plain"),
    "tinybilevel, compiled layers": network("ours", "numba"),
    "tinybilevel, compiled loop": network("loop", "numba"),
    "JAX, lax.conv": network("JAX", "conv"),
    "JAX, patches and features once": network("JAX", "patches"),
    "torch, features once": network("torch", ""),
}
LOGISTIC = {
    "tinybilevel, NumPy": logistic("plain"),
    "tinybilevel, Numba": logistic("auto", compiled=True),
    "JAX jit": logistic_in_jax("scan"),
    "JAX, explicit adjoint": logistic_in_jax("adjoint"),
}
#: The first two are never left out; see `rounds.measure_some`.
GRID = {
    "tinybilevel, Numba": OURS["tinybilevel, Numba"],
    "JAX jit": jax("scan"),
    "tinybilevel, NumPy": OURS["tinybilevel, NumPy"],
    "tinybilevel, Numba, step by step": CHOICES["tinybilevel, Numba, step by step"],
}
ON_GPU = {"tinybilevel, CuPy": on_gpu(False), "tinybilevel, CUDA": on_gpu(True)}
OPPONENTS_ON_GPU = {
    **{name: OPPONENTS[name] for name in ("JAX jit", "JAX, explicit adjoint", "torch")},
    "torch, explicit adjoint": torch("adjoint"),
    "torch, compiled adjoint": torch("compiled"),
}
GPU_LIMITS = {"reading X on the GPU": gpu_limit(False), "copying X on the GPU": gpu_limit(True)}
NEEDS = {
    "tinybilevel, CuPy": "cupy",
    "tinybilevel, CUDA": "cupy",
    "tinybilevel, Numba": "numba",
    "tinybilevel, Numba, step by step": "numba",
    "tinybilevel, Numba, remember=K": "numba",
    "tinybilevel, compiled layers": "numba",
    "tinybilevel, compiled loop": "numba",
    "JAX, lax.conv": "jax",
    "JAX, patches and features once": "jax",
    "torch, features once": "torch",
    "tinybilevel, kernel": "numba",
    "tinybilevel, own functions": "numba",
    "higher": "higher",
    "TorchOpt": "torchopt",
    "jaxopt": "jaxopt",
}


def available(names: dict[str, Callable[[Case], Call]]) -> dict[str, Callable[[Case], Call]]:
    """Return those whose library is installed."""

    def library(name: str) -> str:
        if name in NEEDS:
            return NEEDS[name]
        theirs = name in OPPONENTS or name in OPPONENTS_ON_GPU or name in TASKS
        first = name.split()[0].rstrip(",").lower()
        return first if theirs and first != "tinybilevel" else "numpy"

    return {name: build for name, build in names.items() if find_spec(library(name)) is not None}


def contenders(case: Case) -> dict[str, Callable[[Case], Call]]:
    """Return everyone who can run a case, by name."""
    if case.kind == "one-shot":
        return available(NETWORKS)
    if case.kind == "logistic":
        return available(LOGISTIC)
    if case.many:
        here = {"tinybilevel, Numba": OURS["tinybilevel, Numba"]}
        there = {"tinybilevel, CUDA": ON_GPU["tinybilevel, CUDA"], "JAX jit": jax("adjoint")}
        return available(here | there if case.device == "gpu" else here)
    if case.device == "gpu":
        limits = GPU_LIMITS if case.kind == "hypercleaning" else {}
        ours_there = dict(ON_GPU)
        if case.kind != "hypercleaning":
            del ours_there["tinybilevel, CUDA"]  # one λ alone is not what a GPU is for
        return available(ours_there | OPPONENTS_ON_GPU) | limits
    if case.kind == "tasks":
        return available(TASKS)
    if case.kind in ("grid", "csr"):
        return available(GRID)
    if case.kind == "toy":
        loops = {"tinybilevel, kernel": kernel, "tinybilevel, own functions": own_functions}
        return available(OURS | loops | OPPONENTS)
    if case.kind == "quadratic":
        return available(OURS | OPPONENTS)
    if case.rows > _MANY:
        few = {name: OPPONENTS[name] for name in ("JAX jit", "torch, explicit adjoint")}
        limits = {name: LIMITS[name] for name in ("reading X", "multiply-adds")}
        return available(OURS | few) | limits
    return available(OURS | CHOICES | OPPONENTS) | LIMITS
