import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error

RNG = np.random.default_rng(0)
X, X_VAL = RNG.random((7, 3)), RNG.random((5, 3))
Y, Y_VAL = np.array([0, 1, 2, 0, 1, 2, 0]), np.array([2, 1, 0, 1, 2])


def printed(W, lam, c=1e-3):
    """Return the paper's g, term by term, divided as a whole by the number of examples."""
    total = c * (W**2).sum()
    for x, y, lam_i in zip(X, Y, lam, strict=True):
        scores = W @ np.append(x, 1.0)
        total -= 1 / (1 + np.exp(-lam_i)) * np.log(np.exp(scores[y]) / np.exp(scores).sum())
    return total / len(X)


def test_it_is_the_objective_of_section_4_2_1():
    problem = tb.problems.hypercleaning(X, Y, X_VAL, Y_VAL, regularization=0.3)
    W, lam = RNG.standard_normal((3, 4)), RNG.standard_normal(7)
    value = problem.transition.objective.value(W.ravel(), problem.hyper_map(lam))
    assert value == pytest.approx(printed(W, lam, 0.3), rel=1e-13)
    losses = [
        -np.log(np.exp((s := W @ np.append(x, 1.0))[y]) / np.exp(s).sum())
        for x, y in zip(X_VAL, Y_VAL, strict=True)
    ]
    assert problem.upper.value(W.ravel(), lam) == pytest.approx(np.mean(losses), rel=1e-13)
    np.testing.assert_array_equal(problem.upper.grad_lam(W.ravel(), lam), 0)


def test_it_starts_where_the_paper_does():
    problem = tb.problems.hypercleaning(X, Y, X_VAL, Y_VAL)
    np.testing.assert_array_equal(problem.lam0, np.zeros(7))
    np.testing.assert_array_equal(problem.transition.initial(problem.lam0), np.zeros(3 * 4))
    assert problem.T == 100
    assert problem.transition.step_size(0, problem.lam0) == 1


@pytest.mark.parametrize("K", [1, 6, 20])
def test_its_hypergradients(K):
    problem = tb.problems.hypercleaning(X, Y, X_VAL, Y_VAL, T=20, step_size=0.7)
    lam = RNG.standard_normal(7)
    dense = tb.testing.dense_hypergradient(problem, lam, K)
    assert relative_error(tb.KRMD(K=K)(problem, lam).grad, dense) <= 1e-12
    tb.testing.assert_matches_differences(problem, lam, tb.RMD())


def test_cleaning_finds_the_wrong_labels_of_real_digits():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(3)
    split = tb.data.digits().split(seed=rng)
    y, corrupted = tb.data.corrupt_labels(split.y_train, 0.5, seed=rng)
    problem = tb.problems.hypercleaning(split.X_train, y, split.X_val, split.y_val)
    result = tb.minimize(problem, method=tb.KRMD(K=5), optimizer=tb.Adam(0.3), iterations=60)
    marked = tb.problems.rejected(result.lam)
    assert np.mean(marked == corrupted) > 0.9
    before = tb.KRMD(K=0)(problem).value
    assert result.value < 0.6 * before


def test_rejected_is_below_minus_three():
    np.testing.assert_array_equal(
        tb.problems.rejected(np.array([-3.1, -3.0, 0])), [True, False, False]
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X_val": RNG.random((5, 4))}, ValueError, "X and X_val must have as many columns"),
        ({"y": Y[:-1]}, ValueError, r"y must be 7 integers, got shape \(6,\)"),
        ({"y": Y.astype(float)}, ValueError, "y must be 7 integers, got .* of float64"),
        ({"y_val": Y}, ValueError, r"y_val must be 5 integers, got shape \(7,\) of int64"),
        ({"y": np.array(list("abcabca"))}, ValueError, "y must be 7 integers, got .* of <U1"),
        ({"y_val": np.full(5, np.nan)}, ValueError, "y_val must be 5 integers, got .* of float64"),
        ({"n_classes": 2}, ValueError, "y must lie in 0 … 1, got 0 … 2"),
        ({"y": Y - 1}, ValueError, "y must lie in 0 … 2, got -1 … 1"),
        (
            {"X": X > 0.5},
            TypeError,
            "X must be float32 or float64, got .* bool",
        ),
        ({"X": np.full((7, 3), np.nan)}, ValueError, "X must be finite, got 21 NaN or inf"),
        ({"X": X[:0], "y": Y[:0]}, ValueError, "y and y_val must not be empty"),
        ({"step_size": -1.0}, ValueError, "step_size must be finite and at least 0, got -1"),
        ({"regularization": -1.0}, ValueError, "strength must be at least 0, got -1"),
        ({"T": 1.5}, TypeError, "T must be an integer, got 1.5"),
    ],
)
def test_wrong_data_are_named(change, error, message):
    data = {"X": X, "y": Y, "X_val": X_VAL, "y_val": Y_VAL, **change}
    with pytest.raises(error, match=message):
        tb.problems.hypercleaning(**data)
