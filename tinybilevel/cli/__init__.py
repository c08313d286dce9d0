"""The command line: ``tinybilevel run`` and ``tinybilevel reproduce``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        0 when all went well, 2 after an error in the input or a diverging run, 130 after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    try:
        args.command(args)
    except KeyboardInterrupt:
        again = "with --resume " if hasattr(args, "resume") else ""
        print(f"\ninterrupted; the same command {again}continues", file=sys.stderr)
        return 130
    except (ArithmeticError, ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"tinybilevel: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    import tinybilevel

    parser = argparse.ArgumentParser(
        prog="tinybilevel", description="Bilevel optimization by truncated back-propagation."
    )
    parser.add_argument("--version", action="version", version=tinybilevel.__version__)
    verbs = parser.add_subparsers(metavar="{run,reproduce}", required=True)
    run = verbs.add_parser("run", help="solve one problem").add_subparsers(
        metavar="{hypercleaning,toy}", required=True
    )
    _hypercleaning(run.add_parser("hypercleaning", help="learn which training labels to distrust"))
    _toy(run.add_parser("toy", help="the two-dimensional problem of Section 4.1"))
    reproduce = verbs.add_parser("reproduce", help="a table or figure of the paper")
    _reproduce(reproduce)
    return parser


def _hypercleaning(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", choices=["digits", "mnist", "fashion"], default="digits")
    add("--data-dir", type=Path, help="folder that holds mnist/ and fashion/; see tinybilevel.data")
    add("--K", type=int, default=5, help="steps of back-propagation (default 5)")
    add("--T", type=int, default=100, help="steps of the lower level (default 100)")
    add("--iterations", type=int, default=1000, help="updates of λ (default 1000)")
    add("--noise", type=float, default=0.5, help="share of wrong training labels (default 0.5)")
    add("--seed", type=int, default=0)
    add("--lr", type=float, default=0.3, help="rate of the outer Adam (default 0.3)")
    add("--step-size", type=float, default=1.0, help="γ of the lower level (default 1)")
    _device(add)
    add("--exact-every", type=int, default=0, help="also compute ‖d_λ f‖ every so many updates")
    _output(parser)

    def command(args: argparse.Namespace) -> None:
        from tinybilevel.cli.hypercleaning import Config, run

        fields = Config.__dataclass_fields__
        config = Config(**{name: getattr(args, name) for name in fields})
        out = (
            args.out or Path("runs") / f"hypercleaning-{config.data}-K{config.K}-seed{config.seed}"
        )
        run(config, out, data_dir=args.data_dir, resume=args.resume, progress=True)

    parser.set_defaults(command=command)


def _toy(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--K", type=int, default=1, help="steps of back-propagation (default 1)")
    add("--T", type=int, default=100, help="steps of the lower level (default 100)")
    add("--iterations", type=int, default=500, help="updates of λ (default 500)")
    add("--lr", type=float, help="η_0 of η_0/√τ; by default the first update has norm 0.6")
    add("--biased", action="store_true", help="add 5‖λ − (1, 0)‖² to the upper level")
    _output(parser)

    def command(args: argparse.Namespace) -> None:
        from tinybilevel.cli.toy import Config, run

        config = Config(**{name: getattr(args, name) for name in Config.__dataclass_fields__})
        run(config, args.out or Path("runs/toy"), resume=args.resume, progress=True)

    parser.set_defaults(command=command)


def _reproduce(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(metavar="{table2,figure1,…,figure5}", required=True)
    for name, about in (
        ("figure1", "the graph of f, and both sides of Proposition 3.1"),
        ("figure2", "the descent ratio of Lemma 3.2 along a run, for f and f̃"),
        ("figure3", "biased convergence on f̃ (Theorem 3.3)"),
        ("figure4", "convergence on f (Theorem 3.4)"),
    ):
        figure = what.add_parser(name, help=about, description=f"Draw {about}.")
        figure.add_argument(
            "--out",
            type=Path,
            default=Path("runs/figures"),
            help="folder for the PNG, the SVG and the data as CSV (default runs/figures)",
        )
        figure.set_defaults(command=_figure, name=name)
    for name, about in (
        ("table2", "data hypercleaning on MNIST"),
        ("figure5", "‖d_λ f‖ along the runs of table2"),
    ):
        _runs(what.add_parser(name, help=about), name)


def _figure(args: argparse.Namespace) -> None:
    from tinybilevel.cli import figures, theory

    figures.require_matplotlib()
    for path in getattr(theory, args.name)(args.out):
        print(f"written {path}")


def _runs(parser: argparse.ArgumentParser, name: str) -> None:
    add = parser.add_argument
    add("--data-dir", type=Path, help="folder that holds mnist/; see tinybilevel.data")
    add("--K", type=int, nargs="+", default=[1, 5, 25, 50, 100])
    add("--seeds", type=int, nargs="+", default=[0])
    add("--iterations", type=int, default=1000)
    add(
        "--lr",
        type=float,
        default=0.3,
        help="rate of the outer Adam, the same for all K (default 0.3)",
    )
    _device(add)
    add("--jobs", type=int, default=1, help="runs at a time (default 1)")
    add(
        "--out",
        type=Path,
        default=Path("runs/table2"),
        help="folder of the runs, shared by table2 and figure5; finished ones are not run again",
    )

    def command(args: argparse.Namespace) -> None:
        from tinybilevel.cli import reproduce

        runs = reproduce.all_runs(
            args.out,
            args.K,
            args.seeds,
            args.iterations,
            args.lr,
            device=args.device,
            data_dir=args.data_dir,
            jobs=args.jobs,
        )
        getattr(reproduce, name)(runs, args.out)

    parser.set_defaults(command=command)


def _device(add: Callable[..., Any]) -> None:
    add("--device", choices=["cpu", "gpu"], default="cpu", help="where to compute (default cpu)")


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="folder for the results (default under runs/)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
