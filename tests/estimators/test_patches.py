import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")
from sklearn.base import clone  # noqa: E402

from tinybilevel.estimators import PatchFeatures  # noqa: E402

SHAPE = (3, 9, 8)
X = np.random.default_rng(0).integers(0, 256, (12, 3 * 9 * 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def fitted():
    return PatchFeatures(SHAPE, n_centroids=4, patch_size=3, n_patches=300).fit(X)


def by_hand(image, f):
    """Return the features of one image, patch by patch."""
    image, sums = image.reshape(SHAPE) / 255, np.zeros((2, 2, 4))
    for i in range(7):
        for j in range(6):
            patch = image[:, i : i + 3, j : j + 3].ravel()
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + 10 / 255**2)
            x = (patch - f.mean_) @ f.whitening_
            z = np.linalg.norm(x - f.centroids_, axis=1)
            sums[int(i >= 4), int(j >= 3)] += np.maximum(z.mean() - z, 0)
    return sums.ravel()


def test_features_are_triangle_activations_summed_over_quarters(fitted):
    features = fitted.transform(X)
    assert features.dtype == np.float32
    for image, found in zip(X, features, strict=True):
        np.testing.assert_allclose(found, by_hand(image, fitted), rtol=1e-4, atol=1e-4)
    assert list(fitted.get_feature_names_out()[[0, 15]]) == [
        "quarter0_centroid0",
        "quarter3_centroid3",
    ]


def test_bytes_and_floats_are_the_same_images(fitted):
    np.testing.assert_allclose(fitted.transform(X / 255), fitted.transform(X), rtol=1e-4, atol=1e-5)


def test_whitened_patches_have_no_correlations_left(fitted):
    W = fitted.whitening_
    np.testing.assert_allclose(W, W.T, atol=1e-5)
    assert np.linalg.eigvalsh(W).min() > 0


def test_a_seed_repeats_and_a_folder_remembers(fitted, tmp_path):
    again = clone(fitted).set_params(memory=tmp_path)
    features = again.fit(X).transform(X)
    np.testing.assert_array_equal(features, fitted.transform(X))
    assert any(tmp_path.rglob("output.pkl"))
    np.testing.assert_array_equal(clone(again).fit(X).transform(X), features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (3, 9, 9)}, "X must have 243 columns"),
        ({"image_shape": SHAPE, "patch_size": 8}, "patch_size must lie in 2 … 7, got 8"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PatchFeatures(**options).fit(X)
