"""Problems whose whole loop runs in compiled code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinybilevel.maps import HyperMap, Identity
from tinybilevel.objectives import Objective, Quadratic
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import GradientDescent, Transition

__all__ = ["Loop", "compile"]


@dataclass(frozen=True)
class Loop:
    """A kernel that runs the whole of one problem's forward and backward pass."""

    kernel: Any
    transition: Transition
    upper: Objective
    T: int
    hyper_map: HyperMap

    def runs(self, problem: BilevelProblem) -> bool:
        """Return whether this is still the problem that was compiled."""
        same = (
            getattr(self, n) is getattr(problem, n) for n in ("transition", "upper", "hyper_map")
        )
        return all(same) and self.T == problem.T


def compile(problem: BilevelProblem) -> BilevelProblem:
    """Return `problem` with its forward and backward pass as one compiled loop.

    For small problems, where the interpreter takes most of the time: `KRMD` and `RMD` that keep
    their states in a `Ring`, without `tol` or `tail`, then take microseconds in float64, and
    `Method.batch` takes many λ at once on all cores. All else runs as before.

    Parameters
    ----------
    problem : BilevelProblem
        Gradient descent with one fixed step size on a `Quadratic`, from a fixed w_0, without a
        `hyper_map`; under an upper level of ``tinybilevel.problems``, or a `Quadratic`
        f = ½ (w − d)ᵀ G (w − d) with a diagonal G and C = 0.

    Returns
    -------
    BilevelProblem
        Equal to `problem`. A change to it by ``dataclasses.replace`` gives a plain one.

    Raises
    ------
    TypeError
        If the problem is not of that kind.
    ImportError
        If Numba is not installed.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> toy = tb.problems.toy()
    >>> fast = tb.compile(toy)
    >>> bool(abs(tb.KRMD(K=5)(fast).grad - tb.KRMD(K=5)(toy).grad).max() < 1e-14)
    True
    >>> values, grads = tb.KRMD(K=5).batch(fast, [[1.0, 1.0], [0.5, 0.0]])
    >>> grads.shape
    (2, 2)
    """
    descent = problem.transition
    start = descent.fixed_start() if isinstance(descent, GradientDescent) else None
    if (
        type(descent) is not GradientDescent
        or type(descent.objective) is not Quadratic
        or start is None
        or descent.batches is not None
        or not isinstance(descent.step_size.values, float)
        or not isinstance(problem.hyper_map, Identity)
    ):
        raise TypeError(
            "compile takes gradient descent with one fixed step size on a Quadratic, from a fixed "
            f"w_0 and without a hyper_map, got {descent!r}"
        )
    g = descent.objective
    upper = problem.upper.loop_data(g.G.shape[0])
    if upper is None:
        raise TypeError(f"compile knows no compiled form of the upper level {problem.upper!r}")
    try:
        from tinybilevel.kernels import loops
    except ImportError as error:
        raise ImportError('compile needs Numba: pip install "tinybilevel[fast]"') from error
    d = np.zeros(g.G.shape[0]) if g.d is None else g.d
    name, data = upper
    kernel = loops.QuadraticLoop(
        g.G, g.C, d, start, descent.step_size.values, problem.T, getattr(loops, name), data
    )
    return replace(problem, loop=Loop(kernel, descent, problem.upper, problem.T, problem.hyper_map))
