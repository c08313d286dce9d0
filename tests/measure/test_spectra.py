import numpy as np
import pytest

from tinybilevel.measure import spectra
from tinybilevel.measure.spectra import (
    DENSE,
    eigenvalue_ends,
    kuczynski_wozniakowski,
    share,
    singular_ends,
)


def symmetric(values, seed=0):
    Q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    return (Q * values) @ Q.T


@pytest.mark.parametrize("size", [1, 5, DENSE, DENSE + 1, 400])
@pytest.mark.parametrize(("low", "high"), [(0.01, 1.0), (-3.0, 2.0), (-5.0, -1.0), (0.5, 0.5)])
def test_eigenvalues_within_their_error(size, low, high):
    values = np.linspace(low, high, size) if size > 1 else np.array([low])
    H = symmetric(values)
    ends = eigenvalue_ends(lambda v: H @ v, size)
    for found, true in ((ends.low, values[0]), (ends.high, values[-1])):
        assert abs(found.value - true) <= found.error + 1e-12 * 5
        assert found.error <= 1e-5
        assert (found.error == 0) == (size <= DENSE) or low == high


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4), (120, 300), (300, 120), (150, 20)])
def test_singular_values_within_their_error(shape):
    A = np.random.default_rng(1).standard_normal(shape)
    ends = singular_ends(lambda v: A @ v, lambda u: A.T @ u, shape)
    true = np.linalg.svd(A, compute_uv=False)
    assert abs(ends.high.value - true[0]) <= ends.high.error + 1e-12 * true[0]
    assert abs(ends.low.value - true[-1]) <= ends.low.error + 1e-12 * true[0]
    assert ends.rank == (min(shape) if min(shape) <= DENSE else None)


def test_the_rank_of_a_small_operator():
    A = np.outer(np.arange(1.0, 5.0), np.ones(3)) + np.outer(np.ones(4), [1.0, 0.0, 0.0])
    assert singular_ends(lambda v: A @ v, lambda u: A.T @ u, A.shape).rank == 2
    assert singular_ends(lambda v: 0 * (A @ v), lambda u: A.T @ u, A.shape).rank == 0


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e150])
def test_a_rank_does_not_depend_on_units(scale):
    A = scale * np.outer(np.arange(1.0, 5.0), np.ones(3))
    assert singular_ends(lambda v: A @ v, lambda u: A.T @ u, A.shape).rank == 1


@pytest.mark.parametrize("size", [4, DENSE + 50])
def test_a_zero_operator(size):
    low, high, _ = eigenvalue_ends(np.zeros_like, size)
    assert (low.value, high.value) == (0, 0)
    low, high, _ = singular_ends(np.zeros_like, np.zeros_like, (size, size))
    assert (low.value, high.value) == (0, 0)


# What a random start is worth


SPECTRA = {
    "evenly spaced": np.linspace(-1, 1, 120),
    "crowded at the ends": np.cos(np.linspace(np.pi, 0, 120)),
    "one apart": np.append(np.zeros(119), 1.0),
    "decaying": np.geomspace(1e-3, 1, 120),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("steps", [3, 6, 12])
def test_an_end_lies_beyond_its_error_no_more_often_than_promised(monkeypatch, name, steps):
    """Over 200 starts, cut short on purpose; 3 standard deviations are let pass."""
    monkeypatch.setattr(spectra, "_STEPS", steps)
    values, delta, runs = SPECTRA[name], 0.1, 200
    failures = np.zeros(2)
    for seed in range(runs):
        low, high, _ = eigenvalue_ends(lambda v: values * v, len(values), seed=seed, delta=delta)
        failures += [
            low.value - low.error > values[0] + 1e-12,
            high.value + high.error < values[-1] - 1e-12,
        ]
    assert (failures <= runs * delta + 3 * np.sqrt(runs * delta * (1 - delta))).all()


@pytest.mark.parametrize("name", SPECTRA)
def test_a_bound_is_not_absurdly_loose(monkeypatch, name):
    """Twenty steps: within 20 times what it was really off, or 15 % of the spread."""
    monkeypatch.setattr(spectra, "_STEPS", 20)
    values = SPECTRA[name]
    least = 0.15 * (values[-1] - values[0])
    for seed in range(5):
        low, high, _ = eigenvalue_ends(lambda v: values * v, 120, seed=seed, delta=1e-3)
        assert high.error <= max(20 * (values[-1] - high.value), least)
        assert low.error <= max(20 * (low.value - values[0]), least)


def test_the_share_of_a_start_is_a_quantile():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((20_000, 150))
    shares = np.abs(points[:, 0]) / np.linalg.norm(points, axis=1)
    for delta in (0.05, 0.5, 0.9):
        assert np.mean(shares < share(150, delta)) == pytest.approx(delta, abs=0.01)


def test_the_closed_form_is_that_of_kuczynski_and_wozniakowski():
    """ε = tanh²(ln(1.648 √n / δ) / (2k − 1)) of the largest of a positive definite operator."""
    n, k, delta = 10_000, 60, 1e-3
    ours = kuczynski_wozniakowski(k, share(n, delta), 1.0)
    epsilon = np.tanh(np.log(1.648 * np.sqrt(n) / delta) / (2 * k - 1)) ** 2
    # Theirs knows the other end; ours has to bound both, which costs a factor of 1/(1 − r).
    assert 0.9 <= ours / epsilon <= 1.1
    assert kuczynski_wozniakowski(2, 1e-6, 1.0) == np.inf


def test_the_closed_form_holds_for_bad_starts():
    """The start's share of the end is η itself, for ends apart and nearby; some come close."""
    n, k, eta = 200, 8, 1e-3
    ratios = []
    for end in np.linspace(1.01, 2, 30):
        values = np.append(np.cos(np.linspace(0, np.pi, n - 1)), end)
        start = np.full(n, np.sqrt((1 - eta**2) / (n - 1)))
        start[-1] = eta
        Q, _ = np.linalg.qr(np.vander(values / end, k, increasing=True) * start[:, None])
        ritz = np.linalg.eigvalsh((Q.T * values) @ Q)
        spread = ritz[-1] - ritz[0]
        ratios.append((end - ritz[-1]) / kuczynski_wozniakowski(k, eta, spread))
    assert 0.3 <= max(ratios) <= 1


def test_an_iteration_that_does_not_converge_says_how_far_it_got():
    values = np.geomspace(1e-12, 1, 700)
    for delta in (None, 1e-3):
        low, high, rank = eigenvalue_ends(lambda v: values * v, 700, delta=delta)
        assert rank is None
        assert high.error < 1e-3
        assert low.value - low.error <= 1e-12 <= low.value + low.error
        assert 0 < low.error < 1
