r"""
Where a truncated gradient points
=================================

The upper level of the toy problem is full of ripples. Over :math:`\lambda`, truncated gradients are
shorter than the exact one and turned a little, and still point downhill, into the same valley.
"""

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

problem = tb.problems.toy()
methods = {"exact": tb.RMD(), "K = 20": tb.KRMD(K=20), "K = 5": tb.KRMD(K=5)}
points = np.array([[1.0, 1.0], [-2.3, 1.0], [2.4, -2.2], [-0.9, -3.9]])
arrows = {
    name: (points, np.array([-method(problem, lam).grad for lam in points]))
    for name, method in methods.items()
}
tb.plotting.landscape(problem, (-4.5, 4.5), arrows=arrows, arrow_length=0.2, resolution=40)

# %%
# Gradient descent with :math:`\eta_\tau = \eta_0/\sqrt\tau` ends in the same place by one step back
# and by fifty: here :math:`\lambda` acts on :math:`f` through :math:`\hat w^*` only. Where it does
# so directly as well, it need not: see :doc:`biased_limit`.

runs = {K: tb.bounds.theorem_3_3(problem, [-1.0, 1.0], K, iterations=300) for K in (1, 5, 50)}
for K, run in runs.items():
    print(f"K = {K:2d}: λ = {run.lam[-1].round(3)}, where ‖d_λ f‖ = {run.grad_norms[-1]:.1e}")
paths = {f"K = {K}": run.lam for K, run in runs.items()}
tb.plotting.landscape(problem, (-1.3, 1.3), paths=paths, resolution=25)
plt.show()
