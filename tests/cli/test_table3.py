"""``tinybilevel reproduce table3`` and ``figure6``: trials are shared, finished ones kept."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tinybilevel.cli import draws, figures, interaction, main, table3
from tinybilevel.cli.draws import Setting
from tinybilevel.cli.figure6 import mean_curve
from tinybilevel.cli.interaction import Trial

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.fixture
def short(monkeypatch):
    """Let the trials be short, and "cifar10" be digits as well."""
    few = Setting("digits", 20, 20, balanced=True, norm=12.0, iterations=4)
    for name in ("digits", "cifar10"):
        monkeypatch.setitem(draws.SETTINGS, name, few)


def reproduce(what, out, *more):
    try:
        return main(["reproduce", what, "--out", str(out), *map(str, more)])
    except SystemExit as exit_:  # argparse
        return exit_.code


def test_the_table_and_the_figure_share_their_trials(short, tmp_path, capsys, monkeypatch):
    settings = ["--settings", "digits", "cifar10"]
    assert reproduce("table3", tmp_path, *settings, "--trials", 2) == 0
    printed = capsys.readouterr().out
    for words in ("digits, trial 2 of 2: none", "61.11 ± 1.23", "C permuted", "full − row sums"):
        assert words in printed
    assert (tmp_path / "table3.txt").read_text() in printed
    saved = json.loads((tmp_path / "table3.json").read_text())
    methods = {row["method"]: row for row in saved["digits"]["methods"]}
    lines = [json.loads(line) for line in (tmp_path / "digits.jsonl").read_text().splitlines()]
    gains = [100 * (line["K25"]["accuracy"] - line["none"]["accuracy"]) for line in lines]
    assert methods["K25"]["gain"] == pytest.approx(np.mean(gains), rel=1e-12)
    error = abs(gains[0] - gains[1]) / 2  # of a mean of two
    assert methods["K25"]["gain_se"] == pytest.approx(error, rel=1e-12)

    monkeypatch.setattr(table3, "trial", None)  # nothing may be run again
    assert reproduce("figure6", tmp_path, *settings, "--trials", 2) == 0
    for name in ("figure6", "interaction_digits", "interaction_cifar10"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert (tmp_path / f"{name}.svg").exists()
    rows = (tmp_path / "figure6.csv").read_text().splitlines()
    assert rows[0] == "data,K,iteration,loss,projected_norm,cosine_free,cosine"
    assert len(rows) == 1 + 2 * 4 * 5
    loss = float(np.mean([line["K5"]["curve"][2]["loss"] for line in lines]))
    assert f"digits,5,3,{loss!r},,," in rows
    assert sum(row.startswith("digits,1,5,,") for row in rows) == 1  # after the last update
    assert json.loads((tmp_path / "interaction_digits.json").read_text())["pairs"] == 45


def test_one_trial_has_no_spread(short, tmp_path, capsys):
    assert reproduce("table3", tmp_path, "--settings", "digits", "--trials", 1) == 0
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert "NaN" not in (tmp_path / "table3.json").read_text()
    assert " ± " not in printed


def test_a_bound_that_is_left_stands_in_the_line_of_its_trial(short, tmp_path, capsys):
    draws.SETTINGS["digits"] = replace(draws.SETTINGS["digits"], norm=20.0)
    assert reproduce("table3", tmp_path, "--settings", "digits", "--trials", 1) == 0
    printed = capsys.readouterr()
    assert printed.out.count("(steps may grow: bound ") == 1
    assert printed.err == ""


def test_trials_go_on_after_a_half_written_line(short, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert reproduce("table3", whole, "--settings", "digits", "--trials", 2) == 0
    assert reproduce("table3", parts, "--settings", "digits", "--trials", 1) == 0
    with (parts / "digits.jsonl").open("a") as file:
        file.write('{"none": {"accuracy": 0.')
    capsys.readouterr()
    assert reproduce("table3", parts, "--settings", "digits", "--trials", 2) == 0
    assert "trial 1 of 2" not in capsys.readouterr().out

    def scores(out):
        lines = (out / "digits.jsonl").read_text().splitlines()
        return [[(k, v["accuracy"], v["lam"]) for k, v in json.loads(x).items()] for x in lines]

    assert scores(whole) == scores(parts)


def test_an_interrupt_keeps_the_trials_so_far(short, tmp_path, capsys, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(table3, "trial", stop)
    assert reproduce("table3", tmp_path, "--settings", "digits") == 130
    assert f"the trials so far are kept in {tmp_path}/" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--settings", "svhn"], "argument --settings: invalid choice: 'svhn'"),
        (["--trials", "0"], "argument --trials: must be a whole number, at least 1"),
        (["--data-dir", "nowhere"], "data_dir lacks a file"),
    ],
)
def test_refused(tmp_path, capsys, args, message):
    assert reproduce("table3", tmp_path, *args) == 2
    assert message in capsys.readouterr().err


def test_a_mean_curve_leaves_out_what_no_trial_knows():
    first = {"iteration": 1, "loss": 2.0, "projected_norm": 4.0, "cosine_free": float("nan")}
    trials = [
        Trial(0.5, projected_norm=1.0, curve=[{**first, "cosine": 1.0}]),
        Trial(0.5, projected_norm=3.0, curve=[{**first, "cosine": 0.5, "cosine_free": 0.25}]),
    ]
    assert mean_curve(trials) == [
        {**first, "cosine": 0.75, "cosine_free": 0.25},
        {"iteration": 2, "loss": None, "projected_norm": 2.0, "cosine_free": None, "cosine": None},
    ]


def test_the_figure_draws_what_it_is_given(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "_save", lambda figure, stem: seen.append(figure) or [stem])
    line = {"loss": 1.0, "projected_norm": None, "cosine_free": 0.1, "cosine": 0.9}
    lines = [{"iteration": 1, **line}, {"iteration": 2, **line, "projected_norm": 3.0}]
    figures.interaction_curves(tmp_path / "x", {"A": {"K = 1": lines, "full": lines}, "B": {}})
    loss, norm, cosine = seen[0].axes[:3]
    assert [list(x.get_xdata()) for x in loss.lines] == [[1, 2], [1, 2]]
    assert [list(x.get_ydata()) for x in norm.lines] == [[3.0], [3.0]]
    assert [x.get_linestyle() for x in cosine.lines[:2]] == ["-", "--"]
    assert [list(x.get_ydata()) for x in cosine.lines[:2]] == [[0.1, 0.1], [0.9, 0.9]]


def test_omniglot_draws_twenty_characters_of_two_alphabets():
    from tinybilevel import data

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (34, 20, 4, 4), dtype=np.uint8)
    alphabets = ("A",) * 12 + ("B",) * 12 + ("small",) * 10
    few = data.Characters("x", images, alphabets, tuple(map(str, range(34))))
    pool = draws._two_alphabets(few, 0)
    assert pool.X.shape == (400, 16)
    assert len(set(pool.class_names)) == 20
    assert [pool.superclasses.count(a) for a in dict.fromkeys(pool.superclasses)] == [10, 10]
    assert interaction.relations(np.zeros((20, 20)), pool)["pairs"] == 190
