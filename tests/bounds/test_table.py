import numpy as np
import pytest
import theory_cases

import tinybilevel as tb
from tinybilevel.bounds import table_1


def test_counts_are_those_of_the_methods():
    problem = theory_cases.quadratic(M=5, N=3, T=40)
    for row in table_1(problem, K=4):
        ran = row.method(problem).cost
        assert (row.transitions, row.products) == (ran.transitions, ran.products)
        assert row.vectors * 5 * 8 == ran.bytes
        exact = np.allclose(row.method(problem).grad, tb.RMD()(problem).grad, rtol=1e-12)
        assert exact == row.exact


@pytest.mark.parametrize(
    ("name", "size", "products", "vectors"),
    [
        ("FMD", "T", 1, 0),
        ("FMD", "N", 1, 1),
        ("RMD", "T", 1, 1),
        ("RMD", "N", 0, 0),
        ("Checkpointing", "T", 1, 0.5),
        ("K-RMD", "T", 0, 0),
        ("K-RMD", "K", 1, 1),
    ],
)
def test_time_and_space_grow_as_printed(name, size, products, vectors):
    """The exponents of Table 1, from sizes large enough that constants do not show."""

    def row(factor):
        sizes = dict(N=3, T=4000, K=500)
        sizes[size] *= factor
        problem = theory_cases.quadratic(M=2, N=sizes["N"], T=sizes["T"])
        return next(r for r in table_1(problem, K=sizes["K"]) if r.name == name)

    small, large = (row(8), row(64)) if size == "N" else (row(1), row(8))
    assert np.log(large.products / small.products) / np.log(8) == pytest.approx(products, abs=0.05)
    assert np.log(large.vectors / small.vectors) / np.log(8) == pytest.approx(vectors, abs=0.06)
    assert small.transitions <= 2 * 4000 * 8
