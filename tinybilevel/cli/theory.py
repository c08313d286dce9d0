"""``tinybilevel reproduce figure1`` … ``figure4``: Section 4.1 of the paper, on the toy problem.

The paper fixes T = 100, γ = 0.1, w_0 = (2, 2), λ = (1, 1) in Figure 1 and a first update of norm
0.6. It does not say where its runs of Figures 2 to 4 start: here at λ_1 = (−1, 1), from where the
iterates on f̃ walk past the optimum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel import bounds
from tinybilevel.arrays.backend import Array
from tinybilevel.cli import figures
from tinybilevel.cli.folder import write_text
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.problem import BilevelProblem
from tinybilevel.problems import toy

__all__ = ["KS", "figure1", "figure2", "figure3", "figure4"]

#: The depths of Figures 2 to 4.
KS = (1, 2, 5, 10, 20, 50)
LAM_1 = np.array([-1.0, 1.0])
ITERATIONS = 500


def figure1(out: Path) -> list[Path]:
    """Draw the graph of f, and both sides of eq. (10) at λ = (1, 1) against K."""
    problem, lam = toy(), np.array([1.0, 1.0])
    axis = np.linspace(-4, 4, 81)

    def f(w: Array) -> float:
        return float(problem.upper.value(w, lam))

    *truncated, exact = RMD().truncations(problem, lam)
    side = bounds.proposition_3_1(problem, lam, 0)
    # g's curvatures are 1 and ½; every B_t is the same but B_0 = 0, all that K = T leaves out.
    known = dict(gamma=0.1, alpha=0.5, grad_norm=side.grad_norm, M_B=side.M_B)
    rows = [
        (
            K,
            float(np.linalg.norm(h - exact)),
            bounds.equation_10(K, **known) if K < problem.T else 0.0,
        )
        for K, h in enumerate(truncated)
    ]
    return [
        _csv(out / "figure1.csv", "K,error,bound", rows),
        _csv(
            out / "figure1-graph.csv",
            "w1,w2,f",
            ((a, b, f(np.array([a, b]))) for b in axis for a in axis),
        ),
        *figures.graph_and_bias(out / "figure1", f, np.array(rows)),
    ]


def figure2(out: Path) -> list[Path]:
    """Draw h_{T−K}ᵀ d_λ f / ‖d_λ f‖² along the iterates of 1-RMD, for f and for f̃."""
    panels, rows = {}, []
    for name, problem in (("f", toy()), ("f̃", toy(biased=True))):
        points = _run(problem, KRMD(K=1)).lam[:-1]
        ratios = np.array([_ratios(problem, lam) for lam in points])
        panels[name] = dict(zip(KS, ratios.T, strict=True))
        rows += [
            (name, K, tau, *lam, ratio)
            for K, line in panels[name].items()
            for tau, (lam, ratio) in enumerate(zip(points, line, strict=True), start=1)
        ]
    return [
        _csv(out / "figure2.csv", "objective,K,tau,lambda1,lambda2,ratio", rows),
        *figures.descent_ratios(out / "figure2", panels),
    ]


def _ratios(problem: BilevelProblem, lam: Array) -> list[float]:
    """Return h_{T−K}ᵀ d_λ f / ‖d_λ f‖² for every K in KS."""
    *truncated, exact = RMD().truncations(problem, lam)
    return [float(truncated[K] @ exact) / float(exact @ exact) for K in KS]


def figure3(out: Path) -> list[Path]:
    """Draw where K-RMD leads on f̃, and how fast the bias of its limit falls with K at T = 400."""
    problem = toy(biased=True)
    runs = {K: _run(problem, KRMD(K=K)) for K in KS}
    best = _limit(problem, RMD(), runs[KS[-1]].lam[-1])
    long, bias, limit = toy(biased=True, T=400), [], runs[1].lam[-1]
    long_best = _limit(long, RMD(), best)
    for K in range(1, 101):
        limit = _limit(long, KRMD(K=K), limit)
        bias.append((K, float(np.linalg.norm(limit - long_best))))
    return [
        _csv(out / "figure3.csv", "K,tau,lambda1,lambda2,exact_grad_norm", _iterates(runs)),
        _csv(out / "figure3-bias.csv", "K,bias", bias),
        *figures.biased_limits(
            out / "figure3",
            {K: run.lam for K, run in runs.items()},
            best,
            _value(problem),
            np.array(bias),
        ),
    ]


def figure4(out: Path) -> list[Path]:
    """Draw how K-RMD converges on f: the iterates, with −d_λ f along those of 1-RMD; ‖d_λ f‖."""
    problem = toy()
    runs = {K: _run(problem, KRMD(K=K)) for K in (*KS, problem.T)}
    arrows = np.array([-RMD()(problem, lam).grad for lam in runs[1].lam])
    return [
        _csv(out / "figure4.csv", "K,tau,lambda1,lambda2,exact_grad_norm", _iterates(runs)),
        *figures.convergence(
            out / "figure4",
            {K: run.lam for K, run in runs.items()},
            {K: run.grad_norms for K, run in runs.items()},
            arrows,
            _value(problem),
        ),
    ]


def _run(problem: BilevelProblem, method: KRMD) -> bounds.AverageGradient:
    return bounds.theorem_3_3(problem, LAM_1, method.K or 0, iterations=ITERATIONS)


def _limit(problem: BilevelProblem, method: KRMD | RMD, start: Array) -> Array:
    """Return the zero of a hypergradient near `start`, where its iterates stop."""
    from scipy.optimize import root

    return root(lambda lam: method(problem, lam).grad, start, tol=1e-13).x


def _value(problem: BilevelProblem) -> Any:
    return lambda lam: KRMD(K=0)(problem, lam).value


def _iterates(runs: dict[int, bounds.AverageGradient]) -> list[Sequence[Any]]:
    return [
        (K, tau, *lam, norm)
        for K, run in runs.items()
        for tau, (lam, norm) in enumerate(zip(run.lam, run.grad_norms, strict=True), start=1)
    ]


def _csv(path: Path, header: str, rows: Iterable[Sequence[Any]]) -> Path:
    def cell(x: Any) -> str:
        return repr(float(x)) if isinstance(x, float) else str(x)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join([header, *(",".join(map(cell, row)) for row in rows)]) + "\n")
    return path
