import pytest

import tinybilevel as tb
from tinybilevel import plotting

pytest.importorskip("matplotlib", reason="pictures need it")


TOY = tb.problems.toy()


def test_memory_and_time_are_those_of_the_costs():
    costs = {"ring": tb.RMD().cost(TOY), "√T": tb.RMD(tb.Checkpoint()).cost(TOY)}
    ax = plotting.memory_time(costs)
    points = [line.get_xydata()[0].tolist() for line in ax.lines]
    assert points == [[c.transitions + c.products, c.bytes] for c in costs.values()]
    assert plotting.memory_time({"a": (0.5, 10.0)}).get_xlabel() == "seconds"
    with pytest.raises(TypeError, match="costs must be counted, Cost, or measured"):
        plotting.memory_time({"a": (1.0, 2.0), **costs})
    with pytest.raises(TypeError, match="costs must be a mapping of names"):
        plotting.memory_time({})
