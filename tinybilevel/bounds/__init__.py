"""Every statement of the paper's Section 3 as a function that computes both of its sides.

Each takes a problem, a λ and a depth K, measures what the statement asks for, and returns its
left-hand and its right-hand side. Nothing is claimed that was not measured.
"""

from tinybilevel.bounds.assumptions import Assumption
from tinybilevel.bounds.bias import TruncationBound, equation_9, equation_10, proposition_3_1
from tinybilevel.bounds.certificate import Certificate, certificate
from tinybilevel.bounds.convergence import (
    AverageGradient,
    WrongLimit,
    first_update,
    theorem_3_3,
    theorem_3_5,
)
from tinybilevel.bounds.descent import Descent, lemma_3_2, theorem_3_4
from tinybilevel.bounds.series import Rates, SeriesError, proposition_3_6, rates
from tinybilevel.bounds.table import Table1Row, table_1
from tinybilevel.measure.constants import Constants, measure

__all__ = [
    "Assumption",
    "AverageGradient",
    "Certificate",
    "Constants",
    "Descent",
    "Rates",
    "SeriesError",
    "Table1Row",
    "TruncationBound",
    "WrongLimit",
    "certificate",
    "equation_9",
    "equation_10",
    "first_update",
    "lemma_3_2",
    "measure",
    "proposition_3_1",
    "proposition_3_6",
    "rates",
    "table_1",
    "theorem_3_3",
    "theorem_3_4",
    "theorem_3_5",
]
