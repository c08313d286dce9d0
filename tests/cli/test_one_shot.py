"""``tinybilevel run one-shot``, as its user types it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tinybilevel import data
from tinybilevel.cli import figures, main, one_shot
from tinybilevel.cli.folder import finished
from tinybilevel.cli.one_shot import Config, characters, defaults
from tinybilevel.data import DataError
from tinybilevel.outer.checkpoint import load_arrays

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

SMALL = ["--data", "digits", "--T", "3", "--K", "2", "--filters", "4", "--test-tasks", "4"]
FILES = {
    "checkpoint.npz",
    "checkpoint.npz.lam",
    "config.json",
    "lam.npz",
    "learning_curve.png",
    "metrics.jsonl",
    "result.json",
    "task.png",
}


def run(*args):
    try:
        return main(["run", "one-shot", *(str(arg) for arg in args)])
    except SystemExit as exit_:  # argparse
        return exit_.code


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_all_its_files_and_says_what_it_found(tmp_path, capsys):
    out = tmp_path / "nested" / "run"
    assert run(*SMALL, "--iterations", 3, "--out", out) == 0
    assert {path.name for path in out.iterdir()} == FILES
    printed = capsys.readouterr()
    for words in (
        "one-shot, digits, 5 classes",
        "4 tasks of 12 classes that were not trained on",
        "statistics of the support set",
        "before learning",
    ):
        assert words in printed.out
    assert "of the query images right" in printed.err
    assert [line["iteration"] for line in metrics(out)] == [1, 2, 3]
    assert all(0 <= line["accuracy"] <= 1 for line in metrics(out))
    result, saved = json.loads((out / "result.json").read_text()), load_arrays(out / "lam.npz")
    assert result["test_accuracy"] == pytest.approx(saved["shares"].mean())
    assert result["test_accuracy_support"] == pytest.approx(saved["shares_support"].mean())
    assert (result["train_tasks"], result["train_images"]) == (3, 3 * 5 * 6)
    assert saved["lam"].dtype == np.float32
    np.testing.assert_array_equal(saved["kept_iterations"], [1, 2, 3])
    config = replace(defaults("digits"), T=3, filters=4, test_tasks=4)
    problems, (_, test) = one_shot.family(config, 8), characters(config)
    tasks = one_shot._test_tasks(config, test)
    before = problems.evaluate(saved["kept"][0], tasks)["query"].mean
    assert result["test_accuracy_start"] == pytest.approx(before)
    assert before != pytest.approx(result["test_accuracy"]), "or nothing is told apart here"
    np.testing.assert_array_equal(saved["kept"][0], one_shot.start(defaults("digits"), problems))
    assert (saved["kept"][-1] != saved["lam"]).any()


def test_resume_equals_one_run(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [*SMALL, "--schedule", 4, "--tasks", 2]
    assert run(*options, "--iterations", 4, "--out", whole) == 0
    assert run(*options, "--iterations", 2, "--out", parts) == 0
    assert run(*options, "--iterations", 4, "--out", parts, "--resume") == 0
    a, b = (load_arrays(out / "lam.npz") for out in (whole, parts))
    np.testing.assert_array_equal(a["lam"], b["lam"])
    assert metrics(whole) == metrics(parts)
    assert run(*SMALL, "--tasks", 2, "--iterations", 6, "--out", parts, "--resume") == 2
    assert "schedule was 4, is now 6" in capsys.readouterr().err


def test_a_result_is_that_of_all_updates(tmp_path, monkeypatch):
    out, options = tmp_path / "run", [*SMALL, "--schedule", 4]
    assert run(*options, "--iterations", 2, "--out", out) == 0
    config = replace(
        defaults("digits"), K=2, T=3, filters=4, test_tasks=4, schedule=4, iterations=2
    )
    assert finished(out, config)["iterations"] == 2

    def stop(*args, **kwargs):
        raise ValueError("killed")

    monkeypatch.setattr(one_shot, "minimize", stop)
    assert run(*options, "--iterations", 4, "--out", out, "--resume") == 2
    assert finished(out, replace(config, iterations=4)) is None


def test_the_digits_stand_in_where_omniglot_is_not_found(tmp_path, capsys, monkeypatch):
    def missing(data_dir):
        raise DataError("omniglot_28.npz is not downloaded: no network")

    monkeypatch.setattr(data, "omniglot", missing)
    monkeypatch.chdir(tmp_path)
    small = SMALL[2:]
    assert run(*small, "--iterations", 1) == 0
    printed = capsys.readouterr()
    assert "no network" in printed.err
    assert "scikit-learn's digits stand in" in printed.err
    assert "one-shot, digits" in printed.out
    assert [path.name[:18] for path in (tmp_path / "runs").iterdir()] == ["one-shot-digits-K2"]
    assert run("--data", "omniglot", *small, "--iterations", 1) == 2


def test_omniglot_is_what_runs_where_it_is(tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1204, 6, 8, 8), dtype=np.uint8)
    found = data.Characters("omniglot", images, ("A",) * 1204, tuple(map(str, range(1204))))
    monkeypatch.setattr(data, "omniglot", lambda data_dir: found)
    assert run(*SMALL[2:], "--ways", 3, "--iterations", 1, "--out", tmp_path / "run") == 0
    assert "one-shot, omniglot, 3 classes" in capsys.readouterr().out


def test_no_class_is_on_both_sides():
    train, test = characters(Config("digits"))
    assert (len(train), len(test)) == (28, 12)
    assert not {name[0] for name in train.characters} & {name[0] for name in test.characters}
    fewer, held_out = characters(Config("digits", held_out=8))
    assert (len(fewer), len(held_out)) == (20, 8)
    assert fewer.characters + held_out.characters == train.characters
    with pytest.raises(ValueError, match="held_out must be less than the 28 training classes"):
        characters(Config("digits", held_out=28))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--K", "9"], "K must be at most the horizon T = 3, got 9"),
        (["--ways", "13"], "ways must be at most 12 for digits, got 13"),
        (["--lr", "0"], "argument --lr: must be a number above 0, got '0'"),
        (["--shots", "0"], "argument --shots: must be a whole number, at least 1"),
        (["--data-dir", "here"], "argument --data-dir: the digits come with scikit-learn"),
        (["--rotations"], "argument --rotations: the digits are turned already"),
    ],
)
def test_errors_are_one_line_that_names_the_argument(tmp_path, capsys, args, message):
    assert run(*SMALL, *args, "--iterations", 1, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_the_picture_shows_what_was_taken_for_what(tmp_path):
    train, _ = characters(Config("digits"))
    task = train.draw(ways=2, shots=1, queries=3, seed=0)
    predicted = np.array([0, 1, 0, 1, 1, 0])
    found = figures.one_shot_task(tmp_path / "task.png", task, predicted, ["a", "b"], count=2)
    assert found == ["1", "2", "2", "2"]
    assert (tmp_path / "task.png").stat().st_size > 1000


def test_the_rates_are_those_of_the_configuration():
    config = Config(schedule=10)
    problems = one_shot.family(config, 28)
    optimizer = one_shot.optimizer(config, problems.layout)
    lam = one_shot.start(config, problems)
    grad = np.ones_like(lam)
    moved, _ = optimizer.update(1, lam, grad, optimizer.init(lam))
    step = problems.layout.unpack(lam - moved)
    for name, rate in (("front", 2e-3), ("c", 2e-3), ("log_rho", 1e-4), ("log_gamma", 1e-4)):
        np.testing.assert_allclose(step[name], rate, rtol=0.05)
    assert optimizer.norm == 1
    rho = np.exp(problems.layout.unpack(lam)["log_rho"])
    np.testing.assert_allclose(rho, [5, 5, 5, 5, 5, 5, 1.5, 1.5], rtol=1e-6)
