r"""
Find wrong labels
=================

Half of the labels of 600 handwritten digits are wrong. Every example gets a weight
:math:`\sigma(\lambda_i)` of its own, 600 hyperparameters, and a clean validation set says what the
weights are worth. Five steps of back-propagation are enough to tell which labels lie.
"""

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

digits = tb.data.digits().split(seed=0)
labels, corrupted = tb.data.corrupt_labels(digits.y_train, 0.5, seed=0)
problem = tb.problems.hypercleaning(digits.X_train, labels, digits.X_val, digits.y_val)
result = tb.minimize(problem, method=tb.KRMD(K=5), optimizer=tb.Adam(0.3), iterations=100)

before, after = float(result.history["value"][0]), result.value
found = tb.problems.rejected(result.lam)  # λ_i < −3
print(f"validation loss: {before:.3f} before, {after:.3f} after")
print(f"of {found.sum()} rejected labels {corrupted[found].mean():.1%} are wrong indeed,")
print(f"and of {corrupted.sum()} wrong labels {found[corrupted].mean():.1%} were rejected")

# %%
# The labels with the smallest weights: what the data say, and what is true.

images = digits.X_train.reshape(-1, 8, 8)
tb.plotting.rejected_labels(images, labels, result.lam, digits.y_train, count=20)

# %%
# The weights separate right from wrong.

fig, ax = plt.subplots(layout="constrained")
bins = np.linspace(result.lam.min(), result.lam.max(), 40)
ax.hist(result.lam[~corrupted], bins, alpha=0.7, label="right labels")
ax.hist(result.lam[corrupted], bins, alpha=0.7, label="wrong labels")
ax.axvline(-3, color="k", linestyle=":", label="rejected below")
ax.set(xlabel=r"$\lambda_i$", ylabel="examples")
ax.legend()
plt.show()
