import numpy as np
import pytest

import tinybilevel as tb


def test_compose_applies_in_the_order_given():
    phi = tb.Compose(tb.Affine(2.0), tb.Exp(), tb.Affine(1.0, 3.0))
    np.testing.assert_allclose(phi(np.array([0.5])), np.exp(1.0) + 3, rtol=1e-15)


def test_an_overflow_is_traced_to_the_map_that_made_it():
    phi = tb.Compose(tb.Affine(2.0), tb.Exp(), tb.Sigmoid())  # the last hides it
    assert phi.blame(np.array([1.0, 500.0])) == "Exp makes inf of 1000, entry 1"


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        ((), ValueError, "Compose needs at least one map"),
        ((np.exp,), TypeError, "Compose takes a HyperMap such as Exp"),
        ((tb.Exp,), TypeError, "Compose takes a HyperMap such as Exp"),
    ],
)
def test_refused(maps, error, message):
    with pytest.raises(error, match=message):
        tb.Compose(*maps)
