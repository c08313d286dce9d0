"""A problem that lacks a product is refused before anything runs."""

from dataclasses import replace

import cases
import engine_cases
import numpy as np
import pytest
from engine_cases import LAM

import tinybilevel as tb


def never(*_):
    raise AssertionError("something ran")


def lower(**products):
    return tb.Objective.from_functions(value=never, grad=never, **products)


def descending(g):
    moves = tb.GradientDescent(g, 0.1, [1.0, 1.0])
    return tb.BilevelProblem(moves, tb.problems.toy().upper, T=3, lam0=[1.0, 1.0])


REVERSE = [
    tb.RMD(),
    tb.RMD(tb.Checkpoint()),
    tb.KRMD(K=2),
    tb.KRMD(tol=0.1),
    tb.Neumann(3),
    tb.ImplicitCG(),
    tb.KRMD(K=0, tail=tb.Neumann(1)),
    tb.KRMD(K=0, tail=tb.ImplicitCG()),
]


@pytest.mark.parametrize("method", REVERSE, ids=repr)
@pytest.mark.parametrize(
    "g",
    [
        lower(grad_jvp=never),
        lower(grad_jvp=never).on(slice(0, 2)),
        tb.L2Penalty(0.1) + 2 * lower(grad_jvp=never).on(slice(0, 2)),
    ],
    ids=["functions", "on a block", "in a sum"],
)
def test_reverse_and_implicit_methods_need_grad_vjp(method, g):
    with pytest.raises(TypeError, match="FunctionObjective has no grad_vjp, which ") as caught:
        method(descending(g))
    used = getattr(method, "tail", None) or method
    assert f"which {type(used).__name__} needs of the" in str(caught.value)


def test_forward_mode_needs_grad_jvp():
    message = "FunctionObjective has no grad_jvp, which FMD needs of the transition"
    with pytest.raises(TypeError, match=message):
        tb.FMD()(descending(lower(grad_vjp=never)))


def test_all_truncations_need_what_reverse_mode_needs():
    with pytest.raises(TypeError, match="FunctionObjective has no grad_vjp, which RMD needs"):
        tb.RMD().truncations(descending(lower(grad_jvp=never)))


def test_the_lower_level_alone_needs_no_product():
    g = tb.Objective.from_functions(lambda w, lam: 0.0, lambda w, lam: w - lam)
    assert tb.KRMD(K=0)(descending(g)).w == pytest.approx(1)
    assert tb.Neumann(0)(descending(g)).w == pytest.approx(1)


class Halfway(tb.Transition):
    def step(self, t, w, lam):
        return never()


@pytest.mark.parametrize(
    ("method", "product"), [(tb.RMD(), "vjp"), (tb.KRMD(K=1), "vjp"), (tb.FMD(), "jvp")]
)
def test_a_transition_that_is_half_written_is_refused(method, product):
    problem = replace(tb.problems.toy(), transition=Halfway([1.0, 1.0]))
    message = f"Halfway has no {product}, which {type(method).__name__} needs of the transition"
    with pytest.raises(TypeError, match=message):
        method(problem)


def test_a_transition_from_functions_may_lack_its_jvp():
    moves = tb.Transition.from_functions(never, never, initial=[1.0, 1.0])
    with pytest.raises(TypeError, match="FunctionTransition has no jvp, which FMD needs"):
        tb.FMD()(replace(tb.problems.toy(), transition=moves))


@pytest.mark.parametrize("missing", ["value", "grad"])
def test_an_upper_level_that_is_half_written_is_refused(missing):
    class Upper(tb.Objective):
        def value(self, w, lam):
            return 0.0

        def grad(self, w, lam):
            return w

    delattr(Upper, missing)
    with pytest.raises(TypeError, match=f"Upper has no {missing}, which RMD needs of the upper"):
        tb.RMD()(replace(tb.problems.toy(), upper=Upper()))


class OneWay(tb.HyperMap):
    def __call__(self, lam):
        return lam


class NoDerivative(tb.Exp.__mro__[1]):
    def __call__(self, lam):
        return lam


@pytest.mark.parametrize(
    ("phi", "lacks"),
    [
        (OneWay(), "OneWay has no vjp"),
        (tb.Compose(tb.Exp(), OneWay()), "OneWay has no vjp"),
        (tb.Blocks(tb.Layout(a=1, b=1), b=OneWay()), "OneWay has no vjp"),
        (NoDerivative(), "NoDerivative has no derivative"),
    ],
)
def test_a_map_without_its_product_is_refused(phi, lacks):
    with pytest.raises(TypeError, match=f"{lacks}, which RMD needs of the hyper_map"):
        tb.RMD()(replace(tb.problems.toy(), hyper_map=phi))


class OwnProduct(tb.GradientDescent):
    """Writes its own product, so that the objective's is not asked for."""

    def vjp(self, t, w, lam, alpha):
        return 0.9 * alpha, 0.1 * alpha


class OwnHessian(type(cases.cosine())):
    """Adds by inheritance what was not given as a function."""

    def grad_vjp(self, w, lam, v):
        return v, -v


def test_what_a_subclass_writes_out_counts():
    g = tb.Objective.from_functions(lambda w, lam: 0.0, lambda w, lam: w - lam)
    moves = OwnProduct(g, 0.1, [2.0, 2.0])
    tb.RMD()(replace(tb.problems.toy(), transition=moves))
    own = OwnHessian(lambda w, lam: 0.0, lambda w, lam: w - lam, None, None, None)
    r = tb.RMD()(replace(tb.problems.toy(), transition=tb.GradientDescent(own, 0.1, [2.0, 2.0])))
    assert np.isfinite(r.grad).all()


def test_every_transition_and_map_of_ours_writes_all_of_its_products():
    for name, case in cases.transitions().items():
        products = ("step", "vjp", "jvp", "initial_vjp", "initial_jvp")
        assert not any(case.subject.lacking(product) for product in products), name
    for name, case in cases.objectives().items():
        products = ("value", "grad", "grad_lam", "grad_vjp", "grad_jvp")
        assert not any(case.subject.lacking(product) for product in products), name
    for name, case in cases.maps().items():
        assert case.subject.lacking("vjp") is None, name
    assert np.isfinite(tb.FMD()(engine_cases.long(3), LAM).grad).all()


def test_what_is_no_problem_is_refused():
    with pytest.raises(TypeError, match="problem must be a BilevelProblem, got array"):
        tb.RMD()(np.ones(2))
