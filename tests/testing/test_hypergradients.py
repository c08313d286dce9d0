from dataclasses import dataclass, replace

import cases
import numpy as np
import pytest

import tinybilevel as tb

TRANSITION = tb.HeavyBall(
    cases.lower(),
    cases.LAYOUT["step"],
    initial=cases.LAYOUT["w0"],
    momentum=cases.LAYOUT["momentum"],
    batches=cases.BATCHES,
)
PROBLEM = tb.BilevelProblem(TRANSITION, cases.cosine_of_state(), T=4)
LAM = cases.hyperparameters()


@dataclass(frozen=True)
class Wrong(tb.Method):
    """RMD with one field of the result changed."""

    field: str
    change: object

    def __call__(self, problem, lam=None):
        r = tb.RMD()(problem, lam)
        return replace(r, **{self.field: self.change(getattr(r, self.field))})


def first_entry_dropped(x):
    return np.where(np.arange(x.size) == 0, 0, x)


WRONG_GRADS = {
    "sign": np.negative,
    "missing ½": lambda x: 2 * x,
    "zero": np.zeros_like,
    "entry dropped": first_entry_dropped,
    "index shifted": lambda x: np.roll(x, 1),
    "nan": lambda x: np.nan * x,
    "nearly right": lambda x: x * (1 + 1e-5),
}


def test_right_methods_agree():
    methods = [tb.RMD(), tb.FMD(), tb.RMD(storage=tb.Checkpoint()), tb.RMD(storage=tb.Binomial(1))]
    errors = tb.testing.assert_methods_agree(PROBLEM, LAM, methods)
    assert len(errors) == 3
    assert tb.testing.assert_matches_differences(PROBLEM, LAM, tb.RMD()) < 1e-7
    dense = tb.testing.dense_hypergradient(PROBLEM, LAM)
    assert tb.testing.relative_error(tb.RMD()(PROBLEM, LAM).grad, dense) < 1e-12


@pytest.mark.parametrize("name", WRONG_GRADS)
def test_a_wrong_gradient_is_found(name):
    wrong = Wrong("grad", WRONG_GRADS[name])
    with pytest.raises(AssertionError, match=r"disagree by .*grad"):
        tb.testing.assert_methods_agree(PROBLEM, LAM, [tb.RMD(), wrong])
    with pytest.raises(AssertionError, match="off central differences"):
        tb.testing.assert_matches_differences(PROBLEM, LAM, wrong)


@pytest.mark.parametrize("field", ["value", "w"])
def test_a_wrong_value_or_state_is_found(field):
    wrong = Wrong(field, lambda x: x + 1e-9)
    with pytest.raises(AssertionError, match=f"disagree by .*{field}"):
        tb.testing.assert_methods_agree(PROBLEM, LAM, [tb.RMD(), wrong])


def test_a_gradient_that_is_zero_is_compared_too():
    flat = tb.Objective.from_functions(lambda w, lam: 1.0, lambda w, lam: 0 * w)
    still = tb.BilevelProblem(TRANSITION, flat, T=2)
    assert tb.testing.assert_matches_differences(still, LAM, tb.RMD()) == 0
    for change in (lambda x: x + 1e-3, lambda x: x + np.nan):
        with pytest.raises(AssertionError):
            tb.testing.assert_matches_differences(still, LAM, Wrong("grad", change))
        with pytest.raises(AssertionError):
            tb.testing.assert_methods_agree(still, LAM, [tb.RMD(), Wrong("grad", change)])


def test_truncation_is_no_exact_method():
    # K = T leaves out B_0 α_0, which is not 0 here.
    for K in (1, 3, 4):
        with pytest.raises(AssertionError, match=r"disagree by .*grad"):
            tb.testing.assert_methods_agree(PROBLEM, LAM, [tb.RMD(), tb.KRMD(K=K)])
        with pytest.raises(AssertionError, match="off central differences"):
            tb.testing.assert_matches_differences(PROBLEM, LAM, tb.KRMD(K=K))


@pytest.mark.parametrize("K", [0, 1, 2, 3, 4])
def test_the_dense_truncated_sum(K):
    dense = tb.testing.dense_hypergradient(PROBLEM, LAM, K=K)
    assert tb.testing.relative_error(tb.KRMD(K=K)(PROBLEM, LAM).grad, dense) < 1e-12


@pytest.mark.parametrize("T", [0, 1, 5])
def test_the_dense_route_against_a_closed_form(T):
    # w_T = P w_0 + (I − P) λ with P = (I − γG)^T, and w_0 = 2λ: w_T = (I + P) λ.
    G, lam = cases.normal(1, 3, 3), cases.normal(2, 3)
    G = G @ G.T
    P = np.linalg.matrix_power(np.eye(3) - 0.1 * G, T)
    descent = tb.GradientDescent(
        tb.Quadratic(G), 0.1, (lambda lam: 2 * lam, lambda lam, alpha: 2 * alpha)
    )
    problem = tb.BilevelProblem(descent, cases.cosine_of_state(), T=T, hyper_map=tb.Affine(0.5))
    w = (np.eye(3) + P) @ (0.5 * lam)
    exact = 0.5 * (np.eye(3) + P).T @ np.cos(w)
    np.testing.assert_allclose(tb.testing.dense_hypergradient(problem, lam), exact, rtol=1e-12)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="K must be at most the horizon T = 4, got 5"):
        tb.testing.dense_hypergradient(PROBLEM, LAM, K=5)
    with pytest.raises(ValueError, match="K must be at least 0, got -1"):
        tb.testing.dense_hypergradient(PROBLEM, LAM, K=-1)
    with pytest.raises(ValueError, match="methods must hold at least two to compare, got 1"):
        tb.testing.assert_methods_agree(PROBLEM, LAM, [tb.RMD()])
