"""Kernels on the same data share them; nobody sees what has been written since."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from scipy.sparse import csr_array

pytest.importorskip("numba")

import tinybilevel as tb
from tinybilevel.arrays.checks import as_examples
from tinybilevel.kernels import laid as module
from tinybilevel.kernels.softmax import Softmax

Y = np.arange(40) % 3


def frozen(X):
    X.flags.writeable = False
    return X


def data(sparse=False, n=40):
    X = np.random.default_rng(0).random((n, 6))
    return as_examples("X", csr_array(X * (X > 0.7))) if sparse else frozen(X)


@pytest.mark.parametrize("options", [{"across": True}, {"sparse": False, "across": False}, {}])
def test_the_same_data_are_laid_out_once(options):
    X = data()
    one, other = Softmax(X, Y, 3, **options), Softmax(X, Y[::-1], 3, **options)
    assert one.X[0] is other.X[0]
    assert Softmax(X[:], Y, 3, **options).X[0] is one.X[0]
    assert Softmax(frozen(X.copy()), Y, 3, **options).X[0] is not one.X[0]
    assert Softmax(X[:30], Y[:30], 3, **options).X[0] is not one.X[0]


def test_so_are_sparse_data_whichever_array_has_them():
    X = data(sparse=True)
    one = Softmax(X, Y, 3)
    assert Softmax(csr_array(X), Y[::-1], 3).X[0] is one.X[0]
    assert Softmax(data(sparse=True), Y, 3).X[0] is not one.X[0]


def test_each_way_to_lie_is_another():
    X = data()
    found = [Softmax(X, Y, 3, across=True), Softmax(X, Y, 3, across=False, sparse=False)]
    found.append(Softmax(X, Y, 3, across=False, sparse=True))
    assert len({id(kernel.X[0]) for kernel in found}) == 3


@pytest.mark.parametrize("view", [False, True])
def test_what_may_be_written_into_is_laid_out_anew(view):
    X = data().copy()
    given = frozen(X[:]) if view else X
    before = Softmax(given, Y, 3)
    X += 1
    after = Softmax(given, Y, 3)
    assert after.X[0] is not before.X[0]
    assert not np.array_equal(after.X[0], before.X[0])


def test_nothing_is_kept_for_nobody():
    X = data()
    kernels = [Softmax(X, Y, 3) for _ in range(3)]
    bound, kept = kernels[0].bound(), weakref.ref(kernels[0].X[0])
    del kernels
    gc.collect()
    assert kept() is bound.X[0]
    del bound
    gc.collect()
    assert kept() is None
    assert not any(of.of is X for of in module._known.values())


def test_copies_take_their_data_along_once():
    X = frozen(np.random.default_rng(0).random((400, 50)))
    kernel = Softmax(X, np.arange(400) % 3, 3)
    assert len(pickle.dumps(kernel)) < kernel.X[0].nbytes + 20_000
    W, weights = np.ones((3, 50)), np.ones(400)
    for other in (pickle.loads(pickle.dumps(kernel)), copy.deepcopy(kernel)):
        assert other.X[0] is not kernel.X[0]
        np.testing.assert_array_equal(other.grad(W, weights), kernel.grad(W, weights))


@pytest.mark.parametrize("writable", [False, True])
def test_compiled_problems_of_many_seeds_have_one_X(writable):
    X, y = np.random.default_rng(0).random((800, 5)), np.arange(800) % 3
    X.flags.writeable = writable
    fast = [
        tb.compile(tb.problems.hypercleaning(X, np.roll(y, k), X[:9], y[:9], T=3, step_size=0.1))
        for k in range(3)
    ]
    given = {id(problem.transition.objective.terms[0][1].X) for problem in fast}
    read = {id(problem.loop.kernel.lower.X[0]) for problem in fast}
    assert len(given) == len(read) == (3 if writable else 1)
