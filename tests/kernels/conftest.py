"""Where CUDA kernels run in tests, a simulator or a device; and a thread that is late."""

import threading
import time
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


@pytest.fixture
def late(monkeypatch):
    """Return what has a second thread take each run's first chunk, and hand it in late.

    It returns a list, to which each run adds whether another thread has done that chunk meanwhile.
    """
    from tinybilevel.kernels.pool import LOOKS, count_shared, pool
    from tinybilevel.kernels.tickets import hand_in, next_ticket

    overtaken = []

    def share(helpers, work, args):
        queue = args[0]
        counter, steps, _, places, _, pieces = queue
        counter[3] -= 1
        assert next_ticket(queue, LOOKS, 1) == (0, 0)

        def come_back():
            deadline = time.monotonic() + 5
            while counter[0] < steps * (places.size + pieces) and time.monotonic() < deadline:
                time.sleep(0.001)
            overtaken.append(not hand_in(queue, 0, 0, places.size))
            if not overtaken[-1]:
                count_shared(counter[1:])
            count_shared(counter[3:])

        threading.Thread(target=come_back).start()

    def begin():
        monkeypatch.setattr(pool, "share", share)
        return overtaken

    return begin
