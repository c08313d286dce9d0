"""Lab 5: right solutions that look different, and the mistakes that students make."""

from submissions import Wrong

RIGHT = {
    "other forms": {
        "solve": """
def solve(product, b, K):
    q = 0.0 * b
    residual = b - q
    direction = residual.copy()
    rho = np.dot(residual, residual)
    k = 0
    while k < K and rho > 0:
        image = np.asarray(product(direction))
        length = rho / np.dot(direction, image)
        q += length * direction
        residual -= length * image
        rho, old = np.dot(residual, residual), rho
        direction = residual + (rho / old) * direction
        k += 1
    return q
""",
        "implicit": """
def implicit(lower, upper, w, lam, solver):
    b = -upper.grad(w, lam)
    q = solver(lambda v: np.array(lower.grad_vjp(w, lam, v)[0]), b)
    hessian_q, mixed_q = lower.grad_vjp(w, lam, q)
    return mixed_q + upper.grad_lam(w, lam)
""",
        "neumann": """
def neumann(lower, upper, w, lam, gamma, K):
    term, total = upper.grad(w, lam), np.zeros(len(w))
    for k in range(K):
        total = total + term
        term = term - gamma * lower.grad_vjp(w, lam, term)[0]
    return upper.grad_lam(w, lam) - gamma * lower.grad_vjp(w, lam, total)[1]
""",
        "needed": """
def needed(kappa, tol):
    counts = []
    for factor in (1 - 1 / kappa, 1 - kappa**-0.5):
        K = 1
        while factor**K > tol:
            K += 1
        counts.append(K)
    return counts
""",
        "trap": """
def trap(K, T, gamma, rho, b):
    s = gamma * sum((1 - gamma) ** t for t in range(T))
    s_K = gamma * sum((1 - gamma) ** k for k in range(K))
    lam = b / (1 + s_K * s / rho)
    return lam, rho * lam - rho * b + s * s * lam
""",
    },
}

WRONG = [
    Wrong(
        "solve: stops before its last step is kept",
        "solve",
        "        q = q + a * p\n        new = r - a * Hp\n",
        "        new = r - a * Hp\n        if _ == K - 1:\n            break\n"
        "        q = q + a * p\n",
        "by bᵀb / bᵀHb",
    ),
    Wrong(
        "solve: direction of the stale residual",
        "solve",
        "p = new + (new @ new)",
        "p = r + (new @ new)",
        "M iterations solve it",
    ),
    Wrong(
        "solve: steepest descent",
        "solve",
        "p = new + (new @ new) / (r @ r) * p",
        "p = new",
        "M iterations",
    ),
    Wrong(
        "solve: β upside down",
        "solve",
        "(new @ new) / (r @ r)",
        "(r @ r) / (new @ new)",
        "M iterations",
    ),
    Wrong(
        "solve: 0/0 at r = 0",
        "solve",
        "if not r.any():",
        "if not r.any() and q.any():",
        "stop before",
        hidden=True,
    ),
    Wrong(
        "implicit: sign",
        "implicit",
        "grad_lam(w, lam) - ",
        "grad_lam(w, lam) + ",
        "Its sign is wrong",
    ),
    Wrong(
        "implicit: without ∇_λ f",
        "implicit",
        "return upper.grad_lam(w, lam) - ",
        "return -",
        "∇_λ f, minus",
        hidden=True,
    ),
    Wrong(
        "implicit: nothing solved",
        "implicit",
        "grad_vjp(w, lam, q)[1]",
        "grad_vjp(w, lam, upper.grad(w, lam))[1]",
        "w* = λ",
    ),
    Wrong(
        "implicit: H at another place",
        "implicit",
        "lower.grad_vjp(w, lam, v)[0]",
        "lower.grad_vjp(0 * w, lam, v)[0]",
        "all at w",
        hidden=True,
    ),
    Wrong("neumann: K + 1 terms", "neumann", "range(K)", "range(K + 1)", "The term k = 0 is"),
    Wrong(
        "neumann: starts with A",
        "neumann",
        "alpha, h = alpha - hessian, h - mixed",
        "alpha = alpha - hessian\n        h = h - lower.grad_vjp(w, lam, gamma * alpha)[1]",
        "The term k = 0 is",
    ),
    Wrong("neumann: sign of B", "neumann", "h - mixed", "h + mixed", "Its sign is wrong"),
    Wrong(
        "neumann: stale α",
        "neumann",
        "alpha, h = alpha - hessian, h - mixed",
        "h = h - mixed",
        "B before A",
        hidden=True,
    ),
    Wrong("needed: rounded down", "needed", "math.ceil", "math.floor", "so it is (5, 2)"),
    Wrong("needed: κ for both", "needed", "(kappa, math.sqrt(kappa))", "(kappa, kappa)", "(5, 2)"),
    Wrong("needed: CG by κ²", "needed", "math.sqrt(kappa)", "kappa**2", "(5, 2)"),
    Wrong("trap: K for T", "trap", "(1 - gamma) ** T", "(1 - gamma) ** K", "where 1-RMD rests"),
    Wrong(
        "trap: h at the place of rest, which is 0",
        "trap",
        "(1 - q) ** 2 * rest",
        "(1 - r) * (1 - q) * rest",
        "at the place of rest",
        hidden=True,
    ),
    Wrong("trap: w for λ", "trap", "(1 - r) * (1 - q)", "(1 - r)", "where T-RMD rests"),
    Wrong(
        "trap: K counted from 0", "trap", "(1 - gamma) ** K", "(1 - gamma) ** (K + 1)", "h_{T−1} ="
    ),
]
