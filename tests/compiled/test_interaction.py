"""Task interaction through the Gram matrix of its examples gives what the plain code gives."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error

pytest.importorskip("numba")

SIZES = [(7, 4, 2), (30, 19, 2), (33, 64, 10), (60, 31, 10), (13, 90, 23), (60, 90, 100)]


def problem(n=13, d=9, V=3, T=12, dtype=np.float64, scale=1.0, C=0.3, rho=0.03, step_size=0.1):
    rng = np.random.default_rng(0)
    X, X_val = (scale * rng.standard_normal((k, d)).astype(dtype) for k in (n, n // 2 + 1))
    y, y_val = (rng.integers(0, V, len(A)) for A in (X, X_val))
    made = tb.problems.task_interaction(X, y, X_val, y_val, T=T, n_classes=V, step_size=step_size)
    lam0 = np.append(C / V * rng.random(V * (V - 1) // 2), rho).astype(dtype)
    return replace(made, lam0=lam0)


def assert_same(plain, K, tol=1e-12):
    fast = tb.compile(plain)
    assert type(fast.loop).__name__ == "InteractionOnHost"
    a, b = (tb.KRMD(K=K)(p) for p in (fast, plain))
    for name in ("grad", "w", "alpha_norms"):
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert relative_error(getattr(a, name), getattr(b, name)) < tol, name
    assert a.value == pytest.approx(b.value, rel=tol)
    # Small ones too: each, not all of them together.
    np.testing.assert_allclose(a.alpha_norms, b.alpha_norms, rtol=100 * tol)
    return a


@pytest.mark.parametrize(("n", "d", "V"), SIZES)
@pytest.mark.parametrize("K", [0, 1, 5, 12])
def test_the_loop_is_the_plain_one(n, d, V, K):
    assert_same(problem(n, d, V), K)


@pytest.mark.parametrize("T", [0, 1, 2])
def test_short_horizons(T):
    for K in range(T + 1):
        assert_same(problem(T=T), K)


def test_in_float32():
    assert_same(problem(33, 64, 10, dtype=np.float32), 12, tol=1e-5)


def test_alphas_that_become_small_keep_their_digits():
    # From a tenth of the first on, α begins anew: here every few steps.
    found = assert_same(problem(rho=0.15, T=30, scale=0.3, C=0.01, step_size=2.0), 30)
    assert found.alpha_norms[-1] < 1e-6 * found.alpha_norms[0]


@pytest.mark.filterwarnings("ignore::tinybilevel.StabilityWarning")
def test_the_same_where_the_data_alone_shrink_them():
    plain, method = problem(n=8, d=3, T=1500, C=0.0, rho=0.0, step_size=3.0), tb.KRMD(K=1500)
    a, b = (method(p).alpha_norms for p in (tb.compile(plain), plain))
    assert b[-1] < 0.02 * b[0]
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_all_steps_back_is_rmd():
    plain = problem()
    a, b = tb.RMD()(tb.compile(plain)), tb.RMD()(plain)
    assert relative_error(a.grad, b.grad) < 1e-12


def lower(plain, c=1.0, free=None):
    """Return a problem's lower level, scaled term by term, with another free column."""
    loss, pairs, ridge = (g for _, g in plain.transition.objective.terms)
    X = loss.X.copy()
    X[:, -1] = X[:, -1] if free is None else free
    loss = tb.SoftmaxRegression(X, loss.y, loss.n_classes, weighted=False, scale=0.2)
    return c * loss + 0.5 * pairs + 3.0 * ridge


def test_terms_that_are_scaled_and_a_free_column_of_any_numbers():
    plain = problem()
    g = lower(plain, c=0.7, free=np.random.default_rng(3).standard_normal(13))
    plain = replace(plain, transition=tb.GradientDescent(g, 0.2, initial=np.zeros(30)))
    for K in (1, 12):
        assert_same(plain, K)


def test_what_the_gram_matrix_is_not_faster_for_stays_plain():
    tall = problem(n=21, d=9)  # X has 10 columns with the bias
    assert tb.compile(tall) is tall
    assert tb.compile(problem(n=20, d=9)) is not tall
    elsewhere = problem()
    descent = tb.GradientDescent(elsewhere.transition.objective, 0.1, initial=np.ones(30))
    elsewhere = replace(elsewhere, transition=descent)
    assert tb.compile(elsewhere) is elsewhere


def test_another_penalty_is_not_taken_for_it():
    plain = problem()
    loss, pairs, _ = (g for _, g in plain.transition.objective.terms)
    everywhere = tb.L2Penalty().on(plain.hyper_map.theta_layout["rho"])  # the bias as well
    for g in (loss + pairs + everywhere, loss + pairs):
        descent = tb.GradientDescent(g, 0.1, initial=np.zeros(30))
        with pytest.raises(TypeError, match="no compiled form of the lower level"):
            tb.compile(replace(plain, transition=descent))


def test_it_pickles_and_is_none_the_worse_for_a_dtype_or_a_lam_of_its_own():
    fast = tb.compile(problem())
    again = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(tb.KRMD(K=5)(again).grad, tb.KRMD(K=5)(fast).grad)
    mixed = fast.lam0.astype(np.float32)
    np.testing.assert_array_equal(
        tb.KRMD(K=5)(fast, mixed).grad, tb.KRMD(K=5)(problem(), mixed).grad
    )
    with pytest.raises(ValueError, match="lam"):
        tb.KRMD(K=5)(fast, np.zeros(3))


def test_a_run_that_diverges_is_explained_by_the_plain_code():
    fast = tb.compile(problem(rho=1e6, T=200))
    with pytest.warns(tb.StabilityWarning), pytest.raises(tb.DivergenceError):
        tb.KRMD(K=5)(fast)


def test_what_is_held_is_counted():
    K, found = 5, tb.KRMD(K=5)(tb.compile(problem()))
    rows, lanes = 24, 8  # 13 examples in whole tiles of rows, 3 classes in whole vectors
    assert found.cost.bytes in {(2 * K + 1) * r * k * 8 for r in (rows, 18) for k in (lanes, 4)}
