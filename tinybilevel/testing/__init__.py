"""Checkers for hand-written derivatives: each returns the numbers it measured, and asserts."""

from tinybilevel.testing.checks import dot_error, taylor_slope
from tinybilevel.testing.derivatives import (
    assert_map_adjoints,
    assert_objective_derivatives,
    assert_transition_adjoints,
    assert_upper_gradients,
)
from tinybilevel.testing.hypergradients import (
    assert_matches_differences,
    assert_methods_agree,
    dense_hypergradient,
    relative_error,
)
from tinybilevel.testing.layers import assert_layer_derivatives
from tinybilevel.testing.theorems import (
    assert_converges_to_stationary_point,
    assert_descent_direction,
    assert_truncation_bound,
)

__all__ = [
    "assert_converges_to_stationary_point",
    "assert_descent_direction",
    "assert_layer_derivatives",
    "assert_map_adjoints",
    "assert_matches_differences",
    "assert_methods_agree",
    "assert_objective_derivatives",
    "assert_transition_adjoints",
    "assert_truncation_bound",
    "assert_upper_gradients",
    "dense_hypergradient",
    "dot_error",
    "relative_error",
    "taylor_slope",
]
