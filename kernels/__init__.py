"""Compiled bodies of hand-written products; leaves that import nothing from tinybilevel."""
