"""``tinybilevel run``, as its user types it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from device import install

import tinybilevel as tb
from tinybilevel import cli
from tinybilevel.cli import figures, hypercleaning, main
from tinybilevel.cli.arguments import kept_warnings
from tinybilevel.cli.folder import Folder
from tinybilevel.cli.hypercleaning import Config, scores
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
    try:
        return main([str(arg) for arg in args])
    except SystemExit as exit_:  # argparse
        return exit_.code


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_hypercleaning_leaves_all_its_files(tmp_path, capsys):
    out = tmp_path / "nested" / "run"
    assert run(*HYPERCLEANING, "--iterations", 4, "--out", out) == 0
    assert {path.name for path in out.iterdir()} == FILES
    printed = capsys.readouterr().out
    for word in (
        "test accuracy, cleaned",
        "without cleaning",
        "of the 600 clean rows alone",
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


def test_the_compiled_loop_finds_what_numpy_finds(tmp_path, capsys, monkeypatch):
    pytest.importorskip("numba")
    short = [*HYPERCLEANING, "--iterations", 8, "--exact-every", 4]
    fast, plain = tmp_path / "fast", tmp_path / "plain"
    assert run(*short, "--out", fast) == 0
    assert "seconds, compiled" in capsys.readouterr().out
    monkeypatch.setattr(hypercleaning, "find_spec", lambda name: None)
    assert run(*short, "--out", plain) == 0
    assert "seconds, step by step" in capsys.readouterr().out
    for out, compiled in ((fast, True), (plain, False)):
        for file in ("result.json", "config.json"):
            assert json.loads((out / file).read_text())["compiled"] is compiled
    for here, there in zip(metrics(fast), metrics(plain), strict=True):
        assert here == pytest.approx(there, rel=1e-4)
    a, b = (load_arrays(out / "lam.npz") for out in (fast, plain))
    np.testing.assert_allclose(a["lam"], b["lam"], atol=1e-3)


@pytest.mark.parametrize("first", ["compiled", "step by step"])
def test_a_run_that_was_begun_one_way_goes_on_the_other(tmp_path, capsys, monkeypatch, first):
    pytest.importorskip("numba")
    out, whole = tmp_path / "run", tmp_path / "whole"

    def go(way, folder, iterations, *more):
        spec = importlib.util.find_spec if way == "compiled" else lambda name: None
        monkeypatch.setattr(hypercleaning, "find_spec", spec)
        assert run(*HYPERCLEANING, "--iterations", iterations, "--out", folder, *more) == 0
        return capsys.readouterr().err

    second = {"compiled": "step by step", "step by step": "compiled"}[first]
    go(first, whole, 10)
    go(first, out, 5)
    said = go(second, out, 10, "--resume")
    assert f"was run {first} so far, and goes on {second}: the same but for rounding" in said
    assert json.loads((out / "result.json").read_text())["compiled"] is (second == "compiled")
    for here, there in zip(metrics(out), metrics(whole), strict=True):
        assert here == pytest.approx(there, rel=1e-4)
    said = go(first, out, 10, "--resume")
    assert "goes on" not in said, "there is nothing to go on with"


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
        (["--K", "0"], "argument --K: must be a whole number, at least 1, got '0'"),
        (["--K", "2.5"], "argument --K: must be a whole number, at least 1, got '2.5'"),
        (["--T", "0"], "argument --T: must be a whole number, at least 1"),
        (["--iterations", "0"], "argument --iterations: must be a whole number, at least 1"),
        (["--seed", "-3"], "argument --seed: must be a whole number, at least 0, got '-3'"),
        (["--exact-every", "-1"], "argument --exact-every: must be a whole number, at least 0"),
        (["--noise", "1.5"], "argument --noise: must be a share, from 0 to 1, got '1.5'"),
        (["--noise", "nan"], "argument --noise: must be a share"),
        (["--noise", "half"], "argument --noise: must be a share, from 0 to 1, got 'half'"),
        (["--lr", "0"], "argument --lr: must be a number above 0, got '0'"),
        (["--lr", "inf"], "argument --lr: must be a number above 0, got 'inf'"),
        (["--step-size", "-1"], 'argument --step-size: must be a number above 0, or "auto"'),
        (["--step-size", "fast"], """or "auto", got 'fast'"""),
        (["--data-dir", "here"], "argument --data-dir: the digits come with scikit-learn"),
        (["--data", "mnist", "--data-dir", "nowhere"], "data_dir lacks a file"),
        (["--step-size", "1e30", "--iterations", "1", "--allow-unstable"], "likely cause: step"),
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
    assert "seed was 0, is now 1" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("folder", ["x", "x/y/z"])
@pytest.mark.parametrize(
    "command",
    [
        *(["run", name] for name in ("toy", "hypercleaning", "task-interaction", "one-shot")),
        *(["reproduce", f"table{k}"] for k in (2, 3, 4)),
        *(["reproduce", f"figure{k}"] for k in (5, 6, 7)),
    ],
    ids=" ".join,
)
def test_a_file_in_place_of_a_folder_is_named(command, folder, tmp_path, capsys):
    (tmp_path / "x").write_text("mine")
    assert main([*command, "--out", str(tmp_path / folder)]) == 2
    assert f"{tmp_path / 'x'} is a file: name a folder" in capsys.readouterr().err


def test_python_runs_the_command_line_as_a_module():
    command = [sys.executable, "-m", "tinybilevel", "run", "--help"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage: tinybilevel run")


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


def test_toy_without_a_step_back_is_refused(tmp_path, capsys):
    assert run("run", "toy", "--K", 0, "--out", tmp_path / "toy") == 2
    assert "argument --K: must be a whole number, at least 1" in capsys.readouterr().err


def test_the_scores_count_corrupted_as_positive():
    corrupted = np.array([True, True, True, False, False])
    marked = np.array([True, False, False, True, False])
    found = scores(marked, corrupted)
    assert found == {"precision": 1 / 2, "recall": 1 / 3, "f1": pytest.approx(2 / 5)}
    nothing = np.zeros(5, bool)
    assert scores(nothing, corrupted) == {"precision": None, "recall": 0, "f1": 0}
    assert scores(marked, nothing) == {"precision": 0, "recall": None, "f1": 0}


def test_the_result_holds_what_the_table_says(tmp_path, capsys):
    out = tmp_path / "run"
    assert run("run", "hypercleaning", "--iterations", 60, "--out", out) == 0
    printed = capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    saved = load_arrays(out / "lam.npz")
    marked, wrong = saved["lam"] < -3, saved["labels"] != saved["true_labels"]
    hits = int((marked & wrong).sum())
    assert 0 < hits < marked.sum()
    counts = (result["rejected_and_corrupted"], result["rejected"], result["corrupted"])
    assert counts == (hits, marked.sum(), wrong.sum())
    assert result["precision"] == hits / marked.sum()
    assert result["recall"] == hits / wrong.sum()
    assert f"precision, {hits} of {marked.sum()} rejected" in printed
    assert f"recall, {hits} of 300 corrupted" in printed
    assert (result["iterations"], result["step_size"], result["warnings"]) == (60, 1.0, [])


def test_the_two_baselines_are_classifiers_of_their_own(tmp_path):
    out = tmp_path / "run"
    assert run("run", "hypercleaning", "--iterations", 1, "--noise", 0, "--out", out) == 0
    result = json.loads((out / "result.json").read_text())
    rng = np.random.default_rng(0)
    split = tb.data.digits().split(seed=rng)

    def accuracy(X, y, lam):
        problem = tb.problems.hypercleaning(X, y, split.X_val, split.y_val)
        w = tb.KRMD(K=0)(problem, np.full(len(X), lam, np.float32)).w
        predicted = problem.upper.predict(w, tb.problems.append_bias(split.X_test))
        return float((predicted == split.y_test).mean())

    assert result["test_accuracy_uncleaned"] == accuracy(split.X_train, split.y_train, 0.0)
    assert result["test_accuracy_clean_rows"] == accuracy(split.X_val, split.y_val, 30.0)
    assert (result["corrupted"], result["recall"]) == (0, None)


def test_a_step_size_beyond_what_the_curvature_allows_is_refused(tmp_path, capsys):
    out = tmp_path / "run"
    unstable = [*HYPERCLEANING, "--iterations", 2, "--step-size", 100, "--out", out]
    assert run(*unstable) == 2
    error = capsys.readouterr().err
    assert "step size γ = 100 against smoothness β ≈ 0.57 at w_0 (stable for γ < 3.51" in error
    assert "--step-size auto takes one that does; --allow-unstable goes on with this" in error
    assert not out.exists()

    assert run(*unstable, "--allow-unstable") == 0
    error = capsys.readouterr().err
    assert "tinybilevel: warning: the lower level does not settle: step size" in error
    assert "tinybilevel: warning: the validation loss ended at " in error
    result = json.loads((out / "result.json").read_text())
    assert "step size γ = 100" in result["warnings"][0]
    assert any("of a classifier that knows nothing" in text for text in result["warnings"])
    assert result["validation_loss"] > np.log(10)


def test_auto_is_one_over_the_smoothness(tmp_path):
    out = tmp_path / "run"
    assert run(*HYPERCLEANING, "--iterations", 2, "--step-size", "auto", "--out", out) == 0
    rng = np.random.default_rng(0)
    split = tb.data.digits().split(seed=rng)
    X = tb.problems.append_bias(split.X_train).astype(np.float64)
    p = np.full(10, 0.1)  # at W = 0
    H = np.kron(np.diag(p) - np.outer(p, p), 0.5 * X.T @ X / 600)
    beta = np.linalg.eigvalsh(H)[-1] + 2e-3 / 600
    result = json.loads((out / "result.json").read_text())
    assert result["step_size"] == pytest.approx(1 / beta, rel=1e-3)
    assert result["warnings"] == []
    assert json.loads((out / "config.json").read_text())["settings"]["step_size"] == "auto"


@pytest.mark.data
def test_fashion_mnist_is_refused_at_the_step_size_of_table_2(tmp_path, capsys):
    if "TINYBILEVEL_DATA" not in os.environ:
        pytest.skip("needs Fashion-MNIST in TINYBILEVEL_DATA")
    fashion = ["run", "hypercleaning", "--data", "fashion", "--T", 2, "--K", 1, "--iterations", 1]
    assert run(*fashion, "--out", tmp_path / "one") == 2
    assert "step size γ = 1 against smoothness" in capsys.readouterr().err
    assert run(*fashion, "--step-size", "auto", "--out", tmp_path / "auto") == 0
    assert capsys.readouterr().err.count("warning") == 0


def test_folders_are_named_by_what_differs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ["run", "hypercleaning", "--iterations", 1, "--T", 8]
    assert run(*short) == 0
    assert run(*short, "--noise", 0.25, "--K", 2) == 0
    assert run("run", "toy", "--iterations", 2, "--biased") == 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "hypercleaning-digits-K5-T8-seed0",
        "hypercleaning-digits-K2-T8-noise0.25-seed0",
        "toy-K1-biased",
    }
    assert run(*short) == 2
    assert "holds a run already: --resume continues it" in capsys.readouterr().err


def test_fewer_iterations_than_there_are_add_none_and_say_so(tmp_path, capsys):
    out = tmp_path / "run"
    assert run(*HYPERCLEANING, "--iterations", 6, "--out", out) == 0
    capsys.readouterr()
    assert run(*HYPERCLEANING, "--iterations", 4, "--out", out, "--resume") == 0
    printed = capsys.readouterr()
    assert "holds 6 updates of λ: 4 in all adds none" in printed.err
    assert "K = 3, 6 iterations" in printed.out
    assert json.loads((out / "result.json").read_text())["iterations"] == 6
    assert json.loads((out / "config.json").read_text())["settings"]["iterations"] == 6


def test_resume_without_a_run_says_that_it_starts_one(tmp_path, capsys):
    out = tmp_path / "mistyped"
    assert run("run", "toy", "--iterations", 2, "--out", out, "--resume") == 0
    assert f"no run in {out} yet" in capsys.readouterr().err


def test_a_toy_is_no_hypercleaning_whatever_the_numbers(tmp_path, capsys):
    out = tmp_path / "run"
    same = ["--K", 3, "--T", 8, "--lr", 0.3, "--iterations", 2, "--out", out]
    assert run("run", "toy", *same) == 0
    assert run("run", "hypercleaning", *same, "--resume") == 2
    assert "biased was False, is now absent" in capsys.readouterr().err


def test_files_of_others_are_not_written_over(tmp_path, capsys):
    (tmp_path / "result.json").write_text("mine")
    assert run("run", "toy", "--iterations", 2, "--out", tmp_path) == 2
    assert "holds no run, but result.json" in capsys.readouterr().err
    assert (tmp_path / "result.json").read_text() == "mine"


def test_a_damaged_config_is_named(tmp_path, capsys):
    out = tmp_path / "run"
    assert run("run", "toy", "--iterations", 2, "--out", out) == 0
    (out / "config.json").write_text('{"settings": {"K"')
    assert run("run", "toy", "--iterations", 2, "--out", out, "--resume") == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_sigterm_saves_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    code = "import sys; from tinybilevel.cli import main; sys.exit(main(sys.argv[1:]))"
    args = ["run", "toy", "--iterations", "1000000", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-c", code, *args], stderr=subprocess.PIPE)
    while not (out / "metrics.jsonl").exists() or (out / "metrics.jsonl").stat().st_size < 1000:
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143
    done = int(load_arrays(out / "checkpoint.npz")["iteration"])
    assert f"terminated: {done} updates of λ are saved in {out}/" in error
    assert "the same command with --resume goes on" in error
    assert done > 3


@pytest.mark.parametrize(
    "command",
    ["run", "run hypercleaning", "run toy", "reproduce", "reproduce table2", "reproduce figure3"],
)
def test_every_help_has_an_example_that_parses(capsys, command):
    assert run(*command.split(), "--help") == 0
    printed = capsys.readouterr().out
    examples = re.findall(r"^  tinybilevel (.+)$", printed, flags=re.MULTILINE)
    assert examples
    for example in examples:
        cli._parser().parse_args(example.split())
    for option in re.findall(r"^  (--[\w-]+) \S", printed, flags=re.MULTILINE):
        if option not in ("--data-dir", "--allow-unstable", "--resume", "--biased"):
            text = printed[printed.index(f"  {option} ") :].split("\n  --")[0]
            assert "default" in text, option


def test_warnings_are_one_line_each_and_kept(capsys):
    with cli._one_line_warnings(), kept_warnings(tb.ConvergenceWarning) as found:
        for message in ("not there yet", "not there yet", "nor now"):
            warnings.warn(message, tb.ConvergenceWarning, stacklevel=1)
    assert found == ["not there yet", "nor now"]
    assert capsys.readouterr().err == (
        "tinybilevel: warning: not there yet\ntinybilevel: warning: nor now\n"
    )


def test_rejected_grid_shows_the_smallest_weights_first(tmp_path):
    lam = np.array([0.0, -5.0, 3.0])
    images, labels, true = np.zeros((3, 2, 2)), np.array([0, 1, 2]), np.array([0, 7, 2])
    drawn = figures.rejected_grid(tmp_path / "grid.png", images, lam, labels, true, count=2)
    assert drawn == ["1 is 7", "0 is right"]


def test_version_and_help(capsys):
    for flag in ("--version", "--help"):
        assert run(flag) == 0
    assert "reproduce" in capsys.readouterr().out


def test_config_is_the_main_job():
    assert Config() == Config("digits", K=5, T=100, iterations=1000, noise=0.5, seed=0, lr=0.3)


def test_a_gpu_finds_what_the_cpu_finds(tmp_path, monkeypatch):
    install(monkeypatch)
    compiled = []

    def compile(problem):
        compiled.append(type(problem.lam0).__name__)
        return problem

    monkeypatch.setattr(hypercleaning, "compile", compile)
    short = [*HYPERCLEANING, "--iterations", 3, "--exact-every", 2]
    for device in ("cpu", "gpu"):
        assert run(*short, "--device", device, "--out", tmp_path / device) == 0
    assert compiled[-1] == "DeviceArray"
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
    assert "settings: device was cpu, is now gpu\n" in capsys.readouterr().err
