"""``tinybilevel run``, as its user types it."""

import json
import sys

import numpy as np
import pytest
from device import install

from tinybilevel.cli import figures, hypercleaning, main
from tinybilevel.cli.folder import Folder
from tinybilevel.cli.hypercleaning import Config, f1
from tinybilevel.outer.checkpoint import load_arrays

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

HYPERCLEANING = ["run", "hypercleaning", "--T", "8", "--K", "3"]
FILES = {
    "checkpoint.npz",
    "config.json",
    "lam.npz",
    "learning_curve.png",
    "metrics.jsonl",
    "rejected.png",
    "result.json",
}


def run(*args):
    return main([str(arg) for arg in args])


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_hypercleaning_leaves_all_its_files(tmp_path, capsys):
    out = tmp_path / "nested" / "run"
    assert run(*HYPERCLEANING, "--iterations", 4, "--out", out) == 0
    assert {path.name for path in out.iterdir()} == FILES
    printed = capsys.readouterr().out
    for word in (
        "test accuracy",
        "validation accuracy",
        "validation loss",
        '"corrupted"',
        "seconds",
    ):
        assert word in printed
    assert [line["iteration"] for line in metrics(out)] == [1, 2, 3, 4]
    losses = [line["validation_loss"] for line in metrics(out)]
    result = json.loads((out / "result.json").read_text())
    assert result["validation_loss"] < losses[-1] < losses[0]
    assert json.loads((out / "config.json").read_text())["settings"]["K"] == 3
    saved = load_arrays(out / "lam.npz")
    assert saved["lam"].shape == (600,)
    assert saved["lam"].dtype == np.float32
    assert np.mean(saved["labels"] != saved["true_labels"]) == 0.5


def test_resume_equals_one_run(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*HYPERCLEANING, "--iterations", 12, "--out", whole) == 0
    assert run(*HYPERCLEANING, "--iterations", 5, "--out", parts) == 0
    assert run(*HYPERCLEANING, "--iterations", 12, "--out", parts, "--resume") == 0
    a, b = (load_arrays(out / "lam.npz") for out in (whole, parts))
    np.testing.assert_array_equal(a["lam"], b["lam"])
    assert metrics(whole) == metrics(parts)


def test_resume_drops_what_was_logged_after_the_last_checkpoint(tmp_path):
    out = tmp_path / "run"
    assert run(*HYPERCLEANING, "--iterations", 5, "--out", out) == 0
    wanted = metrics(out)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 6, "validation_loss": 0.1}\n{"iteration": 7, "valid')
    assert run(*HYPERCLEANING, "--iterations", 5, "--out", out, "--resume") == 0
    assert metrics(out) == wanted


def test_exact_gradient_is_logged_where_it_was_asked_for(tmp_path):
    out = tmp_path / "run"
    assert run(*HYPERCLEANING, "--iterations", 5, "--exact-every", 2, "--out", out) == 0
    assert [line["iteration"] for line in metrics(out) if "exact_grad_norm" in line] == [1, 3, 5]
    first = metrics(out)[0]
    assert first["exact_grad_norm"] > first["grad_norm"] > 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--K", "9"], "K must be at most the horizon T = 8, got 9"),
        (["--K", "-1"], "K must be at least 0, got -1"),
        (["--noise", "1.5"], "noise must lie in [0, 1], got 1.5"),
        (["--lr", "0"], "lr must be greater than 0"),
        (["--data", "mnist", "--data-dir", "nowhere"], "data_dir lacks a file"),
        (["--step-size", "1e30", "--iterations", "1"], "likely cause: step size"),
    ],
)
def test_errors_are_one_line_that_names_the_argument(tmp_path, capsys, args, message):
    assert run(*HYPERCLEANING, *args, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_folder_is_never_overwritten(tmp_path, capsys):
    out = tmp_path / "run"
    assert run(*HYPERCLEANING, "--iterations", 2, "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(*HYPERCLEANING, "--iterations", 2, "--out", out) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(*HYPERCLEANING, "--iterations", 2, "--seed", 1, "--out", out, "--resume") == 2
    assert "'seed': (0, 1)" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    out, log = tmp_path / "run", Folder.log

    def interrupt(self, entry):
        if entry["iteration"] == 3:
            raise KeyboardInterrupt
        log(self, entry)

    monkeypatch.setattr(Folder, "log", interrupt)
    assert run(*HYPERCLEANING, "--iterations", 5, "--out", out) == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.undo()
    assert run(*HYPERCLEANING, "--iterations", 5, "--out", out, "--resume") == 0
    assert [line["iteration"] for line in metrics(out)] == [1, 2, 3, 4, 5]


def test_missing_matplotlib_is_named_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert run(*HYPERCLEANING, "--out", tmp_path / "run") == 2
    assert "pip install matplotlib tqdm" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_toy_reaches_the_minimum(tmp_path, capsys):
    out = tmp_path / "toy"
    assert run("run", "toy", "--iterations", 200, "--out", out) == 0
    assert "exact hypergradient" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert result["exact_grad_norm"] < 1e-4
    step = np.linalg.norm(np.subtract(metrics(out)[1]["lam"], metrics(out)[0]["lam"]))
    assert step == pytest.approx(0.6)
    assert (out / "trajectory.png").stat().st_size > 1000


def test_toy_without_a_first_step_asks_for_a_rate(tmp_path, capsys):
    assert run("run", "toy", "--K", 0, "--out", tmp_path / "toy") == 2
    assert "give lr" in capsys.readouterr().err


def test_f1_counts_corrupted_as_positive():
    corrupted = np.array([True, True, False, False, False])
    marked = np.array([True, False, True, False, False])
    assert f1(marked, corrupted) == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert f1(~marked, ~corrupted) != f1(marked, corrupted)
    assert f1(np.zeros(5, bool), corrupted) == 0


def test_rejected_grid_shows_the_smallest_weights_first(tmp_path):
    lam = np.array([0.0, -5.0, 3.0])
    images, labels, true = np.zeros((3, 2, 2)), np.array([0, 1, 2]), np.array([0, 7, 2])
    drawn = figures.rejected_grid(tmp_path / "grid.png", images, lam, labels, true, count=2)
    assert drawn == ["1 is 7", "0 is right"]


def test_version_and_help(capsys):
    for flag in ("--version", "--help"):
        with pytest.raises(SystemExit) as exit_:
            run(flag)
        assert exit_.value.code == 0
    assert "reproduce" in capsys.readouterr().out


def test_config_is_the_main_job():
    assert Config() == Config("digits", K=5, T=100, iterations=1000, noise=0.5, seed=0, lr=0.3)


def test_a_gpu_finds_what_the_cpu_finds(tmp_path, monkeypatch):
    install(monkeypatch)
    compiled = []
    monkeypatch.setattr(hypercleaning, "compile", lambda problem: compiled.append(1) or problem)
    short = [*HYPERCLEANING, "--iterations", 3, "--exact-every", 2]
    for device in ("cpu", "gpu"):
        assert run(*short, "--device", device, "--out", tmp_path / device) == 0
    assert compiled == [1]
    cpu, gpu = (load_arrays(tmp_path / device / "lam.npz") for device in ("cpu", "gpu"))
    np.testing.assert_allclose(gpu["lam"], cpu["lam"], rtol=1e-4)
    for here, there in zip(metrics(tmp_path / "cpu"), metrics(tmp_path / "gpu"), strict=True):
        assert there == pytest.approx(here, rel=1e-4)


def test_no_gpu(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert run(*HYPERCLEANING, "--device", "gpu", "--out", tmp_path / "run") == 2
    assert "pip install cupy-cuda13x" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_settings_that_an_older_run_does_not_name_are_the_defaults(tmp_path, capsys, monkeypatch):
    install(monkeypatch)
    out = tmp_path / "run"
    assert run(*HYPERCLEANING, "--iterations", 1, "--out", out) == 0
    file = out / "config.json"
    config = json.loads(file.read_text())
    assert config["settings"].pop("device") == "cpu"
    file.write_text(json.dumps(config))
    assert run(*HYPERCLEANING, "--iterations", 2, "--resume", "--out", out) == 0
    monkeypatch.setattr(hypercleaning, "compile", lambda problem: problem)
    assert run(*HYPERCLEANING, "--device", "gpu", "--resume", "--out", out) == 2
    assert "{'device': ('cpu', 'gpu')}" in capsys.readouterr().err
