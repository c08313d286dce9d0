import numpy as np
import pytest

import tinybilevel as tb

m = tb.Affine


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: m([True]), TypeError, "A must be float32 or float64, got dtype bool"),
        (lambda: m(np.ones((2, 2, 2))), ValueError, "A must be a number, a vector or a matrix"),
        (lambda: m([1.0, np.inf]), ValueError, "A must be finite"),
        (lambda: m(1.0, [[1.0]]), ValueError, "b must be a number or a vector, got shape"),
        (lambda: m(np.ones((2, 3)), np.ones(3)), ValueError, r"b must have shape \(2,\), got \(3,"),
        (lambda: m(np.ones(3), np.ones(2)), ValueError, r"b must have shape \(3,\), got \(2,\)"),
        (lambda: m(np.ones(3))(np.ones(1)), ValueError, r"lam must have shape \(3,\), got \(1,\)"),
        (lambda: m(np.ones(1))(np.ones(3)), ValueError, r"lam must have shape \(1,\), got \(3,\)"),
        (lambda: m(np.ones((2, 3)))(np.ones(2)), ValueError, r"lam must have shape \(3,\)"),
        (lambda: m(2.0, np.ones(3))(np.ones(1)), ValueError, r"b must have shape \(1,\), got \(3,"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_its_arrays_are_its_own():
    A, b = np.ones((2, 2)), np.ones(2)
    phi = tb.Affine(A, b)
    A[:], b[:] = np.nan, np.nan
    np.testing.assert_array_equal(phi(np.ones(2)), [3, 3])
    assert not phi.A.flags.writeable
    assert not phi.b.flags.writeable
    assert tb.Affine(phi.A).A is phi.A


@pytest.mark.parametrize("c", ["2", True, None])
def test_what_only_looks_like_a_number_is_refused(c):
    with pytest.raises(TypeError, match="A must be float32 or float64, got dtype"):
        tb.Affine(c)


def test_whole_numbers_are_numbers():
    np.testing.assert_array_equal(tb.Affine([[1, 2], [0, 1]], [1, 0])(np.ones(2)), [4, 1])


def test_an_overflow_of_a_matrix_names_the_entry_of_theta():
    phi = tb.Affine(np.full((1, 2), 1e200))
    assert phi.blame(np.full(2, 1e200)) == "Affine makes inf, entry 0"
