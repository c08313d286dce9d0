"""What a method is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, like, moved
from tinybilevel.arrays.checks import as_float
from tinybilevel.engine.dynamics import Cost, Dynamics
from tinybilevel.engine.stability import look
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.problem import BilevelProblem
from tinybilevel.products import Missing

__all__ = ["Method"]


def lacks(method: Method, level: str, missing: Missing) -> TypeError:
    """Return the error of a product that is not written out."""
    part, product = missing
    name = type(method).__name__
    return TypeError(f"{type(part).__name__} has no {product}, which {name} needs of the {level}")


class Method:
    """A frozen, picklable value that is called: ``method(problem, lam)`` → `Hypergradient`.

    A method names the products that it calls, `needs`; a problem that lacks one is refused before
    anything runs.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy()
    >>> for method in (tb.RMD(), tb.KRMD(K=50), tb.ImplicitCG()):
    ...     print(method(problem).grad.round(2), method.cost(problem).products)
    [11.09 10.99] 101
    [11.04 10.2 ] 50
    [11.09 11.05] 21
    """

    #: Products of the transition, and through it of the lower objective, that a call takes.
    needs: tuple[str, ...] = ("step",)

    def require(self, problem: BilevelProblem) -> None:
        """Refuse a problem that lacks a product that the method calls.

        Raises
        ------
        TypeError
            If there is one; the error names the method, the product and the class without it.
        """
        for level, part, products in (
            ("transition", problem.transition, self.needs),
            ("upper level", problem.upper, ("value", "grad")),
            ("hyper_map", problem.hyper_map, ("vjp",)),
        ):
            for product in products:
                if missing := part.lacking(product):
                    raise lacks(self, level, missing)

    #: Whether the hypergradient has B_0 α_0, the part that comes through w_0 = Ξ_0(λ).
    sees_start = True

    def __call__(self, problem: BilevelProblem, lam: Any = None) -> Hypergradient:
        """Return the hypergradient of `problem` at `lam` (N,), by default the problem's `lam0`.

        Raises
        ------
        TypeError, ValueError
            If `lam` is not a finite float32 or float64 vector of the right size, or the problem
            lacks a product that the method `needs`.
        DivergenceError
            If a state, the value or the hypergradient is not finite, or what `hyper_map` makes of
            `lam`.

        Warns
        -----
        StabilityWarning
            If the last steps swing and are longer than the first, and the curvature at w_0 or at
            w_T says that the step size is too large; up to 80 Hessian products find that out, on
            minibatches of two batches first.
        """
        if not isinstance(problem, BilevelProblem):
            raise TypeError(f"problem must be a BilevelProblem, got {problem!r}")
        r = problem.evaluate(self, lam)
        if r._restless:
            look(problem, lam, r.w, stacklevel=3)
        return r

    def unwatched(self, problem: BilevelProblem, lam: Any = None) -> Hypergradient:
        """Return the same with no look at the step size, for a loop that looks for itself."""
        if type(self).__call__ is not Method.__call__:  # a method of the user's own
            return self(problem, lam)
        return problem.evaluate(self, lam)

    def run(self, problem: BilevelProblem, lam: Any = None) -> Hypergradient:
        """Return the same, always step by step: what a problem falls back on."""
        self.require(problem)
        # Overflow is looked for once, at the end, where it can be explained.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._evaluate(Dynamics(problem, problem.check(lam)))

    def batch(
        self, problem: BilevelProblem | Sequence[BilevelProblem], lams: Any
    ) -> tuple[Array, Array]:
        """Return the values (L,) and hypergradients (L, N) at each row of `lams` (L, N).

        One after the other, but for problems that know better, as those of `tinybilevel.compile`.

        Parameters
        ----------
        problem : BilevelProblem or sequence of L of them
            One for all rows, or one for each, as in a Monte Carlo over problems.
        lams : array_like (L, N)
            Hyperparameters.

        Raises
        ------
        TypeError, ValueError
            If `lams` is not a finite float32 or float64 matrix with rows of the right size, or
            `problem` is neither a problem nor as many as there are rows.
        DivergenceError
            If a state, a value or a hypergradient is not finite.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> steps = [tb.compile(tb.problems.toy(step_size=s)) for s in (0.05, 0.1, 0.2)]
        >>> values, grads = tb.KRMD(K=5).batch(steps, np.ones((3, 2)))
        >>> grads[:, 0].round(3)
        array([2.501, 4.543, 7.458])
        """
        lams = as_float("lams", lams, ndim=2)
        one = isinstance(problem, BilevelProblem)
        if not isinstance(problem, BilevelProblem | Sequence):
            raise TypeError(f"problem must be a BilevelProblem or a list of them, got {problem!r}")
        problems = [problem] if isinstance(problem, BilevelProblem) else list(problem)
        for k, each in enumerate(problems):
            if not isinstance(each, BilevelProblem):
                raise TypeError(f"problem[{k}] must be a BilevelProblem, got {each!r}")
        if not one and len(problems) != len(lams):
            raise ValueError(
                f"lams must have a row for each of {len(problems)} problems, got {len(lams)}"
            )
        if problems and problems[0].namespace != "numpy":
            lams = moved(lams, problems[0].namespace)
        if not len(lams):
            return np.zeros_like(lams[:, 0]), np.zeros_like(lams)
        for each in {id(p): p for p in problems}.values():
            each.check(lams[0])
        return problems[0].evaluate_many(self, lams, None if one else problems)

    def run_many(self, problems: Sequence[BilevelProblem], lams: Array) -> tuple[Array, Array]:
        """Return the same, one call after the other, from as many problems as there are rows."""
        results = [self(p, lam) for p, lam in zip(problems, lams, strict=True)]
        values = like(results[0].grad, np.array([r.value for r in results]))
        return values, np.stack([r.grad for r in results])

    def cost(self, problem: BilevelProblem, lam: Any = None) -> Cost:
        """Predict the cost of a call beforehand; only the sizes of `lam` and w_0 matter."""
        with np.errstate(over="ignore", invalid="ignore"):
            dynamics = Dynamics(problem, problem.check(lam))
        transitions, products, states = self._predict(
            problem.T, dynamics.w0.size, dynamics.theta.size
        )
        return Cost(transitions, products, states * dynamics.w0.nbytes)

    def _evaluate(self, dynamics: Dynamics) -> Hypergradient:
        raise TypeError(f"{type(self).__name__} must define _evaluate and _predict")

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        """Return the transitions and products that are run and the M-vectors that are held."""
        raise TypeError(f"{type(self).__name__} must define _evaluate and _predict")
