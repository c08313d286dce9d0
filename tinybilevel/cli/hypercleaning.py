"""``tinybilevel run hypercleaning``: the main job, from labels to the list of rejected ones."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np

from tinybilevel import data
from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.cli import figures
from tinybilevel.cli.arguments import kept_warnings
from tinybilevel.cli.folder import Folder, peak_memory_mb, table, write_json
from tinybilevel.compiled import CompiledProblem, compile
from tinybilevel.engine.stability import check
from tinybilevel.errors import (
    ConvergenceWarning,
    DerivativeWarning,
    StabilityWarning,
    TruncationWarning,
)
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.objectives import L2Penalty, SoftmaxRegression
from tinybilevel.outer import Progress, minimize
from tinybilevel.outer.checkpoint import save_arrays
from tinybilevel.outer.optimizers import Adam
from tinybilevel.problem import BilevelProblem
from tinybilevel.problems import append_bias, hypercleaning, rejected
from tinybilevel.transitions import GradientDescent

__all__ = ["Config", "Result", "computed", "run", "scores"]

REGULARIZATION = 1e-3

_LOADERS: dict[str, Callable[..., data.Dataset]] = {
    "digits": data.digits,
    "mnist": data.mnist,
    "fashion": data.fashion_mnist,
}


@dataclass(frozen=True)
class Config:
    """Settings of one run; λ_1 = 0, 5000 + 5000 examples (600 + 600 for the digits), float32.

    `device` is "cpu", or "gpu" for the compiled loop on CuPy's arrays; `step_size` is γ,
    or "auto" for 1/β with β measured at w_0.
    """

    data: str = "digits"
    K: int = 5
    T: int = 100
    iterations: int = 1000
    noise: float = 0.5
    seed: int = 0
    lr: float = 0.3
    step_size: float | str = 1.0
    exact_every: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes
    ----------
    test_accuracy, validation_accuracy : float
        Shares in [0, 1] of the classifier ŵ* that the cleaned data train.
    test_accuracy_uncleaned : float
        That of the classifier of all training rows with equal weights ½, by the same T and γ.
    test_accuracy_clean_rows : float
        That of the classifier of the clean validation rows alone, at weight 1, by the same T and γ.
    validation_loss : float
        The upper-level objective, mean cross-entropy.
    rejected, corrupted, rejected_and_corrupted : int
        How many examples are rejected (λ_i < −3), have a wrong label, and both.
    precision, recall, f1 : float or None
        Of the rejected examples; the positive class is "corrupted". None where it is 0/0.
    iterations : int
        Updates of λ, earlier parts of a resumed run included.
    step_size : float
        γ of the lower level.
    compiled : bool
        Whether it was a compiled loop that ran, see `computed`; after a resume, in the last part.
    warnings : list of str
        What the run warned of.
    seconds : float
        Wall-clock time of the outer loop, earlier parts of a resumed run included.
    peak_memory_mb : float
        Peak resident memory of the process, data and imports included.
    """

    test_accuracy: float
    test_accuracy_uncleaned: float
    test_accuracy_clean_rows: float
    validation_accuracy: float
    validation_loss: float
    rejected: int
    corrupted: int
    rejected_and_corrupted: int
    precision: float | None
    recall: float | None
    f1: float | None
    iterations: int
    step_size: float
    compiled: bool
    warnings: list[str]
    seconds: float
    peak_memory_mb: float


def run(
    config: Config,
    out: Path,
    *,
    data_dir: Path | None = None,
    resume: bool = False,
    progress: bool = False,
    allow_unstable: bool = False,
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
    allow_unstable : bool
        Warn of a step size beyond what the curvature allows, rather than refuse it.

    Returns
    -------
    Result

    Raises
    ------
    StabilityWarning
        If γ is beyond 2/β at w_0 or w_T, at equal weights, and not `allow_unstable`: the lower
        level does not settle, and what it is differentiated at means nothing.
    """
    kinds = (ConvergenceWarning, DerivativeWarning, StabilityWarning, TruncationWarning)
    with kept_warnings(*kinds) as warned:
        return _run(config, out, data_dir, resume, progress, allow_unstable, warned)


def _run(
    config: Config,
    out: Path,
    data_dir: Path | None,
    resume: bool,
    progress: bool,
    allow_unstable: bool,
    warned: list[str],
) -> Result:
    load = _LOADERS[config.data]
    dataset = load() if config.data == "digits" else load(data_dir)
    rng = np.random.default_rng(config.seed)
    split = dataset.split(seed=rng)
    y, corrupted = data.corrupt_labels(split.y_train, config.noise, len(dataset.class_names), rng)
    problem = _problem(split, y, config)
    with warnings.catch_warnings():
        if not allow_unstable:
            warnings.simplefilter("error", StabilityWarning)
        check(problem)
    there = computed(problem, config.device)
    compiled = isinstance(there, CompiledProblem)
    method = KRMD(K=config.K)
    method.cost(problem)  # refuses a K that T does not allow before anything is written
    figures.require_matplotlib()
    folder = Folder(out, config, resume=resume, compiled=compiled)

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
        iterations=folder.iterations,
        callback=log,
        progress=progress,
        checkpoint=folder.checkpoint,
        resume=resume,
    )
    loss = cast(SoftmaxRegression, problem.upper)
    guess = float(np.log(loss.n_classes))
    if r.value > guess:
        warnings.warn(
            f"the validation loss ended at {r.value:.3g}, above the {guess:.3g} of a classifier "
            "that knows nothing: the lower level does not settle with this step size",
            StabilityWarning,
            stacklevel=2,
        )
    lam, w = to_numpy(r.lam), to_numpy(r.w)
    marked = rejected(lam)

    def test_accuracy(w: Array) -> float:
        return _accuracy(loss.predict(w, append_bias(split.X_test)), split.y_test)

    with warnings.catch_warnings():
        # At weight 1 the curvature is twice that of the run, whose step size this is about.
        warnings.simplefilter("ignore", StabilityWarning)
        clean = KRMD(K=0)(_clean_rows(problem)).w
    result = Result(
        test_accuracy=test_accuracy(w),
        test_accuracy_uncleaned=test_accuracy(KRMD(K=0)(problem).w),
        test_accuracy_clean_rows=test_accuracy(clean),
        validation_accuracy=_accuracy(loss.predict(w, loss.X), split.y_val),
        validation_loss=r.value,
        rejected=int(marked.sum()),
        corrupted=int(corrupted.sum()),
        rejected_and_corrupted=int((marked & corrupted).sum()),
        **scores(marked, corrupted),
        iterations=r.iterations,
        step_size=_gamma(problem),
        compiled=compiled,
        warnings=warned,
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
        print(_report(config, result, len(split.y_val)))
        print(f"\nwritten to {out}/")
    return result


def _problem(split: data.Split, y: Array, config: Config) -> BilevelProblem:
    gamma = config.step_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)  # `check` looks at w_T as well
        return hypercleaning(
            split.X_train,
            y,
            split.X_val,
            split.y_val,
            T=config.T,
            step_size=gamma if gamma == "auto" else float(gamma),
            regularization=REGULARIZATION,
        )


def computed(problem: BilevelProblem, device: str = "cpu") -> BilevelProblem:
    """Return the problem as it is run on a device: compiled, on a CPU where Numba is installed.

    Without Numba it is the problem itself, step by step in NumPy; the numbers differ by rounding.
    """
    if device == "cpu" and find_spec("numba") is None:
        return problem
    return compile(problem if device == "cpu" else problem.to("cupy"))


def _gamma(problem: BilevelProblem) -> float:
    return float(cast(GradientDescent, problem.transition).step_size(0, problem.lam0))


def _clean_rows(problem: BilevelProblem) -> BilevelProblem:
    """Return the problem of a classifier that the validation rows alone train, at weight 1."""
    loss = cast(SoftmaxRegression, problem.upper)
    penalty = (1.0 / len(loss.y)) * L2Penalty(REGULARIZATION)
    w0 = np.zeros_like(loss.X, shape=loss.size)
    descent = GradientDescent(loss + penalty, _gamma(problem), initial=w0)
    return BilevelProblem(descent, upper=loss, T=problem.T, lam0=np.zeros_like(w0, shape=1))


def scores(marked: Array, corrupted: Array) -> dict[str, float | None]:
    """Return what the rejected examples score; the positive class is "corrupted"."""
    hits = int((marked & corrupted).sum())

    def ratio(numerator: int, denominator: int) -> float | None:
        return float(numerator / denominator) if denominator else None

    return {
        "precision": ratio(hits, int(marked.sum())),
        "recall": ratio(hits, int(corrupted.sum())),
        "f1": ratio(2 * hits, int(marked.sum()) + int(corrupted.sum())),
    }


def _accuracy(predicted: Array, y: Array) -> float:
    return float(np.mean(predicted == y))


def _report(config: Config, result: Result, n_clean: int) -> str:
    def score(x: float | None) -> str:
        return "0/0" if x is None else f"{x:.3f}"

    hits = result.rejected_and_corrupted
    rows = [
        ("test accuracy, cleaned", f"{result.test_accuracy:.2%}"),
        ("  without cleaning, all weights ½", f"{result.test_accuracy_uncleaned:.2%}"),
        (f"  of the {n_clean} clean rows alone", f"{result.test_accuracy_clean_rows:.2%}"),
        ("validation accuracy", f"{result.validation_accuracy:.2%}"),
        ("validation loss", f"{result.validation_loss:.4f}"),
        ('rejected labels, positive class "corrupted"', ""),
        (f"  precision, {hits} of {result.rejected} rejected", score(result.precision)),
        (f"  recall, {hits} of {result.corrupted} corrupted", score(result.recall)),
        ("  F1", score(result.f1)),
        ("step size γ", f"{result.step_size:.3g}"),
        (f"seconds, {'compiled' if result.compiled else 'step by step'}", f"{result.seconds:.1f}"),
        ("peak memory", f"{result.peak_memory_mb:.0f} MB"),
    ]
    title = f"hypercleaning, {config.data}, K = {config.K}, {result.iterations} iterations"
    return table((title, ""), rows)
