"""A table of functions by the type of what they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Registry"]


class Registry:
    """Calls the function that is registered for the very type of the first argument.

    A subclass is another type, of which nothing is known: its derivatives may be others.
    """

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc
        self._known: dict[type, Callable[..., Any]] = {}

    def of(self, kind: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function for `kind`."""

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            self._known[kind] = function
            return function

        return add

    def __call__(self, subject: Any, *args: Any) -> Any:
        """Return what it returns, or None for a type that nothing is registered for."""
        function = self._known.get(type(subject))
        return None if function is None else function(subject, *args)
