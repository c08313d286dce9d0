r"""
A network, and how much to hold it back
=======================================

A perceptron of two layers learns two half moons from 40 noisy points, and learns the noise as well.
Four hyperparameters hold it back: a penalty and a step size for each layer, tuned on a validation
set by back-propagation through the last 50 of its 400 training steps. The network's second
derivatives are written by hand like everything else.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

import tinybilevel as tb
from tinybilevel.layers import Dense, Network, Tanh

X, y = make_moons(40, noise=0.4, random_state=1)
X_val, y_val = make_moons(200, noise=0.4, random_state=2)

net = Network([Dense(32), Tanh(), Dense(2)], input_shape=(2,))
sizes = [block.stop - block.start for block in net.blocks.values()]
blocks = tb.Layout(l2=2, step=2)
lower = tb.NetworkLoss(net, X, y) + tb.L2Penalty(groups=np.repeat([0, 1], sizes)).on(blocks["l2"])
problem = tb.BilevelProblem(
    tb.GradientDescent(lower, tb.Learned(blocks["step"], sizes), net.init(seed=0)),
    upper=tb.NetworkLoss(net, X_val, y_val),
    T=400,
    hyper_map=tb.Exp(),
    lam0=blocks.pack(l2=np.log([1e-4, 1e-4]), step=np.log([0.5, 0.5])),
)
result = tb.minimize(
    problem,
    method=tb.KRMD(K=50),
    optimizer=tb.Adam(0.1),
    iterations=60,
    bounds=[(-10, 0)] * 2 + [(-5, -0.5)] * 2,
)
before, after = float(result.history["value"][0]), result.value
print(f"validation loss: {before:.3f} before, {after:.3f} after")
for name, theta in blocks.unpack(problem.hyper_map(result.lam)).items():
    print(f"{name:>4} of the two layers:", theta.round(4))

# %%
# What the network says about the plane, before and after; points are the training set.

x1, x2 = np.meshgrid(np.linspace(-2, 3, 80), np.linspace(-1.5, 2, 80))
trained = {"hardly any penalty": tb.KRMD(K=0)(problem).w, "learned penalties": result.w}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for ax, (title, w) in zip(axes, trained.items(), strict=True):
    scores = net.forward(w, np.c_[x1.ravel(), x2.ravel()])
    share = 1 / (1 + np.exp(scores[:, 0] - scores[:, 1]))
    ax.contourf(x1, x2, share.reshape(80, 80), np.linspace(0, 1, 11), cmap="coolwarm", alpha=0.6)
    ax.scatter(*X.T, c=y, cmap="coolwarm", edgecolor="k")
    ax.set_title(title)
plt.show()
