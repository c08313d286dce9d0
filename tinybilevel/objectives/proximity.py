"""A pull towards learned centres, with learned strengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinybilevel.arrays.backend import Array, block_sums
from tinybilevel.arrays.checks import as_count
from tinybilevel.objectives.base import Objective

__all__ = ["ProximityPenalty"]


class ProximityPenalty(Objective):
    """g(w, (c, ρ)) = Σ_j ρ_j ‖w_j − c_j‖² over consecutive blocks w_j of w.

    The penalty of the paper's Section 4.3, with the paper's convention of no ½. λ holds all of c,
    (M,), then ρ, one number for each block. With r = w − c and ρ spread over the entries of w:
    ∇_w g = 2ρ∘r; ∇²_ww g v = 2ρ∘v; ∇²_λw g v = (−2ρ∘v, 2 Σ_block r∘v).

    Parameters
    ----------
    sizes : sequence of int
        Lengths of the blocks; their sum is M.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.ProximityPenalty([1, 2])
    >>> c, rho = np.zeros(3), np.array([1.0, 10.0])
    >>> g.value(np.array([1.0, 1.0, 2.0]), np.concatenate([c, rho]))
    51.0
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(as_count("sizes", size, minimum=1) for size in sizes)
        if not self.sizes:
            raise ValueError("sizes must not be empty")
        self.n_lam = sum(self.sizes) + len(self.sizes)
        self._starts = np.cumsum([0, *self.sizes[:-1]])
        self._groups = np.repeat(np.arange(len(self.sizes)), self.sizes)

    def value(self, w: Array, lam: Array) -> float:
        r, rho = self._parts(w, lam)
        return float((rho * r**2).sum())

    def grad(self, w: Array, lam: Array) -> Array:
        r, rho = self._parts(w, lam)
        return 2 * rho * r

    def grad_lam(self, w: Array, lam: Array) -> Array:
        r, rho = self._parts(w, lam)
        return np.concatenate([-2 * rho * r, self._per_block(r**2)])

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        r, rho = self._parts(w, lam)
        Hv = 2 * rho * v
        return Hv, np.concatenate([-Hv, self._per_block(2 * r * v)])

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        r, rho = self._parts(w, lam)
        dr, drho = self._parts(dw, dlam)
        return 2 * rho * dr + 2 * drho * r

    def _parts(self, w: Array, lam: Array) -> tuple[Array, Array]:
        """Return w − c, and ρ for each entry of w."""
        if lam.shape != (self.n_lam,) or w.shape != (sum(self.sizes),):
            raise ValueError(
                f"w must hold {sum(self.sizes)} numbers and lam {self.n_lam}, got {w.shape} and "
                f"{lam.shape}"
            )
        return w - lam[: w.size], np.repeat(lam[w.size :], self.sizes)

    def _per_block(self, x: Array) -> Array:
        return block_sums(self._groups, self._starts, x).astype(x.dtype, copy=False)
