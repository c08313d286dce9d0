"""``tinybilevel run toy``: the problem of Section 4.1, with η_τ = η_0/√τ."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinybilevel.bounds import first_update
from tinybilevel.cli import figures
from tinybilevel.cli.folder import Folder, table, write_json
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.outer import Progress, minimize
from tinybilevel.outer.checkpoint import save_arrays
from tinybilevel.outer.optimizers import SGD
from tinybilevel.problems import toy

__all__ = ["Config", "Result", "run"]


@dataclass(frozen=True)
class Config:
    """Settings of one run from λ_1 = (1, 1)."""

    K: int = 1
    T: int = 100
    iterations: int = 500
    lr: float | None = None
    biased: bool = False


@dataclass(frozen=True)
class Result:
    """The last λ, the value and the norm of the exact hypergradient there, and all updates made."""

    lam: tuple[float, ...]
    value: float
    exact_grad_norm: float
    iterations: int


def run(config: Config, out: Path, *, resume: bool = False, progress: bool = False) -> Result:
    """Solve the toy problem by K-RMD, and write the run to a folder.

    Parameters
    ----------
    config : Config
        What to run; ``lr=None`` picks η_0 so that the first update has norm 0.6, as the paper does.
    out : Path
        Folder for ``config.json``, ``metrics.jsonl``, ``checkpoint.npz``, ``lam.npz``,
        ``result.json`` and ``trajectory.png``.
    resume : bool
        Continue the run that `out` holds.
    progress : bool
        Show a progress bar and print the result.

    Returns
    -------
    Result
    """
    problem, method = toy(biased=config.biased, T=config.T), KRMD(K=config.K)
    optimizer = first_update(problem, method) if config.lr is None else SGD(config.lr)
    figures.require_matplotlib()
    folder = Folder(out, config, resume=resume)

    def log(step: Progress) -> None:
        folder.log(
            {
                "iteration": step.iteration,
                "value": step.hypergradient.value,
                "lam": step.lam.tolist(),
                "exact_grad_norm": float(np.linalg.norm(RMD()(problem, step.lam).grad)),
            }
        )

    r = minimize(
        problem,
        method=method,
        optimizer=optimizer,
        iterations=folder.iterations,
        callback=log,
        progress=progress,
        checkpoint=folder.checkpoint,
        resume=resume,
    )
    exact = float(np.linalg.norm(RMD()(problem, r.lam).grad))
    result = Result(tuple(r.lam.tolist()), r.value, exact, r.iterations)
    lines = folder.lines()
    save_arrays(out / "lam.npz", {"lam": r.lam, "w": r.w})
    figures.trajectory(
        out / "trajectory.png",
        np.array([*(line["lam"] for line in lines), r.lam.tolist()]),
        lambda lam: KRMD(K=0)(problem, lam).value,
        [*(line["exact_grad_norm"] for line in lines), exact],
        f"{'f̃' if config.biased else 'f'}, K = {config.K}",
    )
    write_json(out / "result.json", dataclasses.asdict(result))
    if progress:
        rows = [
            ("λ", "({:.6f}, {:.6f})".format(*result.lam)),
            ("f(ŵ*, λ)", f"{result.value:.6f}"),
            ("‖exact hypergradient‖", f"{result.exact_grad_norm:.2e}"),
        ]
        print(table((f"toy, K = {config.K}, {result.iterations} iterations", ""), rows))
        print(f"\nwritten to {out}/")
    return result
