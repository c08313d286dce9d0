import cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array, csr_array

import tinybilevel as tb

sizes = st.integers(1, 8)


def dense(X, y, C, w, theta):
    """Return value, gradient and dense Hessian of Σ θ_i ℓ_i, and each ∇ℓ_i, example by example."""
    d, value = X.shape[1], 0.0
    grads, H = np.zeros((len(X), C * d)), np.zeros((C * d, C * d))
    for i, (x, k) in enumerate(zip(X, y, strict=True)):
        scores = w.reshape(C, d) @ x
        p = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        value -= theta[i] * np.log(p[k])
        grads[i] = np.kron(p - np.eye(C)[k], x)
        H += theta[i] * np.kron(np.diag(p) - np.outer(p, p), np.outer(x, x))
    return value, grads, H


@settings(deadline=None, derandomize=True, max_examples=40)
@given(n=sizes, d=sizes, C=sizes, weighted=st.booleans(), data=st.data(), seed=st.integers(0, 99))
def test_against_explicit_hessians_on_any_batch(n, d, C, weighted, data, seed):
    rng = np.random.default_rng(seed)
    X, y, w, v = cases.normal(seed, n, d), rng.integers(C, size=n), *cases.normal(1, 2, C * d)
    lam, dlam = cases.normal(2, 2, n)
    index = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8)))
    g = tb.SoftmaxRegression(X, y, C, weighted=weighted).restrict(index)
    counts = np.bincount(index, minlength=n) / len(
        index
    )  # n/len(index) · 1/n each time it is drawn
    theta = counts * (lam if weighted else 1)
    value, grads, H = dense(X, y, C, w, theta)
    mixed = counts * (grads @ v) if weighted else np.zeros(n)
    close = dict(rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(g.value(w, lam), value, **close)
    np.testing.assert_allclose(g.grad(w, lam), theta @ grads, **close)
    np.testing.assert_allclose(g.grad_vjp(w, lam, v)[0], H @ v, **close)
    np.testing.assert_allclose(g.grad_vjp(w, lam, v)[1], mixed, **close)
    change = H @ v + ((counts * dlam) @ grads if weighted else 0)
    np.testing.assert_allclose(g.grad_jvp(w, lam, v, dlam), change, **close)
    tb.testing.assert_objective_derivatives(g, w, lam, seed=seed)


def test_disjoint_batches_average_to_the_whole():
    for g in (cases.softmax(n=6), cases.softmax(n=6, weighted=False), cases.softmax(6, scale=3.0)):
        w, lam, v = cases.normal(1, 6), cases.normal(2, 6), cases.normal(3, 6)
        parts = [g.restrict(index) for index in ([4, 0], [5, 2], [1, 3])]
        for method, arguments in (
            ("value", (w, lam)),
            ("grad", (w, lam)),
            ("grad_lam", (w, lam)),
            ("grad_jvp", (w, lam, v, lam)),
        ):
            mean = np.mean([getattr(part, method)(*arguments) for part in parts], axis=0)
            np.testing.assert_allclose(mean, getattr(g, method)(*arguments), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weighted", [True, False])
def test_a_batch_of_a_batch_and_of_a_block(weighted):
    w, lam = cases.normal(1, 6), cases.normal(2, 7)
    g, inner, outer = cases.softmax(weighted=weighted), np.array([4, 3, 0, 3]), np.array([1, 1, 2])
    direct = cases.objective_calls(g.restrict(inner[outer]), w, lam[1:6])
    cases.assert_same(cases.objective_calls(g.restrict(inner).restrict(outer), w, lam[1:6]), direct)
    on_block = cases.objective_calls(g.on(slice(1, 6)).restrict(inner[outer]), w, lam)
    assert on_block["value"] == direct["value"]
    np.testing.assert_array_equal(on_block["grad"], direct["grad"])
    np.testing.assert_array_equal(on_block["grad_vjp"][1][1:6], direct["grad_vjp"][1])


@pytest.mark.parametrize("backend", ["plain", "numpy", "numba"])
def test_huge_scores_do_not_overflow(backend):
    if backend == "numba":
        pytest.importorskip("numba")
    g = tb.SoftmaxRegression(np.eye(2), [0, 1], weighted=False, backend=backend)
    w, lam = np.array([1e4, -1e4, -1e4, 1e4]), np.zeros(1)
    assert g.value(w, lam) == 0
    np.testing.assert_allclose(g.value(-w, lam), 2e4)
    np.testing.assert_array_equal(g.grad(-w, lam), [-0.5, 0.5, 0.5, -0.5])
    for part in (*g.grad_vjp(w, lam, w), g.grad_jvp(-w, lam, w, lam), g.grad_lam(w, lam)):
        assert np.isfinite(part).all()


def test_predict_and_losses():
    g, w, lam = cases.objectives()["softmax"]
    scores = g.X @ w.reshape(3, 2).T
    np.testing.assert_array_equal(g.predict(w, g.X), scores.argmax(axis=1))
    np.testing.assert_allclose(g.losses(w) @ lam / 5, g.value(w, lam), rtol=1e-13)
    assert g.losses(w).shape == (5,)
    assert g.size == 6


def test_an_example_not_in_the_batch_has_no_derivative():
    g, w, lam = cases.objectives()["softmax-batch"]
    assert set(np.flatnonzero(g.grad_vjp(w, lam, w)[1])) == {0, 3}
    assert set(np.flatnonzero(g.grad_lam(w, lam))) == {0, 3}


X = np.ones((3, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X > 0, [0, 1, 2]), TypeError, "X must be float32 or float64, got dtype bool"),
        ((X.astype(np.float16), [0, 1, 2]), TypeError, "X must be .* float16"),
        ((X[0], [0, 1]), ValueError, r"X must have 2 dimension.*got shape \(2,\)"),
        ((X[:0], []), ValueError, "X must have at least one row and one column"),
        ((X[:, :0], [0, 1, 2]), ValueError, "X must have at least one row and one column"),
        ((X * np.inf, [0, 1, 2]), ValueError, "X must be finite, got 6 NaN or inf"),
        ((X, [0, 1]), ValueError, r"y must be 3 integers, got shape \(2,\)"),
        ((X, [[0], [1], [2]]), ValueError, r"y must be 3 integers, got shape \(3, 1\)"),
        ((X, [0.0, 1.0, 2.5]), ValueError, "y must be whole numbers 0 … C−1, got 2.5"),
        ((X, [True, False, True]), TypeError, "y must be whole numbers 0 … C−1, got bool"),
        ((X, ["a", "b", "c"]), TypeError, "y must be whole numbers .*return_inverse"),
        ((X, [1, 2, 3]), ValueError, "class 0 never occurs in y, whose labels are 1 … 3"),
        ((X, [0, 1, 250_000]), ValueError, "y has only 3 different labels, but the largest is"),
        ((X, [0, 1, -1]), ValueError, "y must lie in 0 … C−1, got -1 … 1"),
        ((X, [0, 1, 2], 2), ValueError, "y must lie in 0 … 1, got 0 … 2"),
        ((X, [0, 0, 0], 0), ValueError, "n_classes must be at least 1, got 0"),
        ((X, [0, 0, 0], 2.0), TypeError, "n_classes must be an integer, got 2.0"),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        tb.SoftmaxRegression(*arguments)


def test_wrong_sizes_do_not_broadcast():
    g, w, lam = cases.objectives()["softmax"]
    for method in (g.value, g.grad, lambda w, lam: g.grad_vjp(w, lam, w)):
        with pytest.raises(ValueError, match=r"lam must hold 5 example weights, got shape \(1,\)"):
            method(w, np.ones(1))
        with pytest.raises(ValueError, match=r"w must have shape \(6,\) = 3 classes × 2 features"):
            method(np.ones(1), lam)
    with pytest.raises(ValueError, match=r"lam must hold 5 example weights, got shape \(1,\)"):
        g.grad_jvp(w, lam, w, np.ones(1))


@pytest.mark.parametrize("index", [[], [[0]], [0.0], [True, False], 1])
def test_batch_must_be_a_vector_of_integers(index):
    with pytest.raises(ValueError, match="index must be a nonempty vector of integers, got"):
        cases.softmax().restrict(index)


def test_a_sparse_X_is_the_dense_one():
    X = cases.normal(0, 6, 4) * (cases.normal(1, 6, 4) > 0)
    y, lam = [0, 1, 2, 0, 1, 2], np.arange(6.0)
    w, v = cases.normal(2, 2, 12)
    dense = tb.SoftmaxRegression(X, y)
    for g in (tb.SoftmaxRegression(csr_array(X), y), tb.SoftmaxRegression(coo_array(X), y)):
        found, expected = (cases.objective_calls(each, w[:12], lam) for each in (g, dense))
        for name, result in expected.items():
            for a, b in zip(cases.arrays(found[name]), cases.arrays(result), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(g.predict(v, csr_array(X)), dense.predict(v, X))


def test_a_sparse_X_is_checked():
    with pytest.raises(TypeError, match="X must be float32 or float64, got dtype bool"):
        tb.SoftmaxRegression(csr_array(np.eye(2, dtype=bool)), [0, 1])
    ones = tb.SoftmaxRegression(csr_array(np.eye(2, dtype=np.int64)), [0, 1])
    assert ones.X.dtype == ones.dtype == np.float64
    with pytest.raises(ValueError, match="X must be finite"):
        tb.SoftmaxRegression(csr_array(np.diag([1.0, np.nan])), [0, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_a_hypergradient_is_the_same_by_either_backend(dtype, density):
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    X = (rng.random((150, 60)) * (rng.random((150, 60)) < density)).astype(dtype)
    y = rng.integers(0, 10, 150)
    lam = rng.standard_normal(100).astype(dtype)
    found = []
    for backend in ("numpy", "numba"):
        problem = tb.problems.hypercleaning(
            X[:100], y[:100], X[100:], y[100:], T=30, step_size=0.3, backend=backend
        )
        assert type(problem.upper.body).__module__.endswith(
            ".blocked_softmax" if backend == "numpy" else ".softmax"
        )
        found.append(tb.KRMD(K=20)(problem, lam))
    plain, compiled = found
    tol = 1e-13 if dtype is np.float64 else 1e-4
    assert tb.testing.relative_error(compiled.grad, plain.grad) < tol
    assert tb.testing.relative_error(compiled.w, plain.w) < tol
    assert abs(compiled.value - plain.value) < tol * plain.value
    assert compiled.grad.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("classes", [2, 3, 9])
def test_value_and_gradients_in_one_pass(classes, weighted, dtype):
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 300)), rng.integers(0, classes, 40)
    loss = tb.SoftmaxRegression(X, y, classes, weighted=weighted, scale=0.3, backend="numba")
    w, lam = rng.standard_normal(loss.size).astype(dtype), rng.random(40).astype(dtype)
    found = loss.value_with_grads(w, lam)
    for one, expected in zip(
        found, (loss.value(w, lam), loss.grad(w, lam), loss.grad_lam(w, lam)), strict=True
    ):
        np.testing.assert_array_equal(one, expected)
        assert np.asarray(one).dtype == np.asarray(expected).dtype


@pytest.mark.parametrize("double", ["w", "lam", "v"])
def test_a_mix_of_dtypes_goes_to_the_blocks(double):
    pytest.importorskip("numba")
    X = cases.normal(0, 6, 4, dtype=np.float32)
    y, w, v = [0, 1, 2, 0, 1, 2], *cases.normal(2, 2, 12, dtype=np.float32)
    given = {"w": w, "lam": np.arange(6, dtype=np.float32), "v": v}
    given[double] = given[double].astype(np.float64)
    w, lam, v = given.values()
    calls = []
    for backend in ("numpy", "numba"):
        g = tb.SoftmaxRegression(X, y, backend=backend)
        calls.append([g.losses(w), g.grad(w, lam), *g.grad_vjp(w, lam, v)])
    for a, b in zip(*calls, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert calls[1][2].dtype == np.float64


def test_whole_numbers_are_labels_and_all_classes_may_be_named():
    g = tb.SoftmaxRegression(X, [0.0, 2.0, 1.0])
    assert g.n_classes == 3
    assert g.y.tolist() == [0, 2, 1]
    assert tb.SoftmaxRegression(X, [1, 2, 3], 4).n_classes == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": np.nan}, ValueError, "scale must be finite, got nan"),
        ({"scale": np.inf}, ValueError, "scale must be finite, got inf"),
        ({"weighted": "no"}, TypeError, "weighted must be True or False, got 'no'"),
        ({"backend": "plain", "remember": 1}, ValueError, "plain.* keeps no softmax"),
    ],
)
def test_an_option_acts_or_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        tb.SoftmaxRegression(X, [0, 1, 2], **options)


@pytest.mark.parametrize("backend", ["plain", "numpy"])
def test_a_batch_has_rows_that_there_are(backend):
    g = cases.softmax(backend=backend)
    for index, seen in (([0, 5], "0 … 5"), ([-1, 2], "-1 … 2")):
        with pytest.raises(IndexError, match=f"index must lie in 0 … 4, got {seen}"):
            g.restrict(index)


def test_examples_without_the_bias_are_named():
    g = cases.softmax()
    with pytest.raises(ValueError, match=r"X must have 2 columns, .* got shape \(4, 1\)"):
        g.predict(np.zeros(6), np.zeros((4, 1)))
