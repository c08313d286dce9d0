"""``tinybilevel reproduce table4`` and ``figure7``, on the digits: runs are shared and kept."""

import csv
import json

import numpy as np
import pytest

from tinybilevel.cli import main, table4, toy
from tinybilevel.cli.figure7 import _errors, _Run, along, errors, slope
from tinybilevel.cli.one_shot import Config
from tinybilevel.methods import KRMD, RMD

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

SMALL = ["--data", "digits", "--T", "6", "--iterations", "2", "--filters", "3", "--test-tasks", "3"]


def command(what, out, *more):
    return main(["reproduce", what, *SMALL, "--out", str(out), *map(str, more)])


def test_the_table_has_a_row_for_each_k_and_its_runs_are_kept(tmp_path, capsys, monkeypatch):
    assert command("table4", tmp_path, "--K", 1, 4, "--seeds", 0, 1) == 0
    assert "T = 6, K = 4, 2 updates" in capsys.readouterr().out
    found = json.loads((tmp_path / "table4.json").read_text())
    assert [(row["settings"]["K"], row["seeds"]) for row in found] == [(1, [0, 1]), (4, [0, 1])]
    runs = [json.loads(f.read_text()) for f in tmp_path.glob("K4*/result.json")]
    accuracies = 100 * np.array([r["test_accuracy"] for r in runs])
    assert found[1]["accuracy"] == pytest.approx(accuracies.mean())
    assert found[1]["spread"] == pytest.approx(accuracies.std(ddof=1))
    assert found[1]["accuracy_120"] == pytest.approx(found[1]["accuracy"]), "of fewer tasks, all"

    monkeypatch.setattr(table4, "run", None)  # nothing may be run again
    assert command("table4", tmp_path, "--K", 1) == 0
    assert "K = 4" in capsys.readouterr().out, "all finished runs have a row"


def write_run(folder, config, accuracy):
    folder.mkdir()
    settings = {"version": "0", "settings": vars(config)}
    (folder / "config.json").write_text(json.dumps(settings))
    result = {"test_accuracy": accuracy, "test_accuracy_support": accuracy - 0.01}
    result |= {"interval": 0.003, "test_tasks": 600, "train_tasks": 5000}
    result["seconds_per_iteration"] = 0.1
    (folder / "result.json").write_text(json.dumps(result))
    np.savez(folder / "lam.npz", shares=np.repeat([accuracy + 0.01, accuracy], [120, 480]))


def test_the_papers_row_stands_below_ours_where_it_has_one(tmp_path):
    for K, iterations, ways in ((10, 5000, 5), (10, 5000, 20), (10, 4000, 5), (1, 15000, 5)):
        config = Config(K=K, iterations=iterations, schedule=iterations, ways=ways)
        write_run(table4.folder_of(tmp_path, config), config, 0.97)
    text = table4.table4(tmp_path)
    assert text == (tmp_path / "table4.txt").read_text().removesuffix("\n")
    lines = text.splitlines()
    ours = [i for i, line in enumerate(lines) if line.startswith("omniglot")]
    below = {i: (lines[i + 1].split() or [""]) for i in ours}
    papers = {i: row for i, row in below.items() if row[0] == "paper"}
    found = [(lines[i].split(",")[1].strip(), row[1:]) for i, row in papers.items()]
    assert sorted(found) == [("5-way 1-shot", ["96.3", "0.7"]), ("5-way 1-shot", ["97.7", "0.4"])]
    one = next(line for line in lines if "5-way" in line and "15000 updates" in line)
    numbers = ["1", "97.00", "±", "0.30", "(600)", "98.00", "96.00", "5000", "0.100"]
    assert one.split()[-9:] == numbers


def test_runs_of_other_problems_have_no_row_and_older_ones_have(tmp_path):
    write_run(tmp_path / "now", Config(K=10, seed=1), 0.9)
    write_run(tmp_path / "older", Config(K=10), 0.8)
    write_run(tmp_path / "other", toy.Config(), 0.7)
    older = tmp_path / "older" / "config.json"
    settings = json.loads(older.read_text())
    del settings["settings"]["rotations"]
    older.write_text(json.dumps(settings))
    [row] = table4.rows(tmp_path)
    assert row["seeds"] == [1, 0]
    assert row["accuracy"] == pytest.approx(85)


def test_figure_7_draws_four_plots_of_its_runs(tmp_path, capsys):
    assert command("figure7", tmp_path, "--K", 1, 3) == 0
    assert "ρ = 0, against h₀: slope of log(error)" in capsys.readouterr().out
    for suffix in ("png", "svg"):
        assert (tmp_path / f"figure7.{suffix}").stat().st_size > 1000
    with (tmp_path / "figure7_errors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["block"] for row in rows} == {"all", "front", "c", "log_rho", "log_gamma"}
    assert len(rows) == 2 * 2 * 5 * 7
    at_T = [row for row in rows if (row["right"], row["K"]) == ("h_0", "6")]
    assert {float(row["relative_error"]) for row in at_T} == {0}
    with (tmp_path / "figure7_runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["K"], row["iteration"]) for row in rows] == [
        ("1", "1"),
        ("1", "2"),
        ("3", "1"),
        ("3", "2"),
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert command("table4", out, "--K", 2) == 0
    return _Run.of(next(out.glob("K2*")), 3, None)


def test_the_error_is_that_of_the_methods(finished):
    lam, task = finished.saved["lam"].astype(float), finished.tasks[0]
    found = errors(finished, lam, [task])
    problem = finished.problems.problem(task.X, task.y, task.X_query, task.y_query)
    K1, h0, exact = (m(problem, lam).grad for m in (KRMD(K=1), KRMD(K=6), RMD()))
    c = finished.problems.layout["c"]
    for right, name in ((h0, "h_0"), (exact, "exact")):
        error = np.linalg.norm(K1 - right) / np.linalg.norm(right)
        assert found[name]["all"][1] == pytest.approx(error, rel=1e-10)
        error = np.linalg.norm((K1 - right)[c]) / np.linalg.norm(right[c])
        assert found[name]["c"][1] == pytest.approx(error, rel=1e-10)


def test_the_curve_without_a_pull_is_of_a_lam_without_one(finished):
    curves, _ = _errors(finished)
    free = finished.saved["lam"].copy()
    free[finished.problems.layout["log_rho"]] = -60
    found = errors(finished, free, finished.tasks)["h_0"]["all"]
    np.testing.assert_array_equal(curves["ρ = 0, against h₀"], found)
    assert not np.allclose(curves["ρ > 0, against h₀"], found)


def test_the_cosine_is_that_of_the_runs_own_method_with_the_exact_one(finished):
    found = along(finished, tasks=2)
    lam = finished.saved["kept"][1].astype(float)
    cosines = []
    for task in finished.tasks[:2]:
        problem = finished.problems.problem(task.X, task.y, task.X_query, task.y_query)
        a, b = KRMD(K=2)(problem, lam).grad, RMD()(problem, lam).grad
        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert found["cosine"][1] == pytest.approx(np.mean(cosines), rel=1e-10)
    assert found["least_cosine"][1] == pytest.approx(min(cosines), rel=1e-10)
    accuracy = finished.problems.evaluate(finished.saved["kept"][1], finished.tasks)["query"]
    assert found["accuracy"][1] == pytest.approx(100 * accuracy.mean)


def test_the_slope_is_that_of_the_logarithm():
    K = np.arange(51)
    each, R2 = slope(0.9 * np.exp(-0.0385 * K))
    assert each == pytest.approx(-0.0385, rel=1e-12)
    assert pytest.approx(1, rel=1e-12) == R2
    noisy = np.exp(-0.03 * K + 0.2 * np.cos(K))
    assert slope(noisy)[1] < 0.99


def test_full_is_all_steps_and_what_comes_through_the_start(tmp_path, capsys):
    assert command("table4", tmp_path, "--K", "full", 6, "--T", 6) == 0
    found = json.loads((tmp_path / "table4.json").read_text())
    assert [row["settings"]["K"] for row in found] == [6, "full"], "deepest last"
    folders = {K: next(tmp_path.glob(f"K{K}-*")) for K in ("6", "full")}
    lam = {K: np.load(folder / "lam.npz")["lam"] for K, folder in folders.items()}
    assert not np.allclose(lam["6"], lam["full"]), "c moves also by B_0 α_0"
    run = _Run.of(folders["full"], 2, None)
    assert run.depth == 7
    np.testing.assert_allclose(along(run, 2)["cosine"], 1)
    assert command("figure7", tmp_path, "--K", "full", 6, "--T", 6) == 0

    with pytest.raises(SystemExit):
        command("table4", tmp_path, "--K", "all")
    assert "argument --K: must be a whole number" in capsys.readouterr().err


def test_full_stands_beside_the_papers_full(tmp_path):
    for T, iterations in ((50, 5000), (1, 15000)):
        config = Config(K="full", T=T, iterations=iterations, schedule=iterations)
        write_run(table4.folder_of(tmp_path, config), config, 0.97)
    lines = table4.table4(tmp_path).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("  paper")] == ["96.6", "95.8"]


def test_rows_that_were_run_with_other_settings_say_so(tmp_path):
    for more in ({}, {"lr_logs": 3e-4, "rho_head": 3.0}, {"held_out": 200}, {"rotations": True}):
        config = Config(K=10, iterations=5000, schedule=5000, **more)
        write_run(table4.folder_of(tmp_path, config), config, 0.97)
    lines = [line.split("   ")[0] for line in table4.table4(tmp_path).splitlines()[2:-2]]
    usual = "omniglot, 5-way 1-shot, 32 filters, T = 50, K = 10, 5000 updates"
    assert sorted(line for line in lines if line.startswith("omni")) == [
        usual,
        f"{usual}, 200 classes held out",
        f"{usual}, lr_logs 0.0003, rho_head 3",
        f"{usual}, rotations 1",
    ]
    assert lines.count("  paper") == 3, "what is tested on other classes is not the paper's"
