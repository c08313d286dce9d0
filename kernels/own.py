"""Functions of the user's own, called from compiled code that knows no more than their address.

So Numba keeps the loop that calls them on disk. What it compiles in each process is what goes
around them, once for each set of functions.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, njit, types
from numba.extending import intrinsic

__all__ = ["Own", "call", "own"]


class Own:
    """What `dense` calls evaluate, grad and grad_vjp, each of (c, w, lam, v, out_w, out_lam).

    Parameters
    ----------
    value, slope, products, slope_lam : dispatcher or None
        What `Objective.from_functions` calls value, grad, grad_vjp and grad_lam.
    dtype : dtype
        Of all that they see.
    """

    def __init__(self, value: Any, slope: Any, products: Any, slope_lam: Any, dtype: Any) -> None:
        def evaluate(c, w, lam, v, out_w, out_lam):  # type: ignore[no-untyped-def]
            _add(c, slope(w, lam), out_w)
            if slope_lam is not None:
                _add(c, slope_lam(w, lam), out_lam)
            return c * value(w, lam)

        def grad(c, w, lam, v, out_w, out_lam):  # type: ignore[no-untyped-def]
            _add(c, slope(w, lam), out_w)
            return c

        def grad_vjp(c, w, lam, v, out_w, out_lam):  # type: ignore[no-untyped-def]
            hessian, mixed = products(w, lam, v)
            _add(c, hessian, out_w)
            _add(c, mixed, out_lam)
            return c

        self.has_products = products is not None
        number = from_dtype(np.dtype(dtype))
        vector = types.Array(number, 1, "C")
        self._signature = number(number, vector, vector, vector, vector, vector)
        self._bodies = evaluate, grad, grad_vjp
        self._compiled: dict[int, Any] = {}

    def address(self, which: int) -> int:
        """Return where the machine code of a body lies."""
        if which not in self._compiled:
            make = njit(self._signature, nogil=True, no_cpython_wrapper=True)
            self._compiled[which] = make(self._bodies[which])
        (found,) = self._compiled[which].overloads.values()
        return int(found.library.get_pointer_to_function(found.fndesc.llvm_func_name))


#: The same for the same functions, of which not all are held that a process ever has.
own = lru_cache(32)(Own)


@njit(nogil=True, cache=True)
def _add(scale, x, out):  # type: ignore[no-untyped-def]
    if len(x) != out.size:
        raise ValueError  # the plain code says what is wrong
    for j in range(out.size):
        out[j] += scale * x[j]


@intrinsic
def call(context, address, c, w, lam, v, out_w, out_lam):  # type: ignore[no-untyped-def]
    """Call a body by its address; return NaN where it raises."""
    types_ = c, w, lam, v, out_w, out_lam

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        convention = context.call_conv
        kind = convention.get_function_type(c, types_)
        function = builder.inttoptr(args[0], kind.as_pointer())
        status, value = convention.call_function(builder, function, c, types_, args[1:])
        return builder.select(status.is_error, ir.Constant(value.type, math.nan), value)

    return c(address, *types_), generate
