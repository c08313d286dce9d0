"""What a checker of derivatives found: the numbers, what is wrong with them, what it left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.testing.checks import dot_error, require, taylor_slope

__all__ = ["Findings"]


class Findings(dict[str, float]):
    """The numbers that a checker measured, by name.

    Attributes
    ----------
    unchecked : tuple of str
        What could not be checked, and why: the products that are not written out, and what needs
        them. Empty where all of it was.
    """

    def __init__(self, name: str, tol: float = 1e-12) -> None:
        super().__init__()
        self.unchecked: tuple[str, ...] = ()
        self._name, self._tol, self._wrong = name, tol, dict[str, str]()

    def __repr__(self) -> str:
        left = f"; not checked: {'; '.join(self.unchecked)}" if self.unchecked else ""
        return f"<{self._name}: {dict(self)}{left}>"

    def dot(
        self, key: str, names: tuple[str, str], Jx: Array, y: Array, x: Array, JTy: Array
    ) -> None:
        """Measure a dot test between two products; `names` are what messages call them."""
        forward, adjoint = names
        self[key] = dot_error(Jx, y, x, JTy)
        if not self[key] <= self._tol:
            a, b = float(Jx @ y), float(x @ JTy)
            self._wrong[key] = (
                f"along {forward} {a:.6g}, back along {adjoint} {b:.6g}: {_why(a, b)}"
            )

    def slope(
        self,
        key: str,
        order: int,
        along: Callable[[float], Any],
        product: Any,
        *,
        scale: float,
        what: str,
        by: str,
        curvature: float = 0.0,
    ) -> None:
        """Measure a Taylor slope of F(x + h d), `along`, against its derivative, `product`."""
        at = along(0.0)
        self[key] = taylor_slope(
            lambda h: along(h) - at - h * product - h * h / 2 * curvature, scale
        )
        if self[key] >= order - 0.1:
            return
        if order == 3:
            h = 1e-3
            seen, said = (along(h) - 2 * at + along(-h)) / h**2, curvature
        else:
            h = 1e-6
            seen, said = (along(h) - along(-h)) / (2 * h), product
        # Of vectors the part along what is seen: of the right length, and 1 where they agree.
        length = float(np.linalg.norm(seen))
        a, b = (float(np.sum(x * seen)) / length if length else 0.0 for x in (seen, said))
        if not length:
            b = float(np.linalg.norm(said))
        near = "; or the point is too wild for a slope: try one nearer 0, or another seed"
        self._wrong[key] = (
            f"differences of {what} show {a:.6g}, {by} says {b:.6g}: {_why(b, a)}"
            f"{near if self[key] > order - 0.5 else ''}"
        )

    def require_dots(self) -> None:
        """Raise an AssertionError if a dot test failed so far."""
        bad = {key: self[key] for key in self._wrong}
        self._require(bad, f"adjoint and forward product disagree by {bad}, tolerance {self._tol}")

    def require_slopes(self, order: int) -> None:
        """Raise an AssertionError if a slope was too low."""
        bad = {key: round(self[key], 3) for key in self._wrong}
        self._require(bad, f"Taylor slopes {bad}, expected {order}")

    def _require(self, bad: dict[str, float], message: str) -> None:
        lines = [f"{self._name}: {message}", *(f"  {k}: {text}" for k, text in self._wrong.items())]
        require(not bad, "\n".join(lines))


def _why(a: float, b: float) -> str:
    """Guess what is wrong from two numbers that should be equal."""
    if not (np.isfinite(a) and np.isfinite(b)):
        return "not finite; a division by 0, or a log of it?"
    if a == 0 or b == 0:
        return "one is 0; a term left out, or the wrong block of λ or of the state?"
    for factor, cause in ((-1, "a sign"), (2, "a factor of 2"), (0.5, "a factor of ½")):
        if abs(a / b - factor) < 1e-4:
            return f"{cause} is wrong in one of them"
    return "a term, an index or a transpose is wrong in one of them"
