"""Outer optimizers: frozen values that map (state, gradient) to the next λ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.outer.schedules import Rate, as_rate, check_positive, check_real, rate

__all__ = ["SGD", "Adam", "Optimizer"]

State = dict[str, Array]


class Optimizer:
    """Base of the outer optimizers; the state is a dict of arrays, so that it can be saved.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> @dataclass(frozen=True)
    ... class Signs(tb.Optimizer):
    ...     lr: float
    ...
    ...     def init(self, lam):
    ...         return {}
    ...
    ...     def update(self, tau, lam, grad, state):
    ...         return lam - self.lr * np.sign(grad), state
    >>> r = tb.minimize(tb.problems.toy(), method=tb.RMD(), optimizer=Signs(0.1), iterations=5)
    >>> r.lam.round(3)
    array([0.5, 0.5])
    """

    def init(self, lam: Array) -> State:
        """Return the state before the first update."""
        raise TypeError(f"{type(self).__name__} must define init and update")

    def update(self, tau: int, lam: Array, grad: Array, state: State) -> tuple[Array, State]:
        """Return λ_{τ+1} and the next state, from λ_τ and its hypergradient; τ = 1, 2, …."""
        raise TypeError(f"{type(self).__name__} must define init and update")


@dataclass(frozen=True)
class SGD(Optimizer):
    """λ_{τ+1} = λ_τ − η_τ h with η_τ = η_0 τ^−decay; the paper's η_0/√τ is ``decay=0.5``.

    Parameters
    ----------
    lr : float or callable
        η_0, greater than 0; or a function τ → η_τ such as `Cosine`.
    decay : float
        Exponent, at least 0; 0 keeps the rate. A function `lr` is the whole rate: it goes with none
        but the default, which then does nothing, and 0.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.SGD(0.1).update(4, np.array([1.0]), np.array([2.0]), {})[0]
    array([0.9])
    """

    lr: Rate
    decay: float = 0.5

    def __post_init__(self) -> None:
        as_rate("lr", self.lr)
        check_real("decay", self.decay)
        if not 0 <= self.decay < np.inf:
            raise ValueError(f"decay must be at least 0 and finite, got {self.decay}")
        if callable(self.lr) and self.decay not in (0, 0.5):
            raise ValueError(f"decay goes with a number lr, and lr is a function; got {self.decay}")

    def init(self, lam: Array) -> State:
        return {}

    def update(self, tau: int, lam: Array, grad: Array, state: State) -> tuple[Array, State]:
        eta = rate(self.lr, tau) if callable(self.lr) else self.lr / tau**self.decay
        return lam - eta * grad, state


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, Algorithm 1).

    Parameters
    ----------
    lr : float or callable
        Step size, greater than 0; or a function τ → step size such as `Cosine`.
    beta1, beta2 : float
        Decay of the two moments, in [0, 1).
    eps : float
        Added to the root of the second moment, greater than 0.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> r = tb.minimize(tb.problems.toy(), method=tb.RMD(), optimizer=tb.Adam(0.1), iterations=5)
    >>> bool(r.value < r.history["value"][0])
    True
    """

    lr: Rate = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        as_rate("lr", self.lr)
        check_positive("eps", self.eps)
        for name in ("beta1", "beta2"):
            check_real(name, getattr(self, name))
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def init(self, lam: Array) -> State:
        return {"m": np.zeros_like(lam), "s": np.zeros_like(lam)}

    def update(self, tau: int, lam: Array, grad: Array, state: State) -> tuple[Array, State]:
        m = self.beta1 * state["m"] + (1 - self.beta1) * grad
        s = self.beta2 * state["s"] + (1 - self.beta2) * grad**2
        root = np.sqrt(s / (1 - self.beta2**tau))
        step = rate(self.lr, tau) * m / (1 - self.beta1**tau) / (root + self.eps)
        return lam - step, {"m": m, "s": s}
