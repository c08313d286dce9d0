import cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinybilevel as tb


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    groups=st.lists(st.integers(-1, 4), min_size=1, max_size=8).filter(lambda k: max(k) >= 0),
    learned=st.booleans(),
)
def test_against_dense_formulas(groups, learned):
    M, G = len(groups), max(groups) + 1
    onehot = np.eye(G + 1)[groups][:, :G]  # (M, G); a row of zeros for group −1
    w, v, rho = cases.normal(1, M), cases.normal(2, M), np.abs(cases.normal(3, G))
    g = tb.L2Penalty(None if learned else rho, groups=groups)
    lam = rho if learned else cases.normal(4, 2)
    D = np.diag(onehot @ rho)
    np.testing.assert_allclose(g.value(w, lam), w @ D @ w, rtol=1e-13)
    np.testing.assert_allclose(g.grad(w, lam), 2 * D @ w, rtol=1e-13)
    np.testing.assert_allclose(g.grad_vjp(w, lam, v)[0], 2 * D @ v, rtol=1e-13)
    mixed = onehot.T @ (2 * w * v) if learned else np.zeros(2)
    np.testing.assert_allclose(g.grad_vjp(w, lam, v)[1], mixed, rtol=1e-13, atol=1e-15)
    direct = onehot.T @ w**2 if learned else np.zeros(2)
    np.testing.assert_allclose(g.grad_lam(w, lam), direct, rtol=1e-13)
    tb.testing.assert_objective_derivatives(g, w, lam)


def test_a_number_does_not_decide_the_precision():
    w, lam = np.ones(2, np.float32), np.zeros(1, np.float32)
    for strength in (0.5, 1, np.float64(0.5), np.float32(0.5)):
        assert tb.L2Penalty(strength).grad(w, lam).dtype == np.float32
        assert tb.L2Penalty(strength, groups=[0, 0]).grad(w, lam).dtype == np.float32
        assert tb.L2Penalty(strength).dtype is None
    for strength, groups in (([0.5], None), ([0.5], [0, 0])):
        assert tb.L2Penalty(strength, groups).grad(w, lam).dtype == np.float64
        assert tb.L2Penalty(strength, groups).dtype == np.float64


@pytest.mark.parametrize("strength", [0.5, [0.5], None])
def test_an_entry_in_group_minus_one_has_no_penalty(strength):
    g, lam = tb.L2Penalty(strength, groups=[0, -1, 0]), np.array([0.5])
    w = np.array([1.0, 100.0, -2.0])
    assert g.value(w, lam) == 2.5
    np.testing.assert_array_equal(g.grad(w, lam), [1, 0, -2])
    hessian, mixed = g.grad_vjp(w, lam, np.ones(3))
    np.testing.assert_array_equal(hessian, [1, 0, 1])
    np.testing.assert_array_equal(mixed, [-2.0] if strength is None else [0.0])


def test_groups_that_are_changed_later_change_nothing():
    groups, strength = np.array([0, 1]), np.array([1.0, 2.0])
    g = tb.L2Penalty(strength, groups)
    groups[:], strength[:] = 0, 7
    np.testing.assert_array_equal(g.grad(np.ones(2), np.ones(2)), [2, 4])


def test_fixed_groups_need_not_be_close():
    assert tb.L2Penalty(np.ones(30), groups=[0, 29]).grad(np.ones(2), np.ones(1)).sum() == 4


def test_an_integer_is_a_number():
    assert tb.L2Penalty(2).value(np.array([3.0]), np.zeros(1)) == 18


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int64])
def test_groups_of_any_integer_type(dtype):
    g = tb.L2Penalty(groups=np.array([0, 1, 0], dtype))
    np.testing.assert_array_equal(g.grad_lam(np.arange(3.0), np.ones(2)), [4, 1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-0.1,), ValueError, "strength must be at least 0, got -0.1"),
        ((np.nan,), ValueError, "strength must be finite"),
        ((np.inf,), ValueError, "strength must be finite"),
        ((1j,), TypeError, "strength must be float32 or float64, got dtype complex128"),
        (("0.1",), TypeError, "strength must be float32 or float64"),
        (([True, False], [0, 1]), TypeError, "strength must be float32 or float64, got .* bool"),
        (([1.0, 2.0],), ValueError, r"one entry per group \(1\), got \(2,\)"),
        ((0.1, [0, 1]), ValueError, r"one entry per group \(2\), got \(1,\)"),
        (([[1.0]],), ValueError, "strength must have 1 dimension"),
        ((None, [0.0, 1.0]), ValueError, "groups must be a vector of integers"),
        ((None, []), ValueError, "groups must be a vector of integers"),
        ((None, [[0]]), ValueError, "groups must be a vector of integers"),
        ((None, [True, False]), ValueError, "groups must be a vector of integers"),
        ((None, [-2, 0]), ValueError, "groups must be at least 0, or −1 for no penalty, got -2"),
        ((0.1, [-1, -1]), ValueError, "groups must hold at least one group, got −1 alone"),
        ((None, [0, 1, 250_000]), ValueError, "only 3 different groups, .* largest is 250000"),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        tb.L2Penalty(*arguments)


def test_wrong_sizes_do_not_broadcast():
    with pytest.raises(ValueError, match=r"lam must hold 1 strengths, got shape \(3,\)"):
        tb.L2Penalty().grad(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"lam must hold 2 strengths, got shape \(1,\)"):
        tb.L2Penalty(groups=[0, 1]).value(np.ones(2), np.ones(1))
    with pytest.raises(ValueError, match=r"w must have shape \(2,\) as groups has, got \(1,\)"):
        tb.L2Penalty([1.0, 1.0], groups=[0, 1]).value(np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match=r"lam must hold 1 strengths, got shape \(3,\)"):
        tb.L2Penalty().grad_jvp(np.ones(3), np.ones(1), np.ones(3), np.ones(3))


def test_a_few_groups_without_entries_are_taken_and_more_are_not():
    assert tb.L2Penalty(groups=[0, 13]).n_lam == 14
    with pytest.raises(ValueError, match="groups has only 2 different groups, but the largest is"):
        tb.L2Penalty(groups=[0, 14])
