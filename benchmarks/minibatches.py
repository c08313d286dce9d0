"""One hypergradient on minibatches: ``python -m benchmarks.minibatches``.

On one thread with ``OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1`` and
``XLA_FLAGS=--xla_cpu_multi_thread_eigen=false`` in the environment: then it is the processor's time
that counts, otherwise the clock's. Of digits, where MNIST is in ``TINYBILEVEL_DATA``, of drawn
dense data, and of a drawn sparse set with the size of a text. The forms take turns in one process,
and the least time counts. JAX takes the rows of each batch by ``X[index]`` in a jitted scan; of the
sparse set, from a dense X. Words of a name after the command choose.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

import tinybilevel as tb
from tinybilevel.kernels.threads import threads

T, CLASSES, ROUNDS = 100, 10, 5
#: Seconds between two calls: for so long do the threads of a BLAS look out for more work.
PAUSE = 0.12
#: In place of a penalty: strengths that λ holds, one for each column.
LEARNED = object()


def digits(rows: int) -> tuple[Any, np.ndarray] | None:
    """Return MNIST's first images with a bias, or None where it is not at hand."""
    try:
        data = tb.data.mnist()
    except Exception:
        return None
    X = tb.problems.append_bias(data.X_train[:rows].astype(np.float32) / 255)
    return X, np.asarray(data.y_train[:rows])


def text(rows: int, columns: int, each: int) -> tuple[Any, np.ndarray]:
    """Draw a sparse X whose columns are met as words are: a few often, most of them rarely."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(10, columns + 10)
    places = rng.choice(columns, size=(rows, each), p=share / share.sum()).ravel()
    values = rng.random(rows * each, np.float32)
    X = sparse.csr_array((values, places, np.arange(0, rows * each + 1, each)), (rows, columns))
    X.sum_duplicates()
    return X, rng.integers(CLASSES, size=rows)


def problem(
    X: Any, y: np.ndarray, batch: int, penalty: Any, step_size: float = 0.5
) -> tb.BilevelProblem:
    """Return one like hypercleaning, on minibatches."""
    n, d = X.shape
    loss = tb.SoftmaxRegression(X, y, CLASSES)
    lam0 = np.zeros(n, X.dtype)
    g = loss if penalty in (None, LEARNED) else loss + penalty
    if penalty is LEARNED:
        strengths = tb.L2Penalty(groups=np.tile(np.arange(d), CLASSES))
        g = loss.on(slice(0, n)) + 1e-4 * strengths.on(slice(n, n + d))
        lam0 = np.zeros(n + d, X.dtype)
    start = np.zeros(CLASSES * d, X.dtype)
    batches = tb.minibatches(n, batch, T, seed=0)
    descent = tb.GradientDescent(g, step_size, start, batches=batches)
    f = tb.SoftmaxRegression(X[:500], y[:500], CLASSES, weighted=False)
    return tb.BilevelProblem(descent, f, T=T, hyper_map=tb.Sigmoid(), lam0=lam0)


def jax_form(plain: tb.BilevelProblem, rho: Any, K: int) -> Callable[[], np.ndarray]:
    """Return the same hypergradient by JAX."""
    import jax
    import jax.numpy as jnp

    loss, f, descent = plain.transition.objective, plain.upper, plain.transition
    loss = loss.terms[0][1] if isinstance(loss, tb.objectives.Sum) else loss
    dense = [x.toarray() if hasattr(x, "toarray") else x for x in (loss.X, f.X)]
    X, X_val = map(jnp.asarray, dense)
    y, y_val, w0 = (jnp.asarray(x) for x in (loss.y, f.y, descent.fixed_start()))
    index, gamma = jnp.asarray(np.stack(descent.batches)), descent.step_size.values

    def losses(w: Any, X: Any, y: Any) -> Any:
        scores = X @ w.reshape(CLASSES, -1).T
        own = jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(scores, axis=1) - own

    @jax.jit
    def run(lam: Any, X: Any, X_val: Any) -> Any:
        def steps(w: Any, lam: Any, index: Any) -> Any:
            def step(w: Any, rows: Any) -> Any:
                def g(w: Any) -> Any:
                    each = losses(w, X[rows], y[rows])
                    return jnp.mean(jax.nn.sigmoid(lam[rows]) * each) + jnp.sum(rho * w**2)

                return w - gamma * jax.grad(g)(w), None

            return jax.lax.scan(step, w, index)[0]

        w = jax.lax.stop_gradient(steps(w0, lam, index[: T - K]))
        return jax.grad(lambda lam: jnp.mean(losses(steps(w, lam, index[T - K :]), X_val, y_val)))(
            lam
        )

    lam = jnp.asarray(plain.lam0)
    return lambda: np.asarray(run(lam, X, X_val).block_until_ready())


def best(calls: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the least time of each, in ms, of the processor on one thread; they take turns."""
    alone = threads() == 1
    clock = time.process_time if alone else time.perf_counter
    for call in calls.values():
        call()
    least = dict.fromkeys(calls, np.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            if not alone:
                time.sleep(PAUSE)
                call()  # a thread that slept has to be woken
            start = clock()
            call()
            least[name] = min(least[name], 1e3 * (clock() - start))
    return least


def main() -> int:
    rho = 1e-4
    rng = np.random.default_rng(0)
    ridge = tb.L2Penalty(rho)
    drawn = rng.standard_normal((5000, 785), np.float32) / 28, rng.integers(CLASSES, size=5000)
    words = text(5000, 20_000, 100)
    strengths = rho * (0.5 + rng.random(20_000, np.float32))
    each = tb.L2Penalty(strengths, np.tile(np.arange(20_000), CLASSES))
    wide = rng.standard_normal((20_000, 768), np.float32) / 28, rng.integers(CLASSES, size=20_000)
    cases: list[tuple[str, Any, Any, Any, int]] = [
        ("drawn 5000 × 785", drawn, ridge, rho, 100),
        ("text 5000 × 20,000, no penalty", words, None, 0.0, 100),
        ("text 5000 × 20,000, one strength", words, ridge, rho, 100),
        ("text 5000 × 20,000, one for each column", words, each, np.tile(strengths, CLASSES), 100),
        ("text 5000 × 20,000, learned for each column", words, LEARNED, 0.0, 100),
        ("drawn 20,000 × 768, large batches of 1000", wide, ridge, rho, 1000),
        ("drawn 20,000 × 768, large batches of 5000", wide, ridge, rho, 5000),
    ]
    for rows in (60_000, 5000):
        if (found := digits(rows)) is not None:
            cases.insert(0, (f"MNIST {rows} × 785", found, ridge, rho, 100))
            if rows > 5000:
                cases.append(
                    (f"MNIST {rows} × 785, large batches of 1000", found, ridge, rho, 1000)
                )
    chosen = [case for case in cases if all(word in case[0] for word in sys.argv[1:])]
    print("| data | K | plain, ms | compiled | JAX jit | compiled / plain | compiled / JAX |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, (X, y), penalty, strength, batch in chosen:
        plain = problem(X, y, batch, penalty)
        fast = tb.compile(plain)
        for K in (1, 25, 100):
            method = tb.KRMD(K=K)
            calls: dict[str, Callable[[], Any]] = {
                "plain": partial(method.unwatched, plain),
                "compiled": partial(method.unwatched, fast),
            }
            expected, found = method(plain).grad, [method(fast).grad]
            if penalty is not LEARNED:
                calls["JAX"] = jax_form(plain, strength, K)
                found.append(calls["JAX"]())
            for grad in found:
                assert tb.testing.relative_error(grad, expected) < 1e-4, (name, K)
            times = best(calls)
            a, b, c = times["plain"], times["compiled"], times.get("JAX", np.nan)
            print(
                f"| {name} | {K} | {a:.3g} | {b:.3g} | {c:.3g} | {b / a:.2f} | {b / c:.2f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
