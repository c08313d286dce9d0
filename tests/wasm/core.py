"""What is run twice, natively and in WebAssembly; each line it prints begins with its section."""

import platform
import sys
from tempfile import TemporaryDirectory

import numpy as np

import tinybilevel as tb


def show(section, *values):
    """Print ten significant digits: sums may be taken in another order here and there."""
    print(f"{section}:", *(digits(v) if isinstance(v, float | np.ndarray) else v for v in values))


def digits(x):
    return ", ".join(f"{v:.9e}" for v in np.ravel(x))


def rmd(problem, lam):
    for storage in (tb.Ring(), tb.Checkpoint(), tb.Binomial(slots=6)):
        r = tb.RMD(storage=storage)(problem, lam)
        show("RMD", storage, r.value, r.grad, r.w, r.K)
    show("RMD", "FMD", tb.FMD()(problem, lam).grad)
    show("RMD", "implicit", tb.ImplicitCG(10)(problem, lam).grad)


def k_rmd(problem, lam):
    for K in (0, 1, 5, 20, 100):
        r = tb.KRMD(K=K)(problem, lam)
        show("K-RMD", K, r.grad, r.alpha_norms[-1])
    show("K-RMD", "tail", tb.KRMD(K=5, tail=tb.ImplicitCG(5))(problem, lam).grad)


def proposition_3_1(problem, lam):
    for K in (1, 20, 60, 99):
        b = tb.bounds.proposition_3_1(problem, lam, K)
        show("Proposition 3.1", K, b.error, b.eq_9, b.eq_10, b.a_posteriori, b.certified)
    show("Proposition 3.1", tb.testing.assert_truncation_bound(problem, K=10).status)


def hypercleaning():
    data = tb.data.digits().split(seed=0)
    labels, corrupted = tb.data.corrupt_labels(data.y_train, 0.5, seed=0)
    problem = tb.problems.hypercleaning(data.X_train, labels, data.X_val, data.y_val)
    problem = problem.astype(np.float64)
    r = tb.KRMD(K=5)(problem)
    show("hypercleaning", r.value, r.grad[:5], np.linalg.norm(r.grad), np.linalg.norm(r.w))
    result = tb.minimize(problem, method=tb.KRMD(K=5), optimizer=tb.Adam(0.3), iterations=30)
    wrong = tb.problems.rejected(result.lam)
    show("hypercleaning", result.value, result.lam[:5], np.linalg.norm(result.lam))
    show("hypercleaning", wrong.sum(), corrupted[wrong].mean())


def minimize(problem):
    start = np.array([-1.0, 1.0])
    method = tb.KRMD(K=20)
    with TemporaryDirectory() as folder:
        at = dict(method=method, optimizer=tb.SGD(0.01), checkpoint=f"{folder}/run.npz")
        first = tb.minimize(problem, start, iterations=20, **at)
        second = tb.minimize(problem, start, iterations=50, resume=True, **at)
    show("minimize", first.lam, second.lam, second.value)

    from scipy.optimize import minimize as scipy_minimize

    function = tb.value_and_grad(problem, tb.RMD())
    found = scipy_minimize(function, start, jac=True, method="L-BFGS-B")
    show("minimize", "L-BFGS-B", found.success, *found.x.round(3).tolist())


if __name__ == "__main__":
    toy, lam = tb.problems.toy(), np.array([1.0, 1.0])
    rmd(toy, lam)
    k_rmd(toy, lam)
    proposition_3_1(toy, lam)
    hypercleaning()
    minimize(toy)
    show("platform", sys.platform, platform.machine(), np.__version__)
