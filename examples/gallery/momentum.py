r"""
Momentum forgets faster
=======================

How fast :math:`\alpha_t` dies out on the way back is how fast the lower level forgets where it came
from. Momentum converges faster on an ill-conditioned problem, so its gradient can be truncated
earlier: what speeds up the forward pass shortens the backward one.
"""

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

rng = np.random.default_rng(0)
curvature = np.geomspace(0.02, 1.0, 20)
lower = tb.Quadratic(curvature)  # ½ (w − λ)ᵀ diag(curvature) (w − λ)
target = rng.standard_normal(20)
upper = tb.Objective.from_functions(
    value=lambda w, lam: 0.5 * np.sum((w - target) ** 2), grad=lambda w, lam: w - target
)
start, lam = np.zeros(20), rng.standard_normal(20)
transitions = {
    "gradient descent": tb.GradientDescent(lower, 1.0, start),
    "heavy ball, μ = 0.6": tb.HeavyBall(lower, step_size=1.0, momentum=0.6, initial=start),
    "Nesterov, μ = 0.75": tb.Nesterov(lower, step_size=1.0, momentum=0.75, initial=start),
}

depths = []
fig, ax = plt.subplots(layout="constrained")
for name, transition in transitions.items():
    problem = tb.BilevelProblem(transition, upper, T=300)
    *truncated, exact = tb.RMD().truncations(problem, lam)
    errors = [tb.testing.relative_error(h, exact) for h in truncated[:-1]]
    depths.append(next(K for K, error in enumerate(errors) if error < 0.01))
    print(f"{name:>20}: K = {depths[-1]} for an error below 1 %")
    ax.semilogy(errors, label=name)
ax.set(xlabel="K", ylabel="relative error of the hypergradient", ylim=(1e-8, 2))
ax.legend()
plt.show()
