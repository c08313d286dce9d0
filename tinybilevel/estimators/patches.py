"""Image features from k-means on patches, without labels and without a network."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from joblib import Memory
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import MiniBatchKMeans
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from tinybilevel.arrays.backend import Array

__all__ = ["PatchFeatures"]

#: Images whose patches are taken at a time: some 30 MB of them for CIFAR.
_CHUNK = 100


class PatchFeatures(TransformerMixin, BaseEstimator):
    """The single-layer features of Coates, Ng and Lee 2011: 4 numbers for each of k centroids.

    Patches of an image are normalised (mean 0, variance 1, regularised) and whitened; k-means on a
    sample of them gives centroids c_k. A patch x then says f_k(x) = max(0, μ − z_k), where
    z_k = ‖x − c_k‖ and μ is the mean of z over k: the triangle activation. f is summed over the
    four quarters of the image.

    Parameters
    ----------
    image_shape : tuple of int
        Channels, height and width; their product is the number of columns of X.
    n_centroids : int
        k; the features are 4k.
    patch_size : int
        Height and width of a patch.
    n_patches : int
        Patches, drawn at random, that the whitening and k-means are fitted to.
    memory : str, path-like or joblib.Memory, optional
        Folder in which fits and features are cached, as elsewhere in scikit-learn.
    random_state : int or numpy.random.RandomState
        Of the draw and of k-means.

    Attributes
    ----------
    centroids_ : ndarray (k, p)
        Centroids of whitened patches, p = channels · patch_size².
    mean_, whitening_ : ndarray (p,), (p, p)
        What is taken off a normalised patch, and the ZCA matrix that it is then multiplied by.

    References
    ----------
    Coates, Ng and Lee 2011, "An analysis of single-layer networks in unsupervised feature
    learning", AISTATS; Coates and Ng 2012, "Learning feature representations with k-means".

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.estimators import PatchFeatures
    >>> X = np.random.default_rng(0).random((20, 3 * 8 * 8))
    >>> features = PatchFeatures((3, 8, 8), n_centroids=5, patch_size=3, n_patches=200)
    >>> features.fit_transform(X).shape
    (20, 20)
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (3, 32, 32),
        n_centroids: int = 200,
        patch_size: int = 6,
        n_patches: int = 100_000,
        memory: Any = None,
        random_state: Any = 0,
    ) -> None:
        self.image_shape = image_shape
        self.n_centroids = n_centroids
        self.patch_size = patch_size
        self.n_patches = n_patches
        self.memory = memory
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the whitening and the centroids.

        Parameters
        ----------
        X : array_like (n, channels · height · width)
            Images, one to a row, channel by channel; uint8 in 0 … 255, or floats in [0, 1].
        y : None
            Ignored.

        Raises
        ------
        ValueError
            If the rows of X are no images of `image_shape`, or a patch does not fit into one.
        """
        X = self._images(validate_data(self, X, dtype=None))
        fit = self._cached(_fit)
        self.mean_, self.whitening_, self.centroids_ = fit(
            X, self.n_centroids, self.patch_size, self.n_patches, self.random_state
        )
        return self

    def transform(self, X: Any) -> Array:
        """Return the features of each image, (n, 4k), float32."""
        check_is_fitted(self)
        X = self._images(validate_data(self, X, dtype=None, reset=False))
        features = self._cached(_features)
        return features(X, self.patch_size, self.mean_, self.whitening_, self.centroids_)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return a name for each feature: ``quarter0_centroid0``, …."""
        check_is_fitted(self)
        k = range(len(self.centroids_))
        return np.array([f"quarter{q}_centroid{c}" for q in range(4) for c in k], dtype=object)

    def _images(self, X: Array) -> Array:
        channels, height, width = self.image_shape
        if X.shape[1] != channels * height * width:
            raise ValueError(
                f"X must have {channels * height * width} columns, one for each number of an image "
                f"of shape {self.image_shape}, got {X.shape}"
            )
        if not 2 <= self.patch_size < min(height, width):
            raise ValueError(
                f"patch_size must lie in 2 … {min(height, width) - 1}, got {self.patch_size}"
            )
        X = np.divide(X, 255 if X.dtype == np.uint8 else 1, dtype=np.float32)
        return X.reshape(-1, *self.image_shape)

    def _cached(self, function: Any) -> Any:
        memory = self.memory if isinstance(self.memory, Memory) else Memory(self.memory, verbose=0)
        return memory.cache(function)


def _fit(
    images: Array, n_centroids: int, size: int, n_patches: int, random_state: Any
) -> tuple[Array, Array, Array]:
    """Return mean, whitening and centroids."""
    rng = check_random_state(random_state)
    n, rows, columns = _grid(images, size)
    windows = sliding_window_view(images, (size, size), axis=(2, 3))
    at = rng.randint(n, size=n_patches), rng.randint(rows, size=n_patches)
    patches = windows[at[0], :, at[1], rng.randint(columns, size=n_patches)]
    patches = _normalized(patches.reshape(n_patches, -1))
    mean = patches.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False).astype(np.float64))
    # ZCA; 0.1 holds the directions back in which patches hardly differ.
    whitening = ((vectors / np.sqrt(values.clip(0) + 0.1)) @ vectors.T).astype(np.float32)
    kmeans = MiniBatchKMeans(n_centroids, batch_size=2048, n_init=1, random_state=rng)
    kmeans.fit((patches - mean) @ whitening)
    return mean, whitening, kmeans.cluster_centers_


def _features(images: Array, size: int, mean: Array, whitening: Array, centroids: Array) -> Array:
    """Return the triangle activations, summed over quarters, (n, 4k)."""
    parts = [
        _quarters(images[start : start + _CHUNK], size, mean, whitening, centroids)
        for start in range(0, len(images), _CHUNK)
    ]
    return np.concatenate(parts)


def _quarters(images: Array, size: int, mean: Array, whitening: Array, centroids: Array) -> Array:
    n, rows, columns = _grid(images, size)
    windows = sliding_window_view(images, (size, size), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
    x = (_normalized(windows.reshape(n * rows * columns, -1)) - mean) @ whitening
    squares = (x**2).sum(axis=1)[:, None] - 2 * x @ centroids.T + (centroids**2).sum(axis=1)
    z = np.sqrt(np.maximum(squares, 0))
    f = np.maximum(z.mean(axis=1, keepdims=True) - z, 0).reshape(n, rows, columns, -1)
    top, left = (rows + 1) // 2, (columns + 1) // 2
    halves = (f[:, :top], f[:, top:])
    quarters = [part for half in halves for part in (half[:, :, :left], half[:, :, left:])]
    return np.concatenate([part.sum(axis=(1, 2)) for part in quarters], axis=1)


def _grid(images: Array, size: int) -> tuple[int, int, int]:
    return len(images), images.shape[2] - size + 1, images.shape[3] - size + 1


def _normalized(patches: Array) -> Array:
    """Take off each patch's mean, and divide by its standard deviation, regularised."""
    patches = patches - patches.mean(axis=1, keepdims=True)
    # A variance of 10 in units of 1/255, as in the paper: flat patches are mostly noise.
    return patches / np.sqrt(patches.var(axis=1, keepdims=True) + np.float32(10 / 255**2))
