"""Tune one L2 strength per feature, 31 at once, with SciPy's L-BFGS-B on exact hypergradients.

Lower level: softmax regression on the Breast Cancer Wisconsin data, by 100 steps of Nesterov's
method. Upper level: the loss on a validation set. λ holds the logarithms of the strengths.

    python examples/feature_penalties.py
"""

import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer

import tinybilevel as tb


def main() -> tuple[float, float]:
    """Return the validation loss before and after, and print both."""
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    X = tb.problems.append_bias(X)
    order = np.random.default_rng(0).permutation(len(y))
    train, val = order[:280], order[280:]

    n_classes, n_features = 2, X.shape[1]
    loss = tb.SoftmaxRegression(X[train], y[train], weighted=False)
    penalty = tb.L2Penalty(groups=np.tile(np.arange(n_features), n_classes))
    problem = tb.BilevelProblem(
        tb.Nesterov(loss + penalty, step_size=0.1, momentum=0.9, initial=np.zeros(loss.size)),
        upper=tb.SoftmaxRegression(X[val], y[val], weighted=False),
        T=100,
        hyper_map=tb.Exp(),
        lam0=np.full(n_features, np.log(0.1)),
    )

    # Few states are kept: 100 steps of back-propagation from 10 slots.
    fun = tb.value_and_grad(problem, tb.RMD(tb.Binomial(slots=10)))
    # Beyond e¹ Nesterov's step of 0.1 would be too large for the curvature.
    bounds = [(-10, 1)] * n_features
    options = {"maxiter": 30}
    result = minimize(
        fun, problem.lam0, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    before = fun(problem.lam0)[0]
    print(f"validation loss: {before:.4f} with one strength for all, {result.fun:.4f} with its own")
    print(f"features all but switched off: {int((result.x > 0).sum())} of {n_features}")
    return before, float(result.fun)


if __name__ == "__main__":
    main()
