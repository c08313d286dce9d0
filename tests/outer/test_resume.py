"""What a resumed run takes from its file, and what it refuses."""

import functools
import subprocess
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.outer.checkpoint import load_arrays, save_arrays

METHOD, ADAM = tb.KRMD(K=10), tb.Adam(0.05)
TOY = tb.problems.toy()


def run(file, **options):
    defaults = {"problem": TOY, "lam0": [0.9, 0.9], "method": METHOD, "optimizer": ADAM}
    return tb.minimize(**{**defaults, **options}, checkpoint=file, resume=True)


def halve(lam):
    return lam / 2


def twice_halved(lam):
    return lam / 4


@pytest.fixture
def file(tmp_path):
    run(tmp_path / "run.npz", iterations=5)
    return tmp_path / "run.npz"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bounds": (0, 0.5)}, r"its bounds was None, this one's is \[0.0 \(float64\), 0.5"),
        ({"projection": halve}, "its projection was None, this one's is .*halve<"),
        ({"lam0": [0.8, 0.9]}, r"it began at lam0\[0\] = 0.9, this one at 0.8. Pass the same lam0"),
        ({"lam0": None}, r"it began at lam0\[0\] = 0.9, this one at 1.0"),
        ({"keep_lam": True}, "its keep_lam was 0, this one's is 1"),
        ({"warm_start": "state"}, "its warm_start was False, this one's is 'state'"),
        ({"problem": [TOY, TOY]}, "its problems was 1, this one's is 2"),
        ({"iterations": 4}, "has 5 updates already: iterations must be at least that, got 4"),
        ({"problem": tb.problems.toy(step_size=0.11)}, "belongs to another problem"),
    ],
)
def test_what_would_make_it_another_run_is_refused_and_named(file, change, message):
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        run(file, **change)
    assert file.read_bytes() == before


def test_the_same_box_said_otherwise_is_the_same_run(tmp_path):
    run(tmp_path / "run.npz", bounds=(np.zeros(2), np.ones(2)), iterations=3)
    assert run(tmp_path / "run.npz", bounds=[(0, 1), (0, 1)], iterations=6).iterations == 6


@pytest.mark.parametrize("projections", [(halve, twice_halved), (lambda x: x / 2, lambda x: x / 4)])
def test_a_projection_is_known_by_its_code(tmp_path, projections):
    first, other = projections
    run(tmp_path / "run.npz", projection=first, iterations=3)
    with pytest.raises(ValueError, match="its projection was"):
        run(tmp_path / "run.npz", projection=other, iterations=6)
    assert run(tmp_path / "run.npz", projection=first, iterations=6).iterations == 6


def test_a_new_callback_and_gtol_act_from_the_first_resumed_update(file):
    seen = []
    run(file, iterations=7, callback=lambda p: seen.append(p.iteration))
    assert seen == [6, 7]
    assert run(file, iterations=9, gtol=1e9).stopped == "gtol"


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [(0.1, 0.2, "its data are"), (lambda t: 0.1, lambda t: 0.2, "at its last λ, f was")],
)
def test_other_data_are_seen_under_a_warm_start_too(tmp_path, one, other, message):
    options = {"warm_start": True, "method": tb.KRMD(K=3)}
    run(tmp_path / "run.npz", problem=tb.problems.toy(T=5, step_size=one), iterations=4, **options)
    with pytest.raises(ValueError, match=f"belongs to another problem: {message}"):
        run(tmp_path / "run.npz", problem=tb.problems.toy(T=5, step_size=other), **options)


@pytest.mark.parametrize("warm_start", [True, "state"])
def test_a_warm_start_resumes_bit_for_bit(tmp_path, warm_start):
    g = tb.Quadratic([1.0, 0.5])
    adam = tb.AdamTransition(g, 0.1, initial=[2.0, 2.0])
    problem = replace(tb.problems.toy(T=5), transition=adam)
    options = {"problem": problem, "method": tb.RMD(), "warm_start": warm_start}
    run(tmp_path / "run.npz", iterations=4, **options)
    resumed = run(tmp_path / "run.npz", iterations=9, **options)
    whole = tb.minimize(lam0=[0.9, 0.9], optimizer=ADAM, iterations=9, **options)
    np.testing.assert_array_equal(resumed.lam, whole.lam)
    np.testing.assert_array_equal(resumed.w, whole.w)


def test_an_early_error_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="K must be at most"):
        run(tmp_path / "run.npz", method=tb.KRMD(K=101))
    assert list(tmp_path.iterdir()) == []


def test_a_corrected_lam_is_taken_after_a_divergence_at_the_first(tmp_path):
    f = tb.Objective.from_functions(value=lambda w, lam: w @ w, grad=lambda w, lam: 2 * w)
    moves = tb.Transition.from_functions(
        step=lambda t, w, lam: 1e200 ** (lam > 5) * w / 2 + lam,
        vjp=lambda t, w, lam, alpha: (1e200 ** (lam > 5) * alpha / 2, alpha),
        initial=[1.0],
    )
    options = {"problem": tb.BilevelProblem(moves, f, T=3), "method": tb.RMD(), "iterations": 5}
    with pytest.raises(tb.DivergenceError):
        run(tmp_path / "run.npz", lam0=[9.0], **options)
    corrected = run(tmp_path / "run.npz", lam0=[1.0], **options)
    whole = tb.minimize(lam0=[1.0], optimizer=ADAM, **options)
    np.testing.assert_array_equal(corrected.lam, whole.lam)


class Plain(tb.Optimizer):
    """A user's own optimizer, without a repr."""

    def __init__(self, lr):
        self.lr = lr
        self._calls = 0

    def init(self, lam):
        return {"sum": 0 * lam}

    def update(self, tau, lam, grad, state):
        self._calls += 1
        state["sum"] += grad  # in place: an interrupt must not find it half done
        return lam - self.lr * grad, state


class Own(tb.Method):
    """A user's own method, without a repr."""

    def __init__(self, inner):
        self.inner = inner

    def _evaluate(self, dynamics):
        return self.inner._evaluate(dynamics)


def test_a_users_own_optimizer_and_method_are_known_by_what_they_are(tmp_path):
    file = tmp_path / "run.npz"
    run(file, optimizer=Plain(0.1), method=Own(tb.KRMD(np.int64(5))), iterations=3)
    assert "0x" not in "".join(str(text) for text in load_arrays(file).values())
    again = {"optimizer": Plain(0.1), "method": Own(tb.KRMD(5))}
    assert run(file, iterations=4, **again).iterations == 4
    with pytest.raises(ValueError, match=r"its optimizer was .*Plain\(lr=0.1\), .*Plain\(lr=0.2\)"):
        run(file, optimizer=Plain(0.2), method=Own(tb.KRMD(5)))
    with pytest.raises(ValueError, match=r"its method was .*Own\(inner=KRMD\(K=5\)\)"):
        run(file, optimizer=Plain(0.1), method=Own(tb.KRMD(6)))


def test_an_interrupt_in_an_optimizer_that_works_in_place_leaves_its_state_whole(tmp_path):
    file = tmp_path / "run.npz"

    class Interrupted(Plain):
        __qualname__ = "Plain"

        def update(self, tau, lam, grad, state):
            lam, state = super().update(tau, lam, grad, state)
            if tau == 3 and self._calls == 3:
                raise KeyboardInterrupt
            return lam, state

    with pytest.raises(KeyboardInterrupt):
        run(file, optimizer=Interrupted(0.01), iterations=6)
    run(file, optimizer=Plain(0.01), iterations=6)
    whole = tmp_path / "whole.npz"
    run(whole, optimizer=Plain(0.01), iterations=6)
    for name in ("lam", "moments_sum"):
        np.testing.assert_array_equal(load_arrays(file)[name], load_arrays(whole)[name])


IDENTITY = """
import functools, numpy as np
from tinybilevel.outer.identity import identity
def f(x, a=np.arange(9)): return x + 1
class Own:
    def __init__(self): self.things = {"f": f, "x": np.ones(3), "me": self}
print(identity([Own(), f, functools.partial(f, 2), lambda x: x * 2, {1, 2}, f.__class__]))
"""


def test_the_text_is_the_same_in_another_process():
    texts = {
        subprocess.run([sys.executable, "-c", IDENTITY], capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(texts) == 1
    assert b"0x" not in texts.pop()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x + 1, lambda x: x + 2),
        (functools.partial(halve, 1), functools.partial(halve, 2)),
        (np.arange(9), np.arange(9.0)),
        (np.arange(9), np.arange(9).reshape(3, 3)),
        ([1, 2], [2, 1]),
        (tb.KRMD(K=5), tb.KRMD(K=5, storage=tb.Checkpoint())),
        (tb.Adam(0.1), tb.SGD(0.1)),
        (Plain(0.1).update, Plain(0.2).update),
    ],
)
def test_what_differs_has_another_text(one, other):
    from tinybilevel.outer.identity import identity

    assert identity(one) != identity(other)


def closing_over(factor):
    return lambda x: factor * x


def test_a_function_is_also_what_it_closes_over():
    from tinybilevel.outer.identity import identity

    assert identity(closing_over(2)) == identity(closing_over(2.0 if False else 2))
    assert identity(closing_over(2)) != identity(closing_over(3))


@dataclass(frozen=True)
class Counting(tb.Optimizer):
    """Fields that tell nothing about the run, declared so in either way."""

    lr: float
    calls: list = field(default_factory=list, compare=False)
    label: str = field(default="", repr=False)


def test_fields_that_are_not_compared_or_printed_do_not_count():
    from tinybilevel.outer.identity import identity

    assert identity(Counting(0.1)) == identity(Counting(0.1, [1, 2], "second"))
    assert identity(Counting(0.1)) != identity(Counting(0.2))


@pytest.mark.parametrize(
    "other",
    [
        tb.problems.toy(T=5, step_size=lambda t: 1e200),
        replace(
            tb.problems.toy(T=5),
            transition=tb.GradientDescent(
                tb.Quadratic(np.ones(3)).on(slice(0, 3)), 0.1, initial=np.ones(3)
            ),
        ),
    ],
)
@pytest.mark.parametrize("warm_start", [False, True])
def test_another_problem_is_named_where_it_cannot_even_be_evaluated(tmp_path, other, warm_start):
    file = tmp_path / "run.npz"
    options = {"method": tb.KRMD(K=3), "warm_start": warm_start}
    run(file, problem=tb.problems.toy(T=5), iterations=4, **options)
    with pytest.raises(ValueError, match=r"belongs to another problem: (at its last λ, |its data)"):
        run(file, problem=other, **options)


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 8)).astype(np.float32)
    return X, (X @ rng.standard_normal((8, 3))).argmax(axis=1)


def cleaning(X, y, X_val, y_val, **options):
    return tb.problems.hypercleaning(X, y, X_val, y_val, T=10, **{"step_size": 0.1, **options})


def test_one_other_label_is_another_problem_in_float32_too(tmp_path, examples):
    (X, y), file = examples, tmp_path / "run.npz"
    options = {"method": tb.KRMD(K=2), "checkpoint": file, "resume": True}
    tb.minimize(cleaning(X, y, X, y), iterations=3, **options)
    y2, X2 = y.copy(), X.copy()
    y2[7] = (y2[7] + 1) % 3
    X2[7] *= 1.1
    for other in (
        cleaning(X, y2, X, y),
        cleaning(X, y, X, y2),
        cleaning(X2, y, X, y),
        cleaning(X, y, X, y, step_size=0.1001),
        cleaning(X, y, X, y, regularization=1.01e-3),
    ):
        with pytest.raises(ValueError, match=r"another problem: its data are others"):
            tb.minimize(other, iterations=4, **options)
    rounded = np.nextafter(X, np.float32(9))  # as on another machine
    assert tb.minimize(cleaning(rounded, y, X, y), iterations=4, **options).iterations == 4


@pytest.mark.parametrize(
    "damage",
    [
        {"lam": np.zeros(3)},
        {"lam": np.zeros(2, int)},
        {"best_lam": np.zeros(1)},
        {"last_good": np.zeros(2, np.float32)},
        {"iteration": np.array(-3)},
        {"iteration": np.array(6)},
        {"iteration": np.array("x")},
        {"history_value": np.zeros(2)},
    ],
)
def test_arrays_that_no_run_has_left_are_damage(file, damage):
    save_arrays(file, {**load_arrays(file), **damage})
    with pytest.raises(ValueError, match=r"run.npz is damaged: its arrays do not fit together"):
        run(file, iterations=7)


def test_a_history_of_nan_is_of_no_problem(file):
    save_arrays(file, {**load_arrays(file), "history_value": np.full(5, np.nan)})
    with pytest.raises(ValueError, match=r"at its last λ, f was nan; here it is"):
        run(file, iterations=7)
