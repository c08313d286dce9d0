import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.outer.checkpoint import load_arrays

TOY = tb.problems.toy()


@pytest.mark.parametrize("problem", [TOY, [TOY, TOY]])
@pytest.mark.parametrize("keep_lam", [False, True])
def test_a_result_comes_back_from_its_file(tmp_path, problem, keep_lam):
    result = tb.minimize(problem, iterations=5, keep_lam=keep_lam)
    result.save(tmp_path / "result.npz")
    again = tb.OptimizeResult.load(tmp_path / "result.npz")
    for name in ("lam", "w", "best_lam"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
        assert type(getattr(again, name)) is type(getattr(result, name))
    for name in ("value", "iterations", "stopped", "best_value"):
        assert getattr(again, name) == getattr(result, name)
        assert type(getattr(again, name)) is type(getattr(result, name))
    assert set(again.history) == set(result.history)
    for name, entries in result.history.items():
        np.testing.assert_array_equal(again.history[name], entries)


def test_a_file_of_something_else_is_refused(tmp_path):
    tb.minimize(TOY, iterations=2, checkpoint=tmp_path / "run.npz")
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(ValueError, match=r"does not hold an OptimizeResult: it has no \['best_lam"):
        tb.OptimizeResult.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="does not hold an OptimizeResult: it has no"):
        tb.OptimizeResult.load(tmp_path / "run.npz")


@pytest.mark.parametrize("keep", [1, 3])
def test_lam_is_in_the_history_where_it_is_asked_for(tmp_path, keep):
    seen, file = [], tmp_path / "run.npz"
    options = {"method": tb.KRMD(K=5), "keep_lam": keep}
    result = tb.minimize(TOY, iterations=11, callback=lambda p: seen.append(p.lam), **options)
    np.testing.assert_array_equal(result.history["lam"], np.array(seen)[::keep])
    assert "lam" not in tb.minimize(TOY, iterations=2).history
    tb.minimize(TOY, iterations=5, checkpoint=file, checkpoint_every=2, **options)
    size = file.stat().st_size
    resumed = tb.minimize(
        TOY, iterations=11, checkpoint=file, checkpoint_every=2, resume=True, **options
    )
    np.testing.assert_array_equal(resumed.history["lam"], result.history["lam"])
    kept = np.fromfile(tmp_path / "run.npz.lam").reshape(-1, 2)
    np.testing.assert_array_equal(kept, result.history["lam"])
    assert file.stat().st_size < size + 6 * 3 * 8 + 64, "the lams lie beside it"


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"x" + b[1:], None])
def test_lams_that_are_not_the_checkpoints_are_refused(tmp_path, damage):
    file, beside = tmp_path / "run.npz", tmp_path / "run.npz.lam"
    tb.minimize(TOY, iterations=5, checkpoint=file, keep_lam=True)
    if damage is None:
        beside.unlink()
    else:
        beside.write_bytes(damage(beside.read_bytes()))
    with pytest.raises(ValueError, match=r"run.npz.lam does not hold the 5 lams that belong to"):
        tb.minimize(TOY, checkpoint=file, keep_lam=True, resume=True)


def test_lams_written_after_the_last_checkpoint_are_written_over(tmp_path):
    """A kill may come between the two files."""
    file, beside = tmp_path / "run.npz", tmp_path / "run.npz.lam"
    tb.minimize(TOY, iterations=5, checkpoint=file, keep_lam=True)
    beside.write_bytes(beside.read_bytes() + np.full(2, 7.0).tobytes())
    options = {"checkpoint": file, "keep_lam": True, "resume": True}
    result = tb.minimize(TOY, iterations=8, **options)
    again = tb.minimize(TOY, iterations=8, **options)
    whole = tb.minimize(TOY, iterations=8, keep_lam=True)
    np.testing.assert_array_equal(result.history["lam"], whole.history["lam"])
    np.testing.assert_array_equal(again.history["lam"], whole.history["lam"])


def test_a_float32_history_is_float32():
    problem = tb.BilevelProblem(TOY.transition, TOY.upper, T=5, lam0=np.ones(2, np.float32))
    assert tb.minimize(problem, iterations=2, keep_lam=True).history["lam"].dtype == np.float32


def test_a_history_of_long_lams_is_not_written_again_with_each_checkpoint(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "tinybilevel.outer.run.save_arrays",
        lambda path, arrays: written.append(sum(np.asarray(a).nbytes for a in arrays.values())),
    )
    tb.minimize(
        TOY, iterations=40, checkpoint=tmp_path / "run.npz", checkpoint_every=1, keep_lam=True
    )
    assert max(written) - min(written) == 39 * 3 * 8, "three numbers an update"
    assert (tmp_path / "run.npz.lam").stat().st_size == 40 * 16


def test_what_is_printed_is_short():
    rng = np.random.default_rng(0)
    X, y = rng.random((500, 20)), rng.integers(0, 10, 500)
    problem = tb.problems.hypercleaning(X, y, X, y, T=3)
    seen = []
    result = tb.minimize(problem, iterations=2, callback=seen.append)
    for text in (repr(result), repr(seen[0])):
        assert len(text) < 500
        assert "(500,) float64" in text
    assert "iterations, after 2 updates" in repr(result)


def test_html_is_a_table():
    result = tb.minimize(TOY, iterations=2)
    text = result._repr_html_()
    assert text.startswith("<table><caption>OptimizeResult</caption><tr><th>stopped</th>")
    assert "<td>[" in text


@pytest.mark.parametrize("name", ["lam", "grad", "w", "alpha_norms"])
def test_a_callback_cannot_write_into_what_it_is_given(name):
    def callback(progress):
        part = progress if name == "lam" else progress.hypergradient
        getattr(part, name)[:] = 0

    with pytest.raises(ValueError, match="callback wrote into an array that it may only read"):
        tb.minimize(TOY, method=tb.KRMD(K=5), iterations=2, callback=callback)


def test_what_a_callback_kept_does_not_change_later():
    class InPlace(tb.Optimizer):
        def init(self, lam):
            return {}

        def update(self, tau, lam, grad, state):
            grad *= 0.1
            return lam - grad, state

    seen = []
    result = tb.minimize(TOY, optimizer=InPlace(), iterations=3, callback=seen.append)
    norms = [np.linalg.norm(p.hypergradient.grad) for p in seen]
    np.testing.assert_array_equal(norms, result.history["grad_norm"])


def test_best_lam_survives_a_resume(tmp_path):
    file = tmp_path / "run.npz"
    options = {"method": tb.RMD(), "optimizer": tb.SGD(0.2, decay=0)}
    whole = tb.minimize(TOY, iterations=30, **options)
    tb.minimize(TOY, iterations=15, checkpoint=file, **options)
    resumed = tb.minimize(TOY, iterations=30, checkpoint=file, resume=True, **options)
    assert resumed.best_value == whole.best_value
    np.testing.assert_array_equal(resumed.best_lam, whole.best_lam)
    np.testing.assert_array_equal(load_arrays(file)["best_lam"], whole.best_lam)
