"""Lab 2: right solutions that look different, and the mistakes that students make."""

from submissions import Wrong

RIGHT = {
    "one pass and lists": {
        "biases": """
def biases(problem, lam):
    *h, exact = tb.RMD().truncations(problem, lam)
    return [float(np.sqrt(((x - exact) ** 2).sum())) for x in h]
""",
        "bound": """
def bound(K, gamma, alpha, grad_norm, M_B):
    rate = 1 - gamma * alpha
    return sum(rate**k for k in range(K, K + 5000)) * grad_norm * M_B
""",
        "constants": """
def constants(G, C, D, gamma, T, K):
    alpha, beta = min(np.linalg.eigvals(G).real), np.linalg.norm(G, 2)
    B = [D.T] + [gamma * C.T @ G] * (T - K)
    return [alpha, beta, max(np.sqrt(np.linalg.eigvalsh(b @ b.T).max()) for b in B)]
""",
        "depth": """
def depth(tol, gamma, alpha, grad_norm, M_B):
    K, value = 0, grad_norm * M_B / (gamma * alpha)
    while value > tol:
        K, value = K + 1, value * (1 - gamma * alpha)
    return K
""",
        "ratio": """
def ratio(problem, lam, K):
    *h, exact = tb.RMD().truncations(problem, lam)
    return sum(h[K] * exact) / sum(exact**2)
""",
        "walk": """
def walk(problem, lam, K, eta, R):
    path = np.zeros((R + 1, len(lam)))
    path[0] = lam
    for i in range(R):
        path[i + 1] = path[i] - eta * (i + 1) ** -0.5 * tb.KRMD(K)(problem, path[i]).grad
    return path.tolist()
""",
    },
}

WRONG = [
    Wrong(
        "biases: against h_0",
        "biases",
        "tb.RMD()(problem, lam)",
        "tb.KRMD(K=problem.T)(problem, lam)",
        "with B_0",
        hidden=True,
    ),
    Wrong(
        "biases: without K = 0",
        "biases",
        "range(problem.T + 1)",
        "range(1, problem.T + 1)",
        "five numbers",
    ),
    Wrong(
        "biases: squared",
        "biases",
        "np.linalg.norm(h - exact)",
        "(h - exact) @ (h - exact)",
        "by the Euclidean norm",
        hidden=True,
    ),
    Wrong("bound: K + 1", "bound", "** K", "** (K + 1)", "Eq. (10), factor by factor"),
    Wrong("bound: grows with K", "bound", "** K", "** -K", "Eq. (10), factor by factor"),
    Wrong(
        "bound: without 1/γα",
        "bound",
        " / (gamma * alpha)",
        " / 1",
        "Eq. (10), factor by factor",
    ),
    Wrong(
        "constants: B_0 missing",
        "constants",
        "np.linalg.norm(D.T, 2)",
        "0.0",
        "B_0 = Dᵀ is always left out",
        hidden=True,
    ),
    Wrong(
        "constants: all B at K = T",
        "constants",
        "if K < T:",
        "if K <= T:",
        "unless K = T",
        hidden=True,
    ),
    Wrong(
        "constants: C not transposed",
        "constants",
        "gamma * C.T @ G",
        "gamma * np.reshape(C, C.T.shape) @ G",
        "M_B for K",
        hidden=True,
    ),
    Wrong(
        "constants: Frobenius norm",
        "constants",
        "np.linalg.norm(gamma * C.T @ G, 2)",
        "np.linalg.norm(gamma * C.T @ G)",
        "M_B",
    ),
    Wrong(
        "constants: the diagonal of G",
        "constants",
        "np.linalg.eigvalsh(G)",
        "np.sort(np.diag(G))",
        "an eigenvalue of G",
        hidden=True,
    ),
    Wrong("depth: rounded down", "depth", "math.ceil(K)", "math.floor(K)", "first at K = 3"),
    Wrong(
        "depth: negative",
        "depth",
        "max(0, math.ceil(K))",
        "math.ceil(K)",
        "K is 0",
        hidden=True,
    ),
    Wrong(
        "ratio: a cosine",
        "ratio",
        "/ (exact @ exact)",
        "/ np.linalg.norm(exact) / np.linalg.norm(tb.KRMD(K=K)(problem, lam).grad)",
        "Over the square of ‖d_λ f‖",
        hidden=True,
    ),
    Wrong(
        "ratio: always positive",
        "ratio",
        "return tb.KRMD(K=K)(problem, lam).grad @ exact / (exact @ exact)",
        "return abs(tb.KRMD(K=K)(problem, lam).grad @ exact) / (exact @ exact)",
        "signed",
        hidden=True,
    ),
    Wrong("walk: uphill", "walk", "path[-1] - eta", "path[-1] + eta", "Against the gradient"),
    Wrong(
        "walk: τ from 2",
        "walk",
        "math.sqrt(tau)",
        "math.sqrt(tau + 1)",
        "with η_1 = η_0",
    ),
    Wrong(
        "walk: no decay",
        "walk",
        " / math.sqrt(tau)",
        "",
        "η_τ = η_0 / √τ",
        hidden=True,
    ),
    Wrong(
        "walk: stale gradient",
        "walk",
        "(problem, path[-1]).grad)",
        "(problem, path[0]).grad)",
        "taken at the newest λ",
        hidden=True,
    ),
    Wrong(
        "walk: start left out",
        "walk",
        "return np.array(path)",
        "return np.array(path[1:])",
        "The first row is where the walk begins",
    ),
]
