"""``tinybilevel run hypercleaning``: the main job, from labels to the list of rejected ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from tinybilevel import data
from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.cli import figures
from tinybilevel.cli.folder import Folder, peak_memory_mb, table, write_json
from tinybilevel.compiled.compile import compile
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.objectives import SoftmaxRegression
from tinybilevel.outer.checkpoint import save_arrays
from tinybilevel.outer.minimize import Progress, minimize
from tinybilevel.outer.optimizers import Adam
from tinybilevel.problems import append_bias, hypercleaning, rejected

__all__ = ["Config", "Result", "run"]

_LOADERS: dict[str, Callable[..., data.Dataset]] = {
    "digits": data.digits,
    "mnist": data.mnist,
    "fashion": data.fashion_mnist,
}


@dataclass(frozen=True)
class Config:
    """Settings of one run; λ_1 = 0, 5000 + 5000 examples (600 + 600 for the digits), float32.

    `device` is "cpu", or "gpu" for the compiled loop on CuPy's arrays.
    """

    data: str = "digits"
    K: int = 5
    T: int = 100
    iterations: int = 1000
    noise: float = 0.5
    seed: int = 0
    lr: float = 0.3
    step_size: float = 1.0
    exact_every: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes
    ----------
    test_accuracy, validation_accuracy : float
        Shares in [0, 1] of the classifier ŵ* that the cleaned data train.
    validation_loss : float
        The upper-level objective, mean cross-entropy.
    f1 : float
        F1 of the rejected examples (λ_i < −3); the positive class is "corrupted".
    seconds : float
        Wall-clock time of the outer loop, earlier parts of a resumed run included.
    peak_memory_mb : float
        Peak resident memory of the process, data and imports included.
    """

    test_accuracy: float
    validation_accuracy: float
    validation_loss: float
    f1: float
    seconds: float
    peak_memory_mb: float


def run(
    config: Config,
    out: Path,
    *,
    data_dir: Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Result:
    """Clean the training labels of a data set, and write all that was found to a folder.

    Parameters
    ----------
    config : Config
        What to run.
    out : Path
        Folder for ``config.json``, ``metrics.jsonl``, ``checkpoint.npz``, ``lam.npz``,
        ``result.json``, ``learning_curve.png`` and ``rejected.png``.
    data_dir : Path, optional
        Where the data set lies; see `tinybilevel.data`.
    resume : bool
        Continue the run that `out` holds.
    progress : bool
        Show a progress bar and print the final table.

    Returns
    -------
    Result
    """
    load = _LOADERS[config.data]
    dataset = load() if config.data == "digits" else load(data_dir)
    rng = np.random.default_rng(config.seed)
    split = dataset.split(seed=rng)
    y, corrupted = data.corrupt_labels(split.y_train, config.noise, len(dataset.class_names), rng)
    problem = hypercleaning(
        split.X_train, y, split.X_val, split.y_val, T=config.T, step_size=config.step_size
    )
    there = problem if config.device == "cpu" else compile(problem.to("cupy"))
    method = KRMD(K=config.K)
    method.cost(problem)  # refuses a K that T does not allow before anything is written
    figures.require_matplotlib()
    folder = Folder(out, config, resume=resume)

    def log(step: Progress) -> None:
        r = step.hypergradient
        entry = {
            "iteration": step.iteration,
            "validation_loss": r.value,
            "grad_norm": float(np.linalg.norm(r.grad)),
        }
        if config.exact_every and (step.iteration - 1) % config.exact_every == 0:
            exact = r if config.K == config.T else RMD()(there, step.lam)
            entry["exact_grad_norm"] = float(np.linalg.norm(exact.grad))
        folder.log(entry)

    r = minimize(
        there,
        method=method,
        optimizer=Adam(config.lr),
        iterations=config.iterations,
        callback=log,
        progress=progress,
        checkpoint=folder.checkpoint,
        resume=resume,
    )
    loss = cast(SoftmaxRegression, problem.upper)
    lam, w = to_numpy(r.lam), to_numpy(r.w)
    marked = rejected(lam)
    result = Result(
        test_accuracy=_accuracy(loss.predict(w, append_bias(split.X_test)), split.y_test),
        validation_accuracy=_accuracy(loss.predict(w, loss.X), split.y_val),
        validation_loss=r.value,
        f1=f1(marked, corrupted),
        seconds=float(r.history["seconds"][-1]) if r.iterations else 0.0,
        peak_memory_mb=peak_memory_mb(),
    )
    save_arrays(
        out / "lam.npz",
        {
            "lam": lam,
            "w": w,
            "labels": y,
            "true_labels": split.y_train,
            "train_index": split.train_index,
        },
    )
    figures.learning_curve(out / "learning_curve.png", folder.lines())
    figures.rejected_grid(
        out / "rejected.png",
        split.X_train.reshape(-1, *dataset.image_shape),
        lam,
        y,
        split.y_train,
    )
    write_json(out / "result.json", dataclasses.asdict(result))
    if progress:
        print(_report(config, result, int(marked.sum()), int(corrupted.sum())))
        print(f"\nwritten to {out}/")
    return result


def f1(marked: Array, corrupted: Array) -> float:
    """Return the F1 score of the rejected examples; the positive class is "corrupted"."""
    from sklearn.metrics import f1_score

    return float(f1_score(corrupted, marked, pos_label=True, zero_division=0.0))


def _accuracy(predicted: Array, y: Array) -> float:
    return float(np.mean(predicted == y))


def _report(config: Config, result: Result, n_marked: int, n_corrupted: int) -> str:
    rows = [
        ("test accuracy", f"{result.test_accuracy:.2%}"),
        ("validation accuracy", f"{result.validation_accuracy:.2%}"),
        ("validation loss", f"{result.validation_loss:.4f}"),
        ('F1 (positive class "corrupted")', f"{result.f1:.3f}"),
        ("examples rejected / corrupted", f"{n_marked} / {n_corrupted}"),
        ("seconds", f"{result.seconds:.1f}"),
        ("peak memory", f"{result.peak_memory_mb:.0f} MB"),
    ]
    title = f"hypercleaning, {config.data}, K = {config.K}, {config.iterations} iterations"
    return table((title, ""), rows)
