"""One-shot learning as it is timed: the same task and starting point for everyone."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.cases import Case
from tinybilevel.layers import BatchNorm, Conv2d, Dense, Flatten, Layer, ReLU
from tinybilevel.problems.one_shot import OneShot, four_blocks

__all__ = ["family", "problem", "task"]


def family(case: Case, backend: str) -> OneShot:
    """Return four blocks of `case.filters`, max-pooled, or of convolutions of stride 2."""
    layers: dict[str, list[Layer]] = four_blocks(5, filters=case.filters)
    if case.stride == 2:
        strided = Conv2d(case.filters, 3, stride=2, padding=1, bias=False)
        layers = {f"block{k}": [strided, BatchNorm(), ReLU()] for k in range(1, 5)}
        layers["head"] = [Flatten(), Dense(5)]
    return OneShot(layers, T=case.T, backend=backend)


def task(case: Case) -> tuple[np.ndarray, ...]:
    """Return support and query images with classes, and λ; drawn shapes, seeded."""
    rng = np.random.default_rng(0)
    shapes = rng.random((5, 1, 28, 28)) < 0.2

    def images(each: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(np.arange(5), each)
        seen = shapes[y] ^ (rng.random((len(y), 1, 28, 28)) < 0.05)
        return (seen * rng.random(seen.shape)).astype(case.dtype), y

    # So small a step that float32 crosses no kink that float64 does not.
    lam = family(case, "plain").start(0, rho=1.0, gamma=1e-3, dtype=case.dtype)
    lam += (0.01 * rng.standard_normal(lam.size)).astype(lam.dtype)
    return *images(1), *images(case.query), lam


def problem(case: Case, backend: str) -> Any:
    """Return the case as a user of tinybilevel writes it."""
    *data, lam = task(case)
    return family(case, backend).problem(*data, lam0=lam)
