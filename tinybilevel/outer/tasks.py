"""One problem or many, as what an outer loop evaluates: f, or the mean of f over the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, promote, to_numpy
from tinybilevel.arrays.checks import check_shape
from tinybilevel.engine.dynamics import Cost
from tinybilevel.errors import DivergenceError
from tinybilevel.methods.base import Method
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.outer.identity import identity
from tinybilevel.problem import BilevelProblem

__all__ = ["Tasks", "mean"]


@dataclass(frozen=True)
class Tasks:
    """The problems of one outer loop, all functions of the same λ.

    Parameters
    ----------
    problems : tuple of BilevelProblem
        At least one.
    many : bool
        Whether they were given as a list; a single one may be.
    warm_start : bool or "state"
        What is carried from one lower level to the next: nothing, ŵ*, or the whole state.
    executor : concurrent.futures.Executor, optional
        Evaluates them side by side.
    """

    problems: tuple[BilevelProblem, ...]
    many: bool
    warm_start: Any = False
    executor: Executor | None = None

    @classmethod
    def of(cls, problem: Any, warm_start: Any, executor: Any = None) -> Tasks:
        """Check the arguments of `tinybilevel.minimize`."""
        if executor is not None and not isinstance(executor, Executor):
            raise TypeError(f"executor must be a concurrent.futures.Executor, got {executor!r}")
        if isinstance(problem, BilevelProblem):
            return cls((problem,), False, warm_start, executor)
        if not isinstance(problem, list | tuple):
            hint = ": the method comes after it" if isinstance(problem, Method) else ""
            raise TypeError(f"problem must be a BilevelProblem or a list, got {problem!r}{hint}")
        for k, each in enumerate(problem):
            if not isinstance(each, BilevelProblem):
                raise TypeError(f"problem[{k}] must be a BilevelProblem, got {each!r}")
        if not problem:
            raise ValueError("problem must not be an empty list")
        return cls(tuple(problem), True, warm_start, executor)

    def check(self, lam0: Any) -> Array:
        """Return λ_1 as a float vector: `lam0`, or what the problems agree on."""
        known = {k: p.lam0 for k, p in enumerate(self.problems) if p.lam0 is not None}
        if lam0 is None and known:
            first, lam0 = next(iter(known.items()))
            for k, other in known.items():
                if not np.array_equal(to_numpy(lam0), to_numpy(other)):
                    raise ValueError(
                        f"lam0 is needed: those of problem[{first}] and problem[{k}] differ "
                        f"(shapes {lam0.shape} and {other.shape})"
                    )
        found = [self._named(k, p.check, lam0) for k, p in enumerate(self.problems)]
        return found[0].astype(promote(*found), copy=False)

    @property
    def parts(self) -> list[Any]:
        """What the problems are made of, where their data are."""
        return [(p.transition, p.upper, p.hyper_map) for p in self.problems]

    @property
    def bounds(self) -> Any:
        """The problems' own bounds for λ, on which they must agree."""
        first = self.problems[0].bounds
        for k, other in enumerate(self.problems):
            if identity(other.bounds) != identity(first):
                raise ValueError(
                    f"bounds are needed: those of problem[0] and problem[{k}] differ, {first!r} "
                    f"and {other.bounds!r}"
                )
        return first

    def start(self, tau: int, states: Sequence[Array]) -> list[BilevelProblem]:
        """Return the problems of update τ, from the states that the update before it left."""
        now = [p.at_iteration(tau) for p in self.problems]
        if not self.warm_start or not states:
            return now
        pairs = zip(now, states, strict=True)
        if self.warm_start == "state":
            return [p.continuing(state, (tau - 1) * p.T) for p, state in pairs]
        return [p.starting_at(w) for p, w in pairs]

    def evaluate(
        self, method: Method, now: list[BilevelProblem], lam: Array
    ) -> list[Hypergradient]:
        """Return the hypergradient of each of the problems that `start` returned."""
        calls: list[Callable[[], Any]]
        if self.executor is None:
            calls = [partial(method.unwatched, problem, lam) for problem in now]
        else:
            calls = [self.executor.submit(method.unwatched, p, lam).result for p in now]
        found = [self._named(k, call) for k, call in enumerate(calls)]
        for r in found:  # a method may be the user's own
            name = type(method).__name__
            if not isinstance(r, Hypergradient):
                raise TypeError(f"{name} must return a Hypergradient, got {type(r).__name__}")
            check_shape(f"grad from {name}", r.grad, lam.shape)
        return found

    def join(self, results: list[Hypergradient]) -> Hypergradient:
        """Return the one result, or the mean of many."""
        return mean(results) if self.many else results[0]

    def states(self, results: list[Hypergradient]) -> tuple[Array, ...]:
        """Return what the next lower levels start from; nothing without a warm start."""
        if not self.warm_start:
            return ()
        whole = self.warm_start == "state"
        return tuple(r.state if whole and r.state is not None else r.w for r in results)

    def _named(self, k: int, function: Callable[..., Any], *args: Any) -> Any:
        with naming(f"problem[{k}]: " if self.many else ""):
            return function(*args)


@contextmanager
def naming(prefix: str) -> Iterator[None]:
    """Say in an error of ours which task it comes from."""
    try:
        yield
    except (DivergenceError, TypeError, ValueError) as error:
        if prefix:
            error.args = (prefix + str(error),)
        raise


class MeanHypergradient(Hypergradient):
    """What `mean` returns: `w` is a tuple, the lower gradient is the largest of all tasks."""

    def _lower_gradient(self) -> tuple[Any, Any]:
        tasks, _ = self._lower
        if isinstance(tasks, list):
            each = zip(*(r._lower_gradient() for r in tasks), strict=True)
            found = (None if None in numbers else max(numbers) for numbers in each)
            self.__dict__["_lower"] = tuple(found)
        return self._lower

    def _rows(self) -> dict[str, str]:
        shown = replace(self, w=self.w[0], _lower=(None, None))
        return {**Hypergradient._rows(shown), "w": f"{len(self.w)} tasks"}


def mean(results: list[Hypergradient]) -> Hypergradient:
    """Average over tasks: the value, the gradient and the bound are means, `w` is a tuple."""
    n, bounds = len(results), [r.bound for r in results]
    costs = [r.cost for r in results]
    return MeanHypergradient(
        value=sum(r.value for r in results) / n,
        grad=sum(r.grad / n for r in results),  # type: ignore[arg-type]
        w=tuple(r.w for r in results),  # type: ignore[arg-type]
        K=max(r.K for r in results),
        alpha_norms=np.zeros(0),
        cost=Cost(
            sum(c.transitions for c in costs),
            sum(c.products for c in costs),
            max(c.bytes for c in costs),
        ),
        residual=max(r.residual for r in results),
        converged=all(r.converged for r in results),
        bound=None if None in bounds else sum(b for b in bounds if b is not None) / n,
        _lower=(results, None),
    )
