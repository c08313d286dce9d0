# %% [markdown]
# # Lab 2: Truncation and its bias
#
# $K$-RMD stops the backward pass after $K$ steps. What is left out is a bias, and Proposition 3.1
# says how large it can be. Here you measure the bias, put the bound over it, find out how many
# steps a given accuracy takes, and then break each of the assumptions and watch what happens.
#
# **You will** compute $\|h_{T-K} - d_\lambda f\|$ for every $K$; write the right-hand side of eq.
# (10) and the constants in it; turn it round to choose $K$; follow a biased gradient to where it
# leads; and say when truncation fails.
#
# **Read before:** Section 3.1 and 3.2 of Shaban, Cheng, Hatch and Boots, *Truncated
# Back-propagation for Bilevel Optimization* (AISTATS 2019): eq. (8), Proposition 3.1 with eq. (9)
# and eq. (10), Theorems 3.3 to 3.5; and Section 4.1 with Figures 1 to 3.
#
# **Time:** 90 minutes. **Needed:** NumPy, Matplotlib and tinybilevel; ipywidgets for the slider,
# which has a replacement.
#
# Write where it says `YOUR CODE HERE`, and leave the other cells as they are. The cell below a task
# tests it; more tests are run when your work is marked, and they take any right solution. To run
# the tests of one task alone, save the notebook, and then `pytest lab2_truncation.ipynb -m task1`.

# %% setup=imports
import math

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

# %% include=checks

# %% [markdown]
# ## The problems
#
# `tb.problems.toy()` is the paper's: $f(w) = \|w\|^2 + 10\|\sin w\|^2$ over
# $g(w, \lambda) = \tfrac12 (w - \lambda)^\top G (w - \lambda)$ with
# $G = \mathrm{diag}(1, \tfrac12)$, by $T = 100$ steps of size $\gamma = 0.1$. `quadratic` makes
# others like it, with $w_0 = d + D\lambda$ and $c(\lambda) = C\lambda$ in place of $\lambda$, so
# that $B_0 = D^\top$.


# %% setup=problem
def quadratic(G, C, D, d, gamma, T):
    """Return the problem with ½ (w − Cλ)ᵀ G (w − Cλ) below, and ½‖w‖² + Σ λ above."""
    upper = tb.Objective.from_functions(
        value=lambda w, lam: 0.5 * w @ w + lam.sum(),
        grad=lambda w, lam: w,
        grad_lam=lambda w, lam: np.ones_like(lam),
    )
    start = (lambda lam: d + D @ lam, lambda lam, alpha: D.T @ alpha)
    return tb.BilevelProblem(tb.GradientDescent(tb.Quadratic(G, C), gamma, initial=start), upper, T)


def draw(M, N, seed=0):
    """Return G, C, D and d with full entries, and a step size within 1/β."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((M, M))
    G = root @ root.T / M + 0.3 * np.eye(M)
    C, D, d = (rng.standard_normal(size) for size in ((M, N), (M, N), M))
    return G, C, D, d, 0.8 / np.linalg.norm(G, 2)


# %% [markdown]
# ## Task 1: the bias
#
# Return $\|h_{T-K} - d_\lambda f\|$ for $K = 0, 1, \dots, T$. `tb.KRMD(K=K)(problem, lam).grad` is
# $h_{T-K}$ and `tb.RMD()(problem, lam).grad` is $d_\lambda f = h_{-1}$. (Both run everything anew;
# `tb.RMD().truncations` would give all of them in one pass.)


# %% task=1 hole=biases
def biases(problem, lam):
    """Return ‖h_{T−K} − d_λ f‖ for K = 0 … T, an array of T + 1 numbers."""
    ### BEGIN SOLUTION
    exact = tb.RMD()(problem, lam).grad
    truncated = [tb.KRMD(K=K)(problem, lam).grad for K in range(problem.T + 1)]
    return np.array([np.linalg.norm(h - exact) for h in truncated])
    ### END SOLUTION


# %% task=1 tests=biases points=3
def test_biases():
    errors = biases(tb.problems.toy(T=4), np.array([1.0, 1.0]))
    hint = "K = 0 is ∇_λ f alone, and K = T takes all T products with B."
    assert len(errors) == 5, f"K = 0 … 4 are five numbers, got {len(errors)}. {hint}"
    same(errors[4], 0, "the bias at K = T where w_0 is fixed", hint)
    ### BEGIN HIDDEN TESTS
    for M, N, T, seed in ((2, 2, 8, 1), (3, 2, 5, 2), (2, 4, 1, 3)):
        G, C, D, d, gamma = draw(M, N, seed)
        problem, lam = quadratic(G, C, D, d, gamma, T), np.linspace(-1, 2, N)
        *truncated, exact = tb.RMD().truncations(problem, lam)
        want = [np.linalg.norm(h - exact) for h in truncated]
        same(
            biases(problem, lam),
            want,
            "the biases of a problem whose w_0 depends on λ",
            "Are they taken from d_λ f, with B_0, by the Euclidean norm, absolute?",
        )
    ### END HIDDEN TESTS


test_biases()

# %% [markdown]
# ## Task 2: the bound
#
# Write the right-hand side of eq. (10),
# $\dfrac{(1 - \gamma\alpha)^K}{\gamma\alpha}\,\|\nabla_{\hat w^*} f\|\, M_B$.


# %% task=2 hole=bound
def bound(K, gamma, alpha, grad_norm, M_B):
    """Return the right-hand side of eq. (10)."""
    ### BEGIN SOLUTION
    return (1 - gamma * alpha) ** K / (gamma * alpha) * grad_norm * M_B
    ### END SOLUTION


# %% task=2 tests=bound points=2
def test_bound():
    got = bound(2, gamma=0.5, alpha=1.0, grad_norm=3.0, M_B=2.0)
    same(got, 3.0, "(1 − ½)² / ½ · 3 · 2", "Eq. (10), factor by factor.")
    ### BEGIN HIDDEN TESTS
    for K in (0, 1, 7, 40):
        constants = dict(gamma=0.3, alpha=0.7, grad_norm=1.7, M_B=0.2)
        want = tb.bounds.equation_10(K, **constants)
        hint = "The bound falls as K grows, and at K = 0 it is ‖∇f‖ M_B / (γα)."
        same(bound(K, **constants), want, f"the bound at K = {K}", hint)
    ### END HIDDEN TESTS


test_bound()

# %% [markdown]
# ## Task 3: the constants
#
# For the quadratic, $A_t = I - \gamma G$, $B_t = \gamma C^\top G$ for $t \ge 1$, and
# $B_0 = D^\top$. Find
#
# - $\alpha$ and $\beta$, the strong convexity and the smoothness of $g$ in $w$, from $G$;
# - $M_B = \max_{t \in \{0, \dots, T-K\}} \|B_t\|$, where $\|\cdot\|$ is the spectral norm. Mind
#   which $t$ there are: what is left out are the products with $B_0, \dots, B_{T-K}$.


# %% task=3 hole=constants
def constants(G, C, D, gamma, T, K):
    """Return α, β and M_B of the quadratic problem, for K of T steps."""
    ### BEGIN SOLUTION
    curvatures = np.linalg.eigvalsh(G)
    M_B = np.linalg.norm(D.T, 2)
    if K < T:
        M_B = max(M_B, np.linalg.norm(gamma * C.T @ G, 2))
    return curvatures[0], curvatures[-1], M_B
    ### END SOLUTION


# %% task=3 tests=constants points=4
def test_constants():
    G, none = np.diag([1, 0.5]), np.zeros((2, 2))
    got = constants(G, np.eye(2), none, 0.1, 100, 5)
    same(got, (0.5, 1, 0.1), "α, β and M_B of the toy problem", "Section 4.1 has all three.")
    ### BEGIN HIDDEN TESTS
    for M, N, seed in ((3, 3, 4), (4, 2, 5), (2, 5, 6)):
        G, C, D, d, gamma = draw(M, N, seed)
        for size in (0.01, 1):
            problem = quadratic(G, C, size * D, d, gamma, 4)
            measured = tb.bounds.measure(problem, np.ones(N))
            for K in (0, 3, 4):
                alpha, beta, M_B = constants(G, C, size * D, gamma, 4, K)
                spectrum = np.linalg.eigvalsh(G)
                same(alpha, spectrum.min(), "α", "g's least curvature: an eigenvalue of G.")
                same(beta, spectrum.max(), "β", "g's largest curvature: an eigenvalue of G.")
                want = measured.B_norms[: 4 - K + 1].max()
                hint = (
                    "B_0 = Dᵀ is always left out, and B_t = γ Cᵀ G is unless K = T. The norm of a "
                    "matrix is its largest singular value."
                )
                same(M_B, want, f"M_B for K = {K} of T = 4", hint, tol=1e-6)
    ### END HIDDEN TESTS


test_constants()

# %% [markdown]
# Put them together: the bias of the paper's toy problem under its bound, the right half of Figure
# 1.

# %%
problem, lam = tb.problems.toy(), np.array([1.0, 1.0])
errors = biases(problem, lam)
grad_norm = np.linalg.norm(problem.upper.grad(tb.RMD()(problem, lam).w, lam))
bounds = []
for K in range(problem.T + 1):
    alpha, beta, M_B = constants(np.diag([1, 0.5]), np.eye(2), np.zeros((2, 2)), 0.1, problem.T, K)
    bounds.append(bound(K, 0.1, alpha, grad_norm, M_B))
tb.plotting.truncation_error(errors, {"eq. (10)": bounds})
plt.show()
print("the bound holds for every K:", bool(np.all(errors <= np.array(bounds) + 1e-12)))

# %% [markdown]
# ## Look at it: a slider for K
#
# The left picture shows $f(\hat w^*(\lambda))$, which for $T = 100$ is all but Figure 1's surface,
# with the exact descent direction $-d_\lambda f$ and the truncated one $-h_{T-K}$ at a point you
# may change. On the right are the bias and its bound at this $K$. The truncated arrow is shorter,
# and at first it points elsewhere: the coordinate with the larger curvature settles first.


# %%
def surface(lam):
    """Return f(ŵ*(λ)) by the closed form of Section 4.1, ŵ* = C w_0 + (I − C) λ."""
    C = (1 - 0.1 * np.array([1, 0.5])) ** 100
    return problem.upper.value(C * 2 + (1 - C) * lam, lam)


def show(K, lam=(1.0, 1.0)):
    """Draw both gradients on the landscape, and the bias at K under its bound."""
    lam = np.array(lam)
    exact, r = tb.RMD()(problem, lam), tb.KRMD(K=K)(problem, lam)
    with tb.plotting.style():
        _, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    arrows = {"−d_λ f": (lam, -exact.grad), f"−h, K = {K}": (lam, -r.grad)}
    tb.plotting.landscape(surface, (-3, 3), arrows=arrows, resolution=80, ax=left)
    at = biases(problem, lam)
    limits = [bound(k, 0.1, 0.5, r.alpha_norms[0], 0.1) for k in range(problem.T + 1)]
    tb.plotting.truncation_error(at, {"eq. (10)": limits}, ax=right)
    right.plot([K, K], [max(at[K], 1e-4), limits[K]], "ko-")
    cosine = exact.grad @ r.grad / np.linalg.norm(exact.grad) / max(1e-300, np.linalg.norm(r.grad))
    right.set_title(f"K = {K}: bias {at[K]:.3f}, bound {limits[K]:.3f}, cosine {cosine:.3f}")
    plt.show()


show(5)

# %%
try:
    from ipywidgets import IntSlider, interact
except ImportError:
    print("no ipywidgets, so two more pictures in place of the slider; call show(K) for others")
    show(1)
    show(30)
else:
    interact(lambda K: show(K), K=IntSlider(1, 0, 100, continuous_update=False))

# %% [markdown]
# ## Task 4: how many steps?
#
# Turn eq. (10) round: return the smallest whole number $K \ge 0$ whose bound is at most `tol`. Then
# look how $K$ grows when `tol` gets ten times smaller.


# %% task=4 hole=depth
def depth(tol, gamma, alpha, grad_norm, M_B):
    """Return the smallest K ≥ 0 with bound(K, …) ≤ tol, an int."""
    ### BEGIN SOLUTION
    K = math.log(tol * gamma * alpha / (grad_norm * M_B)) / math.log(1 - gamma * alpha)
    return max(0, math.ceil(K))
    ### END SOLUTION


# %% task=4 tests=depth points=3
def test_depth():
    # 2 · (½)^K ≤ 0.3 for the first time at K = 3.
    K = depth(0.3, gamma=0.5, alpha=1.0, grad_norm=1.0, M_B=1.0)
    assert K == 3, f"2 · (½)^K is at most 0.3 first at K = 3, and not at {K}"
    ### BEGIN HIDDEN TESTS
    for gamma, alpha, size in ((0.1, 0.5, 3.0), (0.3, 0.7, 0.2), (0.9, 1.0, 40.0)):
        for tol in (1e4, 1.3, 0.11, 3e-3, 7e-7):
            values = dict(gamma=gamma, alpha=alpha, grad_norm=size, M_B=1.7)
            K = depth(tol, **values)
            assert int(K) == K, f"K counts steps, so it is a whole number, got {K}"
            assert K >= 0, f"where the bound is below tol already, K is 0, got {K}"
            there = tb.bounds.equation_10(int(K), **values)
            assert there <= tol, f"K = {K} is not enough for tol = {tol}: round up, not down"
            one_less = tb.bounds.equation_10(max(int(K) - 1, 0), **values)
            assert K == 0 or one_less > tol, f"K = {K} is more than tol = {tol} needs"
    ### END HIDDEN TESTS


test_depth()

# %%
for tol in (1, 0.1, 0.01, 0.001):
    print(f"tol = {tol:<6} K = {depth(tol, 0.1, 0.5, grad_norm, 0.1)}")
print("tb.KRMD(tol=…) stops by itself, on the α_t that it meets on its way:")
r = tb.KRMD(tol=0.1)(tb.problems.toy(T=400), lam)
print(f"tol = 0.1    K = {r.K}, certified to {r.bound:.3f}")

# %% [markdown]
# ## Task 5: is it a direction of descent?
#
# A biased gradient may still lead downhill. Figure 2 draws
# $h_{T-K}^\top d_\lambda f \,/\, \|d_\lambda f\|^2$: positive where $-h_{T-K}$ leads downhill, and
# 1 where nothing is left out. Return that ratio.


# %% task=5 hole=ratio
def ratio(problem, lam, K):
    """Return h_{T−K}ᵀ d_λ f / ‖d_λ f‖²."""
    ### BEGIN SOLUTION
    exact = tb.RMD()(problem, lam).grad
    return tb.KRMD(K=K)(problem, lam).grad @ exact / (exact @ exact)
    ### END SOLUTION


# %% task=5 tests=ratio points=2
def test_ratio():
    toy, at = tb.problems.toy(), np.array([1.0, 1.0])
    same(ratio(toy, at, 100), 1, "the ratio at K = T of the toy problem", "h_0 is d_λ f there.")
    ### BEGIN HIDDEN TESTS
    for biased in (False, True):
        toy = tb.problems.toy(biased=biased)
        for at in ([1.0, 1.0], [-1.0, 1.0], [0.7, 0.0]):
            for K in (1, 5, 30):
                want = tb.bounds.lemma_3_2(toy, np.array(at), K).by_grad[0]
                hint = "Over the square of ‖d_λ f‖, and signed: it may be negative."
                same(ratio(toy, np.array(at), K), want, f"the ratio for K = {K}", hint)
    ### END HIDDEN TESTS


test_ratio()

# %% [markdown]
# ## Task 6: follow it
#
# Take $R$ steps $\lambda_{\tau+1} = \lambda_\tau - \eta_\tau h_{T-K}(\lambda_\tau)$ with
# $\eta_\tau = \eta_0 / \sqrt\tau$, $\tau = 1, 2, \dots, R$, as Theorem 3.3 has it.


# %% task=6 hole=walk
def walk(problem, lam, K, eta, R):
    """Return λ_1, …, λ_{R+1}, an array (R + 1, N) whose first row is lam; eta is η_0."""
    ### BEGIN SOLUTION
    path = [np.array(lam, dtype=float)]
    for tau in range(1, R + 1):
        path.append(path[-1] - eta / math.sqrt(tau) * tb.KRMD(K=K)(problem, path[-1]).grad)
    return np.array(path)
    ### END SOLUTION


# %% task=6 tests=walk points=4
def test_walk():
    trap = tb.problems.counterexample()
    path = walk(trap, np.array([1.0]), 1, 0.5, 2)
    first = tb.KRMD(K=1)(trap, [1.0]).grad
    same(path[0], [1], "λ_1", "The first row is where the walk begins.")
    same(path[1], 1 - 0.5 * first, "λ_2", "Against the gradient, with η_1 = η_0.")
    ### BEGIN HIDDEN TESTS
    for toy, K in ((tb.problems.toy(), 1), (tb.problems.toy(biased=True), 5)):
        start = np.array([-1.0, 1.0])
        got = walk(toy, start, K, 0.05, 6)
        same(start, [-1, 1], "the start that walk was given", "It belongs to the caller.")
        want = tb.bounds.theorem_3_3(toy, start, K, iterations=6, lr=0.05).lam
        hint = "Is each gradient taken at the newest λ, and is η_τ = η_0 / √τ with τ = 1, 2, …?"
        same(got, want, "[λ_1, …, λ_7]", hint)
    ### END HIDDEN TESTS


test_walk()

# %% [markdown]
# ## When does it fail?
#
# Three experiments, each of which breaks one assumption.
#
# **1. A step size beyond $1/\beta$.** The toy problem again, with $\gamma = 1.9$; $\beta$ is 1.
# Gradient descent still converges, as $\gamma < 2/\beta$.

# %%
fast = tb.problems.toy(step_size=1.9, T=30)
errors = biases(fast, lam)
grad_norm = np.linalg.norm(fast.upper.grad(tb.RMD()(fast, lam).w, lam))
claims = [bound(K, 1.9, 0.5, grad_norm, 1.9) for K in range(31)]
ax = tb.plotting.truncation_error(errors, {"eq. (10), which does not hold": claims})
ax.set_ylim(1e-4, 1e2)
plt.show()
print(tb.bounds.proposition_3_1(fast, lam, K=5).missing)

# %% [markdown]
# **2. A lower level that is not convex.** $g(w, \lambda) = \tfrac14 w^4 - \tfrac12 w^2 - \lambda w$
# has a hill at 0, and the run starts on it. Which steps decide in which valley it ends?

# %%
valleys = tb.Objective.from_functions(
    value=lambda w, lam: float((w**4 / 4 - w**2 / 2 - lam * w).sum()),
    grad=lambda w, lam: w**3 - w - lam,
    grad_vjp=lambda w, lam, v: ((3 * w**2 - 1) * v, -v),
    grad_jvp=lambda w, lam, dw, dlam: (3 * w**2 - 1) * dw - dlam,
)
half_square = tb.Objective.from_functions(
    value=lambda w, lam: float(w @ w) / 2, grad=lambda w, lam: w
)
hill = tb.BilevelProblem(tb.GradientDescent(valleys, 0.2, initial=[0.001]), half_square, T=60)
trace = tb.RMD().trace(hill, [0.0])
with tb.plotting.style():
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
left.plot(tb.RMD().trace(hill, [0.0], keep=True).w[::-1])
left.set(xlabel="t", ylabel="w_t", title="The run leaves the hill and settles")
tb.plotting.truncation_error(trace, ax=right)
right.set(title="…and what K-RMD leaves out")
plt.show()

# %% [markdown]
# **3. Interference.** $\tilde f = f + 5\|\lambda - (1, 0)\|^2$ depends on $\lambda$ directly. Then
# the direct part and the truncated part may pull against each other, and where they balance is no
# stationary point.

# %%
biased, start = tb.problems.toy(biased=True), np.array([-1.0, 1.0])
paths = {f"K = {K}": walk(biased, start, K, 0.05, 60) for K in (1, 5, 20)}
tb.plotting.landscape(biased, paths=paths, resolution=40)
plt.show()
for name, path in paths.items():
    where, K = path[-1], int(name[4:])
    left_over = np.linalg.norm(tb.RMD()(biased, where).grad)
    print(f"{name:<7} ends at {where.round(3)}, with ‖d_λ f‖ = {left_over:.3f}", end="")
    print(f" and the ratio of Figure 2 {ratio(biased, where, K):.3f}")

# %% [markdown]
# ## Task 7: explain
#
# 1. In the first experiment the bias is above the "bound" for most $K$. Which number is the rate at
#    which it really falls, and why is it not $1 - \gamma\alpha$?
# 2. In the second experiment the bias falls at first, and then stays until $K$ is nearly $T$.
#    Explain it by $A_t$ on the hill and in the valley. Which of eq. (9) and eq. (10) still says
#    something, and what is it worth?
# 3. In the third experiment larger $K$ end closer to a stationary point. Would a smaller step size
#    $\eta$, or more steps, help $K = 1$? What does Theorem 3.4 ask for that is not there?

# %% [markdown] task=7 answer=failures points=6
# ### BEGIN SOLUTION
# 1. $A = I - \gamma G = \mathrm{diag}(-0.9, 0.05)$. The rate is
#    $\|A\| = \max_i |1 - \gamma G_{ii}| = 0.9$, from the largest curvature.
#    $1 - \gamma\alpha = 0.05$ is the largest eigenvalue of $A$ only while $1 - \gamma\beta \ge 0$,
#    that is for $\gamma \le 1/\beta$.
# 2. In the valley $g'' = 2$ and $A = 0.6$, on the hill $g'' = -1$ and $A = 1.2$. Going back,
#    $\alpha$ shrinks while the run is in the valley, and grows again on the hill: the early steps,
#    which decide the valley, weigh as much as the late ones. Eq. (10) asks for convexity everywhere
#    and says nothing. Eq. (9) asks for it around the last $K + 2$ states and holds while these lie
#    in the valley, but its factor $2^{T-K+1}$ makes it worthless.
# 3. No. The walk has come to rest where $h_{T-1} = 0$, which is not where $d_\lambda f = 0$;
#    neither steps nor their size change that, only $K$ does. Assumption 3 is missing, that
#    $\nabla_\lambda f$ does not interfere:
#
#    $$\nabla_\lambda f^\top(d_\lambda f + h_{T-K} - \nabla_\lambda f)
#    \ge \Omega(\|\nabla_\lambda f\|^2)$$
# ### END SOLUTION
