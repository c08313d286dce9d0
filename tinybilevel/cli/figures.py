"""The pictures that runs leave behind: panels of `tinybilevel.plotting`, put together and saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel import plotting
from tinybilevel.arrays.backend import Array
from tinybilevel.plotting.style import PALETTE, RIGHT, WRONG, require_matplotlib

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


@contextmanager
def _page(width: float, height: float) -> Iterator[Any]:
    """Hand out a figure in the house's style; no window knows of it."""
    with plotting.style():
        from matplotlib.figure import Figure

        yield Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, stem: Path) -> list[Path]:
    """Save PNG and SVG, the same bytes each time."""
    from matplotlib import rc_context

    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    with rc_context({"svg.hashsalt": stem.name}):
        figure.savefig(paths[0])
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _by_depth(runs: Mapping[Any, Any]) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Yield the depth, what there is of it, and how its line looks."""
    for color, (K, found) in zip(plotting.sequence_colors(len(runs)), runs.items(), strict=True):
        yield K, found, {"color": color, "label": K if isinstance(K, str) else f"K = {K}"}


def learning_curve(path: Path, lines: Lines, gradient: str = "hypergradient") -> None:
    """Draw the validation loss and the norm of the hypergradient against the hyper-iteration."""
    with _page(8, 3.2) as figure:
        left, right = figure.subplots(1, 2)
        plotting.learning_curve(lines, "validation_loss", ax=left)
        plotting.learning_curve(lines, "grad_norm", label="K-RMD", ax=right)
        if any("exact_grad_norm" in line for line in lines):
            plotting.learning_curve(lines, "exact_grad_norm", label="exact", ax=right)
            right.legend()
        right.set(ylabel=f"‖{gradient}‖")
        figure.savefig(path)


def rejected_grid(
    path: Path, images: Array, lam: Array, labels: Array, true: Array, count: int = 40
) -> list[str]:
    """Show the examples with the smallest weights, and return the captions in that order."""
    count = min(count, len(images))
    with _page(10, 1.3 * -(-count // 10) + 0.4) as figure:
        axis = plotting.rejected_labels(
            images, labels, lam, true, count=count, ax=figure.subplots()
        )
        axis.set_title(
            f"The {count} most distrusted labels; blue: rightly so, orange: the label was right"
        )
        figure.savefig(path)
    return [text.get_text() for text in axis.texts]


def one_shot_curve(path: Path, lines: Lines, window: int = 50) -> None:
    """Draw the loss and the accuracy on training tasks, as means over `window` updates."""
    window = max(1, min(window, len(lines) // 4))
    with _page(8, 3.2) as figure:
        for axis, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            plotting.learning_curve(lines, name, window=window, ax=axis)
        figure.suptitle(f"On the query images of training tasks; means over {window} updates")
        figure.savefig(path)


def one_shot_task(
    path: Path, task: Any, predicted: Array, names: Sequence[str], rows: int = 8, count: int = 8
) -> list[str]:
    """Show a task, a class in each row, and return what the query images were taken for."""
    ways, each = len(names), len(task.y_query) // len(names)
    rows, count, shots = min(rows, ways), min(count, each), len(task.y) // ways
    images, captions, colors = [], [], []
    for c in range(rows):
        asked = range(c * each, c * each + count)
        images += [task.X[c * shots, 0], *(task.X_query[i, 0] for i in asked)]
        captions += [f"{c + 1}: {names[c]}", *(f"{predicted[i] + 1}" for i in asked)]
        hits = (predicted[i] == task.y_query[i] for i in asked)
        colors += ["black", *(RIGHT if hit else WRONG for hit in hits)]
    wrong = int(np.sum(predicted != task.y_query))
    with _page(1.1 * (count + 1), 1.4 * rows + 0.6) as figure:
        axis = plotting.image_grid(
            images, captions, colors, columns=count + 1, ax=figure.subplots()
        )
        axis.set_title(
            f"First of each row: what was learned from. Orange: wrong, {wrong} of "
            f"{len(task.y_query)} query images in all"
        )
        figure.savefig(path)
    return [text for k, text in enumerate(captions) if k % (count + 1)]


def exact_gradient_norms(path: Path, runs: Mapping[int, Lines]) -> None:
    """Draw Figure 5: the norm of the exact gradient along the K-RMD iterates, log scale."""
    with _page(6, 4) as figure:
        axis = figure.subplots()
        for _, lines, look in _by_depth(runs):
            plotting.learning_curve(lines, "exact_grad_norm", ax=axis, **look)
        axis.legend()
        figure.savefig(path)


def one_shot_runs(
    stem: Path,
    seen: Mapping[int | str, Mapping[str, Array]],
    losses: Mapping[int | str, Array],
    errors: Mapping[str, Array],
    where: str,
) -> list[Path]:
    """Draw Figure 7: accuracy, loss and cosine along runs, and the error of K-RMD against K."""
    with _page(15, 4) as figure:
        accuracy, loss, cosine, error = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.2))
        for K, found, look in _by_depth(seen):
            tau, means = losses[K]
            plotting.learning_curve(found, "accuracy", ax=accuracy, **look)
            plotting.learning_curve({"iteration": tau, "loss": means}, "loss", ax=loss, **look)
            plotting.learning_curve(found, "cosine", ax=cosine, **look)
            dotted = {"linestyle": ":", "linewidth": 0.9, "color": look["color"]}
            plotting.learning_curve(found, "least_cosine", ax=cosine, **dotted)
        cosine.axhline(0, color="black", linewidth=0.8)
        accuracy.set(ylabel="test accuracy, %")
        loss.set(ylabel="loss on query images of training tasks", yscale="log")
        cosine.set(
            ylabel="cosine with the exact hypergradient", title="dotted: the least of five tasks"
        )
        for k, (name, curve) in enumerate(errors.items()):
            how: dict[str, Any] = {"color": PALETTE[k % len(PALETTE)], "label": name}
            how |= {"linewidth": 1.8} if k < 3 else {"linewidth": 0.9, "linestyle": "--"}
            plotting.truncation_error(curve, ax=error, **how)
        error.set(ylabel="relative error of the hypergradient", ylim=(1e-3, 2), title=where)
        for axis in (loss, error):
            axis.legend()
        return _save(figure, stem)


def trajectory(path: Path, lam: Array, value: Any, norms: Sequence[float], title: str) -> None:
    """Draw the iterates λ_τ over the level lines of f(ŵ*(λ), λ), and ‖d_λ f‖ along them."""
    with _page(9, 4) as figure:
        left, right = figure.subplots(1, 2)
        plotting.landscape(value, paths={"iterates": lam}, ax=left)
        left.plot(
            *lam[-1], "x", color=PALETTE[2], markersize=9, markeredgewidth=2, label="the last"
        )
        left.legend()
        left.set(title=title)
        plotting.learning_curve({"exact_grad_norm": np.asarray(norms)}, "exact_grad_norm", ax=right)
        figure.savefig(path)


def graph_and_bias(stem: Path, value: Any, sides: Array) -> list[Path]:
    """Draw Figure 1: the graph of f over its plane, and (K, error, bound) on a log scale."""
    with _page(9, 4) as figure:
        left = figure.add_subplot(1, 2, 1, projection="3d")
        plotting.landscape(value, (-4, 4), resolution=81, ax=left)
        left.set(xlabel="ŵ₁", ylabel="ŵ₂", title="f(ŵ) = ‖ŵ‖² + 10‖sin ŵ‖²")
        right = figure.add_subplot(1, 2, 2)
        K, error, bound = sides.T
        plotting.truncation_error(error, {"bound, eq. (10)": bound}, K=K, ax=right)
        right.set(title="Proposition 3.1, λ = (1, 1)")
        return _save(figure, stem)


def descent_ratios(stem: Path, panels: Mapping[str, Mapping[int, Array]]) -> list[Path]:
    """Draw Figure 2: the ratio of Lemma 3.2 along a run for each K, a panel for each objective."""
    with _page(9, 4) as figure:
        axes = figure.subplots(1, len(panels))
        for axis, (name, lines) in zip(axes, panels.items(), strict=True):
            for _, ratios, look in _by_depth(lines):
                plotting.learning_curve({"ratio": ratios}, "ratio", ax=axis, **look)
            axis.axhline(0, color="black", linewidth=0.8)
            axis.set(xlabel="τ, along the iterates of 1-RMD", ylabel="", xscale="log", title=name)
        axes[0].set_ylabel(r"$h_{T-K}^\top\,d_\lambda f\,/\,\|d_\lambda f\|^2$")
        axes[-1].legend()
        return _save(figure, stem)


def biased_limits(
    stem: Path, iterates: Mapping[int, Array], best: Array, value: Any, bias: Array
) -> list[Path]:
    """Draw Figure 3: the iterates on f̃, the optimum a green X; and (K, bias of the limit)."""
    with _page(9, 4) as figure:
        left, right = figure.subplots(1, 2)
        plotting.landscape(value, paths={f"K = {K}": lam for K, lam in iterates.items()}, ax=left)
        left.plot(*best, "x", color=PALETTE[2], markersize=10, markeredgewidth=2.5, label="optimum")
        left.set(title="f̃ from λ₁ = (−1, 1)")
        left.legend()
        K, distance = bias.T
        line = distance[-1] * 0.9 ** (K - K[-1])
        plotting.truncation_error(
            distance,
            {"slope log(1 − γ·1)": line},
            K=K,
            label="‖limit − optimum‖",
            ax=right,
            linestyle="",
            marker=".",
        )
        right.set(ylabel="bias of the limit", title="T = 400")
        return _save(figure, stem)


def convergence(
    stem: Path,
    iterates: Mapping[int, Array],
    norms: Mapping[int, Array],
    arrows: Array,
    value: Any,
) -> list[Path]:
    """Draw Figure 4: the iterates on f, with −d_λ f along those of K = 1; the norms of d_λ f."""
    shown = slice(0, 5)  # later ones lie too close together
    unit = arrows[shown] / np.linalg.norm(arrows[shown], axis=1, keepdims=True)
    with _page(9, 4) as figure:
        left, right = figure.subplots(1, 2)
        plotting.landscape(
            value,
            paths={f"K = {K}": lam for K, lam in iterates.items()},
            arrows={"−d f, K = 1": (iterates[1][shown], unit)},
            arrow_length=0.12,
            ax=left,
        )
        left.set(title="f from λ₁ = (−1, 1)")
        for _, norm, look in _by_depth(norms):
            plotting.learning_curve({"exact_grad_norm": norm}, "exact_grad_norm", ax=right, **look)
        right.set(xlabel="τ")
        right.legend()
        return _save(figure, stem)


def interaction(
    stem: Path,
    C: Array,
    names: Sequence[str],
    superclasses: Sequence[str] | None,
    title: str,
) -> list[Path]:
    """Draw a matrix between classes as a heat map, ordered by superclass where there are any."""
    size = 9 if len(C) > 30 else 4.5 + 0.12 * len(C)
    with _page(1.15 * size, size) as figure:
        plotting.interaction(C, names, superclasses, figure.subplots()).set(title=title)
        return _save(figure, stem)


def interaction_curves(stem: Path, panels: Mapping[str, Mapping[str, Lines]]) -> list[Path]:
    """Draw Figure 6: loss, projected norm and cosine for each K, a row for each data set."""
    with _page(11, 3.1 * len(panels)) as figure:
        rows = figure.subplots(len(panels), 3, squeeze=False)
        for (loss, norm, cosine), (name, methods) in zip(rows, panels.items(), strict=True):
            for _, lines, look in _by_depth(methods):
                plotting.learning_curve(lines, "loss", ax=loss, **look)
                plotting.learning_curve(lines, "projected_norm", ax=norm, **look)
                plotting.learning_curve(lines, "cosine_free", ax=cosine, **look)
                dashed = {"linestyle": "--", "linewidth": 0.9, "color": look["color"]}
                plotting.learning_curve(lines, "cosine", ax=cosine, **dashed)
            loss.set(ylabel=f"{name}\nvalidation loss")
            norm.set(ylabel="‖exact projected gradient‖", yscale="log")
            cosine.set(ylabel="cosine with the exact one")
            cosine.axhline(0, color="black", linewidth=0.6)
        rows[0, 0].legend()
        of = [
            cosine.plot([], [], style, color="gray", linewidth=width)[0]
            for style, width in (("-", 1.6), ("--", 0.9))
        ]
        cosine.legend(of, ["free coordinates", "all coordinates"])
        return _save(figure, stem)
