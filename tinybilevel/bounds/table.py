"""Table 1: the time and space of each method, counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinybilevel.engine.storage import Checkpoint
from tinybilevel.methods.base import Method
from tinybilevel.methods.forward import FMD
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.problem import BilevelProblem

__all__ = ["Table1Row", "table_1"]


@dataclass(frozen=True)
class Table1Row:
    """One method's row of Table 1.

    Attributes
    ----------
    name, time, space : str
        As printed.
    exact : bool
        Whether it returns d_λ f.
    method : Method
        What was counted.
    transitions, products : int
        Evaluations of Ξ, and products with A and B, of one hypergradient.
    vectors : float
        Held at the peak, in vectors of the state's size.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> for row in tb.bounds.table_1(tb.problems.toy(), K=5):
    ...     print(row)
    FMD            O(cNT)  O(MN)   exact     100 transitions     202 products        4 vectors
    RMD            O(cT)   O(MT)   exact     100 transitions     101 products      101 vectors
    Checkpointing  O(cT)   O(M√T)  exact     190 transitions     101 products       22 vectors
    K-RMD          O(cK)   O(MK)             100 transitions       5 products        6 vectors
    """

    name: str
    time: str
    space: str
    exact: bool
    method: Method
    transitions: int
    products: int
    vectors: float

    def __str__(self) -> str:
        return (
            f"{self.name:<14} {self.time:<7} {self.space:<7} {'exact' if self.exact else '':<6}"
            f"{self.transitions:>7} transitions {self.products:>7} products "
            f"{self.vectors:>8g} vectors"
        )


def table_1(problem: BilevelProblem, lam: Any = None, K: int = 1) -> tuple[Table1Row, ...]:
    """Return Table 1 for a problem, from `Method.cost`.

    Parameters
    ----------
    problem : BilevelProblem
        Any.
    lam : array_like (N,), optional
        Only its size matters; by default the problem's `lam0`.
    K : int
        Depth of K-RMD, 0 … T.

    Returns
    -------
    tuple of four Table1Row
        In the paper's order.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> for row in tb.bounds.table_1(tb.problems.toy(), K=5):
    ...     print(row)
    FMD            O(cNT)  O(MN)   exact     100 transitions     202 products        4 vectors
    RMD            O(cT)   O(MT)   exact     100 transitions     101 products      101 vectors
    Checkpointing  O(cT)   O(M√T)  exact     190 transitions     101 products       22 vectors
    K-RMD          O(cK)   O(MK)             100 transitions       5 products        6 vectors
    """
    rows = (
        ("FMD", "O(cNT)", "O(MN)", True, FMD()),
        ("RMD", "O(cT)", "O(MT)", True, RMD()),
        ("Checkpointing", "O(cT)", "O(M√T)", True, RMD(Checkpoint())),
        ("K-RMD", "O(cK)", "O(MK)", False, KRMD(K=K)),
    )
    # K-RMD with K = 1 holds two states, whatever they weigh.
    state = KRMD(K=0).cost(problem, lam).bytes / 2
    return tuple(
        Table1Row(name, time, space, exact, method, c.transitions, c.products, c.bytes / state)
        for name, time, space, exact, method in rows
        for c in [method.cost(problem, lam)]
    )
