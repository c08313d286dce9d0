"""Scores that are large do no harm, and what the losses are."""

import numpy as np

from tinybilevel.layers.losses import CrossEntropy, SquaredError


def test_cross_entropy_of_scores_that_exp_cannot_hold():
    s, y = np.array([[1e4, -1e4, 0.0], [3.0, 3.0, -1e4]]), np.array([1, 0])
    loss = CrossEntropy()
    np.testing.assert_allclose(loss.value(s, y), 2e4 + np.log(2), rtol=1e-15)
    np.testing.assert_array_equal(loss.adjoint(s, y), [[1, -1, 0], [-0.5, 0.5, 0]])
    moved = loss.adjoint_tangent(s, y, np.array([[1.0, 2.0, 3.0]] * 2))
    np.testing.assert_array_equal(moved, [[0, 0, 0], [-0.25, 0.25, 0]])


def test_squared_error_is_half_the_square():
    s, y = np.array([[3.0, 1.0]]), np.array([[1.0, 0.0]])
    assert SquaredError().value(s, y) == 2.5
    np.testing.assert_array_equal(SquaredError().adjoint(s, y), [[2, 1]])
