"""What compiles is known by its very type: a subclass may compute something else."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.compiled.registry import Registry

pytest.importorskip("numba")


class HalfPenalty(tb.L2Penalty):
    def value(self, w, lam):
        return 0.5 * super().value(w, lam)

    def grad(self, w, lam):
        return 0.5 * super().grad(w, lam)

    def grad_vjp(self, w, lam, v):
        hessian, mixed = super().grad_vjp(w, lam, v)
        return 0.5 * hessian, 0.5 * mixed


class Doubled(tb.SoftmaxRegression):
    def grad(self, w, lam):
        return 2 * super().grad(w, lam)


@dataclass(frozen=True)
class Negated(tb.RMD):
    def _evaluate(self, dynamics):
        r = super()._evaluate(dynamics)
        return replace(r, grad=-r.grad)


@pytest.mark.parametrize("level", ["lower", "upper"])
def test_an_objective_derived_from_a_known_one_is_not_taken_for_it(level):
    toy, own = tb.problems.toy(), HalfPenalty(1.0)
    g = toy.transition.objective + own if level == "lower" else toy.transition.objective
    f = own if level == "upper" else toy.upper
    with pytest.raises(TypeError, match=f"no compiled form of the {level} level"):
        tb.compile(replace(toy, transition=tb.GradientDescent(g, 0.1, [2.0, 2.0]), upper=f))


def test_nor_is_one_with_a_kernel():
    g = Doubled(np.eye(3), [0, 1, 2], backend="numba")
    f = tb.SoftmaxRegression(np.eye(3), [0, 1, 2], weighted=False)
    descent = tb.GradientDescent(g + tb.L2Penalty(0.1), 0.1, np.zeros(9))
    with pytest.raises(TypeError, match="no compiled form of the lower level"):
        tb.compile(tb.BilevelProblem(descent, f, T=5, lam0=np.ones(3)))


def test_a_method_derived_from_a_known_one_runs_its_own_code():
    fast = tb.compile(tb.problems.toy())
    np.testing.assert_allclose(Negated()(fast).grad, -tb.RMD()(fast).grad, rtol=1e-12)
    _, grads = Negated().batch(fast, np.ones((2, 2)))
    np.testing.assert_allclose(grads[0], -tb.RMD()(fast).grad, rtol=1e-12)


def test_a_registry_knows_nothing_of_subclasses():
    size = Registry("…")

    @size.of(list)
    def _(x, factor):
        return factor * len(x)

    class Own(list):
        pass

    assert size([1, 2], 3) == 6
    assert size(Own(), 3) is None


@pytest.mark.parametrize("strength", [0.5, [0.5]])
def test_what_has_no_penalty_has_none_in_compiled_code(strength):
    free = tb.L2Penalty(strength, groups=[0, -1])
    for plain in (
        replace(tb.problems.toy(T=5), upper=free),
        tb.BilevelProblem(
            tb.GradientDescent(tb.Quadratic([1.0, 0.5]) + free, 0.1, [2.0, 2.0]), free, T=5
        ),
    ):
        r, fast = (tb.RMD()(p, np.array([1.0, 1.5])) for p in (plain, tb.compile(plain)))
        assert fast.value == pytest.approx(r.value, rel=1e-14)
        np.testing.assert_allclose(fast.grad, r.grad, rtol=1e-13)


def test_learned_strengths_beside_entries_without_one_are_not_compiled():
    learned = tb.L2Penalty(groups=[0, -1]).on(slice(0, 1)) + tb.Quadratic([1.0, 1.0])
    f = tb.Quadratic([1.0, 1.0])
    plain = tb.BilevelProblem(tb.GradientDescent(learned, 0.1, [1.0, 1.0]), f, T=3)
    with pytest.raises(TypeError, match="no compiled form of the lower level"):
        tb.compile(plain)
