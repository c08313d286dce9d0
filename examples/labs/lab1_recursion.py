# %% [markdown]
# # Lab 1: The recursion by hand
#
# An algorithm runs $T$ steps, $w_{t+1} = \Xi_{t+1}(w_t, \lambda)$, and $f(w_T, \lambda)$ says how
# good its result is. How does $f$ change with $\lambda$? Here you derive the answer, write it in
# ten lines, and find out for yourself whether they are right.
#
# **You will** derive $A_t$ and $B_t$ of gradient descent; write a step and its adjoint; write the
# test that says whether an adjoint is right, and where it is wrong; write the backward recursion,
# whole and truncated; and watch $(\alpha_t, h_t)$ travel back.
#
# **Read before:** Section 2 of Shaban, Cheng, Hatch and Boots, *Truncated Back-propagation for
# Bilevel Optimization* (AISTATS 2019): eq. (4) to (6), eq. (8), and the problem of Section 4.1.
#
# **Time:** 90 minutes. **Needed:** NumPy, Matplotlib and tinybilevel.
#
# Write where it says `YOUR CODE HERE`, and leave the other cells as they are. The cell below a task
# tests it; more tests are run when your work is marked, and they take any right solution. To run
# the tests of one task alone, save the notebook, and then `pytest lab1_recursion.ipynb -m task1`.

# %% setup=imports
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

# %% include=checks

# %% [markdown]
# ## The problem
#
# The lower level is the quadratic $g(w, \lambda) = \tfrac12 (w - C\lambda)^\top G (w - C\lambda)$,
# with $G$ symmetric, $M \times M$, and $C$, $M \times N$. Gradient descent on it starts at
# $w_0 = d + D\lambda$ and takes steps of size $\gamma_t$:
#
# $$w_{t+1} = \Xi_{t+1}(w_t, \lambda) = w_t - \gamma_t \nabla_w g(w_t, \lambda),
# \qquad t = 0, \dots, T - 1.$$
#
# The paper's toy problem is the case $G = \mathrm{diag}(1, \tfrac12)$, $C = I$, $D = 0$,
# $d = (2, 2)$, $\gamma_t = 0.1$ and $T = 100$. The other one, `twisted`, has nothing that hides a
# mistake: all its matrices are full, $N \ne M$, its step sizes differ, and it starts where
# $\lambda$ says.


# %% setup=problem
@dataclass(frozen=True)
class Lower:
    """The lower level: g's G (M, M) and C (M, N), the start's d (M,) and D (M, N), γ (T,)."""

    G: np.ndarray
    C: np.ndarray
    d: np.ndarray
    D: np.ndarray
    gamma: np.ndarray


def draw(M, N, T, seed=0):
    """Return a lower level with full matrices."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((M, M))
    G = root @ root.T / M + np.eye(M)
    gamma = rng.uniform(0.2, 0.9, T) / np.linalg.norm(G, 2)
    return Lower(
        G, rng.standard_normal((M, N)), rng.standard_normal(M), rng.standard_normal((M, N)), gamma
    )


def transition(p):
    """Return the library's transition for `p`: what your functions are compared with."""
    start = (lambda lam: p.d + p.D @ lam, lambda lam, alpha: p.D.T @ alpha)
    return tb.GradientDescent(tb.Quadratic(p.G, p.C), list(p.gamma), initial=start)


toy = Lower(np.diag([1, 0.5]), np.eye(2), np.full(2, 2.0), np.zeros((2, 2)), np.full(100, 0.1))
twisted = draw(M=4, N=3, T=6)

# %% [markdown]
# ## Task 1: the step
#
# Write $\Xi_{t+1}(w, \lambda)$.


# %% task=1 hole=step
def step(t, w, lam, p):
    """Return w_{t+1} (M,) from w = w_t (M,), λ (N,) and the lower level p."""
    ### BEGIN SOLUTION
    return w - p.gamma[t] * (p.G @ (w - p.C @ lam))
    ### END SOLUTION


# %% task=1 tests=step points=2
def test_step():
    w_1 = step(0, np.array([2.0, 2.0]), np.array([1.0, 1.0]), toy)
    same(
        w_1,
        [1.9, 1.95],
        "w_1 of the toy problem",
        "∇_w g = G (w − C λ), and descent goes against it.",
    )
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng(1)
    for p in (twisted, draw(3, 3, 5, seed=2), draw(2, 5, 4, seed=3)):
        M, N = p.C.shape
        w, lam = rng.standard_normal(M), rng.standard_normal(N)
        copies = w.copy(), lam.copy(), p.d.copy()
        for t in range(len(p.gamma)):
            want = transition(p).step(t, w, lam)
            same(
                step(t, w, lam, p),
                want,
                f"step {t} of a problem with full matrices",
                "Is it γ_t, G and C?",
            )
        unchanged((w, lam, p.d), copies, "step")
        same(
            step(0, p.C @ lam, lam, p),
            p.C @ lam,
            "the step from the minimum C λ",
            "∇_w g is 0 there.",
        )
    ### END HIDDEN TESTS


test_step()

# %% [markdown]
# ## Task 2: derive $A$ and $B$
#
# In the paper's convention $A_{t+1} = \nabla_w \Xi_{t+1}(w_t, \lambda)$ is $M \times M$ and
# $B_{t+1} = \nabla_\lambda \Xi_{t+1}(w_t, \lambda)$ is $N \times M$: row $i$ is the derivative by
# the $i$-th variable, so both are transposed Jacobians. Derive them for the quadratic above, then
# $B_0$, the derivative of $w_0$ by $\lambda$. On what do they depend? On $w_t$? On $t$?

# %% [markdown] task=2 answer=derivation points=4
# ### BEGIN SOLUTION
# With $\nabla_w g = G(w - C\lambda)$ the step is $\Xi = w - \gamma_t G w + \gamma_t G C \lambda$,
# which is affine. Its Jacobians are $I - \gamma_t G$ by $w$ and $\gamma_t G C$ by $\lambda$;
# transposed, $A_{t+1} = I - \gamma_t G$ ($G$ is symmetric) and $B_{t+1} = \gamma_t C^\top G$,
# $N \times M$. $w_0 = d + D\lambda$ gives $B_0 = D^\top$. Neither depends on $w_t$, since $\Xi$ is
# affine; on $t$ only through $\gamma_t$.
# ### END SOLUTION

# %% [markdown]
# ## Task 3: the adjoint
#
# The backward pass never forms a matrix. It needs two products with a vector $\alpha$, at the state
# the step started from: $A_{t+1}\alpha$ and $B_{t+1}\alpha$. Write both.


# %% task=3 hole=vjp
def vjp(t, w, lam, alpha, p):
    """Return A_{t+1} α (M,) and B_{t+1} α (N,), at w = w_t."""
    ### BEGIN SOLUTION
    G_alpha = p.gamma[t] * (p.G @ alpha)
    return alpha - G_alpha, p.C.T @ G_alpha
    ### END SOLUTION


# %% task=3 tests=vjp points=4
def test_vjp():
    A_alpha, B_alpha = vjp(0, np.array([2.0, 2.0]), np.ones(2), np.array([1.0, -1.0]), toy)
    same(A_alpha, [0.9, -0.95], "A α of the toy problem", "How does Ξ change with w?")
    same(
        B_alpha, [0.1, -0.05], "B α of the toy problem", "How does Ξ change with λ? Twice a minus."
    )
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng(4)
    for p in (twisted, draw(3, 3, 5, seed=2), draw(2, 5, 4, seed=3)):
        M, N = p.C.shape
        w, lam, alpha = rng.standard_normal(M), rng.standard_normal(N), rng.standard_normal(M)
        copies = w.copy(), lam.copy(), alpha.copy()
        for t in range(len(p.gamma)):
            A_alpha, B_alpha = vjp(t, w, lam, alpha, p)
            A_want, B_want = transition(p).vjp(t, w, lam, alpha)
            same(
                A_alpha, A_want, f"A α at step {t}", "A = I − γ_t G, with the γ of this very step."
            )
            same(B_alpha, B_want, f"B α at step {t}", "B is N × M: which of C and Cᵀ has N rows?")
        unchanged((w, lam, alpha), copies, "vjp")
    ### END HIDDEN TESTS


test_vjp()

# %% [markdown]
# ## Task 4: the dot test
#
# The toy problem forgives a lot: its $C$ is the identity and its $G$ is diagonal, so a forgotten
# transposition goes unseen there. So write a test that sees it. For any directions $\dot w$,
# $\dot\lambda$ and $\alpha$,
#
# $$\langle \dot w A, \alpha\rangle = \langle \dot w, A\alpha\rangle
# \qquad\text{and}\qquad
# \langle \dot\lambda B, \alpha\rangle = \langle \dot\lambda, B\alpha\rangle.$$
#
# The left sides need no adjoint: $\dot w A$ is the derivative of the step along $\dot w$, and a
# central difference gives it,
#
# $$\dot w A \approx
# \bigl(\Xi(w + \varepsilon\dot w) - \Xi(w - \varepsilon\dot w)\bigr) / 2\varepsilon.$$
#
# Draw the three directions at random, dense and independent of each other, and return both errors
# relative to the size of what is compared: about $10^{-10}$ where the adjoint is right, and about 1
# where it is wrong. That there are two numbers says *where*.


# %% task=4 hole=dot_test
def dot_test(step, vjp, w, lam, seed=0, eps=1e-4):
    """Return the relative errors of A α and of B α, two numbers that are not negative.

    step(w, lam) is one step; vjp(w, lam, alpha) returns A α and B α, right or wrong.
    """
    ### BEGIN SOLUTION
    rng = np.random.default_rng(seed)
    dw, dlam = rng.standard_normal(w.shape), rng.standard_normal(lam.shape)
    alpha = rng.standard_normal(w.shape)
    A_alpha, B_alpha = vjp(w, lam, alpha)
    along_w = (step(w + eps * dw, lam) - step(w - eps * dw, lam)) / (2 * eps)
    along_lam = (step(w, lam + eps * dlam) - step(w, lam - eps * dlam)) / (2 * eps)

    def error(forward, back):
        return abs(forward - back) / max(abs(forward), abs(back), 1e-300)

    return error(along_w @ alpha, dw @ A_alpha), error(along_lam @ alpha, dlam @ B_alpha)
    ### END SOLUTION


# %% task=4 tests=dot_test points=4
def test_dot_test():
    w, lam = np.array([0.3, -1.2, 0.8, 2.0]), np.array([1.0, -0.5, 0.4])
    right = transition(twisted)
    errors = dot_test(
        lambda w, lam: right.step(1, w, lam),
        lambda w, lam, alpha: right.vjp(1, w, lam, alpha),
        w,
        lam,
    )
    assert max(errors) < 1e-6, f"the library's adjoint is right, and your test says {errors}"
    errors = dot_test(
        lambda w, lam: right.step(1, w, lam), lambda w, lam, alpha: (alpha, 0 * lam), w, lam
    )
    assert min(errors) > 1e-3, f"α and 0 are wrong products, and your test says {errors}"
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng(5)
    A, B = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
    w, lam = rng.standard_normal(4), rng.standard_normal(4)

    def curved(w, lam):
        return A.T @ np.sin(w) + B.T @ lam

    def slopes(w, lam, alpha):
        return np.cos(w) * (A @ alpha), B @ alpha

    saboteurs = {
        "a right adjoint": (slopes, False, False),
        "a wrong sign of B": (lambda w, lam, a: (slopes(w, lam, a)[0], -B @ a), False, True),
        "a wrong sign of A": (lambda w, lam, a: (-slopes(w, lam, a)[0], B @ a), True, False),
        "A transposed": (lambda w, lam, a: (A.T @ (np.cos(w) * a), B @ a), True, False),
        "B transposed": (lambda w, lam, a: (slopes(w, lam, a)[0], B.T @ a), False, True),
        "B twice as large": (lambda w, lam, a: (slopes(w, lam, a)[0], 2 * B @ a), False, True),
    }
    for name, (adjoint, A_wrong, B_wrong) in saboteurs.items():
        for seed in range(5):
            errors = np.asarray(dot_test(curved, adjoint, w, lam, seed=seed), dtype=float)
            assert errors.shape == (2,), (
                f"two errors are asked for, of A α and of B α, not {errors}"
            )
            for error, wrong, product in zip(errors, (A_wrong, B_wrong), "AB", strict=True):
                said = "right" if error < 1e-6 else "wrong"
                assert (error > 1e-6) == wrong, (
                    f"given {name}, your test calls {product} α {said}, with an error of "
                    f"{error:.1e}. Are the three directions independent? With α = ẇ a transposed "
                    "matrix looks right. Is the error an absolute value? Does each product have "
                    "its own difference?"
                )
    ### END HIDDEN TESTS


test_dot_test()

# %% [markdown]
# Now ask it about your own adjoint. Break a sign in `vjp`, run this again, and look which of the
# two numbers says so; then put it back.

# %%
rng = np.random.default_rng(6)
for name, p in (("toy", toy), ("twisted", twisted)):
    M, N = p.C.shape
    errors = dot_test(
        lambda w, lam, p=p: step(1, w, lam, p),
        lambda w, lam, alpha, p=p: vjp(1, w, lam, alpha, p),
        rng.standard_normal(M),
        rng.standard_normal(N),
    )
    print(f"{name:>8}: error of A α {errors[0]:.1e}, of B α {errors[1]:.1e}")

# %% [markdown]
# ## Task 5: the recursion
#
# Eq. (6) in ten lines:
#
# $$\alpha_T = \nabla_w f,\quad h_T = \nabla_\lambda f,\qquad
# h_{t-1} = h_t + B_t\alpha_t,\quad \alpha_{t-1} = A_t\alpha_t,\qquad t = T, \dots, 0.$$
#
# Mind the index: $A_t$ and $B_t$ belong to the step *to* $w_t$, so they are taken at $w_{t-1}$; the
# code's `vjp(t, w_t, α)` is $A_{t+1}\alpha$ and $B_{t+1}\alpha$. And the sum ends with
# $B_0\alpha_0$, the part of $\lambda$ that comes through the start: $d_\lambda f = h_{-1}$.


# %% task=5 hole=backward
def backward(vjp, initial_vjp, states, alpha, h):
    """Return the lists [α_T, …, α_0] and [h_T, …, h_0, h_{−1}].

    vjp(t, w, alpha) returns A_{t+1} α and B_{t+1} α at w = w_t; initial_vjp(alpha) returns B_0 α;
    states is [w_0, …, w_T]; alpha and h are α_T and h_T.
    """
    ### BEGIN SOLUTION
    T = len(states) - 1
    alphas, hs = [alpha], [h]
    for t in range(T - 1, -1, -1):
        A_alpha, B_alpha = vjp(t, states[t], alphas[-1])
        hs.append(hs[-1] + B_alpha)
        alphas.append(A_alpha)
    hs.append(hs[-1] + initial_vjp(alphas[-1]))
    return alphas, hs
    ### END SOLUTION


# %% task=5 tests=backward points=5
def test_backward():
    # w_{t+1} = λ w_t, so w_2 = λ² w_0. With w_0 = 1 and f = w_2, df/dλ = 2 λ = 6 at λ = 3.
    alphas, hs = backward(
        lambda t, w, alpha: (3.0 * alpha, w * alpha),
        lambda alpha: 0.0 * alpha,
        [np.array([1.0]), np.array([3.0]), np.array([9.0])],
        np.array([1.0]),
        np.array([0.0]),
    )
    same(np.ravel(alphas), [1, 3, 9], "[α_2, α_1, α_0]", "α_{t−1} = A_t α_t.")
    same(
        np.ravel(hs),
        [0, 3, 6, 6],
        "[h_2, h_1, h_0, h_{−1}]",
        "h_{t−1} = h_t + B_t α_t, with α_t before it is moved on, and B_t taken at w_{t−1}.",
    )
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng(7)
    for p in (twisted, draw(3, 3, 5, seed=2), draw(2, 5, 1, seed=3)):
        T, (M, N) = len(p.gamma), p.C.shape
        lam, target, pull = rng.standard_normal(N), rng.standard_normal(M), rng.standard_normal(N)
        plain = transition(p)
        # A step that bends and that knows its t, so that the wrong state and the wrong t are seen.
        bent = tb.Transition.from_functions(
            lambda t, w, lam, plain=plain: np.sin(plain.step(t, w, lam)),
            lambda t, w, lam, alpha, plain=plain: plain.vjp(
                t, w, lam, np.cos(plain.step(t, w, lam)) * alpha
            ),
            initial=(lambda lam, p=p: p.d + p.D @ lam, lambda lam, alpha, p=p: p.D.T @ alpha),
        )
        upper = tb.Objective.from_functions(
            value=lambda w, lam, a=target, b=pull: a @ w + b @ lam,
            grad=lambda w, lam, a=target: a,
            grad_lam=lambda w, lam, b=pull: b,
        )
        *want, exact = tb.RMD().truncations(tb.BilevelProblem(bent, upper, T), lam)
        states = [bent.initial(lam)]
        for t in range(T):
            states.append(bent.step(t, states[-1], lam))
        alpha_T, h_T = target.copy(), pull.copy()
        alphas, hs = backward(
            lambda t, w, alpha, bent=bent, lam=lam: bent.vjp(t, w, lam, alpha),
            lambda alpha, bent=bent, lam=lam: bent.initial_vjp(lam, alpha),
            states,
            alpha_T,
            h_T,
        )
        unchanged((alpha_T, h_T), (target, pull), "backward")
        assert len(alphas) == T + 1, f"α_T … α_0 are {T + 1} vectors, got {len(alphas)}"
        assert len(hs) == T + 2, (
            f"h_T … h_0 and h_(−1) are {T + 2} vectors, got {len(hs)}: is B_0 in?"
        )
        same(
            hs[0],
            want[0],
            "h_T",
            "Is it the same array as a later h? Append h + B α, not h += B α.",
        )
        same(hs[-2], want[-1], "h_0", "At which state, and with which t, is each product taken?")
        same(hs, [*want, exact], "[h_T, …, h_{−1}]", "The last one is h_0 + B_0 α_0.")
        norms = tb.RMD()(tb.BilevelProblem(bent, upper, T), lam).alpha_norms
        same(
            [np.linalg.norm(a) for a in alphas],
            norms,
            "[‖α_T‖, …, ‖α_0‖]",
            "Is it α_{t−1} = A_t α_t?",
        )
    ### END HIDDEN TESTS


test_backward()

# %% [markdown]
# ## Does it agree with the engine?
#
# On the toy problem the upper level is $f(w) = \|w\|^2 + 10\|\sin w\|^2$. Your three functions give
# the hypergradient; `tb.RMD()` gives it too. Then the engine takes *your* step and adjoint, and its
# checker tells what it makes of them.


# %%
def run(p, lam):
    """Return the states [w_0, …, w_T]."""
    states = [p.d + p.D @ lam]
    for t in range(len(p.gamma)):
        states.append(step(t, states[-1], lam, p))
    return states


lam = np.array([1.0, 1.0])
states = run(toy, lam)
upper = tb.problems.toy().upper
alphas, hs = backward(
    lambda t, w, alpha: vjp(t, w, lam, alpha, toy),
    lambda alpha: toy.D.T @ alpha,
    states,
    upper.grad(states[-1], lam),
    upper.grad_lam(states[-1], lam),
)
print("by hand:   ", hs[-1])
print("the engine:", tb.RMD()(tb.problems.toy(), lam).grad)

mine = tb.Transition.from_functions(
    lambda t, w, lam: step(t, w, lam, twisted),
    lambda t, w, lam, alpha: vjp(t, w, lam, alpha, twisted),
    initial=(lambda lam: twisted.d + twisted.D @ lam, lambda lam, alpha: twisted.D.T @ alpha),
)
tb.testing.assert_transition_adjoints(mine, np.ones(4), np.ones(3))
print("and its checker finds nothing wrong with your step and adjoint.")

# %% [markdown]
# ## Watch $\alpha$ and $h$ travel back
#
# $\alpha_t$ says how much $f$ would change if $w_t$ did; it shrinks as it goes back, because each
# step forgets a part of where it started. $h_t$ gathers what $\lambda$ has done from step $t$ on.

# %%
T = len(toy.gamma)
print("   t   |α_t|, by coordinate    h_t")
for k in (0, 1, 2, 3, 5, 10, 20, 50, 100):
    print(f"{T - k:>4}   {np.abs(alphas[k])}   {hs[k]}")

with tb.plotting.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
times = np.arange(T, -1, -1)
left.semilogy(times, np.abs(alphas), label=["first coordinate", "second coordinate"])
left.set(xlabel="t, from T back", title="|α_t|", xlim=(T, 0))
left.legend()
right.plot(times, hs[:-1], label=["first coordinate", "second coordinate"])
right.plot(times, np.tile(hs[-1], (T + 1, 1)), "k:", linewidth=1)
right.set(xlabel="t, from T back", title="h_t, and d_λ f (dotted)", xlim=(T, 0))
right.legend()
plt.show()

# %% [markdown]
# The engine shows the same pass, in norms: `method.trace` gives its rows, and `tb.plotting.trace`
# draws them.

# %%
trace = tb.RMD().trace(tb.problems.toy(), lam)
tb.plotting.trace(trace)
plt.show()
trace

# %% [markdown]
# ## Task 6: stop early
#
# Most of $h$ is gathered in the last few steps, so why go on? $K$-RMD, eq. (8), stops at $h_{T-K}$:
# it takes $K$ products with $B$, and so it needs no more than the $K$ states they are taken at,
# $w_{T-K}, \dots, w_{T-1}$. With $K = 0$ that is $\nabla_\lambda f$; with $K = T$ it is $h_0$,
# which still leaves out $B_0\alpha_0$.


# %% task=6 hole=truncated
def truncated(vjp, last_states, T, alpha, h):
    """Return h_{T−K}, where last_states is [w_{T−K}, …, w_{T−1}]: K is how many there are.

    vjp, alpha and h are as in backward.
    """
    ### BEGIN SOLUTION
    for t, w in zip(range(T - 1, -1, -1), reversed(last_states), strict=False):
        alpha, B_alpha = vjp(t, w, alpha)
        h = h + B_alpha
    return h
    ### END SOLUTION


# %% task=6 tests=truncated points=4
def test_truncated():
    triple = {"vjp": lambda t, w, alpha: (3.0 * alpha, w * alpha), "T": 2}
    ends = {"alpha": np.array([1.0]), "h": np.array([0.0])}
    same(
        truncated(last_states=[], **triple, **ends), [0], "h_{T−0}", "K = 0 takes no product: h_T."
    )
    last = [np.array([3.0])]
    same(truncated(last_states=last, **triple, **ends), [3], "h_{T−1}", "K = 1 is h_T + B_T α_T.")
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng(8)
    p = draw(3, 3, 7, seed=9)
    T, lam = len(p.gamma), rng.standard_normal(3)
    plain, alpha_T, h_T = transition(p), rng.standard_normal(3), rng.standard_normal(3)
    bent = tb.Transition.from_functions(
        lambda t, w, lam: np.sin(plain.step(t, w, lam)),
        lambda t, w, lam, alpha: plain.vjp(t, w, lam, np.cos(plain.step(t, w, lam)) * alpha),
        initial=p.d,
    )
    upper = tb.Objective.from_functions(
        value=lambda w, lam: alpha_T @ w + h_T @ lam,
        grad=lambda w, lam: alpha_T,
        grad_lam=lambda w, lam: h_T,
    )
    states = [bent.initial(lam)]
    for t in range(T):
        states.append(bent.step(t, states[-1], lam))
    seen = []

    def watched(t, w, alpha):
        seen.append(t)
        return bent.vjp(t, w, lam, alpha)

    for K in range(T + 1):
        seen.clear()
        copies = alpha_T.copy(), h_T.copy()
        got = truncated(watched, states[T - K : T], T, alpha_T, h_T)
        unchanged((alpha_T, h_T), copies, "truncated")
        steps = list(range(T - 1, T - K - 1, -1))
        assert sorted(seen) == sorted(steps), (
            f"with K = {K} the products belong to t = {steps}, and yours were taken at t = {seen}. "
            "K counts the products with B, and the first of them is at t = T − 1."
        )
        want = tb.KRMD(K=K)(tb.BilevelProblem(bent, upper, T), lam).grad
        same(got, want, f"h_(T−{K})", "Does each product get its own state, the last one first?")
    ### END HIDDEN TESTS


test_truncated()

# %% [markdown]
# How good is it? The error falls by much the same factor at each step, as Proposition 3.1 says.

# %%
errors = []
for K in range(T):
    h = truncated(
        lambda t, w, alpha: vjp(t, w, lam, alpha, toy), states[T - K : T], T, alphas[0], hs[0]
    )
    errors.append(np.linalg.norm(h - hs[-1]))
tb.plotting.truncation_error(errors)
plt.show()

# %% [markdown]
# ## Task 7: read the pictures
#
# 1. By what factor does each coordinate of $\alpha_t$ shrink at a step back? Read it off the
#    picture, and say what it has to do with $G$.
# 2. Which coordinate of $h$ settles later, and why?
# 3. On the toy problem `KRMD(K=100)` and `RMD()` return the same. Why? And on `twisted`?

# %% [markdown] task=7 answer=pictures points=3
# ### BEGIN SOLUTION
# 1. $A = I - \gamma G = \mathrm{diag}(0.9, 0.95)$: the first coordinate shrinks by 0.9 at a step,
#    the second by 0.95.
# 2. The second. Its curvature is ½, so $\alpha$ decays more slowly there, and what early steps have
#    contributed counts for longer.
# 3. $B_0 = 0$ on the toy problem: $w_0 = (2, 2)$ whatever $\lambda$ is. On `twisted`
#    $B_0 = D^\top \ne 0$, and $h_0$ leaves out $B_0\alpha_0$.
# ### END SOLUTION
