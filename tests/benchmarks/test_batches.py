"""A batch is timed against the same hypergradients one after the other."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

pytest.importorskip("numba")

import tinybilevel as tb
from benchmarks import batches
from benchmarks.cases import Case, numbers

CASE = Case("grid", 3, T=5, dtype="float32", rows=300, features=20, classes=3)


def test_a_row_has_both_ratios():
    assert re.fullmatch(r"\| 300 × 20 × 3 \| \d+\.\d\d \| \d+\.\d\d \|", batches.row(CASE, 1))


def test_both_sides_find_the_same():
    problems, lam = batches.seeds(CASE), numbers(CASE).lam
    _, grads = tb.KRMD(K=3).batch(problems, np.stack([lam] * batches.MANY))
    alone = [tb.KRMD(K=3)(problem, lam).grad for problem in problems]
    assert np.array_equal(grads, alone)
    assert len({grad.tobytes() for grad in grads}) == batches.MANY
