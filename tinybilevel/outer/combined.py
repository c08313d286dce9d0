"""Optimizers made of others: one for each block of λ, and one that sees clipped gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.maps import Layout
from tinybilevel.outer.optimizers import Optimizer, State
from tinybilevel.outer.schedules import check_positive

__all__ = ["Clipped", "PerBlock"]


class PerBlock(Optimizer):
    """An optimizer of its own for each block of λ.

    Parameters
    ----------
    layout : Layout
        The blocks of λ.
    **optimizers : Optimizer
        One for each block, by name.

    Raises
    ------
    TypeError, ValueError
        If something is no optimizer, or a block has none.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> layout = tb.Layout(weights=2, l2=1)
    >>> optimizer = tb.PerBlock(layout, weights=tb.SGD(0.1), l2=tb.SGD(0.01))
    >>> optimizer.update(1, np.zeros(3), np.ones(3), optimizer.init(np.zeros(3)))[0]
    array([-0.1 , -0.1 , -0.01])
    """

    def __init__(self, layout: Layout, /, **optimizers: Optimizer) -> None:
        if not isinstance(layout, Layout):
            raise TypeError(f"layout must be a Layout, got {layout!r}")
        if set(optimizers) != set(layout):
            raise ValueError(
                f"expected an optimizer for each of {list(layout)}, got {list(optimizers)}"
            )
        for name, each in optimizers.items():
            if not isinstance(each, Optimizer):
                raise TypeError(f"{name} must be an Optimizer such as Adam(0.1), got {each!r}")
        self.optimizers = {name: optimizers[name] for name in layout}
        self.blocks = {name: layout[name] for name in layout}
        self._layout = layout

    def init(self, lam: Array) -> State:
        parts, state = self._layout.unpack(lam), State()
        for name, each in self.optimizers.items():
            state |= {_key(name, key): part for key, part in each.init(parts[name]).items()}
        return state

    def update(self, tau: int, lam: Array, grad: Array, state: State) -> tuple[Array, State]:
        x, g = self._layout.unpack(lam), self._layout.unpack(grad)
        moved, after = [], State()
        for name, each in self.optimizers.items():
            prefix = _key(name, "")
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            part, own = each.update(tau, x[name], g[name], own)
            moved.append(part)
            after |= {_key(name, key): value for key, value in own.items()}
        return np.concatenate(moved), after

    def __repr__(self) -> str:
        each = ", ".join(f"{name}={optimizer!r}" for name, optimizer in self.optimizers.items())
        return f"PerBlock({self._layout!r}, {each})"


def _key(block: str, name: str) -> str:
    """Name a part of a block's state; no block's name is the beginning of another's with this."""
    return f"{block}/{name}"


@dataclass(frozen=True)
class Clipped(Optimizer):
    """An optimizer that sees h · min(1, norm/‖h‖) in place of the hypergradient h.

    ‖h‖ is over all of λ: the direction stays. Rare hypergradients that are very long would
    otherwise undo many updates (Pascanu et al. 2013).

    Parameters
    ----------
    optimizer : Optimizer
        What does the updates, such as ``Adam(0.1)``.
    norm : float
        Largest ‖h‖ that it sees, greater than 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.Clipped(tb.SGD(0.1), norm=1.0).update(1, np.zeros(2), np.array([3.0, 4.0]), {})[0]
    array([-0.06, -0.08])
    """

    optimizer: Optimizer
    norm: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(
                f"optimizer must be an Optimizer such as Adam(0.1), got {self.optimizer!r}"
            )
        check_positive("norm", self.norm)

    def init(self, lam: Array) -> State:
        return self.optimizer.init(lam)

    def update(self, tau: int, lam: Array, grad: Array, state: State) -> tuple[Array, State]:
        length = float(np.linalg.norm(grad.astype(np.float64)))  # float32 would overflow at 1e19
        if length > self.norm:
            grad = (self.norm / length) * grad
        return self.optimizer.update(tau, lam, grad, state)
