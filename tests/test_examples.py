"""The scripts of the gallery run, quickly, and show what they say."""

import runpy
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.linalg import norm

FOLDER = Path(__file__).parents[1] / "examples" / "gallery"
EXAMPLES = sorted(FOLDER.glob("*.py"))


@pytest.fixture
def run(monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("sklearn")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    return lambda path: runpy.run_path(str(path))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_in_seconds_and_draws(path, run, capsys):
    from matplotlib import pyplot

    start = time.process_time()
    names = run(path)
    assert time.process_time() - start < 15  # of all cores; some three on a quiet machine
    assert pyplot.get_fignums()
    assert capsys.readouterr().out
    assert CLAIMS[path.stem](Names(**names))


Names = type("Names", (SimpleNamespace,), {"gain": property(lambda n: n.after / n.before)})

#: What each says of itself, by the names it leaves; its gain is of the validation loss.
CLAIMS = {
    "adaptive_depth": lambda n: max(n.errors) < min(n.depths) < max(n.depths),
    "biased_limit": lambda n: norm(n.limits[80] - n.best) < 1e-3 < norm(n.limits[1] - n.best),
    "feature_penalties": lambda n: n.gain < 0.5,
    "hypercleaning": lambda n: n.gain < 0.5 and n.corrupted[n.found].mean() > 0.9,
    "implicit_or_unrolled": lambda n: (
        n.errors["implicit, CG"][-1] < 1e-4 < n.errors["implicit, CG"][0]
    ),
    "landscape_arrows": lambda n: all(run.grad_norms[-1] < 1e-5 for run in n.runs.values()),
    "lasso": lambda n: n.gain < 0.6 and n.result.value < min(n.values) + 1e-3,
    "learned_optimizer": lambda n: n.gain < 0.1,
    "learned_schedule": lambda n: (
        n.losses["learned"] < min(n.losses["Chebyshev"], 0.1 * n.losses["constant 2/(α + β)"])
    ),
    "memory_and_time": lambda n: all(np.array_equal(n.gradients[0], g) for g in n.gradients),
    "momentum": lambda n: list(n.depths) == sorted(n.depths, reverse=True),
    "network_penalties": lambda n: n.gain < 0.9,
    "own_transition": lambda n: n.after < 2 * n.before < 0,
    "recursion_row_by_row": lambda n: norm(n.trace.h[-1] - n.trace.exact) == 0,
    "task_interaction": lambda n: n.gain < 0.5 and n.C[0, 1] > 10 * n.C[0, 3],
    "truncation_error": lambda n: all(row.error <= row.eq_10 for row in n.rows),
}
