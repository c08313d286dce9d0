"""The steps of `tinybilevel.kernels.adaptation`, forward and back, in compiled code.

A block is a row of a table: its sizes, and where its parts begin in a state and in the memory of a
step. ``kept`` holds for each block what the products need of the forward pass, and the softmax of
the scores; ``room`` is for what no one asks for later.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tinybilevel.kernels.images import (
    fold,
    norm_adjoint,
    norm_both,
    norm_forward,
    norm_tangent,
    unfold,
)
from tinybilevel.kernels.product import multiply

__all__ = ["ascend", "descend"]


@njit(nogil=True, cache=True)
def _matrix(x, at, rows, columns):  # type: ignore[no-untyped-def]
    return x[at : at + rows * columns].reshape(rows, columns)


@njit(nogil=True, cache=True)
def _tensors(o, s):  # type: ignore[no-untyped-def]
    """Return kernel, scale and shift of a block in a state; m in place of the first kernel."""
    rows = o.rows if o.at == 0 else o.patch
    at = o.at + rows * o.outputs
    scale, shift = s[at : at + o.outputs], s[at + o.outputs : at + 2 * o.outputs]
    return _matrix(s, o.at, rows, o.outputs), scale, shift


@njit(nogil=True, cache=True)
def _head(s, features, n_classes):  # type: ignore[no-untyped-def]
    """Return weights and bias of the head in a state."""
    at = len(s) - n_classes
    return _matrix(s, at - features * n_classes, features, n_classes), s[at:]


@njit(nogil=True, cache=True)
def _memory(o, kept):  # type: ignore[no-untyped-def]
    """Return Y, ⟨Y⟩ and 1/σ, z, x̂ and the cotangent of z of a block."""
    Y, at = _matrix(kept, o.kept, o.rows, o.outputs), o.kept + o.rows * o.outputs
    mean, inverse = kept[at : at + o.outputs], kept[at + o.outputs : at + 2 * o.outputs]
    at, size = at + 2 * o.outputs, o.windows * o.outputs
    z, x_hat, gz = (
        _matrix(kept, at, o.windows, o.outputs),
        _matrix(kept, at + size, o.windows, o.outputs),
        _matrix(kept, at + 2 * size, o.windows, o.outputs),
    )
    return Y, mean, inverse, z, x_hat, gz


@njit(nogil=True, cache=True)
def _patches(o, room):  # type: ignore[no-untyped-def]
    """Return room for U, U̇ and their cotangents."""
    size = o.rows * o.patch
    return (
        _matrix(room, o.room, o.rows, o.patch),
        _matrix(room, o.room + size, o.rows, o.patch),
        _matrix(room, o.room + 2 * size, o.rows, o.patch),
        _matrix(room, o.room + 3 * size, o.rows, o.patch),
    )


@njit(nogil=True, cache=True)
def _moves(o, room):  # type: ignore[no-untyped-def]
    """Return room for Ẏ, the cotangents of Y, how ⟨Y⟩, σ, z, x̂ and z̄ move."""
    at, size = o.room + 4 * o.rows * o.patch, o.rows * o.outputs
    dY = _matrix(room, at, o.rows, o.outputs)
    both = room[at + size : at + 3 * size].reshape(2, o.rows, o.outputs)
    at, size = at + 3 * size, o.windows * o.outputs
    dmean, dsigma = room[at : at + o.outputs], room[at + o.outputs : at + 2 * o.outputs]
    at += 2 * o.outputs
    dz, dx_hat, dgz = (
        _matrix(room, at, o.windows, o.outputs),
        _matrix(room, at + size, o.windows, o.outputs),
        _matrix(room, at + 2 * size, o.windows, o.outputs),
    )
    return dY, both, dmean, dsigma, dz, dx_hat, dgz


# Below, functions of slices: LLVM cannot tell that an index that begins elsewhere is not below 0.
@njit(nogil=True, cache=True)
def _step(s, g, c, rate, pull, after):  # type: ignore[no-untyped-def]
    for i in range(len(s)):
        after[i] = s[i] - rate * (g[i] + pull * (s[i] - c[i]))


@njit(nogil=True, cache=True)
def _scale(a, factor, v):  # type: ignore[no-untyped-def]
    for i in range(len(a)):
        v[i] = factor * a[i]


@njit(nogil=True, cache=True)
def _take_off(a, d, pull, v):  # type: ignore[no-untyped-def]
    for i in range(len(a)):
        a[i] -= d[i] + pull * v[i]


@njit(nogil=True, cache=True)
def descend(  # type: ignore[no-untyped-def]
    blocks, ends, y, n_classes, scale, T, gram, base, centre, pulls, gamma,
    states, second, grads, kept, chosen, room
):  # fmt: skip
    """Run T steps; what is last in `states`, `grads`, `kept` and `chosen` are the last of them."""
    for t in range(T):
        at = (t - T) % len(kept)
        s, after = states[(t - T - 1) % len(states)], states[(t - T) % len(states)]
        g = grads[at]
        _forward(blocks, n_classes, gram, base, s, kept[at], chosen[at], room)
        _adjoint(blocks, y, n_classes, scale, s, kept[at], chosen[at], room, g)
        begin = 0
        for j in range(len(ends)):
            part = slice(begin, ends[j])
            _step(s[part], g[part], centre[part], gamma[j], pulls[j], after[part])
            begin = ends[j]
        if t == 0:
            second[:] = after


@njit(nogil=True, cache=True)
def _forward(blocks, n_classes, gram, base, s, kept, chosen, room):  # type: ignore[no-untyped-def]
    """Run the network on a state, up to the softmax of its scores, which comes last in `kept`."""
    before = base
    for b in range(len(blocks)):
        o = blocks[b]
        V, scale, shift = _tensors(o, s)
        Y, mean, inverse, z, x_hat, _ = _memory(o, kept)
        if b == 0:
            multiply(gram, False, V, Y, False)
            Y += base
        else:
            U = _patches(o, room)[0]
            unfold(before, (o.n, o.from_height, o.from_width), o.k, o.s, o.a, U)
            multiply(U, False, V, Y, False)
        norm_forward(
            Y, (o.n, o.height, o.width), o.pool, True, scale, shift, o.eps, mean, inverse, z,
            x_hat, _matrix(chosen, o.chosen, o.windows, o.outputs),
        )  # fmt: skip
        before = z
    n = blocks[0].n
    X = before.reshape(n, before.size // n)
    W, bias = _head(s, X.shape[1], n_classes)
    P = _matrix(kept, len(kept) - n * n_classes, n, n_classes)
    np.dot(X, W, P)
    for i in range(n):
        for c in range(n_classes):
            P[i, c] += bias[c]
        top = P[i].max()
        for c in range(n_classes):
            P[i, c] = np.exp(P[i, c] - top)
        P[i] /= P[i].sum()


@njit(nogil=True, cache=True)
def _adjoint(blocks, y, n_classes, scale, s, kept, chosen, room, g):  # type: ignore[no-untyped-def]
    """Write the gradient of the loss to g, after `_forward`."""
    n = blocks[0].n
    o = blocks[len(blocks) - 1]
    _, _, _, z, _, gz = _memory(o, kept)
    X = z.reshape(n, z.size // n)
    W, _ = _head(s, X.shape[1], n_classes)
    gW, gbias = _head(g, X.shape[1], n_classes)
    R = _residual(y, scale, kept, n_classes)
    np.dot(X.T, R, gW)
    gbias[:] = R.sum(axis=0)
    np.dot(R, W.T, gz.reshape(X.shape))
    for b in range(len(blocks) - 1, -1, -1):
        o = blocks[b]
        V, scales, _ = _tensors(o, s)
        gV, gscale, gshift = _tensors(o, g)
        Y, mean, inverse, _, x_hat, gz = _memory(o, kept)
        G = gV if b == 0 else _moves(o, room)[0]
        norm_adjoint(
            Y, (o.n, o.height, o.width), o.pool, scales, mean, inverse, x_hat,
            _matrix(chosen, o.chosen, o.windows, o.outputs), gz, gscale, gshift, G,
        )  # fmt: skip
        if b > 0:
            U, _, gU, _ = _patches(o, room)
            multiply(U, True, G, gV, False)
            np.dot(G, V.T, gU)
            below = _memory(blocks[b - 1], kept)[5]
            fold(gU, (o.n, o.from_height, o.from_width), o.k, o.s, o.a, below)


@njit(nogil=True, cache=True)
def _residual(y, scale, kept, n_classes):  # type: ignore[no-untyped-def]
    """Return s (softmax − onehot)."""
    R = _matrix(kept, len(kept) - len(y) * n_classes, len(y), n_classes).copy()
    for i in range(len(y)):
        R[i, y[i]] -= 1
        for c in range(n_classes):
            R[i, c] *= scale
    return R


@njit(nogil=True, cache=True)
def _along(blocks, y, n_classes, scale, s, v, kept, chosen, room, d):  # type: ignore[no-untyped-def]
    """Write to d how the gradient of the loss at a state moves along v, after both of the above."""
    n = blocks[0].n
    for b in range(len(blocks)):
        o = blocks[b]
        V, scales, _ = _tensors(o, s)
        dV, dscale, dshift = _tensors(o, v)
        Y, mean, inverse, _, x_hat, _ = _memory(o, kept)
        dY, _, dmean, dsigma, dz, dx_hat, _ = _moves(o, room)
        if b == 0:
            dY = dV  # what v has there is along Y
        else:
            U, dU, _, _ = _patches(o, room)
            shape = (o.n, o.from_height, o.from_width)
            unfold(_memory(blocks[b - 1], kept)[3], shape, o.k, o.s, o.a, U)
            unfold(_moves(blocks[b - 1], room)[4], shape, o.k, o.s, o.a, dU)
            multiply(U, False, dV, dY, False)
            multiply(dU, False, V, dY, True)
        norm_tangent(
            Y, dY, (o.n, o.height, o.width), o.pool, scales, dscale, dshift, mean, inverse, x_hat,
            _matrix(chosen, o.chosen, o.windows, o.outputs), dmean, dsigma, dz, dx_hat,
        )  # fmt: skip
    o = blocks[len(blocks) - 1]
    z, dz, dgz = _memory(o, kept)[3], _moves(o, room)[4], _moves(o, room)[6]
    X, dX = z.reshape(n, z.size // n), dz.reshape(n, z.size // n)
    (W, _), (dW, dbias) = _head(s, X.shape[1], n_classes), _head(v, X.shape[1], n_classes)
    gW, gbias = _head(d, X.shape[1], n_classes)
    P = _matrix(kept, len(kept) - n * n_classes, n, n_classes)
    R = _residual(y, scale, kept, n_classes)
    dR = np.dot(dX, W)
    dR += np.dot(X, dW)
    for i in range(n):
        mean_move = P.dtype.type(0)
        for c in range(n_classes):
            dR[i, c] += dbias[c]
            mean_move += P[i, c] * dR[i, c]
        for c in range(n_classes):
            dR[i, c] = scale * P[i, c] * (dR[i, c] - mean_move)
    np.dot(X.T, dR, gW)
    gW += np.dot(dX.T, R)
    gbias[:] = dR.sum(axis=0)
    gX = dgz.reshape(X.shape)
    np.dot(dR, W.T, gX)
    gX += np.dot(R, dW.T)
    for b in range(len(blocks) - 1, -1, -1):
        o = blocks[b]
        V, scales, _ = _tensors(o, s)
        dV, dscale, _ = _tensors(o, v)
        gV, gscale, gshift = _tensors(o, d)
        Y, mean, inverse, _, x_hat, gz = _memory(o, kept)
        dY, both, dmean, dsigma, _, dx_hat, dgz = _moves(o, room)
        unmoved = np.empty((2, o.outputs), Y.dtype)
        norm_both(
            Y, dV if b == 0 else dY, (o.n, o.height, o.width), o.pool, scales, dscale, mean,
            inverse, x_hat, _matrix(chosen, o.chosen, o.windows, o.outputs), dmean, dsigma, dx_hat,
            gz, dgz, unmoved[0], unmoved[1], gscale, gshift, both,
        )  # fmt: skip
        G, dG = both[0], both[1]
        if b == 0:
            gV[:] = dG
        else:
            U, dU, gU, more = _patches(o, room)
            multiply(U, True, dG, gV, False)
            multiply(dU, True, G, gV, True)
            np.dot(dG, V.T, gU)
            np.dot(G, dV.T, more)
            gU += more
            below = _moves(blocks[b - 1], room)[6]
            fold(gU, (o.n, o.from_height, o.from_width), o.k, o.s, o.a, below)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _inner(x, y):  # type: ignore[no-untyped-def]
    total = x.dtype.type(0)
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _add_inner(w, c, g, a, sums):  # type: ignore[no-untyped-def]
    """Add ⟨w − c, a⟩ and ⟨g, a⟩ to the two sums."""
    pull = slope = a.dtype.type(0)
    for i in range(len(a)):
        pull += (w[i] - c[i]) * a[i]
        slope += g[i] * a[i]
    sums[0] += pull
    sums[1] += slope


@njit(nogil=True, cache=True)
def ascend(  # type: ignore[no-untyped-def]
    blocks, ends, y, n_classes, scale, gram, centre, pulls, gamma, states, grads, kept, chosen,
    room, a, n, square, total, left, right, along, by_tensor, squares
):  # fmt: skip
    """Go back as many steps as `squares` has room for; return κ, and Σκ over the steps.

    Makes a and n those of the last α; total = Σ α with n in its first place; along = ΣD and ΣγκG;
    the sums by tensor of ⟨w − c, α⟩ and ⟨g, α⟩; left and right, whose product is Σ (Dmᵀ + γGnᵀ).
    """
    rows, outputs, first = blocks[0].rows, blocks[0].outputs, ends[0]
    one = a.dtype.type(1)
    shrink, kappa, kappas = one - pulls[0] * gamma[0], one, one - one
    v, d, beta = np.empty_like(a), np.empty_like(a), a[:first].copy()
    D, N = _matrix(d, 0, rows, outputs), _matrix(n, 0, rows, outputs)
    product = np.empty_like(D)
    for k in range(len(squares)):
        at = len(states) - 2 - k
        s, g = states[at], grads[at]
        begin = 0
        for j in range(len(ends)):
            part = slice(begin, ends[j])
            _add_inner(s[part], centre[part], g[part], a[part], by_tensor[j])
            _scale(a[part], gamma[j], v[part])
            begin = ends[j]
        total[:first] += n
        total[first:] += a[first:]
        kappas += kappa
        _along(blocks, y, n_classes, scale, s, v, kept[at], chosen[at], room, d)
        G, m = _matrix(g, 0, rows, outputs), _matrix(s, 0, rows, outputs)
        begin = 2 * k * outputs
        between, end = begin + outputs, begin + 2 * outputs
        for i in range(rows):
            left[i, begin:between] = D[i]
            left[i, between:end] = G[i]
            right[i, begin:between] = m[i]
            _scale(N[i], gamma[0], right[i, between:end])
        multiply(gram, False, D, product, False)
        change = product.reshape(-1)
        here = gamma[0] * kappa
        for i in range(first):
            along[0, i] += d[i]
            along[1, i] += here * g[i]
            n[i] = shrink * n[i] - d[i]
            a[i] = shrink * a[i] - change[i]
        begin = first
        for j in range(1, len(ends)):
            part = slice(begin, ends[j])
            _take_off(a[part], d[part], pulls[j], v[part])
            begin = ends[j]
        kappa *= shrink
        own = _inner(n, beta) * kappa + _inner(n, a[:first])
        squares[k] = kappa * kappa * square + own + _inner(a[first:], a[first:])
    return kappa, kappas
