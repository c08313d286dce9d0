"""The command line: ``tinybilevel run`` and ``tinybilevel reproduce``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinybilevel.cli.arguments import count, depth, parser_settings, positive, share, step_size
from tinybilevel.errors import StabilityWarning

__all__ = ["main"]


class _Terminated(KeyboardInterrupt):
    """SIGTERM: whatever saves its work on Ctrl-C saves it now."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        0 when all went well, 2 after an error in the input or a diverging run, 130 after Ctrl-C,
        143 after SIGTERM.

    Raises
    ------
    SystemExit
        With status 2 if an option is unknown or out of range, and 0 after ``--help``.
    """
    args = _parser().parse_args(argv)
    try:
        _check_out(getattr(args, "out", None))
        with _one_line_warnings(), _sigterm_raises():
            args.command(args)
    except KeyboardInterrupt as stop:
        word, status = ("interrupted", 130)
        if isinstance(stop, _Terminated):
            word, status = ("terminated", 143)
        print(f"\n{word}: {args.kept(args)}", file=sys.stderr)
        return status
    except StabilityWarning as error:
        anyway = (
            "; --allow-unstable goes on with this one" if hasattr(args, "allow_unstable") else ""
        )
        print(
            f"tinybilevel: error: {error}\n  --step-size auto takes one that does{anyway}",
            file=sys.stderr,
        )
        return 2
    except (ArithmeticError, ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"tinybilevel: error: {error}", file=sys.stderr)
        return 2
    return 0


def _check_out(out: Path | None) -> None:
    for path in () if out is None else (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise FileExistsError(f"--out {path} is a file: name a folder")


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"tinybilevel: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # elsewhere Python lets nobody listen
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    import tinybilevel

    parser = argparse.ArgumentParser(
        prog="tinybilevel",
        description="Bilevel optimization by truncated back-propagation.",
        epilog="examples:\n  tinybilevel run hypercleaning\n  tinybilevel reproduce figure1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=tinybilevel.__version__)
    verbs = parser.add_subparsers(metavar="{run,reproduce}", required=True)
    about = parser_settings("solve one problem", "run hypercleaning", "run toy --K 5")
    run = verbs.add_parser("run", **about).add_subparsers(
        metavar="{hypercleaning,task-interaction,one-shot,toy}", required=True
    )
    _hypercleaning(run)
    _task_interaction(run)
    _one_shot(run)
    _toy(run)
    about = parser_settings(
        "a table or figure of the paper", "reproduce figure1", "reproduce table2 --jobs 2"
    )
    _reproduce(verbs.add_parser("reproduce", **about))
    return parser


def _hypercleaning(run: Any) -> None:
    parser = run.add_parser(
        "hypercleaning",
        **parser_settings(
            "learn which training labels to distrust (seconds on the digits; on MNIST a minute or"
            " two\nwith the extra fast, some five without it)",
            "run hypercleaning",
            "run hypercleaning --data mnist --K 5 --out runs/mnist",
            "run hypercleaning --data mnist --K 5 --iterations 2000 --out runs/mnist --resume",
            "run hypercleaning --data fashion --step-size auto",
        ),
    )
    add = parser.add_argument
    add(
        "--data",
        choices=["digits", "mnist", "fashion"],
        default="digits",
        help="what to clean (default digits, which come with scikit-learn)",
    )
    add("--data-dir", type=Path, help="folder that holds mnist/ and fashion/; see tinybilevel.data")
    add("--K", type=count(1), default=5, help="steps of back-propagation, up to T (default 5)")
    add("--T", type=count(1), default=100, help="steps of the lower level (default 100)")
    add("--iterations", type=count(1), default=1000, help="updates of λ in all (default 1000)")
    add("--noise", type=share, default=0.5, help="share of wrong training labels (default 0.5)")
    add("--seed", type=count(0), default=0, help="of the split and the wrong labels (default 0)")
    add("--lr", type=positive, default=0.3, help="rate of the outer Adam (default 0.3)")
    add(
        "--step-size",
        type=step_size,
        default=1.0,
        help='γ of the lower level, or "auto": 1/β, measured by a power iteration (default 1)',
    )
    add(
        "--allow-unstable",
        action="store_true",
        help="warn of a γ beyond 2/β, rather than refuse it",
    )
    _device(add)
    add(
        "--exact-every",
        type=count(0),
        default=0,
        help="also compute ‖d_λ f‖ every so many updates (default 0, never)",
    )
    _output(parser)

    def command(args: argparse.Namespace) -> None:
        from tinybilevel.cli.folder import default_folder
        from tinybilevel.cli.hypercleaning import Config, run

        if args.data == "digits" and args.data_dir is not None:
            parser.error("argument --data-dir: the digits come with scikit-learn, not from a file")
        config = _config(Config, args)
        args.out = args.out or default_folder("hypercleaning", config, "data", "K", "seed")
        run(
            config,
            args.out,
            data_dir=args.data_dir,
            resume=args.resume,
            progress=True,
            allow_unstable=args.allow_unstable,
        )

    parser.set_defaults(command=command)


def _task_interaction(run: Any) -> None:
    parser = run.add_parser(
        "task-interaction",
        **parser_settings(
            "learn which linear models should resemble each other, from few examples (seconds; on"
            "\nthe 100 classes of cifar100 half a minute)",
            "run task-interaction",
            "run task-interaction --data mnist --K 25 --out runs/tasks",
            "run task-interaction --data mnist --K 25 --iterations 300 --out runs/tasks --resume",
            "run task-interaction --data features.npz --n-train 100 --n-val 100",
        ),
    )
    add = parser.add_argument
    add(
        "--data",
        type=_data,
        default="digits",
        metavar="DATA",
        help="digits, which come with scikit-learn (the default), mnist, fashion, omniglot, cifar10"
        " or\ncifar100 (as features of a pretrained network), or an .npz file with X and y; see"
        "\ntinybilevel.data.load_pool",
    )
    add("--data-dir", type=Path, help="folder that holds the data; see tinybilevel.data")
    add(
        "--K", type=count(1), default=100, help="steps of back-propagation, up to 100 (default 100)"
    )
    add("--seed", type=count(0), default=0, help="of the draw (default 0)")
    own = "default by the data"
    add("--iterations", type=count(1), help=f"updates of λ in all ({own}: 150, 50 of many classes)")
    add("--lr", type=positive, help=f"rate of the outer Adam ({own}: 1e-3, 3e-4 of many classes)")
    add("--n-train", type=count(1), help=f"training examples ({own}: 3 or 5 for each class)")
    add("--n-val", type=count(1), help=f"validation examples ({own}: as many)")
    add(
        "--balanced",
        action=argparse.BooleanOptionalAction,
        help=f"as many of each class ({own}: yes, but for cifar10 and cifar100)",
    )
    add("--norm", type=positive, help=f"length of each row of features ({own}: 15 or 20)")
    add(
        "--project",
        action="store_true",
        help="shrink C where its row sums leave what is known to be stable, rather than warn",
    )
    _output(parser)

    def command(args: argparse.Namespace) -> None:
        from tinybilevel.cli.draws import defaults
        from tinybilevel.cli.folder import default_folder
        from tinybilevel.cli.task_interaction import Config, run

        if args.data_dir is not None and (args.data == "digits" or args.data.endswith(".npz")):
            parser.error(f"argument --data-dir: {args.data} is not looked for in a folder")
        usual = Config(**vars(defaults(args.data)))
        for name, value in vars(usual).items():
            if getattr(args, name) is None:
                setattr(args, name, value)
        config = _config(Config, args)
        if args.out is None:
            named = replace(config, data=Path(args.data).stem)
            always = "data", "K", "seed"
            args.out = default_folder("task-interaction", named, *always, usual=usual)
        run(config, args.out, data_dir=args.data_dir, resume=args.resume, progress=True)

    parser.set_defaults(command=command)


def _data(text: str) -> str:
    from tinybilevel.cli.draws import SETTINGS

    known = [name for name in SETTINGS if not name.endswith("-balanced")]
    if text not in known and not text.endswith(".npz"):
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(known)}, or an .npz file, got {text!r}"
        )
    return text


def _one_shot(run: Any) -> None:
    parser = run.add_parser(
        "one-shot",
        **parser_settings(
            "learn to tell characters from one image each (a few minutes; on the digits, which"
            "\nstand in where Omniglot is not found, less than one)",
            "run one-shot",
            "run one-shot --K 1 --iterations 5000 --test-tasks 600 --out runs/K1",
            "run one-shot --K 1 --iterations 5000 --test-tasks 600 --out runs/K1 --resume",
            "run one-shot --ways 20 --held-out 100",
        ),
    )
    add = parser.add_argument
    add(
        "--data",
        choices=["omniglot", "digits"],
        help="characters to tell (default omniglot; where it is not found the digits, each turned"
        "\nby 0°, 90°, 180° and 270°)",
    )
    add("--data-dir", type=Path, help="folder that holds omniglot/; see tinybilevel.data")
    own = "default by the data"
    add(
        "--K",
        type=depth,
        default=10,
        help='steps of back-propagation, up to T, or "full": all, and what reaches c through'
        "\nw_0 = c (default 10)",
    )
    add("--T", type=count(1), default=50, help="steps of the lower level (default 50)")
    add("--iterations", type=count(1), help=f"updates of λ in all ({own}: 2000, digits 500)")
    add(
        "--schedule",
        type=count(1),
        help="updates in which the rates fall to 0, along a cosine (default --iterations)",
    )
    add("--ways", type=count(2), default=5, help="classes of a task (default 5)")
    add("--shots", type=count(1), default=1, help="images of a class to learn from (default 1)")
    add("--queries", type=count(1), default=5, help="query images of a class (default 5)")
    add("--tasks", type=count(1), default=1, help="tasks for each update (default 1)")
    add("--filters", type=count(1), default=32, help="of each convolution (default 32)")
    add("--seed", type=count(0), default=0, help="of λ_1 and the training tasks (default 0)")
    add("--lr", type=positive, help=f"outer Adam: the network and c ({own}: 2e-3, digits 5e-3)")
    add("--lr-logs", type=positive, default=1e-4, help="and of log ρ and log γ (default 1e-4)")
    for name, what, each, head in (
        ("rho", "strength of the pull to c", "5, digits 1", "1.5, digits 0.5"),
        ("gamma", "step size", "0.02, digits 0.01", "0.01"),
    ):
        add(f"--{name}", type=positive, help=f"{what} to start from ({own}: {each})")
        add(f"--{name}-head", type=positive, help=f"that of the last layer ({own}: {head})")
    add("--clip", type=positive, default=1.0, help="largest ‖hypergradient‖ to follow (default 1)")
    add(
        "--rotations",
        action="store_true",
        help="train on characters turned by 90°, 180° and 270° as well, as further classes",
    )
    add(
        "--held-out",
        type=count(0),
        default=0,
        help="training classes to keep apart and test on, to choose settings by (default 0)",
    )
    add("--test-tasks", type=count(2), default=120, help="tasks to test on (default 120)")
    _output(parser)

    def command(args: argparse.Namespace) -> None:
        from tinybilevel.cli.folder import default_folder
        from tinybilevel.cli.one_shot import Config, available, defaults, run

        if args.data == "digits" and args.data_dir is not None:
            parser.error("argument --data-dir: the digits come with scikit-learn, not from a file")
        if args.data == "digits" and args.rotations:
            parser.error("argument --rotations: the digits are turned already")
        args.data = args.data or available(args.data_dir)
        usual = defaults(args.data)
        for name, value in vars(replace(usual, schedule=args.iterations or usual.schedule)).items():
            if getattr(args, name) is None:
                setattr(args, name, value)
        config = _config(Config, args)
        if args.out is None:
            usual = replace(usual, schedule=config.iterations)
            args.out = default_folder("one-shot", config, "data", "K", "seed", usual=usual)
        run(config, args.out, data_dir=args.data_dir, resume=args.resume, progress=True)

    parser.set_defaults(command=command)


def _toy(run: Any) -> None:
    parser = run.add_parser(
        "toy",
        **parser_settings(
            "the two-dimensional problem of Section 4.1 (seconds)",
            "run toy --K 1",
            "run toy --biased --K 50",
        ),
    )
    add = parser.add_argument
    add("--K", type=count(1), default=1, help="steps of back-propagation, up to T (default 1)")
    add("--T", type=count(1), default=100, help="steps of the lower level (default 100)")
    add("--iterations", type=count(1), default=500, help="updates of λ in all (default 500)")
    add("--lr", type=positive, help="η_0 of η_0/√τ; by default the first update has norm 0.6")
    add("--biased", action="store_true", help="add 5‖λ − (1, 0)‖² to the upper level")
    _output(parser)

    def command(args: argparse.Namespace) -> None:
        from tinybilevel.cli.folder import default_folder
        from tinybilevel.cli.toy import Config, run

        config = _config(Config, args)
        args.out = args.out or default_folder("toy", config, "K")
        run(config, args.out, resume=args.resume, progress=True)

    parser.set_defaults(command=command)


def _config(cls: Any, args: argparse.Namespace) -> Any:
    return cls(**{name: getattr(args, name) for name in cls.__dataclass_fields__})


def _reproduce(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(metavar="{table2,table3,table4,figure1,…,figure7}", required=True)
    for name, about in (
        ("figure1", "the graph of f, and both sides of Proposition 3.1"),
        ("figure2", "the descent ratio of Lemma 3.2 along a run, for f and f̃"),
        ("figure3", "biased convergence on f̃ (Theorem 3.3)"),
        ("figure4", "convergence on f (Theorem 3.4)"),
    ):
        figure = what.add_parser(name, **parser_settings(f"{about} (seconds)", f"reproduce {name}"))
        figure.add_argument(
            "--out",
            type=Path,
            default=Path("runs/figures"),
            help="folder for the PNG, the SVG and the data as CSV (default runs/figures)",
        )
        figure.set_defaults(
            command=_figure, name=name, kept=lambda args: "the same command starts again"
        )
    for name, about in (
        ("table2", "data hypercleaning, on MNIST or Fashion-MNIST"),
        ("figure5", "‖d_λ f‖ along the runs of table2"),
    ):
        settings = parser_settings(
            f"{about} (each of the five K takes a minute or two with the extra\n"
            "fast, some five without it; what is finished is kept and not run again)",
            f"reproduce {name} --jobs 2",
            f"reproduce {name} --K 1 5 --iterations 100 --out runs/short",
            f"reproduce {name} --data fashion --seeds 0 1 2",
        )
        _runs(what.add_parser(name, **settings), name)
    for name, about in (
        ("table3", "task interaction, from few examples"),
        ("figure6", "how the runs of table3 converge, and the C that they learn"),
    ):
        settings = parser_settings(
            f"{about} (a quarter of a minute for a trial of ten classes,\na minute of a hundred; "
            "what is finished is kept and not run again)",
            f"reproduce {name}",
            f"reproduce {name} --settings digits --trials 1 --out runs/short",
        )
        _trials(what.add_parser(name, **settings), name)
    for name, about in (
        ("table4", "one-shot accuracy on Omniglot, by K"),
        ("figure7", "how the runs of table4 go, and what K-RMD leaves out of a hypergradient"),
    ):
        settings = parser_settings(
            f"{about} (hours for 5000 updates;\nwhat is finished is kept and not run again)",
            f"reproduce {name}",
            f"reproduce {name} --K 10 --iterations 200 --test-tasks 60 --out runs/short",
        )
        _one_shot_runs(what.add_parser(name, **settings), name)


def _figure(args: argparse.Namespace) -> None:
    from tinybilevel.cli import figures, theory

    figures.require_matplotlib()
    for path in getattr(theory, args.name)(args.out):
        print(f"written {path}")


def _runs(parser: argparse.ArgumentParser, name: str) -> None:
    add = parser.add_argument
    Ks = [1, 5, 25, 50, 100]
    add(
        "--data",
        choices=["mnist", "fashion"],
        default="mnist",
        help="what to clean (default mnist)",
    )
    add("--data-dir", type=Path, help="folder that holds mnist/ and fashion/; see tinybilevel.data")
    add("--K", type=count(1), nargs="+", default=Ks, help="one run each (default 1 5 25 50 100)")
    add("--seeds", type=count(0), nargs="+", default=[0], help="one run each (default 0)")
    add("--iterations", type=count(1), default=1000, help="updates of λ (default 1000)")
    add(
        "--lr",
        type=positive,
        default=0.3,
        help="rate of the outer Adam, the same for all K (default 0.3)",
    )
    add(
        "--step-size",
        type=step_size,
        help='γ of the lower level, or "auto": 1/β (default 1 on mnist, auto on fashion)',
    )
    _device(add)
    add("--jobs", type=count(1), default=1, help="runs at a time (default 1)")
    add(
        "--out",
        type=Path,
        help="folder of the runs, shared by table2 and figure5 (default runs/table2, or"
        "\nruns/table2-fashion)",
    )

    def command(args: argparse.Namespace) -> None:
        from tinybilevel.cli import reproduce

        fashion = args.data == "fashion"
        args.out = args.out or Path("runs/table2-fashion" if fashion else "runs/table2")
        runs = reproduce.all_runs(
            args.out,
            args.K,
            args.seeds,
            args.iterations,
            args.lr,
            data=args.data,
            step_size=args.step_size or ("auto" if fashion else 1.0),
            device=args.device,
            data_dir=args.data_dir,
            jobs=args.jobs,
        )
        if name == "table2":
            reproduce.table2(runs, args.out, args.data)
        else:
            reproduce.figure5(runs, args.out)

    parser.set_defaults(
        command=command,
        kept=lambda args: f"the runs so far are kept in {args.out}/; the same command goes on",
    )


def _trials(parser: argparse.ArgumentParser, name: str) -> None:
    from tinybilevel.cli.draws import SETTINGS

    cifar = ["cifar10", "cifar100"]
    most = [*cifar, "cifar10-balanced", "cifar100-balanced", "mnist", "omniglot"]
    usual = most if name == "table3" else cifar
    add = parser.add_argument
    add("--data-dir", type=Path, help="folder that holds cifar/, mnist/, …; see tinybilevel.data")
    add(
        "--settings",
        nargs="+",
        choices=SETTINGS,
        default=usual,
        metavar="NAME",
        help=f"some of {', '.join(SETTINGS)} (default {' '.join(usual)})",
    )
    add("--trials", type=count(1), default=10, help="draws of each, seeds 0, 1, … (default 10)")
    add(
        "--out",
        type=Path,
        default=Path("runs/table3"),
        help="folder of the trials, shared by table3 and figure6 (default runs/table3)",
    )

    def command(args: argparse.Namespace) -> None:
        from tinybilevel.cli import figure6, figures, table3

        figures.require_matplotlib()
        found = table3.all_trials(args.out, args.settings, args.trials, data_dir=args.data_dir)
        if name == "table3":
            table3.table3(found, args.out)
        else:
            figure6.figure6(found, args.out, args.data_dir)

    parser.set_defaults(
        command=command,
        kept=lambda args: f"the trials so far are kept in {args.out}/; the same command goes on",
    )


def _one_shot_runs(parser: argparse.ArgumentParser, name: str) -> None:
    Ks = [1, 10, 25, 50]
    add = parser.add_argument
    add("--data", choices=["omniglot", "digits"], default="omniglot", help="(default omniglot)")
    add("--data-dir", type=Path, help="folder that holds omniglot/; see tinybilevel.data")
    add(
        "--K",
        type=depth,
        nargs="+",
        default=Ks,
        help='one run each; "full": all T steps and what reaches c through w_0 = c'
        "\n(default 1 10 25 50)",
    )
    add("--seeds", type=count(0), nargs="+", default=[0], help="one run each (default 0)")
    add("--T", type=count(1), default=50, help="steps of the lower level (default 50)")
    add("--iterations", type=count(1), default=5000, help="updates of λ (default 5000)")
    add("--ways", type=count(2), default=5, help="classes of a task (default 5)")
    add("--filters", type=count(1), default=32, help="of each convolution (default 32)")
    add("--lr-logs", type=positive, default=1e-4, help="rate of log ρ and log γ (default 1e-4)")
    add("--rho-head", type=positive, help="ρ of the last layer to start from (default 1.5)")
    add(
        "--held-out",
        type=count(0),
        default=0,
        help="training classes to keep apart and test on, to choose settings by (default 0)",
    )
    add("--test-tasks", type=count(2), default=600, help="tasks to test on (default 600)")
    add("--jobs", type=count(1), default=1, help="runs at a time (default 1)")
    add(
        "--out",
        type=Path,
        default=Path("runs/table4"),
        help="folder of the runs, shared by table4 and figure7; table4 has a row for all that are"
        "\nfinished there (default runs/table4)",
    )

    def command(args: argparse.Namespace) -> None:
        from tinybilevel.cli import figure7, table4
        from tinybilevel.cli.one_shot import defaults

        names = "T", "iterations", "ways", "filters", "lr_logs", "held_out", "test_tasks"
        given = {name: getattr(args, name) for name in names}
        given |= {"rho_head": args.rho_head} if args.rho_head else {}
        config = replace(defaults(args.data), **given, schedule=args.iterations)
        runs = table4.all_runs(
            args.out, config, args.K, args.seeds, data_dir=args.data_dir, jobs=args.jobs
        )
        if name == "table4":
            print(table4.table4(args.out))
        else:
            figure7.figure7(runs, args.out, data_dir=args.data_dir)

    parser.set_defaults(
        command=command,
        kept=lambda args: f"the runs so far are kept in {args.out}/; the same command goes on",
    )


def _device(add: Callable[..., Any]) -> None:
    add(
        "--device",
        choices=["cpu", "gpu"],
        default="cpu",
        help="where to compute (default cpu: in a compiled loop where the extra fast, Numba, is"
        "\ninstalled, step by step in NumPy where not; the numbers are the same but for rounding)",
    )


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, help="folder for the results (default under runs/, named by settings)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.set_defaults(kept=_kept)


def _kept(args: argparse.Namespace) -> str:
    from tinybilevel.cli.folder import updates

    if args.out is None or not (args.out / "config.json").exists():
        return "nothing is saved yet; the same command starts again"
    done = updates(args.out)
    return f"{done} updates of λ are saved in {args.out}/; the same command with --resume goes on"
