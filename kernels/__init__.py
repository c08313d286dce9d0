"""Compiled bodies of hand-written products; leaves that import nothing from tinybilevel."""

from pathlib import Path

from tinybilevel.kernels.stale import forget

forget(Path(__file__).parent)
