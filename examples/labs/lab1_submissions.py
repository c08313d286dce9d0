"""Lab 1: right solutions that look different, and the mistakes that students make."""

from submissions import Wrong

RIGHT = {
    "matrices and loops": {
        "step": """
def step(t, w, lam, p):
    out = w.copy()
    slope = np.zeros(len(w))
    for i in range(len(w)):
        for j in range(len(w)):
            slope[i] += p.G[i, j] * (w[j] - sum(p.C[j, k] * lam[k] for k in range(len(lam))))
    out -= p.gamma[t] * slope
    return out
""",
        "vjp": """
def vjp(t, w, lam, alpha, p):
    A = np.eye(len(w)) - p.gamma[t] * p.G
    B = p.gamma[t] * (p.C.T @ p.G)
    return (A @ alpha).tolist(), (B @ alpha).tolist()
""",
        "dot_test": """
def dot_test(step, vjp, w, lam, seed=0, eps=1e-4):
    rng = np.random.default_rng(seed + 1000)
    alpha, dlam, dw = (rng.uniform(-1, 1, n) for n in (w.size, lam.size, w.size))
    errors = []
    for forward, direction, back in (
        (lambda e: step(w + e * dw, lam), dw, vjp(w, lam, alpha)[0]),
        (lambda e: step(w, lam + e * dlam), dlam, vjp(w, lam, alpha)[1]),
    ):
        a = (forward(eps) - forward(-eps)) @ alpha / (2 * eps)
        b = np.dot(direction, back)
        errors.append(abs(a - b) / (abs(a) + abs(b)))
    return np.array(errors)
""",
        "backward": """
def backward(vjp, initial_vjp, states, alpha, h):
    alphas, hs = [1.0 * alpha], [1.0 * h]
    for s in range(1, len(states)):
        t = len(states) - 1 - s
        pair = vjp(t, states[t], alpha)
        alpha, h = np.array(pair[0]), h + np.array(pair[1])
        alphas.append(alpha)
        hs.append(h.copy())
    h = h + initial_vjp(alpha)
    return np.array(alphas), np.array([*hs, h])
""",
        "truncated": """
def truncated(vjp, last_states, T, alpha, h):
    K = len(last_states)
    total = h.copy()
    for k in range(K):
        alpha, B_alpha = vjp(T - 1 - k, last_states[K - 1 - k], alpha)
        total += B_alpha
    return total
""",
    },
}

WRONG = [
    Wrong("step: uphill", "step", "return w - ", "return w + ", "descent goes against it"),
    Wrong(
        "step: without C",
        "step",
        "p.C @ lam",
        "np.resize(lam, len(w))",
        "Is it γ_t, G and C?",
        hidden=True,
    ),
    Wrong("step: always the first γ", "step", "p.gamma[t]", "p.gamma[0]", "step 1 of", hidden=True),
    Wrong(
        "step: writes into w",
        "step",
        "return w - p.gamma[t] * (p.G @ (w - p.C @ lam))",
        "w -= p.gamma[t] * (p.G @ (w - p.C @ lam))\n    return w",
        "w -= x",
        hidden=True,
    ),
    Wrong("vjp: sign of B", "vjp", "p.C.T @ G_alpha", "-p.C.T @ G_alpha", "Its sign is wrong"),
    Wrong(
        "vjp: C not transposed",
        "vjp",
        "p.C.T @ G_alpha",
        "np.reshape(p.C, p.C.T.shape) @ G_alpha",
        "B is N × M",
        hidden=True,
    ),
    Wrong(
        "vjp: γ of the step before",
        "vjp",
        "p.gamma[t]",
        "p.gamma[t - 1]",
        "γ of this very step",
        hidden=True,
    ),
    Wrong(
        "vjp: A without the identity",
        "vjp",
        "return alpha - G_alpha",
        "return -G_alpha",
        "How does Ξ change with w?",
    ),
    Wrong(
        "dot test: α along ẇ",
        "dot_test",
        "alpha = rng.standard_normal(w.shape)",
        "alpha = dw",
        "a transposed matrix looks right",
        hidden=True,
    ),
    Wrong(
        "dot test: no absolute value",
        "dot_test",
        "abs(forward - back)",
        "(forward - back)",
        "Is the error an absolute value?",
        hidden=True,
    ),
    Wrong(
        "dot test: one number for both",
        "dot_test",
        "return error(along_w @ alpha, dw @ A_alpha), error(along_lam @ alpha, dlam @ B_alpha)",
        "both = error((along_w + along_lam) @ alpha, dw @ A_alpha + dlam @ B_alpha)\n"
        "    return both, both",
        "its own difference",
        hidden=True,
    ),
    Wrong(
        "backward: without B_0",
        "backward",
        "hs.append(hs[-1] + initial_vjp(alphas[-1]))",
        "hs.append(hs[-1])",
        "h_0 + B_0 α_0",
        hidden=True,
    ),
    Wrong(
        "backward: at w_t, not w_{t−1}",
        "backward",
        "vjp(t, states[t], ",
        "vjp(t, states[t + 1], ",
        "taken at w_{t−1}",
    ),
    Wrong(
        "backward: t too large by one",
        "backward",
        "vjp(t, states[t], ",
        "vjp(min(t + 1, T - 1), states[t], ",
        "with which t",
        hidden=True,
    ),
    Wrong(
        "backward: α moved on first",
        "backward",
        "A_alpha, B_alpha = vjp(t, states[t], alphas[-1])",
        "A_alpha, _ = vjp(t, states[t], alphas[-1])\n"
        "        _, B_alpha = vjp(t, states[t], A_alpha)",
        "before it is moved on",
    ),
    Wrong(
        "backward: one h for all",
        "backward",
        "hs.append(hs[-1] + B_alpha)",
        "h += B_alpha\n        hs.append(h)",
        "[h_2, h_1, h_0, h_{−1}]",
    ),
    Wrong(
        "truncated: K − 1 products",
        "truncated",
        "range(T - 1, -1, -1), reversed(last_states)",
        "range(T - 1, -1, -1), reversed(last_states[1:])",
        "K = 1 is h_T + B_T α_T",
    ),
    Wrong(
        "truncated: from the oldest state",
        "truncated",
        "reversed(last_states)",
        "last_states",
        "the last one first",
        hidden=True,
    ),
    Wrong(
        "truncated: t counted up",
        "truncated",
        "range(T - 1, -1, -1)",
        "range(T)",
        "the first of them is at t = T − 1",
        hidden=True,
    ),
    Wrong(
        "truncated: stale α",
        "truncated",
        "alpha, B_alpha = vjp",
        "_, B_alpha = vjp",
        "its own state",
        hidden=True,
    ),
]
