"""Objectives: value, gradient and the products of the gradient map, one objective per file."""

from tinybilevel.objectives.base import Objective, OnBlock, Sum
from tinybilevel.objectives.least_squares import LeastSquares
from tinybilevel.objectives.linear import LinearLoss
from tinybilevel.objectives.logistic import LogisticRegression
from tinybilevel.objectives.pairwise import PairwisePenalty
from tinybilevel.objectives.penalty import L2Penalty
from tinybilevel.objectives.proximity import ProximityPenalty
from tinybilevel.objectives.quadratic import Quadratic
from tinybilevel.objectives.softmax import SoftmaxRegression

__all__ = [
    "L2Penalty",
    "LeastSquares",
    "LinearLoss",
    "LogisticRegression",
    "Objective",
    "OnBlock",
    "PairwisePenalty",
    "ProximityPenalty",
    "Quadratic",
    "SoftmaxRegression",
    "Sum",
]
