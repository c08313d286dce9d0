"""Figures 1 to 4: what the files hold, against the statements and the text of Section 4.1."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

import tinybilevel as tb

pytest.importorskip("matplotlib", reason="figures need it")

from tinybilevel.cli import main, theory


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theory, "ITERATIONS", 100)
        for number in range(1, 5):
            assert main(["reproduce", f"figure{number}", "--out", str(folder)]) == 0
    return folder


def table(path):
    return np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_pictures_are_whole(out, number):
    assert (out / f"figure{number}.png").read_bytes().startswith(b"\x89PNG")
    root = ET.parse(out / f"figure{number}.svg").getroot()
    assert root.tag.endswith("svg")
    assert len(list(root.iter())) > 100


def test_figure_1_holds_both_sides_of_eq_10(out):
    data = table(out / "figure1.csv")
    np.testing.assert_array_equal(data["K"], np.arange(101))
    for K in (0, 7, 99, 100):
        b = tb.bounds.proposition_3_1(tb.problems.toy(), [1.0, 1.0], K)
        assert tuple(data[K])[1:] == pytest.approx((b.error, b.eq_10), rel=1e-12, abs=0)
    assert (data["error"] <= data["bound"]).all()


def test_figure_1_draws_f(out):
    data = table(out / "figure1-graph.csv")
    w = np.array([data["w1"], data["w2"]])
    np.testing.assert_allclose(data["f"], (w**2 + 10 * np.sin(w) ** 2).sum(axis=0), rtol=1e-12)
    assert len(data) == 81**2


def test_figure_2_shows_descent_on_f_and_none_on_f_tilde(out):
    data = table(out / "figure2.csv")
    assert set(data["K"]) == set(theory.KS)
    on_f, least = data["objective"] == "f", {}
    for K in theory.KS:
        assert data["ratio"][on_f & (data["K"] == K)].min() > 0.045
        least[K] = data["ratio"][~on_f & (data["K"] == K)].min()
    assert {K for K, ratio in least.items() if ratio < 0} == {1, 2}
    row = data[(data["K"] == 5) & on_f][3]
    at = np.array([row["lambda1"], row["lambda2"]])
    assert row["ratio"] == tb.bounds.lemma_3_2(tb.problems.toy(), at, 5).by_grad[0]


def test_runs_start_at_lambda_1_with_an_update_of_0_6(out):
    for name in ("figure3.csv", "figure4.csv"):
        data = table(out / name)
        for K in set(data["K"]):
            lam = np.array([data["lambda1"], data["lambda2"]]).T[data["K"] == K]
            np.testing.assert_array_equal(lam[0], [-1, 1])
            assert np.linalg.norm(lam[1] - lam[0]) == pytest.approx(0.6)
            assert len(lam) == 101


def test_figure_3_shows_a_bias_that_falls_with_K(out):
    data, bias = table(out / "figure3.csv"), table(out / "figure3-bias.csv")
    last = [data["exact_grad_norm"][data["K"] == K][-1] for K in theory.KS]
    assert (np.diff(last) < 0).all()
    assert last[0] > 5
    fit = np.polyfit(bias["K"][19:], np.log(bias["bias"][19:]), 1)[0]
    assert fit == pytest.approx(np.log(0.9), rel=0.05)


def test_figure_4_shows_convergence_for_every_K(out):
    data = table(out / "figure4.csv")
    assert set(data["K"]) == {*theory.KS, 100}
    last = [data["exact_grad_norm"][data["K"] == K][-1] for K in (*theory.KS, 100)]
    assert (np.diff(last) < 0).all(), "the more steps, the faster"
    assert max(last) < 1e-2


def test_the_same_command_writes_the_same_bytes(out, tmp_path):
    assert main(["reproduce", "figure1", "--out", str(tmp_path)]) == 0
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes(), path.name


def test_an_unknown_figure_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "figure9"])
    assert "figure9" in capsys.readouterr().err
