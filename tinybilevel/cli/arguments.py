"""What the options of the command line may be, and how its help and its warnings read."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["count", "depth", "kept_warnings", "parser_settings", "positive", "share", "step_size"]


def count(minimum: int) -> Callable[[str], int]:
    """Return a type for argparse: whole numbers from `minimum` on."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(
                f"must be a whole number, at least {minimum}, got {text!r}"
            )
        return number

    return convert


def depth(text: str) -> int | str:
    """Return "full" or a whole number from 1 on, or refuse the text as a type of argparse does."""
    try:
        return text if text == "full" else count(1)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f'{error}; or "full"') from None


def share(text: str) -> float:
    """Return a number in [0, 1], or refuse the text as a type of argparse does."""
    x = _float(text)
    if not 0 <= x <= 1:
        raise argparse.ArgumentTypeError(f"must be a share, from 0 to 1, got {text!r}")
    return x


def positive(text: str) -> float:
    """Return a finite number above 0, or refuse the text as a type of argparse does."""
    x = _float(text)
    if not 0 < x < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return x


def step_size(text: str) -> float | str:
    """Return "auto" or a finite number above 0, or refuse the text."""
    if text == "auto":
        return text
    x = _float(text)
    if not 0 < x < math.inf:
        raise argparse.ArgumentTypeError(f'must be a number above 0, or "auto", got {text!r}')
    return x


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # which lies in no range


def parser_settings(about: str, *examples: str) -> dict[str, Any]:
    """Return what a parser's help says above and below its options; the examples as they stand."""
    lines = "\n".join(f"  tinybilevel {example}" for example in examples)
    return {
        "description": f"{about[0].upper()}{about[1:]}.",
        "epilog": f"examples:\n{lines}" if len(examples) > 1 else f"example:\n{lines}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "help": about,
    }


@contextmanager
def kept_warnings(*categories: type[Warning]) -> Iterator[list[str]]:
    """Collect the messages of these warnings, each once, and show each as it comes."""
    found: list[str] = []
    with warnings.catch_warnings():
        for category in categories:
            warnings.simplefilter("always", category)
        show = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *rest: object) -> None:
            if not issubclass(category, categories):
                show(message, category, *rest)  # type: ignore[arg-type]
            elif str(message) not in found:
                found.append(str(message))
                show(message, category, *rest)  # type: ignore[arg-type]

        warnings.showwarning = keep  # type: ignore[assignment]
        yield found
