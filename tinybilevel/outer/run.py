"""The state of an outer run: what is carried from one update of λ to the next, and saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, like
from tinybilevel.arrays.checks import check_shape
from tinybilevel.errors import DivergenceError
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.outer.checkpoint import load_arrays, save_arrays
from tinybilevel.outer.optimizers import Optimizer
from tinybilevel.outer.result import OptimizeResult
from tinybilevel.outer.sketch import same_data
from tinybilevel.outer.trail import Trail

__all__ = ["Run", "Snapshot"]

_HISTORY = ("value", "grad_norm", "seconds")


@dataclass(frozen=True)
class Snapshot:
    """All that an outer run carries from one update to the next, but its history."""

    lam: Array
    moments: dict[str, Array]
    #: What the lower levels left, task by task, and what they had started from.
    states: tuple[Array, ...] = ()
    before: tuple[Array, ...] = ()
    last_good: Array | None = None
    best_lam: Array | None = None
    best_value: float = float("inf")
    iteration: int = 0
    seconds: float = 0.0


class Run:
    """An outer run; `at` is replaced in one assignment: no interrupt leaves half an update.

    Parameters
    ----------
    lam : ndarray (N,)
        λ_1.
    optimizer : Optimizer
        Its state is part of the run.
    trail : Trail
        Keeps λ_1, λ_2, ….
    data : ndarray (R, 2), optional
        The `sketch` of the problems.
    """

    def __init__(
        self,
        lam: Array,
        optimizer: Optimizer,
        trail: Trail | None = None,
        data: Array | None = None,
    ) -> None:
        self.optimizer, self.first = optimizer, lam
        self.data = np.empty((0, 2)) if data is None else data
        state = optimizer.init(lam.copy())
        if not isinstance(state, dict):
            raise TypeError(
                f"init of {type(optimizer).__name__} must return a dict of arrays, got {state!r}"
            )
        self.at = Snapshot(lam, {name: _array(part) for name, part in state.items()})
        self.history: dict[str, list[float]] = {name: [] for name in _HISTORY}
        self.trail = trail or Trail(lam, 0)

    def update(
        self,
        value: float,
        grad: Array,
        norm: float,
        seconds: float,
        project: Callable[[Array], Array],
        states: tuple[Array, ...] = (),
    ) -> None:
        at, tau = self.at, self.at.iteration + 1
        # Copies: an optimizer may work in place, and an interrupt may come while it does.
        given = {name: moment.copy() for name, moment in at.moments.items()}
        with np.errstate(over="ignore", invalid="ignore"):  # said below, by name
            moved = self.optimizer.update(tau, at.lam.copy(), grad.copy(), given)
        lam, moments = _checked(self.optimizer, moved, at)
        lam = project(lam)
        for name, entry in zip(_HISTORY, (value, norm, seconds), strict=True):
            self.history[name][tau - 1 :] = [entry]
        self.trail.put(tau, at.lam)
        at = self.seen(value)
        self.at = Snapshot(
            lam, moments, states, at.states, at.lam, at.best_lam, at.best_value, tau, seconds
        )

    def result(self, last: Hypergradient, stopped: str) -> OptimizeResult:
        """Return what the run has come to; `last` is f at its λ."""
        best = self.seen(last.value)
        return OptimizeResult(
            best.lam,
            last.value,
            last.w,
            best.iteration,
            self.arrays(),
            stopped,
            best.lam if best.best_lam is None else best.best_lam,
            best.best_value,
        )

    def seen(self, value: float) -> Snapshot:
        """Return the snapshot that knows f here: a new best, if it is one."""
        at = self.at
        return replace(at, best_lam=at.lam, best_value=value) if value < at.best_value else at

    def arrays(self) -> dict[str, Array]:
        """Return the history of the whole updates."""
        done = self.at.iteration
        found = {name: np.array(h[:done]) for name, h in self.history.items()}
        return found | ({"lam": self.trail.rows(done)} if self.trail.stride else {})

    def save(self, path: Path, settings: dict[str, str]) -> None:
        at, done = self.at, self.at.iteration
        named: dict[str, Any] = {"last_good": at.last_good, "best_lam": at.best_lam}
        named |= {f"moments_{name}": moment for name, moment in at.moments.items()}
        named |= {f"history_{name}": h[:done] for name, h in self.history.items()}
        named |= {f"state_{k}": state for k, state in enumerate(at.states)}
        named |= {f"before_{k}": state for k, state in enumerate(at.before)}
        named |= {f"setting_{name}": text for name, text in settings.items()}
        save_arrays(
            path,
            {
                "first": self.first,
                "data": self.data,
                "lam": at.lam,
                "best_value": at.best_value,
                "iteration": done,
                "seconds": at.seconds,
                "trail": self.trail.save(path, done),
                **{name: array for name, array in named.items() if array is not None},
            },
        )

    def _check_whole(self, path: Path, saved: dict[str, Array]) -> None:
        """Refuse arrays that no run of this λ can have left."""
        at, done = self.at, saved["iteration"]
        whole = done.shape == () and done.dtype.kind in "iu" and done >= 1
        same = {"lam", "last_good", "best_lam"} & set(saved)
        fit = all((saved[k].shape, saved[k].dtype) == (at.lam.shape, at.lam.dtype) for k in same)
        if not whole or not fit or any(saved[f"history_{n}"].shape != (done,) for n in _HISTORY):
            raise ValueError(f"{path} is damaged: its arrays do not fit together")

    def load(self, path: Path, settings: dict[str, str]) -> None:
        """Continue the run in a file, which must have the same settings and λ_1."""
        saved, at = load_arrays(path), self.at
        needed = {"first", "data", "lam", "best_value", "iteration", "seconds", "trail"}
        needed |= {f"moments_{name}" for name in at.moments}
        needed |= {f"history_{name}" for name in _HISTORY}
        needed |= {f"setting_{name}" for name in settings}
        if missing := needed - set(saved):
            raise ValueError(f"{path} is not a checkpoint of this run: it has no {sorted(missing)}")
        for name, text in settings.items():
            if (was := str(saved[f"setting_{name}"])) != text:
                raise ValueError(
                    f"{path} belongs to another run: its {name} was {was}, this one's is {text}"
                )
        _check_first(path, like(at.lam, saved["first"]), self.first)
        if not same_data(saved["data"], self.data):
            raise ValueError(
                f"{path} belongs to another problem: its data are others (examples, labels, "
                "strengths, a step size, a fixed start …)"
            )
        self._check_whole(path, saved)

        def numbered(name: str) -> tuple[Array, ...]:
            found = [key for key in saved if key.startswith(name)]
            return tuple(like(at.lam, saved[f"{name}{k}"]) for k in range(len(found)))

        self.at = Snapshot(
            like(at.lam, saved["lam"]),
            {name: like(at.lam, saved[f"moments_{name}"]) for name in at.moments},
            numbered("state_"),
            numbered("before_"),
            like(at.lam, saved.get("last_good")),
            like(at.lam, saved.get("best_lam")),
            float(saved["best_value"]),
            int(saved["iteration"]),
            float(saved["seconds"]),
        )
        self.history = {name: saved[f"history_{name}"].tolist() for name in _HISTORY}
        self.trail.load(path, self.at.iteration, int(saved["trail"]))


def _check_first(path: Path, was: Array, first: Array) -> None:
    if was.shape != first.shape or was.dtype != first.dtype:
        raise ValueError(
            f"{path} belongs to another run: its lam is {was.shape} of {was.dtype}, this one's "
            f"{first.shape} of {first.dtype}"
        )
    if not bool((was == first).all()):
        i = int((was != first).argmax())
        raise ValueError(
            f"{path} belongs to another run: it began at lam0[{i}] = {float(was[i])!r}, this one "
            f"at {float(first[i])!r}. Pass the same lam0 to continue it; to begin at the new one, "
            "remove the file or name another"
        )


def _checked(optimizer: Any, result: Any, at: Snapshot) -> tuple[Array, dict[str, Array]]:
    """Check what an optimizer returned: λ and its next state."""
    name = f"update of {type(optimizer).__name__}"
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
        raise TypeError(f"{name} must return a pair (lam, state), state a dict, got {result!r}")
    lam = check_shape(f"lam from {name}", result[0], at.lam.shape)
    if set(result[1]) != set(at.moments):
        raise ValueError(
            f"the state from {name} must have the names that init gave it, "
            f"{sorted(at.moments)}, got {sorted(result[1])}: a checkpoint could not continue it"
        )
    if not bool(np.isfinite(lam).all()):
        i = int((~np.isfinite(lam)).argmax())
        error = DivergenceError(
            f"{name} at iteration {at.iteration + 1} moved lam[{i}] from {float(at.lam[i]):.6g} to "
            f"{float(lam[i])}: its step is too large"
        )
        error.lam = at.lam.copy()
        raise error
    return lam.astype(at.lam.dtype, copy=False), result[1]


def _array(x: Any) -> Array:
    return x if hasattr(x, "copy") and hasattr(x, "dtype") else np.asarray(x)
