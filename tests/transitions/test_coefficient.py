import cases
import numpy as np
import pytest

import tinybilevel as tb

LAM = np.array([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("block", "sizes", "expected"),
    [
        (slice(1, 2), None, [2]),
        (slice(-1, None), None, [4]),
        (slice(3, None), None, [4]),
        (slice(None, 2), [1, 2], [1, 2, 2]),
        (slice(-2, None), [2, 1], [3, 3, 4]),
        (slice(0, 4, 2), [1, 1], [1, 3]),
        (slice(2, 3), [3], [3, 3, 3]),
    ],
)
def test_learned_reads_its_block(block, sizes, expected):
    c = tb.Learned(block, sizes)
    np.testing.assert_array_equal(c(0, LAM), expected)
    np.testing.assert_array_equal(c.push(LAM), expected)
    u = cases.normal(0, len(expected))
    pulled = c.pull(u, LAM)
    np.testing.assert_allclose(pulled @ LAM, u @ c.push(LAM), rtol=1e-14)
    assert not pulled[np.setdiff1d(range(4), np.arange(4)[block])].any()


def test_pull_promotes():
    c, h = tb.Learned(slice(0, 1)), cases.frozen(np.zeros(2), np.float32)
    pulled = c.pull(np.array([1 / 3]), h)
    assert pulled.dtype == np.float64
    assert pulled[0] == 1 / 3


@pytest.mark.parametrize(
    ("block", "sizes", "error", "message"),
    [
        (slice(0, 2), None, ValueError, "block must have 1 entries, .* got slice"),
        (slice(1, 1), None, ValueError, "block must have 1 entries"),
        (slice(3, 2), None, ValueError, "block must have 1 entries"),
        (slice(0, 2), [1, 2, 3], ValueError, "block must have 3 entries, .* one for each of sizes"),
        (slice(0, 2), [1, 0], ValueError, "sizes must be at least 1, got 0"),
        (slice(0, 2), [1, 2.0], TypeError, "sizes must be an integer, got 2.0"),
        (3, None, TypeError, r"block must be a slice, as layout\['name'\] gives, got 3"),
        ([0, 1], None, TypeError, r"block must be a slice, .* got \[0, 1\]"),
    ],
)
def test_refused_when_built(block, sizes, error, message):
    with pytest.raises(error, match=message):
        tb.Learned(block, sizes)


@pytest.mark.parametrize(
    ("block", "sizes"), [(slice(4, 5), None), (slice(None), None), (slice(3, 5), [1, 1])]
)
def test_a_block_that_does_not_fit_lam_is_refused(block, sizes):
    for call in (lambda c: c(0, LAM), lambda c: c.push(LAM)):
        with pytest.raises(ValueError, match=r"of lam must have . entries, got \d of 4"):
            call(tb.Learned(block, sizes))


@pytest.mark.parametrize("sizes", [[1], [2], [1, 1], [4], [3, 3]])
def test_sizes_that_do_not_add_up_to_w_are_refused(sizes):
    layout = tb.Layout(center=3, steps=len(sizes))
    descent = tb.GradientDescent(
        tb.Quadratic(np.ones(3)).on(layout["center"]),
        tb.Learned(layout["steps"], sizes),
        np.ones(3),
    )
    w, lam = np.ones(3), np.full(layout.size, 0.1)
    with pytest.raises(ValueError, match="shape"):
        descent.vjp(0, w, lam, w)
