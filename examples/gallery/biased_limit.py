r"""
When truncation ends beside the optimum
=======================================

Where :math:`\lambda` enters the upper level directly, the two parts of the gradient can pull
against each other: :math:`\tilde f = f + 5\|\lambda - (1, 0)\|^2`. The truncated method then stops
where :math:`h_{T-K} = 0`, which is not where :math:`\mathrm{d}_\lambda f = 0`; the distance falls
geometrically with :math:`K` (Figure 3 of the paper).
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import root

import tinybilevel as tb

problem = tb.problems.toy(biased=True)
best = root(lambda lam: tb.RMD()(problem, lam).grad, [0.5, 0.0]).x

limits, limit = {}, best
for K in range(90, 0, -1):
    limit = root(lambda lam, K=K: tb.KRMD(K=K)(problem, lam).grad, limit).x
    limits[K] = limit
print("the optimum", best.round(4))
for K in (1, 20, 80):
    print(f"K = {K:2d} ends at", limits[K].round(4))

fig, ax = plt.subplots(layout="constrained")
ax.semilogy(limits.keys(), [np.linalg.norm(lam - best) for lam in limits.values()])
ax.set(xlabel="K", ylabel=r"$\|\lambda^K - \lambda^*\|$")
plt.show()
