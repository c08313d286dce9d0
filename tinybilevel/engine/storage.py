"""Storages: how the states that the backward pass needs are kept or recomputed.

A storage runs the forward pass and returns w_T with a lazy iterator over (t, w_t), t = T−1 … T−K.
The recursion consumes the iterator; which storage made it is all the same to it. Truncation (K)
and storage are independent choices. Each storage also predicts its cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb, isqrt

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.engine.dynamics import Dynamics
from tinybilevel.problem import BilevelProblem

__all__ = ["Binomial", "Checkpoint", "Ring", "Storage"]

States = Iterator[tuple[int, Array]]


class Storage:
    """Base of the storages.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy(T=1000)
    >>> for storage in (tb.Ring(), tb.Checkpoint(), tb.Binomial(slots=8)):
    ...     print(tb.RMD(storage).cost(problem))
    Cost(transitions=1000, products=1001, bytes=16016)
    Cost(transitions=1968, products=1001, bytes=1056)
    Cost(transitions=4286, products=1001, bytes=176)
    """

    def run(self, dynamics: Dynamics, K: int) -> tuple[Array, States]:
        """Run the forward pass; return w_T and the last K pairs (t, w_t), newest first."""
        raise TypeError(f"{type(self).__name__} must define run and cost")

    def cost(self, T: int, K: int) -> tuple[int, int]:
        """Return how many transitions `run` and its iterator take and how many states they hold."""
        raise TypeError(f"{type(self).__name__} must define run and cost")


def require_storage(storage: object) -> None:
    """Refuse what is no storage, such as a class in place of its instance, or a tol for one."""
    if not isinstance(storage, Storage):
        call = ": RMD()(problem) is the call" if isinstance(storage, BilevelProblem) else ""
        raise TypeError(f"storage must be a Storage such as Checkpoint(), got {storage!r}{call}")


@dataclass(frozen=True)
class Ring(Storage):
    """The last K states and w_T, in one contiguous (K + 1, M) array used as a ring.

    The next state is written straight into its slot. The slots are numbered so that the forward
    pass ends with w_{T−K} … w_T in order. With K = T this keeps every state: plain reverse mode.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy()  # states of 16 bytes, T = 100
    >>> tb.RMD(tb.Ring()).cost(problem).bytes
    1616
    >>> tb.KRMD(K=5, storage=tb.Ring()).cost(problem).bytes
    96
    """

    def run(self, dynamics: Dynamics, K: int) -> tuple[Array, States]:
        T, slots = dynamics.T, max(K, 1) + 1
        ring = dynamics.empty(slots)

        def slot(t: int) -> Array:
            return ring[(t - T - 1) % slots]

        slot(0)[...] = dynamics.w0
        for t in range(T):
            dynamics.step(t, slot(t), out=slot(t + 1))
        return slot(T), ((t, slot(t)) for t in range(T - 1, T - K - 1, -1))

    def cost(self, T: int, K: int) -> tuple[int, int]:
        return T, max(K, 1) + 1


@dataclass(frozen=True)
class Checkpoint(Storage):
    """Every s-th state of the last K, and the states between recomputed one segment at a time.

    Parameters
    ----------
    every : int, optional
        s. The default ⌈√K⌉ holds about 2√K states and runs at most one more forward pass over the
        last K steps (Table 1, "checkpointing every √T steps").

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.RMD(tb.Checkpoint()).cost(tb.problems.toy())
    Cost(transitions=190, products=101, bytes=352)
    """

    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None:
            object.__setattr__(self, "every", as_count("every", self.every, minimum=1))

    def _segments(self, T: int, K: int) -> tuple[int, range]:
        """Return s and the first step of each segment."""
        s = self.every or isqrt(max(K - 1, 0)) + 1
        return min(s, max(K, 1)), range(T - K, T, s)

    def run(self, dynamics: Dynamics, K: int) -> tuple[Array, States]:
        T = dynamics.T
        s, starts = self._segments(T, K)
        work, segment, saved = dynamics.empty(2), dynamics.empty(s), dynamics.empty(len(starts))
        w, t = dynamics.w0, 0
        for row, start in zip(saved, starts, strict=True):
            w, t = dynamics.advance(w, t, start, work), start
            row[...] = w
        w_T = dynamics.advance(w, t, T, work)

        def states() -> States:
            for row, start in zip(saved[::-1], starts[::-1], strict=True):
                stop = min(start + s, T)
                segment[0] = row
                for t in range(start, stop - 1):
                    dynamics.step(t, segment[t - start], out=segment[t - start + 1])
                for t in range(stop - 1, start - 1, -1):
                    yield t, segment[t - start]

        return w_T, states()

    def cost(self, T: int, K: int) -> tuple[int, int]:
        s, starts = self._segments(T, K)
        return T + K - len(starts), 2 + s + len(starts)


@dataclass(frozen=True)
class Binomial(Storage):
    """Binomial checkpointing (Griewank and Walther 2000): s slots, provably fewest recomputations.

    With β(s, r) = C(s + r, s) and r the smallest number with K ≤ β(s, r), going backward over K
    steps costs t(K, s) = r K − β(s + 1, r − 1) transitions, and no schedule costs fewer.

    Parameters
    ----------
    slots : int
        s, at least 1. With 1, every state is recomputed from w_{T−K}.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.RMD(tb.Binomial(slots=4)).cost(tb.problems.toy())
    Cost(transitions=375, products=101, bytes=112)
    """

    slots: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", as_count("slots", self.slots, minimum=1))

    def run(self, dynamics: Dynamics, K: int) -> tuple[Array, States]:
        T, start = dynamics.T, dynamics.T - K
        s = min(self.slots, max(K, 1))
        last, work, saved = dynamics.empty(1), dynamics.empty(2), dynamics.empty(s)
        saved[0] = dynamics.advance(dynamics.w0, 0, start, work)

        def states() -> States:
            stack = [start]  # saved[i] holds the state of time stack[i]
            for t in range(T - 1, start - 1, -1):
                while stack[-1] < t and len(stack) < s:
                    left = binomial_split(t + 1 - stack[-1], s - len(stack) + 1)
                    w = dynamics.advance(saved[len(stack) - 1], stack[-1], stack[-1] + left, work)
                    saved[len(stack)] = w
                    stack.append(stack[-1] + left)
                yield t, dynamics.advance(saved[len(stack) - 1], stack[-1], t, work)
                if stack[-1] == t:
                    stack.pop()

        if K == 0:
            return saved[0], states()
        backward = states()
        newest = next(backward)  # w_{T−1}, one step before w_T

        def rest() -> States:
            yield newest
            yield from backward

        return dynamics.step(*newest, out=last[0]), rest()

    def cost(self, T: int, K: int) -> tuple[int, int]:
        s = min(self.slots, max(K, 1))
        return T - K + (binomial_cost(K, s) + 1 if K else 0), s + 3


def binomial_cost(length: int, slots: int) -> int:
    """Return t(l, s) = r l − β(s + 1, r − 1), the fewest transitions to visit l states backward."""
    r = _repetitions(length, slots)
    return r * length - (comb(slots + r, slots + 1) if r else 0)


def binomial_split(length: int, slots: int) -> int:
    """Return after how many of l ≥ 2 steps an optimal schedule fills the next of s ≥ 2 slots."""
    r = _repetitions(length, slots)
    fewest = comb(slots + r - 2, slots) if r >= 2 else 1
    return max(fewest, length - comb(slots - 1 + r, slots - 1), 1)


def _repetitions(length: int, slots: int) -> int:
    r = 0
    while comb(slots + r, slots) < length:
        r += 1
    return r
