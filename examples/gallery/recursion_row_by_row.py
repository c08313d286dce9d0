r"""
The recursion, row by row
=========================

Back-propagation through the lower level carries two vectors from :math:`t = T` back:
:math:`\alpha_t`, what is left of :math:`\nabla f`, and :math:`h_t`, the gradient collected so far,

.. math:: h_{t-1} = h_t + B_t\alpha_t, \qquad \alpha_{t-1} = A_t\alpha_t .

A *trace* shows both on their way, on the paper's toy problem.
"""

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

problem, lam = tb.problems.toy(), np.array([1.0, 1.0])
trace = tb.RMD().trace(problem, lam, exact=True, keep=True)
print(trace)

# %%
# Each row follows from the one above it. Far from the end :math:`\alpha_t` is small, and so is what
# it can still add to :math:`h_t`: this is why stopping after :math:`K` rows works.

tb.plotting.trace(trace)

# %%
# In the plane of :math:`\lambda` the truncated gradients walk towards the exact one.

fig, ax = plt.subplots(layout="constrained")
ax.plot(*trace.h.T, ".-", label="$h_t$ for t = T, T − 1, …")
for K in (0, 5, 20, 50):
    ax.annotate(f"K = {K}", trace.h[K], xytext=(8, -3), textcoords="offset points")
ax.plot(*trace.exact, "o", label=r"$\mathrm{d}_\lambda f$")
ax.set(xlabel=r"$\lambda_1$", ylabel=r"$\lambda_2$")
ax.legend()
plt.show()
