import gc
import re
import sys

import numpy as np
import pytest
from scipy.sparse import csr_array

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
        ({"y": Y + 0.5}, ValueError, "y must be whole numbers 0 … C−1, got 0.5"),
        ({"y_val": Y}, ValueError, r"y_val must be 5 integers, got shape \(7,\) of int64"),
        ({"y": np.array(list("abcabca"))}, TypeError, "y must be whole numbers .* got <U1"),
        ({"y_val": np.full(5, np.nan)}, ValueError, "y_val must be whole numbers .* got nan"),
        ({"n_classes": 2}, ValueError, "y must lie in 0 … 1, got 0 … 2"),
        ({"y": Y - 1}, ValueError, "y must lie in 0 … C−1, got -1 … 1"),
        ({"y": Y + 1, "y_val": Y_VAL + 1}, ValueError, "class 0 never occurs in y and y_val"),
        (
            {"X": X > 0.5},
            TypeError,
            "X must be float32 or float64, got .* bool",
        ),
        ({"X": np.full((7, 3), np.nan)}, ValueError, "X must be finite, got 21 NaN or inf"),
        ({"X": X[:0], "y": Y[:0]}, ValueError, "X must have at least one row"),
        ({"step_size": "big"}, ValueError, "step_size must be a number or .auto., got .big"),
        ({"X_val": csr_array(X_VAL[:, :2])}, ValueError, "must have as many columns"),
        ({"step_size": -1.0}, ValueError, "step_size must be finite and at least 0, got -1"),
        ({"regularization": -1.0}, ValueError, "strength must be at least 0, got -1"),
        ({"T": 1.5}, TypeError, "T must be an integer, got 1.5"),
    ],
)
def test_wrong_data_are_named(change, error, message):
    data = {"X": X, "y": Y, "X_val": X_VAL, "y_val": Y_VAL, **change}
    with pytest.raises(error, match=message):
        tb.problems.hypercleaning(**data)


def curvature(X, c):
    """Return β at W = 0 and equal weights, by eigenvalues: that of (I − 11ᵀ/C)/C is 1/C."""
    X = np.column_stack([X, np.ones(len(X))])
    return np.linalg.eigvalsh(X.T @ X).max() / (2 * 3 * len(X)) + 2 * c / len(X)


@pytest.mark.parametrize("backend", ["plain", "numpy", "numba"])
def test_a_step_size_from_the_curvature(backend):
    problem = tb.problems.hypercleaning(
        X, Y, X_VAL, Y_VAL, step_size="auto", regularization=0.3, backend=backend
    )
    found = problem.transition.step_size(0, problem.lam0)
    assert found == pytest.approx(1 / curvature(X, 0.3), rel=1e-6)


def test_a_step_size_beyond_the_curvature_is_named():
    data, beta = (100 * X, Y, X_VAL, Y_VAL), curvature(100 * X, 1e-3)
    with pytest.warns(
        tb.StabilityWarning,
        match=re.escape(f"γ = 1 against smoothness β ≈ {beta:.3g} at w_0 (")
        + f".*{1 / beta:.2g} would do.*auto",
    ) as caught:
        tb.problems.hypercleaning(*data)
    assert caught[0].filename == __file__
    with pytest.warns(tb.StabilityWarning):
        tb.problems.hypercleaning(*data, step_size=2.001 / beta)
    for inside in (1.999 / beta, 1 / beta, "auto"):  # warnings are errors here
        tb.problems.hypercleaning(*data, step_size=inside)


def test_raw_features_are_refused_by_name_and_scaled_ones_are_not():
    data = pytest.importorskip("sklearn.datasets").load_wine()
    parts = data.data[::2], data.target[::2], data.data[1::2], data.target[1::2]
    with pytest.warns(tb.StabilityWarning, match="does not settle"):
        tb.problems.hypercleaning(*parts)
    tb.problems.hypercleaning(*parts, step_size="auto")


def test_the_bias_can_go_without_a_penalty():
    bound = tb.problems.hypercleaning(X, Y, X_VAL, Y_VAL, regularization=0.3)
    free = tb.problems.hypercleaning(X, Y, X_VAL, Y_VAL, regularization=0.3, penalize_bias=False)
    W, theta = RNG.standard_normal((3, 4)), np.full(7, 0.5)
    g, f = free.transition.objective, bound.transition.objective
    assert f.value(W.ravel(), theta) - g.value(W.ravel(), theta) == pytest.approx(
        0.3 * (W[:, -1] ** 2).sum() / 7, rel=1e-12
    )
    lam = RNG.standard_normal(7)
    dense = tb.testing.dense_hypergradient(free, lam, 20)
    assert relative_error(tb.KRMD(K=20)(free, lam).grad, dense) <= 1e-12
    pytest.importorskip("numba")
    fast = tb.compile(free)
    found, expected = tb.RMD()(fast, lam), tb.RMD()(free, lam)
    assert relative_error(found.grad, expected.grad) <= 1e-12


@pytest.mark.parametrize("kernel", [True, False], ids=["large", "small"])
def test_compiled_code_leaves_the_bias_free_too(kernel):
    pytest.importorskip("numba")
    options = dict(regularization=5.0, penalize_bias=False, backend="numba" if kernel else "numpy")
    free = tb.problems.hypercleaning(X, Y, X_VAL, Y_VAL, **options)
    found, expected = tb.RMD()(tb.compile(free)), tb.RMD()(free)
    assert relative_error(found.w, expected.w) <= 1e-12
    assert relative_error(found.grad, expected.grad) <= 1e-11


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backend", ["plain", "numpy", "numba"])
def test_sparse_examples_are_the_dense_ones(backend, dtype):
    if backend == "numba":
        pytest.importorskip("numba")
    rows, clean = (np.where(x > 0.5, x, 0).astype(dtype) for x in (X, X_VAL))
    lam = RNG.standard_normal(7).astype(dtype)
    expected = tb.RMD()(tb.problems.hypercleaning(rows, Y, clean, Y_VAL, backend="plain"), lam)
    for x, x_val in ((csr_array(rows), csr_array(clean)), (csr_array(rows), clean)):
        problem = tb.problems.hypercleaning(x, Y, x_val, Y_VAL, backend=backend)
        assert problem.transition.objective.terms[0][1].X.shape == (7, 4)
        found = tb.RMD()(problem, lam)
        assert found.grad.dtype == dtype
        tol = 1e-12 if dtype == np.float64 else 1e-5
        assert relative_error(found.grad, expected.grad) < tol
        assert found.value == pytest.approx(expected.value, rel=tol)


def test_a_sparse_X_stays_sparse_with_its_bias():
    found = tb.problems.append_bias(csr_array(X))
    assert found.format == "csr"
    assert found.dtype == X.dtype
    np.testing.assert_array_equal(found.toarray(), tb.problems.append_bias(X))


@pytest.mark.parametrize("backend", ["plain", "numpy", "numba"])
@pytest.mark.parametrize("make", [np.array, csr_array], ids=["dense", "sparse"])
def test_data_that_change_later_change_nothing(make, backend):
    if backend == "numba":
        pytest.importorskip("numba")
    data = make(X), Y.copy(), make(X_VAL), Y_VAL.copy()
    problem = tb.problems.hypercleaning(*data, backend=backend)
    loss = tb.SoftmaxRegression(data[0], data[1], backend=backend)
    w, v, lam = RNG.standard_normal((3, 9))[0], np.ones(9), np.full(7, 0.5)
    before = tb.RMD()(problem).grad, loss.grad(w, lam), loss.grad_jvp(w, lam, v, lam)
    for part in data:
        (part.data if hasattr(part, "tocsr") else part)[...] = 0
    after = tb.RMD()(problem).grad, loss.grad(w, lam), loss.grad_jvp(w, lam, v, lam)
    for now, then in zip(after, before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("make", [np.array, csr_array], ids=["dense", "sparse"])
def test_the_data_are_copied_once(make, monkeypatch):
    made, append_bias = [], tb.problems.append_bias

    def noted(X):
        made.append(append_bias(X))
        return made[-1]

    # `tb.problems.hypercleaning` is the function, and hides its module.
    module = sys.modules[tb.problems.hypercleaning.__module__]
    monkeypatch.setattr(module, "append_bias", noted)
    problem = tb.problems.hypercleaning(make(X), Y, make(X_VAL), Y_VAL, backend="numpy")
    for X_made, loss in zip(
        made, (problem.transition.objective.terms[0][1], problem.upper), strict=True
    ):
        assert np.shares_memory(X_made.data, loss.X.data)


def test_a_mix_of_precisions_is_one_before_anything_runs():
    pytest.importorskip("numba")
    mixed = tb.problems.hypercleaning(X.astype(np.float32), Y, X_VAL, Y_VAL, backend="numba")
    loss = mixed.transition.objective.terms[0][1]
    assert loss.dtype == mixed.upper.dtype == mixed.lam0.dtype == np.float64
    rounded = tb.problems.hypercleaning(X.astype(np.float32).astype(float), Y, X_VAL, Y_VAL)
    assert relative_error(tb.RMD()(mixed).grad, tb.RMD()(rounded).grad) < 1e-12


def test_lists_and_whole_numbers_are_data_too():
    rows = [[0, 1], [1, 0], [1, 1]]
    problem = tb.problems.hypercleaning(rows, [0, 1, 1], rows, [0.0, 1.0, 1.0], T=2)
    assert problem.lam0.dtype == np.float64
    np.testing.assert_array_equal(tb.problems.append_bias(rows), np.c_[rows, np.ones(3)])
    np.testing.assert_array_equal(tb.problems.rejected([-4, 0]), [True, False])
    with pytest.raises(ValueError, match="lam must be finite"):
        tb.problems.rejected([np.nan])


def test_a_lower_level_that_is_flat_or_beyond_all_numbers():
    one_class = [0] * 7, X_VAL, [0] * 5
    tb.problems.hypercleaning(X, *one_class, n_classes=1, regularization=0)
    with pytest.raises(ValueError, match="step_size must be finite"):
        tb.problems.hypercleaning(X, *one_class, n_classes=1, regularization=0, step_size="auto")
    with pytest.warns(tb.StabilityWarning, match="β ≈ (inf|nan)"):
        tb.problems.hypercleaning(1e200 * X, Y, X_VAL, Y_VAL)


def test_penalize_bias_is_a_flag():
    with pytest.raises(TypeError, match="penalize_bias must be True or False, got 'no'"):
        tb.problems.hypercleaning(X, Y, X_VAL, Y_VAL, penalize_bias="no")


def test_a_read_only_X_gets_its_bias_once_and_one_that_is_gone_is_forgotten():
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    module = sys.modules["tinybilevel.problems.hypercleaning"]
    before = dict(module._biased)

    def biased(X):
        problem = tb.problems.hypercleaning(X, y, X[:5], y[:5], T=2, step_size=0.1)
        return problem.transition.objective.terms[0][1].X

    assert biased(X) is not biased(X)
    X.flags.writeable = False
    first = biased(X)
    assert biased(X) is first
    np.testing.assert_array_equal(first, tb.problems.append_bias(X))
    other = np.array(X)
    other.flags.writeable = False
    assert biased(other) is not first
    del X, other
    gc.collect()
    assert set(module._biased) <= set(before)
