import numpy as np

import tinybilevel as tb
from tinybilevel.outer.run import Run


def test_half_an_update_is_not_part_of_the_history():
    """An interrupt may fall between the entries of the history and the update they belong to."""
    problem, run = tb.problems.toy(), Run(np.ones(2), tb.Adam())
    r = tb.KRMD(K=2)(problem)
    run.update(r.value, r.grad, 1.0, 0.5, lambda lam: lam)
    run.history["value"].append(7.0)
    run.history["grad_norm"].append(7.0)
    assert [len(entries) for entries in run.arrays().values()] == [1, 1, 1]
    run.update(r.value, r.grad, 2.0, 0.7, lambda lam: lam)
    np.testing.assert_array_equal(run.arrays()["value"], [r.value, r.value])
    np.testing.assert_array_equal(run.arrays()["grad_norm"], [1, 2])
