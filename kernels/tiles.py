"""Register tiles: the innermost loops of the kernels, written out in SIMD vectors.

LLVM vectorises a loop over one index. What makes a small matrix product fast is a whole tile of
sums that stays in registers while both factors stream by, so the tiles are written as vector
instructions here: with AVX-512, 4 × 5 sums take 9 loads for 20 fused multiply-adds. A vector is
one cache line long where there is AVX-512, half of one elsewhere; rows must be padded to whole
vectors.

Arrays are flat, and start where an offset says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

import tinybilevel.kernels.compiling  # noqa: F401  all that is compiled comes by here

__all__ = [
    "ROWS",
    "TALL",
    "add_rows_tile",
    "add_tile",
    "count_up",
    "dot_rows_tile",
    "dot_tile",
    "exps",
    "fetch",
    "fold",
    "gather_tile",
    "lanes",
    "logistic_slopes",
    "product_tile",
    "relay_tile",
    "row_change",
    "row_dot",
    "row_exp",
    "row_keep",
    "row_max",
    "row_residual",
    "sparse_gather",
    "sparse_scatter",
    "splat_tile",
    "swap",
    "times",
]

_WIDE = bool(llvm.get_host_cpu_features().get("avx512f"))
_BYTES = 64 if _WIDE else 32
#: Rows of a dense tile: 4 × 5 sums and their factors fill the 32 registers of AVX-512.
ROWS = 4 if _WIDE else 2
#: Rows of a tile of one vector.
TALL = 12 if _WIDE else 6
_INT = ir.IntType(64)


def lanes(itemsize: int) -> int:
    """Return how many numbers of `itemsize` bytes a vector holds."""
    return _BYTES // itemsize


def dot_tile(rows: int, classes: int, add: bool = False) -> Callable[..., None]:
    """Make S[s + i·lds + c] = Σ_j X[x + i·ldx + j] W[w + c·ldw + j], j over n vectors; or +=."""

    @intrinsic
    def dot(context, X, x, ldx, W, w, ldw, n, S, s, lds):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = _Emitter(context, builder, signature)
            X, x, ldx, W, w, ldw, n, S, s, lds = args
            sums = [[emit.variable(emit.zero) for _ in range(classes)] for _ in range(rows)]
            with cgutils.for_range(builder, n) as loop:
                j = builder.mul(loop.index, emit.integer(emit.lanes))
                xs = [emit.load(0, X, emit.at(x, j, (i, ldx))) for i in range(rows)]
                for c in range(classes):
                    W_c = emit.load(3, W, emit.at(w, j, (c, ldw)))
                    for i in range(rows):
                        emit.add_product(sums[i][c], xs[i], W_c)
            for i in range(rows):
                for c in range(classes):
                    total = emit.total(builder.load(sums[i][c]))
                    place = emit.scalar(7, S, emit.at(s, emit.integer(c), (i, lds)))
                    if add:
                        total = builder.fadd(total, builder.load(place))
                    builder.store(total, place)
            return context.get_dummy_value()

        return types.void(X, *_INTS[:2], W, *_INTS, S, *_INTS[:2]), generate

    return dot


def add_tile(vectors: int, classes: int) -> Callable[..., None]:
    """Make G[g + c·ldg + j] += Σ_i R[r + i·ldr + c] X[x + i·ldx + j], i over n rows.

    What G holds is not looked at where `more` is 0.
    """

    @intrinsic
    def add(context, R, r, ldr, n, X, x, ldx, G, g, ldg, more):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = _Emitter(context, builder, signature)
            R, r, ldr, n, X, x, ldx, G, g, ldg, more = args
            along = [emit.integer(v * emit.lanes) for v in range(vectors)]
            places = [
                [emit.vector(7, G, emit.at(g, j, (c, ldg))) for j in along] for c in range(classes)
            ]
            sums = [[emit.variable(emit.zero) for _ in row] for row in places]
            with builder.if_then(builder.icmp_signed("!=", more, emit.integer(0))):
                for c in range(classes):
                    for v in range(vectors):
                        builder.store(emit.load_from(places[c][v]), sums[c][v])
            with cgutils.for_range(builder, n) as loop:
                start = emit.at(x, builder.mul(ldx, loop.index))
                xs = [emit.load(4, X, emit.at(start, j)) for j in along]
                row = emit.at(r, builder.mul(ldr, loop.index))
                for c in range(classes):
                    R_c = emit.splat(builder.load(emit.scalar(0, R, emit.at(row, emit.integer(c)))))
                    for v in range(vectors):
                        emit.add_product(sums[c][v], xs[v], R_c)
            for c in range(classes):
                for v in range(vectors):
                    emit.store_to(builder.load(sums[c][v]), places[c][v])
            return context.get_dummy_value()

        return types.void(R, *_INTS, X, *_INTS[:2], G, *_INTS), generate

    return add


def dot_rows_tile(rows: int, classes: int) -> Callable[..., None]:
    """Make S[s + i·lds + c] += Σ_j X[index[k + i]·ldx + x + j] W[w + c·ldw + j].

    j goes over n vectors.
    """

    @intrinsic
    def dot(context, X, index, k, ldx, x, W, w, ldw, n, S, s, lds):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = _Emitter(context, builder, signature)
            X, index, k, ldx, x, W, w, ldw, n, S, s, lds = args
            places = [emit.index(1, index, emit.at(k, emit.integer(i))) for i in range(rows)]
            starts = [emit.at(x, builder.mul(place, ldx)) for place in places]
            sums = [[emit.variable(emit.zero) for _ in range(classes)] for _ in range(rows)]
            with cgutils.for_range(builder, n) as loop:
                j = builder.mul(loop.index, emit.integer(emit.lanes))
                xs = [emit.load(0, X, emit.at(start, j)) for start in starts]
                for c in range(classes):
                    W_c = emit.load(5, W, emit.at(w, j, (c, ldw)))
                    for i in range(rows):
                        emit.add_product(sums[i][c], xs[i], W_c)
            for i in range(rows):
                for c in range(classes):
                    place = emit.scalar(9, S, emit.at(s, emit.integer(c), (i, lds)))
                    total = emit.total(builder.load(sums[i][c]))
                    builder.store(builder.fadd(total, builder.load(place)), place)
            return context.get_dummy_value()

        return types.void(X, index, *_INTS, W, *_INTS, S, *_INTS[:2]), generate

    return dot


def add_rows_tile(vectors: int, classes: int) -> Callable[..., None]:
    """Make G[g + c·ldg + v] += Σ_i R[r + i·ldr + c] X[index[k + i]·ldx + j + v], i over n rows."""

    @intrinsic
    def add(context, R, r, ldr, n, X, index, k, ldx, j, G, g, ldg):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = _Emitter(context, builder, signature)
            R, r, ldr, n, X, index, k, ldx, j, G, g, ldg = args
            along = [emit.integer(v * emit.lanes) for v in range(vectors)]
            places = [
                [emit.vector(9, G, emit.at(g, v, (c, ldg))) for v in along] for c in range(classes)
            ]
            sums = [[emit.variable(emit.load_from(p)) for p in row] for row in places]
            with cgutils.for_range(builder, n) as loop:
                place = emit.index(5, index, builder.add(k, loop.index))
                start = emit.at(j, builder.mul(place, ldx))
                xs = [emit.load(4, X, emit.at(start, v)) for v in along]
                row = emit.at(r, builder.mul(ldr, loop.index))
                for c in range(classes):
                    R_c = emit.splat(builder.load(emit.scalar(0, R, emit.at(row, emit.integer(c)))))
                    for v in range(vectors):
                        emit.add_product(sums[c][v], xs[v], R_c)
            for c in range(classes):
                for v in range(vectors):
                    emit.store_to(builder.load(sums[c][v]), places[c][v])
            return context.get_dummy_value()

        return types.void(R, *_INTS, X, index, *_INTS, G, *_INTS[:2]), generate

    return add


def gather_tile(vectors: int) -> Callable[..., None]:
    """Make G[g + j·lanes :] += Σ_v R[r + v·lanes :] X[x + j·ldx + v·lanes :], j over n rows of X.

    So each of these vectors is a sum over some of the examples; `fold` adds them up. Meanwhile the
    numbers that lie `ahead` of these come into the nearest cache.
    """

    @intrinsic
    def gather(context, R, r, X, x, ldx, n, G, g, ahead):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = _Emitter(context, builder, signature)
            R, r, X, x, ldx, n, G, g, ahead = args
            along = [emit.integer(v * emit.lanes) for v in range(vectors)]
            Rs = [emit.load(0, R, emit.at(r, v)) for v in along]
            with cgutils.for_range(builder, n) as loop:
                start = emit.at(x, builder.mul(ldx, loop.index))
                place = emit.vector(
                    6, G, emit.at(g, builder.mul(loop.index, emit.integer(emit.lanes)))
                )
                total = emit.load_from(place)
                for R_v, v in zip(Rs, along, strict=True):
                    emit.prefetch(2, X, emit.at(start, ahead, v))
                    total = emit.multiply_add(R_v, emit.load(2, X, emit.at(start, v)), total)
                emit.store_to(total, place)
            return context.get_dummy_value()

        return types.void(R, types.intp, X, *_INTS, G, *_INTS[:2]), generate

    return gather


def relay_tile(vectors: int) -> Callable[..., None]:
    """Do as `gather_tile`, and make Z[v·lanes :] = Σ_j W[j] X[y + j·ldx + v·lanes :] meanwhile.

    These are the scores of the examples at y, which come from the second cache while those at x are
    in the nearest: no time goes into having them come before.
    """

    @intrinsic
    def relay(context, R, r, X, x, ldx, n, G, g, W, y, Z):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = _Emitter(context, builder, signature)
            R, r, X, x, ldx, n, G, g, W, y, Z = args
            along = [emit.integer(v * emit.lanes) for v in range(vectors)]
            Rs = [emit.load(0, R, emit.at(r, v)) for v in along]
            scores = [emit.variable(emit.zero) for _ in along]
            with cgutils.for_range(builder, n) as loop:
                row = builder.mul(ldx, loop.index)
                W_j = emit.splat(builder.load(emit.scalar(8, W, loop.index)))
                place = emit.vector(
                    6, G, emit.at(g, builder.mul(loop.index, emit.integer(emit.lanes)))
                )
                total = emit.load_from(place)
                for R_v, score, v in zip(Rs, scores, along, strict=True):
                    total = emit.multiply_add(R_v, emit.load(2, X, emit.at(x, row, v)), total)
                    emit.add_product(score, W_j, emit.load(2, X, emit.at(y, row, v)))
                emit.store_to(total, place)
            for score, v in zip(scores, along, strict=True):
                emit.store_to(builder.load(score), emit.vector(10, Z, v))
            return context.get_dummy_value()

        arrays = R, types.intp, X, *_INTS, G, types.intp, W, types.intp, Z
        return types.void(*arrays), generate

    return relay


@intrinsic
def fold(context, V, v, n, G, g, step):  # type: ignore[no-untyped-def]
    """Write G[g + j·step] = the sum of the vector V[v + j·lanes :], j < n."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        V, v, n, G, g, step = args
        with cgutils.for_range(builder, n) as loop:
            at = emit.at(v, builder.mul(loop.index, emit.integer(emit.lanes)))
            place = emit.scalar(3, G, emit.at(g, builder.mul(loop.index, step)))
            builder.store(emit.total(emit.load(0, V, at)), place)
        return context.get_dummy_value()

    return types.void(V, *_INTS[:2], G, *_INTS[:2]), generate


@intrinsic
def times(context, A, a, B, b, C, c, count):  # type: ignore[no-untyped-def]
    """C[c : c + count] = A[a :] ∘ B[b :], whole vectors."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        A, a, B, b, C, c, count = args
        with emit.over(count) as i:
            product = builder.fmul(emit.load(0, A, emit.at(a, i)), emit.load(2, B, emit.at(b, i)))
            emit.store_to(product, emit.vector(4, C, emit.at(c, i)))
        return context.get_dummy_value()

    return types.void(A, types.intp, B, types.intp, C, *_INTS[:2]), generate


@intrinsic
def logistic_slopes(context, Z, z, Y, y, count, P, p, Q, q, curved):  # type: ignore[no-untyped-def]
    """Write −yσ(−yz) to P[p : p + count], and, if `curved`, σ'(z) to Q[q : q + count].

    Whole vectors; y = ±1, or 0 where there is no example.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        Z, z, Y, y, count, P, p, Q, q, curved = args
        one = emit.constant(1.0)
        curved = builder.icmp_signed("!=", curved, emit.integer(0))
        with emit.over(count) as i:
            label = emit.load(2, Y, emit.at(y, i))
            m = builder.fmul(label, emit.load(0, Z, emit.at(z, i)))
            positive = builder.fcmp_ordered(">", m, emit.zero)
            minus = builder.fneg(m)
            e = emit.exp(builder.select(positive, minus, m))
            share = builder.fdiv(one, builder.fadd(one, e))
            other = builder.fmul(e, share)
            below = builder.select(positive, other, share)
            slope = builder.fmul(builder.fneg(label), below)
            emit.store_to(slope, emit.vector(5, P, emit.at(p, i)))
            with builder.if_then(curved):
                curve = builder.fmul(share, other)
                emit.store_to(curve, emit.vector(7, Q, emit.at(q, i)))
        return context.get_dummy_value()

    arrays = Z, types.intp, Y, *_INTS[:2], P, types.intp, Q, *_INTS[:2]
    return types.void(*arrays), generate


def splat_tile(rows: int) -> Callable[..., None]:
    """Make S[s + i·lds] += Σ_j X[x + i·ldx + j] B[b + j·ldb], vectors of B and S; j over n."""

    @intrinsic
    def multiply(context, X, x, ldx, n, B, b, ldb, S, s, lds):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = _Emitter(context, builder, signature)
            X, x, ldx, n, B, b, ldb, S, s, lds = args
            places = [emit.vector(7, S, emit.at(s, (i, lds))) for i in range(rows)]
            sums = [emit.variable(emit.load_from(place)) for place in places]
            with cgutils.for_range(builder, n) as loop:
                j = loop.index
                B_j = emit.load(4, B, emit.at(b, builder.mul(ldb, j)))
                for i in range(rows):
                    X_ij = builder.load(emit.scalar(0, X, emit.at(x, j, (i, ldx))))
                    emit.add_product(sums[i], B_j, emit.splat(X_ij))
            for total, place in zip(sums, places, strict=True):
                emit.store_to(builder.load(total), place)
            return context.get_dummy_value()

        return types.void(X, *_INTS, B, *_INTS[:2], S, *_INTS[:2]), generate

    return multiply


def product_tile(rows: int, vectors: int, add: bool) -> Callable[..., None]:
    """Make C[c + i·ldc + v] = Σ_j A[a + i·lda + j·step] B[b + j·ldb + v], j over n, v in vectors.

    With `add` the sums are added to what C holds.
    """

    @intrinsic
    def multiply(context, A, a, lda, step, n, B, b, ldb, C, c, ldc):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = _Emitter(context, builder, signature)
            A, a, lda, step, n, B, b, ldb, C, c, ldc = args
            step = emit.unknown(step)
            along = [emit.integer(v * emit.lanes) for v in range(vectors)]
            places = [
                [emit.vector(8, C, emit.at(c, v, (i, ldc))) for v in along] for i in range(rows)
            ]
            sums = [
                [emit.variable(emit.load_from(place) if add else emit.zero) for place in row]
                for row in places
            ]
            with cgutils.for_range(builder, n) as loop:
                row = emit.at(b, builder.mul(ldb, loop.index))
                Bs = [emit.load(5, B, emit.at(row, v)) for v in along]
                start = emit.at(a, builder.mul(step, loop.index))
                for i in range(rows):
                    A_ij = emit.splat(builder.load(emit.scalar(0, A, emit.at(start, (i, lda)))))
                    for total, B_j in zip(sums[i], Bs, strict=True):
                        emit.add_product(total, A_ij, B_j)
            for totals, row in zip(sums, places, strict=True):
                for total, place in zip(totals, row, strict=True):
                    emit.store_to(builder.load(total), place)
            return context.get_dummy_value()

        return types.void(A, *_INTS, types.intp, B, *_INTS[:2], C, *_INTS[:2]), generate

    return multiply


_INTS = (types.intp,) * 3
#: Sums that run side by side, to hide the latency of the multiply-add.
_CHAINS = 4


def sparse_gather(width: int) -> Callable[..., None]:
    """Make G[g + u·ldg :] += Σ_p data[p, u] R[r + index[p] :], p = first … last − 1, u < width."""

    @intrinsic
    def gather(context, data, index, first, last, R, r, G, g, ldg):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = _Emitter(context, builder, signature)
            data, index, first, last, R, r, G, g, ldg = args
            sums = [[emit.variable(emit.zero) for _ in range(_CHAINS)] for _ in range(width)]

            def term(k: int, p: Any) -> None:
                R_i = emit.load(4, R, emit.at(r, emit.index(1, index, p)))
                for u, x in enumerate(emit.splats(0, data, p, width)):
                    emit.add_product(sums[u][k], x, R_i)

            emit.unrolled(first, last, term)
            for u in range(width):
                place = emit.vector(6, G, emit.at(g, (u, ldg)))
                total = emit.load_from(place)
                for part in sums[u]:
                    total = builder.fadd(total, builder.load(part))
                emit.store_to(total, place)
            return context.get_dummy_value()

        return types.void(data, index, *_INTS[:2], R, types.intp, G, *_INTS[:2]), generate

    return gather


def sparse_scatter(width: int) -> Callable[..., None]:
    """Make S[s + index[p] :] += Σ_u data[p, u] W[w + u·ldw :], p = first … last − 1, u < width."""

    @intrinsic
    def scatter(context, data, index, first, last, W, w, ldw, S, s):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = _Emitter(context, builder, signature)
            data, index, first, last, W, w, ldw, S, s = args
            rows = [emit.load(4, W, emit.at(w, (u, ldw))) for u in range(width)]

            def term(_: int, p: Any) -> None:
                place = emit.vector(7, S, emit.at(s, emit.index(1, index, p)))
                total = emit.load_from(place)
                for x, W_u in zip(emit.splats(0, data, p, width), rows, strict=True):
                    total = emit.multiply_add(x, W_u, total)
                emit.store_to(total, place)

            emit.unrolled(first, last, term)
            return context.get_dummy_value()

        return types.void(data, index, *_INTS[:2], W, *_INTS[:2], S, types.intp), generate

    return scatter


@intrinsic
def row_max(context, S, s, classes):  # type: ignore[no-untyped-def]
    """Return the largest of S[s : s + classes]; NaN is passed over."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        S, s, classes = args
        top = emit.variable(emit.constant(-math.inf))
        with emit.over(classes) as j:
            x = emit.masked(emit.load(0, S, emit.at(s, j)), j, classes)
            builder.store(emit.larger(x, builder.load(top)), top)
        return emit.largest(builder.load(top))

    return S.dtype(S, types.intp, types.intp), generate


@intrinsic
def exps(context, S, s, count):  # type: ignore[no-untyped-def]
    """Replace the whole vectors that hold S[s : s + count] by their exponentials, S ≤ 0."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        S, s, count = args
        with emit.over(count) as j:
            place = emit.vector(0, S, emit.at(s, j))
            emit.store_to(emit.exp(emit.load_from(place)), place)
        return context.get_dummy_value()

    return types.void(S, types.intp, types.intp), generate


@intrinsic
def row_exp(context, S, s, classes, top):  # type: ignore[no-untyped-def]
    """Replace S[s : s + classes] by exp(S − top), top ≥ S; return their sum.

    exp(x) = 2ᵏ exp(r), k = round(x / log 2), |r| ≤ (log 2)/2, by exp's Taylor series, to an error
    of 2 ulp; what would be too small for its dtype is 0, and NaN stays.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        S, s, classes, top = args
        top, total = emit.splat(top), emit.variable(emit.zero)
        with emit.over(classes) as j:
            place = emit.vector(0, S, emit.at(s, j))
            e = emit.exp(builder.fsub(emit.masked(emit.load_from(place), j, classes), top))
            emit.store_to(e, place)
            builder.store(builder.fadd(builder.load(total), e), total)
        return emit.total(builder.load(total))

    return S.dtype(S, types.intp, types.intp, S.dtype), generate


@intrinsic
def row_dot(context, S, s, D, d, classes):  # type: ignore[no-untyped-def]
    """Return Σ_c S[s + c] D[d + c], over whole vectors."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        S, s, D, d, classes = args
        total = emit.variable(emit.zero)
        with emit.over(classes) as j:
            emit.add_product(total, emit.load(0, S, emit.at(s, j)), emit.load(2, D, emit.at(d, j)))
        return emit.total(builder.load(total))

    return S.dtype(S, types.intp, D, types.intp, types.intp), generate


@intrinsic
def row_residual(context, S, s, classes, factor, own, weight):  # type: ignore[no-untyped-def]
    """S[s + c] = factor S[s + c] − weight [c = own], over whole vectors.

    In one go: a scalar read of what a vector has just written waits for the write.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        S, s, classes, factor, own, weight = args
        factor, weight = emit.splat(factor), emit.splat(builder.fneg(weight))
        with emit.over(classes) as j:
            place = emit.vector(0, S, emit.at(s, j))
            hit = builder.icmp_signed("==", *emit.numbered(builder.sub(own, j)))
            less = builder.select(hit, weight, emit.zero)
            emit.store_to(emit.multiply_add(emit.load_from(place), factor, less), place)
        return context.get_dummy_value()

    return types.void(S, *_INTS[:2], S.dtype, types.intp, S.dtype), generate


@intrinsic
def row_change(context, S, s, P, p, D, d, classes, factor, shift):  # type: ignore[no-untyped-def]
    """S[s + c] = factor P[p + c] (D[d + c] − shift), over whole vectors."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        S, s, P, p, D, d, classes, factor, shift = args
        factor, shift = emit.splat(factor), emit.splat(shift)
        with emit.over(classes) as j:
            change = builder.fsub(emit.load(4, D, emit.at(d, j)), shift)
            change = builder.fmul(emit.load(2, P, emit.at(p, j)), builder.fmul(factor, change))
            emit.store_to(change, emit.vector(0, S, emit.at(s, j)))
        return context.get_dummy_value()

    arrays = S, types.intp, P, types.intp, D, types.intp
    return types.void(*arrays, types.intp, S.dtype, S.dtype), generate


@intrinsic
def row_keep(context, S, s, P, p, classes, factor):  # type: ignore[no-untyped-def]
    """P[p + c] = factor S[s + c], over whole vectors."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        S, s, P, p, classes, factor = args
        factor = emit.splat(factor)
        with emit.over(classes) as j:
            scaled = builder.fmul(emit.load(0, S, emit.at(s, j)), factor)
            emit.store_to(scaled, emit.vector(2, P, emit.at(p, j)))
        return context.get_dummy_value()

    return types.void(S, types.intp, P, *_INTS[:2], S.dtype), generate


@intrinsic
def count_up(context, counter, k, by):  # type: ignore[no-untyped-def]
    """Add to counter[k], as other threads may do at the same time; return what it was."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        counter, k, by = args
        return builder.atomic_rmw("add", emit.scalar(0, counter, k), by, ordering="seq_cst")

    return types.int64(counter, types.intp, types.int64), generate


@intrinsic
def swap(context, counter, k, old, new):  # type: ignore[no-untyped-def]
    """Set counter[k] to `new` where it is `old`, in one go; return whether it was."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        counter, k, old, new = args
        place = emit.scalar(0, counter, k)
        return builder.extract_value(builder.cmpxchg(place, old, new, "seq_cst"), 1)

    return types.boolean(counter, types.intp, types.int64, types.int64), generate


@intrinsic
def fetch(context, x, k):  # type: ignore[no-untyped-def]
    """Have the cache line of x[k] come into the nearest cache."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature)
        emit.prefetch(0, *args)
        return context.get_dummy_value()

    return types.void(x, types.intp), generate


class _Emitter:
    """The instructions that the tiles are made of, for the dtype of the first array of floats."""

    def __init__(self, context: Any, builder: Any, signature: Any) -> None:
        self.context, self.builder, self.types = context, builder, signature.args
        dtype = signature.args[0].dtype
        scalar = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
        self.size = dtype.bitwidth // 8
        self.lanes, self.scalar_type = _BYTES // self.size, scalar
        self.type = ir.VectorType(scalar, self.lanes)
        self.zero = self.constant(0.0)

    def integer(self, value: int) -> Any:
        return ir.Constant(_INT, value)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.type, [value] * self.lanes)

    def unknown(self, value: Any) -> Any:
        """Return the same number, of which LLVM knows nothing.

        What it makes of a loop of a tile where a stride is 1 takes half as long again.
        """
        kind = ir.FunctionType(value.type, [value.type])
        return self.builder.asm(kind, "", "=r,0", [value], side_effect=False)

    def variable(self, value: Any) -> Any:
        """Return a place that LLVM turns into a register."""
        return cgutils.alloca_once_value(self.builder, value)

    def at(self, *terms: Any) -> Any:
        """Return the sum of offsets; a pair (i, ld) counts i rows."""
        total = None
        for term in terms:
            if isinstance(term, tuple):
                term = self.builder.mul(self.integer(term[0]), term[1])
            total = term if total is None else self.builder.add(total, term)
        return total

    def scalar(self, k: int, array: Any, offset: Any) -> Any:
        """Return a pointer into the k-th argument."""
        data = self.context.make_array(self.types[k])(self.context, self.builder, array).data
        return self.builder.gep(data, [offset], inbounds=True)

    def vector(self, k: int, array: Any, offset: Any) -> Any:
        return self.builder.bitcast(self.scalar(k, array, offset), self.type.as_pointer())

    def index(self, k: int, index: Any, p: Any) -> Any:
        return self.builder.sext(self.builder.load(self.scalar(k, index, p)), _INT)

    def load_from(self, place: Any) -> Any:
        return self.builder.load(place, align=self.size)

    def load(self, k: int, array: Any, offset: Any) -> Any:
        return self.load_from(self.vector(k, array, offset))

    def prefetch(self, k: int, array: Any, offset: Any) -> None:
        """Have a cache line come into the nearest cache; where there is none, nothing happens."""
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        fetch = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        read, near, data = (ir.Constant(i32, value) for value in (0, 3, 1))
        place = self.builder.bitcast(self.scalar(k, array, offset), byte)
        self.builder.call(fetch, [place, read, near, data])

    def store_to(self, value: Any, place: Any) -> None:
        self.builder.store(value, place, align=self.size)

    def splat(self, value: Any, kind: Any = None) -> Any:
        undefined = ir.Constant(kind or self.type, ir.Undefined)
        first = ir.Constant(ir.IntType(32), 0)
        single = self.builder.insert_element(undefined, value, first)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, undefined, everywhere)

    def call(self, name: str, *args: Any) -> Any:
        kind = ir.FunctionType(self.type, [self.type] * len(args))
        name = f"llvm.{name}.v{self.lanes}f{8 * self.size}"
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, name), args
        )

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return self.call("fma", a, b, c)

    def add_product(self, variable: Any, a: Any, b: Any) -> None:
        self.builder.store(self.multiply_add(a, b, self.builder.load(variable)), variable)

    def total(self, value: Any) -> Any:
        """Return the sum of a vector's entries, in the order that the machine likes."""
        kind = ir.FunctionType(self.scalar_type, [self.scalar_type, self.type])
        name = f"llvm.vector.reduce.fadd.v{self.lanes}f{8 * self.size}"
        add = cgutils.get_or_insert_function(self.builder.module, kind, name)
        zero = ir.Constant(self.scalar_type, -0.0)
        return self.builder.call(add, [zero, value], fastmath=("reassoc",))

    def larger(self, a: Any, b: Any) -> Any:
        """Return a where a > b, otherwise b: a NaN in `a` is passed over."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def largest(self, value: Any) -> Any:
        """Return the largest of a vector's entries, halving it until one is left."""
        width, i32 = self.lanes, ir.IntType(32)
        while width > 1:
            width //= 2
            upper = ir.Constant(
                ir.VectorType(i32, self.lanes),
                [(k + width) % self.lanes for k in range(self.lanes)],
            )
            moved = self.builder.shuffle_vector(value, ir.Constant(self.type, ir.Undefined), upper)
            value = self.larger(value, moved)
        return self.builder.extract_element(value, ir.Constant(i32, 0))

    @contextmanager
    def over(self, count: Any) -> Iterator[Any]:
        """Loop over the vectors that hold `count` numbers; gives where each begins."""
        step = self.integer(self.lanes)
        with cgutils.for_range_slice(self.builder, self.integer(0), count, step, inc=True) as (
            j,
            _,
        ):
            yield j

    def splats(self, k: int, data: Any, p: Any, width: int) -> list[Any]:
        """Return data[p, 0 … width − 1], each in all places of a vector."""
        start = self.builder.mul(p, self.integer(width))
        places = [self.scalar(k, data, self.at(start, self.integer(u))) for u in range(width)]
        return [self.splat(self.builder.load(place)) for place in places]

    def unrolled(self, first: Any, last: Any, term: Callable[[int, Any], None]) -> None:
        """Emit term(k, p) for p = first … last − 1, with k counting to `_CHAINS` over and over."""
        builder, chains = self.builder, self.integer(_CHAINS)
        whole = builder.sub(last, builder.srem(builder.sub(last, first), chains))
        with cgutils.for_range_slice(builder, first, whole, chains, inc=True) as (p, _):
            for k in range(_CHAINS):
                term(k, builder.add(p, self.integer(k)))
        with cgutils.for_range_slice(builder, whole, last, self.integer(1), inc=True) as (p, _):
            term(0, p)

    def numbered(self, value: Any) -> tuple[Any, Any]:
        """Return 0, 1, … and `value` in each place, to compare."""
        kind = ir.VectorType(_INT, self.lanes)
        return ir.Constant(kind, list(range(self.lanes))), self.splat(value, kind)

    def masked(self, value: Any, j: Any, count: Any) -> Any:
        """Return the vector that begins at j with −∞ from `count` on."""
        inside = self.builder.icmp_signed("<", *self.numbered(self.builder.sub(count, j)))
        return self.builder.select(inside, value, self.constant(-math.inf))

    def exp(self, x: Any) -> Any:
        # log 2 in two parts, of which the first times k is exact.
        bits, bias, mantissa, terms, lowest, log_2, rest = (
            (32, 127, 23, 8, -87.0, 0.693359375, -2.12194440e-4)
            if self.size == 4
            else (64, 1023, 52, 14, -708.0, 0.69314718036912382, 1.9082149292705877e-10)
        )
        builder, ints = self.builder, ir.VectorType(ir.IntType(bits), self.lanes)
        low = builder.fcmp_ordered("<", x, self.constant(lowest))
        x = builder.select(low, self.zero, x)
        k = self.call("rint", builder.fmul(x, self.constant(1 / math.log(2))))
        r = self.multiply_add(k, self.constant(-log_2), x)
        r = self.multiply_add(k, self.constant(-rest), r)
        # Even powers and odd ones, which need not wait for each other.
        even, odd, square = self.zero, self.zero, builder.fmul(r, r)
        for power in reversed(range(0, terms, 2)):
            even = self.multiply_add(even, square, self.constant(1 / math.factorial(power)))
            odd = self.multiply_add(odd, square, self.constant(1 / math.factorial(power + 1)))
        series = self.multiply_add(odd, r, even)
        exponent = builder.add(builder.fptosi(k, ints), ir.Constant(ints, [bias] * self.lanes))
        power_of_2 = builder.shl(exponent, ir.Constant(ints, [mantissa] * self.lanes))
        return builder.select(
            low, self.zero, builder.fmul(series, builder.bitcast(power_of_2, self.type))
        )
