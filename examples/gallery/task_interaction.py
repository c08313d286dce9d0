r"""
Which tasks help each other
===========================

Six regressions with 15 examples each for 20 weights: too few, alone. The first three have nearly
the same answer, and so do the other three, but nobody says so. A matrix :math:`C`, learned from
validation data, finds out: its 15 entries are the strengths of :math:`C_{ij}\|w_i - w_j\|^2`, the
coupling of the paper's Section 4.2.2.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import block_diag

import tinybilevel as tb

V, d, n = 6, 20, 15
rng = np.random.default_rng(0)
families = rng.standard_normal((2, d))
truth = np.repeat(families, 3, axis=0) + 0.1 * rng.standard_normal((V, d))


def regressions():
    """Return the loss of all six as one: the examples of each see their own weights only."""
    X = rng.standard_normal((V, n, d))
    y = np.einsum("vnd,vd->vn", X, truth) + rng.standard_normal((V, n))
    return tb.LeastSquares(block_diag(*X), y.ravel(), weighted=False)


problem = tb.BilevelProblem(
    tb.GradientDescent(
        regressions() + tb.PairwisePenalty(V, d), step_size=0.2, initial=np.zeros(V * d)
    ),
    upper=regressions(),
    T=100,
    hyper_map=tb.Symmetric(V),
    lam0=np.zeros(V * (V - 1) // 2),
    bounds=(0, None),
)
result = tb.minimize(problem, method=tb.KRMD(K=50), optimizer=tb.Adam(0.01), iterations=80)

before, after = float(result.history["value"][0]), result.value
print(f"validation loss: {before:.3f} each for itself, {after:.3f} with the learned C")
C = tb.problems.interactions(np.append(result.lam, 0.0))  # C, then ρ, which is not used here
tb.plotting.interaction(C, [f"task {i}" for i in range(1, V + 1)])

# %%
# The pairs inside of a family get their weight within a few dozen updates; the others stay at zero.

tb.plotting.learning_curve(result)
plt.show()
