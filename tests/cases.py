"""Small seeded objects that every test of a derivative goes through.

Each function builds its cases afresh in one dtype, with read-only inputs, so that a method that
writes into what it was given fails.
"""

from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import tinybilevel as tb


class Case(NamedTuple):
    subject: Any
    w: np.ndarray
    lam: np.ndarray


def frozen(x, dtype=np.float64):
    x = np.array(x, dtype=dtype)
    x.flags.writeable = False
    return x


def normal(seed, *shape, dtype=np.float64):
    return frozen(np.random.default_rng(seed).standard_normal(shape), dtype)


def cosine_value(w, lam):
    return float(np.cos(w - lam).sum())


def cosine_grad(w, lam):
    return -np.sin(w - lam)


def cosine_grad_vjp(w, lam, v):
    return -np.cos(w - lam) * v, np.cos(w - lam) * v


def cosine_grad_jvp(w, lam, dw, dlam):
    return -np.cos(w - lam) * (dw - dlam)


def cosine_grad_lam(w, lam):
    return np.sin(w - lam)


def cosine():
    """Return an objective from plain functions, M = N."""
    return tb.Objective.from_functions(
        value=cosine_value,
        grad=cosine_grad,
        grad_vjp=cosine_grad_vjp,
        grad_jvp=cosine_grad_jvp,
        grad_lam=cosine_grad_lam,
    )


def cosine_of_rows(index=(0, 1, 2)):
    """Return Σ_i over examples of i·cosine/3, which has minibatches."""
    factor = float(np.mean(index))
    g = factor * cosine()
    return tb.Objective.from_functions(
        g.value, g.grad, g.grad_vjp, g.grad_jvp, g.grad_lam, restrict=cosine_of_rows
    )


def total_sine(w, lam):
    return float(np.sin(w).sum())


def cosines(w, lam):
    return np.cos(w)


def cosine_of_state():
    """Return an upper objective of the state alone."""
    return tb.Objective.from_functions(value=total_sine, grad=cosines)


def sparse_softmax(dtype, **options):
    from scipy.sparse import csr_array

    X = csr_array(normal(1, 5, 2, dtype=dtype) * (normal(3, 5, 2) > -0.5).astype(dtype))
    return tb.SoftmaxRegression(X, [0, 1, 2, 0, 1], 3, **options)


def compiled_softmax(dtype):
    if find_spec("numba") is None:
        return {}
    plain = dict(dtype=dtype, backend="numba")
    return {
        "softmax-numba": (softmax(**plain), 6, 5),
        "softmax-numba-unweighted": (softmax(weighted=False, **plain), 6, 2),
        "sum-numba": (softmax(**plain) + 0.1 * tb.L2Penalty(1.0), 6, 5),
    }


def sparse(dtype):
    if find_spec("scipy") is None:  # a machine with a GPU may have little else
        return {}
    loss = sparse_softmax(dtype)
    subjects = {
        "softmax-sparse": (loss, 6, 5),
        "softmax-sparse-batch": (loss.restrict([3, 0, 3]), 6, 5),
    }
    if find_spec("numba") is not None:
        subjects["softmax-numba-sparse"] = (sparse_softmax(dtype, backend="numba"), 6, 5)
    return subjects


def least_squares(dtype=np.float64, **options):
    return tb.LeastSquares(normal(1, 5, 3, dtype=dtype), normal(2, 5, dtype=dtype), **options)


def logistic(dtype=np.float64, **options):
    return tb.LogisticRegression(normal(1, 5, 3, dtype=dtype), [0, 1, 1, 0, 1], **options)


def linear(dtype):
    subjects = {}
    for name, make in (("least-squares", least_squares), ("logistic", logistic)):
        g = make(dtype)
        subjects |= {
            name: (g, 3, 5),
            f"{name}-unweighted": (make(dtype, weighted=False), 3, 2),
            f"{name}-scaled": (make(dtype, scale=2.5), 3, 5),
            f"{name}-batch": (g.restrict([3, 0, 3]), 3, 5),
            f"{name}-batch-of-batch": (g.restrict([4, 3, 0, 3]).restrict([1, 1, 2]), 3, 5),
            f"{name}-ridge": (g + 0.1 * tb.L2Penalty(0.3, groups=[0, 0, -1]), 3, 5),
        }
        if find_spec("scipy") is not None:
            from scipy.sparse import csr_array

            sparse = make(dtype)
            sparse.X = csr_array(np.where(normal(4, 5, 3) > -0.5, sparse.X, 0).astype(dtype))
            subjects[f"{name}-sparse"] = (sparse, 3, 5)
            subjects[f"{name}-sparse-batch"] = (sparse.restrict([3, 0, 3]), 3, 5)
    return subjects


def softmax(n=5, d=2, C=3, *, dtype=np.float64, **options):
    y = np.random.default_rng(n).integers(C, size=n)
    return tb.SoftmaxRegression(normal(1, n, d, dtype=dtype), y, C, **options)


def objectives(dtype=np.float64):
    """Return every objective at a point (w, lam), by name."""
    G = normal(2, 4, 4, dtype=dtype)  # not symmetric
    C, d = normal(3, 4, 3, dtype=dtype), normal(4, 4, dtype=dtype)
    loss, per_feature = softmax(dtype=dtype), tb.L2Penalty(groups=np.tile(np.arange(2), 3))
    ridge = tb.L2Penalty(0.3)
    subjects = {
        "quadratic-matrix": (tb.Quadratic(G), 4, 4),
        "quadratic-diagonal": (tb.Quadratic(G[0]), 4, 4),
        "quadratic-offset": (tb.Quadratic(G, d=d), 4, 4),
        "quadratic-linear": (tb.Quadratic(G, C=C), 4, 3),
        "quadratic-affine": (tb.Quadratic(G[0], C=C, d=d), 4, 3),
        "softmax": (loss, 6, 5),
        "softmax-unweighted": (softmax(dtype=dtype, weighted=False), 6, 2),
        "softmax-scaled": (softmax(dtype=dtype, scale=2.5), 6, 5),
        "softmax-batch": (loss.restrict(np.array([3, 0, 3])), 6, 5),
        "softmax-batch-of-batch": (loss.restrict([4, 3, 0, 3]).restrict([1, 1, 2]), 6, 5),
        "softmax-batch-unweighted": (softmax(dtype=dtype, weighted=False).restrict([2]), 6, 1),
        "softmax-one-row": (softmax(n=1, dtype=dtype), 6, 1),
        "softmax-one-feature": (softmax(d=1, dtype=dtype), 3, 5),
        "softmax-one-class": (softmax(C=1, dtype=dtype), 2, 5),
        "softmax-two-classes": (softmax(C=2, dtype=dtype), 4, 5),
        **sparse(dtype),
        **compiled_softmax(dtype),
        "softmax-unseen-classes": (tb.SoftmaxRegression(G[:3, :2], [0, 1, 0], 4), 8, 3),
        **linear(dtype),
        "l2-number": (ridge, 6, 2),
        "l2-groups": (tb.L2Penalty(np.array([0.5, 2], dtype), groups=[0, 1, 1]), 3, 2),
        "l2-free": (tb.L2Penalty(0.3, groups=[0, -1, 0]), 3, 2),
        "l2-free-learned": (tb.L2Penalty(groups=[1, -1, 0, 1]), 4, 2),
        "l2-learned": (tb.L2Penalty(), 6, 1),
        "l2-learned-per-feature": (per_feature, 6, 2),
        "l2-learned-per-group": (tb.L2Penalty(groups=[2, 0, 0, 2]), 4, 3),
        "pairwise": (tb.PairwisePenalty(3, 2), 6, 9),
        "pairwise-free-column": (tb.PairwisePenalty(2, 3, n_free=1), 6, 4),
        "proximity": (tb.ProximityPenalty([2, 4]), 6, 8),
        "proximity-one-block": (tb.ProximityPenalty([3]), 3, 4),
        "pairwise-one-vector": (tb.PairwisePenalty(1, 3), 3, 1),
        "sum": (loss + 0.5 * ridge, 6, 5),
        "scaled-sum": (2 * (loss + 0.5 * (ridge + ridge)), 6, 5),
        "sum-batch": ((loss + 0.5 * ridge).restrict([1, 1]), 6, 5),
        "blocks": (loss.on(slice(1, 6)) + 0.1 * per_feature.on(slice(-2, None)), 6, 8),
        "blocks-batch": ((loss.on(slice(1, 6)) + ridge.on(slice(0, 1))).restrict([2, 0]), 6, 6),
        "difference": ((loss - ridge) / 2, 6, 5),
        "negative": (-loss, 6, 5),
        "functions": (cosine(), 3, 3),
        "functions-batch": (-cosine_of_rows().restrict([1, 1, 0]), 3, 3),
    }  # fmt: skip
    return {
        name: Case(g, normal(6, M, dtype=dtype), normal(7, N, dtype=dtype))
        for name, (g, M, N) in subjects.items()
    }


LAYOUT = tb.Layout(weights=5, l2=1, step=1, steps=2, momentum=1, momenta=2, l1=1, l1s=2, w0=6)
SIZES = (2, 4)  # blocks of w, M = 6
BATCHES = ([0, 1], [3, 3], [4, 2], [1, 0])  # all different: a stale one is seen


def lower(dtype=np.float64):
    """Return the lower level of the transitions: curved, with all of its products nonzero."""
    penalty = tb.L2Penalty().on(LAYOUT["l2"])
    return softmax(dtype=dtype).on(LAYOUT["weights"]) + 0.1 * penalty


def hyperparameters(dtype=np.float64):
    parts = dict(
        weights=np.linspace(0.5, 1.5, 5),
        l2=[0.4],
        step=[0.3],
        steps=[0.2, 0.4],
        momentum=[0.7],
        momenta=[0.5, 0.9],
        l1=[1.2],
        l1s=[0.8, 1.5],
        w0=normal(8, 6),
    )
    return frozen(LAYOUT.pack(**{name: np.array(part) for name, part in parts.items()}), dtype)


def halving(t):
    return 0.4 * 0.5**t


def tanh_start(lam):
    return np.tanh(lam[:6])


def tanh_start_vjp(lam, alpha):
    h = np.zeros_like(lam)
    h[:6] = alpha / np.cosh(lam[:6]) ** 2
    return h


def tanh_start_jvp(lam, dlam):
    return dlam[:6] / np.cosh(lam[:6]) ** 2


def decay(t, w, lam):
    return lam[:6] * np.sin(w) / (t + 1)


def decay_vjp(t, w, lam, alpha):
    h = np.zeros_like(lam)
    h[:6] = np.sin(w) * alpha / (t + 1)
    return lam[:6] * np.cos(w) * alpha / (t + 1), h


def decay_jvp(t, w, lam, dw, dlam):
    return (lam[:6] * np.cos(w) * dw + np.sin(w) * dlam[:6]) / (t + 1)


STEP_SIZES = {
    "constant": 0.3,
    "schedule": [0.3, 0.2, 0.1],
    "callable": halving,
    "learned": LAYOUT["step"],
    "per-block": tb.Learned(LAYOUT["steps"], sizes=SIZES),
}
MOMENTA = {
    "fixed": 0.8,
    "schedule": [0.8, 0.7, 0.6],
    "learned": LAYOUT["momentum"],
    "per-block": tb.Learned(LAYOUT["momenta"], sizes=SIZES),
}
THRESHOLDS = {
    "fixed": 0.9,
    "learned": LAYOUT["l1"],
    "per-block": tb.Learned(LAYOUT["l1s"], sizes=SIZES),
}
STARTS = {
    "array": normal(9, 6),
    "slice": LAYOUT["w0"],
    "pair": (tanh_start, tanh_start_vjp),
    "triple": (tanh_start, tanh_start_vjp, tanh_start_jvp),
}


def transitions(dtype=np.float64):
    """Return every transition at a state and lam, by name."""
    g, start = lower(dtype), normal(9, 6, dtype=dtype)
    found = {}
    for kind, gamma in STEP_SIZES.items():
        for rows, batches in (("", None), ("-batches", BATCHES)):
            common = dict(step_size=gamma, initial=start, batches=batches)
            found[f"descent-{kind}{rows}"] = tb.GradientDescent(g, **common)
            found[f"adam-{kind}{rows}"] = tb.AdamTransition(g, **common)
            found[f"heavy-ball-{kind}{rows}"] = tb.HeavyBall(g, **common)
            found[f"proximal-{kind}{rows}"] = tb.ProximalGradient(g, **common, l1=0.9)
    for kind, mu in MOMENTA.items():
        for step, gamma in (("constant", 0.3), ("per-block", STEP_SIZES["per-block"])):
            common = dict(step_size=gamma, initial=start, momentum=mu)
            found[f"heavy-ball-{kind}-momentum-{step}"] = tb.HeavyBall(g, **common)
            found[f"nesterov-{kind}-momentum-{step}"] = tb.Nesterov(g, **common, batches=BATCHES)
    for kind, l1 in THRESHOLDS.items():
        for step in ("constant", "learned", "per-block"):
            common = dict(step_size=STEP_SIZES[step], initial=start, l1=l1)
            found[f"proximal-{kind}-l1-{step}"] = tb.ProximalGradient(g, **common)
    for kind, initial in STARTS.items():
        initial = start if kind == "array" else initial
        found[f"descent-from-{kind}"] = tb.GradientDescent(g, 0.3, initial)
        found[f"heavy-ball-from-{kind}"] = tb.HeavyBall(g, 0.3, initial)
        found[f"adam-from-{kind}"] = tb.AdamTransition(g, 0.3, initial)
    found["functions"] = tb.Transition.from_functions(decay, decay_vjp, decay_jvp, initial=start)
    lam = hyperparameters(dtype)
    return {name: Case(tr, state(tr, dtype), lam) for name, tr in found.items()}


def state(transition, dtype=np.float64):
    """Return a state with buffers in use; a second moment, which comes last, is positive."""
    parts = [normal(10 + k, 6) for k in range(1 + transition.n_buffers)]
    if transition.n_buffers == 2:
        parts[2] = 0.5 + parts[2] ** 2
    return frozen(np.concatenate(parts), dtype)


def maps():
    """Return every map at a point, by name; w is not used."""
    layout = tb.Layout(a=2, b=1, c=2)
    found = {
        "identity": (tb.Identity(), 4),
        "sigmoid": (tb.Sigmoid(), 4),
        "exp": (tb.Exp(), 4),
        "softplus": (tb.Softplus(), 4),
        "affine-number": (tb.Affine(2.0, 1.0), 4),
        "affine-vector": (tb.Affine(normal(1, 4), normal(2, 4)), 4),
        "affine-tall": (tb.Affine(normal(1, 5, 3), normal(2, 5)), 3),
        "affine-wide": (tb.Affine(normal(1, 2, 4)), 4),
        "compose": (tb.Compose(tb.Affine(normal(1, 5, 3)), tb.Sigmoid(), tb.Exp()), 3),
        "blocks": (tb.Blocks(layout, a=tb.Exp(), c=tb.Affine(normal(1, 2, 2))), 5),
        "symmetric": (tb.Symmetric(4), 6),
        "symmetric-of-two": (tb.Symmetric(2), 1),
        "blocks-of-symmetric": (
            tb.Blocks(tb.Layout(C=3, rho=1), C=tb.Symmetric(3), rho=tb.Exp()),
            4,
        ),
        "compose-of-symmetric": (tb.Compose(tb.Softplus(), tb.Symmetric(3)), 3),
        "blocks-of-compose": (tb.Blocks(layout, b=tb.Compose(tb.Softplus(), tb.Exp())), 5),
    }
    return {name: Case(phi, np.zeros(0), normal(3, N)) for name, (phi, N) in found.items()}


def arrays(result):
    """Return the arrays in what a method returned."""
    parts = result if isinstance(result, tuple) else (result,)
    return [part for part in parts if isinstance(part, np.ndarray)]


def objective_calls(g, w, lam):
    """Return what every method of an objective returns at one point, by name."""
    v, dlam = 1 + w**2, 1 - lam
    return {
        "value": g.value(w, lam),
        "grad": g.grad(w, lam),
        "grad_lam": g.grad_lam(w, lam),
        "grad_vjp": g.grad_vjp(w, lam, v),
        "grad_jvp": g.grad_jvp(w, lam, v, dlam),
    }


def transition_calls(transition, w, lam, t=1):
    """Return what every method of a transition returns at one point, by name."""
    alpha, dlam = 1 + w**2, 1 - lam
    start = transition.initial(lam)
    return {
        "initial": start,
        "initial_vjp": transition.initial_vjp(lam, alpha),
        "initial_jvp": transition.initial_jvp(lam, dlam),
        "step": transition.step(t, w, lam),
        "vjp": transition.vjp(t, w, lam, alpha),
        "jvp": transition.jvp(t, w, lam, alpha, dlam),
    }


def assert_same(calls, others):
    """Compare two dicts of results bit for bit."""
    assert calls.keys() == others.keys()
    for name, result in calls.items():
        np.testing.assert_array_equal(
            np.concatenate([np.ravel(part) for part in arrays(result)] or [[result]]),
            np.concatenate([np.ravel(part) for part in arrays(others[name])] or [[others[name]]]),
            err_msg=name,
        )
