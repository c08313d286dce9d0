"""``tinybilevel run task-interaction``: learn which linear models should resemble."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.cli import figures
from tinybilevel.cli.arguments import kept_warnings
from tinybilevel.cli.draws import Setting
from tinybilevel.cli.folder import Folder, peak_memory_mb, table, write_json
from tinybilevel.cli.interaction import Judge, permuted, projected_norm, relations, same_row_sums
from tinybilevel.errors import ConvergenceWarning, StabilityWarning
from tinybilevel.methods.unrolled import KRMD
from tinybilevel.outer import Progress, minimize
from tinybilevel.outer.checkpoint import save_arrays
from tinybilevel.outer.optimizers import Adam
from tinybilevel.problems import InteractionMap, interactions

__all__ = ["Config", "Result", "run"]


@dataclass(frozen=True)
class Config(Setting):
    """Settings of one run, from C = 0 and ρ = 0; T = 100 steps with γ = 0.1.

    `project` keeps the row sums of C where every step is stable.
    """

    data: str = "digits"
    n_train: int = 50
    n_val: int = 50
    balanced: bool = True
    norm: float = 15.0
    K: int = 100
    seed: int = 0
    project: bool = False


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes
    ----------
    test_accuracy, validation_accuracy : float
        Shares at the iterate of best validation accuracy, the first among ties.
    test_accuracy_best_loss, test_accuracy_last : float
        At the iterate of lowest validation loss, and at the last.
    test_accuracy_no_interaction : float
        With C = 0 and ρ learned by the exact hypergradient.
    test_accuracy_permuted, test_accuracy_row_sums : float
        With the learned numbers between the wrong pairs, and with a C of the same row sums and no
        more structure than they have.
    validation_loss : float
        The lowest mean cross-entropy on the validation set.
    rho : float
        ρ at the iterate of best validation accuracy.
    relations : dict
        Which pairs got weight there, as `tinybilevel.cli.interaction.relations` says.
    row_bound : float
        Largest γ(β + 2ρ + 8 max row sum of C) met; below 2 every step is stable.
    iterations : int
        Updates of λ, earlier parts of a resumed run included.
    warnings : list of str
        What the run warned of.
    seconds : float
        Wall-clock time of the outer loop, earlier parts of a resumed run included.
    peak_memory_mb : float
        Peak resident memory of the process, data and imports included.
    """

    test_accuracy: float
    test_accuracy_best_loss: float
    test_accuracy_last: float
    test_accuracy_no_interaction: float
    test_accuracy_permuted: float
    test_accuracy_row_sums: float
    validation_accuracy: float
    validation_loss: float
    rho: float
    relations: dict[str, Any]
    row_bound: float
    iterations: int
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
) -> Result:
    """Learn C and ρ on one draw, judge them beside the controls, and write it all to a folder.

    Parameters
    ----------
    config : Config
        What to run.
    out : Path
        Folder for ``config.json``, ``metrics.jsonl``, ``checkpoint.npz``, ``lam.npz``,
        ``result.json``, ``learning_curve.png``, ``interaction.png`` and ``interaction.svg``.
    data_dir : Path, optional
        Where the data set lies; see `tinybilevel.data`.
    resume : bool
        Continue the run that `out` holds.
    progress : bool
        Show a progress bar and print the final table.

    Returns
    -------
    Result

    Warns
    -----
    StabilityWarning
        Once, where the row sums of C leave what is known to be stable.
    """
    with kept_warnings(ConvergenceWarning, StabilityWarning) as warned:
        # The map says it at each λ, in other numbers each time; once is enough.
        warnings.filterwarnings("ignore", "the steps may grow", StabilityWarning)
        return _run(config, out, data_dir, resume, progress, warned)


def _run(
    config: Config,
    out: Path,
    data_dir: Path | None,
    resume: bool,
    progress: bool,
    warned: list[str],
) -> Result:
    judge = Judge.of(config, config.seed, data_dir)
    problem, most, method = judge.problem, judge.upper_bounds(), KRMD(K=config.K)
    method.cost(problem)  # refuses a K that T does not allow before anything is written
    project = cast(InteractionMap, problem.hyper_map).project if config.project else None
    if project is not None:
        project(problem.lam0)  # refuses a norm that leaves no room for any C
    figures.require_matplotlib()
    folder = Folder(out, config, resume=resume)
    grows: list[int] = []

    def log(step: Progress) -> None:
        r, lam = step.hypergradient, step.lam
        entry = {
            "iteration": step.iteration,
            "validation_loss": r.value,
            "validation_accuracy": judge.validation_accuracy(r.w),
            "grad_norm": projected_norm(lam, r.grad, most),
            "rho": float(lam[-1]),
            "row_bound": judge.row_bound(lam),
        }
        if entry["row_bound"] >= 2 and not grows:
            grows.append(step.iteration)
            warnings.warn(
                f"γ (β + 2ρ + 8 max row sum of C) is {entry['row_bound']:.3g} at update "
                f"{step.iteration}, not below 2, so that steps may grow: --project keeps it below, "
                "and a smaller --norm or --lr may",
                StabilityWarning,
                stacklevel=2,
            )
        folder.log(entry)

    r = minimize(
        problem,
        method=method,
        optimizer=Adam(config.lr),
        iterations=folder.iterations,
        projection=project,
        callback=log,
        progress=progress,
        checkpoint=folder.checkpoint,
        resume=resume,
        keep_lam=True,
    )
    lines = folder.lines()
    tried = [*r.history["lam"], r.lam]
    accuracies = [line["validation_accuracy"] for line in lines]
    losses = [*(line["validation_loss"] for line in lines), r.value]
    best = int(np.argmax([*accuracies, judge.validation_accuracy(r.w)]))

    def weights(lam: Array) -> Array:
        return KRMD(K=0)(problem, lam).w

    lam, w = tried[best], weights(tried[best])
    C = interactions(lam)
    result = Result(
        test_accuracy=judge.test_accuracy(w),
        test_accuracy_best_loss=judge.test_accuracy(weights(tried[int(np.argmin(losses))])),
        test_accuracy_last=judge.test_accuracy(r.w),
        test_accuracy_no_interaction=judge.learn(config, problem.T, interact=False).accuracy,
        test_accuracy_permuted=judge.fixed(permuted(C, config.seed), lam[-1]).accuracy,
        test_accuracy_row_sums=judge.fixed(same_row_sums(C), lam[-1]).accuracy,
        validation_accuracy=judge.validation_accuracy(w),
        validation_loss=min(losses),
        rho=float(lam[-1]),
        relations=relations(C, judge.pool),
        row_bound=max([judge.row_bound(r.lam), *(line["row_bound"] for line in lines)]),
        iterations=r.iterations,
        warnings=warned,
        seconds=float(r.history["seconds"][-1]) if r.iterations else 0.0,
        peak_memory_mb=peak_memory_mb(),
    )
    save_arrays(
        out / "lam.npz",
        {
            "lam": lam,
            "w": w,
            "C": C,
            "class_names": np.array(judge.pool.class_names),
            "train_index": judge.split.train_index,
        },
    )
    figures.learning_curve(out / "learning_curve.png", lines, "projected hypergradient")
    figures.interaction(
        out / "interaction",
        C,
        judge.pool.class_names,
        judge.pool.superclasses,
        f"Learned C, {judge.pool.name}, K = {config.K}",
    )
    write_json(out / "result.json", dataclasses.asdict(result))
    if progress:
        print(_report(config, result))
        print(f"\nwritten to {out}/")
    return result


def _report(config: Config, result: Result) -> str:
    found = result.relations
    rows = [
        ("test accuracy, learned C", f"{result.test_accuracy:.2%}"),
        ("  no interaction", f"{result.test_accuracy_no_interaction:.2%}"),
        ("  the same numbers between the wrong pairs", f"{result.test_accuracy_permuted:.2%}"),
        ("  the same row sums alone", f"{result.test_accuracy_row_sums:.2%}"),
        ("  learned C, iterate of lowest validation loss", f"{result.test_accuracy_best_loss:.2%}"),
        ("  learned C, last iterate", f"{result.test_accuracy_last:.2%}"),
        ("validation accuracy", f"{result.validation_accuracy:.2%}"),
        ("validation loss", f"{result.validation_loss:.4f}"),
        ("ρ", f"{result.rho:.3g}"),
        ("pairs with weight", f"{found['pairs_above_0']} of {found['pairs']}"),
        ("mean C_ij", f"{found['mean_C']:.2g}"),
    ]
    if "mean_C_within" in found:
        rows += [
            ("  within superclasses", f"{found['mean_C_within']:.2g}"),
            ("  between them", f"{found['mean_C_between']:.2g}"),
        ]
    rows += [(f"  {a} and {b}", f"{c:.2g}") for a, b, c in found["top"][:3]]
    rows += [
        ("γ (β + 2ρ + 8 max row sum of C), at most", f"{result.row_bound:.2f}"),
        ("seconds", f"{result.seconds:.1f}"),
        ("peak memory", f"{result.peak_memory_mb:.0f} MB"),
    ]
    title = f"task interaction, {config.data}, K = {config.K}, {result.iterations} iterations"
    return table((title, ""), rows)
