"""Lab 4: right solutions that look different, and the mistakes that students make."""

from submissions import Wrong

RIGHT = {
    "loops": {
        "corrupt": """
def corrupt(y, share, n_classes, seed):
    rng = np.random.default_rng(seed)
    new = list(y)
    chosen = rng.choice(len(y), int(round(share * len(y))), replace=False)
    for i in chosen:
        new[i] = rng.choice([c for c in range(n_classes) if c != y[i]])
    return np.array(new), np.array([a != b for a, b in zip(new, y)])
""",
        "train": """
def train(X, y, n_classes, T=100, gamma=1.0, c=1e-3):
    W = np.zeros((n_classes, X.shape[1]))
    for t in range(T):
        slope = 2 * c * W
        for x, label in zip(X, y):
            p = np.exp(W @ x)
            p = p / p.sum()
            p[label] -= 1
            slope = slope + np.outer(p, x)
        W = W - gamma * slope / len(X)
    return W
""",
        "mixed": """
def mixed(W, X, y, V):
    out = []
    for x, label in zip(X, y):
        s = W @ x
        p = np.exp(s - s.max())
        p /= p.sum()
        p[label] -= 1
        out.append(np.sum(np.outer(p, x) * V) / len(X))
    return out
""",
        "pull": """
def pull(lam, h):
    return h * np.exp(-lam) / (1 + np.exp(-lam)) ** 2
""",
        "scores": """
def scores(lam, corrupted, threshold=-3.0):
    tp = sum(1 for a, b in zip(lam, corrupted) if a < threshold and b)
    fp = sum(1 for a, b in zip(lam, corrupted) if a < threshold and not b)
    fn = sum(1 for a, b in zip(lam, corrupted) if not a < threshold and b)
    p = tp / (tp + fp) if tp + fp else 0
    r = tp / (tp + fn) if tp + fn else 0
    return p, r, 2 * p * r / (p + r) if p + r else 0
""",
        "break_even": """
def break_even(sizes, alone, cleaned):
    for i in range(len(sizes)):
        if all(a >= c for a, c in zip(alone[i:], cleaned[i:])):
            return sizes[i]
""",
    },
}

WRONG = [
    Wrong(
        "corrupt: a wrong label may be right",
        "corrupt",
        "rng.integers(1, n_classes, len(chosen))",
        "rng.integers(0, n_classes, len(chosen))",
        "may a wrong label be the true one",
        hidden=True,
    ),
    Wrong("corrupt: writes into y", "corrupt", "y.copy()", "y", "changed an array", hidden=True),
    Wrong(
        "corrupt: always the next class",
        "corrupt",
        "rng.integers(1, n_classes, len(chosen))",
        "1",
        "each wrong class is as likely",
        hidden=True,
    ),
    Wrong(
        "corrupt: drawn with replacement",
        "corrupt",
        "rng.permutation(len(y))[: round(share * len(y))]",
        "rng.integers(0, len(y), round(share * len(y)))",
        "half of twelve labels are six",
    ),
    Wrong("train: uphill", "train", "W - gamma", "W + gamma", "Its sign is wrong"),
    Wrong("train: T − 1 steps", "train", "range(T)", "range(T - 1)", "At W = 0 each class"),
    Wrong(
        "train: softmax over the examples",
        "train",
        "P.sum(axis=1, keepdims=True)",
        "P.sum(axis=0, keepdims=True)",
        "Is the softmax over the classes",
        hidden=True,
    ),
    Wrong(
        "train: penalty not divided by n",
        "train",
        "((P - Y).T @ X + 2 * c * W) / n",
        "((P - Y).T @ X / n + 2 * c * W)",
        "the penalty too",
        hidden=True,
    ),
    Wrong(
        "mixed: sign",
        "mixed",
        "((P * along).sum(axis=1) - along[np.arange(len(y)), y])",
        "(along[np.arange(len(y)), y] - (P * along).sum(axis=1))",
        "Its sign is wrong",
    ),
    Wrong(
        "mixed: without the label",
        "mixed",
        " - along[np.arange(len(y)), y]",
        "",
        "∇ℓ_i = (p_i − e_{y_i})",
    ),
    Wrong("mixed: not divided by n", "mixed", " / len(y)", "", "twice as large"),
    Wrong(
        "mixed: W and V change places",
        "mixed",
        "scores = X @ W.T",
        "scores, V = X @ V.T, W",
        "the product at W = 0",
    ),
    Wrong(
        "mixed: exp overflows",
        "mixed",
        " - scores.max(axis=1, keepdims=True)",
        "",
        "take the largest score off first",
        hidden=True,
    ),
    Wrong("pull: without σ'", "pull", "theta * (1 - theta) * h", "theta * h", "σ'(0) = ¼"),
    Wrong(
        "pull: σ' at θ",
        "pull",
        "theta = 1 / (1 + np.exp(-lam))",
        "theta = 1 / (1 + np.exp(-lam * (lam != 0)))\n    theta = 1 / (1 + np.exp(0.5 - theta))",
        "at λ and not at θ",
        hidden=True,
    ),
    Wrong("scores: λ > threshold", "scores", "lam < threshold", "lam > threshold", "perfect"),
    Wrong(
        "scores: clean is positive",
        "scores",
        "marked = lam < threshold",
        "marked, corrupted = lam >= threshold, ~corrupted",
        "Precision divides by",
        hidden=True,
    ),
    Wrong(
        "scores: precision and recall swapped",
        "scores",
        "return precision, recall,",
        "return recall, precision,",
        "Precision divides by",
        hidden=True,
    ),
    Wrong(
        "break even: the first crossing",
        "break_even",
        "        if a < c:\n            break\n        found = size",
        "        if a >= c:\n            found = size",
        "a crossing that is undone",
        hidden=True,
    ),
    Wrong(
        "break even: strictly better",
        "break_even",
        "if a < c:",
        "if a <= c:",
        "from 20 on",
    ),
]
