"""Whole loops in compiled code: an overlay that no other folder knows of."""

from tinybilevel.compiled.compile import compile

__all__ = ["compile"]
