r"""
Learn the optimizer's own knobs
===============================

Step size, momentum, penalty and starting point of the lower level are hyperparameters too. Implicit
differentiation cannot see them, since a converged :math:`\hat w^*` does not depend on them;
gradients through the iteration can. Softmax regression on handwritten digits gets only 20 steps of
heavy ball, and :math:`\lambda` learns how to spend them.
"""

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

digits = tb.data.digits().split(seed=0, dtype=np.float64)
X, X_val = tb.problems.append_bias(digits.X_train), tb.problems.append_bias(digits.X_val)
loss = tb.SoftmaxRegression(X, digits.y_train, weighted=False)

blocks = tb.Layout(step=1, momentum=1, penalty=1, start=loss.size)
problem = tb.BilevelProblem(
    tb.HeavyBall(
        loss + tb.L2Penalty().on(blocks["penalty"]),
        step_size=blocks["step"],
        momentum=blocks["momentum"],
        initial=blocks["start"],
    ),
    upper=tb.SoftmaxRegression(X_val, digits.y_val, weighted=False),
    T=20,
    hyper_map=tb.Blocks(blocks, step=tb.Exp(), momentum=tb.Sigmoid(), penalty=tb.Exp()),
    lam0=blocks.pack(
        step=np.log(0.1), momentum=0.0, penalty=np.log(1e-3), start=np.zeros(loss.size)
    ),
)
result = tb.minimize(problem, method=tb.RMD(), optimizer=tb.Adam(0.02), iterations=150)

before, after = float(result.history["value"][0]), result.value
print(f"validation loss after 20 steps: {before:.4f} before, {after:.4f} learned")
old, new = (blocks.unpack(problem.hyper_map(lam)) for lam in (problem.lam0, result.lam))
for name in ("step", "momentum", "penalty"):
    print(f"{name:>9}: {old[name][0]:.4f} → {new[name][0]:.4f}")

# sphinx_gallery_thumbnail_number = 2

# %%
# The starting point has become a picture of each class: the lower level begins with a good guess.

tb.plotting.learning_curve(result)
templates = new["start"].reshape(10, -1)[:, :-1].reshape(10, 8, 8)
tb.plotting.image_grid(templates, [str(k) for k in range(10)])
plt.show()
