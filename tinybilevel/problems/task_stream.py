"""Tasks that are drawn anew at each outer update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from tinybilevel.problem import BilevelProblem

__all__ = ["TaskStream"]


@dataclass(frozen=True, eq=False, repr=False)
class TaskStream(BilevelProblem):
    """A problem that is another at each outer update: `of` makes one of a function.

    As a problem of its own, for a direct call of a method, it is that of update 1.

    Parameters
    ----------
    draw : callable
        τ → BilevelProblem, for τ = 1, 2, …; the same for the same τ, so that a resumed run goes on
        with the same tasks. All are functions of the same λ.

    Raises
    ------
    TypeError
        If `draw` returns no problem, or one part, such as T, is changed for update 1 alone: change
        it in `draw`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> stream = tb.problems.TaskStream.of(lambda tau: tb.problems.toy(T=10 + tau % 3))
    >>> stream.T, stream.at_iteration(2).T
    (11, 12)
    >>> result = tb.minimize(stream, method=tb.KRMD(K=5), iterations=20)
    """

    draw: Callable[[int], BilevelProblem] = field(kw_only=True)
    made: Callable[[BilevelProblem], BilevelProblem] | None = field(
        default=None, kw_only=True, repr=False
    )
    first: BilevelProblem | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("transition", "upper", "T", "hyper_map"):
            if getattr(self, name) is not getattr(self.first, name, None):
                raise TypeError(
                    f"{name} of a TaskStream cannot be changed for update 1 alone: make the stream "
                    "by TaskStream.of(draw), of a draw that returns problems with another "
                    f"{name}"
                )

    @classmethod
    def of(cls, draw: Callable[[int], BilevelProblem]) -> TaskStream:
        """Return the stream of the problems ``draw(1)``, ``draw(2)``, …."""
        first = _drawn(draw, 1)
        parts = {each.name: getattr(first, each.name) for each in fields(BilevelProblem)}
        return cls(**parts, draw=draw, first=first)

    def _parts(self) -> tuple[Any, ...]:
        return (*super()._parts(), self.draw)

    def at_iteration(self, tau: int) -> BilevelProblem:
        drawn = _drawn(self.draw, tau).at_iteration(tau)
        return drawn if self.made is None else self.made(drawn)

    def to(self, namespace: str) -> BilevelProblem:
        return self._drawing(partial(_then, self.draw, "to", namespace))

    def astype(self, dtype: Any) -> BilevelProblem:
        return self._drawing(partial(_then, self.draw, "astype", dtype))

    def starting_at(self, w: Any) -> BilevelProblem:
        return self._drawing(partial(_then, self.draw, "starting_at", w))

    def _drawing(self, draw: Callable[[int], BilevelProblem]) -> TaskStream:
        return replace(TaskStream.of(draw), made=self.made)


def _drawn(draw: Callable[[int], BilevelProblem], tau: int) -> BilevelProblem:
    problem = draw(tau)
    if not isinstance(problem, BilevelProblem):
        raise TypeError(f"draw({tau}) must return a BilevelProblem, got {problem!r}")
    return problem


def _then(draw: Callable[[int], BilevelProblem], name: str, argument: Any, tau: int) -> Any:
    """Draw a problem and change it; a function of the module, so that it can be pickled."""
    return getattr(_drawn(draw, tau), name)(argument)
