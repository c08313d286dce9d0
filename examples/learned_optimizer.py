"""Learn the lower level's own knobs: its step size, momentum, penalty and starting point.

Implicit differentiation cannot do this, since a converged ŵ* does not depend on them; gradients
through the iteration can. Softmax regression on handwritten digits gets only 20 steps of heavy
ball, and λ learns how to spend them.

    python examples/learned_optimizer.py
"""

import numpy as np

import tinybilevel as tb


def main() -> tuple[float, float]:
    """Return the validation loss before and after, and print what was learned."""
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

    before = float(result.history["value"][0])
    theta = blocks.unpack(problem.hyper_map(result.lam))
    print(f"validation loss after 20 steps: {before:.4f} before, {result.value:.4f} learned")
    theta0 = blocks.unpack(problem.hyper_map(problem.lam0))
    for name in ("step", "momentum", "penalty"):
        print(f"{name:>9}: {theta0[name][0]:.4f} → {theta[name][0]:.4f}")
    return before, result.value


if __name__ == "__main__":
    main()
