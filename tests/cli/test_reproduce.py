"""``tinybilevel reproduce``, on a few steps: the runs are shared, finished ones kept."""

import json
import os
import subprocess
import sys
import time

import pytest

from tinybilevel import data
from tinybilevel.cli import hypercleaning, main, reproduce

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.fixture
def small(monkeypatch):
    """Let "mnist" and "fashion" be the digits."""
    for name in ("mnist", "fashion"):
        monkeypatch.setitem(hypercleaning._LOADERS, name, lambda data_dir: data.digits())


def command(what, out, *more):
    return main(
        ["reproduce", what, "--iterations", "21", "--out", str(out), "--K", "1", "5", *more]
    )


def test_table_and_figure_share_their_runs(small, tmp_path, capsys, monkeypatch):
    assert command("table2", tmp_path) == 0
    printed = capsys.readouterr().out
    for paper in ("87.50", "0.383"):
        assert paper in printed, "the paper's rows stand under ours"
    ours = json.loads((tmp_path / "table2.json").read_text())
    assert set(ours) == {"K1-seed0", "K5-seed0"}
    assert ours["K5-seed0"]["validation_loss"] < ours["K1-seed0"]["validation_loss"]
    assert (tmp_path / "table2.txt").read_text() in printed

    monkeypatch.setattr(reproduce, "run", None)  # nothing may be run again
    assert command("figure5", tmp_path) == 0
    assert (tmp_path / "figure5.png").stat().st_size > 1000
    rows = (tmp_path / "figure5.csv").read_text().splitlines()
    assert rows[0] == "K,iteration,exact_grad_norm"
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["1", "1"],
        ["1", "21"],
        ["5", "1"],
        ["5", "21"],
    ]


def test_fashion_takes_a_step_size_that_is_stable_there(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    what = ["reproduce", "table2", "--data", "fashion", "--iterations", "2", "--K", "1"]
    assert main(what) == 0
    printed = capsys.readouterr().out
    assert "paper" not in printed, "its Table 2 is of MNIST"
    run = tmp_path / "runs/table2-fashion/K1-seed0"
    settings = json.loads((run / "config.json").read_text())["settings"]
    assert (settings["data"], settings["step_size"]) == ("fashion", "auto")
    gamma = json.loads((run / "result.json").read_text())["step_size"]
    assert f"fashion; 2 updates of λ in each run, γ = {gamma:.3g}; run " in printed
    assert main([*what, "--step-size", "100", "--out", "other"]) == 2
    error = capsys.readouterr().err
    assert "--step-size auto takes one that does\n" in error, "and nothing that is no option here"
    assert main([*what, "--step-size", "0.25", "--out", "other"]) == 0
    assert "γ = 0.25" in capsys.readouterr().out


def test_seeds_are_averaged(small, tmp_path, capsys):
    assert command("table2", tmp_path, "--seeds", "0", "1") == 0
    ours = json.loads((tmp_path / "table2.json").read_text())
    mean = (ours["K1-seed0"]["validation_loss"] + ours["K1-seed1"]["validation_loss"]) / 2
    assert f"{mean:.4f} ± " in capsys.readouterr().out


def test_runs_of_other_settings_are_refused(small, tmp_path, capsys):
    assert command("table2", tmp_path) == 0
    assert command("table2", tmp_path, "--lr", "0.1") == 2
    assert "lr was 0.3, is now 0.1" in capsys.readouterr().err


def test_jobs_must_be_positive(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("table2", tmp_path, "--jobs", "0")
    assert "argument --jobs: must be a whole number, at least 1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        reproduce.all_runs(tmp_path, [1], [0], 1, 0.3, jobs=0)


@pytest.mark.slow
@pytest.mark.data
def test_two_processes_give_the_same_numbers(tmp_path):
    if "TINYBILEVEL_DATA" not in os.environ:
        pytest.skip("needs MNIST in TINYBILEVEL_DATA")
    for jobs in ("1", "2"):
        args = ["--jobs", jobs, "--iterations", "2", "--K", "1", "5"]
        assert main(["reproduce", "table2", "--out", str(tmp_path / jobs), *args]) == 0
    one, two = (json.loads((tmp_path / jobs / "table2.json").read_text()) for jobs in ("1", "2"))
    for key in one:
        assert one[key]["validation_loss"] == two[key]["validation_loss"]


@pytest.mark.slow
@pytest.mark.data
def test_sigterm_has_every_process_save_its_run(tmp_path):
    if "TINYBILEVEL_DATA" not in os.environ:
        pytest.skip("needs MNIST in TINYBILEVEL_DATA")
    code = "import sys; from tinybilevel.cli import main; sys.exit(main(sys.argv[1:]))"
    args = ["reproduce", "table2", "--jobs", "2", "--K", "1", "5", "--out", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", code, *args], stderr=subprocess.PIPE)
    runs = [tmp_path / name for name in ("K1-seed0", "K5-seed0")]
    while not all((run / "metrics.jsonl").exists() for run in runs):
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(2)
    process.terminate()
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143
    assert f"terminated: the runs so far are kept in {tmp_path}/" in error
    assert [(run / "checkpoint.npz").exists() for run in runs] == [True, True]
