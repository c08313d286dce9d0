r"""
A penalty for every feature
===========================

31 strengths of L2 regularisation at once, tuned by SciPy's L-BFGS-B on exact hypergradients. Lower
level: softmax regression on the Breast Cancer Wisconsin data, 100 steps of Nesterov's method. Upper
level: the loss on a validation set. :math:`\lambda` holds the logarithms of the strengths.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer

import tinybilevel as tb

data = load_breast_cancer()
X = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
X = tb.problems.append_bias(X)
order = np.random.default_rng(0).permutation(len(X))
train, val = order[:280], order[280:]

n_classes, n_features = 2, X.shape[1]
loss = tb.SoftmaxRegression(X[train], data.target[train], weighted=False)
penalty = tb.L2Penalty(groups=np.tile(np.arange(n_features), n_classes))
problem = tb.BilevelProblem(
    tb.Nesterov(loss + penalty, step_size=0.1, momentum=0.9, initial=np.zeros(loss.size)),
    upper=tb.SoftmaxRegression(X[val], data.target[val], weighted=False),
    T=100,
    hyper_map=tb.Exp(),
    lam0=np.full(n_features, np.log(0.1)),
)

# %%
# Few states are kept: 100 steps of back-propagation from 10 slots. Beyond :math:`e^1` Nesterov's
# step of 0.1 would be too large for the curvature, so the strengths are bounded.

fun = tb.value_and_grad(problem, tb.RMD(tb.Binomial(slots=10)))
result = minimize(
    fun,
    problem.lam0,
    jac=True,
    method="L-BFGS-B",
    bounds=[(-10, 1)] * n_features,
    options={"maxiter": 30},
)
before, after = fun(problem.lam0)[0], float(result.fun)
print(f"validation loss: {before:.4f} with one strength for all, {after:.4f} with its own")
print(f"features all but switched off: {int((result.x > 0).sum())} of {n_features}")

fig, ax = plt.subplots(figsize=(6, 6), layout="constrained")
names = [*data.feature_names, "bias"]
rows = np.argsort(result.x)
ax.barh([names[i] for i in rows], np.exp(result.x[rows]))
ax.set(xscale="log", xlabel="strength of the penalty")
plt.show()
