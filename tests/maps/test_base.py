from dataclasses import replace

import numpy as np
import pytest

import tinybilevel as tb


@pytest.mark.parametrize("method", ["__call__", "vjp", "jvp"])
def test_a_subclass_that_does_not_define_a_method_says_so(method):
    arguments = [np.ones(1)] * (1 if method == "__call__" else 2)
    with pytest.raises(TypeError, match="HyperMap must define __call__, vjp and jvp"):
        getattr(tb.HyperMap(), method)(*arguments)


def test_a_map_of_the_users_cannot_write_into_lam():
    class Doubled(tb.HyperMap):
        def __call__(self, lam):
            lam *= 2
            return lam

        def vjp(self, lam, h):
            return 2 * h

    lam, problem = np.array([0.3, 0.4]), replace(tb.problems.toy(), hyper_map=Doubled())
    with pytest.raises(ValueError, match=r"^Doubled.__call__ wrote into an array that it may only"):
        tb.RMD()(problem, lam)
    np.testing.assert_array_equal(lam, [0.3, 0.4])
