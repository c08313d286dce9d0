"""Products in whole vectors are NumPy's, at all remainders of rows and columns."""

import numpy as np
import pytest

pytest.importorskip("numba")
from tinybilevel.kernels.product import multiply


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 8, 32, 33, 64])
def test_a_product_is_numpys(columns, dtype):
    rng = np.random.default_rng(0)
    for rows in (1, 3, 4, 11, 12, 13, 41):
        for n in (1, 2, 9):
            A = rng.standard_normal((rows, n)).astype(dtype)
            B = rng.standard_normal((n, columns)).astype(dtype)
            start = rng.standard_normal((rows, columns)).astype(dtype)
            for across in (False, True):
                for add in (False, True):
                    C = start.copy()
                    multiply(np.ascontiguousarray(A.T) if across else A, across, B, C, add)
                    expected = A.astype(float) @ B + (start if add else 0)
                    np.testing.assert_allclose(
                        C, expected, atol=1e-13 if dtype == np.float64 else 2e-5
                    )
