"""Loops over images with channels last: patches, and batch norm with rectifier and max-pooling.

Images are (n·height·width, channels), position after position, so that each loop over channels is
a loop over neighbours, which LLVM makes vectors of. ``shape`` is (n, height, width) throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "fold",
    "from_columns",
    "norm_adjoint",
    "norm_both",
    "norm_forward",
    "norm_tangent",
    "to_columns",
    "unfold",
]

#: What `norm_forward` writes where a window's largest number is not above 0.
_NONE = 255
#: Numbers that are copied faster one by one.
_SHORT = 16


@intrinsic
def _copy(context, target, t, source, s, count):  # type: ignore[no-untyped-def]
    """Copy source[s : s + count] to target[t : t + count], which LLVM leaves to memcpy."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, t, source, s, count = args
        places = []
        for kind, array, at in ((signature.args[0], target, t), (signature.args[2], source, s)):
            data = context.make_array(kind)(context, builder, array).data
            places.append(builder.gep(data, [at]))
        size = context.get_constant(types.intp, signature.args[0].dtype.bitwidth // 8)
        cgutils.raw_memcpy(builder, *places, count, size)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), generate


@njit(nogil=True, cache=True)
def unfold(x, shape, k, s, a, U):  # type: ignore[no-untyped-def]
    """Write the patch under each place of a k × k kernel, stride s, padding a, to a row of U."""
    n, height, width = shape
    rows, columns = (height + 2 * a - k) // s + 1, (width + 2 * a - k) // s + 1
    channels = x.shape[1]
    x, U, run, zero = x.reshape(-1), U.reshape(-1), k * channels, x.dtype.type(0)
    at = 0
    for image in range(n):
        for i in range(rows):
            for j in range(columns):
                left = s * j - a
                first = min(max(0, -left), k) * channels
                last = max(min(k, width - left) * channels, first)
                for v in range(k):
                    h = s * i + v - a
                    start = ((image * height + h) * width + left) * channels
                    if h < 0 or h >= height:
                        U[at : at + run] = 0
                    elif run < _SHORT:
                        for c in range(run):
                            U[at + c] = x[start + c] if first <= c < last else zero
                    else:
                        U[at : at + first] = 0
                        _copy(U, at + first, x, start + first, last - first)
                        U[at + last : at + run] = 0
                    at += run


@njit(nogil=True, cache=True)
def fold(U, shape, k, s, a, x):  # type: ignore[no-untyped-def]
    """Write the adjoint of `unfold` to x."""
    n, height, width = shape
    rows, columns = (height + 2 * a - k) // s + 1, (width + 2 * a - k) // s + 1
    channels = x.shape[1]
    x, U, run = x.reshape(-1), U.reshape(-1), k * channels
    x[:] = 0
    at = 0
    for image in range(n):
        for i in range(rows):
            for j in range(columns):
                left = s * j - a
                first = min(max(0, -left), k) * channels
                last = max(min(k, width - left) * channels, first)
                for v in range(k):
                    h = s * i + v - a
                    if 0 <= h < height and first < last:
                        start = ((image * height + h) * width + left) * channels
                        # Slices, since LLVM cannot tell that a sum of indices is not below 0.
                        patch, under = U[at + first : at + last], x[start + first : start + last]
                        for c in range(last - first):
                            under[c] += patch[c]
                    at += run


@njit(nogil=True, cache=True)
def to_columns(W, V):  # type: ignore[no-untyped-def]
    """Write kernels W (out, in, k²) to the columns of V, with rows as patches have them."""
    outputs, channels, places = W.shape
    for c in range(channels):
        for p in range(places):
            for o in range(outputs):
                V[p * channels + c, o] = W[o, c, p]


@njit(nogil=True, cache=True)
def from_columns(V, W):  # type: ignore[no-untyped-def]
    """Write the adjoint of `to_columns` to W."""
    outputs, channels, places = W.shape
    for o in range(outputs):
        for c in range(channels):
            for p in range(places):
                W[o, c, p] = V[p * channels + c, o]


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def norm_forward(Y, shape, p, rectify, scale, shift, eps, mean, inverse, z, x_hat, chosen):  # type: ignore[no-untyped-def]
    """Write max(scale·x̂ + shift) over windows of p × p, above 0 if rectified, to z.

    Also the mean and 1/σ of each channel, and x̂ and the place of the largest number of a window.
    """
    _, height, width = shape
    positions, channels = Y.shape
    zero = Y.dtype.type(0)
    total, rest = np.zeros(channels, Y.dtype), np.zeros(channels, Y.dtype)
    mean[:] = 0
    for start in range(0, positions, width):  # a row at a time, for the sums' precision
        total[:] = 0
        for at in range(start, start + width):
            for c in range(channels):
                total[c] += Y[at, c]
        for c in range(channels):
            mean[c] += total[c]
    for c in range(channels):
        mean[c] /= positions
    for start in range(0, positions, width):
        total[:] = 0
        for at in range(start, start + width):
            for c in range(channels):
                part = Y[at, c] - mean[c]
                total[c] += part * part
        for c in range(channels):
            rest[c] += total[c]
    for c in range(channels):
        inverse[c] = 1 / np.sqrt(rest[c] / positions + eps)
    n, rows, columns = shape[0], height // p, width // p
    for image in range(n):
        for i in range(rows):
            for j in range(columns):
                out = (image * rows + i) * columns + j
                corner = (image * height + i * p) * width + j * p
                for c in range(channels):
                    part = (Y[corner, c] - mean[c]) * inverse[c]
                    x_hat[out, c] = part
                    z[out, c] = scale[c] * part + shift[c]
                    chosen[out, c] = 0
                for place in range(1, p * p):
                    at = corner + (place // p) * width + place % p
                    for c in range(channels):
                        part = (Y[at, c] - mean[c]) * inverse[c]
                        value = scale[c] * part + shift[c]
                        larger = value > z[out, c]
                        z[out, c] = value if larger else z[out, c]
                        x_hat[out, c] = part if larger else x_hat[out, c]
                        chosen[out, c] = place if larger else chosen[out, c]
                if rectify:
                    for c in range(channels):
                        positive = z[out, c] > 0
                        z[out, c] = z[out, c] if positive else zero
                        chosen[out, c] = chosen[out, c] if positive else _NONE


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def norm_tangent(  # type: ignore[no-untyped-def]
    Y, dY, shape, p, scale, dscale, dshift, mean, inverse, x_hat, chosen, dmean, dsigma, dz, dx_hat
):
    """Write how z of `norm_forward` moves to dz, and how x̂ of the chosen, ⟨x⟩ and σ move."""
    n, height, width = shape
    positions, channels = Y.shape
    zero = Y.dtype.type(0)
    plain, along = np.zeros(channels, Y.dtype), np.zeros(channels, Y.dtype)
    dmean[:] = 0
    dsigma[:] = 0
    for start in range(0, positions, width):
        plain[:] = 0
        along[:] = 0
        for at in range(start, start + width):
            for c in range(channels):
                plain[c] += dY[at, c]
                along[c] += dY[at, c] * (Y[at, c] - mean[c])
        for c in range(channels):
            dmean[c] += plain[c]
            dsigma[c] += along[c]
    for c in range(channels):
        dmean[c] /= positions
        dsigma[c] *= inverse[c] / positions
    rows, columns = height // p, width // p
    for image in range(n):
        for i in range(rows):
            for j in range(columns):
                out = (image * rows + i) * columns + j
                corner = (image * height + i * p) * width + j * p
                for c in range(channels):
                    dx_hat[out, c] = dY[corner, c]
                for place in range(1, p * p):
                    at = corner + (place // p) * width + place % p
                    for c in range(channels):
                        here = chosen[out, c] == place
                        dx_hat[out, c] = dY[at, c] if here else dx_hat[out, c]
                for c in range(channels):
                    part = (dx_hat[out, c] - dmean[c] - x_hat[out, c] * dsigma[c]) * inverse[c]
                    moved = dscale[c] * x_hat[out, c] + scale[c] * part + dshift[c]
                    dx_hat[out, c] = part
                    dz[out, c] = moved if chosen[out, c] != _NONE else zero


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def norm_adjoint(Y, shape, p, scale, mean, inverse, x_hat, chosen, gz, gscale, gshift, G):  # type: ignore[no-untyped-def]
    """Write the cotangents of scale, shift and Y, from that of z."""
    n, height, width = shape
    positions, channels = Y.shape
    zero = Y.dtype.type(0)
    gscale[:] = 0
    gshift[:] = 0
    for out in range(len(gz)):
        for c in range(channels):
            g = gz[out, c] if chosen[out, c] != _NONE else zero
            gscale[c] += g * x_hat[out, c]
            gshift[c] += g
    u, flat, slope = np.empty_like(mean), np.empty_like(mean), np.empty_like(mean)
    for c in range(channels):
        u[c] = scale[c] * inverse[c]
        flat[c] = u[c] * gshift[c] / positions
        slope[c] = u[c] * gscale[c] * inverse[c] / positions
    rows, columns = height // p, width // p
    for image in range(n):
        for h in range(height):
            for w in range(width):
                at = (image * height + h) * width + w
                for c in range(channels):
                    G[at, c] = -flat[c] - (Y[at, c] - mean[c]) * slope[c]
                if h // p < rows and w // p < columns:
                    out = (image * rows + h // p) * columns + w // p
                    place = (h % p) * p + w % p
                    for c in range(channels):
                        G[at, c] += u[c] * gz[out, c] if chosen[out, c] == place else zero


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def norm_both(  # type: ignore[no-untyped-def]
    Y, dY, shape, p, scale, dscale, mean, inverse, x_hat, chosen, dmean, dsigma, dx_hat,
    gz, dgz, gscale, gshift, dgscale, dgshift, G
):  # fmt: skip
    """Write the cotangents of `norm_adjoint` and how they move; those of Y to G[0] and G[1]."""
    n, height, width = shape
    positions, channels = Y.shape
    zero = Y.dtype.type(0)
    gscale[:] = 0
    gshift[:] = 0
    dgscale[:] = 0
    dgshift[:] = 0
    for out in range(len(gz)):
        for c in range(channels):
            g = gz[out, c] if chosen[out, c] != _NONE else zero
            dg = dgz[out, c] if chosen[out, c] != _NONE else zero
            gscale[c] += g * x_hat[out, c]
            gshift[c] += g
            dgscale[c] += dg * x_hat[out, c] + g * dx_hat[out, c]
            dgshift[c] += dg
    # In one array, so that LLVM has few pairs of arrays to keep apart.
    of = np.empty((8, channels), Y.dtype)
    for c in range(channels):
        i, q = inverse[c], scale[c] * gscale[c] / positions
        dq = (dscale[c] * gscale[c] + scale[c] * dgscale[c]) / positions
        dflat = (dscale[c] * gshift[c] + scale[c] * dgshift[c]) / positions
        of[0, c] = scale[c] * i
        of[1, c] = dscale[c] * i
        of[2, c] = mean[c]
        of[3, c] = -i * scale[c] * gshift[c] / positions
        of[4, c] = -i * i * q
        of[5, c] = i * (i * q * dmean[c] - dflat)
        of[6, c] = i * i * (i * q * dsigma[c] - dq)
        of[7, c] = -i * dsigma[c]
    rows, columns = height // p, width // p
    for image in range(n):
        for h in range(height):
            for w in range(width):
                at = (image * height + h) * width + w
                for c in range(channels):
                    x = Y[at, c] - of[2, c]
                    G[0, at, c] = of[3, c] + of[4, c] * x
                    G[1, at, c] = of[5, c] + of[4, c] * dY[at, c] + of[6, c] * x
                if h // p < rows and w // p < columns:
                    out = (image * rows + h // p) * columns + w // p
                    place = (h % p) * p + w % p
                    for c in range(channels):
                        g = gz[out, c] if chosen[out, c] == place else zero
                        dg = dgz[out, c] if chosen[out, c] == place else zero
                        G[0, at, c] += of[0, c] * g
                        G[1, at, c] += of[1, c] * g + of[0, c] * dg
                for c in range(channels):
                    G[1, at, c] += of[7, c] * G[0, at, c]
