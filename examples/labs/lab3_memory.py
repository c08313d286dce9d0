# %% [markdown]
# # Lab 3: Memory against time
#
# The backward pass visits the states in the order $w_{T-1}, \dots, w_0$, in which the forward pass
# did not make them. Keep all of them, keep a few and run parts of the forward pass again, or turn
# the whole thing round and go forward: each pays in another coin. Here you say what each costs,
# write it, and measure.
#
# **You will** fill in Table 1 with numbers in place of $O(\cdot)$; write a ring buffer, checkpoints
# every $\sqrt T$ steps and forward mode; find the fewest steps that a given number of slots allows;
# and measure bytes and seconds.
#
# **Read before:** Section 2.2 of Shaban, Cheng, Hatch and Boots, *Truncated Back-propagation for
# Bilevel Optimization* (AISTATS 2019): eq. (4), eq. (6), eq. (7), Table 1, and the remark after eq.
# (8). For binomial checkpointing: Griewank and Walther, *Algorithm 799: revolve* (2000), Section 2.
#
# **Time:** 100 minutes. **Needed:** NumPy, Matplotlib and tinybilevel.
#
# Write where it says `YOUR CODE HERE`, and leave the other cells as they are. The cell below a task
# tests it; more tests are run when your work is marked, and they take any right solution. To run
# the tests of one task alone, save the notebook, and then `pytest lab3_memory.ipynb -m task1`.

# %% setup=imports
import math
import time
import tracemalloc
from functools import cache

import matplotlib.pyplot as plt
import numpy as np

import tinybilevel as tb

# %% include=checks

# %% [markdown]
# ## Task 1: Table 1 in numbers
#
# For a horizon $T$, $N$ hyperparameters and depth $K \ge 1$, say for each of `"RMD"`, `"FMD"` and
# `"K-RMD"`
#
# - the **transitions**: how often $\Xi_t$, $t \ge 1$, is evaluated;
# - the **products**: how often a vector is multiplied by $A_t$ and $B_t$. One pair counts once, and
#   so does $B_0$ by itself; forward mode takes one for each row of $Z$ at each step of eq. (7),
#   $Z_0 = B_0$ included;
# - the **vectors** of $M$ numbers that are held: the states that the backward pass needs, with
#   $w_T$; in forward mode $Z$, and an old and a new $w$.


# %% task=1 hole=table
def table(T, N, K):
    """Return a dict: name → (transitions, products, vectors)."""
    ### BEGIN SOLUTION
    return {
        "RMD": (T, T + 1, T + 1),
        "FMD": (T, N * (T + 1), N + 2),
        "K-RMD": (T, K, K + 1),
    }
    ### END SOLUTION


# %% task=1 tests=table points=3
def test_table():
    rows = table(100, 2, 5)
    assert set(rows) == {"RMD", "FMD", "K-RMD"}, f"three rows, by the names above, got {set(rows)}"
    same(rows["K-RMD"], (100, 5, 6), "the row of K-RMD", "The forward pass runs in full.")
    ### BEGIN HIDDEN TESTS
    for T, N, K in ((100, 2, 5), (7, 3, 7), (12, 5, 1)):
        G, C = np.ones(4), np.ones((4, N))
        start = (lambda lam: np.ones(4), lambda lam, alpha: 0 * lam)
        problem = tb.BilevelProblem(
            tb.GradientDescent(tb.Quadratic(G, C), 0.1, initial=start), tb.Quadratic(G, C), T
        )
        for name, method in (("RMD", tb.RMD()), ("FMD", tb.FMD()), ("K-RMD", tb.KRMD(K=K))):
            cost = method.cost(problem, np.ones(N))
            want = cost.transitions, cost.products, cost.bytes / (4 * 8)
            hint = "Is B_0 counted, w_T held, and does K count the products with B?"
            same(
                table(T, N, K)[name], want, f"the row of {name} for T = {T}, N = {N}, K = {K}", hint
            )
    ### END HIDDEN TESTS


test_table()

# %% [markdown]
# ## What a storage is
#
# The recursion of Lab 1 takes pairs $(t, w_t)$, the newest first, and does not ask where they come
# from. A *storage* runs the forward pass and returns $w_T$ together with an iterator over these
# pairs. It may call `step(t, w)`, which counts, and it should hold few states.


# %% setup=counter
class Counted:
    """A step that bends, differs from t to t, and counts its calls."""

    def __init__(self, M, seed=0):
        self.calls = 0
        self.start = np.random.default_rng(seed).standard_normal(M)

    def __call__(self, t, w):
        self.calls += 1
        return np.cos(w + 0.1 * t) + 0.3 * w

    def states(self, T):
        """Return w_0, …, w_T."""
        out = [self.start.copy()]
        for t in range(T):
            out.append(np.cos(out[-1] + 0.1 * t) + 0.3 * out[-1])
        return out


def examined(storage, T, M, *args):
    """Run a storage over T steps; return w_T, its pairs, its steps and the states held at most."""
    step = Counted(M)
    gone, start = [], step.start
    tracemalloc.start()
    w_T, pairs = storage(step, start, T, *args)
    w_T = w_T.copy()
    for t, w in pairs:
        # A number tells a state from another and, unlike a copy of it, takes no room.
        gone.append((t, float(w.sum()), float(w[-1])))
    held = tracemalloc.get_traced_memory()[1] / (8 * M)
    tracemalloc.stop()
    return w_T, gone, step.calls, held


def check_pairs(storage, T, M, K, *args):
    """Check what a storage returns; return the steps it took and the states it held."""
    w_T, gone, calls, held = examined(storage, T, M, *args)
    states = Counted(M).states(T)
    name = f"{storage.__name__}, T = {T}"
    same(w_T, states[T], f"w_T of {name}", "All T steps are to be run, t = 0 … T − 1.")
    times = [t for t, *_ in gone]
    want = list(range(T - 1, T - K - 1, -1))
    assert times == want, f"{name}: the pairs must have t = {want}, the newest first, got {times}"
    for t, total, last in gone:
        same(
            (total, last),
            (states[t].sum(), states[t][-1]),
            f"the state that {name} hands out with t = {t}",
            "Is it w_t, the one that step t starts from? Was its place overwritten meanwhile?",
        )
    return calls, held


# %% [markdown]
# ## Task 2: a ring buffer
#
# $K$-RMD needs the last $K$ states, and $w_T$. Allocate $K + 1$ rows once, write each new state
# over the oldest, and hand out the last $K$ afterwards. Return $w_T$ and an iterable over
# $(t, w_t)$, $t = T-1, \dots, T-K$. With $K = T$ this is plain reverse mode.


# %% task=2 hole=ring
def ring(step, w0, T, K):
    """Return w_T and the pairs (t, w_t), t = T−1 … T−K, holding K + 1 states."""
    ### BEGIN SOLUTION
    size = K + 1
    rows = np.empty((size, len(w0)))
    rows[0] = w0
    for t in range(T):
        rows[(t + 1) % size] = step(t, rows[t % size])
    return rows[T % size], ((t, rows[t % size]) for t in range(T - 1, T - K - 1, -1))
    ### END SOLUTION


# %% task=2 tests=ring points=4
def test_ring():
    calls, _ = check_pairs(ring, 6, 3, 2, 2)
    assert calls == 6, f"six steps are enough for T = 6, and you took {calls}"
    ### BEGIN HIDDEN TESTS
    for T, K in ((6, 6), (6, 1), (7, 3), (5, 0), (1, 1)):
        calls, _ = check_pairs(ring, T, 3, K, K)
        assert calls == T, f"{T} steps are enough for T = {T}, and you took {calls}"
    _, held = check_pairs(ring, 60, 20_000, 4, 4)
    assert held < 4 + 1 + 6, f"K = 4 needs five states and some room to compute, not {held:.0f}"
    ### END HIDDEN TESTS


test_ring()

# %% [markdown]
# ## Task 3: checkpoints
#
# Keep only $w_0, w_s, w_{2s}, \dots$ on the way forward. On the way back, take the newest
# checkpoint, run its segment of at most $s$ steps again while keeping the states of this one
# segment, hand them out, the newest first, and go on to the checkpoint before it. Write it for any
# $s$, also one that does not divide $T$.


# %% task=3 hole=checkpointed
def checkpointed(step, w0, T, s):
    """Return w_T and the pairs (t, w_t), t = T−1 … 0, holding about T/s + s states."""
    ### BEGIN SOLUTION
    saved, w = {}, w0
    for t in range(T):
        if t % s == 0:
            saved[t] = w
        w = step(t, w)

    def pairs():
        for start in sorted(saved, reverse=True):
            segment = [saved[start]]
            for t in range(start, min(start + s, T) - 1):
                segment.append(step(t, segment[-1]))
            for k in range(len(segment) - 1, -1, -1):
                yield start + k, segment[k]

    return w, pairs()
    ### END SOLUTION


# %% task=3 tests=checkpointed points=5
def test_checkpointed():
    calls, _ = check_pairs(checkpointed, 6, 3, 6, 2)
    assert calls <= 12, f"at most two forward passes, 12 steps for T = 6, and you took {calls}"
    ### BEGIN HIDDEN TESTS
    for T, s in ((7, 3), (10, 4), (5, 1), (5, 5), (4, 9), (1, 1)):
        calls, _ = check_pairs(checkpointed, T, 3, T, s)
        assert calls <= 2 * T, (
            f"at most two forward passes, {2 * T} steps for T = {T} and s = {s}, and you took "
            f"{calls}: does each segment begin at its own checkpoint?"
        )
    _, held = check_pairs(checkpointed, 64, 20_000, 64, 8)
    assert held < 16 + 18, (
        f"T = 64 and s = 8 need 16 states and some room to compute, and you held {held:.0f}: is "
        "only one segment kept at a time?"
    )
    ### END HIDDEN TESTS


test_checkpointed()

# %% [markdown]
# ## Task 4: which s?
#
# Checkpoints and one segment are $\lceil T/s \rceil + s$ states. Return an $s$ for which that is
# least.


# %% task=4 hole=best_s
def best_s(T):
    """Return an s from 1 … T that makes ⌈T/s⌉ + s least."""
    ### BEGIN SOLUTION
    return math.isqrt(T - 1) + 1  # ⌈√T⌉
    ### END SOLUTION


# %% task=4 tests=best_s points=2
def test_best_s():
    s = best_s(100)
    assert s == 10, f"for T = 100 it is s = 10, and got {s}"
    ### BEGIN HIDDEN TESTS
    for T in (1, 2, 3, 5, 17, 50, 99, 101, 1000):
        s = best_s(T)
        least = min(-(-T // k) + k for k in range(1, T + 1))
        assert int(s) == s, f"s is a whole number, and got {s} for T = {T}"
        assert 1 <= s <= T, f"s lies in 1 … T, and got {s} for T = {T}"
        assert -(-T // int(s)) + s == least, f"s = {s} holds more than {least} states for T = {T}"
    ### END HIDDEN TESTS


test_best_s()

# %% [markdown]
# ## Task 5: as few steps as can be
#
# With $s$ slots for states, how few transitions does it take to visit $w_{l-1}, \dots, w_0$,
# beginning with $w_0$ in a slot? Call it $t(l, s)$. One state needs none: $t(1, s) = 0$. With one
# slot, each state is run up to from $w_0$: $t(l, 1) = (l - 1) + \dots + 1$. Otherwise one runs $k$
# steps, fills a second slot with $w_k$, visits the $l - k$ states from there with one slot less,
# gives that slot back and visits the first $k$:
#
# $$t(l, s) = \min_{0 < k < l}\; k + t(l - k, s - 1) + t(k, s).$$
#
# Write it as a recursion; `@cache` remembers what was computed.


# %% task=5 hole=fewest
@cache
def fewest(length, slots):
    """Return t(l, s), the fewest transitions to visit l states from the last to the first."""
    ### BEGIN SOLUTION
    if length == 1:
        return 0
    if slots == 1:
        return length * (length - 1) // 2
    return min(k + fewest(length - k, slots - 1) + fewest(k, slots) for k in range(1, length))
    ### END SOLUTION


# %% task=5 tests=fewest points=3
def test_fewest():
    assert fewest(1, 3) == 0, "one state, which is in its slot, takes no step"
    assert fewest(4, 1) == 6, f"with one slot, 3 + 2 + 1 steps lead to four states: {fewest(4, 1)}"
    assert fewest(3, 2) == 2, f"two slots visit three states in 2 steps, and not {fewest(3, 2)}"
    ### BEGIN HIDDEN TESTS
    upper = tb.Quadratic(np.ones(1))
    for T in (2, 5, 9, 20, 33):
        problem = tb.BilevelProblem(tb.GradientDescent(upper, 0.1, initial=[1.0]), upper, T)
        for slots in (1, 2, 3, 6, 40):
            # The engine takes one step more, from w_{T−1} to w_T.
            want = tb.RMD(tb.Binomial(slots=slots)).cost(problem, [1.0]).transitions - 1
            assert fewest(T, slots) == want, (
                f"t({T}, {slots}) is {want}, and you have {fewest(T, slots)}. Are the k steps to "
                "the second slot counted, and is that slot free again for the first k states?"
            )
    ### END HIDDEN TESTS


test_fewest()

# %%
print("T = 100:  slots   transitions, the 99 of the forward pass among them")
for slots in (1, 2, 3, 5, 10, 20, 100):
    print(f"          {slots:>5}   {fewest(100, slots):>5}")

# %% [markdown]
# Griewank and Walther give it in closed form: with $r$ sweeps and $s$ slots one gets as far back as
# $\binom{s + r}{s}$ steps. That is why ten slots go a long way. `tb.Binomial(slots=…)` runs that
# schedule.

# %% [markdown]
# ## Task 6: forward mode
#
# Eq. (7) needs no history: $Z_0 = B_0$, $Z_{t+1} = Z_t A_{t+1} + B_{t+1}$, and in the end
# $d_\lambda f = Z_T \nabla_w f + \nabla_\lambda f$. Its row $i$ is the derivative of $w_t$ by
# $\lambda_i$. Write it with `transition.jvp(t, w, lam, dw, dlam)`, which is
# $\dot w A_{t+1} + \dot\lambda B_{t+1}$ at $w = w_t$, and `transition.initial_jvp(lam, dlam)`,
# which is $\dot\lambda B_0$.


# %% task=6 hole=forward
def forward(transition, lam, T):
    """Return w_T (M,) and Z_T (N, M)."""
    ### BEGIN SOLUTION
    units = np.eye(len(lam))
    w = transition.initial(lam)
    Z = np.array([transition.initial_jvp(lam, unit) for unit in units])
    for t in range(T):
        Z = np.array([transition.jvp(t, w, lam, *pair) for pair in zip(Z, units, strict=True)])
        w = transition.step(t, w, lam)
    return w, Z
    ### END SOLUTION


# %% task=6 tests=forward points=4
def test_forward():
    descent = tb.GradientDescent(tb.Quadratic([1.0, 0.5]), 0.1, initial=[2.0, 2.0])
    w, Z = forward(descent, np.array([1.0, 1.0]), 100)
    hint = "On the toy problem Z_T = I − (I − γG)^T."
    same(Z, np.diag(1 - np.array([0.9, 0.95]) ** 100), "Z_T of the toy problem", hint)
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng(3)
    for M, N, T in ((3, 2, 4), (2, 4, 6), (3, 3, 1)):
        P, Q, D = (rng.standard_normal(n) for n in ((M, M), (M, N), (M, N)))
        bent = tb.Transition.from_functions(
            lambda t, w, lam, P=P, Q=Q: np.sin((1 + t) * P @ w + Q @ lam),
            lambda t, w, lam, a, P=P, Q=Q: (
                (1 + t) * P.T @ (np.cos((1 + t) * P @ w + Q @ lam) * a),
                Q.T @ (np.cos((1 + t) * P @ w + Q @ lam) * a),
            ),
            lambda t, w, lam, dw, dlam, P=P, Q=Q: (
                np.cos((1 + t) * P @ w + Q @ lam) * ((1 + t) * P @ dw + Q @ dlam)
            ),
            initial=(lambda lam, D=D: D @ lam, lambda lam, a, D=D: D.T @ a),
        )
        lam = rng.standard_normal(N)
        w, Z = forward(bent, lam, T)
        columns = []
        for unit in np.eye(M):
            along = tb.Objective.from_functions(
                value=lambda w, lam, u=unit: float(u @ w), grad=lambda w, lam, u=unit: u
            )
            r = tb.RMD()(tb.BilevelProblem(bent, along, T), lam)
            columns.append(r.grad)
        same(w, r.w, "w_T", "All T steps are to be run.")
        hint = (
            "Row i belongs to λ_i. Is Z_0 = B_0, and is each product taken at w_t, before the step?"
        )
        same(Z, np.array(columns).T, f"Z_T for M = {M}, N = {N}", hint)
    ### END HIDDEN TESTS


test_forward()

# %% [markdown]
# ## Measure
#
# A quadratic with $M = 10\,000$ and $N = 10$, and $T = 100$. First what the engine predicts, then
# what `tracemalloc` and the clock say. How far is each from the numbers of tasks 1 to 5?

# %%
M, N, T = 10_000, 10, 100
rng = np.random.default_rng(0)
lower = tb.Quadratic(rng.uniform(0.5, 1, M), rng.standard_normal((M, N)))
half = tb.Objective.from_functions(value=lambda w, lam: w @ w / 2, grad=lambda w, lam: w)
large = tb.BilevelProblem(tb.GradientDescent(lower, 0.5, initial=np.zeros(M)), half, T)
lam = np.ones(N)
methods = {
    "RMD, ring": tb.RMD(),
    "RMD, √T": tb.RMD(tb.Checkpoint()),
    "RMD, 10 slots": tb.RMD(tb.Binomial(slots=10)),
    "RMD, 3 slots": tb.RMD(tb.Binomial(slots=3)),
    "FMD": tb.FMD(),
    "K-RMD, K = 5": tb.KRMD(K=5),
}
predicted, measured = {}, {}
print("                transitions  products   MB predicted   MB measured   seconds")
for name, method in methods.items():
    cost = predicted[name] = method.cost(large, lam)
    begin = time.perf_counter()
    method(large, lam)
    seconds = time.perf_counter() - begin
    tracemalloc.start()
    method(large, lam)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    measured[name] = seconds, peak
    print(
        f"{name:<14} {cost.transitions:>12} {cost.products:>9} {cost.bytes / 1e6:>14.1f}"
        f"{peak / 1e6:>14.1f} {seconds:>9.3f}"
    )

# %%
with tb.plotting.style():
    _, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
tb.plotting.memory_time(predicted, ax=left).set_title("predicted")
tb.plotting.memory_time(measured, ax=right).set_title("measured")
right.xaxis.set_minor_formatter(plt.NullFormatter())
plt.show()

# %% [markdown]
# And your own storages do the same job. The three hypergradients are one and the same:


# %%
def hypergradient(storage, *args):
    """Return d_λ f by the recursion, fed by a storage."""
    w_T, pairs = storage(lambda t, w: large.transition.step(t, w, lam), np.zeros(M), T, *args)
    alpha, h = half.grad(w_T, lam), np.zeros(N)
    for t, w in pairs:
        alpha, B_alpha = large.transition.vjp(t, w, lam, alpha)
        h = h + B_alpha
    return h


for storage, *args in ((ring, T), (checkpointed, best_s(T))):
    print(f"{storage.__name__:<13}", hypergradient(storage, *args)[:3])
w_T, Z = forward(large.transition, lam, T)
print(f"{'forward':<13}", (Z @ half.grad(w_T, lam))[:3])

# %% [markdown]
# ## Task 7: choose
#
# 1. Measured bytes are above the predicted ones, by much for $K$-RMD and by little for the ring
#    with $K = T$. Where do they come from?
# 2. $M = 10^7$ numbers of 8 bytes, $T = 1000$, $N = 10^7$ and 4 GB of memory. Which methods are
#    out, and which one would you take for an exact hypergradient? What does it cost beside the
#    forward pass? (`fewest` knows; for a $T$ that large ask
#    `tb.RMD(tb.Binomial(slots=…)).cost(problem)`.)
# 3. When is forward mode the best of all?

# %% [markdown] task=7 answer=choice points=4
# ### BEGIN SOLUTION
# 1. What a step and a product allocate while they run: $w - c(\lambda)$, $\nabla_w g$, $\alpha$,
#    some vectors of $M$ numbers each. They are the same for all methods, so they weigh where few
#    states are held.
# 2. A state is 80 MB, so 50 of them fit. The ring (80 GB) is out, and so is forward mode ($Z$ has
#    $10^{14}$ numbers). Every $\sqrt T$ steps takes $32 + 32$ states, 5 GB, and is out as well.
#    Binomial checkpointing with 40 slots is 3.2 GB and leaves room to compute. It takes 2098
#    transitions: the forward pass and 1.1 times as many again.
# 3. When $N$ is small, against $T$ for memory ($N + 2$ vectors against $T + 1$) and about 1 for
#    time: it costs $N$ products a step where reverse mode takes one. It also gives derivatives at
#    every $t$ as it goes, so that λ can be changed during the run.
# ### END SOLUTION
