r"""
Exact zeros, differentiated through
===================================

Proximal gradient steps set weights to exactly zero, and back-propagation goes through them too. One
strength of a lasso, learned from a validation set, against what a grid of 40 values finds: sparse
regression with 60 features of which five matter.
"""

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

rng = np.random.default_rng(0)
truth = np.zeros(60)
truth[:5] = [3.0, -2.0, 2.0, -1.0, 1.0]
X, X_val = rng.standard_normal((2, 80, 60))
y, y_val = (A @ truth + rng.standard_normal(80) for A in (X, X_val))

steps = tb.ProximalGradient(
    tb.LeastSquares(X, y, weighted=False), step_size=0.2, initial=np.zeros(60), l1=slice(0, 1)
)
problem = tb.BilevelProblem(
    steps, tb.LeastSquares(X_val, y_val, weighted=False), T=200, hyper_map=tb.Exp()
)
result = tb.minimize(problem, [np.log(1e-3)], tb.KRMD(K=50), optimizer=tb.Adam(0.2), iterations=60)
before, after = float(result.history["value"][0]), result.value
print(f"validation loss: {before:.4f} before, {after:.4f} after")
print(f"strength {np.exp(result.lam[0]):.3f}; {np.count_nonzero(result.w)} of 60 weights are not 0")

# %%
# The learned strength lies at the bottom of the valley.

grid = np.linspace(np.log(1e-3), 0.5, 40)
values = [tb.KRMD(K=0)(problem, [lam]).value for lam in grid]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
axes[0].semilogx(np.exp(grid), values, label="a grid")
axes[0].plot(np.exp(result.lam), result.value, "o", label="learned")
axes[0].set(xlabel="strength", ylabel="validation loss")
axes[0].legend()
axes[1].stem(truth, markerfmt="C0s", label="true")
axes[1].stem(result.w, linefmt="C1", markerfmt="C1o", basefmt=" ", label="found")
axes[1].set(xlabel="feature", ylabel="weight")
axes[1].legend()
plt.show()
