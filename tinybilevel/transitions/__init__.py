"""Transitions: the lower-level algorithm and the products with its Jacobians, one per file."""

from tinybilevel.transitions.adam import AdamTransition
from tinybilevel.transitions.base import Transition
from tinybilevel.transitions.coefficient import Learned, PerEntry, PerStep
from tinybilevel.transitions.gradient_descent import GradientDescent
from tinybilevel.transitions.minibatches import FreshMinibatches, minibatches
from tinybilevel.transitions.momentum import HeavyBall, Nesterov
from tinybilevel.transitions.proximal import ProximalGradient

__all__ = [
    "AdamTransition",
    "FreshMinibatches",
    "GradientDescent",
    "HeavyBall",
    "Learned",
    "Nesterov",
    "PerEntry",
    "PerStep",
    "ProximalGradient",
    "Transition",
    "minibatches",
]
