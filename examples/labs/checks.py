# %% [markdown]
# The next cell has what the tests are written with. You need not read it.

# %% setup=checks
import numpy as np


def same(got, want, what, hint="", tol=1e-9):
    """Fail with a sentence that helps, unless `got` is `want`, up to `tol` of its size."""
    assert got is not None, f"{what} is None: does your function return it?"
    got, want = np.asarray(got, dtype=float), np.asarray(want, dtype=float)
    assert got.shape == want.shape, (
        f"{what} has the shape {got.shape}, and must have {want.shape}. {hint}"
    )
    size = float(np.abs(want).max(initial=0)) or 1.0
    if np.abs(got - want).max(initial=0) <= tol * size:
        return
    guesses = ((-1, "Its sign is wrong. "), (2, "It is twice as large. "), (0.5, "It is half. "))
    near = [why for factor, why in guesses if np.abs(got - factor * want).max() <= 1e-6 * size]
    raise AssertionError(f"{what} is {got}, and must be {want}. {''.join(near)}{hint}")


def unchanged(arrays, copies, what):
    """Fail unless each array is what its copy was before a call."""
    for array, copy in zip(arrays, copies, strict=True):
        assert np.array_equal(array, copy), (
            f"{what} has changed an array that it was given. Write w - x, not w -= x: "
            "an array is shared by all who hold it."
        )
