"""The benchmarks compare the same numbers, run to their end, and judge what they find."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import __main__ as command
from benchmarks import cases, contenders, goals, grid, report
from benchmarks.cases import Case
from benchmarks.first import installed

CASES = [
    Case("toy", 3),
    Case("quadratic", 4, M=7),
    Case("quadratic", 4, M=1500),
    Case("hypercleaning", 2, T=5, rows=40),
    Case("hypercleaning", 5, T=5, rows=40, dtype="float32"),
    Case("grid", 2, T=5, rows=40, features=7, classes=3),
    Case("grid", 5, T=5, rows=40, features=7, classes=2, dtype="float32"),
    Case("tasks", 3, T=5, rows=60, features=400, classes=4),
    Case("tasks", 5, T=5, rows=60, features=400, classes=4, dtype="float32"),
]


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_everyone_computes_the_same_hypergradient(case, monkeypatch):
    monkeypatch.delenv("TINYBILEVEL_DATA", raising=False)
    everyone = contenders.contenders(case)
    reference = everyone["tinybilevel, NumPy"](case)()
    for name, build in everyone.items():
        if name in contenders.LIMITS or name in {"higher", "TorchOpt", "jaxopt"}:
            continue
        grad = build(case)()
        error = np.linalg.norm(grad - reference) / np.linalg.norm(reference)
        assert grad.dtype == case.dtype, name
        assert error <= (1e-4 if case.dtype == "float32" else 1e-11), name


@pytest.mark.oracle
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("K", [1, 3])
def test_everyone_computes_the_same_hypergradient_of_a_network(K, stride):
    case = Case("one-shot", K, T=4, dtype="float64", filters=2, stride=stride, query=2)
    everyone = contenders.contenders(case)
    reference = everyone["tinybilevel, definitions"](case)()
    for name, build in everyone.items():
        error = np.linalg.norm(build(case)() - reference) / np.linalg.norm(reference)
        assert error <= 1e-10, name


@pytest.mark.oracle
def test_a_batch_is_the_same_for_everyone():
    pytest.importorskip("jax")
    case = Case("toy", 4, T=9, many=5)
    grads = contenders.ours("numba", compiled=True)(case)()
    assert grads.shape == (5, 2)
    np.testing.assert_allclose(contenders.jax("adjoint")(case)(), grads, rtol=1e-12)
    np.testing.assert_allclose(contenders.ours("numpy")(case)(), grads, rtol=1e-12)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("case", [*CASES, Case("toy", 4, T=9, many=5)], ids=lambda case: case.name)
def test_everyone_computes_the_same_hypergradient_on_a_gpu(case):
    reference = contenders.ours("numpy")(case)()
    case = case.at(device="gpu")
    for name, build in contenders.contenders(case).items():
        if name not in contenders.GPU_LIMITS:
            error = np.linalg.norm(build(case)() - reference) / np.linalg.norm(reference)
            assert error <= (1e-4 if case.dtype == "float32" else 1e-9), name


def test_the_grid_goes_on_where_it_ended(tmp_path):
    asked = []

    def run(case):
        asked.append(case)
        if len(asked) == 3:
            raise KeyboardInterrupt
        times = {"JAX jit": 2.0, "tinybilevel, Numba": 1.0, "tinybilevel, NumPy": 0.8}
        times |= {"reading X": 0.1, "multiply-adds": 0.4}
        who = {name: {"seconds": t} for name, t in times.items()}
        about = {"rows": case.rows, "features": case.features, "classes": case.classes}
        return {"case": case.name, "dtype": case.dtype, "K": case.K, "who": who, **about}

    with pytest.raises(KeyboardInterrupt):
        grid.resume(tmp_path, run)
    found = grid.resume(tmp_path, run, only="200 × 5, 2 classes")
    assert [case.name for case in asked[3:]] == [case.name for case in list(grid.cases())[2:6]]
    assert len(found) == 6
    page = grid.table(found)
    assert "| 200 × 5 | 0.50 |  |  |  | 0.50 |" in page
    assert "over the best of our other ways: median 1.25" in page
    assert "over the limit: median 2.50" in page


def test_the_grid_has_every_shape_and_keeps_long_ones_short():
    everything = list(grid.cases())
    assert len({case.name for case in everything}) == len(everything)
    assert len({(case.rows, case.features, case.classes) for case in everything}) == 72
    for case in everything:
        assert (case.T == 20) == (case.rows * case.features * case.classes > 100_000_000)
        assert case.K in (1, 25, case.T)


def test_a_run_writes_what_it_found(tmp_path, monkeypatch, capsys):
    only = {"tinybilevel, NumPy": contenders.OURS["tinybilevel, NumPy"]}
    monkeypatch.setattr(command, "contenders", lambda case: only)
    assert command.main(["toy", "--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "results.json").read_text())
    (result,) = written["results"]
    who = result["who"]["tinybilevel, NumPy"]
    assert who["seconds"] > 0
    assert who["disagreement"] == 0
    assert report.table(result) in printed
    page = (tmp_path / "results.md").read_text()
    assert report.table(result) in page
    assert written["machine"]["date"] in page


def test_an_unknown_suite_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["toys"])
    assert "no such suite: toys" in capsys.readouterr().err


def test_a_contender_that_disagrees_gets_no_time(monkeypatch):
    found = {
        "tinybilevel, NumPy": {"grad": np.ones(2), "seconds": 1.0},
        "JAX jit": {"grad": np.array([1.0, 1.1]), "seconds": 0.1},
        "torch": {"error": "ImportError: no"},
    }
    monkeypatch.setattr(command, "measure", lambda *args: found)
    result = command.run(Case("toy", 1), 1)
    assert "seconds" not in result["who"]["JAX jit"]
    assert "disagrees by 7.1e-02" in report.table(result)
    assert "ImportError: no" in report.table(result)


def test_goals_are_ratios_within_one_case():
    who = {
        "tinybilevel, NumPy": {"seconds": 1.1, "memory": 10.0},
        "tinybilevel, Numba": {"seconds": 0.39, "memory": 61.0},
        "JAX jit": {"seconds": 1.0},
        "torch": {"seconds": 1.5},
        "higher": {"seconds": 0.8},
    }
    result = {"case": "some", "kind": "hypercleaning", "dtype": "float32", "rows": 5000, "who": who}
    judged = goals.judge([{**result, "K": 100}])
    assert len(judged) == len(goals.judge([{**result, "K": 50}])) + 2  # memory at K = 100 alone
    found = {g["what"]: (round(g["ratio"], 4), g["ratio"] <= g["most"]) for g in judged}
    assert found["tinybilevel, Numba / JAX jit"] == (0.39, True)
    assert found["tinybilevel, NumPy / JAX jit"] == (1.1, True)
    best = next(what for what in found if "best of torch" in what)
    assert found[best] == (0.4875, False)
    assert found["MB of tinybilevel, Numba"] == (61.0, False)
    assert "**missed**" in report.verdicts(judged)


def test_a_table_has_the_ratio_to_the_larger_limit_and_no_empty_column():
    who = {
        "tinybilevel, Numba": {"seconds": 0.3, "disagreement": 0.0},
        "JAX jit": {"error": "ImportError: no"},
        "reading X": {"seconds": 0.1},
        "multiply-adds": {"seconds": 0.2},
    }
    lines = report.table({"case": "some", "who": who}).splitlines()
    assert lines[-6] == "| | per call | over the fastest of ours | over the limit | difference |"
    assert lines[-4] == "| tinybilevel, Numba | 300 ms | 1.00 | 1.50 | 0e+00 |"
    assert lines[-3] == "| JAX jit | ImportError: no |  |  |  |"
    assert lines[-1] == "| multiply-adds | 200 ms | 0.67 | 1.00 |  |"


def test_an_installed_size_counts_what_is_needed_once():
    numpy = installed("numpy")
    assert 5 < numpy < installed("tinybilevel")
    assert installed("numpy", "numpy") == numpy
    assert installed("numpy", "no-such-distribution") == numpy
    assert installed("tinybilevel", "numpy") == installed("tinybilevel")


def test_nothing_is_downloaded(monkeypatch):
    monkeypatch.delenv("TINYBILEVEL_DATA", raising=False)
    monkeypatch.setattr("tinybilevel.data.mnist", lambda *_: pytest.fail("asked for MNIST"))
    X, y = cases._digits(30, np.random.default_rng(0))
    assert X.shape == (30, 785)
    assert (X[:, -1] == 1).all()
    assert 0.05 < (X[:, :-1] > 0).mean() < 0.5
    assert y.shape == (30,)


def test_few_contenders_for_many_rows():
    few = contenders.contenders(Case("hypercleaning", 5, dtype="float32", rows=500_000))
    assert set(few) <= {*contenders.OURS, "JAX jit", "torch, explicit adjoint", *report.FLOORS}
    assert set(few) >= {"tinybilevel, NumPy", *report.FLOORS}


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.5 s"), (0.0125, "12.5 ms"), (3e-6, "3 µs"), (4e-7, "0.4 µs")]
)
def test_durations_have_units(seconds, text):
    assert report.duration(seconds) == text
