"""What holds for each map: right adjoints, any size and dtype, pickles, a short repr."""

import pickle

import cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinybilevel as tb

NAMES = list(cases.maps())


@pytest.mark.parametrize("name", NAMES)
def test_adjoints_pickle_and_strides(name):
    phi, _, lam = cases.maps()[name]
    tb.testing.assert_map_adjoints(phi, lam, tol=1e-12)
    theta = phi(lam)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(phi))(lam), theta)
    np.testing.assert_allclose(phi(np.repeat(lam, 2)[::2]), theta, rtol=1e-14)


@pytest.mark.parametrize(
    "phi", [tb.Identity(), tb.Sigmoid(), tb.Exp(), tb.Softplus(), tb.Affine(2)]
)
@settings(deadline=None, derandomize=True, max_examples=10)
@given(n=st.integers(0, 8), seed=st.integers(0, 99))
def test_any_size_and_dtype(phi, n, seed):
    for dtype in (np.float32, np.float64):
        lam = cases.normal(seed, n, dtype=dtype)
        for result in (phi(lam), phi.vjp(lam, lam), phi.jvp(lam, lam)):
            assert result.dtype == dtype
            assert result.shape == (n,)
    tb.testing.assert_map_adjoints(phi, cases.normal(seed, n), seed=seed)


@pytest.mark.parametrize("name", NAMES)
def test_a_repr_is_short_and_names_the_map(name):
    phi = cases.maps()[name].subject
    assert type(phi).__name__ in repr(phi)
    assert len(repr(phi)) < 120
