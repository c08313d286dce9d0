"""What an outer run tells: its progress and its result."""

from __future__ import annotations

import copy
import html
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, on_device
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.outer.checkpoint import load_arrays, save_arrays

__all__ = ["OptimizeResult", "Progress"]


class _Shown:
    """A short text and an HTML table, from the rows that a class names."""

    def _rows(self) -> dict[str, str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        rows = self._rows()
        width = max(map(len, rows))
        lines = [f"  {name:{width}}  {text}" for name, text in rows.items()]
        return "\n".join([type(self).__name__, *lines])

    def _repr_html_(self) -> str:
        cells = [
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self._rows().items()
        ]
        return f"<table><caption>{type(self).__name__}</caption>{''.join(cells)}</table>"


@dataclass(frozen=True, repr=False)
class Progress(_Shown):
    """What a callback is told after each evaluation, before λ moves.

    Its arrays cannot be written into: the run does not hang on what a callback does.

    Attributes
    ----------
    iteration : int
        τ = 1, 2, ….
    lam : ndarray (N,)
        λ_τ, where the hypergradient was taken.
    hypergradient : Hypergradient
        What the method returned there. Over a list of problems, the means of the values and of the
        gradients; `w` is a tuple then, one for each problem.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> def watch(progress):
    ...     print(progress.iteration, f"{progress.hypergradient.value:.2f}")
    ...     return progress.hypergradient.value < 15
    >>> result = tb.minimize(tb.problems.toy(), method=tb.RMD(), callback=watch)
    1 16.23
    2 13.97
    >>> result.stopped
    'callback'
    """

    iteration: int
    lam: Array
    hypergradient: Hypergradient

    @classmethod
    def of(cls, iteration: int, lam: Array, r: Hypergradient) -> Progress:
        """Return what may be handed out."""
        told = copy.copy(r)
        for name in ("grad", "w", "alpha_norms", "state"):
            object.__setattr__(told, name, _read_only(getattr(r, name)))
        return cls(iteration, _read_only(lam), told)

    def _rows(self) -> dict[str, str]:
        r = self.hypergradient
        norm = float(np.linalg.norm(r.grad))
        return {
            "iteration": str(self.iteration),
            "value": f"{r.value:.6g}",
            "grad": f"norm {norm:.3g}, {_size(r.grad)}",
            "lam": _brief(self.lam),
        }


@dataclass(frozen=True, repr=False)
class OptimizeResult(_Shown):
    """What `minimize` returns.

    Attributes
    ----------
    lam : ndarray (N,)
        The hyperparameters after the last update.
    value : float
        f(ŵ*, λ) at `lam`.
    w : ndarray (M,)
        ŵ* at `lam`; a tuple of them for a list of problems.
    iterations : int
        Updates made, resumed ones included.
    history : dict of str to ndarray (iterations,)
        ``value`` and ``grad_norm`` at λ_1, λ_2, … and ``seconds``, the wall-clock
        time of the run after each, earlier parts of a resumed run included. With ``keep_lam=k``
        also ``lam``: row i is λ at iteration 1 + i k.
    stopped : str
        ``"iterations"``, ``"gtol"`` or ``"callback"``; ``"zero gradient"`` where the hypergradient
        was exactly 0, which at λ_1 more often means that the method sees no way from λ to f than
        that λ_1 is stationary.
    best_lam : ndarray (N,)
        Of all λ at which f was evaluated, `lam` included, the one with the lowest value.
    best_value : float
        f there. With a warm start or with minibatches f is another function at each update.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> r = tb.minimize(tb.problems.toy(), method=tb.KRMD(K=5), iterations=20)
    >>> r.lam.shape, r.history["value"].shape, bool(r.best_value <= r.value)
    ((2,), (20,), True)
    """

    lam: Array
    value: float
    w: Any
    iterations: int
    history: dict[str, Array] = field(compare=False)
    stopped: str
    best_lam: Array
    best_value: float

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to an ``.npz`` file, without pickle; the old file or the new is whole.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import tinybilevel as tb
        >>> result = tb.minimize(tb.problems.toy(), iterations=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result.save(pathlib.Path(folder) / "result.npz")
        ...     again = tb.OptimizeResult.load(pathlib.Path(folder) / "result.npz")
        >>> again.value == result.value
        True
        """
        many = isinstance(self.w, tuple)
        parts = {f"w_{k}": w for k, w in enumerate(self.w)} if many else {"w": self.w}
        names = ("lam", "value", "iterations", "stopped", "best_lam", "best_value")
        kept = {f"history_{name}": entries for name, entries in self.history.items()}
        save_arrays(path, {name: getattr(self, name) for name in names} | parts | kept)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> OptimizeResult:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, or holds something else.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import tinybilevel as tb
        >>> result = tb.minimize(tb.problems.toy(), iterations=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "result.npz"
        ...     result.save(path)
        ...     print(tb.OptimizeResult.load(path).iterations)
        3
        """
        saved = load_arrays(path)
        needed = {"lam", "value", "iterations", "stopped", "best_lam", "best_value"}
        if missing := needed - set(saved):
            raise ValueError(f"{path} does not hold an OptimizeResult: it has no {sorted(missing)}")
        tasks = sum(name.startswith("w_") for name in saved)
        history = "history_"
        return cls(
            saved["lam"],
            float(saved["value"]),
            saved["w"] if "w" in saved else tuple(saved[f"w_{k}"] for k in range(tasks)),
            int(saved["iterations"]),
            {n.removeprefix(history): a for n, a in saved.items() if n.startswith(history)},
            str(saved["stopped"]),
            saved["best_lam"],
            float(saved["best_value"]),
        )

    def _rows(self) -> dict[str, str]:
        seconds, w = self.history.get("seconds"), self.w
        took = f" in {seconds[-1]:.3g} s" if seconds is not None and len(seconds) else ""
        best = "" if self.best_value == self.value else f" (best seen: {self.best_value:.6g})"
        return {
            "stopped": f"{self.stopped}, after {self.iterations} updates{took}",
            "value": f"{self.value:.6g}{best}",
            "lam": _brief(self.lam),
            "w": f"{len(w)} tasks, each {_size(w[0])}" if isinstance(w, tuple) else _size(w),
            "history": ", ".join(f"{name} {array.shape}" for name, array in self.history.items()),
        }


def _read_only(x: Any) -> Any:
    """Return arrays that cannot be written into; on a GPU, where there are none, copies."""
    if isinstance(x, tuple):
        return tuple(_read_only(part) for part in x)
    if not isinstance(x, np.ndarray):
        return x.copy() if on_device(x) else x
    view = x.view()
    view.flags.writeable = False
    return view


def _size(x: Array) -> str:
    return f"{x.shape} {x.dtype}"


def _brief(x: Array) -> str:
    if 0 < x.size <= 4:
        return f"[{', '.join(f'{float(entry):.6g}' for entry in x)}] {x.dtype}"
    between = f", from {float(x.min()):.4g} to {float(x.max()):.4g}" if x.size else ""
    return _size(x) + between
