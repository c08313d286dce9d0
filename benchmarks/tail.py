"""Where a tail pays: errors of hypergradients that take the same number of products.

Run ``python -m benchmarks.tail``. Each problem is softmax regression on scikit-learn's handwritten
digits: 200 training examples with learned weights, a penalty, 300 validation examples. Errors are
‖h − d_λ f‖ / ‖d_λ f‖ against full reverse mode; no times are taken.
"""

import numpy as np

import tinybilevel as tb

T, STEP = 400, 0.5


def problem(penalty: float, batch: int | None) -> tb.BilevelProblem:
    """Return the problem by gradient descent, on minibatches if `batch` is given."""
    data = tb.data.digits()
    X, y = tb.problems.append_bias(data.X_train / 16.0), data.y_train
    g = tb.SoftmaxRegression(X[:200], y[:200], 10) + penalty * tb.L2Penalty(1.0)
    f = tb.SoftmaxRegression(X[500:800], y[500:800], 10, weighted=False)
    batches = None if batch is None else tb.minibatches(200, batch, T, seed=0)
    descent = tb.GradientDescent(g, STEP, np.zeros(f.size), batches=batches)
    lam = np.random.default_rng(0).standard_normal(200)
    return tb.BilevelProblem(descent, f, T=T, hyper_map=tb.Sigmoid(), lam0=lam)


def main() -> None:
    """Print the table."""
    print(
        "| lower level | products | K + m steps | CG alone | Neumann alone "
        "| K steps, m of CG | K steps, m of Neumann |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for penalty, batch in ((0.02, None), (0.02, 100), (0.02, 50), (0.1, None), (0.1, 100)):
        at = problem(penalty, batch)
        noise = "full gradients" if batch is None else f"batches of {batch}"
        exact = tb.RMD()(at).grad
        for K in (5, 10, 25, 50):
            methods = (
                tb.KRMD(K=2 * K),
                tb.ImplicitCG(2 * K, tol=0),
                tb.Neumann(2 * K),
                tb.KRMD(K=K, tail=tb.ImplicitCG(K, tol=0)),
                tb.KRMD(K=K, tail=tb.Neumann(K)),
            )
            errors = [tb.testing.relative_error(m(at).grad, exact) for m in methods]
            best = min(errors)
            cells = " | ".join(f"**{e:.1e}**" if e == best else f"{e:.1e}" for e in errors)
            print(f"| penalty {penalty}, {noise} | {K} + {K} | {cells} |")


if __name__ == "__main__":
    main()
