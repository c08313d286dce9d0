"""The benchmark of minibatches compares the same numbers."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

import tinybilevel as tb
from benchmarks import minibatches

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(minibatches, "T", 6)


def penalties():
    rho = np.linspace(1e-4, 1e-3, 300, dtype=np.float32)
    each = tb.L2Penalty(rho, np.tile(np.arange(300), minibatches.CLASSES))
    return {
        "none": (None, 0.0),
        "one": (tb.L2Penalty(1e-3), 1e-3),
        "each": (each, np.tile(rho, minibatches.CLASSES)),
    }


@pytest.mark.parametrize("name", ["none", "one", "each", "learned"])
def test_a_text_is_compiled_with_every_penalty(name):
    X, y = minibatches.text(60, 300, 5)
    penalty = minibatches.LEARNED if name == "learned" else penalties()[name][0]
    plain = minibatches.problem(X, y, 4, penalty)
    fast = tb.compile(plain)
    assert type(fast.loop.kernel).__name__ == "TouchedColumns"
    found, expected = (tb.KRMD(K=3)(p).grad for p in (fast, plain))
    assert tb.testing.relative_error(found, expected) < 1e-4


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["none", "one", "each"])
def test_jax_computes_the_same(name):
    pytest.importorskip("jax")
    X, y = minibatches.text(60, 300, 5)
    penalty, rho = penalties()[name]
    plain = minibatches.problem(X, y, 4, penalty)
    found = minibatches.jax_form(plain, rho, 3)()
    assert tb.testing.relative_error(found, tb.KRMD(K=3)(plain).grad) < 1e-4
