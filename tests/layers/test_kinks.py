"""What is taken for a derivative where there is none."""

import numpy as np

from tinybilevel.layers import MaxPool, ReLU


def test_relu_has_slope_0_at_0():
    x = np.array([[-1.0, 0.0, 2.0]])
    y, kept = ReLU().forward((), x)
    np.testing.assert_array_equal(y, [[0, 0, 2]])
    np.testing.assert_array_equal(ReLU().tangent((), kept, (), np.ones((1, 3)))[0], [[0, 0, 1]])
    np.testing.assert_array_equal(ReLU().adjoint((), kept, np.ones((1, 3)))[1], [[0, 0, 1]])


def test_max_pool_takes_the_first_of_equals():
    x = np.array([[[[1.0, 1.0], [0.0, 1.0]]]])
    _, kept = MaxPool(2).forward((), x)
    gx = MaxPool(2).adjoint((), kept, np.full((1, 1, 1, 1), 5.0))[1]
    np.testing.assert_array_equal(gx, [[[[5, 0], [0, 0]]]])


def test_ties_after_a_relu_carry_no_gradient():
    x = np.array([[[[-1.0, -2.0], [-3.0, -4.0]]]])
    y, relu = ReLU().forward((), x)
    z, pool = MaxPool(2).forward((), y)
    assert z.item() == 0
    g = MaxPool(2).adjoint((), pool, np.ones_like(z))[1]
    np.testing.assert_array_equal(ReLU().adjoint((), relu, g)[1], np.zeros_like(x))


def test_pooling_drops_what_is_left_over():
    x = np.arange(15.0).reshape(1, 1, 3, 5)
    y, kept = MaxPool(2).forward((), x)
    np.testing.assert_array_equal(y, [[[[6, 8]]]])
    gx = MaxPool(2).adjoint((), kept, np.ones_like(y))[1]
    assert gx.sum() == 2
    np.testing.assert_array_equal(gx[0, 0, 2], 0)
    np.testing.assert_array_equal(gx[0, 0, :, 4], 0)
