"""What least squares and logistic regression share: examples, weights, minibatches."""

import cases
import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array

import tinybilevel as tb
from tinybilevel.objectives import LinearLoss

X = cases.normal(0, 6, 3) * (cases.normal(1, 6, 3) > -0.5)
Y = {tb.LeastSquares: cases.normal(2, 6), tb.LogisticRegression: np.array([0, 1, 1, 0, 0, 1])}
W, V, LAM = cases.normal(3, 3), cases.normal(4, 3), np.arange(6.0)


@pytest.fixture(params=list(Y))
def make(request):
    return lambda X, **options: request.param(X, Y[request.param], **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sparse_X_is_the_dense_one(make, dtype):
    dense = make(X)
    expected = cases.objective_calls(dense, W, LAM)
    for sparse in (csr_array(X), coo_array(X)):
        g = make(sparse)
        for name, found in cases.objective_calls(g, W, LAM).items():
            for a, b in zip(cases.arrays(found), cases.arrays(expected[name]), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(g.predict(W, csr_array(X)), dense.predict(W, X), rtol=1e-13)


def test_weights_count_examples(make):
    twice, once = np.array([2.0, 1, 1, 0, 1, 1]), make(X[[0, 0, 1, 2, 4, 5]], scale=1.0)
    once.y = make(X).y[[0, 0, 1, 2, 4, 5]]
    g = make(X, scale=1.0)
    assert g.value(W, twice) == pytest.approx(once.value(W, np.ones(6)), rel=1e-14)
    np.testing.assert_allclose(g.grad(W, twice), once.grad(W, np.ones(6)), rtol=1e-13)


def test_the_mean_is_the_default(make):
    g, total = make(X, weighted=False), make(X, weighted=False, scale=1)
    assert g.value(W, LAM) == pytest.approx(total.value(W, LAM) / 6, rel=1e-14)
    assert g.value(W, LAM) == pytest.approx(g.losses(W).mean(), rel=1e-14)
    assert g.value(W, LAM) == pytest.approx(make(X).value(W, np.ones(6)), rel=1e-14)
    assert (g.size, g.n_lam, make(X).n_lam) == (3, None, 6)


def test_minibatches_are_unbiased(make):
    g = make(X)
    parts = [g.restrict([i]).grad(W, LAM) for i in range(6)]
    np.testing.assert_allclose(np.mean(parts, axis=0), g.grad(W, LAM), rtol=1e-13)


def test_an_example_not_in_the_batch_has_no_derivative(make):
    g = make(X).restrict([3, 0, 3])
    assert set(np.flatnonzero(g.grad_vjp(W, LAM, V)[1])) <= {0, 3}
    np.testing.assert_allclose(g.grad_lam(W, LAM)[3], 2 * make(X).losses(W)[3] / 3, rtol=1e-13)


def test_data_that_are_changed_later_change_nothing(make):
    data = np.array(X)
    g, sparse = make(data), make(csr_array(data))
    before, before_sparse = g.grad(W, LAM), sparse.grad(W, LAM)
    data[...] = 0
    np.testing.assert_array_equal(g.grad(W, LAM), before)
    np.testing.assert_array_equal(sparse.grad(W, LAM), before_sparse)


@pytest.mark.parametrize("index", [[], [[0]], [0.0], [True, False], 1])
def test_batch_must_be_a_vector_of_integers(make, index):
    with pytest.raises(ValueError, match="index must be a nonempty vector of integers, got"):
        make(X).restrict(index)


def test_wrong_sizes_do_not_broadcast(make):
    g = make(X)
    with pytest.raises(ValueError, match=r"lam must hold 6 example weights, got shape \(1,\)"):
        g.grad(W, np.ones(1))
    with pytest.raises(ValueError, match=r"lam must hold 6 example weights, got shape \(1,\)"):
        g.grad_jvp(W, LAM, W, np.ones(1))
    with pytest.raises(ValueError, match=r"w must have shape \(3,\), got \(1,\)"):
        g.value(np.ones(1), LAM)
    with pytest.raises(ValueError, match=r"w must have shape \(3,\), got \(4,\)"):
        g.predict(np.ones(4), X)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (X[0], ValueError, "X must have 2 dimension"),
        (X[:0], ValueError, "X must have at least one row and one column"),
        (X[:, :0], ValueError, "X must have at least one row and one column"),
        (np.full((6, 3), np.nan), ValueError, "X must be finite"),
        (X > 0, TypeError, "X must be float32 or float64, got dtype bool"),
        (csr_array(X > 0), TypeError, "X must be float32 or float64, got dtype bool"),
        (csr_array(np.full((6, 3), np.inf)), ValueError, "X must be finite"),
        (X[:-1], ValueError, r"y must have shape \(5,\), got \(6,\)"),
    ],
)
def test_refused(make, data, error, message):
    with pytest.raises(error, match=message):
        make(data)


def test_scale_must_be_finite(make):
    with pytest.raises(ValueError, match="scale must be finite, got nan"):
        make(X, scale=np.nan)


def test_a_loss_of_your_own_takes_three_formulas():
    class Poisson(LinearLoss):
        def loss(self, z):
            return np.exp(z) - self.y * z

        def slope(self, z):
            return np.exp(z) - self.y

        def curvature(self, z):
            return np.exp(z)

    g = Poisson(X, np.array([0.0, 1, 2, 0, 1, 4]), weighted=True, scale=None)
    tb.testing.assert_objective_derivatives(g, W, LAM, tol=1e-12)


def test_a_loss_of_the_users_cannot_write_into_its_scores():
    class Hasty(tb.LeastSquares):
        def slope(self, z):
            z -= self.y
            return z

    with pytest.raises(ValueError, match=r"^Hasty.slope wrote into an array that it may only read"):
        Hasty(np.eye(2), [1.0, 2.0]).grad(np.zeros(2), np.ones(2))


@pytest.mark.parametrize("loss", [tb.LeastSquares, tb.LogisticRegression])
def test_options_act_or_are_refused(loss):
    X, y = np.eye(3), [1.0, 0.0, 1.0]
    for options, message in (
        ({"weighted": "no"}, "weighted must be True or False, got 'no'"),
        ({"scale": "1"}, "scale must be a number, got '1'"),
        ({"scale": True}, "scale must be a number, got True"),
    ):
        with pytest.raises(TypeError, match=message):
            loss(X, y, **options)
    for rows in ([-1], [0, 3]):
        with pytest.raises(IndexError, match=r"index must lie in 0 … 2, got"):
            loss(X, y).restrict(rows)
    with pytest.raises(
        ValueError, match=r"X must have 3 columns, with a bias .* got shape \(1, 2\)"
    ):
        loss(X, y).predict(np.ones(3), np.ones((1, 2)))
    assert loss(X, y).predict(np.ones(3), [[1, 2, 3]]).shape == (1,)


def test_rows_of_rows_are_rows_of_the_whole():
    rng = np.random.default_rng(0)
    loss, w, theta = tb.LeastSquares(rng.random((6, 2)), rng.random(6)), np.ones(2), rng.random(6)
    twice, once = loss.restrict([4, 2, 3]).restrict([0, 2]), loss.restrict([4, 3])
    np.testing.assert_allclose(twice.grad_lam(w, theta), once.grad_lam(w, theta), rtol=1e-15)
    np.testing.assert_allclose(twice.grad(w, theta), once.grad(w, theta), rtol=1e-15)
