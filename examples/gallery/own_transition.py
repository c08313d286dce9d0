r"""
Write a transition, and have it checked
=======================================

A lower level need not be gradient descent. Here it is exponentiated gradient, whose iterates stay
on the simplex: :math:`w_{t+1} \propto w_t \circ \exp(-\gamma\nabla g)`. Its products are a few
lines of calculus, and a slip in any of them is found at once.
"""

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

rng = np.random.default_rng(0)
returns = rng.normal([0.06, 0.05, 0.04, 0.02], [0.30, 0.22, 0.15, 0.05], size=(60, 4))
cov, gamma = np.cov(returns.T), 1.0


class ExponentiatedGradient(tb.Transition):
    """w ∘ exp(−γ (Σw − λ)), divided by its sum: a portfolio w for the expected returns λ."""

    def step(self, t, w, lam):
        u = w * np.exp(-gamma * (cov @ w - lam))
        return u / u.sum()

    def vjp(self, t, w, lam, alpha):
        p = self.step(t, w, lam)
        score = p * (alpha - p @ alpha)  # the derivative of u/Σu, by log u
        return score / w - gamma * cov @ score, gamma * score

    def jvp(self, t, w, lam, dw, dlam):
        p = self.step(t, w, lam)
        dlog = dw / w - gamma * (cov @ dw - dlam)
        return p * (dlog - p @ dlog)


class Slip(ExponentiatedGradient):
    """The same, with a sign lost in B."""

    def vjp(self, t, w, lam, alpha):
        A_alpha, B_alpha = super().vjp(t, w, lam, alpha)
        return A_alpha, -B_alpha


transition = ExponentiatedGradient(initial=np.full(4, 0.25))
point = dict(w=np.array([0.1, 0.2, 0.3, 0.4]), lam=np.array([0.3, -0.1, 0.2, 0.4]))
tb.testing.assert_transition_adjoints(transition, **point)
try:
    tb.testing.assert_transition_adjoints(Slip(initial=np.full(4, 0.25)), **point)
except AssertionError as error:
    print("the slip:", error)

# %%
# Then it is a lower level like any other: which expected returns lead to the portfolio that did
# best on later data?

later = rng.normal([0.02, 0.05, 0.06, 0.02], [0.30, 0.22, 0.15, 0.05], size=(60, 4))
mean, risk = later.mean(axis=0), np.cov(later.T)
upper = tb.Objective.from_functions(
    value=lambda w, lam: w @ risk @ w - mean @ w, grad=lambda w, lam: 2 * risk @ w - mean
)
problem = tb.BilevelProblem(transition, upper, T=200, lam0=returns.mean(axis=0))
result = tb.minimize(problem, method=tb.KRMD(K=50), optimizer=tb.Adam(0.01), iterations=100)
before, after = float(result.history["value"][0]), result.value
print(f"risk minus return: {before:.4f} before, {after:.4f} after")

fig, ax = plt.subplots(layout="constrained")
for shift, w, label in ((-0.2, tb.KRMD(K=0)(problem).w, "before"), (0.2, result.w, "after")):
    ax.bar(np.arange(4) + shift, w, 0.4, label=label)
ax.set(xticks=range(4), xticklabels=["A", "B", "C", "D"], ylabel="share of the portfolio")
ax.legend()
plt.show()
