"""A compiled problem is the problem: equal, frozen, picklable; changed, it is a plain one."""

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.compiled.problem import CompiledProblem

pytest.importorskip("numba")


def test_it_equals_the_problem_it_was_made_of():
    toy = tb.problems.toy()
    fast = tb.compile(toy)
    assert fast == toy
    assert toy == fast
    assert hash(fast) == hash(toy)
    assert fast != replace(toy, T=3)
    assert fast != replace(fast, lam0=[0.0, 1.0])
    assert fast != replace(fast, lam0=None)
    assert replace(fast, lam0=None) == replace(toy, lam0=None)
    assert fast != "toy"


def test_it_is_frozen():
    with pytest.raises(FrozenInstanceError):
        tb.compile(tb.problems.toy()).T = 3


@pytest.mark.parametrize("again", [copy.copy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_is_compiled(again):
    fast = tb.compile(tb.problems.toy())
    other = again(fast)
    assert type(other) is CompiledProblem
    np.testing.assert_array_equal(tb.KRMD(K=3)(other).grad, tb.KRMD(K=3)(fast).grad)


def test_every_change_but_of_the_start_gives_a_plain_one():
    toy = tb.problems.toy()
    fast = tb.compile(toy)
    other = tb.problems.toy(biased=True)
    for changed in (
        replace(fast, T=7),
        replace(fast, upper=other.upper),
        replace(fast, transition=other.transition),
        replace(fast, hyper_map=tb.Exp()),
        fast.starting_at(np.zeros(2)),
        fast.to("numpy"),
    ):
        assert type(changed) is tb.BilevelProblem
        assert type(tb.compile(changed)) is CompiledProblem
    kept = replace(fast, lam0=[0.0, 1.0])
    assert type(kept) is CompiledProblem
    np.testing.assert_array_equal(tb.RMD()(kept).grad, tb.RMD()(fast, [0.0, 1.0]).grad)


def test_nothing_that_a_problem_says_of_lam_is_lost():
    toy = replace(tb.problems.toy(), bounds=(-0.1, 0.95))
    fast = tb.compile(toy)
    assert fast.bounds == (-0.1, 0.95)
    slow = tb.minimize(toy, method=tb.KRMD(K=5), iterations=1)
    np.testing.assert_allclose(tb.minimize(fast, method=tb.KRMD(K=5), iterations=1).lam, slow.lam)
