import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.outer.checkpoint import load_arrays

METHOD, ADAM = tb.KRMD(K=10), tb.Adam(0.05)


def toy(**options):
    defaults = {"problem": tb.problems.toy(), "method": METHOD, "optimizer": ADAM}
    return tb.minimize(**{**defaults, **options})


def same(a, b):
    np.testing.assert_array_equal(a.lam, b.lam)
    np.testing.assert_array_equal(a.w, b.w)
    assert a.value == b.value
    for name in ("value", "grad_norm"):
        np.testing.assert_array_equal(a.history[name], b.history[name])


def saved_updates(file):
    return int(load_arrays(file)["iteration"]) if file.exists() else 0


@pytest.mark.parametrize("optimizer", [tb.Adam(0.05), tb.SGD(0.05)])
def test_it_is_the_plain_loop(optimizer):
    problem = tb.problems.toy()
    lam, state, values, norms = problem.lam0, optimizer.init(problem.lam0), [], []
    for tau in range(1, 31):
        r = METHOD(problem, lam)
        values.append(r.value)
        norms.append(np.linalg.norm(r.grad))
        lam, state = optimizer.update(tau, lam, r.grad, state)
    result = toy(optimizer=optimizer, iterations=30)
    np.testing.assert_array_equal(result.lam, lam)
    np.testing.assert_array_equal(result.history["value"], values)
    np.testing.assert_array_equal(result.history["grad_norm"], norms)
    assert np.all(np.diff(result.history["seconds"]) > 0)
    assert result.value == METHOD(problem, lam).value
    np.testing.assert_array_equal(result.w, METHOD(problem, lam).w)
    assert (result.iterations, result.stopped) == (30, "iterations")


def test_one_step_reaches_the_exact_optimum_of_the_toy():
    result = tb.minimize(
        tb.problems.toy(), method=tb.KRMD(K=1), optimizer=tb.SGD(0.3, decay=0), iterations=2000
    )
    exact = tb.RMD()(tb.problems.toy(), result.lam)
    assert np.linalg.norm(exact.grad) < 1e-8


@pytest.mark.parametrize("form", ["numbers", "arrays", "scipy"])
def test_bounds(form):
    low, high = [0.2, -1.0], [2.0, 0.9]
    if form == "scipy":
        from scipy.optimize import Bounds

        bounds = Bounds(low, high)
    else:
        bounds = (low, high) if form == "arrays" else (0.2, 0.9)
    seen = []
    result = toy(bounds=bounds, iterations=200, callback=lambda p: seen.append(p.lam))
    np.testing.assert_allclose(result.lam, [0.2, 0.2 if form == "numbers" else -0.0119], atol=2e-3)
    floor = 0.2 if form == "numbers" else np.array(low)
    assert np.all(np.array(seen) >= floor)
    assert seen[0][1] == 0.9, "λ_1 is projected too"


def test_a_float32_lam_stays_so_beside_float64_data():
    result = toy(
        problem=replace(tb.problems.toy(), lam0=None), lam0=np.ones(2, np.float32), iterations=2
    )
    assert (result.lam.dtype, result.w.dtype) == (np.float32, np.float64)


def test_projection_comes_after_the_bounds():
    result = toy(projection=lambda lam: lam / np.linalg.norm(lam), bounds=(0, 1), iterations=30)
    assert np.linalg.norm(result.lam) == pytest.approx(1)


def test_a_projection_may_return_its_own_buffer_or_another_dtype(tmp_path):
    buffer, file = np.zeros(2), tmp_path / "run.npz"

    def reuse(lam):
        buffer[:] = lam
        return buffer

    lam0 = np.ones(2, np.float32)
    problem = replace(tb.problems.toy(), lam0=None)
    seen = []
    options = {"lam0": lam0, "method": METHOD, "optimizer": ADAM, "projection": reuse}
    whole = tb.minimize(problem, iterations=6, callback=lambda p: seen.append(p.lam), **options)
    assert whole.lam.dtype == np.float32
    assert not np.shares_memory(whole.lam, buffer)
    tb.minimize(problem, iterations=3, checkpoint=file, **options)
    np.testing.assert_array_equal(load_arrays(file)["last_good"], seen[2])
    same(tb.minimize(problem, iterations=6, checkpoint=file, resume=True, **options), whole)


def test_gtol_stops_where_it_is_met_without_another_step():
    result = toy(gtol=5.0, iterations=200)
    assert result.stopped == "gtol"
    assert result.iterations < 200
    assert np.linalg.norm(METHOD(tb.problems.toy(), result.lam).grad) <= 5
    assert result.history["grad_norm"].min() > 5
    assert len(result.history["value"]) == result.iterations


def test_callback_sees_each_point_and_can_stop():
    seen = []

    def callback(progress):
        seen.append(progress)
        return progress.iteration == 4

    result = toy(callback=callback)
    assert [p.iteration for p in seen] == [1, 2, 3, 4]
    assert (result.stopped, result.iterations) == ("callback", 3)
    same(result, toy(iterations=3))


def test_warm_start_starts_from_the_last_state():
    problem = tb.problems.toy(T=5)
    result = tb.minimize(problem, method=tb.RMD(), optimizer=ADAM, iterations=3, warm_start=True)
    lam, state, at = problem.lam0, ADAM.init(problem.lam0), problem
    for tau in (1, 2, 3):
        r = tb.RMD()(at, lam)
        lam, state = ADAM.update(tau, lam, r.grad, state)
        at = problem.starting_at(r.w)
    np.testing.assert_array_equal(result.lam, lam)
    assert result.value == tb.RMD()(at, lam).value
    assert result.value != tb.RMD()(problem, lam).value


def test_no_iterations():
    result = toy(iterations=0)
    np.testing.assert_array_equal(result.lam, [1, 1])
    assert result.value == METHOD(tb.problems.toy()).value


def test_progress_bar_shows_the_value(capsys):
    pytest.importorskip("tqdm")
    toy(iterations=3, progress=True)
    assert "3/3" in (error := capsys.readouterr().err)
    assert "value=" in error


def test_missing_tqdm_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="pip install matplotlib tqdm"):
        toy(iterations=3, progress=True)


def test_resume_is_bit_for_bit(tmp_path):
    whole, file = toy(iterations=25), tmp_path / "run.npz"
    toy(iterations=7, checkpoint=file)
    resumed = toy(iterations=25, checkpoint=file, resume=True)
    same(resumed, whole)
    assert np.all(np.diff(resumed.history["seconds"]) > 0)
    same(toy(iterations=25, checkpoint=file, resume=True), whole)


def test_float32_is_kept_through_a_resume(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.random((12, 3)).astype(np.float32), rng.integers(0, 3, 12)
    problem = tb.problems.hypercleaning(X, y, X, y, T=5, n_classes=3)
    file, options = tmp_path / "run.npz", {"method": tb.KRMD(K=2), "optimizer": ADAM}
    whole = tb.minimize(problem, iterations=9, **options)
    tb.minimize(problem, iterations=4, checkpoint=file, **options)
    same(tb.minimize(problem, iterations=9, checkpoint=file, resume=True, **options), whole)
    assert whole.lam.dtype == whole.w.dtype == np.float32


@pytest.mark.parametrize("at", [1, 2, 13])
def test_ctrl_c_keeps_every_whole_update(tmp_path, at):
    file = tmp_path / "run.npz"

    def interrupt(progress):
        if progress.iteration == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy(iterations=20, checkpoint=file, callback=interrupt)
    assert saved_updates(file) == at - 1
    same(toy(iterations=20, checkpoint=file, resume=True), toy(iterations=20))


@dataclass(frozen=True)
class Interrupted(tb.Method):
    """A method that the user interrupts in the middle of its n-th call."""

    calls: list = field(repr=False)
    at: int = field(repr=False)
    inner: tb.Method = METHOD

    def _evaluate(self, dynamics):
        self.calls.append(None)
        if len(self.calls) == self.at:
            dynamics.advance(dynamics.w0, 0, 3, dynamics.empty(2))
            raise KeyboardInterrupt
        return self.inner._evaluate(dynamics)


@pytest.mark.parametrize("at", [1, 2, 9])
def test_ctrl_c_in_the_middle_of_a_method(tmp_path, at):
    file = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        toy(method=Interrupted([], at), iterations=20, checkpoint=file, checkpoint_every=100)
    assert saved_updates(file) == at - 1
    resumed = toy(method=Interrupted([], 0), iterations=20, checkpoint=file, resume=True)
    same(resumed, toy(iterations=20))


@dataclass(frozen=True)
class InPlace(tb.Optimizer):
    """Descent that writes into the λ it is given."""

    def init(self, lam):
        return {}

    def update(self, tau, lam, grad, state):
        lam -= 0.05 * grad
        return lam, state


def test_an_optimizer_may_work_in_place(tmp_path):
    file = tmp_path / "run.npz"
    toy(optimizer=InPlace(), iterations=4, checkpoint=file)
    resumed = toy(optimizer=InPlace(), iterations=9, checkpoint=file, resume=True)
    same(resumed, toy(optimizer=tb.SGD(0.05, decay=0), iterations=9))


SCRIPT = """
import sys, numpy as np, tinybilevel as tb
result = tb.minimize(tb.problems.toy(), method=tb.KRMD(K=10), optimizer=tb.Adam(0.05),
                     iterations=3000, checkpoint=sys.argv[1], checkpoint_every=1, resume=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no kill -9")
def test_kill_9_in_the_middle(tmp_path):
    file, delays = tmp_path / "run.npz", np.random.default_rng(0).uniform(0.05, 0.3, 3)
    for delay in delays:
        before = file.stat().st_mtime_ns if file.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(file)])
        while not file.exists() or file.stat().st_mtime_ns == before:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = int(load_arrays(file)["iteration"])
    assert 0 < done < 3000
    more = done + 20
    same(toy(iterations=more, checkpoint=file, resume=True), toy(iterations=more))


def test_an_existing_file_is_never_overwritten(tmp_path):
    file = tmp_path / "run.npz"
    toy(iterations=3, checkpoint=file)
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match=r"run.npz exists: pass resume=True"):
        toy(iterations=3, checkpoint=file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": tb.Adam(0.1)}, "belongs to another run"),
        ({"method": tb.KRMD(K=9)}, "belongs to another run"),
        ({"warm_start": True}, "belongs to another run"),
        ({"problem": tb.problems.toy(T=50)}, "belongs to another run"),
        ({"optimizer": tb.SGD(0.1)}, "belongs to another run"),
        ({"problem": tb.problems.toy(step_size=0.11)}, "another problem: its data are others"),
        ({"problem": tb.problems.toy(biased=True)}, "another problem: its data are others"),
        ({"lam0": np.ones(2, np.float32)}, "its lam is .* of float64, this one's .* of float32"),
    ],
)
def test_another_runs_checkpoint_is_refused(tmp_path, change, message):
    file = tmp_path / "run.npz"
    toy(iterations=3, checkpoint=file)
    before = file.read_bytes()
    options = {"problem": tb.problems.toy(), "method": METHOD, "optimizer": ADAM, **change}
    with pytest.raises(ValueError, match=message):
        tb.minimize(**options, checkpoint=file, resume=True)
    assert file.read_bytes() == before


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b"text" + b[4:]])
def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path, damage):
    file = tmp_path / "run.npz"
    toy(iterations=3, checkpoint=file)
    file.write_bytes(damage(file.read_bytes()))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"run.npz is not a checkpoint"):
        toy(iterations=3, checkpoint=file, resume=True)
    assert file.read_bytes() == before


def diverging():
    """Return a problem whose lower level diverges once λ passes 0.5."""
    f = tb.Objective.from_functions(value=lambda w, lam: -float(w @ w), grad=lambda w, lam: -2 * w)
    moves = tb.Transition.from_functions(
        step=lambda t, w, lam: 1e200 ** (lam > 0.5) * w + lam,
        vjp=lambda t, w, lam, alpha: (1e200 ** (lam > 0.5) * alpha, alpha),
        initial=[1.0],
    )
    return tb.BilevelProblem(moves, f, T=3, lam0=[0.0])


def test_divergence_keeps_the_last_good_lam(tmp_path):
    file = tmp_path / "run.npz"
    with pytest.raises(tb.DivergenceError) as caught:
        tb.minimize(diverging(), method=tb.RMD(), optimizer=tb.Adam(0.2), checkpoint=file)
    assert caught.value.lam[0] > 0.5 >= caught.value.last_good[0] > 0
    saved = load_arrays(file)
    np.testing.assert_array_equal(saved["last_good"], caught.value.last_good)
    again = pickle.loads(pickle.dumps(caught.value))  # as a process pool sends it
    np.testing.assert_array_equal(again.last_good, caught.value.last_good)


def test_a_lam_that_never_was_good_is_not_called_so(tmp_path):
    problem = replace(diverging(), lam0=[1.0])
    for _ in range(2):  # at first, then resumed
        with pytest.raises(tb.DivergenceError) as caught:
            tb.minimize(problem, method=tb.RMD(), checkpoint=tmp_path / "run.npz", resume=True)
        assert caught.value.last_good is None


def test_a_missing_folder_is_named_before_the_run(tmp_path):
    def callback(progress):
        raise AssertionError("the run began")

    with pytest.raises(FileNotFoundError, match="none is no folder; the checkpoint needs one"):
        toy(checkpoint=tmp_path / "none" / "run.npz", callback=callback)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": tb.KRMD}, TypeError, r"method must be a Method such as KRMD\(K=5\)"),
        (
            {"optimizer": "adam"},
            TypeError,
            r"optimizer must be an Optimizer such as Adam\(0.1\), got 'adam'",
        ),
        ({"problem": METHOD}, TypeError, r"problem must be .*: the method comes after it"),
        ({"problem": np.ones(2)}, TypeError, "problem must be a BilevelProblem or a list, got"),
        ({"lam0": METHOD}, TypeError, "lam0 must be a vector, got KRMD.*: pass it as method="),
        ({"lam0": ADAM}, TypeError, "lam0 must be a vector, got Adam.*: pass it as optimizer="),
        ({"method": ADAM}, TypeError, "method must be a Method .*: pass it as optimizer="),
        ({"optimizer": METHOD}, TypeError, "optimizer must be an Optimizer"),
        ({"callback": 3}, TypeError, "callback must be a function of a Progress, got 3"),
        ({"projection": 3}, TypeError, "projection must be a function of lam, got 3"),
        ({"warm_start": "yes"}, ValueError, 'warm_start must be False, True or "state", got'),
        ({"gtol": -1e-3}, ValueError, "gtol must be at least 0, got -0.001"),
        ({"gtol": np.nan}, ValueError, "gtol must be at least 0, got nan"),
        ({"gtol": "1e-3"}, TypeError, "gtol must be a number, got '1e-3'"),
        (
            {"progress": print},
            TypeError,
            "progress must be True or False, .*: a function is a call",
        ),
        ({"resume": "run.npz"}, TypeError, "resume must be True or False, got 'run.npz'"),
        ({"check_derivatives": None}, TypeError, "check_derivatives must be True or False"),
        ({"callback": lambda p: 1.5}, TypeError, "callback must return True to stop, .*, got 1.5"),
        ({"keep_lam": -1}, ValueError, "keep_lam must be at least 0, got -1"),
        ({"keep_lam": 0.5}, TypeError, "keep_lam must be an integer, got 0.5"),
        ({"checkpoint": 3}, TypeError, "checkpoint must be the path of a file, got 3"),
        ({"checkpoint": "."}, IsADirectoryError, "checkpoint must be the path of a file"),
        ({"iterations": -1}, ValueError, "iterations must be at least 0, got -1"),
        ({"iterations": 1.5}, TypeError, "iterations must be an integer, got 1.5"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1"),
        ({"resume": True}, ValueError, "resume needs the checkpoint"),
        ({"bounds": (1, 0)}, ValueError, "low <= high"),
        ({"projection": lambda lam: lam[:1]}, ValueError, r"projection\(lam\) must have shape"),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        tb.minimize(**{"problem": tb.problems.toy(), "method": METHOD, **options})


@dataclass(frozen=True)
class Own(tb.Method):
    """A method that gives back what it is told to."""

    changes: dict

    def _evaluate(self, dynamics):
        return replace(METHOD._evaluate(dynamics), **self.changes)


def test_a_gradient_of_another_shape_does_not_broadcast():
    with pytest.raises(ValueError, match=r"grad from Own must have shape \(2,\), got \(1,\)"):
        toy(method=Own({"grad": np.ones(1)}))


def test_a_method_that_returns_something_else_is_named():
    class Pair(tb.Method):
        def _evaluate(self, dynamics):
            return 1.0, np.ones(2)

    with pytest.raises(TypeError, match="Pair must return a Hypergradient, got tuple"):
        toy(method=Pair())


@pytest.mark.parametrize("changes", [{"value": np.nan}, {"grad": np.array([1, np.inf])}])
def test_a_method_of_the_users_own_that_leaves_the_finite_numbers_is_named(changes):
    with pytest.raises(tb.DivergenceError, match="Own returned value") as caught:
        toy(method=Own(changes))
    np.testing.assert_array_equal(caught.value.lam, [1, 1])


def test_a_step_of_the_optimizer_out_of_the_finite_numbers_is_not_blamed_on_lam():
    with pytest.raises(tb.DivergenceError, match=r"update of SGD at .* moved lam\[0\] from 1 to -"):
        toy(optimizer=tb.SGD(1e308))


class Returning(tb.Optimizer):
    def __init__(self, result):
        self.result = result

    def init(self, lam):
        return {"m": 0 * lam}

    def update(self, tau, lam, grad, state):
        return self.result


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (np.ones(2), TypeError, r"update of Returning must return a pair \(lam, state\)"),
        ((np.ones(3), {"m": 0}), ValueError, r"lam from update of Returning must have shape"),
        ((np.ones(2), {"m": 0, "t": 0}), ValueError, r"must have the names that init gave it"),
    ],
)
def test_what_an_optimizer_must_return_is_said(result, error, message):
    with pytest.raises(error, match=message):
        toy(optimizer=Returning(result))
