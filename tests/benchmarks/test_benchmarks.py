"""The benchmarks compare the same numbers, run to their end, and judge what they find."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

import tinybilevel as tb
from benchmarks import __main__ as command
from benchmarks import cases, company, contenders, goals, grid, heatmap, limits, report, rounds
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
    Case("csr", 2, T=5, rows=40, features=60, classes=3),
    Case("csr", 5, T=5, rows=40, features=60, classes=3, dtype="float32"),
    Case("logistic", 3, T=5),
    Case("logistic", 5, T=5, dtype="float32"),
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


def record(case, compiled=1.0):
    times = {"JAX jit": 2.0, "tinybilevel, Numba": compiled, "tinybilevel, NumPy": 0.8}
    about = {name: getattr(case, name) for name in ("kind", "dtype", "K", "T", "rows")}
    about |= {"features": case.features, "classes": case.classes, "nonzeros": 4_000_000}
    machine = dict.fromkeys(("date", "cpu", "openblas", "threads", "python"), "so")
    machine |= dict.fromkeys(("numpy", "numba", "jax"), "1.0")
    machine |= {"clock": "perf_counter", "command": "grid --rounds 9"}
    found = {"peak": {"float32": 1e11, "float64": 5e10}, "bandwidth": {"1048576": 1e11}}
    who = {name: {"seconds": t} for name, t in times.items()}
    who["tinybilevel, Numba, step by step"] = {"error": "left out: one call took 9 s"}
    return {"case": case.name, **about, "who": who, "machine": machine, "limits": found}


def test_the_grid_goes_on_where_it_ended(tmp_path):
    asked = []

    def one(case):
        asked.append(case)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return record(case)

    with pytest.raises(KeyboardInterrupt):
        grid.resume(tmp_path, one)
    only = "200 × 5, 2 classes"
    found = grid.resume(tmp_path, one, only=only)
    left = [c.name for c in grid.cases() if only in c.name and c.name != asked[0].name]
    assert [case.name for case in asked[3:]] == left
    assert len(found) == 2 + len(left)


def test_the_grid_ends_with_its_budget(tmp_path, capsys):
    assert grid.resume(tmp_path, record, budget=-1.0) == []
    assert f"{len(list(grid.cases()))} cases are left" in capsys.readouterr().out


def test_the_grid_has_every_shape_and_keeps_long_ones_short():
    everything = list(grid.cases())
    assert len({case.name for case in everything}) == len(everything)
    dense = [case for case in everything if case.kind == "grid"]
    assert len({(case.rows, case.features, case.classes) for case in dense}) == 72
    assert len(everything) - len(dense) == 12
    for case in dense:
        work = case.rows * case.features * case.classes
        assert (5 if work > 10**9 else 20 if work > 10**8 else 100) == case.T
        assert case.K in (1, 25, case.T)


def test_a_part_of_the_grid_has_all_of_it_alike():
    everything = list(grid.cases())
    first = everything[:74]
    assert len({(case.kind, case.rows, case.features, case.classes) for case in first}) == 74
    for names in ({"dtype"}, {"rows"}, {"classes"}, {"features"}):
        (name,) = names
        some = [getattr(case, name) for case in first[:37] if case.kind == "grid"]
        counts = [some.count(value) for value in set(some)]
        assert max(counts) <= 2 * min(counts), name


def test_a_limit_is_the_longer_of_reading_and_multiplying():
    case = {"kind": "grid", "T": 4, "K": 1, "rows": 10, "features": 25, "classes": 3}
    case |= {"dtype": "float32", "nonzeros": 250}
    machine = {"peak": {"float32": 100.0}, "bandwidth": {"500": 1e9, "2000": 10.0}}
    assert limits.least(case, machine) == 5 * 1000 / 10, "X is read from what holds it"
    assert limits.least(case | {"rows": 5, "nonzeros": 125}, machine) == 5 * 2 * 125 * 3 / 100
    two = case | {"rows": 5, "nonzeros": 125, "classes": 2}
    assert limits.least(two, machine) == 5 * 2 * 125 / 100, "two classes have one score"
    assert limits.least(case | {"nonzeros": 20}, machine) == 5 * 2 * 20 * 3 / 100
    fast = {"peak": {"float32": 200.0}, "bandwidth": {"500": 5e8, "2000": 20.0}}
    best = limits.best([machine, fast])
    assert best == {"peak": {"float32": 200.0}, "bandwidth": {"500": 1e9, "2000": 20.0}}


def test_the_grid_becomes_a_picture_a_page_and_a_sentence(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    for name in ("FILE", "PICTURE", "PAGE"):
        monkeypatch.setattr(heatmap, name, tmp_path / name)
    heatmap.PICTURE = tmp_path / "grid.png"
    heatmap.PAGE.write_text("before\n<!-- grid -->\nold\n<!-- end of grid -->\nafter\n")
    some = [case for case in grid.cases() if case.kind != "csr"][:40]
    lines = [json.dumps(record(case, 2.5 if k == 3 else 0.5)) for k, case in enumerate(some)]
    (tmp_path / "grid.jsonl").write_text("\n".join(lines) + "\n")
    assert heatmap.main([str(tmp_path)]) == 0
    page = heatmap.PAGE.read_text()
    assert page.startswith("before\n<!-- grid -->\nOne hypergradient")
    assert page.endswith("<!-- end of grid -->\nafter\n")
    assert "old" not in page
    assert "| JAX | 40 | 0.25 | 1.25 | " in page
    assert "| the best of our other ways | 40 | 0.62 | 3.12 | " in page
    assert "| 1: 1 |" in page
    assert f"Slower than JAX: {heatmap.name(json.loads(lines[3]))}: 1.25." in page
    assert "the least of 3 to 9 interleaved rounds, by the clock" in " ".join(page.split())
    assert "left out 40 times" in " ".join(page.split())
    said = " ".join(capsys.readouterr().out.split())
    assert "precisions) 0.25 in the median and 1.25 at worst (" in said
    drawn = heatmap.PICTURE.read_bytes()
    assert heatmap.main([]) == 0, "the file is enough"
    assert (heatmap.PAGE.read_text(), heatmap.PICTURE.read_bytes()) == (page, drawn)


def test_a_case_of_the_grid_is_measured_by_its_contenders_alone(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    seen = []

    def measure(workers, case, *_, **__):
        seen.append(set(workers))
        return {name: {"grad": np.ones(3), "seconds": 1.0} for name in workers}

    class Stand:
        process = type("Process", (), {"is_alive": lambda self: True})()

        def __init__(self, case, name, clock):
            self.ask = lambda case: warmed.append((name, case.kind, case.dtype))
            self.close = lambda: None

    warmed = []
    monkeypatch.setattr(grid, "Worker", Stand)
    monkeypatch.setattr(grid, "measure_some", measure)
    monkeypatch.setattr(limits, "measured", lambda: {"peak": {}, "bandwidth": {}})
    grid.run(tmp_path, "hypercleaning, 5000 rows, float32, K = 1", float("inf"), 3)
    assert (grid.COMPILED, "csr", "float64") in warmed
    assert (grid.JAX, "csr", "float64") not in warmed
    assert seen == [set(contenders.available(contenders.GRID))] * 2  # K = 1 and 100
    first = json.loads((tmp_path / "grid.jsonl").read_text().splitlines()[0])
    assert (first["nonzeros"], first["classes"]) == (cases.nonzeros(Case("hypercleaning", 1)), 10)
    assert "OPENBLAS" in first["machine"]["openblas"] or "choice" in first["machine"]["openblas"]


def test_workers_take_one_case_after_another(monkeypatch):
    only = dict.fromkeys(("a", "b", "c"), contenders.OURS["tinybilevel, NumPy"])
    asked = []

    class Process:
        def __init__(self, name):
            self.name = name

        def ask(self, question):
            asked.append((self.name, question))
            if question == "time":
                return {"a": 2.0, "b": 1.0}[self.name]
            return {
                "grad": np.ones(2),
                "first": 1.0,
                "once": {"a": 1.0, "b": 0.5, "c": 9.0}[self.name],
            }

    workers = {name: Process(name) for name in only}
    found = rounds.measure_some(workers, Case("toy", 1), seconds=0.0)
    assert (found["a"]["seconds"], found["b"]["seconds"]) == (2.0, 1.0)
    assert found["c"]["error"] == "left out: one call took 9 s"
    assert asked.count(("a", "time")) == 3, "not fewer rounds than that"
    assert ("c", "time") not in asked


def test_processes_at_once_are_timed_beside_those_with_one_thread(tmp_path, monkeypatch, capsys):
    for name in (*company._ALONE, "OPENBLAS_CORETYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(company, "TOGETHER", (1, 2))
    monkeypatch.setattr(company, "_SECONDS", 0.01)
    monkeypatch.setattr(company, "cases", lambda: [(Case("toy", 2, T=3), "NumPy")])
    (found,) = company.resume(tmp_path, rounds=2)
    assert found["case"] == "toy, float64, K = 2, NumPy"
    assert [len(of) for of in found["ratios"]] == [2, 2]
    assert all(ratio > 0 for of in found["ratios"] for ratio in of)
    assert not any(name in os.environ for name in company._ALONE)
    monkeypatch.setattr(company, "Crowd", None)  # nothing is left to do
    assert company.resume(tmp_path, rounds=2) == [found]
    page = company.table([found])
    assert f"OpenBLAS: {report.openblas()}; threads: {report.threads()}" in page
    assert "worst of more than one at once: " in page
    monkeypatch.setattr(company, "resume", lambda out, rounds, only: [found])
    assert command.main(["company", "--out", str(tmp_path)]) == 0
    assert "| default / one thread | 1 at once | 2 at once |" in capsys.readouterr().out


def test_a_crowd_that_is_limited_has_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with company._one_thread():
        assert {os.environ[name] for name in company._ALONE} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"


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


def test_every_form_is_compiled_and_its_first_call_judged():
    pytest.importorskip("numba")
    from benchmarks.forms import FORMS

    compiled = {name: type(tb.compile(make()).loop).__name__ for name, make in FORMS.items()}
    assert len(set(compiled.values())) == 6
    who = {"some form": {"seconds": 0.4}, "another": {"seconds": 3.0}}
    judged = goals.judge([{"case": "first call", "kind": "forms", "who": who}])
    assert [(g["what"], g["ratio"] <= g["most"]) for g in judged] == [
        ("s of some form", True),
        ("s of another", False),
    ]


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
