"""The pictures that runs leave behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.backend import Array

__all__ = [
    "exact_gradient_norms",
    "learning_curve",
    "rejected_grid",
    "require_matplotlib",
    "trajectory",
]

Lines = Sequence[Mapping[str, Any]]


def require_matplotlib() -> Any:
    """Return matplotlib's Figure, or say how to install it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "tinybilevel[plot]"') from error
    return Figure


def learning_curve(path: Path, lines: Lines) -> None:
    """Draw the validation loss and the norm of the hypergradient against the hyper-iteration."""
    figure = require_matplotlib()(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [line["iteration"] for line in lines]
    left.plot(steps, [line["validation_loss"] for line in lines])
    left.set(xlabel="hyper-iteration", ylabel="validation loss f")
    right.semilogy(steps, [line["grad_norm"] for line in lines], label="K-RMD")
    exact = [line for line in lines if "exact_grad_norm" in line]
    if exact:
        right.semilogy(
            [line["iteration"] for line in exact],
            [line["exact_grad_norm"] for line in exact],
            label="exact",
        )
        right.legend()
    right.set(xlabel="hyper-iteration", ylabel="‖hypergradient‖")
    figure.savefig(path, dpi=150)


def rejected_grid(
    path: Path, images: Array, lam: Array, labels: Array, true: Array, count: int = 40
) -> list[str]:
    """Show the examples with the smallest weights, and return the captions in that order."""
    figure = require_matplotlib()(figsize=(10, 5.6))
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.88)
    order = np.argsort(lam, kind="stable")[:count]
    for axis, i in zip(figure.subplots(-(-count // 10), 10).flat, order, strict=False):
        axis.imshow(images[i], cmap="gray_r")
        wrong = labels[i] != true[i]
        axis.set_title(
            f"{labels[i]} is {true[i]}" if wrong else f"{labels[i]} is right",
            fontsize=9,
            color="tab:green" if wrong else "tab:red",
        )
    for axis in figure.axes:
        axis.set_axis_off()
    figure.suptitle(
        f"The {len(order)} most distrusted labels; green: rightly so, red: the label was right",
        fontsize=11,
    )
    figure.savefig(path, dpi=150)
    return [axis.get_title() for axis in figure.axes[: len(order)]]


def exact_gradient_norms(path: Path, runs: Mapping[int, Lines]) -> None:
    """Draw Figure 5: the norm of the exact gradient along the K-RMD iterates, log scale."""
    figure = require_matplotlib()(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for K, lines in runs.items():
        exact = [line for line in lines if "exact_grad_norm" in line]
        axis.semilogy(
            [line["iteration"] for line in exact],
            [line["exact_grad_norm"] for line in exact],
            label=f"K = {K}",
        )
    axis.set(xlabel="hyper-iteration", ylabel=r"$\|\mathrm{d}_\lambda f\|$")
    axis.legend()
    figure.savefig(path, dpi=150)


def trajectory(path: Path, lam: Array, value: Any, norms: Sequence[float], title: str) -> None:
    """Draw the iterates λ_τ over the level lines of f(ŵ*(λ), λ), and ‖d_λ f‖ along them."""
    figure = require_matplotlib()(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    low, high = lam.min(axis=0) - 0.5, lam.max(axis=0) + 0.5
    x, y = (np.linspace(low[i], high[i], 60) for i in range(2))
    levels = [[value(np.array([a, b])) for a in x] for b in y]
    left.contourf(x, y, levels, levels=30, cmap="Blues_r")
    left.plot(lam[:, 0], lam[:, 1], "o-", color="black", markersize=2.5, linewidth=0.8)
    left.plot(*lam[-1], "x", color="tab:red", markersize=9, markeredgewidth=2)
    left.set(xlabel="λ₁", ylabel="λ₂", title=title)
    right.semilogy(np.arange(1, len(norms) + 1), norms)
    right.set(xlabel="hyper-iteration", ylabel="‖exact hypergradient‖")
    figure.savefig(path, dpi=150)
