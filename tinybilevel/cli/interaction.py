"""One trial of task interaction: methods and controls on one draw of data, and what they score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel import data
from tinybilevel.arrays.backend import Array
from tinybilevel.data.pool import Pool
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.outer.minimize import Progress, minimize
from tinybilevel.outer.optimizers import Adam
from tinybilevel.problem import BilevelProblem
from tinybilevel.problems import RowSpace, append_bias, interactions, task_interaction

__all__ = ["CONTROLS", "SETTINGS", "Setting", "Trial", "free", "same_row_sums", "trial"]

#: What is compared with learned interactions: none; the same numbers between the wrong pairs; a
#: matrix with the same row sums and no more structure than they have.
CONTROLS = ("none", "permuted", "row sums")


@dataclass(frozen=True)
class Setting:
    """Data, how a trial draws from them, and how λ is learned.

    Parameters
    ----------
    data : str
        Name of the pool, a key of `_POOLS`.
    n_train, n_val : int
        Examples drawn for each; the rest is for testing.
    balanced : bool
        As many of each class.
    norm : float
        Length of each row of features.
    lr : float
        Rate of the outer Adam, whose λ is projected to λ ≥ 0.
    iterations : int
        Updates of λ.
    """

    data: str
    n_train: int
    n_val: int
    balanced: bool
    norm: float = 20.0
    lr: float = 1e-3
    iterations: int = 150


#: The settings of the table, by name.
SETTINGS = {
    "cifar10": Setting("cifar10", 50, 50, balanced=False),
    "cifar10-balanced": Setting("cifar10", 50, 50, balanced=True),
    "cifar100": Setting("cifar100", 300, 300, balanced=False, lr=3e-4, iterations=50),
    "cifar100-balanced": Setting("cifar100", 300, 300, balanced=True, lr=3e-4, iterations=50),
    "mnist": Setting("mnist", 50, 50, balanced=True, norm=15.0),
    "fashion": Setting("fashion", 50, 50, balanced=True, norm=15.0),
    "omniglot": Setting("omniglot", 60, 60, balanced=True, norm=15.0),
    "digits": Setting("digits", 50, 50, balanced=True, norm=15.0),
}


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


@lru_cache(maxsize=2)
def _pool(name: str, norm: float, data_dir: Path | None) -> Pool:
    if name in ("cifar10", "cifar100"):
        features = data.cifar10_features if name == "cifar10" else data.cifar100_features
        return features(data_dir).normalized(norm)
    load: Callable[..., Any] = {
        "mnist": data.mnist,
        "fashion": data.fashion_mnist,
        "digits": lambda _: data.digits(),
    }[name]
    return Pool.of(load(data_dir)).normalized(norm)


@lru_cache(maxsize=1)
def _characters(data_dir: Path | None) -> data.Characters:
    return data.omniglot(data_dir)


def draw(setting: Setting, seed: int, data_dir: Path | None) -> tuple[data.Split, Pool]:
    """Return a trial's split, and the pool that it is from."""
    if setting.data != "omniglot":
        pool = _pool(setting.data, setting.norm, data_dir)
    else:
        pool = _two_alphabets(_characters(data_dir), seed).normalized(setting.norm)
    counts = setting.n_train, setting.n_val
    return pool.draw(*counts, balanced=setting.balanced, seed=seed), pool


def _two_alphabets(characters: data.Characters, seed: int) -> Pool:
    """Return ten characters of each of two alphabets, twenty drawings each, as pixels."""
    rng = np.random.default_rng([2, seed])
    names = np.array(characters.alphabets)
    large = [name for name in np.unique(names) if (names == name).sum() >= 10]
    chosen = rng.choice(large, 2, replace=False)
    rows = [rng.choice(np.flatnonzero(names == a), 10, replace=False) for a in chosen]
    part = characters.take(np.concatenate(rows))
    images = part.images.reshape(20 * 20, -1)
    return Pool(
        "omniglot",
        np.divide(images, 255, dtype=np.float32),
        np.repeat(np.arange(20), 20),
        tuple(f"{a} {c}" for a, c in zip(part.alphabets, part.characters, strict=True)),
        part.alphabets,
    )


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
    split, pool = draw(setting, seed, data_dir)
    rows = RowSpace(split.X_train) if len(split.X_train) < split.X_train.shape[1] else None
    X, X_val, X_test = (
        part if rows is None else rows.reduce(part)
        for part in (split.X_train, split.X_val, split.X_test)
    )
    V = len(pool.class_names)
    problem = task_interaction(X, split.y_train, X_val, split.y_val, n_classes=V)
    test = append_bias(X_test), split.y_test
    val = append_bias(X_val), split.y_val
    beta = 0.5 * float(np.linalg.norm(append_bias(X), 2) ** 2 / len(X))
    run = _Run(problem, setting, val, test, beta, exact_every)
    found: dict[str, Trial] = {}
    if "none" in controls:
        found["none"] = run.learn(problem.T, interact=False)
    for K in Ks:
        found[f"K{K}"] = run.learn(K)
    if Ks:
        lam = np.array(found[f"K{max(Ks)}"].lam, problem.lam0.dtype)
        C = interactions(lam)
        if "permuted" in controls:
            order = np.random.default_rng([1, seed]).permutation(V)
            found["permuted"] = run.fixed(C[np.ix_(order, order)], lam[-1])
        if "row sums" in controls:
            found["row sums"] = run.fixed(same_row_sums(C), lam[-1])
    return found


@dataclass(frozen=True)
class _Run:
    """One problem, and how a λ or a run on it is judged."""

    problem: BilevelProblem
    setting: Setting
    val: tuple[Array, Array]
    test: tuple[Array, Array]
    beta: float
    exact_every: int

    def accuracy(self, w: Array, part: tuple[Array, Array]) -> float:
        X, y = part
        W = w.reshape(-1, X.shape[1])
        return float(np.mean(np.argmax(X @ W.T, axis=1) == y))

    def stability(self, lam: Array) -> float:
        """Return γ(β + 2ρ + 8 max row sum of C)."""
        rows = float(interactions(lam).sum(axis=1).max())
        return 0.1 * (self.beta + 2 * float(lam[-1]) + 8 * rows)

    def learn(self, K: int, interact: bool = True) -> Trial:
        problem, s = self.problem, self.setting
        most = np.full_like(problem.lam0, np.inf)
        if not interact:
            most[:-1] = 0
        best: dict[str, Any] = {"accuracy": -1.0, "loss": np.inf}
        curve: list[dict[str, float]] = []
        bound = 0.0

        def watch(step: Progress) -> None:
            nonlocal bound
            r, lam = step.hypergradient, step.lam
            bound = max(bound, self.stability(lam))
            if (accuracy := self.accuracy(r.w, self.val)) > best["accuracy"]:
                best.update(accuracy=accuracy, w=r.w, lam=lam)
            if r.value < best["loss"]:
                best.update(loss=r.value, w_loss=r.w)
            entry = {"iteration": step.iteration, "loss": r.value}
            if self.exact_every and (step.iteration - 1) % self.exact_every == 0:
                exact = r.grad if problem.T == K else RMD()(problem, lam).grad
                entry |= _compare(lam, r.grad, exact, most)
            curve.append(entry)

        result = minimize(
            problem,
            method=KRMD(K=K),
            optimizer=Adam(s.lr),
            iterations=s.iterations,
            bounds=(np.zeros_like(most), most),
            callback=watch,
        )
        exact = RMD()(problem, result.lam)
        return Trial(
            accuracy=self.accuracy(best["w"], self.test),
            accuracy_best_loss=self.accuracy(best["w_loss"], self.test),
            accuracy_last=self.accuracy(result.w, self.test),
            best_loss=min(best["loss"], result.value),
            projected_norm=float(np.linalg.norm(exact.grad[free(result.lam, exact.grad, most)])),
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
        return Trial(self.accuracy(r.w, self.test), best_loss=r.value, lam=lam.tolist())


def free(lam: Array, grad: Array, most: Array) -> Array:
    """Return which λ_i a step along −grad may move: not those it would push out of their bounds."""
    return ((lam > 0) | (grad < 0)) & ((lam < most) | (grad > 0))


def _compare(lam: Array, grad: Array, exact: Array, most: Array) -> dict[str, float]:
    """Return the projected norm of the exact gradient, and the cosines with the truncated one."""
    moves = free(lam, exact, most)
    return {
        "projected_norm": float(np.linalg.norm(exact[moves])),
        "cosine_free": _cosine(grad[moves], exact[moves]),
        "cosine": _cosine(grad, exact),
    }


def _cosine(a: Array, b: Array) -> float:
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else float("nan")


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
