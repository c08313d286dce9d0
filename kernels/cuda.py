"""Softmax regression on a GPU: each product in three launches that the host never waits for.

1. `_scores` reads X once. A warp takes a few rows and splits their features; its threads add up in
   shared memory. One thread per row then makes of the scores what the product needs of each
   example, and leaves the matrix R, (n, C), of which the result is Rᵀ X.
2. `_sums` reads X once more. A thread keeps the sums of a few features in registers and goes down
   a slice of the rows.
3. `_finish` adds up the slices, and does the step w − γ∇g or α − γ H α in the same stroke.

Every sum has a fixed order: the same bits at each call. Arithmetic is in the dtype of X; TF32 is
never used. `Loop` runs all T + K steps so, and records them as a CUDA graph.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numba import cuda, from_dtype

__all__ = ["Loop", "Replay", "Softmax"]

Array = Any  # of CuPy; of NumPy under Numba's simulator

_WARP = 32
_WARPS = 4
_THREADS = _WARP * _WARPS
#: Classes whose sums a thread keeps in registers, at most.
_CLASSES = 10
#: Rows of a warp, with that many classes, for one product with X and for two.
_ROWS = (4, 2)
#: Features of a thread of `_sums`, and threads of its blocks.
_FEATURES = 4
_SUM_THREADS = 64
#: Rows of a slice at least, and slices at most.
_SLICE, _SLICES = 64, 512

_LOSSES, _GRAD, _GRAD_VJP = range(3)


@cache
def _scores(dtype: Any, chunk: int, rows: int, both: bool) -> Any:
    """Compile the first kernel, for chunks of classes; `both` is for W and V at once."""
    one = rows * chunk
    wide = 2 * one if both else one
    pitch = _THREADS + 1  # no bank conflicts when the sums are read across
    size, number = wide * pitch, from_dtype(dtype)

    @cuda.jit
    def kernel(product, X, y, weights, W, V, S, D, per_example, keep, factor):  # type: ignore[no-untyped-def]
        parts = cuda.shared.array(size, number)
        sums = cuda.local.array(wide, number)
        thread = cuda.threadIdx.x
        lane, warp = thread % _WARP, thread // _WARP
        n, d = X.shape
        classes = W.shape[0]
        first = cuda.blockIdx.x * (_WARPS * rows)
        for start in range(0, classes, chunk):
            for k in range(wide):
                sums[k] = 0
            for j in range(lane, d, _WARP):
                for c in range(chunk):
                    # Out of range, the last one is taken again, and its sum dropped.
                    source = min(start + c, classes - 1)
                    w = W[source, j]
                    for r in range(rows):
                        x = X[min(first + warp * rows + r, n - 1), j]
                        sums[c * rows + r] += x * w
                        if both:
                            sums[one + c * rows + r] += x * V[source, j]
            for k in range(wide):
                parts[k * pitch + thread] = sums[k]
            cuda.syncthreads()
            for q in range(thread, wide * _WARPS, _THREADS):
                k, group = q % wide, q // wide
                total = parts[k * pitch + group * _WARP]
                for other in range(1, _WARP):
                    total += parts[k * pitch + group * _WARP + other]
                row, c = first + group * rows + k % rows, start + k % one // rows
                if row < n and c < classes:
                    if k < one:
                        S[row, c] = total
                    else:
                        D[row, c] = total
            cuda.syncthreads()
        row = first + thread
        if thread >= _WARPS * rows or row >= n:
            return
        own = y[row]
        score = S[row, own]
        top = score
        for c in range(classes):
            top = max(top, S[row, c])
        total = number(0)
        for c in range(classes):
            e = math.exp(S[row, c] - top)
            S[row, c] = e
            total += e
        if product == _LOSSES:
            per_example[row] = math.log(total) + (top - score)
            return
        weight = weights[row] if weights.size > 1 else weights[0]
        if product == _GRAD:
            for c in range(classes):
                S[row, c] *= weight / total
            S[row, own] -= weight
            return
        mean = number(0)
        for c in range(classes):
            mean += S[row, c] * D[row, c]
        mean /= total
        along = factor * (mean - D[row, own])
        per_example[row] = keep * per_example[row] + along if keep != 0 else along
        for c in range(classes):
            S[row, c] *= weight / total * (D[row, c] - mean)

    return kernel


@cache
def _sums(dtype: Any, chunk: int) -> Any:
    """Compile the second kernel: slices[k, c, j] = Σ_i R[i, c] X[i, j] over the rows of slice k."""
    wide, number = chunk * _FEATURES, from_dtype(dtype)

    @cuda.jit
    def kernel(X, R, length, slices):  # type: ignore[no-untyped-def]
        sums = cuda.local.array(wide, number)
        x = cuda.local.array(_FEATURES, number)
        n, d = X.shape
        classes = R.shape[1]
        threads = cuda.blockDim.x
        feature = cuda.blockIdx.x * threads * _FEATURES + cuda.threadIdx.x
        k, start = cuda.blockIdx.y, cuda.blockIdx.z * chunk
        for q in range(wide):
            sums[q] = 0
        for i in range(k * length, min((k + 1) * length, n)):
            for f in range(_FEATURES):
                x[f] = X[i, min(feature + f * threads, d - 1)]
            for c in range(chunk):
                r = R[i, min(start + c, classes - 1)]
                for f in range(_FEATURES):
                    sums[c * _FEATURES + f] += r * x[f]
        for c in range(chunk):
            for f in range(_FEATURES):
                j = feature + f * threads
                if start + c < classes and j < d:
                    slices[k, start + c, j] = sums[c * _FEATURES + f]

    return kernel


@cache
def _finish(dtype: Any) -> Any:
    """Compile the third kernel: out = keep · base + scale · Σ_k slices[k], and ‖out‖² by block."""
    number = from_dtype(dtype)

    @cuda.jit
    def kernel(slices, keep, base, scale, out, squares):  # type: ignore[no-untyped-def]
        parts = cuda.shared.array(_THREADS, number)
        thread = cuda.threadIdx.x
        i = cuda.blockIdx.x * _THREADS + thread
        parts[thread] = 0
        if i < out.size:
            total = slices[0, i]
            for k in range(1, slices.shape[0]):
                total += slices[k, i]
            total *= scale
            if keep != 0:
                total += keep * base[i]
            out[i] = total
            parts[thread] = total * total
        if squares.size == 0:
            return
        half = _THREADS // 2
        while half > 0:
            cuda.syncthreads()
            if thread < half:
                parts[thread] += parts[thread + half]
            half //= 2
        if thread == 0:
            squares[cuda.blockIdx.x] = parts[0]

    return kernel


class Softmax:
    """The products of `tinybilevel.SoftmaxRegression` on a GPU.

    Parameters
    ----------
    X : cupy.ndarray (n, d)
        Examples, float32 or float64.
    y : cupy.ndarray (n,) of int
        Classes.
    n_classes : int
        C.
    plain : optional
        The same products for what has no kernel: a mix of dtypes, and `grad_jvp`.
    """

    def __init__(self, X: Array, y: Array, n_classes: int, plain: Any = None) -> None:
        self.X, self.y, self.n_classes, self.plain = X, y, n_classes, plain
        self.shape, self.dtype = X.shape, X.dtype
        self.size = n_classes * X.shape[1]
        self.chunk = -(-n_classes // -(-n_classes // _CLASSES))
        self.length = max(_SLICE, -(-len(X) // _SLICES))
        self._work: tuple[Array, ...] | None = None

    def bound(self, remember: int = 0) -> Softmax:
        """Return the same products with working memory of their own, for one call's use.

        Results are new arrays, which CuPy has at hand, and nothing is remembered: to look for it
        the host would have to wait.
        """
        other = object.__new__(Softmax)
        other.__dict__.update(self.__dict__)
        other._work = other._allocate()
        return other

    def losses(self, W: Array) -> Array:
        """Return ℓ_i(W), (n,)."""
        if not self._knows(W):
            return self.plain.losses(W)
        S, D, _ = self._work or self._allocate()
        out = np.empty_like(W, shape=self.shape[:1])
        self._residuals(_LOSSES, out, W, W, S, D, out, 0.0, 1.0)
        return out

    def grad(self, W: Array, weights: Array) -> Array:
        """Return Σ_i weights_i ∇ℓ_i(W), (C, d); `weights` is (n,), or (1,) for all."""
        if not self._knows(W, weights):
            return self.plain.grad(W, weights)
        out = np.empty_like(W, order="C")
        self.grad_step(W, weights, 0.0, 1.0, out)
        return out

    def grad_vjp(self, W: Array, V: Array, weights: Array) -> tuple[Array, Array]:
        """Return Σ_i weights_i ∇²ℓ_i(W) V, (C, d), and each ∇ℓ_i(W)·V, (n,)."""
        if not self._knows(W, V, weights):
            return self.plain.grad_vjp(W, V, weights)
        out, along = np.empty_like(W, order="C"), np.empty_like(W, shape=self.shape[:1])
        self.vjp_step(W, V, weights, 0.0, 1.0, out, 0.0, 1.0, along)
        return out, along

    def grad_jvp(self, W: Array, dW: Array, weights: Array, dweights: Array) -> Array:
        """Return Σ_i (weights_i ∇²ℓ_i(W) dW + dweights_i ∇ℓ_i(W)), (C, d)."""
        return self.plain.grad_jvp(W, dW, weights, dweights)

    def _knows(self, *arrays: Array) -> bool:
        """Return whether all is of the dtype of X."""
        return all(a.dtype == self.dtype for a in arrays)

    def grad_step(
        self,
        W: Array,
        weights: Array,
        keep: float,
        scale: float,
        out: Array,
        squares: Array | None = None,
    ) -> None:
        """Write keep · W + scale · Σ_i weights_i ∇ℓ_i(W), and the parts of its square norm."""
        S, D, slices = self._work or self._allocate()
        self._residuals(_GRAD, weights, W, W, S, D, slices, 0.0, 1.0)
        self._add_up(S, slices, keep, W, scale, out, squares)

    def vjp_step(
        self,
        W: Array,
        V: Array,
        weights: Array,
        keep: float,
        scale: float,
        out: Array,
        keep_mixed: float,
        scale_mixed: float,
        mixed: Array,
        squares: Array | None = None,
    ) -> None:
        """Write keep · V + scale · Σ_i weights_i ∇²ℓ_i(W) V, and to `mixed` likewise ∇ℓ_i(W)·V."""
        S, D, slices = self._work or self._allocate()
        self._residuals(_GRAD_VJP, weights, W, V, S, D, mixed, keep_mixed, scale_mixed)
        self._add_up(S, slices, keep, V, scale, out, squares)

    def _allocate(self) -> tuple[Array, ...]:
        n, d = self.shape
        count = -(-n // self.length)
        shapes = (n, self.n_classes), (n, self.n_classes), (count, self.n_classes, d)
        return tuple(np.empty_like(self.X, shape=shape, order="C") for shape in shapes)

    def _residuals(
        self,
        product: int,
        weights: Array,
        W: Array,
        V: Array,
        S: Array,
        D: Array,
        per_example: Array,
        keep: float,
        factor: float,
    ) -> None:
        both = product == _GRAD_VJP
        rows, number = _ROWS[both], self.dtype.type
        blocks = -(-self.shape[0] // (_WARPS * rows))
        kernel = _scores(self.dtype, self.chunk, rows, both)
        arrays = (self.X, self.y, weights, W, V, S, D, per_example.reshape(-1))
        launch(kernel, (blocks,), _THREADS, product, *arrays, number(keep), number(factor))

    def _add_up(
        self,
        S: Array,
        slices: Array,
        keep: float,
        base: Array,
        scale: float,
        out: Array,
        squares: Array | None,
    ) -> None:
        number, M = self.dtype.type, self.size
        tiles = -(-self.shape[1] // (_FEATURES * _SUM_THREADS))
        grid = tiles, len(slices), -(-self.n_classes // self.chunk)
        launch(_sums(self.dtype, self.chunk), grid, _SUM_THREADS, self.X, S, self.length, slices)
        squares = S.reshape(-1)[:0] if squares is None else squares
        flat = slices.reshape(len(slices), M), number(keep), base.reshape(-1), number(scale)
        launch(_finish(self.dtype), (blocks(M),), _THREADS, *flat, out.reshape(-1), squares)


class Loop:
    """T steps of gradient descent on weighted softmax regression with an L2 penalty, and K back.

    g = s Σ_i θ_i ℓ_i(W) + ρ‖W‖² below, f = s' Σ_i ℓ'_i(W) above. Step and product are
    (1 − 2γρ) w − γ s Σ_i …, so that each takes the three launches of `Softmax` and no more.

    Parameters
    ----------
    lower, upper : Softmax
        ℓ and ℓ'.
    start : cupy.ndarray (M,)
        w_0.
    step_size, penalty : float
        γ and ρ.
    scales : pair of float
        s and s'.
    T : int
        Horizon.
    """

    def __init__(
        self,
        lower: Softmax,
        upper: Softmax,
        start: Array,
        step_size: float,
        penalty: float,
        scales: Sequence[float],
        T: int,
    ) -> None:
        self.lower, self.upper, self.start = lower.bound(), upper.bound(), start
        self.step_size, self.penalty, self.scales, self.T = step_size, penalty, scales, T
        self.one = np.ones_like(start, shape=1)

    def allocate(self, K: int) -> dict[str, Array]:
        """Return the arrays of a run: what `run` reads (theta) and writes."""
        M, n = self.lower.size, self.lower.shape[0]
        shapes = {
            "theta": (n,),
            "ring": (max(K, 1) + 1, M),
            "alphas": (2, M),
            "h": (n,),
            "squares": (K + 1, blocks(M)),
        }
        return {
            name: np.zeros_like(self.start, shape=shape, order="C")
            for name, shape in shapes.items()
        }

    def run(
        self, K: int, *, theta: Array, ring: Array, alphas: Array, h: Array, squares: Array
    ) -> None:
        """Launch it all; nothing else happens here, so that it can be recorded.

        Writes w_{T−K} … w_T to `ring`, w_T last; h_{T−K}; and the parts of ‖α_T‖² … ‖α_{T−K}‖².
        """
        C, d = self.lower.n_classes, self.lower.shape[1]
        W, alpha = ring.reshape(-1, C, d), alphas.reshape(-1, C, d)
        keep = 1 - 2 * self.step_size * self.penalty
        scale = -self.step_size * self.scales[0]

        def slot(t: int) -> Array:
            return W[(t - self.T - 1) % len(W)]

        for t in range(self.T):
            self.lower.grad_step(slot(t), theta, keep, scale, slot(t + 1))
        self.upper.grad_step(slot(self.T), self.one, 0.0, self.scales[1], alpha[0], squares[0])
        for k in range(K):
            now, then = alpha[k % 2], alpha[(k + 1) % 2]
            w, keep_h = slot(self.T - 1 - k), float(k > 0)
            self.lower.vjp_step(w, now, theta, keep, scale, then, keep_h, scale, h, squares[k + 1])


class Replay:
    """A `Loop` with its graphs, one for each K; it may be called from many threads."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._lock = threading.Lock()
        self._done: Any = None  # the event that ends the last run, perhaps on another stream
        self._recorded: dict[int, tuple[dict[str, Array], Callable[[], None]]] = {}

    def __call__(self, theta: Array, K: int) -> tuple[Array, Array, Array]:
        """Return w_T, h_{T−K} and ‖α_T‖² … ‖α_{T−K}‖²."""
        with self._lock:
            if K not in self._recorded:
                memory = self.loop.allocate(K)
                run = partial(self.loop.run, K, **memory)
                self._recorded[K] = memory, record(run)
            memory, replay = self._recorded[K]
            stream = _current_stream()
            if self._done is not None:
                stream.wait_event(self._done)
            memory["theta"][...] = theta
            memory["ring"][(-self.loop.T - 1) % len(memory["ring"])][...] = self.loop.start
            replay()
            found = memory["ring"][-1].copy(), memory["h"].copy(), memory["squares"].sum(axis=1)
            self._done = stream.record()
            return found

    def __reduce__(self) -> Any:
        return Replay, (self.loop,)


def record(run: Callable[[], None]) -> Callable[[], None]:
    """Record what `run` launches as a CUDA graph, and return what replays it."""
    import cupy

    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        run()  # compiles the kernels: nothing may be compiled while recording
        stream.synchronize()
        stream.begin_capture()
        try:
            run()
        finally:
            graph = stream.end_capture()
    return graph.launch


def blocks(size: int) -> int:
    """Return how many blocks of threads it takes for one thread per entry."""
    return -(-size // _THREADS)


def launch(kernel: Any, grid: tuple[int, ...], threads: int, *args: Any) -> None:
    """Launch on CuPy's current stream; under Numba's simulator, on arrays of NumPy."""
    if not any(_on_device(a) for a in args):
        kernel[grid, threads](*args)
        return
    stream = _current_stream().ptr
    # CuPy's arrays of this very stream need no waiting for.
    _configured(kernel, grid, threads, stream)(
        *(cuda.as_cuda_array(a, sync=False) if _on_device(a) else a for a in args)
    )


@cache
def _configured(kernel: Any, grid: tuple[int, ...], threads: int, stream: int) -> Any:
    with warnings.catch_warnings():  # small problems make small grids
        # By its text, which may begin with a colour: Numba and numba-cuda have a class each.
        warnings.filterwarnings("ignore", r"(?s).*Grid size .* under-utilization")
        return kernel[grid, threads, cuda.external_stream(stream) if stream else 0]


def _current_stream() -> Any:
    import cupy

    return cupy.cuda.get_current_stream()


def _on_device(x: Any) -> bool:
    return hasattr(x, "__cuda_array_interface__")
