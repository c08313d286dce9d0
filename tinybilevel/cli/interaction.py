"""One trial of task interaction: methods and controls on one draw of data, and what they score."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinybilevel import data
from tinybilevel.arrays.backend import Array
from tinybilevel.cli.draws import Setting, draw
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.outer.minimize import Progress, minimize
from tinybilevel.outer.optimizers import Adam
from tinybilevel.problem import BilevelProblem
from tinybilevel.problems import (
    InteractionMap,
    RowSpace,
    append_bias,
    interactions,
    task_interaction,
)

__all__ = [
    "CONTROLS",
    "Judge",
    "Trial",
    "free",
    "permuted",
    "projected_norm",
    "relations",
    "same_row_sums",
    "trial",
]

#: What is compared with learned interactions: none; the same numbers between the wrong pairs; a
#: matrix with the same row sums and no more structure than they have.
CONTROLS = ("none", "permuted", "row sums")


@dataclass
class Trial:
    """What one run found.

    Attributes
    ----------
    accuracy : float
        On the test rows, a share, at the iterate of best validation accuracy, the first among ties.
    accuracy_best_loss, accuracy_last : float
        The same at the iterate of lowest validation loss, and at the last.
    best_loss : float
        Lowest validation loss.
    projected_norm : float
        ‖·‖ of the exact projected gradient at the last iterate.
    row_bound : float
        Largest γ(β + 2ρ + 8 max row sum of C) met; under 2 every step is stable.
    lam : list of float
        λ at the iterate of best validation accuracy.
    curve : list of dict
        ``iteration``, ``loss`` and, where asked for, ``projected_norm``, ``cosine_free`` and
        ``cosine`` with the exact gradient.
    """

    accuracy: float
    accuracy_best_loss: float = float("nan")
    accuracy_last: float = float("nan")
    best_loss: float = float("nan")
    projected_norm: float = float("nan")
    row_bound: float = float("nan")
    seconds: float = float("nan")
    lam: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)


def trial(
    setting: Setting,
    seed: int,
    *,
    Ks: Sequence[int] = (1, 5, 25, 100),
    controls: Sequence[str] = CONTROLS,
    exact_every: int = 0,
    data_dir: Path | None = None,
) -> dict[str, Trial]:
    """Learn C and ρ on one draw by each K, and run the controls.

    Parameters
    ----------
    setting : Setting
        What to draw, and how to learn.
    seed : int
        Of the draw.
    Ks : sequence of int
        Depths; T = 100 is the full gradient. The controls that take a learned C take that of the
        largest.
    controls : sequence of str
        Some of `CONTROLS`.
    exact_every : int
        Also compute the exact gradient every so many updates; 0 only at the end.
    data_dir : Path, optional
        Where the data lie.

    Returns
    -------
    dict of str to Trial
        By ``"none"``, ``"K1"``, …, ``"permuted"``, ``"row sums"``.
    """
    judge = Judge.of(setting, seed, data_dir)
    found: dict[str, Trial] = {}
    if "none" in controls:
        found["none"] = judge.learn(setting, judge.problem.T, exact_every, interact=False)
    for K in Ks:
        found[f"K{K}"] = judge.learn(setting, K, exact_every)
    if Ks:
        lam = np.array(found[f"K{max(Ks)}"].lam, judge.problem.lam0.dtype)
        C = interactions(lam)
        if "permuted" in controls:
            found["permuted"] = judge.fixed(permuted(C, seed), lam[-1])
        if "row sums" in controls:
            found["row sums"] = judge.fixed(same_row_sums(C), lam[-1])
    return found


@dataclass(frozen=True)
class Judge:
    """The problem of one draw, and what a λ scores on it.

    Attributes
    ----------
    problem : BilevelProblem
        That of `tinybilevel.problems.task_interaction`, with fewer columns where there are fewer
        rows than features.
    split : Split
        The examples, in the same columns.
    pool : Pool
        Where they are from.
    """

    problem: BilevelProblem
    split: data.Split
    pool: data.Pool

    @classmethod
    def of(cls, setting: Setting, seed: int, data_dir: Path | None) -> Judge:
        """Draw, and set up the problem."""
        split, pool = draw(setting, seed, data_dir)
        if len(split.X_train) < split.X_train.shape[1]:
            rows = RowSpace(split.X_train)
            split = dataclasses.replace(
                split,
                X_train=rows.reduce(split.X_train),
                X_val=rows.reduce(split.X_val),
                X_test=rows.reduce(split.X_test),
            )
        problem = task_interaction(
            split.X_train,
            split.y_train,
            split.X_val,
            split.y_val,
            n_classes=len(pool.class_names),
        )
        return cls(problem, split, pool)

    def test_accuracy(self, w: Array) -> float:
        return _accuracy(w, self.split.X_test, self.split.y_test)

    def validation_accuracy(self, w: Array) -> float:
        return _accuracy(w, self.split.X_val, self.split.y_val)

    def row_bound(self, lam: Array) -> float:
        """Return γ(β + 2ρ + 8 max row sum of C)."""
        phi = cast(InteractionMap, self.problem.hyper_map)
        return phi.step_bound(np.append(interactions(lam), lam[-1]))

    def upper_bounds(self, interact: bool = True) -> Array:
        """Return what λ may be at most: anything, or C = 0."""
        most = np.full_like(self.problem.lam0, np.inf)
        if not interact:
            most[:-1] = 0
        return most

    def learn(
        self, setting: Setting, K: int, exact_every: int = 0, *, interact: bool = True
    ) -> Trial:
        """Learn C and ρ, or ρ alone."""
        problem, most = self.problem, self.upper_bounds(interact)
        best: dict[str, Any] = {"accuracy": -1.0, "loss": np.inf}
        curve: list[dict[str, float]] = []
        bound = 0.0

        def watch(step: Progress) -> None:
            nonlocal bound
            r, lam = step.hypergradient, step.lam
            bound = max(bound, self.row_bound(lam))
            if (accuracy := self.validation_accuracy(r.w)) > best["accuracy"]:
                best.update(accuracy=accuracy, w=r.w, lam=lam)
            if r.value < best["loss"]:
                best.update(loss=r.value, w_loss=r.w)
            entry = {"iteration": step.iteration, "loss": r.value}
            if exact_every and (step.iteration - 1) % exact_every == 0:
                exact = r.grad if problem.T == K else RMD()(problem, lam).grad
                entry |= _compare(lam, r.grad, exact, most)
            curve.append(entry)

        result = minimize(
            problem,
            method=KRMD(K=K),
            optimizer=Adam(setting.lr),
            iterations=setting.iterations,
            bounds=(np.zeros_like(most), most),
            callback=watch,
        )
        exact = RMD()(problem, result.lam)
        return Trial(
            accuracy=self.test_accuracy(best["w"]),
            accuracy_best_loss=self.test_accuracy(best["w_loss"]),
            accuracy_last=self.test_accuracy(result.w),
            best_loss=min(best["loss"], result.value),
            projected_norm=projected_norm(result.lam, exact.grad, most),
            row_bound=bound,
            seconds=float(result.history["seconds"][-1]),
            lam=np.asarray(best["lam"], float).tolist(),
            curve=curve,
        )

    def fixed(self, C: Array, rho: Any) -> Trial:
        """Judge a λ that was not learned here."""
        upper = C[np.triu_indices(len(C), 1)]
        lam = np.append(upper, rho).astype(self.problem.lam0.dtype)
        r = KRMD(K=0)(self.problem, lam)
        return Trial(self.test_accuracy(r.w), best_loss=r.value, lam=lam.tolist())


def _accuracy(w: Array, X: Array, y: Array) -> float:
    X = append_bias(X)
    return float(np.mean(np.argmax(X @ w.reshape(-1, X.shape[1]).T, axis=1) == y))


def projected_norm(lam: Array, grad: Array, most: Array) -> float:
    """Return the norm of the part of a gradient that the bounds leave."""
    return float(np.linalg.norm(grad[free(lam, grad, most)]))


def free(lam: Array, grad: Array, most: Array) -> Array:
    """Return which λ_i a step along −grad may move: not those it would push out of their bounds."""
    return ((lam > 0) | (grad < 0)) & ((lam < most) | (grad > 0))


def _compare(lam: Array, grad: Array, exact: Array, most: Array) -> dict[str, float]:
    """Return the projected norm of the exact gradient, and the cosines with the truncated one."""
    moves = free(lam, exact, most)
    return {
        "projected_norm": projected_norm(lam, exact, most),
        "cosine_free": _cosine(grad[moves], exact[moves]),
        "cosine": _cosine(grad, exact),
    }


def _cosine(a: Array, b: Array) -> float:
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else float("nan")


def permuted(C: Array, seed: int) -> Array:
    """Return the same numbers between the wrong pairs."""
    order = np.random.default_rng([1, seed]).permutation(len(C))
    return C[np.ix_(order, order)]


def same_row_sums(C: Array) -> Array:
    """Return the symmetric matrix x_i x_j, zero on its diagonal, with the row sums r of C.

    By balancing, as of Sinkhorn and Knopp 1967 for symmetric matrices: x_i ← x_i √(r_i / row sum).
    """
    r = C.sum(axis=1, dtype=np.float64)
    x = np.sqrt(r)
    for _ in range(1000):
        rows = x * (x.sum() - x)
        x = x * np.sqrt(np.divide(r, rows, out=np.zeros_like(r), where=rows > 0))
    D = np.outer(x, x)
    np.fill_diagonal(D, 0)
    return D.astype(C.dtype)


def relations(C: Array, pool: data.Pool, top: int = 10) -> dict[str, Any]:
    """Say which pairs of classes got weight.

    Returns
    -------
    dict
        ``pairs`` and ``pairs_above_0``, numbers of pairs i < j; ``mean_C``, and where there are
        superclasses ``mean_C_within`` and ``mean_C_between`` them; ``top``, the pairs of largest
        C_ij as (name, name, C_ij).
    """
    i, j = np.triu_indices(len(C), 1)
    c = C[i, j].astype(float)
    found = {"pairs": len(c), "pairs_above_0": int((c > 0).sum()), "mean_C": float(c.mean())}
    if pool.superclasses is not None:
        above = np.array(pool.superclasses)
        within = above[i] == above[j]
        found |= {"mean_C_within": float(c[within].mean())}
        found |= {"mean_C_between": float(c[~within].mean())}
    names = pool.class_names
    largest = [k for k in np.argsort(-c, kind="stable")[:top] if c[k] > 0]
    return found | {"top": [(names[i[k]], names[j[k]], float(c[k])) for k in largest]}
