"""How far an implicit gradient may be off: a-posteriori, from constants of the two levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.maps import HyperMap
from tinybilevel.measure.convexity import strong_convexity
from tinybilevel.measure.spectra import singular_ends

__all__ = ["Smoothness"]

#: How likely ‖∇²_λw g‖, found by an iteration where it is large, may be too small.
_DELTA = 1e-3


@dataclass(frozen=True, kw_only=True)
class Smoothness:
    """What `ImplicitCG` needs to bound its error, after Ehrhardt and Roberts (2023).

    Let w* be the minimum of g(·, λ), and e = ‖∇_w g(w_T)‖ / α, so that ‖w_T − w*‖ ≤ e. With the
    residual r = Hq − ∇_w f of the linear system at w_T, derived in docs/statements.md,

        ‖grad − d_λ f(w*(λ), λ)‖ ≤ (L_λ + L_M ‖q‖) e + (‖M‖ + L_M e) (‖r‖ + (L_H ‖q‖ + L_f) e) / α.

    ∇_w g, q and r are what the call has; ‖M‖, M = ∇²_λw g, is measured at w_T. The constants below
    cannot be measured at a point: they are asked for, and the bound is worth what they are worth.
    Each is for one λ, on a ball around w_T that holds w*, or everywhere.

    Parameters
    ----------
    hessian, mixed : float
        L_H, L_M: Lipschitz constants of w ↦ ∇²_ww g and of w ↦ ∇²_λw g, spectral. 0 for a
        quadratic g. By λ: with a `hyper_map`, of the derivative by λ and not by θ.
    upper, upper_lam : float
        L_f, L_λ: Lipschitz constants of w ↦ ∇_w f and of w ↦ ∇_λ f; the latter is 0 where f does
        not depend on λ directly.
    alpha : float, optional
        α > 0: g is α-strongly convex. By default what is known in closed form of the objective
        (an `L2Penalty` on something convex, a diagonal `Quadratic`).
    mixed_norm : float, optional
        ‖M‖ at w_T, by λ; by default measured there, which takes `grad_jvp`: exactly where M or N is
        at most 100, with probability 0.999 above.

    Raises
    ------
    ValueError
        If a constant is out of range.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> known = tb.Smoothness(hessian=0, mixed=0, upper=22, upper_lam=0)  # |(2w + 10 sin 2w)'| ≤ 22
    >>> r = tb.ImplicitCG(constants=known)(tb.problems.toy(T=300))
    >>> f"{r.bound:.0e}"
    '9e-06'
    """

    hessian: float
    mixed: float
    upper: float
    upper_lam: float
    alpha: float | None = None
    mixed_norm: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is None and name in ("alpha", "mixed_norm"):
                continue
            if not 0 <= value < np.inf or (name == "alpha" and value == 0):
                least = "greater than" if name == "alpha" else "at least"
                raise ValueError(f"{name} must be finite and {least} 0, got {value}")

    def convexity(self, g: Any, theta: Array) -> float:
        """Return α: as given, or as known of g in closed form."""
        alpha = strong_convexity(g, theta) if self.alpha is None else self.alpha
        if alpha is None or alpha <= 0:
            raise ValueError(
                f"alpha must be given: nothing above 0 is known of {type(g).__name__} in closed "
                f"form, got {alpha}"
            )
        return float(alpha)

    def error(
        self, g: Any, hyper_map: HyperMap, lam: Array, theta: Array, w: Array, q: Array, r: Array
    ) -> float:
        """Return the bound for q with residual r = ∇²_ww g q − ∇_w f, both at w."""
        alpha, size = self.convexity(g, theta), float(np.linalg.norm(q))
        e = float(np.linalg.norm(g.grad(w, theta))) / alpha
        M = self.mixed_norm
        if M is None:
            M = _mixed_norm(g, hyper_map, lam, theta, w)
        off = (float(np.linalg.norm(r)) + (self.hessian * size + self.upper) * e) / alpha
        return (self.upper_lam + self.mixed * size) * e + (M + self.mixed * e) * off


def _mixed_norm(g: Any, hyper_map: HyperMap, lam: Array, theta: Array, w: Array) -> float:
    """Return ‖∇²_λw g‖ at w, by λ, or a bound on it."""
    if g.lacking("grad_jvp"):
        raise TypeError(
            f"mixed_norm must be given: measuring it takes grad_jvp, which {type(g).__name__} lacks"
        )
    none = np.zeros_like(w)
    found = singular_ends(
        lambda v: hyper_map.vjp(lam, g.grad_vjp(w, theta, v)[1]),
        lambda dlam: g.grad_jvp(w, theta, none, hyper_map.jvp(lam, dlam)),
        (lam.size, w.size),
        delta=_DELTA,
        low=False,
    ).high
    return found.value + found.error
