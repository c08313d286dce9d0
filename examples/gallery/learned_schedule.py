r"""
A step size for every step
==========================

Ten steps of gradient descent on an ill-conditioned quadratic, and a step size for each, learned by
going back through all ten. The best constant step leaves almost all of the flat directions where
they are. For the worst of all starts the best schedule is known, the reciprocal roots of a
Chebyshev polynomial; for the one start at hand the learned schedule is better still.
"""

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

T, curvature = 10, np.linspace(0.05, 1.0, 30)


class Descent(tb.Transition):
    """w − λ_t ∘ ∇g: the step size of step t is entry t of λ."""

    def step(self, t, w, lam):
        return w - lam[t] * curvature * w

    def vjp(self, t, w, lam, alpha):
        mixed = np.zeros_like(lam)
        mixed[t] = -(curvature * w) @ alpha
        return alpha - lam[t] * curvature * alpha, mixed

    def jvp(self, t, w, lam, dw, dlam):
        return dw - lam[t] * curvature * dw - dlam[t] * curvature * w


upper = tb.Objective.from_functions(
    value=lambda w, lam: 0.5 * curvature @ w**2, grad=lambda w, lam: curvature * w
)
transition = Descent(initial=np.ones(30))
tb.testing.assert_transition_adjoints(transition, np.ones(30), np.full(T, 0.7))

problem = tb.BilevelProblem(transition, upper, T, lam0=np.full(T, 1.5))
result = tb.minimize(problem, method=tb.RMD(), optimizer=tb.Adam(0.05), iterations=600)

nodes = np.cos(np.pi * (np.arange(T) + 0.5) / T)
chebyshev = 1 / (0.525 + 0.475 * nodes)
constant = np.full(T, 2 / 1.05)
schedules = {"constant 2/(α + β)": constant, "Chebyshev": chebyshev, "learned": result.lam}

# %%
# Short steps for the steep directions and long ones, beyond :math:`2/\beta`, for the flat ones:
# none of the latter would be stable alone.

fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
losses = {}
for name, lam in schedules.items():
    losses[name] = tb.KRMD(K=0)(problem, lam).value
    print(f"{name:>19}: g(w_T) = {losses[name]:.2e}")
    axes[0].plot(np.sort(lam), "o-", label=name)
    factors = np.prod(1 - lam[:, None] * curvature, axis=0)
    axes[1].plot(curvature, factors**2, label=name)
axes[0].set(xlabel="step, sorted", ylabel=r"$\gamma_t$")
axes[1].set(xlabel="curvature", ylabel="what is left of it", yscale="log", ylim=(1e-10, 1))
axes[0].legend()
plt.show()
