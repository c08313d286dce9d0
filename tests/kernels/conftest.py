"""Where CUDA kernels run in tests: in Numba's simulator, and with -m gpu on a device."""

from types import SimpleNamespace

import pytest
from device import DeviceArray, install, to_device


@pytest.fixture(params=["simulator", pytest.param("gpu", marks=pytest.mark.gpu)])
def place(request, monkeypatch):
    """Return how arrays are put where the kernels run, how they are read, and their class."""
    if request.param == "gpu":
        import cupy

        return SimpleNamespace(put=cupy.asarray, get=cupy.asnumpy, array=cupy.ndarray)
    from numba import cuda

    from tinybilevel.kernels import cuda as module

    # Arrays that claim to be on a device are NumPy's for the simulator, which records no graph.
    install(monkeypatch)
    monkeypatch.setattr(cuda, "as_cuda_array", lambda a, sync: a._data, raising=False)
    monkeypatch.setattr(module, "_configured", lambda kernel, *sizes: kernel[sizes[:2]])
    monkeypatch.setattr(module, "record", lambda run: run)
    return SimpleNamespace(put=to_device, get=lambda x: x._data, array=DeviceArray)
