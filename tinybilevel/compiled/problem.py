"""A problem with its compiled loop, which answers a method in place of the plain code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.compiled.loops import Loop, together
from tinybilevel.compiled.registry import Registry
from tinybilevel.engine.storage import Ring
from tinybilevel.methods import KRMD, RMD, Hypergradient, Method
from tinybilevel.problem import BilevelProblem

__all__ = ["CompiledProblem"]

depth = Registry("Return K, if a method on a horizon T is one that a loop can run, or None.")


@depth.of(RMD)
def _(method: RMD, T: int) -> int | None:
    return T if type(method.storage) is Ring else None


@depth.of(KRMD)
def _(method: KRMD, T: int) -> int | None:
    if type(method.storage) is not Ring or method.tol is not None or method.tail is not None:
        return None
    K = method.K
    return K if K is not None and K <= T else method._steps(T)


@dataclass(frozen=True, eq=False, repr=False)
class CompiledProblem(BilevelProblem):
    """What `tinybilevel.compile` returns; it equals the problem that was compiled.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy()
    >>> fast = tb.compile(problem)
    >>> type(fast).__name__, fast == problem
    ('CompiledProblem', True)
    >>> tb.testing.relative_error(tb.RMD()(fast).grad, tb.RMD()(problem).grad) < 1e-12
    True
    """

    loop: Loop = field(kw_only=True, repr=False)

    def __new__(cls, *args: Any, loop: Loop | None = None, **parts: Any) -> Any:
        # `dataclasses.replace` comes here as well: with another part, the loop is not its own.
        if loop is not None and not loop.runs(changed := BilevelProblem(*args, **parts)):
            return changed
        return super().__new__(cls)

    def at_iteration(self, tau: int) -> BilevelProblem:
        transition = self.transition.at_iteration(tau)
        if transition is self.transition:
            return self
        # With a loop that is not its own, the problem becomes a plain one.
        return replace(self, transition=transition, loop=self.loop.following(transition))

    def evaluate(self, method: Method, lam: Any = None) -> Hypergradient:
        K = depth(method, self.T)
        start = method.sees_start and not self.loop.fixed_start
        found = None if K is None else self.loop.run(self, lam, K, start)
        return method.run(self, lam) if found is None else found

    def evaluate_many(
        self, method: Method, lams: Array, problems: Sequence[BilevelProblem] | None = None
    ) -> tuple[Array, Array]:
        found, K = None, depth(method, self.T)
        if K is not None and problems is None:
            found = self.loop.batch(lams, K)
        elif K is not None and problems is not None:
            loops = [p.loop for p in problems if isinstance(p, CompiledProblem)]
            found = self.loop.batch_over(loops, lams, K) if len(loops) == len(lams) else None
        if found is None and K is not None:
            found = self._side_by_side(method, lams, problems or [self] * len(lams))
        return super().evaluate_many(method, lams, problems) if found is None else found

    def _side_by_side(
        self, method: Method, lams: Array, problems: Sequence[BilevelProblem]
    ) -> tuple[Array, Array] | None:
        """Return values and hypergradients by a call on a thread each, or None without loops."""
        if len(lams) == 1:
            return None  # with all threads
        calls = []
        for problem, lam in zip(problems, lams, strict=True):
            if not isinstance(problem, CompiledProblem):
                return None
            if (loop := problem.loop.alone()) is None:
                return None
            calls.append(partial(method, replace(problem, loop=loop), lam))
        results = together(calls)
        return np.array([r.value for r in results]), np.stack([r.grad for r in results])
