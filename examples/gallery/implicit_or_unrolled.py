r"""
Implicit or unrolled?
=====================

Implicit differentiation (equation 11) takes it that :math:`w_T` is a minimum of the lower level.
Before it is one, implicit gradients answer another question than the one that was asked; unrolled
ones are right for what the algorithm returned, at every :math:`T`.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

digits = tb.data.digits().split(n_train=200, n_val=200, seed=0, dtype=np.float64)
X, X_val = tb.problems.append_bias(digits.X_train), tb.problems.append_bias(digits.X_val)
loss = tb.SoftmaxRegression(X, digits.y_train, weighted=False)
upper = tb.SoftmaxRegression(X_val, digits.y_val, weighted=False)
descent = tb.GradientDescent(loss + tb.L2Penalty(), step_size=0.5, initial=np.zeros(loss.size))
lam = np.array([np.log(0.02)])

horizons = (20, 50, 100, 200, 400)
errors = {"implicit, CG": [], "unrolled, K = 10": [], "unrolled, K = T/2": []}
for T in horizons:
    methods = tb.ImplicitCG(K=50, tol=0), tb.KRMD(K=10), tb.KRMD(K=T // 2)
    problem = tb.BilevelProblem(descent, upper, T=T, hyper_map=tb.Exp())
    exact = tb.RMD()(problem, lam).grad
    for name, method in zip(errors, methods, strict=True):
        with warnings.catch_warnings():  # CG warns, rightly, that w_T is no minimum yet
            warnings.simplefilter("ignore", tb.ConvergenceWarning)
            errors[name].append(tb.testing.relative_error(method(problem, lam).grad, exact))

fig, ax = plt.subplots(layout="constrained")
for name, line in errors.items():
    print(f"{name:>17}:", *(f"{error:8.1e}" for error in line))
    ax.semilogy(horizons, line, "o-", label=name)
ax.set(
    xscale="log", xlabel="T, steps of the lower level", ylabel="relative error of the hypergradient"
)
ax.minorticks_off()
ax.set_xticks(horizons, horizons)
ax.legend()
plt.show()
