"""What a transition w_{t+1} = Ξ_{t+1}(w_t, λ) is, and where it starts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from tinybilevel.arrays.backend import Array, Movable
from tinybilevel.arrays.checks import (
    as_count,
    as_float,
    block_size,
    call_user,
    check_pair,
    check_shape,
    check_takes,
    frozen,
    reads_only,
    take_block,
)
from tinybilevel.objectives import Objective
from tinybilevel.products import Missing, writes

__all__ = ["FunctionTransition", "Initial", "Transition"]


class Transition(Movable):
    """The dynamics w_{t+1} = Ξ_{t+1}(w_t, λ), eq. (4), with hand-written products.

    Conventions:

    Jacobians are the paper's: A_{t+1} = ∇_w Ξ_{t+1} is M × M and B_{t+1} = ∇_λ Ξ_{t+1} is N × M, so
    a product with a vector α of the state's space is a vector-Jacobian product.

    ===================================  ============  ==========================================
    ``initial(lam)``                     (M,)          w_0 = Ξ_0(λ)
    ``initial_vjp(lam, alpha)``          (N,)          B_0 α
    ``initial_jvp(lam, dlam)``           (M,)          dλ B_0
    ``step(t, w, lam)``                  (M,)          Ξ_{t+1}(w_t, λ), t = 0 … T−1
    ``vjp(t, w, lam, alpha)``            ((M,), (N,))  A_{t+1} α and B_{t+1} α, at w = w_t
    ``jvp(t, w, lam, dw, dlam)``         (M,)          dw A_{t+1} + dλ B_{t+1}, at w = w_t
    ``readout(w)``                       (≤ M,)        what the upper level sees of the state
    ===================================  ============  ==========================================

    ``w`` is the whole state: momentum and other buffers follow the lower-level variable in it.
    What goes in is not to be written into; the engine copies each new state to where it is kept.

    Parameters
    ----------
    initial : array_like (M,), slice, pair or triple of callables
        w_0 itself, without buffers, which start at 0; the block of λ that holds it; or Ξ_0 with
        its products, ``(Ξ_0, vjp)`` or ``(Ξ_0, vjp, jvp)`` with the signatures above. Without the
        jvp, forward mode forms it from one vjp per entry of w_0.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> halfway = tb.Transition.from_functions(
    ...     step=lambda t, w, lam: (w + lam) / 2,
    ...     vjp=lambda t, w, lam, alpha: (alpha / 2, alpha / 2),
    ...     initial=np.zeros(2),
    ... )
    >>> found = tb.testing.assert_transition_adjoints(halfway, w=[3.0, 4.0], lam=[1.0, 2.0])
    >>> problem = tb.BilevelProblem(halfway, tb.Quadratic([1.0, 1.0]), T=3, lam0=[1.0, 2.0])
    >>> tb.RMD()(problem).w
    array([0.875, 1.75 ])
    """

    #: Vectors of w's size in the state after w itself.
    n_buffers = 0
    #: The lower-level objective, where the transition minimises one.
    objective: Objective | None = None
    #: Whether the transition comes to rest where ∇_w g = 0.
    stationary_at_minimum = True
    #: Steps that were taken before w_0, and the buffers that they left; see `continuing`.
    _steps_before = 0
    _buffers: Array | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        reads_only(cls, "initial", "initial_vjp", "initial_jvp", "step", "vjp", "jvp")

    def __init__(self, initial: Any) -> None:
        self._initial = Initial(initial)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """dtype of the data that the transition holds; None where it holds none."""
        return self.objective.dtype if self.objective is not None else None

    def initial(self, lam: Array) -> Array:
        """Return the state w_0 = Ξ_0(λ), buffers at 0 or as `continuing` was given them."""
        w = self._initial(lam)
        return self._pad(w) if self._buffers is None else np.concatenate([w, self._buffers])

    def initial_vjp(self, lam: Array, alpha: Array) -> Array:
        """Return B_0 α, (N,)."""
        return self._initial.vjp(lam, self.readout(alpha))

    def initial_jvp(self, lam: Array, dlam: Array) -> Array:
        """Return dλ B_0, (M,)."""
        return self._pad(self._initial.jvp(lam, dlam))

    def step(self, t: int, w: Array, lam: Array) -> Array:
        """Return Ξ_{t+1}(w_t, λ), (M,)."""
        raise TypeError(f"{type(self).__name__} must define step")

    def vjp(self, t: int, w: Array, lam: Array, alpha: Array) -> tuple[Array, Array]:
        """Return A_{t+1} α, (M,), and B_{t+1} α, (N,), in one pass."""
        raise TypeError(f"{type(self).__name__} must define vjp")

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        """Return dw A_{t+1} + dλ B_{t+1}, (M,)."""
        raise TypeError(f"{type(self).__name__} must define jvp, which forward mode needs")

    def readout(self, w: Array) -> Array:
        """Return the lower-level variable in the state: a view of its first entries."""
        return w[: w.size // (1 + self.n_buffers)]

    def readout_vjp(self, alpha: Array) -> Array:
        """Return α for the whole state: α for the variable, 0 for the buffers."""
        return self._pad(alpha)

    def fixed_start(self) -> Array | None:
        """Return w_0 where it is an array; None where it comes from λ."""
        return self._initial.fixed

    def lacking(self, product: str) -> Missing | None:
        """Return which part of the transition does not write `product` out; None if all do."""
        given = product.startswith("initial")  # comes with the start itself
        return None if given or writes(self, Transition, product) else (self, product)

    def largest_step(self, t: int, lam: Array, beta: float) -> float | None:
        """Return the step size above which step t grows on curvature β; None if unknown."""
        return None

    def bound(self) -> Self:
        """Return the transition for one call of a method; see `Objective.bound`."""
        return self

    def starting_at(self, w: Array) -> Self:
        """Return the same dynamics from the fixed variable `w`, buffers at 0, so that B_0 = 0."""
        other = copy.copy(self)
        other._initial, other._buffers, other._steps_before = Initial(w), None, 0
        return other

    def continuing(self, state: Array, steps_before: int) -> Self:
        """Return the same dynamics from a whole state that earlier steps have reached.

        Velocity and moments are kept, and Adam's correction for the moments' start at 0 counts on,
        so that five runs of ten steps, each from where the last one ended, are one run of fifty.
        Schedules and batches belong to the steps of one run and begin anew.

        Parameters
        ----------
        state : ndarray (M,)
            w_T with its buffers, as `step` returns it; a fixed start, so that B_0 = 0.
        steps_before : int
            How many steps led to it, over all runs, at least 0.

        Raises
        ------
        TypeError, ValueError
            If `state` is not a finite vector of variable and buffers, or `steps_before` no count.

        Examples
        --------
        >>> import tinybilevel as tb
        >>> g = tb.Quadratic([1.0, 0.5])
        >>> adam, lam = tb.AdamTransition(g, 0.1, initial=[2.0, 2.0]), g.G
        >>> once = again = adam.initial(lam)
        >>> for t in range(4):
        ...     once = adam.step(t, once, lam)
        >>> for t in range(2):
        ...     again = adam.step(t, again, lam)
        >>> rest = adam.continuing(again, steps_before=2)
        >>> again = rest.initial(lam)
        >>> for t in range(2):
        ...     again = rest.step(t, again, lam)
        >>> bool((again == once).all())
        True
        """
        state = as_float("state", state, ndim=1)
        parts = 1 + self.n_buffers
        if state.size % parts:
            raise ValueError(
                f"state must hold {parts} vectors of one size, the variable and "
                f"{self.n_buffers} buffers of {type(self).__name__}, got {state.size} entries"
            )
        M = state.size // parts
        other = self.starting_at(state[:M])
        other._buffers = state[M:].copy() if self.n_buffers else None
        other._steps_before = as_count("steps_before", steps_before)
        return other

    def check_horizon(self, T: int) -> None:
        """Refuse what does not reach for T steps, such as a schedule or batches that end before.

        A `BilevelProblem` asks when it is built.

        Raises
        ------
        ValueError
            Naming the argument.
        """

    def at_iteration(self, tau: int) -> Self:
        """Return the dynamics of outer update τ = 1, 2, …: itself where no batches are drawn."""
        return self

    def __repr__(self) -> str:
        shown = {**self._shown(), "initial": self._initial}
        return f"{type(self).__name__}({', '.join(f'{n}={x}' for n, x in shown.items())})"

    def _shown(self) -> dict[str, Any]:
        """Return what `repr` shows besides w_0, by name."""
        return {}

    def _pad(self, w: Array) -> Array:
        if self.n_buffers == 0:
            return w
        return np.concatenate([w, np.zeros_like(w, shape=self.n_buffers * w.size)])

    @staticmethod
    def from_functions(
        step: Callable[[int, Array, Array], Array],
        vjp: Callable[[int, Array, Array, Array], tuple[Array, Array]],
        jvp: Callable[[int, Array, Array, Array, Array], Array] | None = None,
        *,
        initial: Any,
    ) -> Transition:
        """Build a transition from plain functions; see the table of `Transition` for their shapes.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> decay = tb.Transition.from_functions(
        ...     step=lambda t, w, lam: lam * w,
        ...     vjp=lambda t, w, lam, alpha: (lam * alpha, w * alpha),
        ...     initial=np.ones(2),
        ... )
        >>> decay.step(0, np.ones(2), np.array([0.5, 0.1]))
        array([0.5, 0.1])
        """
        return FunctionTransition(step, vjp, jvp, initial)


class FunctionTransition(Transition):
    """See `Transition.from_functions`."""

    def __init__(self, step: Any, vjp: Any, jvp: Any, initial: Any) -> None:
        super().__init__(initial)
        check_takes("step", step, "t", "w", "lam")
        check_takes("vjp", vjp, "t", "w", "lam", "alpha")
        if jvp is not None:
            check_takes("jvp", jvp, "t", "w", "lam", "dw", "dlam")
        self._step, self._vjp, self._jvp = step, vjp, jvp

    def lacking(self, product: str) -> Missing | None:
        given = product != "jvp" or self._jvp is not None
        return None if given or writes(self, FunctionTransition, product) else (self, product)

    def step(self, t: int, w: Array, lam: Array) -> Array:
        return check_shape("step", call_user("step", self._step, t, w, lam), w.shape)

    def vjp(self, t: int, w: Array, lam: Array, alpha: Array) -> tuple[Array, Array]:
        result = call_user("vjp", self._vjp, t, w, lam, alpha)
        return check_pair("vjp", result, w.shape, lam.shape)

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        if self._jvp is None:
            return super().jvp(t, w, lam, dw, dlam)
        return check_shape("jvp", call_user("jvp", self._jvp, t, w, lam, dw, dlam), w.shape)


class Initial(Movable):
    """w_0 = Ξ_0(λ) and the products with B_0, from any of the forms `Transition` takes."""

    def __init__(self, initial: Any) -> None:
        self._block = initial if isinstance(initial, slice) else None
        self._functions: tuple[Any, ...] = ()
        self.fixed: Array | None = None
        if isinstance(initial, tuple) and all(callable(f) for f in initial):
            if len(initial) not in (2, 3):
                raise ValueError("initial must be (Ξ_0, vjp) or (Ξ_0, vjp, jvp)")
            self._functions = initial
        elif callable(initial):
            raise TypeError("initial must come with its products: (Ξ_0, vjp) or (Ξ_0, vjp, jvp)")
        elif self._block is None:
            self.fixed = frozen("initial", as_float("initial", initial, ndim=1))

    @property
    def size(self) -> int | None:
        """Entries of w_0, where they are known without λ."""
        if self.fixed is not None:
            return self.fixed.size
        return None if self._block is None else block_size(self._block)

    def __call__(self, lam: Array) -> Array:
        # A copy: the caller may write into it.
        if self.fixed is not None:
            return self.fixed.copy()
        if self._block is not None:
            return take_block(lam, self._block, self.size).copy()
        w = call_user("initial", self._functions[0], lam)
        return as_float("initial", w, ndim=1, finite=False).copy()

    def vjp(self, lam: Array, alpha: Array) -> Array:
        if self._functions:
            h = call_user("the vjp of initial", self._functions[1], lam, alpha)
            return check_shape("the vjp of initial", h, lam.shape)
        h = np.zeros_like(lam, dtype=np.result_type(lam, alpha))
        if self._block is not None:
            h[self._block] = alpha
        return h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        if self.fixed is not None:
            return np.zeros_like(self.fixed)
        if self._block is not None:
            return dlam[self._block]
        w = self(lam)
        if len(self._functions) == 3:
            dw = call_user("the jvp of initial", self._functions[2], lam, dlam)
            return check_shape("the jvp of initial", dw, w.shape)
        dw = np.zeros_like(w)
        for j in range(dw.size):
            unit = np.zeros_like(dw)
            unit[j] = 1
            dw[j] = self.vjp(lam, unit) @ dlam
        return dw

    def __repr__(self) -> str:
        if self.fixed is not None:
            return f"<{self.fixed.size} entries>"
        names = ", ".join(getattr(f, "__name__", type(f).__name__) for f in self._functions)
        return f"({names})" if self._functions else repr(self._block)
