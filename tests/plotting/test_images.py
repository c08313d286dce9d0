import numpy as np
import pytest

from tinybilevel import plotting
from tinybilevel.plotting.style import RIGHT

pytest.importorskip("matplotlib", reason="pictures need it")

from matplotlib.colors import to_hex


def test_rejected_labels_are_those_of_the_smallest_weights():
    images = np.arange(4.0)[:, None, None] + np.eye(2)
    lam, labels, true = [0.0, 3.0, -1.0, 2.0], [5, 6, 7, 8], [5, 0, 1, 2]
    ax = plotting.rejected_labels(images, labels, lam, true, count=2)
    assert [text.get_text() for text in ax.texts] == ["7 is 1", "5 is right"]
    wrong, right = (to_hex(text.get_color()) for text in ax.texts)
    assert wrong == RIGHT.lower() != right
    unknown = plotting.rejected_labels(images, labels, lam, count=9)
    assert [text.get_text() for text in unknown.texts] == ["7", "5", "8", "6"]


def test_an_image_grid_fills_its_rows():
    ax = plotting.image_grid(np.ones((5, 2, 3)), columns=2)
    corners = [tuple(np.round(image.get_extent()[::3], 2)) for image in ax.images]
    assert corners == [(0, 0), (1.12, 0), (0, 1.12), (1.12, 1.12), (0, 2.24)]


def test_what_does_not_fit_the_images_is_named():
    images = np.ones((2, 2, 2))
    for call, message in (
        (lambda: plotting.image_grid(np.ones((2, 2))), r"images must have shape \(n, height"),
        (lambda: plotting.image_grid(images, ["a"]), "captions must be one for each of 2 images"),
        (lambda: plotting.image_grid(images, columns=0), "columns must be"),
        (lambda: plotting.rejected_labels(images, [1], [0.0, 1.0]), r"labels must have shape \(2"),
        (lambda: plotting.rejected_labels(images, [1, 2], [0.0]), r"lam must have shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
