import pickle

import numpy as np
import pytest
import scipy.optimize

import tinybilevel as tb

TOY = tb.problems.toy()


def learned_step():
    """Return a problem whose λ = (log γ, targets): a trial step of 5 makes γ too large by far."""
    blocks, c = tb.Layout(step=1, target=2), np.array([1.1, -1.8])
    g = tb.Quadratic([0.0586, 0.0572]).on(blocks["target"])
    descent = tb.GradientDescent(g, blocks["step"], initial=[5.0, 5.0])
    f = tb.Objective.from_functions(
        value=lambda w, lam: float((w - c) @ (w - c)), grad=lambda w, lam: 2 * (w - c)
    )
    phi = tb.Blocks(blocks, step=tb.Exp(), target=tb.Identity())
    lam0 = blocks.pack(step=np.log(0.003346), target=np.zeros(2))
    return tb.BilevelProblem(descent, f, T=50, hyper_map=phi, lam0=lam0)


def bfgs(fun, lam0):
    return scipy.optimize.minimize(fun, lam0, jac=True, method="L-BFGS-B")


def test_it_is_the_method():
    fun = tb.value_and_grad(TOY, tb.KRMD(K=5))
    value, grad = fun([0.5, 1.0])
    r = tb.KRMD(K=5)(TOY, [0.5, 1.0])
    assert value == r.value
    np.testing.assert_array_equal(grad, r.grad)


def test_a_bad_trial_step_ends_the_run_with_the_best_so_far():
    problem = learned_step()
    fun = tb.value_and_grad(problem, tb.RMD())
    with pytest.raises(tb.DivergenceError) as caught:
        bfgs(fun, problem.lam0)
    assert (fun.evaluations, fun.divergences) == (4, 1)
    assert caught.value.best_value == fun.best_value == tb.RMD()(problem, fun.best_lam).value
    np.testing.assert_array_equal(caught.value.best_lam, fun.best_lam)


@pytest.mark.filterwarnings("ignore:the lower level does not settle")  # at the wild trial point
def test_from_infinity_a_line_search_backs_off_and_ends_at_the_minimum():
    problem = learned_step()
    fun = tb.value_and_grad(problem, tb.RMD(), on_divergence="inf")
    result = bfgs(fun, problem.lam0)
    assert fun.divergences == 1
    assert result.success
    assert result.fun < 1e-10
    assert fun.best_value == result.fun
    np.testing.assert_array_equal(fun.best_lam, result.x)


def test_what_diverges_is_infinite_with_a_gradient_of_zero():
    problem = tb.problems.toy(step_size=1e200)
    value, grad = tb.value_and_grad(problem, tb.RMD(), on_divergence="inf")([1.0, 1.0])
    assert value == np.inf
    np.testing.assert_array_equal(grad, np.zeros(2))


def test_a_trial_point_that_is_not_finite_is_backed_off_from_too():
    fun = tb.value_and_grad(TOY, tb.RMD(), on_divergence="inf")
    assert fun([np.nan, 1.0])[0] == np.inf
    with pytest.raises(ValueError, match="lam must be finite"):
        tb.value_and_grad(TOY, tb.RMD())([np.nan, 1.0])


@pytest.mark.parametrize("solver", ["L-BFGS-B", "TNC", "SLSQP", "CG", "BFGS", "trust-constr"])
def test_scipys_solvers_take_it(solver):
    fun = tb.value_and_grad(TOY, tb.RMD(), on_divergence="inf")
    result = scipy.optimize.minimize(fun, [0.5, 0.5], jac=True, method=solver)
    assert result.fun < 1e-5


def test_whole_numbers_and_float32_are_taken():
    single = tb.BilevelProblem(TOY.transition, TOY.upper, T=10, lam0=np.ones(2, np.float32))
    value, grad = tb.value_and_grad(single, tb.RMD())([1, 1])
    assert grad.dtype == np.float64
    assert value == tb.RMD()(single, np.ones(2, np.float32)).value


def test_it_goes_to_other_processes():
    fun = tb.value_and_grad(TOY, tb.RMD())
    assert pickle.loads(pickle.dumps(fun))([1.0, 1.0])[0] == fun([1.0, 1.0])[0]


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((tb.RMD(), TOY), TypeError, "problem must be .*: the method comes after it"),
        ((TOY, TOY), TypeError, "method must be a Method"),
        ((TOY, tb.RMD), TypeError, "method must be a Method"),
    ],
)
def test_wrong_arguments_are_named(args, error, message):
    with pytest.raises(error, match=message):
        tb.value_and_grad(*args)


def test_another_word_for_divergence_is_refused():
    with pytest.raises(ValueError, match='on_divergence must be "raise" or "inf", got \'ignore\''):
        tb.value_and_grad(TOY, tb.RMD(), on_divergence="ignore")


def test_a_truncated_method_that_cannot_see_w_0_says_so_once():
    problem = tb.BilevelProblem(
        tb.GradientDescent(tb.L2Penalty(0.5), 0.1, initial=slice(0, 2)), TOY.upper, T=3
    )
    fun = tb.value_and_grad(problem, tb.KRMD(K=3))
    with pytest.warns(tb.TruncationWarning, match="leaves out what comes through it") as caught:
        fun([1.0, 1.0])
    assert caught[0].filename == __file__
    fun([1.0, 2.0])
    tb.value_and_grad(problem, tb.RMD())([1.0, 1.0])
