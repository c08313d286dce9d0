import numpy as np
import pytest
import theory_cases

import tinybilevel as tb
from tinybilevel.bounds import certificate, proposition_3_1


@pytest.mark.parametrize("K", [0, 1, 20, 100])
def test_it_agrees_with_the_statements(K):
    problem = tb.problems.toy(biased=True)
    c, b = certificate(problem, method=tb.KRMD(K=K), exact=True), proposition_3_1(problem, K=K)
    assert (c.K, c.eq_9, c.eq_10, c.a_posteriori) == (K, b.eq_9, b.eq_10, b.a_posteriori)
    assert c.error == b.error
    d, h = tb.RMD()(problem).grad, tb.KRMD(K=K)(problem).grad
    assert c.descent == pytest.approx(h @ d / (d @ d))


def test_the_a_posteriori_bound_is_the_tightest_and_holds():
    problem = theory_cases.softmax(T=30)
    c = certificate(problem, method=tb.KRMD(K=12), exact=True)
    assert c.error <= c.a_posteriori < min(c.eq_9, c.eq_10)


def test_it_claims_nothing_that_it_did_not_measure():
    c = certificate(tb.problems.toy(biased=True), method=tb.KRMD(K=5))
    assert c.error is None
    assert c.descent is None
    text = str(c)
    assert text.count("not measured") == 2
    assert "  ?    needs the exact gradient" in text


def test_it_prints_as_a_table():
    text = str(certificate(theory_cases.kinked(T=14, doublings=8), method=tb.KRMD(K=5), exact=True))
    lines = text.splitlines()
    assert lines[0] == "KRMD(K=5, storage=Ring()) at one λ: N = 1, M = 1, T = 14, K = 5"
    assert "Proposition 3.1 asks for" in lines
    assert "Theorem 3.4 adds" in lines
    (gone,) = [line for line in lines if "  NO " in line]
    assert gone.split() == ["α", ">", "0", "on", "w_0", "…", "w_T", "NO", "α", "=", "-1"]
    (promise,) = [line for line in lines if "eq. (10)" in line]
    assert promise.endswith("no promise")
    assert len({line.index("yes") for line in lines if "  yes  " in line}) == 1, "in columns"


def test_it_says_how_exact_the_constants_are():
    problem = theory_cases.quadratic(M=110, N=105, T=1)
    text = str(certificate(problem))
    assert text.count("estimated, by iterations with residuals up to") == 3
    assert "β = 1 (estimated)" in text
    text = str(certificate(problem, confidence=0.99))
    assert text.count("certified with probability 0.99 over the start of iterations") >= 1
    assert "estimated" not in text
    text = str(certificate(tb.problems.toy()))
    assert text.count("certified, by exact spectra") == 3
    assert "iteration" not in text


def test_a_method_with_a_tolerance():
    c = certificate(tb.problems.toy(T=400), method=tb.KRMD(tol=0.01), exact=True)
    assert c.K < 400
    assert c.error <= c.a_posteriori <= 0.01


@pytest.mark.parametrize(
    "method", [tb.RMD(), tb.FMD(), tb.Neumann(3), tb.KRMD(K=1, tail=tb.Neumann(3)), "KRMD"]
)
def test_it_is_for_truncated_reverse_mode_alone(method):
    with pytest.raises(TypeError, match="method must be a KRMD without a tail, got"):
        certificate(tb.problems.toy(), method=method)


def test_known_constants():
    c = certificate(tb.problems.toy(), alpha=0.25, beta=2.0)
    assert c.assumptions[3].measured == "α = 0.25 (given)"
    assert c.eq_10 == proposition_3_1(tb.problems.toy(), alpha=0.25).eq_10
    np.testing.assert_array_equal(c.constants.alpha, 0.5)
