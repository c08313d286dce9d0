"""``tinybilevel run one-shot``: learn to learn characters from one image each."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinybilevel import data
from tinybilevel.arrays.backend import Array
from tinybilevel.cli import figures
from tinybilevel.cli.arguments import kept_warnings
from tinybilevel.cli.folder import Folder, peak_memory_mb, table, write_json
from tinybilevel.compiled import compile
from tinybilevel.errors import (
    ConvergenceWarning,
    DerivativeWarning,
    StabilityWarning,
    TruncationWarning,
)
from tinybilevel.maps import Layout
from tinybilevel.methods import KRMD, RMD, Method
from tinybilevel.outer import Adam, Clipped, Cosine, Optimizer, PerBlock, Progress, minimize
from tinybilevel.outer.checkpoint import save_arrays
from tinybilevel.problems import OneShot, TaskStream, four_blocks

__all__ = [
    "Config",
    "Result",
    "available",
    "characters",
    "defaults",
    "family",
    "method",
    "optimizer",
    "run",
    "start",
]

#: Query images of a class in a test task.
TEST_QUERIES = 15
#: Where the classes are parted; it is no setting, so that runs are judged on the same classes.
SPLIT_SEED = 2019
#: Over how many updates the accuracy on training tasks is averaged, where it is shown.
SHOWN = 100

#: How many λ along the way are kept, about.
KEPT = 20


@dataclass(frozen=True)
class Config:
    """Settings of one run, float32; `filters` are those of each of four blocks of layers.

    The rates fall to 0 along a cosine over `schedule` updates; `lr` is that of the network and the
    centres c, `lr_logs` that of log ρ and log γ. ρ and γ are where strengths and step sizes start,
    `rho_head` and `gamma_head` those of the last layer. `held_out` training classes are kept apart
    and tested on, in place of the test classes: for choosing settings. K = "full" is `RMD`: all T
    steps, and also what reaches c through w_0 = c, which K-RMD leaves out.
    """

    data: str = "omniglot"
    K: int | str = 10
    T: int = 50
    iterations: int = 2000
    schedule: int = 2000
    ways: int = 5
    shots: int = 1
    queries: int = 5
    tasks: int = 1
    filters: int = 32
    seed: int = 0
    lr: float = 2e-3
    lr_logs: float = 1e-4
    rho: float = 5.0
    rho_head: float = 1.5
    gamma: float = 0.02
    gamma_head: float = 0.01
    clip: float = 1.0
    rotations: bool = False
    held_out: int = 0
    test_tasks: int = 120


def defaults(name: str) -> Config:
    """Return what a run on some data is by default."""
    if name == "digits":
        small = Config("digits", iterations=500, schedule=500, lr=5e-3)
        return dataclasses.replace(small, rho=1.0, rho_head=0.5, gamma=0.01)
    return Config(name)


def available(data_dir: Path | None) -> str:
    """Return "omniglot" where it is to be had, or "digits", and say why."""
    try:
        data.omniglot(data_dir)
    except (data.DataError, ImportError) as error:
        print(
            f"tinybilevel: Omniglot is not to be had ({error}): scikit-learn's digits stand in, "
            "each turned four ways",
            file=sys.stderr,
        )
        return "digits"
    return "omniglot"


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes
    ----------
    test_accuracy, test_accuracy_support : float
        Means over test tasks of the share of query images that are told right: with batch
        statistics of all query images together (transductive), and with those of the support set.
    interval, interval_support : float
        Half the width of their 95 % intervals.
    test_accuracy_start : float
        The first at λ_1, before anything was learned.
    test_tasks : int
        How many tasks that is.
    test_classes, train_classes : int
        Classes that the test tasks and the training tasks are drawn from.
    loss : float
        Mean cross-entropy on the query images of training tasks, over the last 100 updates.
    train_tasks, train_images : int
        Tasks that λ was learned from, and images in them.
    rho, gamma : dict of str to float
        ρ and γ at the end, by parameter tensor.
    iterations : int
        Updates of λ, earlier parts of a resumed run included.
    warnings : list of str
        What the run warned of.
    seconds : float
        Wall-clock time of the outer loop, earlier parts of a resumed run included.
    seconds_per_iteration : float
        Its median over updates.
    peak_memory_mb : float
        Peak resident memory of the process, data and imports included.
    """

    test_accuracy: float
    interval: float
    test_accuracy_support: float
    interval_support: float
    test_accuracy_start: float
    test_tasks: int
    test_classes: int
    train_classes: int
    loss: float
    train_tasks: int
    train_images: int
    rho: dict[str, float]
    gamma: dict[str, float]
    iterations: int
    warnings: list[str]
    seconds: float
    seconds_per_iteration: float
    peak_memory_mb: float


def characters(
    config: Config, data_dir: Path | None = None
) -> tuple[data.Characters, data.Characters]:
    """Return the classes to train on and those to test on.

    Of Omniglot 1200 characters are for training. Of the digits, seven are, and three for testing,
    each in four rotations, which are classes of their own: 28 and 12.
    """
    if config.data == "digits":
        parts = data.Characters.of(data.digits()).split(7, SPLIT_SEED)
        train, test = (part.rotated() for part in parts)
    else:
        train, test = data.omniglot(data_dir).split(1200, SPLIT_SEED)
    if config.held_out:
        if config.held_out >= len(train):
            raise ValueError(
                f"held_out must be less than the {len(train)} training classes, got "
                f"{config.held_out}"
            )
        cut = len(train) - config.held_out
        train, test = train.take(np.arange(cut)), train.take(np.arange(cut, len(train)))
    return (train.rotated() if config.rotations and config.data != "digits" else train), test


def family(config: Config, side: int) -> OneShot:
    """Return the network for images of side × side pixels, the last blocks of which adapt.

    Small images leave the fourth block a pixel each, and batch norm no more of them than there are
    images; the network for these has three blocks.
    """
    shape = (1, side, side)
    layers = four_blocks(config.ways, filters=config.filters, input_shape=shape)
    adapt: tuple[str, ...] = ("block3", "block4", "head")
    if side < 16:
        del layers["block4"]
        adapt = ("block3", "head")
    return OneShot(layers, input_shape=shape, adapt=adapt, T=config.T)


def start(config: Config, problems: OneShot) -> Array:
    """Return λ_1."""

    def by_block(each: float, head: float) -> dict[str, float]:
        return {name: head if name == "head" else each for name in problems.adapt}

    return problems.start(
        config.seed,
        rho=by_block(config.rho, config.rho_head),
        gamma=by_block(config.gamma, config.gamma_head),
    )


def method(config: Config) -> Method:
    """Return `RMD` or K-RMD."""
    return KRMD(K=config.K) if isinstance(config.K, int) else RMD()


def optimizer(config: Config, layout: Layout) -> Optimizer:
    """Return Adam with a rate for the network and one for log ρ and log γ."""
    network, logs = (Adam(Cosine(each, config.schedule)) for each in (config.lr, config.lr_logs))
    return Clipped(
        PerBlock(layout, front=network, c=network, log_rho=logs, log_gamma=logs), config.clip
    )


def run(
    config: Config,
    out: Path,
    *,
    data_dir: Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Result:
    """Learn λ from a stream of tasks, test it on tasks of other classes, and write it to a folder.

    Parameters
    ----------
    config : Config
        What to run.
    out : Path
        Folder for ``config.json``, ``metrics.jsonl``, ``checkpoint.npz``, ``lam.npz``,
        ``result.json``, ``learning_curve.png`` and ``task.png``.
    data_dir : Path, optional
        Where Omniglot lies; see `tinybilevel.data`.
    resume : bool
        Continue the run that `out` holds.
    progress : bool
        Show a progress bar, the accuracy as it grows, and the final table.

    Returns
    -------
    Result
    """
    with kept_warnings(ConvergenceWarning, DerivativeWarning, StabilityWarning) as warned:
        # That K-RMD leaves out what comes through w_0 = c is the method of the paper's table.
        warnings.simplefilter("ignore", TruncationWarning)
        return _run(config, out, data_dir, resume, progress, warned)


def _run(
    config: Config,
    out: Path,
    data_dir: Path | None,
    resume: bool,
    progress: bool,
    warned: list[str],
) -> Result:
    train, test = characters(config, data_dir)
    problems = family(config, train.images.shape[-1])
    lam0, chosen = start(config, problems), method(config)
    stream = problems.stream(
        train,
        lam0,
        ways=config.ways,
        shots=config.shots,
        queries=config.queries,
        seed=config.seed,
        tasks=config.tasks,
    )
    if config.data == "omniglot" and find_spec("numba") is not None:
        stream = [cast(TaskStream, compile(each)) for each in stream]
    chosen.cost(stream[0])  # refuses a K that T does not allow before anything is written
    tests = _test_tasks(config, test)
    figures.require_matplotlib()
    folder = Folder(out, config, resume=resume)
    shown, stride = max(1, config.iterations // 10), max(1, config.schedule // KEPT)

    def log(step: Progress) -> None:
        tau, r = step.iteration, step.hypergradient
        drawn = [cast(Any, each.draw).task(tau) for each in stream]
        front = step.lam[problems.layout["front"]]
        right = [
            np.mean(_classes(problems, np.concatenate([front, w]), task) == task.y_query)
            for w, task in zip(r.w, drawn, strict=True)
        ]
        folder.log(
            {
                "iteration": tau,
                "loss": r.value,
                "accuracy": float(np.mean(right)),
                "grad_norm": float(np.linalg.norm(r.grad)),
            }
        )
        if progress and tau % shown == 0:
            _say(folder.lines())

    r = minimize(
        list(stream),
        method=chosen,
        optimizer=optimizer(config, problems.layout),
        iterations=folder.iterations,
        callback=log,
        progress=progress,
        checkpoint=folder.checkpoint,
        resume=resume,
        keep_lam=stride,
    )
    if progress:
        print(f"testing on {len(tests)} tasks", file=sys.stderr)
    found, before = problems.evaluate(r.lam, tests), problems.evaluate(lam0, tests)
    lines, tasks = folder.lines(), r.iterations * config.tasks
    parts = problems.layout.unpack(r.lam)
    each = config.ways * (config.shots + config.queries)
    result = Result(
        test_accuracy=found["query"].mean,
        interval=found["query"].interval,
        test_accuracy_support=found["support"].mean,
        interval_support=found["support"].interval,
        test_accuracy_start=before["query"].mean,
        test_tasks=len(tests),
        test_classes=len(test),
        train_classes=len(train),
        loss=float(np.mean([line["loss"] for line in lines[-SHOWN:]])),
        train_tasks=tasks,
        train_images=tasks * each,
        rho=_by_tensor(problems, parts["log_rho"]),
        gamma=_by_tensor(problems, parts["log_gamma"]),
        iterations=r.iterations,
        warnings=warned,
        seconds=float(r.history["seconds"][-1]),
        seconds_per_iteration=_median_step(r.history["seconds"]),
        peak_memory_mb=peak_memory_mb(),
    )
    predicted = problems.predict(r.lam, tests[0])
    save_arrays(
        out / "lam.npz",
        {
            "lam": r.lam,
            "kept": r.history["lam"],
            "kept_iterations": 1
            + max(1, config.schedule // KEPT) * np.arange(len(r.history["lam"])),
            "shares": np.array(found["query"].shares),
            "shares_support": np.array(found["support"].shares),
        },
    )
    figures.one_shot_curve(out / "learning_curve.png", lines)
    names = [
        test.characters[c] if config.data == "digits" else _short(test.alphabets[c])
        for c in tests[0].classes
    ]
    figures.one_shot_task(out / "task.png", tests[0], predicted, names)
    write_json(out / "result.json", dataclasses.asdict(result))
    if progress:
        print(_report(config, result))
        print(f"\nwritten to {out}/")
    return result


def _test_tasks(config: Config, test: data.Characters) -> list[data.Task]:
    """Draw the test tasks, the same for all runs with as many classes and images."""
    queries = min(TEST_QUERIES, test.images.shape[1] - config.shots)
    rng = np.random.default_rng(SPLIT_SEED)
    return [
        test.draw(config.ways, config.shots, queries, seed=rng) for _ in range(config.test_tasks)
    ]


def _classes(problems: OneShot, whole: Array, task: data.Task) -> Array:
    return problems.network.forward(whole, task.X_query).argmax(axis=1)


def _short(alphabet: str) -> str:
    return alphabet.partition("_(")[0].replace("_", " ")


def _by_tensor(problems: OneShot, logs: Array) -> dict[str, float]:
    return dict(zip(problems.back.layout, np.exp(logs).tolist(), strict=True))


def _median_step(seconds: Array) -> float:
    return float(np.median(np.diff(seconds, prepend=0.0)))


def _say(lines: list[dict[str, Any]]) -> None:
    from tqdm import tqdm

    last = lines[-SHOWN:]
    accuracy = np.mean([line["accuracy"] for line in last])
    tqdm.write(
        f"update {lines[-1]['iteration']}: {accuracy:.1%} of the query images right in the last "
        f"{len(last)} training tasks",
        file=sys.stderr,
    )


def _report(config: Config, result: Result) -> str:
    def score(x: float, interval: float) -> str:
        return f"{100 * x:.1f} ± {100 * interval:.1f} %"

    of = f"{result.test_classes} classes that were not trained on"
    if config.held_out:
        of = f"{result.test_classes} held-out training classes"
    rows = [
        (f"test accuracy, {result.test_tasks} tasks of {of}", ""),
        ("  statistics of all query images", score(result.test_accuracy, result.interval)),
        (
            "  statistics of the support set",
            score(result.test_accuracy_support, result.interval_support),
        ),
        ("  before learning", f"{100 * result.test_accuracy_start:.1f} %"),
        ("loss on the last training tasks", f"{result.loss:.4f}"),
        ("training tasks, images in them", f"{result.train_tasks}, {result.train_images}"),
        ("seconds", f"{result.seconds:.1f}"),
        ("  a hyper-iteration", f"{result.seconds_per_iteration:.3f}"),
        ("peak memory", f"{result.peak_memory_mb:.0f} MB"),
    ]
    title = (
        f"one-shot, {config.data}, {config.ways} classes, {config.shots} image each, "
        f"K = {config.K}, {result.iterations} iterations"
    )
    return table((title, ""), rows)
