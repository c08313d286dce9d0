"""One-shot learning in JAX, jitted: XLA's convolutions, or patches and the first blocks once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case
from benchmarks.one_shot import family, task

Tensors = dict[str, Any]

jax.config.update("jax_enable_x64", True)


def build(case: Case, style: str) -> Callable[[], np.ndarray]:
    """Return a call that computes h_{T−K}; `style` is ``conv`` or ``patches``."""
    f, (X, y, X_query, y_query, lam) = family(case, "plain"), task(case)
    convolve, once = (_lax, False) if style == "conv" else (_patches, True)
    sizes = np.array(f.sizes)
    T, K = case.T, case.K

    def unpack(network: Any, w: Any) -> Tensors:
        return {n: w[network.layout[n]].reshape(network.shapes[n]) for n in network.layout}

    def blocks(tensors: Tensors, names: Any, x: Any) -> Any:
        for name in names:
            x = _block(tensors, name, x, case.stride, convolve)
        return x

    def scores(tensors: Tensors, x: Any) -> Any:
        x = blocks(tensors, ("block3", "block4"), x)
        flat = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        return flat @ tensors["head.dense.weight"].T + tensors["head.dense.bias"]

    def losses(s: Any, y: Any) -> Any:
        own = jnp.take_along_axis(s, y[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(s, axis=1) - own

    def features(front: Tensors, X: Any) -> Any:
        return blocks(front, ("block1", "block2"), X.transpose(0, 2, 3, 1))

    def run(lam: Any, X: Any, w: Any, steps: int) -> Any:
        front, c, rho, gamma = split(lam)
        support = features(front, X) if once else X

        def lower(w: Any) -> Any:
            x = support if once else features(front, support)
            return losses(scores(unpack(f.back, w), x), y).sum() + (rho * (w - c) ** 2).sum()

        def step(w: Any, t: Any) -> Any:
            moved = w - gamma * jax.grad(lower)(w)
            return (moved if steps > 1 else jnp.where(t < steps, moved, w)), None

        # A loop of one step comes out wrong (JAX 0.10.2 on a CPU): two, of which one is idle.
        return jax.lax.scan(step, w, jnp.arange(max(steps, 2)))[0]

    def split(lam: Any) -> tuple[Any, ...]:
        parts = {n: lam[f.layout[n]] for n in f.layout}
        rho, gamma = (
            jnp.repeat(jnp.exp(parts[n]), sizes, total_repeat_length=f.back.size)
            for n in ("log_rho", "log_gamma")
        )
        return unpack(f.front, parts["front"]), parts["c"], rho, gamma

    def value(lam: Any, w: Any, X: Any, X_query: Any) -> Any:
        w = run(lam, X, w, K)
        return losses(scores(unpack(f.back, w), features(split(lam)[0], X_query)), y_query).mean()

    def hypergradient(lam: Any, X: Any, X_query: Any) -> Any:
        w = run(lam, X, split(lam)[1], T - K)
        return jax.grad(value)(lam, w, X, X_query)

    y, y_query = jnp.asarray(y), jnp.asarray(y_query)
    function = jax.jit(hypergradient)
    return lambda: np.asarray(function(lam, X, X_query))


def _block(tensors: Tensors, name: str, x: Any, stride: int, convolve: Any) -> Any:
    x = convolve(x, tensors[f"{name}.conv2d.weight"], stride)
    centered = x - x.mean((0, 1, 2))
    x_hat = centered / jnp.sqrt((centered**2).mean((0, 1, 2)) + 1e-5)
    scale, shift = tensors[f"{name}.batchnorm.scale"], tensors[f"{name}.batchnorm.shift"]
    x = jax.nn.relu(scale * x_hat + shift)
    if stride == 2:
        return x
    n, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def _lax(x: Any, W: Any, stride: int) -> Any:
    dims = ("NHWC", "OIHW", "NHWC")
    return jax.lax.conv_general_dilated(
        x, W, (stride, stride), [(1, 1)] * 2, dimension_numbers=dims
    )


def _patches(x: Any, W: Any, stride: int) -> Any:
    n, h, w, c = x.shape
    rows, columns = (h - 1) // stride + 1, (w - 1) // stride + 1
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [
        x[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(3)
        for j in range(3)
    ]
    U = jnp.concatenate(parts, axis=-1).reshape(n * rows * columns, 9 * c)
    return (U @ W.transpose(2, 3, 1, 0).reshape(9 * c, -1)).reshape(n, rows, columns, -1)
