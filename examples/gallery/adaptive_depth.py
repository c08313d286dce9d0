r"""
As deep as it has to be
=======================

Instead of a depth :math:`K`, ask for an error: ``KRMD(tol=…)`` goes back until what is left is
certified to be smaller. With the constants of the lower level given, the certificate costs nothing,
and along a run the depth follows the gradient.
"""

import matplotlib.pyplot as plt

import tinybilevel as tb

problem = tb.problems.toy(T=200)
# g has curvatures ½ and 1 and γ = 0.1: ‖A_t‖ ≤ 1 − 0.1 · ½, and B_t = 0.1 diag(1, ½).
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for value in (1.0, 0.1, 0.01):
    method = tb.KRMD(tol=tb.Tolerance(value, rate=0.95, B_norm=0.1))
    depths, errors = [], []

    def note(progress, depths=depths, errors=errors):
        exact = tb.RMD()(problem, progress.lam).grad
        depths.append(progress.hypergradient.K)
        errors.append(tb.testing.relative_error(progress.hypergradient.grad, exact))

    result = tb.minimize(
        problem, [-1.0, 1.0], method, optimizer=tb.SGD(0.004, decay=0), iterations=60, callback=note
    )
    print(f"tol = {value:4}: f = {result.value:.4f}, from K = {max(depths)} down to {min(depths)}")
    axes[0].plot(depths, label=f"tol = {value}")
    axes[1].semilogy(errors)
axes[0].set(xlabel="hyper-iteration", ylabel="K taken")
axes[1].set(xlabel="hyper-iteration", ylabel="relative error")
axes[0].legend()
plt.show()
