"""``tinybilevel run task-interaction``, as its user types it, and the trial behind it."""

import json

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.cli import figures, main
from tinybilevel.cli.draws import SETTINGS, Setting, defaults
from tinybilevel.cli.interaction import Judge, free, permuted, relations, same_row_sums, trial
from tinybilevel.outer.checkpoint import load_arrays

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

RNG = np.random.default_rng(0)
FEW = Setting("digits", 30, 30, balanced=True, norm=12.0, iterations=6)
FILES = {
    "checkpoint.npz",
    "checkpoint.npz.lam",
    "config.json",
    "interaction.png",
    "interaction.svg",
    "lam.npz",
    "learning_curve.png",
    "metrics.jsonl",
    "result.json",
}


def run(*args):
    try:
        return main(["run", "task-interaction", *(str(arg) for arg in args)])
    except SystemExit as exit_:  # argparse
        return exit_.code


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def results(out):
    found = json.loads((out / "result.json").read_text())
    return {k: v for k, v in found.items() if k not in ("seconds", "peak_memory_mb")}


def own_pool(path, **more):
    """Write six classes in two superclasses: a class is its superclass and a bit of its own."""
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(6), 20)
    means = 3 * rng.standard_normal((2, 40))[np.arange(6) // 3] + rng.standard_normal((6, 40))
    X = means[y] + 2 * rng.standard_normal((120, 40))
    names = {"class_names": list("abcdef"), "superclasses": ["one"] * 3 + ["two"] * 3}
    np.savez(path, **{"X": X, "y": y, **names, **more})
    return path


def test_a_run_leaves_all_its_files_and_says_what_it_found(tmp_path, capsys):
    out = tmp_path / "nested" / "run"
    assert run("--iterations", 8, "--out", out) == 0
    assert {path.name for path in out.iterdir()} == FILES
    printed = capsys.readouterr().out
    for words in (
        "test accuracy, learned C",
        "no interaction",
        "the same numbers between the wrong pairs",
        "the same row sums alone",
        "pairs with weight",
        "of 45",
    ):
        assert words in printed
    result, lines = results(out), metrics(out)
    assert [line["iteration"] for line in lines] == list(range(1, 9))
    assert result["validation_loss"] < lines[-1]["validation_loss"] < lines[0]["validation_loss"]
    assert result["test_accuracy_best_loss"] == result["test_accuracy_last"]  # here it is the last
    saved = load_arrays(out / "lam.npz")
    assert (saved["C"].shape, saved["train_index"].shape) == ((10, 10), (50,))
    np.testing.assert_array_equal(saved["C"], tb.problems.interactions(saved["lam"]))
    settings = json.loads((out / "config.json").read_text())["settings"]
    assert {name: settings[name] for name in vars(SETTINGS["digits"]) if name != "iterations"} == {
        name: value for name, value in vars(SETTINGS["digits"]).items() if name != "iterations"
    }


def test_a_run_is_the_trial_of_the_table(tmp_path):
    out = tmp_path / "run"
    options = [
        "--norm",
        12,
        "--n-train",
        30,
        "--n-val",
        30,
        "--iterations",
        6,
        "--K",
        5,
        "--seed",
        3,
    ]
    assert run(*options, "--out", out) == 0
    found, result = trial(FEW, 3, Ks=[5]), results(out)
    assert result["test_accuracy_no_interaction"] == found["none"].accuracy
    assert result["test_accuracy_last"] == found["K5"].accuracy_last
    assert [line["validation_loss"] for line in metrics(out)] == [
        entry["loss"] for entry in found["K5"].curve
    ]
    best = [line["validation_accuracy"] for line in metrics(out)]
    if result["validation_accuracy"] == max(best):  # else the last λ, which a trial leaves out
        assert result["test_accuracy"] == found["K5"].accuracy
        assert result["test_accuracy_permuted"] == found["permuted"].accuracy
        assert result["test_accuracy_row_sums"] == found["row sums"].accuracy
        assert result["rho"] == found["K5"].lam[-1]


def test_the_iterate_of_best_validation_accuracy_is_reported(tmp_path):
    out = tmp_path / "run"
    assert run("--iterations", 12, "--out", out) == 0
    result, saved = results(out), load_arrays(out / "lam.npz")
    judge = Judge.of(SETTINGS["digits"], 0, None)
    w = tb.KRMD(K=0)(judge.problem, saved["lam"]).w
    assert judge.test_accuracy(w) == result["test_accuracy"]
    assert judge.validation_accuracy(w) == result["validation_accuracy"]
    assert all(
        line["validation_accuracy"] <= result["validation_accuracy"] for line in metrics(out)
    )
    X = np.c_[judge.split.X_test, np.ones(len(judge.split.X_test))]
    predicted = judge.problem.upper.predict(w, X)
    assert np.mean(predicted == judge.split.y_test) == result["test_accuracy"]


def test_resume_equals_one_run(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run("--iterations", 9, "--out", whole) == 0
    assert run("--iterations", 4, "--out", parts) == 0
    with (parts / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 5, "validation_loss": 0.1}\n{"iteration": 6, "valid')
    assert run("--iterations", 9, "--out", parts, "--resume") == 0
    assert metrics(whole) == metrics(parts)
    assert results(whole) == results(parts)
    assert run("--iterations", 9, "--out", parts) == 2


def test_a_file_of_ones_own(tmp_path, capsys, monkeypatch):
    drawn = []
    draw = figures.interaction
    monkeypatch.setattr(figures, "interaction", lambda *args: drawn.append(args) or draw(*args))
    file, out = own_pool(tmp_path / "own.npz"), tmp_path / "run"
    assert defaults(str(file)) == Setting(str(file), 30, 30, balanced=True)
    assert run("--data", file, "--norm", 6, "--iterations", 30, "--out", out) == 0
    assert "within superclasses" in capsys.readouterr().out
    relations = results(out)["relations"]
    assert relations["mean_C_within"] > relations["mean_C_between"]
    assert relations["pairs"] == 15
    assert drawn[0][2:4] == (tuple("abcdef"), ("one",) * 3 + ("two",) * 3)
    assert load_arrays(out / "lam.npz")["class_names"].tolist() == list("abcdef")


def test_a_folder_is_named_by_what_is_not_usual_for_the_data(tmp_path, monkeypatch):
    own_pool(tmp_path / "own.npz")
    monkeypatch.chdir(tmp_path)
    assert run("--data", "own.npz", "--norm", 6, "--iterations", 2) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [
        "task-interaction-own-norm6.0-K100-seed0"
    ]


def test_leaving_the_stable_region_is_one_line_and_projection_stays_inside(tmp_path, capsys):
    args = ["--norm", 18.2, "--iterations", 6, "--lr", 0.01]
    assert run(*args, "--out", tmp_path / "free") == 0
    errors = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(errors) == 1
    assert "γ (β + 2ρ + 8 max row sum of C) is" in errors[0]
    assert "not below 2" in errors[0]
    result = results(tmp_path / "free")
    assert len(result["warnings"]) == 1
    assert result["row_bound"] > 2
    assert run(*args, "--norm", 15, "--project", "--out", tmp_path / "held") == 0
    result = results(tmp_path / "held")
    assert "warning" not in capsys.readouterr().err
    assert result["warnings"] == []
    assert 1.9 < result["row_bound"] < 2
    again = [*args[:2], "--iterations", 7, "--lr", 0.01, "--norm", 15, "--project", "--resume"]
    assert run(*again, "--out", tmp_path / "held") == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--K", "101"], "K must be at most the horizon T = 100, got 101"),
        (["--K", "0"], "argument --K: must be a whole number, at least 1"),
        (["--norm", "0"], "argument --norm: must be a number above 0, got '0'"),
        (["--n-train", "0"], "argument --n-train: must be a whole number, at least 1"),
        (["--n-train", "51"], "n_train must be a multiple of the 10 classes, got 51"),
        (["--n-val", "2000", "--no-balanced"], "n_train + n_val must be at most the 1797"),
        (["--data", "svhn"], "argument --data: must be cifar10, cifar100, mnist, fashion"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
        (["--data", "mnist", "--data-dir", "nowhere"], "data_dir lacks a file"),
        (["--data-dir", "here"], "argument --data-dir: digits is not looked for in a folder"),
        (["--norm", "100", "--project"], "is too large for any C and ρ"),
    ],
)
def test_errors_are_one_line_that_names_the_argument(tmp_path, capsys, args, message):
    assert run(*args, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_learning_lowers_the_validation_loss_more_than_the_ridge_alone():
    found = trial(FEW, 0, Ks=[1, 100], exact_every=5)
    assert found["K100"].best_loss < found["K1"].best_loss < found["none"].best_loss
    assert set(found) == {"none", "K1", "K100", "permuted", "row sums"}
    assert not any(found["none"].lam[:-1])
    lam, other = (np.array(found[name].lam) for name in ("K100", "permuted"))
    np.testing.assert_allclose(np.sort(lam[:-1]), np.sort(other[:-1]), rtol=1e-6)
    assert lam[-1] == other[-1]
    first = found["K1"].curve[0]
    assert 0 < first["cosine_free"] < 1
    assert found["K100"].curve[5]["cosine"] == pytest.approx(1, abs=1e-6)
    assert "cosine" not in found["K1"].curve[1]
    assert found["K100"].curve[0]["projected_norm"] == first["projected_norm"]


def test_a_draw_is_of_what_the_setting_says():
    judge = Judge.of(FEW, 0, None)
    assert np.bincount(judge.split.y_train).tolist() == [3] * 10
    assert judge.split.X_train.shape == (30, 30)  # the row space of 64 columns
    assert np.linalg.norm(judge.split.X_train, axis=1) == pytest.approx(12, rel=1e-4)


def test_a_control_has_the_same_row_sums_and_nothing_more():
    C = np.triu(RNG.random((7, 7)) * (RNG.random((7, 7)) < 0.7), 1)
    C = C + C.T
    D = same_row_sums(C)
    np.testing.assert_allclose(D.sum(axis=1), C.sum(axis=1), rtol=1e-9)
    np.testing.assert_array_equal(D, D.T)
    np.testing.assert_array_equal(np.diag(D), 0)
    # x_i x_j: each product of opposite corners is the other's.
    assert D[0, 1] * D[2, 3] == pytest.approx(D[0, 3] * D[2, 1], rel=1e-12)
    np.testing.assert_array_equal(same_row_sums(np.zeros((3, 3))), np.zeros((3, 3)))


def test_a_permuted_matrix_has_the_same_numbers():
    C = RNG.random((5, 5))
    C = C + C.T
    D = permuted(C, 0)
    np.testing.assert_array_equal(D, D.T)
    np.testing.assert_allclose(np.linalg.eigvalsh(C), np.linalg.eigvalsh(D), rtol=1e-12)
    assert (D != C).any()


def test_free_coordinates_are_those_that_the_bounds_let_move():
    lam, most = np.array([0.0, 0.0, 1.0, 1.0, 0.0]), np.array([9.0, 9.0, 9.0, 1.0, 0.0])
    up, down = -np.ones(5), np.ones(5)
    np.testing.assert_array_equal(free(lam, up, most), [True, True, True, False, False])
    np.testing.assert_array_equal(free(lam, down, most), [False, False, True, True, False])


def test_relations_say_which_pairs_got_weight():
    pool = tb.data.Pool("p", np.zeros((0, 1)), np.zeros(0, int), ("a", "b", "c"), ("x", "y", "x"))
    C = np.array([[0, 1, 4.0], [1, 0, 0], [4, 0, 0]])
    assert relations(C, pool) == {
        "pairs": 3,
        "pairs_above_0": 2,
        "mean_C": 5 / 3,
        "mean_C_within": 4.0,
        "mean_C_between": 0.5,
        "top": [("a", "c", 4.0), ("a", "b", 1.0)],
    }


@pytest.mark.parametrize("V", [4, 40])
@pytest.mark.parametrize("grouped", [True, False])
def test_the_heat_map_is_ordered_by_superclass(tmp_path, monkeypatch, V, grouped):
    seen = []
    monkeypatch.setattr(figures, "_save", lambda figure, stem: seen.append(figure) or [stem])
    C = RNG.random((V, V))
    names = [f"class_{i}" for i in range(V)]
    above = [f"above_{1 - i % 2}" for i in range(V)] if grouped else None
    figures.interaction(tmp_path / "x", C, names, above, "title")
    axis = seen[0].axes[0]
    order = [*range(1, V, 2), *range(0, V, 2)] if grouped else list(range(V))
    if grouped:
        order.sort(key=lambda i: (above[i], names[i]))
    np.testing.assert_array_equal(axis.images[0].get_array(), C[np.ix_(order, order)])
    labels = [label.get_text() for label in axis.get_yticklabels()]
    if grouped and V > 30:
        assert labels == ["above 0", "above 1"]
        assert axis.get_yticks().tolist() == [9.5, 29.5]
    else:
        assert labels == [f"class {i}" for i in order]
    assert len(axis.lines) == 2 * grouped
