"""What holds for each layer: right derivatives to second order, pure calls, its dtype."""

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.layers import (
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    MaxPool,
    ReLU,
    Softplus,
    SpatialMean,
    Tanh,
)

IMAGE = (2, 6, 7)
LAYERS = {
    "dense": (Dense(3), (4,)),
    "dense-no-bias": (Dense(1, bias=False), (2,)),
    "conv": (Conv2d(3, 3), IMAGE),
    "conv-padded": (Conv2d(3, 3, padding=1, bias=False), IMAGE),
    "conv-strided": (Conv2d(2, 3, stride=2, padding=1), IMAGE),
    "conv-stride-beyond-kernel": (Conv2d(2, 2, stride=3), IMAGE),
    "conv-pointwise": (Conv2d(4, 1), IMAGE),
    "conv-whole-image": (Conv2d(2, 6, padding=0), (1, 6, 6)),
    "conv-kernel-in-padding": (Conv2d(2, 4, padding=3, stride=2), (1, 3, 2)),
    "batch-norm-images": (BatchNorm(), IMAGE),
    "batch-norm-vectors": (BatchNorm(eps=0.1), (5,)),
    "relu": (ReLU(), IMAGE),
    "tanh": (Tanh(), (5,)),
    "softplus": (Softplus(), (5,)),
    "max-pool": (MaxPool(2), IMAGE),
    "max-pool-3": (MaxPool(3), IMAGE),
    "max-pool-1": (MaxPool(1), IMAGE),
    "average-pool": (AveragePool(2), IMAGE),
    "average-pool-of-all-rows": (AveragePool(6), IMAGE),
    "spatial-mean": (SpatialMean(), IMAGE),
    "flatten": (Flatten(), IMAGE),
}


@pytest.fixture(params=LAYERS)
def case(request):
    return LAYERS[request.param]


@pytest.mark.parametrize("seed", [0, 1])
def test_derivatives(case, seed):
    tb.testing.assert_layer_derivatives(*case, seed=seed)


def run(layer, shape, dtype=np.float64):
    rng = np.random.default_rng(0)
    p = tuple(part.astype(dtype) for part in layer.init(rng, shape))
    x, dx = (rng.standard_normal((3, *shape)).astype(dtype) for _ in range(2))
    dp = tuple(rng.standard_normal(part.shape).astype(dtype) for part in p)
    for array in (*p, *dp, x, dx):
        array.flags.writeable = False  # a layer that writes into what it is given fails
    y, kept = layer.forward(p, x)
    dy, dkept = layer.tangent(p, kept, dp, dx)
    gp, gx = layer.adjoint(p, kept, y)
    dgp, dgx = layer.adjoint_tangent(p, kept, dp, dkept, y, dy)
    return [y, dy, *gp, gx, *dgp, dgx]


def test_calls_repeat_and_keep_the_dtype(case):
    exact = run(*case)
    for a, b in zip(exact, run(*case), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(exact, run(*case, np.float32), strict=True):
        assert b.dtype == np.float32
        assert b.shape == a.shape
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)


def test_one_example_does(case):
    layer, shape = case
    fewest = 2 if isinstance(layer, BatchNorm) else 1
    tb.testing.assert_layer_derivatives(layer, shape, n=fewest)
