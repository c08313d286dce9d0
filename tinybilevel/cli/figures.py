"""The pictures that runs leave behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.errors import missing_extra

__all__ = [
    "biased_limits",
    "convergence",
    "descent_ratios",
    "exact_gradient_norms",
    "graph_and_bias",
    "interaction",
    "interaction_curves",
    "learning_curve",
    "one_shot_curve",
    "one_shot_runs",
    "one_shot_task",
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
        raise missing_extra("figures need matplotlib", "plot", error) from error
    return Figure


def learning_curve(path: Path, lines: Lines, gradient: str = "hypergradient") -> None:
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
    right.set(xlabel="hyper-iteration", ylabel=f"‖{gradient}‖")
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


def one_shot_curve(path: Path, lines: Lines, window: int = 50) -> None:
    """Draw the loss and the accuracy on training tasks, as means over `window` updates."""
    figure = require_matplotlib()(figsize=(8, 3.2), layout="constrained")
    window = max(1, min(window, len(lines) // 4))
    steps = [line["iteration"] for line in lines][window - 1 :]
    for axis, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        each = np.array([line[name] for line in lines])
        axis.plot(steps, np.convolve(each, np.full(window, 1 / window), "valid"))
        axis.set(xlabel="hyper-iteration", ylabel=name)
    figure.suptitle(
        f"On the query images of training tasks; means over {window} updates", fontsize=10
    )
    figure.savefig(path, dpi=150)


def one_shot_task(
    path: Path, task: Any, predicted: Array, names: Sequence[str], rows: int = 8, count: int = 8
) -> list[str]:
    """Show a task, a class in each row, and return what the query images were taken for."""
    ways, each = len(names), len(task.y_query) // len(names)
    rows, count = min(rows, ways), min(count, each)
    figure = require_matplotlib()(figsize=(1.1 * (count + 1), 1.35 * rows + 0.8))
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.02, top=1 - 0.95 / (1.35 * rows + 0.8), hspace=0.45
    )
    grid, captions = figure.subplots(rows, count + 1, squeeze=False), []
    shots = len(task.y) // ways
    for c, axes in enumerate(grid):
        axes[0].imshow(task.X[c * shots, 0], cmap="gray_r")
        axes[0].set_title(f"{c + 1}: {names[c]}", fontsize=6)
        for axis, i in zip(axes[1:], range(c * each, c * each + count), strict=True):
            axis.imshow(task.X_query[i, 0], cmap="gray_r")
            right = predicted[i] == task.y_query[i]
            captions.append(f"{predicted[i] + 1}")
            axis.set_title(captions[-1], fontsize=9, color="tab:green" if right else "tab:red")
    for axis in figure.axes:
        axis.set_axis_off()
    wrong = int(np.sum(predicted != task.y_query))
    figure.suptitle(
        f"A test task: the first image of a row is what was learned from; {wrong} of "
        f"{len(task.y_query)} query images wrong",
        fontsize=9,
    )
    figure.savefig(path, dpi=150)
    return captions


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


def one_shot_runs(
    stem: Path,
    seen: Mapping[int | str, Mapping[str, Array]],
    losses: Mapping[int | str, Array],
    errors: Mapping[str, Array],
    where: str,
) -> list[Path]:
    """Draw Figure 7: accuracy, loss and cosine along runs, and the error of K-RMD against K."""
    figure = require_matplotlib()(figsize=(15, 4), layout="constrained")
    accuracy, loss, cosine, error = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.2))
    for color, (K, found) in zip(_colors(len(seen)), seen.items(), strict=True):
        tau, label = found["iteration"], {"color": color, "label": f"K = {K}"}
        accuracy.plot(tau, found["accuracy"], **label)
        loss.semilogy(*losses[K], **label)
        cosine.plot(tau, found["cosine"], **label)
        cosine.plot(tau, found["least_cosine"], ":", color=color, linewidth=0.8)
    cosine.axhline(0, color="black", linewidth=0.8)
    accuracy.set(ylabel="test accuracy, %")
    loss.set(ylabel="loss on query images of training tasks")
    cosine.set(
        ylabel="cosine with the exact hypergradient", title="dotted: the least of five tasks"
    )
    for axis in (accuracy, loss, cosine):
        axis.set(xlabel="hyper-iteration")
        axis.legend(fontsize=8)
    for k, (name, curve) in enumerate(errors.items()):
        shown = curve > 0  # K = T leaves nothing out
        style = {"color": f"C{k}", "linewidth": 1.8 if k < 3 else 0.8, "label": name}
        error.semilogy(np.flatnonzero(shown), curve[shown], "-" if k < 3 else "--", **style)
    error.set(xlabel="K", ylabel="relative error of the hypergradient", ylim=(1e-3, 2), title=where)
    error.legend(fontsize=7)
    return _save(figure, stem)


def trajectory(path: Path, lam: Array, value: Any, norms: Sequence[float], title: str) -> None:
    """Draw the iterates λ_τ over the level lines of f(ŵ*(λ), λ), and ‖d_λ f‖ along them."""
    figure = require_matplotlib()(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _level_lines(left, lam, value)
    left.plot(lam[:, 0], lam[:, 1], "o-", color="black", markersize=2.5, linewidth=0.8)
    left.plot(*lam[-1], "x", color="tab:red", markersize=9, markeredgewidth=2)
    left.set(title=title)
    right.semilogy(np.arange(1, len(norms) + 1), norms)
    right.set(xlabel="hyper-iteration", ylabel="‖exact hypergradient‖")
    figure.savefig(path, dpi=150)


def graph_and_bias(stem: Path, axis: Array, surface: Array, sides: Array) -> list[Path]:
    """Draw Figure 1: the graph of f over its plane, and (K, error, bound) on a log scale."""
    figure = require_matplotlib()(figsize=(9, 4), layout="constrained")
    left = figure.add_subplot(1, 2, 1, projection="3d")
    left.plot_surface(*np.meshgrid(axis, axis), surface, cmap="viridis", linewidth=0)
    left.set(xlabel="ŵ₁", ylabel="ŵ₂", title="f(ŵ) = ‖ŵ‖² + 10‖sin ŵ‖²")
    right = figure.add_subplot(1, 2, 2)
    K, error, bound = sides[sides[:, 2] > 0].T  # K = T leaves nothing out
    right.semilogy(K, bound, "--", color="tab:red", label="bound, eq. (10)")
    right.semilogy(K, error, color="tab:blue", label="‖h − d f‖")
    right.set(xlabel="K", ylabel="error of the hypergradient", title="Proposition 3.1, λ = (1, 1)")
    right.legend()
    return _save(figure, stem)


def descent_ratios(stem: Path, panels: Mapping[str, Mapping[int, Array]]) -> list[Path]:
    """Draw Figure 2: the ratio of Lemma 3.2 along a run for each K, a panel for each objective."""
    figure = require_matplotlib()(figsize=(9, 4), layout="constrained")
    for axis, (name, lines) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for color, (K, ratios) in zip(_colors(len(lines)), lines.items(), strict=True):
            tau = np.arange(1, len(ratios) + 1)
            axis.semilogx(tau, ratios, color=color, label=f"K = {K}")
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(xlabel="τ, along the iterates of 1-RMD", title=name)
    figure.axes[0].set_ylabel(
        r"$h_{T-K}^\top\,\mathrm{d}_\lambda f\,/\,\|\mathrm{d}_\lambda f\|^2$"
    )
    figure.axes[-1].legend()
    return _save(figure, stem)


def biased_limits(
    stem: Path, iterates: Mapping[int, Array], best: Array, value: Any, bias: Array
) -> list[Path]:
    """Draw Figure 3: the iterates on f̃, the optimum a red X; and (K, bias of the limit)."""
    figure = require_matplotlib()(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _paths(left, iterates, value)
    left.plot(*best, "x", color="red", markersize=10, markeredgewidth=2.5, label="optimum")
    left.set(title="f̃ from λ₁ = (−1, 1)")
    left.legend(fontsize=8)
    right.semilogy(*bias.T, ".", markersize=4, label="‖limit − optimum‖")
    K, last = bias[:, 0], bias[-1]
    right.semilogy(K, last[1] * 0.9 ** (K - last[0]), "--", label="slope log(1 − γ·1)")
    right.set(xlabel="K", ylabel="bias of the limit", title="T = 400")
    right.legend()
    return _save(figure, stem)


def convergence(
    stem: Path,
    iterates: Mapping[int, Array],
    norms: Mapping[int, Array],
    arrows: Array,
    value: Any,
) -> list[Path]:
    """Draw Figure 4: the iterates on f, with −d_λ f along those of K = 1; the norms of d_λ f."""
    figure = require_matplotlib()(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _paths(left, iterates, value)
    shown = slice(0, 5)  # later ones lie too close together
    at, direction = iterates[1][shown], arrows[shown]
    unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    left.quiver(
        *at.T, *unit.T, angles="xy", scale=9, width=0.005, color="tab:red", label="−d f, K = 1"
    )
    left.set(title="f from λ₁ = (−1, 1)")
    left.legend(fontsize=8)
    for color, (K, norm) in zip(_colors(len(norms)), norms.items(), strict=True):
        right.semilogy(np.arange(1, len(norm) + 1), norm, color=color, label=f"K = {K}")
    right.set(xlabel="τ", ylabel=r"$\|\mathrm{d}_\lambda f(\lambda_\tau)\|$")
    right.legend(fontsize=8)
    return _save(figure, stem)


def interaction(
    stem: Path,
    C: Array,
    names: Sequence[str],
    superclasses: Sequence[str] | None,
    title: str,
) -> list[Path]:
    """Draw a matrix between classes as a heat map, ordered by superclass where there are any."""
    V = len(C)
    above = superclasses or [""] * V
    order = sorted(range(V), key=lambda i: (above[i], names[i] if superclasses else i))
    size = 9 if V > 30 else 4.5 + 0.12 * V
    figure = require_matplotlib()(figsize=(1.15 * size, size), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(C[np.ix_(order, order)], cmap="magma_r", vmin=0, interpolation="nearest")
    figure.colorbar(image, label="$C_{ij}$", shrink=0.8)
    at, labels = [float(k) for k in range(V)], [names[i] for i in order]
    edges = [k for k in range(1, V) if above[order[k]] != above[order[k - 1]]]
    if superclasses and V > 30:
        starts = [0, *edges]
        at = [(a + b - 1) / 2 for a, b in zip(starts, [*edges, V], strict=True)]
        labels = [above[order[k]] for k in starts]
    labels = [label.replace("_", " ") for label in labels]
    axis.set_xticks(at, labels, rotation=90)
    axis.set_yticks(at, labels)
    axis.tick_params(labelsize=4 if len(at) > 30 else 8, length=0)
    for edge in edges:
        axis.axhline(edge - 0.5, color="tab:blue", linewidth=0.4)
        axis.axvline(edge - 0.5, color="tab:blue", linewidth=0.4)
    axis.set(title=title)
    return _save(figure, stem)


def interaction_curves(stem: Path, panels: Mapping[str, Mapping[str, Lines]]) -> list[Path]:
    """Draw Figure 6: loss, projected norm and cosine for each K, a row for each data set."""
    figure = require_matplotlib()(figsize=(11, 3.1 * len(panels)), layout="constrained")
    for axes, (name, methods) in zip(
        figure.subplots(len(panels), 3, squeeze=False), panels.items(), strict=True
    ):
        for color, (method, lines) in zip(_colors(len(methods)), methods.items(), strict=True):

            def draw(
                axis: Any, key: str, color: Any = color, lines: Lines = lines, **how: Any
            ) -> None:
                known = [line for line in lines if line.get(key) is not None]
                axis.plot(
                    [line["iteration"] for line in known],
                    [line[key] for line in known],
                    color=color,
                    **how,
                )

            draw(axes[0], "loss", label=method)
            draw(axes[1], "projected_norm")
            draw(axes[2], "cosine_free")
            draw(axes[2], "cosine", linestyle="--", linewidth=0.9)
        axes[0].set(ylabel=f"{name}\nvalidation loss")
        axes[1].set(ylabel="‖exact projected gradient‖", yscale="log")
        axes[2].set(ylabel="cosine with the exact one")
        axes[2].axhline(0, color="black", linewidth=0.6)
        for axis in axes:
            axis.set(xlabel="hyper-iteration")
    figure.axes[0].legend(fontsize=8)
    axes[2].plot([], [], color="gray", label="free coordinates")
    axes[2].plot([], [], color="gray", linestyle="--", linewidth=0.9, label="all coordinates")
    axes[2].legend(fontsize=8)
    return _save(figure, stem)


def _paths(axis: Any, iterates: Mapping[int, Array], value: Any) -> None:
    _level_lines(axis, np.concatenate(list(iterates.values())), value)
    for color, (K, lam) in zip(_colors(len(iterates)), iterates.items(), strict=True):
        axis.plot(*lam.T, "o-", color=color, markersize=2.5, linewidth=0.8, label=f"K = {K}")


def _level_lines(axis: Any, lam: Array, value: Any) -> None:
    low, high = lam.min(axis=0) - 0.5, lam.max(axis=0) + 0.5
    x, y = (np.linspace(low[i], high[i], 60) for i in range(2))
    levels = [[value(np.array([a, b])) for a in x] for b in y]
    axis.contourf(x, y, levels, levels=30, cmap="Greys_r", alpha=0.6)
    axis.set(xlabel="λ₁", ylabel="λ₂")


def _colors(count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["plasma"](np.linspace(0, 0.9, count))


def _save(figure: Any, stem: Path) -> list[Path]:
    """Save PNG and SVG, the same bytes each time."""
    from matplotlib import rc_context

    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    with rc_context({"svg.hashsalt": stem.name}):
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
