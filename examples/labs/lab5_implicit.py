# %% [markdown]
# # Lab 5: Implicit or unrolled?
#
# Where the lower level has converged, the implicit function theorem gives the hypergradient by one
# linear system, and conjugate gradients solve it faster than $K$-RMD gathers its series. Where it
# has not, the theorem speaks about a point that is not there. Here you write both, race them, and
# find out when each is right; and then you fall into Theorem 3.5's trap.
#
# **You will** write conjugate gradients, the implicit hypergradient and the Neumann series; predict
# how many steps each needs; see what an unconverged lower level does to both; and work out in
# closed form where a biased gradient comes to rest.
#
# **Read before:** Section 3.2 with Theorem 3.5, and Section 3.3 of Shaban, Cheng, Hatch and Boots,
# *Truncated Back-propagation for Bilevel Optimization* (AISTATS 2019): eq. (11) and eq. (12). For
# conjugate gradients: Shewchuk, *An introduction to the conjugate gradient method without the
# agonizing pain* (1994), Appendix B2.
#
# **Time:** 90 minutes. **Needed:** NumPy, Matplotlib and tinybilevel.
#
# Write where it says `YOUR CODE HERE`, and leave the other cells as they are. The cell below a task
# tests it; more tests are run when your work is marked, and they take any right solution. To run
# the tests of one task alone, save the notebook, and then `pytest lab5_implicit.ipynb -m task1`.

# %% setup=imports
import math
import warnings

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

# %% include=checks

# %% [markdown]
# ## Task 1: conjugate gradients
#
# Solve $H q = b$ for a symmetric, positive definite $H$ that is only known by `product(v)` $= Hv$.
# From $q = 0$, $r = b$ and $p = r$, each iteration is
#
# $$\begin{aligned}
# a &= \frac{r^\top r}{p^\top H p}, & q &\leftarrow q + a p, &
# r_{\text{new}} &= r - a H p, \\
# p &\leftarrow r_{\text{new}} + \frac{r_{\text{new}}^\top r_{\text{new}}}{r^\top r}\, p, &
# r &\leftarrow r_{\text{new}}.
# \end{aligned}$$
#
# Take $K$ iterations; stop earlier only where $r = 0$, as after that nothing is left to do.


# %% task=1 hole=solve
def solve(product, b, K):
    """Return q (M,) after K iterations of conjugate gradients on H q = b, from q = 0."""
    ### BEGIN SOLUTION
    q, r, p = np.zeros_like(b), b, b
    for _ in range(K):
        if not r.any():
            break
        Hp = product(p)
        a = (r @ r) / (p @ Hp)
        q = q + a * p
        new = r - a * Hp
        p = new + (new @ new) / (r @ r) * p
        r = new
    return q
    ### END SOLUTION


# %% task=1 tests=solve points=5
def test_solve():
    H, b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, 0.0])
    q = solve(lambda v: H @ v, b, 1)
    same(q, [0.5, 0], "q after one iteration", "The first step goes along b, by bᵀb / bᵀHb.")
    same(solve(lambda v: H @ v, b, 2), [2 / 3, -1 / 3], "q after two", "M iterations solve it.")
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng(1)
    for M in (1, 4, 7):
        root = rng.standard_normal((M, M))
        H, b = root @ root.T + np.eye(M), rng.standard_normal(M)
        copy = b.copy()
        powers = [b]
        for K in range(1, M + 1):
            # The K-th iterate is the best in the span of b, Hb, …, H^{K−1} b, in the norm of H.
            basis, _ = np.linalg.qr(np.array(powers).T)
            want = basis @ np.linalg.solve(basis.T @ H @ basis, basis.T @ b)
            calls = []

            def product(v, H=H, calls=calls):
                calls.append(1)
                return H @ v

            hint = "Is the last step kept, and is the new direction made of the new residual?"
            same(solve(product, b, K), want, f"q after {K} of {M} iterations", hint, tol=1e-6)
            assert len(calls) <= K, f"{K} iterations take {K} products, and you took {len(calls)}"
            powers.append(H @ powers[-1])
        unchanged([b], [copy], "solve")
        late = solve(lambda v, H=H: H @ v, b, M + 3)
        same(late, np.linalg.solve(H, b), "q after more than M iterations", "", tol=1e-6)
    with np.errstate(invalid="ignore"):
        nothing = solve(lambda v: 2 * v, np.zeros(3), 4)
    same(nothing, np.zeros(3), "q for b = 0", "Where r = 0, rᵀr / pᵀHp is 0/0: stop before.")
    ### END HIDDEN TESTS


test_solve()

# %% [markdown]
# ## Task 2: the implicit hypergradient
#
# Eq. (11):
# $d_\lambda f = \nabla_\lambda f - \nabla_{\lambda,w} g\,(\nabla_{w,w} g)^{-1}\,\nabla_w f$, all of
# it at $w = w_T$. The lower objective's `lower.grad_vjp(w, lam, v)` returns the pair
# $\nabla_{w,w} g\, v$ and $\nabla_{\lambda,w} g\, v$; the upper one has `upper.grad(w, lam)` and
# `upper.grad_lam(w, lam)`. A solver comes as an argument: `solver(product, b)` returns $q$ with
# $Hq = b$, $H$ given by its product.


# %% task=2 hole=implicit
def implicit(lower, upper, w, lam, solver):
    """Return the right-hand side of eq. (11), (N,)."""
    ### BEGIN SOLUTION
    q = solver(lambda v: lower.grad_vjp(w, lam, v)[0], upper.grad(w, lam))
    return upper.grad_lam(w, lam) - lower.grad_vjp(w, lam, q)[1]
    ### END SOLUTION


# %% setup=dense
def dense_solver(product, b):
    """Return the solution of H q = b, from H's columns: exact, and only for small M."""
    return np.linalg.solve(np.array([product(unit) for unit in np.eye(len(b))]).T, b)


# %% task=2 tests=implicit points=4
def test_implicit():
    toy = tb.problems.toy()
    w, lam = np.array([1.0, 1.0]), np.array([1.0, 1.0])
    got = implicit(toy.transition.objective, toy.upper, w, lam, dense_solver)
    hint = "On the toy problem w* = λ, so d_λ f is ∇_w f."
    same(got, toy.upper.grad(w, lam), "the implicit hypergradient of the toy problem", hint)
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng(2)
    for M, N in ((3, 3), (4, 2), (2, 5)):
        root, C, D = (rng.standard_normal(n) for n in ((M, M), (M, N), N))
        G = root @ root.T + np.eye(M)
        # Bent, so that the place where H is taken shows: ½ rᵀ G r + Σ r⁴ / 4 with r = w − C λ.
        lower = tb.Objective.from_functions(
            value=lambda w, lam, G=G, C=C: (
                0.5 * (w - C @ lam) @ G @ (w - C @ lam) + ((w - C @ lam) ** 4).sum() / 4
            ),
            grad=lambda w, lam, G=G, C=C: G @ (w - C @ lam) + (w - C @ lam) ** 3,
            grad_vjp=lambda w, lam, v, G=G, C=C: (
                G @ v + 3 * (w - C @ lam) ** 2 * v,
                -C.T @ (G @ v + 3 * (w - C @ lam) ** 2 * v),
            ),
        )
        upper = tb.Objective.from_functions(
            value=lambda w, lam, D=D: float(0.5 * w @ w + D @ lam),
            grad=lambda w, lam: w,
            grad_lam=lambda w, lam, D=D: D,
        )
        w, lam = rng.standard_normal(M), rng.standard_normal(N)
        # H and the mixed derivative share a factor, so that the right-hand side is D + Cᵀ w.
        hint = "∇_λ f, minus the mixed product with q, where H q = ∇_w f, all at w."
        got = implicit(lower, upper, w, lam, dense_solver)
        same(got, D + C.T @ w, f"the implicit hypergradient, M = {M}, N = {N}", hint)
    ### END HIDDEN TESTS


test_implicit()

# %% [markdown]
# ## Task 3: the Neumann series
#
# Proposition 3.6 writes the inverse as a series, eq. (12):
# $-\nabla_{\lambda,w} g\,(\nabla_{w,w} g)^{-1} = B_\infty \sum_{k \ge 0} A_\infty^k$, with
# $A_\infty = I - \gamma\nabla_{w,w} g$ and $B_\infty = -\gamma\nabla_{\lambda,w} g$. Return
# $\nabla_\lambda f + B_\infty \sum_{k=0}^{K-1} A_\infty^k \nabla_w f$: $K$ terms, all at $w = w_T$.


# %% task=3 hole=neumann
def neumann(lower, upper, w, lam, gamma, K):
    """Return ∇_λ f and K terms of the series, (N,)."""
    ### BEGIN SOLUTION
    alpha, h = upper.grad(w, lam), upper.grad_lam(w, lam)
    for _ in range(K):
        hessian, mixed = lower.grad_vjp(w, lam, gamma * alpha)
        alpha, h = alpha - hessian, h - mixed
    return h
    ### END SOLUTION


# %% task=3 tests=neumann points=4
def test_neumann():
    toy = tb.problems.toy()
    w, lam = np.array([1.0, 1.0]), np.array([1.0, 1.0])
    got = neumann(toy.transition.objective, toy.upper, w, lam, 0.1, 1)
    want = 0.1 * np.array([1, 0.5]) * toy.upper.grad(w, lam)
    same(got, want, "one term on the toy problem", "The term k = 0 is B_∞ ∇_w f, B_∞ = γ G here.")
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng(3)
    for M, N in ((3, 3), (4, 2), (2, 5)):
        root = rng.standard_normal((M, M))
        lower = tb.Quadratic(root @ root.T + np.eye(M), rng.standard_normal((M, N)))
        gamma, D = 0.7 / np.linalg.norm(lower.G, 2), rng.standard_normal(N)
        upper = tb.Objective.from_functions(
            value=lambda w, lam, D=D: float(0.5 * w @ w + D @ lam),
            grad=lambda w, lam: w,
            grad_lam=lambda w, lam, D=D: D,
        )
        lam = rng.standard_normal(N)
        problem = tb.BilevelProblem(
            tb.GradientDescent(lower, gamma, initial=rng.standard_normal(M)), upper, 30
        )
        w = tb.KRMD(K=0)(problem, lam).w
        for K in (0, 1, 2, 9):
            # On a quadratic A_t and B_t are the same at every t, so it is K-RMD.
            want = tb.KRMD(K=K)(problem, lam).grad
            hint = "K terms, k = 0 … K − 1: B before A, γ in both, and ∇_λ f once."
            same(neumann(lower, upper, w, lam, gamma, K), want, f"{K} terms", hint)
    ### END HIDDEN TESTS


test_neumann()

# %% [markdown]
# ## Task 4: predict the race
#
# Section 3.3: with $\kappa = \beta/\alpha$, $K$-RMD has a bias of order $(1 - 1/\kappa)^K$ (with
# $\gamma = 1/\beta$), and $K$ iterations of conjugate gradients one of order
# $(1 - 1/\sqrt\kappa)^K$. Return for each the least whole $K$ that makes its factor at most `tol`.


# %% task=4 hole=needed
def needed(kappa, tol):
    """Return K for K-RMD and K for CG, two ints; kappa > 1 and 0 < tol < 1."""
    ### BEGIN SOLUTION
    return tuple(math.ceil(math.log(tol) / math.log(1 - 1 / x)) for x in (kappa, math.sqrt(kappa)))
    ### END SOLUTION


# %% task=4 tests=needed points=2
def test_needed():
    K = tuple(needed(4.0, 0.3))
    assert K == (5, 2), f"0.75⁵ < 0.3 < 0.75⁴ and 0.5² < 0.3 < 0.5, so it is (5, 2), and got {K}"
    ### BEGIN HIDDEN TESTS
    for kappa in (1.7, 9.5, 100.3, 1e4):
        for tol in (0.77, 0.1001, 1.3e-6):
            for K, x, name in zip(
                needed(kappa, tol), (kappa, kappa**0.5), ("K-RMD", "CG"), strict=True
            ):
                assert int(K) == K, f"K of {name} is a whole number, and got {K}"
                factor = 1 - 1 / x
                assert factor**K <= tol < factor ** (K - 1), (
                    f"K = {K} of {name} for κ = {kappa}, tol = {tol}: the factor is {factor**K:.3g}"
                )
    ### END HIDDEN TESTS


test_needed()

# %%
for kappa in (10, 100, 1000):
    print(
        f"κ = {kappa:<5} K-RMD {needed(kappa, 1e-3)[0]:>5} steps,  CG {needed(kappa, 1e-3)[1]:>4}"
    )

# %% [markdown]
# ## The race
#
# A quadratic lower level with 20 curvatures between $1/\kappa$ and 1, $\gamma = 1 = 1/\beta$, and
# $w_0 = 0$. First with a lower level that has converged, $T = 2000$; then with one that was stopped
# at $T = 15$. The error is the distance to the exact hypergradient of *these* $T$ steps.


# %%
def stiff(T, kappa=50, M=20, seed=0):
    """Return a problem of condition number κ: ½ (w − λ)ᵀ G (w − λ) below, ½‖w − b‖² above."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.standard_normal((M, M)))
    G = turn @ np.diag(np.geomspace(1 / kappa, 1, M)) @ turn.T
    b = rng.standard_normal(M)
    upper = tb.Objective.from_functions(
        value=lambda w, lam: float((w - b) @ (w - b)) / 2, grad=lambda w, lam: w - b
    )
    return tb.BilevelProblem(
        tb.GradientDescent(tb.Quadratic(G), 1.0, initial=np.zeros(M)), upper, T
    )


def by_cg(problem, w, lam, K):
    """Return the implicit hypergradient at w, by K iterations of your conjugate gradients."""
    lower, upper = problem.transition.objective, problem.upper
    return implicit(lower, upper, w, lam, lambda product, b: solve(product, b, K))


lam = np.random.default_rng(1).standard_normal(20)
with tb.plotting.style():
    _, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for ax, T, lowest in zip(axes, (2000, 15), (1e-9, 1e-2), strict=True):
    problem = stiff(T)
    *truncated, exact = tb.RMD().truncations(problem, lam)
    w = tb.KRMD(K=0)(problem, lam).w
    Ks = range(1, min(T, 120) + 1)
    krmd = [np.linalg.norm(truncated[K] - exact) for K in Ks]
    cg = [np.linalg.norm(by_cg(problem, w, lam, K) - exact) for K in Ks]
    tb.plotting.truncation_error(krmd, K=Ks, label="K-RMD", ax=ax)
    tb.plotting.truncation_error(cg, K=Ks, label="implicit, K of CG", ax=ax, ls="--", color="C1")
    ax.set(title=f"T = {T}", ylim=(lowest, 1e1))
plt.show()

# %% [markdown]
# ## What the theorem cannot see
#
# Where the run is short, its start and its step size matter, and eq. (11) has neither in it. Learn
# the start, $w_0 = \lambda$, of a run towards a fixed target: `RMD` sees it, and the implicit
# hypergradient is 0, as $w^*$ does not depend on $\lambda$. `tb.ImplicitCG` says that something is
# amiss.

# %%
target = np.array([1.0, -2.0])
towards = tb.Objective.from_functions(
    value=lambda w, lam: float((w - target) @ (w - target)) / 2,
    grad=lambda w, lam: w - target,
    grad_vjp=lambda w, lam, v: (v, 0 * lam),
    grad_jvp=lambda w, lam, dw, dlam: dw,
)
below = tb.Objective.from_functions(value=lambda w, lam: float(w @ w) / 2, grad=lambda w, lam: w)
learned = tb.BilevelProblem(tb.GradientDescent(towards, 0.1, initial=slice(0, 2)), below, T=5)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    blind = tb.ImplicitCG()(learned, np.array([0.5, 0.5]))
print("RMD:     ", tb.RMD()(learned, np.array([0.5, 0.5])).grad)
print(
    "KRMD(5): ", tb.KRMD(K=5)(learned, np.array([0.5, 0.5])).grad, "(B_0 is not among its products)"
)
print("implicit:", blind.grad, "converged:", blind.converged)
for warning in caught:
    print(f"{warning.category.__name__}: {warning.message}")

# %% [markdown]
# ## Task 5: Theorem 3.5's trap
#
# One hyperparameter, one variable: $f = \tfrac12 w^2 + \tfrac12\rho(\lambda - b)^2$ and
# $g = \tfrac12(w - \lambda)^2$, by $T$ steps of size $\gamma$ from $w_0 = 0$. Everything can be
# worked out: $\hat w = (1 - q)\lambda$ with $q = (1 - \gamma)^T$, and
# $h_{T-K} = \nabla_\lambda f + (1 - r)\,\nabla_w f$ with $r = (1 - \gamma)^K$. Find the $\lambda$
# at which $h_{T-K} = 0$, where following it comes to rest, and the exact $d_\lambda f$ there.


# %% task=5 hole=trap
def trap(K, T, gamma, rho, b):
    """Return the λ where h_{T−K} = 0, and d_λ f at this λ."""
    ### BEGIN SOLUTION
    q, r = (1 - gamma) ** T, (1 - gamma) ** K
    rest = rho * b / (rho + (1 - r) * (1 - q))
    return rest, rho * (rest - b) + (1 - q) ** 2 * rest
    ### END SOLUTION


# %% task=5 tests=trap points=4
def test_trap():
    rest, grad = trap(1, 100, 0.1, 1.0, 1.0)
    same(rest, 0.90912, "where 1-RMD rests", "h_{T−1} = ρ(λ − b) + (1 − r) ŵ.", tol=1e-4)
    same(trap(100, 100, 0.1, 1.0, 1.0)[1], 0, "d_λ f where T-RMD rests", "K = T is exact here.")
    ### BEGIN HIDDEN TESTS
    for T, gamma, rho, b in ((7, 0.3, 2.0, -1.5), (3, 0.1, 0.4, 2.0), (20, 0.9, 1.0, 1.0)):
        problem = tb.problems.counterexample(T=T, step_size=gamma, coupling=rho, target=b)
        for K in (0, 1, 3):
            end = tb.bounds.theorem_3_5(problem, K)
            rest, grad = trap(K, T, gamma, rho, b)
            hint = "∇_w f is ŵ, and ŵ = (1 − q)λ: T in q, K in r."
            same(rest, end.lam, f"where K = {K} rests, T = {T}", hint)
            hint = "d_λ f = ρ(λ − b) + (1 − q) ŵ, at the place of rest."
            same(grad + 1, end.grad + 1, f"d_λ f where K = {K} rests, T = {T}", hint)
    ### END HIDDEN TESTS


test_trap()

# %%
trapped = tb.problems.counterexample()
print("  K    rests at   by hand    d_λ f there")
for K in (1, 5, 20, 50):
    run = tb.minimize(trapped, method=tb.KRMD(K=K), optimizer=tb.SGD(0.5), iterations=300)
    rest, grad = trap(K, 100, 0.1, 1.0, 1.0)
    print(f"{K:>3}    {run.lam[0]:.5f}    {rest:.5f}    {grad:.5f}")
free = trap(1, 100, 0.1, 1e-9, 1.0)
print(f"with ρ → 0, so that ∇_λ f = 0, 1-RMD rests at {free[0]:.1e}, where d_λ f = {free[1]:.1e}")

# %% [markdown]
# ## Task 6: choose
#
# 1. Left picture: by what factor does each error fall at a step, and does Section 3.3 predict it
#    for $\kappa = 50$? Right picture: why does the error of the implicit hypergradient not go below
#    a certain level, however large $K$ is, and what is that level made of?
# 2. Name a hyperparameter that implicit differentiation cannot learn at all, and say why truncated
#    back-propagation can; and one that $K$-RMD with $K \le T$ cannot, and RMD can.
# 3. In the trap all assumptions of Theorem 3.4 hold but one. Which one, and what happens to it as
#    $\rho \to 0$? Would implicit differentiation with a converged lower level fall into the trap?

# %% [markdown] task=6 answer=choose points=6
# ### BEGIN SOLUTION
# 1. $K$-RMD falls by $1 - 1/\kappa = 0.98$ a step in the end, faster before, while the large
#    curvatures settle; CG by at least $1 - 1/\sqrt\kappa = 0.86$, and to rounding after some
#    $M = 20$ steps, since CG ends after as many steps as there are curvatures. On the right, eq.
#    (11) is the derivative of $f(w^*(\lambda))$ taken at a $w_T \ne w^*$. For this quadratic the
#    exact one is $(I - A^T)\nabla_w f$ and the implicit one is $\nabla_w f$: the level is
#    $\|A^T \nabla_w f\|$, $A = I - \gamma G$, what $T$ steps have not yet forgotten. No solver
#    changes it.
# 2. The step size, the momentum, the start: $w^*$ does not depend on them, so the implicit
#    derivative is 0, while each step of the unrolled run does. The start $w_0 = \lambda$ is what
#    $K$-RMD cannot learn: $B_0\alpha_0$ is the one term that $h_0$ leaves out.
# 3. Assumption 3: $\nabla_\lambda f$ must not interfere. There
#    $\nabla_\lambda f = \rho(\lambda - b)$ pulls towards $b$ and $\hat w$ towards 0, and 1-RMD sees
#    only a tenth of the second pull. As $\rho \to 0$ the direct pull is gone,
#    $\nabla_\lambda f = 0$, and every $K \ge 1$ ends at $\lambda = 0$. Implicit differentiation
#    does not: it takes the whole series, with no bias where the lower level has converged, so that
#    it ends at $\rho b/(\rho + 1)$.
# ### END SOLUTION
