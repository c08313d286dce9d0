"""Docstrings become pages with their indices set, and names stay names."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx")


@pytest.fixture(scope="module")
def directives():
    folder = str(Path(__file__).parents[2] / "docs")
    sys.path.insert(0, folder)
    try:
        import directives

        yield directives
    finally:
        sys.path.remove(folder)


def shown(parts):
    tags = {"superscript": "↑", "subscript": "↓"}
    return "".join(f"{tags.get(p.tagname, '')}{p.astext()}" for p in parts)


@pytest.mark.parametrize(
    ("text", "set_"),
    [
        ("‖h_{T−K} − d_λ f‖", "‖h↓T−K − d↓λ f‖"),
        ("∇²_ww g, B_0 α_0", "∇²↓ww g, B↓0 α↓0"),
        ("A_∞ᵏ ∇_w f, Σ_{k≥K}", "A↓∞ᵏ ∇↓w f, Σ↓k≥K"),
        ("‖w_j‖², η_τ², λ_max(X)", "‖w↓j‖², η↓τ², λ↓max(X)"),
        ("(1 − γα)^K 2^{T−K+1}", "(1 − γα)↑K 2↑T−K+1"),
        ("X_val, eq_10, lam_max and value_and_grad", "X_val, eq_10, lam_max and value_and_grad"),
    ],
)
def test_indices(directives, text, set_):
    assert shown(directives.indices(text)) == set_


def test_the_home_pages_picture_tells_the_truth(directives):
    import numpy as np

    import tinybilevel as tb

    picture = directives.picture
    *h, exact = tb.RMD().truncations(tb.problems.toy(T=picture.T, step_size=0.3))
    share = 1 - np.linalg.norm(h[picture.K] - exact) / np.linalg.norm(exact)
    assert f"{share:.0%} of the gradient" in picture.svg()
    assert picture.svg().count("kept") == picture.K + 1  # and once in its style
