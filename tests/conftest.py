"""Where the tests run: CUDA kernels in Numba's simulator, unless the device's own are asked for."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def pytest_configure(config):
    if config.option.markexpr == "gpu":
        make_importable()
    else:
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"


def pytest_ignore_collect(collection_path, config):
    # A machine with a GPU may lack what other tests need.
    other = collection_path.is_file() and "mark.gpu" not in collection_path.read_text("utf-8")
    return True if config.option.markexpr == "gpu" and other else None


def make_importable():
    """Let a checkout be tested that is not installed, as setup.cfg would lay it out."""
    if importlib.util.find_spec("tinybilevel") is None:
        sys.path.insert(0, str(ROOT))
        import tinybilevel

        tinybilevel.__path__.append(str(ROOT))
