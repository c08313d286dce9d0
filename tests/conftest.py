"""Where the tests run: CUDA kernels in Numba's simulator, unless the device's own are asked for."""

import importlib.util
import os
import sys
import warnings
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def pytest_configure(config):
    if config.option.markexpr != "gpu":
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    else:
        _import_cuda()
    make_importable()


def _import_cuda():
    """Import what warns, as it is imported, of what a newer NumPy will no longer do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("cupy", "numba.cuda"):
            if importlib.util.find_spec(name.partition(".")[0]):
                importlib.import_module(name)


def pytest_ignore_collect(collection_path, config):
    # A machine with a GPU may lack what other tests need.
    if config.option.markexpr != "gpu" or collection_path.suffix != ".py":
        return None
    # The fixture of the kernels' tests holds their mark.
    kernels = collection_path.match("test_cuda*.py")
    return None if kernels or "mark.gpu" in collection_path.read_text("utf-8") else True


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and (reason := no_device()):
        pytest.skip(reason)


@cache
def no_device():
    """Return why nothing can run on a GPU here; None where it can."""
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()  # raises where there is none
    except Exception as error:
        return f"no CUDA device: {error}"


def make_importable():
    """Let a checkout be tested that is not installed, as setup.cfg would lay it out."""
    if importlib.util.find_spec("tinybilevel") is None:
        sys.path.insert(0, str(ROOT))
    import tinybilevel

    # `python -m pytest` finds the package in the working directory, but not its kernels.
    if importlib.util.find_spec("tinybilevel.kernels") is None:
        tinybilevel.__path__.append(str(ROOT))
