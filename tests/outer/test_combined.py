"""Optimizers made of others."""

import pickle

import numpy as np
import pytest

import tinybilevel as tb

LAYOUT = tb.Layout(a=2, ab=1)
LAM, GRAD = np.array([1.0, -1.0, 0.5]), np.array([3.0, 0.0, -4.0])


def per_block(**other):
    return tb.PerBlock(LAYOUT, **{"a": tb.Adam(0.1), "ab": tb.SGD(0.2), **other})


def test_each_block_has_its_own_optimizer():
    optimizer, adam = per_block(), tb.Adam(0.1)
    lam, state, expected, s = LAM, optimizer.init(LAM), LAM[:2], adam.init(LAM[:2])
    for tau in (1, 2):
        lam, state = optimizer.update(tau, lam, GRAD, state)
        expected, s = adam.update(tau, expected, GRAD[:2], s)
    np.testing.assert_array_equal(lam[:2], expected)
    np.testing.assert_allclose(lam[2], 0.5 + 0.8 * (1 + 1 / np.sqrt(2)), rtol=1e-15)


def test_blocks_whose_names_begin_alike_keep_their_states_apart():
    optimizer = per_block(ab=tb.Adam(0.2))
    _, state = optimizer.update(1, LAM, GRAD, optimizer.init(LAM))
    np.testing.assert_allclose(state["a/m"], 0.1 * GRAD[:2])
    np.testing.assert_allclose(state["ab/m"], 0.1 * GRAD[2:])


def test_clipping_keeps_the_direction_and_leaves_short_gradients_alone():
    clipped, sgd = tb.Clipped(tb.SGD(1.0), norm=2.0), tb.SGD(1.0)
    np.testing.assert_allclose(clipped.update(1, LAM, GRAD, {})[0], LAM - 0.4 * GRAD, rtol=1e-15)
    short = GRAD / 4
    np.testing.assert_array_equal(
        clipped.update(1, LAM, short, {})[0], sgd.update(1, LAM, short, {})[0]
    )
    np.testing.assert_array_equal(clipped.update(1, LAM, 0 * GRAD, {})[0], LAM)


def test_clipping_is_by_the_norm_of_all_of_lambda():
    optimizer = tb.Clipped(tb.PerBlock(LAYOUT, a=tb.SGD(1.0), ab=tb.SGD(1.0)), norm=1.0)
    moved, _ = optimizer.update(1, np.zeros(3), GRAD, optimizer.init(LAM))
    np.testing.assert_allclose(moved, -GRAD / 5, rtol=1e-15)
    huge = np.full(3, 1e30, np.float32)
    moved, _ = optimizer.update(1, np.zeros(3, np.float32), huge, {})
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, -1 / np.sqrt(3), rtol=1e-6)


def optimizer(updates=8):
    schedule = tb.Cosine(0.1, updates)
    layout = tb.Layout(first=1, second=1)
    return tb.Clipped(tb.PerBlock(layout, first=tb.Adam(schedule), second=tb.SGD(0.01)), norm=0.5)


def test_they_resume_bit_for_bit_and_refuse_another_schedule(tmp_path):
    options = {"problem": tb.problems.toy(T=5), "method": tb.KRMD(K=2)}
    file = {"checkpoint": tmp_path / "run.npz", "resume": True}
    tb.minimize(**options, **file, optimizer=optimizer(), iterations=3)
    again = pickle.loads(pickle.dumps(optimizer()))
    resumed = tb.minimize(**options, **file, optimizer=again, iterations=8)
    whole = tb.minimize(**options, optimizer=optimizer(), iterations=8)
    np.testing.assert_array_equal(resumed.lam, whole.lam)
    with pytest.raises(ValueError, match=r"its optimizer was .*updates=8.*updates=9"):
        tb.minimize(**options, **file, optimizer=optimizer(9), iterations=9)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tb.PerBlock(LAYOUT, a=tb.Adam()), ValueError, r"each of \['a', 'ab'\], got"),
        (lambda: per_block(c=tb.Adam()), ValueError, "got .*'c'"),
        (lambda: per_block(a=0.1), TypeError, "a must be an Optimizer such as Adam"),
        (lambda: tb.PerBlock({"a": 2}), TypeError, "layout must be a Layout"),
        (lambda: tb.Clipped(0.1), TypeError, "optimizer must be an Optimizer"),
        (lambda: tb.Clipped(tb.Adam(), norm=0), ValueError, "norm must be greater than 0"),
        (lambda: per_block().init(np.zeros(4)), ValueError, r"shape \(3,\), got \(4,\)"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
