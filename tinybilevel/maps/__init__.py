"""Hyperparameter maps θ = Φ(λ), evaluated once per hypergradient, and named blocks of λ."""

from tinybilevel.maps.affine import Affine
from tinybilevel.maps.base import HyperMap, Identity
from tinybilevel.maps.compose import Compose
from tinybilevel.maps.elementwise import Exp, Sigmoid, Softplus
from tinybilevel.maps.layout import Blocks, Layout
from tinybilevel.maps.symmetric import Symmetric

__all__ = [
    "Affine",
    "Blocks",
    "Compose",
    "Exp",
    "HyperMap",
    "Identity",
    "Layout",
    "Sigmoid",
    "Softplus",
    "Symmetric",
]
