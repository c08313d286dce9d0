import numpy as np
import pytest

import tinybilevel as tb


def test_the_triangle_is_read_row_by_row():
    C = tb.Symmetric(4)(np.arange(1.0, 7.0)).reshape(4, 4)
    np.testing.assert_array_equal(C, [[0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]])


def test_an_entry_gathers_both_of_its_places():
    H = np.arange(9.0)
    np.testing.assert_array_equal(tb.Symmetric(3).vjp(np.ones(3), H), [1 + 3, 2 + 6, 5 + 7])


def test_a_block_may_change_its_size():
    phi = tb.Blocks(tb.Layout(rho=1, C=3, tau=2), C=tb.Symmetric(3), tau=tb.Affine(np.ones((1, 2))))
    assert phi.theta_layout["C"] == slice(1, 10)
    assert phi.out_size(6) == 11
    assert tb.Compose(phi, tb.Exp()).out_size(6) == 11
    theta = phi(np.array([7.0, 1, 2, 3, 4, 5]))
    np.testing.assert_array_equal(theta, [7, 0, 1, 2, 1, 0, 3, 2, 3, 0, 9])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tb.Symmetric(0), "size must be at least 1, got 0"),
        (lambda: tb.Symmetric(3)(np.ones(4)), r"lam must have shape \(3,\), got \(4,\)"),
        (lambda: tb.Symmetric(3).vjp(np.ones(3), np.ones(3)), r"h must have shape \(9,\)"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
