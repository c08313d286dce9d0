import numpy as np
import pytest

from tinybilevel import plotting

pytest.importorskip("matplotlib", reason="pictures need it")


def test_a_confusion_matrix_has_what_is_in_rows():
    ax = plotting.confusion([[8, 2], [0, 0]], ["cat", "dog"])
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.8, 0.2], [0, 0]])
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("is", "taken for")


@pytest.mark.parametrize("V", [4, 40])
@pytest.mark.parametrize("grouped", [True, False])
def test_an_interaction_is_ordered_by_group(V, grouped):
    rng = np.random.default_rng(0)
    C, names = rng.random((V, V)), [f"{rng.integers(900)}_{k}" for k in range(V)]
    groups = [("pet", "car")[k % 2] for k in range(V)] if grouped else None
    ax = plotting.interaction(C, names, groups)
    order = sorted(range(V), key=lambda k: (groups[k], names[k])) if grouped else range(V)
    np.testing.assert_array_equal(ax.images[0].get_array(), C[np.ix_(order, order)])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    if grouped and V > 30:
        assert (labels, ax.get_yticks().tolist()) == (["car", "pet"], [9.5, 29.5])
    else:
        assert labels == [names[k].replace("_", " ") for k in order]
    between = [line.get_ydata()[0] for line in ax.lines[::2]]
    assert between == ([V / 2 - 0.5] if grouped else [])
    assert len(ax.lines) == 2 * grouped


def test_what_does_not_fit_a_matrix_is_named():
    for call, message in (
        (lambda: plotting.confusion([[1, 2]]), "matrix must be a square matrix"),
        (lambda: plotting.confusion([[1]], ["a", "b"]), "names must be one for each of 1 classes"),
        (lambda: plotting.interaction([[1]], ["a"], []), "groups must be one for each of 1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
