import numpy as np
import pytest

import tinybilevel as tb


def test_blocks_map_each_block_and_pass_the_others():
    layout = tb.Layout(a=2, b=1, layout=1)
    lam = np.array([0.1, 0.2, 0.3, 0.4])
    theta = tb.Blocks(layout, b=tb.Exp(), layout=tb.Affine(2.0))(lam)
    np.testing.assert_array_equal(theta, [0.1, 0.2, np.exp(0.3), 0.8])


def test_layout():
    layout = tb.Layout(a=2, b=1)
    assert list(layout) == ["a", "b"]
    lam = layout.pack(b=[3.0], a=[1.0, 2.0])
    np.testing.assert_array_equal(lam, [1, 2, 3])
    np.testing.assert_array_equal(layout.unpack(lam)["a"], [1, 2])
    assert layout.pack(a=np.ones(2, np.float32), b=np.float32(1)).dtype == np.float32


a = tb.Layout(a=2, b=1)


class Short(tb.HyperMap):
    def __call__(self, lam):
        return lam[:1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tb.Blocks(a, a=tb.Exp), TypeError, "a takes a HyperMap such as Exp"),
        (lambda: tb.Blocks(a, c=tb.Exp()), ValueError, r"unknown blocks \['c'\]; the layout has"),
        (
            lambda: tb.Blocks(a, a=Short())(np.ones(3)),
            ValueError,
            r"what the map of 'a' returns must have shape \(2,\), got \(1,\)",
        ),
        (
            lambda: tb.Blocks(a)(np.ones(2)),
            ValueError,
            r"b=1\) takes a vector of shape \(3,\), got",
        ),
        (lambda: a["c"], KeyError, r"no block named 'c'; the layout has \['a', 'b'\]"),
        (lambda: tb.Layout(), ValueError, "Layout needs at least one block"),
        (lambda: tb.Layout(a=0), ValueError, "a must be at least 1, got 0"),
        (lambda: tb.Layout(a=1.5), TypeError, "a must be an integer, got 1.5"),
        (lambda: a.pack(a=np.ones(2)), ValueError, r"expected the blocks \['a', 'b'\]"),
        (lambda: a.pack(a=np.ones(3), b=1.0), ValueError, "a must have 2 entries, got 3"),
        (lambda: a.pack(a=np.ones(2), b=1j), TypeError, "b must be float32 or float64, got dtype"),
        (lambda: a.unpack(np.ones((3, 1))), ValueError, r"vector of shape \(3,\), got \(3, 1\)"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_overflow_is_traced_to_its_block():
    exp = tb.Compose(tb.Affine(2.0), tb.Exp())
    for first in (tb.Exp(), tb.Affine(np.ones((4, 2)))):  # which may change the size of its block
        phi = tb.Blocks(tb.Layout(a=2, b=3), a=first, b=exp)
        found = phi.blame(np.array([0.0, 1.0, 0.0, 400.0, 0.0]))
        assert found == "block 'b': Exp makes inf of 800, entry 1"


def test_many_blocks_have_a_short_repr():
    layout = tb.Layout(**{f"block{i}": 1 for i in range(1000)})
    phi = tb.Blocks(layout, **{f"block{i}": tb.Exp() for i in range(500)})
    assert repr(layout).endswith("block7=1, … 992 more)")
    assert repr(phi).endswith("block7=Exp(), … 492 more)")
    assert len(repr(phi)) < 300
    assert repr(tb.Blocks(a, b=tb.Exp())) == "Blocks(Layout(a=2, b=1), b=Exp())"
