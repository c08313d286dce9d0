import numpy as np
import pytest

import tinybilevel as tb


@pytest.mark.parametrize("method", ["__call__", "vjp", "jvp"])
def test_a_subclass_that_does_not_define_a_method_says_so(method):
    arguments = [np.ones(1)] * (1 if method == "__call__" else 2)
    with pytest.raises(TypeError, match="HyperMap must define __call__, vjp and jvp"):
        getattr(tb.HyperMap(), method)(*arguments)
