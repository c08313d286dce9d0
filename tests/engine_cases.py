"""Whole problems, for the tests of storages, methods and the outer loop."""

from dataclasses import replace

import cases
import numpy as np

import tinybilevel as tb

T = 3  # the schedules of cases.py have three entries

MAP = tb.Blocks(
    cases.LAYOUT,
    weights=tb.Sigmoid(),
    l2=tb.Softplus(),
    momentum=tb.Sigmoid(),
    w0=tb.Affine(0.5, 0.1),
)


def upper():
    """Return an upper objective that depends on w and, directly, on λ."""
    return tb.Objective.from_functions(
        value=lambda w, lam: float(np.sin(w).sum() + np.cos(lam).sum()),
        grad=lambda w, lam: np.cos(w),
        grad_lam=lambda w, lam: -np.sin(lam),
    )


def problems():
    """Return a problem for every transition of cases.py, by name."""
    return {
        name: (tb.BilevelProblem(case.subject, upper(), T=T, hyper_map=MAP), case.lam)
        for name, case in cases.transitions().items()
    }


def long(T=12, transition=tb.HeavyBall, **options):
    """Return a problem with learned steps, momentum, penalty and start, all batches different."""
    rng = np.random.default_rng(T)
    batches = [rng.integers(5, size=2) for _ in range(T)]
    start = cases.LAYOUT["w0"]
    moves = transition(cases.lower(), cases.LAYOUT["step"], start, batches=batches, **options)
    return tb.BilevelProblem(moves, upper(), T=T, hyper_map=MAP)


def from_fixed_start(problem):
    """Return the problem with the same w_0 everywhere, so that B_0 = 0."""
    w0 = problem.transition.readout(problem.transition.initial(MAP(cases.hyperparameters())))
    return replace(problem, transition=problem.transition.starting_at(w0))


LAM = cases.hyperparameters()
STORAGES = [
    tb.Ring(),
    tb.Checkpoint(),
    tb.Checkpoint(1),
    tb.Checkpoint(5),
    tb.Binomial(1),
    tb.Binomial(2),
    tb.Binomial(4),
    tb.Binomial(50),
]
