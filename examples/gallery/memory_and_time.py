r"""
Memory against time
===================

The backward pass needs the states :math:`w_t` from the last to the first. Keep all of them, keep a
few and run the rest again, or stop early: truncation is the only one of these that saves both.
``method.cost(problem)`` says what each will take, before anything is run.
"""

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

digits = tb.data.digits().split(seed=0)
problem = tb.problems.hypercleaning(
    digits.X_train, digits.y_train, digits.X_val, digits.y_val, T=400
)
methods = {
    "RMD, all states": tb.RMD(),
    "RMD, every √T": tb.RMD(tb.Checkpoint()),
    "RMD, 8 slots": tb.RMD(tb.Binomial(slots=8)),
    "RMD, 3 slots": tb.RMD(tb.Binomial(slots=3)),
    "K = 50": tb.KRMD(K=50),
    "K = 5": tb.KRMD(K=5),
    "K = 50, every √K": tb.KRMD(K=50, storage=tb.Checkpoint()),
}
for name, method in methods.items():
    cost = method.cost(problem)
    print(
        f"{name:>17}: {cost.transitions:5d} steps, {cost.products:3d} products, "
        f"{cost.bytes / 1024:6.0f} KiB"
    )

tb.plotting.memory_time({name: method.cost(problem) for name, method in methods.items()})

# %%
# The storages change what it costs, and not one digit of what comes out.

gradients = [method(problem).grad for method in list(methods.values())[:4]]
print("equal:", all(np.array_equal(gradients[0], other) for other in gradients[1:]))
plt.show()
