"""Lab 3: right solutions that look different, and the mistakes that students make."""

from submissions import Wrong

RIGHT = {
    "lists, deques and loops": {
        "table": """
def table(T, N, K):
    return {
        "FMD": [T, N + N * T, 2 + N],
        "K-RMD": [T, K, 1 + K],
        "RMD": np.array([T, 1 + T, 1 + T]),
    }
""",
        "ring": """
def ring(step, w0, T, K):
    from collections import deque

    kept, w = deque(maxlen=max(K, 1)), w0
    for t in range(T):
        kept.append((t, w))
        w = step(t, w)
    return w, list(kept)[::-1][:K]
""",
        "checkpointed": """
def checkpointed(step, w0, T, s):
    marks = list(range(0, T, s))
    saved, w = np.zeros((len(marks), len(w0))), w0.copy()
    for t in range(T):
        if t in marks:
            saved[t // s] = w
        w = step(t, w)

    def pairs():
        for i in reversed(range(len(marks))):
            length = min(s, T - i * s)
            segment = np.zeros((length, len(w0)))
            segment[0] = saved[i]
            for k in range(1, length):
                segment[k] = step(i * s + k - 1, segment[k - 1])
            yield from ((i * s + k, segment[k]) for k in reversed(range(length)))
            del segment

    return w, pairs()
""",
        "best_s": """
def best_s(T):
    return min(range(1, T + 1), key=lambda s: math.ceil(T / s) + s)
""",
        "fewest": """
@cache
def fewest(length, slots):
    if length == 1:
        return 0
    if slots == 1:
        return sum(range(length))
    best = math.inf
    for k in range(1, length):
        best = min(best, k + fewest(k, slots) + fewest(length - k, slots - 1))
    return best
""",
        "forward": """
def forward(transition, lam, T):
    w = transition.initial(lam)
    Z = np.zeros((len(lam), len(w)))
    for i in range(len(lam)):
        unit = np.zeros(len(lam))
        unit[i] = 1.0
        x = w
        Z[i] = transition.initial_jvp(lam, unit)
        for t in range(T):
            Z[i] = transition.jvp(t, x, lam, Z[i], unit)
            x = transition.step(t, x, lam)
    return x, Z
""",
    },
}

WRONG = [
    Wrong("table: B_0 not counted", "table", "T + 1, T + 1", "T, T + 1", "Is B_0", hidden=True),
    Wrong("table: w_T not held", "table", "K, K + 1", "K, K", "The forward pass runs in full"),
    Wrong("table: K + 1 products", "table", "K, K + 1", "K + 1, K + 1", "the row of K-RMD"),
    Wrong("table: Z_0 free", "table", "N * (T + 1)", "N * T", "Is B_0 counted", hidden=True),
    Wrong(
        "ring: K rows, so that w_{T−K} is lost",
        "ring",
        "size = K + 1",
        "size = max(K, 1)",
        "overwritten meanwhile",
    ),
    Wrong("ring: t one too large", "ring", "((t, rows", "((t + 1, rows", "the pairs must have t"),
    Wrong(
        "ring: the state after the step",
        "ring",
        "((t, rows[t % size])",
        "((t, rows[(t + 1) % size])",
        "the one that step t starts from",
    ),
    Wrong(
        "ring: oldest first",
        "ring",
        "range(T - 1, T - K - 1, -1)",
        "range(T - K, T)",
        "the newest first",
    ),
    Wrong(
        "ring: keeps all states",
        "ring",
        "size = K + 1",
        "size = T + 1",
        "needs five states",
        hidden=True,
    ),
    Wrong(
        "checkpointed: each state from w_0",
        "checkpointed",
        "segment = [saved[start]]\n",
        "segment = [w0]\n            for t in range(start):\n"
        "                segment = [step(t, segment[0])]\n",
        "at most two forward passes",
    ),
    Wrong(
        "checkpointed: T must be a multiple of s",
        "checkpointed",
        "min(start + s, T)",
        "(start + s)",
        "the pairs must have t",
        hidden=True,
    ),
    Wrong(
        "checkpointed: keeps all segments",
        "checkpointed",
        "segment = [saved[start]]\n",
        "segment = [saved[start]]\n            saved[start] = segment\n",
        "only one segment kept at a time",
        hidden=True,
    ),
    Wrong(
        "checkpointed: t from the start of the segment",
        "checkpointed",
        "yield start + k, ",
        "yield k, ",
        "the pairs must have t",
    ),
    Wrong("best s: T // 2", "best_s", "math.isqrt(T - 1) + 1", "max(T // 2, 1)", "s = 10"),
    Wrong("best s: √T not rounded", "best_s", "math.isqrt(T - 1) + 1", "T**0.5", "a whole", True),
    Wrong("fewest: k steps not counted", "fewest", "k + fewest(", "fewest(", "2 steps"),
    Wrong(
        "fewest: slot never given back",
        "fewest",
        "fewest(k, slots)",
        "fewest(k, slots - 1)",
        "is that slot free again",
        hidden=True,
    ),
    Wrong(
        "forward: without B_0", "forward", "transition.initial_jvp(lam, unit)", "0 * w", "Z_0", True
    ),
    Wrong(
        "forward: product after the step",
        "forward",
        "        Z = np.array([transition.jvp(t, w,",
        "        old, w = w, transition.step(t, w, lam)\n"
        "        Z = np.array([transition.jvp(t, w,",
        "w_T",
        hidden=True,
    ),
    Wrong("forward: Z transposed", "forward", "return w, Z", "return w, Z.T", "Z_T for M", True),
]
