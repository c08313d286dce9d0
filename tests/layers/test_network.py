import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.layers import BatchNorm, Conv2d, Dense, Flatten, MaxPool, Network, ReLU, Tanh


def small():
    return Network(
        {
            "block1": [Conv2d(2, 3, padding=1, bias=False), BatchNorm(), ReLU(), MaxPool(2)],
            "head": [Flatten(), Dense(3)],
        },
        input_shape=(1, 4, 4),
    )


def test_names_and_places_of_the_tensors():
    net = small()
    assert {name: net.shapes[name] for name in net.layout} == {
        "block1.conv2d.weight": (2, 1, 3, 3),
        "block1.batchnorm.scale": (2,),
        "block1.batchnorm.shift": (2,),
        "head.dense.weight": (3, 8),
        "head.dense.bias": (3,),
    }
    assert net.blocks == {"block1": slice(0, 22), "head": slice(22, 49)}
    assert (net.size, net.output_shape) == (49, (3,))
    two = Network([Dense(3), Tanh(), Dense(2)], (4,))
    assert list(two.layout) == ["dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias"]


def test_tensors_are_views():
    net = small()
    w = net.init(seed=0)
    for tensor in net.tensors(w).values():
        assert np.shares_memory(tensor, w)


def test_forward_is_the_layers_in_turn():
    net = Network([Dense(3), Tanh(), Dense(2)], (4,))
    w = np.random.default_rng(0).standard_normal(net.size)
    X = np.random.default_rng(1).standard_normal((5, 4))
    W1, b1, W2, b2 = net.tensors(w).values()
    np.testing.assert_allclose(net.forward(w, X), np.tanh(X @ W1.T + b1) @ W2.T + b2, rtol=1e-13)


def test_starting_values_repeat_and_have_their_scale():
    net = Network([Conv2d(200, 3), Flatten(), Dense(4)], (3, 3, 3))
    w = net.init(seed=3)
    np.testing.assert_array_equal(w, net.init(seed=3))
    kernel = net.tensors(w)["conv2d1.weight"]
    assert kernel.std() == pytest.approx((2 / 27) ** 0.5, rel=0.05)
    np.testing.assert_array_equal(net.tensors(w)["dense1.bias"], 0)
    wide = Network([Dense(100)], (50,))
    assert wide.tensors(wide.init(seed=3))["dense1.weight"].std() == pytest.approx(
        50**-0.5, rel=0.05
    )
    assert net.init(0, np.float32).dtype == np.float32


def test_a_list_of_examples_does():
    net = Network([Dense(2)], (3,))
    w, X = net.init(seed=0), [[1.0, 2.0, 3.0]]
    np.testing.assert_array_equal(net.forward(w, X), net.forward(w, np.array(X)))


def test_the_same_layer_twice_has_parameters_of_its_own_each_time():
    layer = Dense(3)
    net, other = (Network(layers, (3,)) for layers in ([layer, Tanh(), layer], TWICE))
    w = np.random.default_rng(0).standard_normal(net.size)
    assert net.layout["dense2.weight"] == slice(12, 21)
    np.testing.assert_array_equal(net.forward(w, np.eye(3)), other.forward(w, np.eye(3)))


TWICE = [Dense(3), Tanh(), Dense(3)]


def test_its_repr_is_short():
    assert repr(small()) == (
        "Network((1, 4, 4) → Conv2d → BatchNorm → ReLU → MaxPool → Flatten → Dense → (3,), size=49)"
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Network([], (3,)), ValueError, "at least one layer with parameters"),
        (lambda: Network([Dense], (3,)), TypeError, r"layers must be Layer objects such as Dense"),
        (
            lambda: Network([Conv2d(2, 3), Dense(3)], (1, 5, 5)),
            ValueError,
            r"layer 1, 'dense1': Dense takes vectors, got examples of shape \(2, 3, 3\): Flatten",
        ),
        (lambda: Network([Dense(3)], 4), TypeError, r"input_shape must be a tuple such as \(4,\)"),
        (lambda: Network([Dense(3)], (0,)), ValueError, "input_shape must be at least 1, got 0"),
        (lambda: Network([Dense(3)], ()), ValueError, "input_shape must have at least one axis"),
        (lambda: Network([Dense(3)], "4"), TypeError, r"input_shape must be a tuple .* got '4'"),
        (
            lambda: Network(Dense(3), (4,)),
            TypeError,
            r"sequence or a mapping of layers, got Dense",
        ),
        (
            lambda: Network({"a": [Dense(3), Tanh()], "a.dense": Dense(2)}, (4,)),
            ValueError,
            "names of blocks must be strings without a dot, got 'a.dense'",
        ),
        (lambda: Network({1: Dense(3)}, (4,)), ValueError, "without a dot, got 1"),
        (lambda: BatchNorm(0.0), ValueError, "eps must be greater than 0, got 0.0"),
        (lambda: BatchNorm(np.inf), ValueError, "eps must be finite, got inf"),
        (lambda: small().init(0, int), TypeError, "dtype must be float32 or float64, got int64"),
        (
            lambda: small().forward(small().init(0), np.zeros((0, 1, 4, 4))),
            ValueError,
            r"n ≥ 1, got \(0, 1, 4, 4\)",
        ),
        (
            lambda: small().forward(small().init(0), np.zeros((2, 1, 4, 4)), np.zeros((2, 4, 4))),
            ValueError,
            r"batch must have shape",
        ),
        (lambda: Network([MaxPool(4)], (1, 3, 3)), ValueError, "MaxPool of 4 does not fit"),
        (
            lambda: small().forward(np.zeros(49), np.zeros((2, 4, 4))),
            ValueError,
            r"X must have shape \(n, 1, 4, 4\), n ≥ 1, got \(2, 4, 4\)",
        ),
        (
            lambda: small().forward(np.zeros(48), np.zeros((2, 1, 4, 4))),
            ValueError,
            r"\(49,\), got",
        ),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_layer_of_your_own_is_checked_in_one_line():
    class Cube(tb.layers.Layer):
        def forward(self, p, x):
            return x**3, x

        def tangent(self, p, kept, dp, dx):
            return 3 * kept**2 * dx, dx

        def adjoint(self, p, kept, gy):
            return (), 3 * kept**2 * gy

        def adjoint_tangent(self, p, kept, dp, dkept, gy, dgy):
            return (), 3 * kept**2 * dgy + 6 * kept * dkept * gy

    tb.testing.assert_layer_derivatives(Cube(), (4,))

    class Wrong(Cube):
        def adjoint_tangent(self, p, kept, dp, dkept, gy, dgy):
            return (), 3 * kept**2 * dgy - 6 * kept * dkept * gy

    with pytest.raises(AssertionError, match=r"Wrong: Taylor slopes \{'adjoint_slope'"):
        tb.testing.assert_layer_derivatives(Wrong(), (4,))

    class Bare(Cube):
        def adjoint(self, p, kept, gy):
            return 3 * kept**2 * gy

    with pytest.raises(AssertionError, match=r"Bare: adjoint must return \(gp, gx\), gp a tuple"):
        tb.testing.assert_layer_derivatives(Bare(), (4,))
    with pytest.raises(TypeError, match=r"layer must be a Layer such as Dense\(10\), got <class"):
        tb.testing.assert_layer_derivatives(Cube, (4,))


def test_statistics_can_be_those_of_another_batch():
    rng = np.random.default_rng(0)
    net = small()
    w = net.init(seed=1) + 0.1 * rng.standard_normal(net.size)
    X, batch = rng.standard_normal((2, 5, 1, 4, 4))
    np.testing.assert_array_equal(net.forward(w, X, X), net.forward(w, X))
    one_by_one = [net.forward(w, x[None], batch)[0] for x in X]
    np.testing.assert_allclose(net.forward(w, X, batch), one_by_one, rtol=1e-12)

    t = net.tensors(w)
    conv = Conv2d(2, 3, padding=1, bias=False)
    y, other = (conv.forward((t["block1.conv2d.weight"],), x)[0] for x in (X, batch))
    axes = {"axis": (0, 2, 3), "keepdims": True}
    y = (y - other.mean(**axes)) / np.sqrt(other.var(**axes) + 1e-5)
    scale, shift = (t[f"block1.batchnorm.{n}"][:, None, None] for n in ("scale", "shift"))
    y = np.maximum(scale * y + shift, 0).reshape(5, 2, 2, 2, 2, 2).max(axis=(3, 5))
    expected = y.reshape(5, -1) @ t["head.dense.weight"].T + t["head.dense.bias"]
    np.testing.assert_allclose(net.forward(w, X, batch), expected, rtol=1e-12)
