from dataclasses import replace

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error

RNG = np.random.default_rng(0)
X, X_VAL = RNG.standard_normal((7, 5)), RNG.standard_normal((6, 5))
Y, Y_VAL = np.array([0, 1, 2, 0, 1, 2, 0]), np.array([2, 1, 0, 1, 2, 0])
LAM = RNG.random(4)


def problem(X=X, X_val=X_VAL, **options):
    return tb.problems.task_interaction(X, Y, X_val, Y_VAL, T=20, **options)


def cross_entropy(W, X, y):
    S = np.c_[X, np.ones(len(X))] @ W.T
    return np.mean(np.log(np.exp(S).sum(axis=1)) - S[np.arange(len(y)), y])


def test_it_is_the_objective_of_section_4_2_2():
    W, (c01, c02, c12, rho) = RNG.standard_normal((3, 6)), LAM
    C = np.array([[0, c01, c02], [c01, 0, c12], [c02, c12, 0]])
    w = W[:, :-1]  # the bias is not penalised
    pairs = sum(C[i, j] * ((w[i] - w[j]) ** 2).sum() for i in range(3) for j in range(3))
    expected = cross_entropy(W, X, Y) + pairs + rho * (w**2).sum()
    p = problem()
    value = p.transition.objective.value(W.ravel(), p.hyper_map(LAM))
    assert value == pytest.approx(expected, rel=1e-13)
    assert p.upper.value(W.ravel(), LAM) == pytest.approx(cross_entropy(W, X_VAL, Y_VAL), rel=1e-13)


def test_it_starts_where_the_paper_does():
    p = tb.problems.task_interaction(X, Y, X_VAL, Y_VAL)
    np.testing.assert_array_equal(p.lam0, np.zeros(4))
    np.testing.assert_array_equal(p.transition.initial(p.hyper_map(p.lam0)), np.zeros(18))
    assert (p.T, p.transition.step_size(0, p.lam0)) == (100, 0.1)


@pytest.mark.parametrize("K", [1, 6, 20])
def test_its_hypergradients(K):
    dense = tb.testing.dense_hypergradient(problem(), LAM, K)
    assert relative_error(tb.KRMD(K=K)(problem(), LAM).grad, dense) <= 1e-12
    tb.testing.assert_matches_differences(problem(), LAM, tb.RMD())


def test_one_strength_for_all_pairs_only_adds_to_the_ridge():
    c, rho = 0.3, 0.2
    shared = tb.RMD()(problem(), np.array([c, c, c, rho]))
    ridge = tb.RMD()(problem(), np.array([0, 0, 0, rho + 2 * 3 * c]))
    assert relative_error(shared.w, ridge.w) <= 1e-12
    assert relative_error(shared.value, ridge.value) <= 1e-12
    assert relative_error(shared.grad[-1], ridge.grad[-1]) <= 1e-12
    # λ along (1, 1, 1) does what 2V ρ does.
    assert relative_error(shared.grad[:3].sum(), 2 * 3 * shared.grad[-1]) <= 1e-12


def test_lam_is_kept_nonnegative_by_default():
    result = tb.minimize(problem(), np.full(4, 0.02), optimizer=tb.Adam(0.05), iterations=20)
    assert (result.lam >= 0).all()
    assert (result.lam == 0).any()
    free = tb.minimize(
        problem(), np.full(4, 0.02), optimizer=tb.Adam(0.05), iterations=20, bounds=(None, None)
    )
    assert (free.lam < 0).any()


def test_the_bound_holds_for_the_curvature():
    p = problem()
    theta = p.hyper_map(LAM)
    g, w = p.transition.objective, 3 * RNG.standard_normal(18)
    H = np.array([g.grad_vjp(w, theta, unit)[0] for unit in np.eye(18)])
    largest = np.linalg.eigvalsh(H)[-1]
    assert 0.1 * largest <= p.hyper_map.step_bound(theta)
    at_0 = np.array([g.grad_vjp(0 * w, theta, unit)[0] for unit in np.eye(18)])
    assert (
        p.hyper_map.step_bound(theta) <= 4 * 0.1 * np.linalg.eigvalsh(at_0)[-1]
    )  # not absurdly loose


def test_a_run_that_leaves_the_bound_says_so_and_a_projection_stays_within():
    p = problem()
    far = np.array([5.0, 0.1, 0.0, 0.3])
    with pytest.warns(tb.StabilityWarning, match=r"is 4\.\d+, not below 2, with γ = 0\.1, β"):
        theta = p.hyper_map(far)
    assert p.hyper_map.step_bound(theta) > 2
    near = p.hyper_map.project(far)
    assert p.hyper_map.step_bound(p.hyper_map(near)) == pytest.approx(1.998, abs=0.01)
    np.testing.assert_array_equal(near[2:], far[2:])  # what was within stays
    np.testing.assert_allclose(p.hyper_map.project(near), near, rtol=1e-14)
    np.testing.assert_array_equal(p.hyper_map.project(-far), np.zeros(4))
    with pytest.raises(ValueError, match="too large for any C and ρ"):
        problem(step_size=50.0).hyper_map.project(far)


def test_interactions_is_the_matrix():
    np.testing.assert_array_equal(
        tb.problems.interactions(np.array([1.0, 2.0, 3.0, 9.0])), [[0, 1, 2], [1, 0, 3], [2, 3, 0]]
    )
    with pytest.raises(
        ValueError, match=r"lam must hold V\(V−1\)/2 \+ 1 numbers for some V, got 3"
    ):
        tb.problems.interactions(np.zeros(3))


@pytest.mark.parametrize("K", [1, 6, 20])
def test_the_row_space_loses_nothing(K):
    X, X_val = RNG.standard_normal((7, 40)), RNG.standard_normal((6, 40))
    rows = tb.problems.RowSpace(X)
    small = problem(rows.reduce(X), rows.reduce(X_val))
    whole, reduced = (tb.KRMD(K=K)(p, LAM) for p in (problem(X, X_val), small))
    assert relative_error(reduced.value, whole.value) <= 1e-12
    assert relative_error(reduced.grad, whole.grad) <= 1e-12
    W, reduced_W = whole.w.reshape(3, -1), reduced.w.reshape(3, -1)
    assert reduced_W.shape == (3, 8)
    assert relative_error(rows.lift(reduced_W[:, :-1]), W[:, :-1]) <= 1e-12
    assert relative_error(reduced_W[:, -1], W[:, -1]) <= 1e-12


def test_the_row_space_of_more_rows_than_features_is_a_rotation():
    rows = tb.problems.RowSpace(X)
    assert rows.reduce(X).shape == X.shape
    whole, turned = (tb.RMD()(p, LAM) for p in (problem(), problem(rows.reduce(X), X_VAL @ rows.Q)))
    assert relative_error(turned.grad, whole.grad) <= 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: problem(X_val=X_VAL[:, 1:]), r"X and X_val must have as many columns"),
        (lambda: tb.problems.RowSpace(X).reduce(X.T), r"X must have 5 columns, got \(5, 7\)"),
        (lambda: tb.problems.RowSpace(X).lift(X.T), r"W must have 5 columns, got \(5, 7\)"),
        (lambda: tb.problems.RowSpace(np.zeros(3)), r"X must have 2 dimension"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, 1, 24999, 0, 1, 1, 0], ValueError, "y and y_val has only 4 different labels, but the"),
        (list("abcabca"), TypeError, "y must be whole numbers 0 … C−1, got <U1"),
        ([np.nan] * 7, ValueError, "y must be whole numbers 0 … C−1, got nan"),
        (Y[1:], ValueError, "y must be 7 integers, got shape"),
    ],
)
def test_labels_that_are_refused(y, error, message):
    with pytest.raises(error, match=message):
        tb.problems.task_interaction(X, y, X_VAL, Y_VAL)


def test_labels_may_be_whole_floats():
    whole = tb.problems.task_interaction(X, Y.astype(float), X_VAL, Y_VAL.astype(float), T=3)
    assert tb.RMD()(whole, LAM).value == tb.RMD()(replace(problem(), T=3), LAM).value


def test_remembered_softmaxes_change_nothing():
    for K in (1, 6):
        kept, plain = (tb.KRMD(K=K)(problem(remember=count), LAM) for count in (4, 0))
        np.testing.assert_array_equal(kept.grad, plain.grad)
