r"""
What K steps leave out
======================

The error of :math:`h_{T-K}` falls like :math:`(1 - \gamma\alpha)^K` (Proposition 3.1),
:math:`\alpha` being the lower level's strong convexity. One backward pass gives the gradient of
every :math:`K`.
"""

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

problem = tb.problems.toy()
constants = tb.bounds.measure(problem)
rows = [
    tb.bounds.proposition_3_1(problem, K=K, constants=constants) for K in range(0, problem.T, 5)
]
for row in rows[::5]:
    print(f"K = {row.K:2d}: error {row.error:6.3f} ≤ {row.eq_10:6.3f}")

tb.plotting.truncation_error(rows)

# %%
# A larger step size forgets faster, so that fewer steps back are enough, up to where
# :math:`\gamma` is no longer below :math:`2/\beta` and nothing is forgotten at all.

fig, ax = plt.subplots(layout="constrained")
for gamma in (0.02, 0.1, 0.5, 1.0):
    problem = tb.problems.toy(step_size=gamma)
    *truncated, exact = tb.RMD().truncations(problem)
    errors = [np.linalg.norm(h - exact) / np.linalg.norm(exact) for h in truncated[:-1]]
    ax.semilogy(errors, label=rf"$\gamma = {gamma}$")
ax.set(xlabel="K", ylabel="relative error", ylim=(1e-9, 2))
ax.legend()
plt.show()
