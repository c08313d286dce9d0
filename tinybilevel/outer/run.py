"""The state of an outer run: what is carried from one update of λ to the next, and saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinybilevel.arrays.backend import Array, like
from tinybilevel.methods.base import Hypergradient
from tinybilevel.outer.checkpoint import load_arrays, save_arrays
from tinybilevel.outer.optimizers import Optimizer

__all__ = ["Run", "Snapshot"]

_HISTORY = ("value", "grad_norm", "seconds")


@dataclass(frozen=True)
class Snapshot:
    """All that an outer run carries from one update to the next, but its history."""

    lam: Array
    moments: dict[str, Array]
    w: Array
    last_good: Array | None = None
    iteration: int = 0
    seconds: float = 0.0


class Run:
    """An outer run; `at` is replaced in one assignment: no interrupt leaves half an update."""

    def __init__(self, lam: Array, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.at = Snapshot(lam, optimizer.init(lam), w=np.zeros_like(lam, shape=0))
        self.history: dict[str, list[float]] = {name: [] for name in _HISTORY}

    def update(
        self, r: Hypergradient, norm: float, seconds: float, project: Callable[[Array], Array]
    ) -> None:
        at, tau = self.at, self.at.iteration + 1
        lam, moments = self.optimizer.update(tau, at.lam.copy(), r.grad, at.moments)
        lam = project(lam.astype(at.lam.dtype, copy=False))
        for name, entry in zip(_HISTORY, (r.value, norm, seconds), strict=True):
            self.history[name][tau - 1 :] = [entry]
        self.at = Snapshot(lam, moments, r.w, at.lam, tau, seconds)

    def arrays(self) -> dict[str, Array]:
        """Return the history of the whole updates."""
        return {name: np.array(h[: self.at.iteration]) for name, h in self.history.items()}

    def save(self, path: Path, settings: str) -> None:
        at = self.at
        save_arrays(
            path,
            {
                "settings": settings,
                "lam": at.lam,
                "w": at.w,
                **({} if at.last_good is None else {"last_good": at.last_good}),
                "iteration": at.iteration,
                "seconds": at.seconds,
                **{f"moments_{name}": moment for name, moment in at.moments.items()},
                **{f"history_{name}": values for name, values in self.arrays().items()},
            },
        )

    def load(self, path: Path, settings: str) -> None:
        saved, at = load_arrays(path), self.at
        expected = {"settings", "lam", "w", "iteration", "seconds"}
        expected |= {f"moments_{name}" for name in at.moments}
        expected |= {f"history_{name}" for name in _HISTORY}
        if missing := expected - set(saved):
            raise ValueError(f"{path} is not a checkpoint of this run: it has no {sorted(missing)}")
        if (was := str(saved["settings"])) != settings:
            raise ValueError(f"{path} belongs to another run: it was {was}, this is {settings}")
        if saved["lam"].shape != at.lam.shape or saved["lam"].dtype != at.lam.dtype:
            raise ValueError(
                f"{path} belongs to another run: its lam is {saved['lam'].shape} of "
                f"{saved['lam'].dtype}, this one's {at.lam.shape} of {at.lam.dtype}"
            )
        self.at = Snapshot(
            like(at.lam, saved["lam"]),
            {name: like(at.lam, saved[f"moments_{name}"]) for name in at.moments},
            like(at.lam, saved["w"]),
            like(at.lam, saved.get("last_good")),
            int(saved["iteration"]),
            float(saved["seconds"]),
        )
        self.history = {name: saved[f"history_{name}"].tolist() for name in _HISTORY}
