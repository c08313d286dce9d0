"""A network's loss on data, as an objective: forward over reverse."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_float, as_rows, frozen
from tinybilevel.layers.losses import CrossEntropy, SquaredError
from tinybilevel.layers.network import Network
from tinybilevel.maps.layout import Layout
from tinybilevel.objectives import Objective

__all__ = ["FeatureLoss", "NetworkLoss"]

_LOSSES = {"cross_entropy": CrossEntropy, "squared": SquaredError}
_REDUCTIONS = ("mean", "sum")
Tensors = dict[str, Array]


class Sweep(Objective):
    """What `NetworkLoss` and `FeatureLoss` share: c Σ_i ℓ(network(x_i), y_i), of all its tensors.

    One sweep forward with tangents and back gives the gradient's tangent by every tensor and by X:
    of which ∇²_ww g v is the part in w, and ∇²_λw g v the part in λ.
    """

    #: Whether X is part of λ, so that somebody asks for its cotangent.
    of_inputs = False

    def __init__(self, network: Network, y: Any, n: int, loss: str, reduction: str) -> None:
        if loss not in _LOSSES:
            raise ValueError(f"loss must be one of {', '.join(_LOSSES)}, got {loss!r}")
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"reduction must be one of {', '.join(_REDUCTIONS)}, got {reduction!r}"
            )
        if len(network.output_shape) != 1:
            raise ValueError(
                f"the network must return a vector for each example, got {network.output_shape}"
            )
        self.network, self.loss = network, _LOSSES[loss]()
        self.y = self.loss.check(y, n, network.output_shape[0])
        self.scale = 1.0 / n if reduction == "mean" else 1.0

    def _split(self, w: Array, lam: Array) -> tuple[Tensors, Array]:
        """Return the tensors, and X."""
        raise TypeError(f"{type(self).__name__} must define _split")

    def _parts(self, tensors: Mapping[str, Array], X: Array, lam: Array) -> tuple[Array, Array]:
        """Return what belongs to w, and what to λ, of cotangents."""
        raise TypeError(f"{type(self).__name__} must define _parts")

    def _directions(self, dw: Array, dlam: Array) -> tuple[Tensors, Array]:
        return self._split(dw, dlam)

    def value(self, w: Array, lam: Array) -> float:
        tensors, X = self._split(w, lam)
        return self.scale * self.loss.value(self.network.run(tensors, X)[0], self.y)

    def grad(self, w: Array, lam: Array) -> Array:
        return self._gradients(w, lam, inputs=False)[1]

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._gradients(w, lam)[2]

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        return self._tangents(w, lam, v, np.zeros_like(lam))[1:]

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        return self._tangents(w, lam, dw, dlam)[1]

    def value_with_grads(self, w: Array, lam: Array) -> tuple[float, Array, Array]:
        own = all(_unchanged(self, name) for name in ("value", "grad", "grad_lam"))
        return self._gradients(w, lam) if own else super().value_with_grads(w, lam)

    def grad_with_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array, Array]:
        own = all(_unchanged(self, name) for name in ("grad", "grad_vjp"))
        if not own:
            return super().grad_with_vjp(w, lam, v)
        return self._tangents(w, lam, v, np.zeros_like(lam))

    def _gradients(self, w: Array, lam: Array, inputs: bool = True) -> tuple[float, Array, Array]:
        """Return value, ∇_w and ∇_λ; without `inputs` the last one means nothing."""
        tensors, X = self._split(w, lam)
        scores, kept = self.network.run(tensors, X)
        g = self.scale * self.loss.adjoint(scores, self.y)
        found, gX = self.network.backward(tensors, kept, g, inputs=inputs and self.of_inputs)
        own, rest = self._parts(found, X if gX is None else gX, lam)
        return self.scale * self.loss.value(scores, self.y) if inputs else 0.0, own, rest

    def _tangents(self, w: Array, lam: Array, dw: Array, dlam: Array) -> tuple[Array, Array, Array]:
        """Return ∇_w, and how ∇_w and ∇_λ move."""
        (tensors, X), (directions, dX) = self._split(w, lam), self._directions(dw, dlam)
        scores, kept = self.network.run(tensors, X)
        dscores, dkept = self.network.tangents(tensors, kept, directions, dX)
        g = self.scale * self.loss.adjoint(scores, self.y)
        dg = self.scale * self.loss.adjoint_tangent(scores, self.y, dscores)
        found, moved, moved_X = self.network.backward_tangents(
            tensors, kept, directions, dkept, g, dg
        )
        return self._parts(found, X, lam)[0], *self._parts(moved, moved_X, lam)


class NetworkLoss(Sweep):
    """g(w, λ) = c Σ_i ℓ(network(x_i), y_i): the loss of a network on data.

    Parameters
    ----------
    network : Network
        What returns one vector of scores for each example.
    X : array_like (n, ...)
        n examples of the shape `input_shape`, float32 or float64.
    y : array_like (n,) of int, or (n, outputs) of float
        Classes, or targets of the squared error.
    loss : {"cross_entropy", "squared"}
        ℓ: softmax cross-entropy, or ½ ‖s − y‖².
    reduction : {"mean", "sum"}
        c = 1/n or 1.
    adapt : sequence of str, optional
        Names of the blocks (see `Network`) whose parameters are w, in the network's order; those of
        the others are then λ, in that order too. The default is all of them, and no λ.

    Attributes
    ----------
    own, given : Layout
        Where each tensor of w lies in w, and where each of λ lies in λ; `given` is None where there
        are none.

    Raises
    ------
    TypeError, ValueError
        If X, y, a name or a block does not fit.

    Notes
    -----
    The batch of a `BatchNorm` is all of X. At the kinks of `ReLU` and `MaxPool` the derivatives are
    those that these state.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> net = tb.layers.Network(
    ...     [tb.layers.Dense(8), tb.layers.Softplus(), tb.layers.Dense(3)], input_shape=(4,)
    ... )
    >>> X, y = np.random.default_rng(0).standard_normal((6, 4)), [0, 1, 2, 0, 1, 2]
    >>> g = tb.NetworkLoss(net, X, y)
    >>> w, lam = net.init(seed=1), np.zeros(0)
    >>> found = tb.testing.assert_objective_derivatives(g, w, lam)
    >>> found["hessian"] < 1e-12
    True
    """

    def __init__(
        self,
        network: Network,
        X: Any,
        y: Any,
        *,
        loss: str = "cross_entropy",
        reduction: str = "mean",
        adapt: Sequence[str] | None = None,
    ) -> None:
        _require_network(network)
        self.X = frozen("X", network._examples(as_float("X", X)))
        super().__init__(network, y, len(self.X), loss, reduction)
        blocks = network.blocks
        if isinstance(adapt, str) or not isinstance(adapt, Iterable | None):
            raise TypeError(f"adapt must be a sequence of names, got {adapt!r}")
        chosen = [*blocks] if adapt is None else [*adapt]
        unknown = [name for name in chosen if name not in blocks]
        if unknown or not chosen:
            what = str(unknown) if unknown else "no block, so that w is empty"
            raise ValueError(f"adapt names {what}; the blocks with parameters are {[*blocks]}")
        sizes = {
            name: at.stop - at.start for name in network.layout for at in [network.layout[name]]
        }
        mine = {name: size for name, size in sizes.items() if name.partition(".")[0] in chosen}
        self.own = Layout(**mine)
        rest = {name: size for name, size in sizes.items() if name not in mine}
        self.given = Layout(**rest) if rest else None
        self.dtype = self.X.dtype
        self.n_lam = None if adapt is None else sum(rest.values())

    def restrict(self, index: Array) -> NetworkLoss:
        """Return the loss of the examples in `index`, rescaled by n/len(index)."""
        index = as_rows(index, len(self.y))
        part = copy.copy(self)
        part.X, part.y = self.X[index], self.y[index]
        part.scale = self.scale * len(self.y) / len(part.y)
        return part

    def _split(self, w: Array, lam: Array) -> tuple[Tensors, Array]:
        tensors = self.network.tensors(w, self.own)
        if self.given is not None:
            tensors |= self.network.tensors(lam, self.given)
        return tensors, self.X

    def _directions(self, dw: Array, dlam: Array) -> tuple[Tensors, Array]:
        return self._split(dw, dlam)[0], np.zeros_like(self.X)

    def _parts(self, tensors: Mapping[str, Array], X: Array, lam: Array) -> tuple[Array, Array]:
        own = _flat(tensors, self.own)
        return own, np.zeros_like(lam) if self.given is None else _flat(tensors, self.given)


class FeatureLoss(Sweep):
    """The loss of a network whose examples are the hyperparameters: g(w, λ), λ = X.ravel().

    With X = the features that earlier layers, which depend on λ alone, make of the data: see
    `FeatureMap`.

    Parameters
    ----------
    network, y, loss, reduction
        See `NetworkLoss`.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> head = tb.layers.Network([tb.layers.Dense(3)], input_shape=(4,))
    >>> g = tb.layers.FeatureLoss(head, y=[0, 2])  # of two examples with four features each
    >>> w, lam = head.init(seed=0), np.ones(8)
    >>> hessian, mixed = g.grad_vjp(w, lam, np.ones(15))
    >>> hessian.shape, mixed.shape
    ((15,), (8,))
    """

    of_inputs = True

    def __init__(
        self, network: Network, y: Any, *, loss: str = "cross_entropy", reduction: str = "mean"
    ) -> None:
        _require_network(network)
        if not np.ndim(y) or not len(y):
            raise ValueError(f"y must have an entry for each example, got {y!r}")
        super().__init__(network, y, len(y), loss, reduction)
        self.shape = (len(self.y), *network.input_shape)
        self.n_lam = int(np.prod(self.shape))

    def _split(self, w: Array, lam: Array) -> tuple[Tensors, Array]:
        if lam.shape != (self.n_lam,):
            raise ValueError(f"lam must hold features of shape {self.shape}, got {lam.shape}")
        return self.network.tensors(w), lam.reshape(self.shape)

    def _parts(self, tensors: Mapping[str, Array], X: Array, lam: Array) -> tuple[Array, Array]:
        return _flat(tensors, self.network.layout), X.ravel()


def _require_network(network: Any) -> None:
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, got {network!r}")


def _unchanged(g: Sweep, name: str) -> bool:
    """Return whether a method is that of `Sweep`, and not a user's own."""
    return getattr(type(g), name) is getattr(Sweep, name)


def _flat(tensors: Mapping[str, Array], layout: Layout) -> Array:
    """Return the tensors of a layout in one vector."""
    return np.concatenate([tensors[name].ravel() for name in layout])
