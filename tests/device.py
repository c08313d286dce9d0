"""Arrays that behave as CuPy's do, on a machine without a GPU.

`DeviceArray` takes only what `cupy.ndarray` takes from NumPy's functions: it never becomes a NumPy
array by itself, mixes with no array of the host, and knows no argument that CuPy does not know.
Reading a number of it on the host is counted: on a GPU the host waits there.
"""

import sys
from types import SimpleNamespace

import numpy as np

#: NumPy's functions as CuPy has them: the names of the arguments that they take.
FUNCTIONS = {
    np.argmax: {"a", "axis", "dtype", "out", "keepdims"},
    np.array_equal: {"a1", "a2"},
    np.clip: {"a", "a_min", "a_max", "out"},
    np.concatenate: {"tup", "axis", "out", "dtype", "casting"},
    np.diag: {"v", "k"},
    np.cumsum: {"a", "axis", "dtype", "out"},
    np.empty_like: {"prototype", "dtype", "order", "subok", "shape"},
    np.full_like: {"a", "fill_value", "dtype", "order", "subok", "shape"},
    np.linalg.norm: {"x", "ord", "axis", "keepdims"},
    np.ndim: {"a"},
    np.ones_like: {"a", "dtype", "order", "subok", "shape"},
    np.put: {"a", "ind", "v", "mode"},
    np.repeat: {"a", "repeats", "axis"},
    np.result_type: set(),
    np.shape: {"a"},
    np.stack: {"tup", "axis", "out", "dtype", "casting"},
    np.take: {"a", "indices", "axis", "out"},
    np.where: {"condition", "x", "y"},
    np.zeros_like: {"a", "dtype", "order", "subok", "shape"},
}
REDUCTIONS = (np.add, np.multiply)

#: How often the host has waited for the device, and how many arrays went either way.
counts = SimpleNamespace(waits=0, copies=0)


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    def __init__(self, data):
        self._data = data
        self.flags = SimpleNamespace(writeable=True)

    shape = property(lambda self: self._data.shape)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    dtype = property(lambda self: self._data.dtype)
    nbytes = property(lambda self: self._data.nbytes)
    strides = property(lambda self: self._data.strides)
    T = property(lambda self: DeviceArray(self._data.T))
    __cuda_array_interface__ = property(lambda self: self._data.__array_interface__)

    def get(self):
        counts.waits += 1
        counts.copies += 1
        return self._data.copy()

    def _number(self):
        counts.waits += 1
        return self._data.item()

    def __bool__(self):
        return bool(self._number())

    def __float__(self):
        return float(self._number())

    def __int__(self):
        return int(self._number())

    def __len__(self):
        return len(self._data)

    def __iter__(self):
        return (wrap(part) for part in self._data)

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __getitem__(self, key):
        return wrap(self._data[plain(key, indices=True)])

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self._data[plain(key, indices=True)] = plain(value)

    def sum(self, axis=None, dtype=None, out=None, keepdims=False):
        return wrap(self._data.sum(axis, dtype, plain(out), keepdims=keepdims), out)

    def max(self, axis=None, out=None, keepdims=False):
        return wrap(self._data.max(axis, plain(out), keepdims=keepdims), out)

    def min(self, axis=None, out=None, keepdims=False):
        return wrap(self._data.min(axis, plain(out), keepdims=keepdims), out)

    def take(self, indices, axis=None, out=None):
        return wrap(self._data.take(plain(indices), axis, plain(out)), out)

    def all(self, axis=None):
        return wrap(self._data.all(axis))

    def any(self, axis=None):
        return wrap(self._data.any(axis))

    def copy(self):
        return DeviceArray(self._data.copy())

    def astype(self, dtype, copy=True):
        return self if not copy and dtype == self.dtype else DeviceArray(self._data.astype(dtype))

    def reshape(self, *shape):
        return DeviceArray(self._data.reshape(*shape))

    def ravel(self):
        return DeviceArray(self._data.ravel())

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if method not in ("__call__", "at") and not (method == "reduce" and ufunc in REDUCTIONS):
            raise NotImplementedError(f"cupy_{ufunc.__name__}.{method} is not supported yet")
        options = {name: plain(x) for name, x in options.items()}
        if out is not None:
            options["out"] = plain(out[0])
        result = getattr(ufunc, method)(*(plain(x) for x in inputs), **options)
        return out[0] if out is not None else None if result is None else wrap(result)

    def __array_function__(self, function, types, args, options):
        if function not in FUNCTIONS:
            raise TypeError(f"CuPy is not known to take {function}")
        if unknown := set(options) - FUNCTIONS[function]:
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument {unknown}")
        if not options.get("shape", True):  # CuPy takes 0 and () for no shape at all
            del options["shape"]
        out = options.get("out")
        args = [plain(x) for x in args]
        options = {name: plain(x) for name, x in options.items()}
        result = function(*args, **options)
        if out is not None:
            return out
        return wrap(result) if isinstance(result, np.ndarray | np.generic) else result


class Stream:
    """Stand for `cupy.cuda.Stream`: keeps what it has been told to wait for."""

    ptr = 0

    def __init__(self):
        self.waited_for = []

    def wait_event(self, event):
        self.waited_for.append(event)

    def record(self):
        return object()


Stream.current = Stream()


def wrap(result, out=None):
    return out if out is not None else DeviceArray(np.asarray(result))


def plain(x, indices=False):
    """Return what is in x; refuse an array of the host."""
    if isinstance(x, DeviceArray):
        return x._data
    if isinstance(x, np.ndarray) and x.ndim and not indices:
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, tuple | list):
        return type(x)(plain(part, indices) for part in x)
    return x


def to_device(x):
    """Stand for `cupy.asarray`."""
    if isinstance(x, DeviceArray):
        return x
    counts.copies += 1
    return DeviceArray(np.array(x))


def install(monkeypatch):
    """Have ``import cupy`` find these arrays."""
    cuda = SimpleNamespace(get_current_stream=lambda: Stream.current)
    fake = SimpleNamespace(asarray=to_device, ndarray=DeviceArray, cuda=cuda)
    monkeypatch.setitem(sys.modules, "cupy", fake)
