import cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinybilevel as tb

sizes = st.integers(1, 8)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(M=sizes, N=sizes, diagonal=st.booleans(), offset=st.booleans(), seed=st.integers(0, 99))
def test_against_dense_formulas(M, N, diagonal, offset, seed):
    G = cases.normal(seed, M) if diagonal else cases.normal(seed, M, M)
    C, d = cases.normal(seed + 1, M, N), cases.normal(seed + 2, M) if offset else None
    w, lam, v = (cases.normal(seed + k, n) for k, n in ((3, M), (4, N), (5, M)))
    dlam = cases.normal(seed + 6, N)
    g, full = tb.Quadratic(G, C, d), np.diag(G) if diagonal else G
    H, r = (full + full.T) / 2, w - C @ lam - (0 if d is None else d)
    close = dict(rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(g.value(w, lam), 0.5 * r @ full @ r, **close)
    np.testing.assert_allclose(g.grad(w, lam), H @ r, **close)
    np.testing.assert_allclose(g.grad_lam(w, lam), -C.T @ H @ r, **close)
    np.testing.assert_allclose(g.grad_vjp(w, lam, v)[0], H @ v, **close)
    np.testing.assert_allclose(g.grad_vjp(w, lam, v)[1], -C.T @ H @ v, **close)
    np.testing.assert_allclose(g.grad_jvp(w, lam, v, dlam), H @ v - H @ C @ dlam, **close)
    tb.testing.assert_objective_derivatives(g, w, lam, seed=seed)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(G=np.ones((2, 3))), ValueError, r"G must be a square matrix .* got shape \(2, 3\)"),
        (dict(G=np.ones((2, 2, 2))), ValueError, "G must be a square matrix"),
        (dict(G=1.0), ValueError, "G must be a square matrix"),
        (dict(G=[True, False]), TypeError, "G must be float32 or float64, got dtype bool"),
        (dict(G=np.eye(2, dtype=complex)), TypeError, "G must be .* complex128"),
        (dict(G=np.eye(2, dtype=np.float16)), TypeError, "G must be .* float16"),
        (dict(G=[1.0, np.nan]), ValueError, "G must be finite, got 1 NaN or inf"),
        (dict(G=[1.0, 1.0], C=np.ones((3, 2))), ValueError, "C must have 2 rows"),
        (dict(G=[1.0, 1.0], C=np.ones(2)), ValueError, "C must have 2 dimension"),
        (dict(G=[1.0, 1.0], d=np.ones(3)), ValueError, r"d must have shape \(2,\), got \(3,\)"),
        (dict(G=[1.0, 1.0], d=[1j, 1]), TypeError, "d must be float32"),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        tb.Quadratic(**arguments)


def test_wrong_sizes_do_not_broadcast():
    g, one, two = tb.Quadratic([1.0, 2.0]), np.ones(1), np.ones(2)
    for method in (g.value, g.grad, g.grad_lam):
        with pytest.raises(ValueError, match=r"lam must have shape \(2,\), got \(1,\)"):
            method(two, one)
        with pytest.raises(ValueError, match=r"w must have shape \(2,\), got \(1,\)"):
            method(one, two)


def test_dtype_is_the_promoted_one_of_its_arrays():
    assert tb.Quadratic(np.ones(2, np.float32)).dtype == np.float32
    assert tb.Quadratic(np.ones(2, np.float32), d=np.ones(2)).dtype == np.float64
