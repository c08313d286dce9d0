"""A bilevel problem: a transition, an upper objective, a horizon and a hyperparameter map."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, cast, moved, on_device
from tinybilevel.arrays.checks import as_count, as_float
from tinybilevel.maps import HyperMap, Identity
from tinybilevel.objectives import Objective
from tinybilevel.transitions import Transition

__all__ = ["BilevelProblem"]


@dataclass(frozen=True, eq=False, repr=False)
class BilevelProblem:
    """min_λ f(ŵ*(λ), λ), where ŵ*(λ) = w_T is what T steps of a transition return, eq. (1) and (4).

    Parameters
    ----------
    transition : Transition
        Ξ, with its initial state.
    upper : Objective
        f; it sees the readout of w_T, and θ.
    T : int
        Horizon, at least 0.
    hyper_map : HyperMap
        θ = Φ(λ), what the transition and `upper` see of λ. The default is the identity.
    lam0 : array_like (N,), optional
        A natural starting point; `tinybilevel.minimize` and ``method.cost`` fall back on it.
    namespace : {"numpy", "cupy"}
        Where its arrays lie: `to` moves them. λ is copied there at each call.
    bounds : optional
        Where λ may lie, in any form that `tinybilevel.minimize` takes; it does, unless told other
        bounds. Methods take any λ.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.Quadratic([1.0, 0.5])
    >>> f = tb.Objective.from_functions(value=lambda w, lam: w @ w, grad=lambda w, lam: 2 * w)
    >>> descent = tb.GradientDescent(g, step_size=0.1, initial=[2.0, 2.0])
    >>> problem = tb.BilevelProblem(descent, upper=f, T=100)
    >>> tb.RMD()(problem, np.array([1.0, 1.0])).value
    2.01192...
    """

    transition: Transition
    upper: Objective
    T: int
    hyper_map: HyperMap = field(default_factory=Identity)
    lam0: Any = None
    namespace: str = field(default="numpy", kw_only=True)
    bounds: Any = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        for name, kind, what in (
            ("transition", Transition, "a Transition such as GradientDescent(…)"),
            ("upper", Objective, "an Objective such as Objective.from_functions(…)"),
            ("hyper_map", HyperMap, "a HyperMap such as Exp()"),
        ):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be {what}, got {getattr(self, name)!r}")
        object.__setattr__(self, "T", as_count("T", self.T))
        object.__setattr__(self, "bounds", copy.deepcopy(self.bounds))  # the caller's to change
        self.transition.check_horizon(self.T)
        if self.lam0 is not None:
            if on_device(self.lam0):
                object.__setattr__(self, "namespace", "cupy")
            lam0 = as_float("lam0", self.lam0, ndim=1).copy()
            lam0.flags.writeable = False
            object.__setattr__(self, "lam0", lam0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BilevelProblem):
            return NotImplemented
        a, b = self.lam0, other.lam0
        same = a is b or (a is not None and b is not None and bool(np.array_equal(a, b)))
        return same and self._parts() == other._parts()

    def __repr__(self) -> str:
        g, lam0 = self.transition.objective, self.lam0
        of = "" if g is None else f" of {type(g).__name__}"
        start = "" if lam0 is None else f", lam0 {lam0.shape} {lam0.dtype}"
        return (
            f"{type(self).__name__}({type(self.transition).__name__}{of}, T={self.T}, "
            f"upper {type(self.upper).__name__}, hyper_map {type(self.hyper_map).__name__}{start})"
        )

    def __hash__(self) -> int:
        return hash(self._parts())

    def _parts(self) -> tuple[Any, ...]:
        return self.transition, self.upper, self.T, self.hyper_map, self.namespace

    def evaluate(self, method: Any, lam: Any = None) -> Any:
        """Return ``method(self, lam)``, a `Hypergradient`, as every method does when called.

        A problem that knows a faster way to the same numbers overrides this and `evaluate_many`;
        here it is ``method.run``, step by step.
        """
        return method.run(self, lam)

    def evaluate_many(
        self, method: Any, lams: Array, problems: Sequence[BilevelProblem] | None = None
    ) -> tuple[Array, Array]:
        """Return ``method.batch(problems, lams)``; None are this one for each row."""
        return method.run_many([self] * len(lams) if problems is None else problems, lams)

    def to(self, namespace: str) -> BilevelProblem:
        """Return the same problem with its arrays on a GPU ("cupy") or on the host ("numpy").

        Methods then run there from end to end, and their results are arrays of that kind. float32
        stays float32 and float64 float64; TF32 is CuPy's choice, which by default is no.

        Parameters
        ----------
        namespace : {"numpy", "cupy"}
            CuPy needs the extra ``gpu``.

        Raises
        ------
        ImportError
            If CuPy is not installed.
        ValueError
            If `namespace` is another name.

        Examples
        --------
        >>> import tinybilevel as tb
        >>> tb.problems.toy().to("numpy").namespace  # or "cupy", where there is a GPU
        'numpy'
        """
        parts = {n: moved(getattr(self, n), namespace) for n in ("transition", "upper", "lam0")}
        phi = moved(self.hyper_map, namespace)
        return replace(self, hyper_map=phi, namespace=namespace, **parts)

    def astype(self, dtype: Any) -> BilevelProblem:
        """Return the same problem with its float arrays, λ_1 too, in float32 or float64.

        Labels and other whole numbers stay, and so do your own functions: arrays that they hold are
        nobody else's to see.

        Raises
        ------
        TypeError
            If `dtype` is neither float32 nor float64.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> tb.RMD()(tb.problems.toy().astype(np.float32)).grad.dtype
        dtype('float32')
        """
        names = ("transition", "upper", "hyper_map", "lam0")
        return replace(self, **{name: cast(getattr(self, name), dtype) for name in names})

    def starting_at(self, w: Array) -> BilevelProblem:
        """Return the same problem with the fixed initial state `w`: a warm start.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> problem = tb.problems.toy(T=10)
        >>> first = tb.KRMD(K=0)(problem)
        >>> second = tb.KRMD(K=0)(problem.starting_at(first.w))  # goes on where the first ended
        >>> first.w.round(2), second.w.round(2)
        (array([1.35, 1.6 ]), array([1.12, 1.36]))
        """
        return replace(self, transition=self.transition.starting_at(w))

    def continuing(self, state: Array, steps_before: int) -> BilevelProblem:
        """Return the same problem from a whole state, buffers too; see `Transition.continuing`.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> def run(T):
        ...     ball = tb.HeavyBall(tb.Quadratic([1.0, 0.5]), 0.1, initial=[2.0, 2.0])
        ...     return tb.BilevelProblem(ball, tb.problems.toy().upper, T=T, lam0=[1.0, 1.0])
        >>> half = tb.KRMD(K=0)(run(10))
        >>> other_half = tb.KRMD(K=0)(run(10).continuing(half.state, steps_before=10))
        >>> np.allclose(other_half.w, tb.KRMD(K=0)(run(20)).w, rtol=1e-14)
        True
        """
        return replace(self, transition=self.transition.continuing(state, steps_before))

    def at_iteration(self, tau: int) -> BilevelProblem:
        """Return the problem of outer update τ = 1, 2, …: itself where no batches are drawn.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> g = tb.LeastSquares(np.eye(4), np.ones(4))
        >>> batches = tb.FreshMinibatches(4, size=2, T=3, seed=0)
        >>> descent = tb.GradientDescent(g, step_size=0.1, initial=np.zeros(4), batches=batches)
        >>> problem = tb.BilevelProblem(descent, upper=g, T=3, lam0=np.ones(4))
        >>> [problem.at_iteration(tau).transition.batches[0].tolist() for tau in (1, 2)]
        [[3, 0], [2, 1]]
        """
        transition = self.transition.at_iteration(tau)
        return self if transition is self.transition else replace(self, transition=transition)

    def check(self, lam: Any) -> Array:
        """Return `lam`, or `lam0` for None, as a float vector.

        Raises
        ------
        TypeError, ValueError
            If it is not a finite float32 or float64 vector, or None without a `lam0`.

        Examples
        --------
        >>> import tinybilevel as tb
        >>> tb.problems.toy().check([1, 2])
        array([1., 2.])
        """
        lam = self.lam0 if lam is None else lam
        if lam is None:
            raise ValueError(
                "lam is needed: the problem has no lam0; give λ in the call, as method(problem, "
                "lam), or BilevelProblem(…, lam0=λ)"
            )
        lam = as_float("lam", lam, ndim=1)
        if self.namespace != "numpy":
            lam = moved(lam, self.namespace)
        if self.lam0 is not None and lam.shape != self.lam0.shape:
            raise ValueError(f"lam must have shape {self.lam0.shape}, got {lam.shape}")
        return lam
