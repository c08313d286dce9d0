"""The home page's picture: T steps forward, and what each step back adds to the gradient."""

import numpy as np

import tinybilevel as tb

T, K = 24, 8
LEFT, GAP, UP, DOWN, TALL = 46, 24.5, 62, 246, 112  # places, in units of the picture

STYLE = """
.pass { width: 100%; height: auto; font: 15px var(--font-stack, sans-serif); color: inherit; }
.pass text { fill: currentColor; }
.pass .small { font-size: 13px; }
.pass .letter { font-style: italic; }
.pass .node { fill: var(--color-brand-primary, #1d4f91); }
.pass .kept { fill: #d55e00; }
.pass .left-out { fill: currentColor; opacity: 0.22; }
.pass .line { stroke: currentColor; fill: none; opacity: 0.55; }
.pass .tip { fill: currentColor; opacity: 0.55; }
@media (max-width: 46em) {
  .pass { font-size: 25px; }
  .pass .small { font-size: 22px; }
}
@media (prefers-reduced-motion: no-preference) {
  .pass .node { animation: pass-forward 0.4s both; }
  .pass .bar { animation: pass-back 0.5s both; transform-box: fill-box; transform-origin: bottom; }
  .pass .last { animation: pass-forward 0.6s 4.2s both; }
}
@keyframes pass-forward { from { opacity: 0; } }
@keyframes pass-back { from { transform: scaleY(0); } }
"""


def at(t):
    return LEFT + GAP * t


def math(letter, below=""):
    low = f'<tspan dy="4" font-size="0.75em">{below}</tspan>' if below else ""
    return f'<tspan class="letter">{letter}</tspan>{low}'


def text(x, y, words, kind="", anchor="middle"):
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" class="{kind}">{words}</text>'


def arrow(x0, x1, y):
    tip = x1 + (-9 if x1 > x0 else 9)
    return (
        f'<path class="line" d="M{x0:.1f} {y}H{x1:.1f}"/>'
        f'<path class="tip" d="M{x1:.1f} {y}L{tip:.1f} {y - 4}V{y + 4}Z"/>'
    )


def svg():
    """Return the picture; its numbers are those of the toy problem."""
    trace = tb.RMD().trace(tb.problems.toy(T=T, step_size=0.3), exact=True)
    added, error = trace.product_norms[:T], trace.errors[K] / np.linalg.norm(trace.exact)
    parts = [
        text(
            at(0) - 5, 24, f"Forward: the algorithm takes {math('T')} = {T} steps", anchor="start"
        ),
        arrow(at(0), at(T) - 9, UP),
        text(at(0), UP + 28, math("w", "0")),
        text(at(T), UP + 28, math("w", "T")),
        text(at(T) + 18, UP + 5, f"→ {math('f')}", anchor="start"),
        text(at(0) - 5, 128, "Back: what each step adds to the gradient", anchor="start"),
        arrow(at(T) + 9, at(0), DOWN + 14),
    ]
    for t in range(T + 1):
        parts.append(
            f'<circle class="node" cx="{at(t):.1f}" cy="{UP}" r="5.5" '
            f'style="animation-delay: {0.1 + 0.06 * t:.2f}s"/>'
        )
    for i, size in enumerate(added):
        tall = TALL * size / added[0]
        kind = "kept" if i < K else "left-out"
        parts.append(
            f'<rect class="bar {kind}" x="{at(T - i) - 8:.1f}" y="{DOWN - tall:.1f}" width="16" '
            f'height="{tall:.1f}" rx="2" style="animation-delay: {1.7 + 0.1 * i:.2f}s"/>'
        )
    right, middle = at(T) + 8, at(T - K + 1) - 8
    parts.append(
        f'<g class="last"><path class="line" d="M{middle:.1f} {DOWN + 24}v6H{right:.1f}v-6"/>'
        + text(right, DOWN + 50, f"{math('K')} = {K} steps back:", "small", "end")
        + text(right, DOWN + 74, f"{1 - error:.0%} of the gradient", "small", "end")
        + text(middle / 2 + 20, DOWN + 50, f"the other {T - K}:", "small")
        + text(middle / 2 + 20, DOWN + 74, "time and memory saved", "small")
        + "</g>"
    )
    about = f"{T} steps forward; going back, {K} of them hold {1 - error:.0%} of the gradient"
    return (
        f'<svg class="pass" viewBox="0 0 690 332" role="img" aria-label="{about}">'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>"
    )
