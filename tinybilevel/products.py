"""Which products an object writes out: what a method needs is looked for before anything runs."""

from __future__ import annotations

from typing import Any

__all__ = ["Missing", "writes"]

#: The object that does not write a product out, and the product's name.
Missing = tuple[Any, str]


def writes(part: Any, base: type, product: str) -> bool:
    """Return whether `part` has a `product` of its own, rather than that of `base`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> from tinybilevel.products import writes
    >>> writes(tb.Exp(), tb.HyperMap, "vjp"), writes(tb.HyperMap(), tb.HyperMap, "vjp")
    (True, False)
    """
    return getattr(getattr(part, product), "__func__", None) is not getattr(base, product)
