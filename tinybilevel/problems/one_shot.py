"""One-shot classification, the paper's Section 4.3: hyperparameters inside the network."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count, as_flag, as_float, check_shape
from tinybilevel.arrays.labels import as_labels
from tinybilevel.errors import StabilityWarning
from tinybilevel.layers import (
    BatchNorm,
    Conv2d,
    Dense,
    FeatureLoss,
    FeatureMap,
    Flatten,
    Layer,
    MaxPool,
    Network,
    ReLU,
)
from tinybilevel.layers.network_loss import NetworkLoss
from tinybilevel.maps import Blocks, Exp, Layout
from tinybilevel.methods import KRMD
from tinybilevel.objectives import ProximityPenalty
from tinybilevel.problem import BilevelProblem
from tinybilevel.problems.accuracy import Accuracy
from tinybilevel.problems.task_stream import TaskStream
from tinybilevel.transitions import GradientDescent, Learned

__all__ = ["OneShot", "four_blocks"]

_STATISTICS = ("query", "support")


def four_blocks(
    n_classes: int = 5, *, filters: int = 32, input_shape: Sequence[int] = (1, 28, 28)
) -> dict[str, list[Layer]]:
    """Return the layers of four convolutional blocks and a linear head.

    Each block is a 3 × 3 convolution without bias, batch norm, ReLU and 2 × 2 max-pooling (Vinyals
    et al. 2016), as many of which as halve the image to no less than one pixel.

    Parameters
    ----------
    n_classes : int
        Outputs of the head.
    filters : int
        Channels of each block.
    input_shape : tuple of int
        Channels, height and width of one image.

    Returns
    -------
    dict of str to list of Layer
        ``block1`` … ``block4`` and ``head``.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> layers = tb.problems.four_blocks(filters=8, input_shape=(1, 8, 8))
    >>> list(layers)
    ['block1', 'block2', 'block3', 'block4', 'head']
    >>> tb.layers.Network(layers, input_shape=(1, 8, 8)).size
    1909
    """
    blocks: dict[str, list[Layer]] = {}
    side = min(input_shape[1:])
    for k in range(1, 5):
        pool: list[Layer] = [MaxPool(2)] if side >= 2 else []
        side //= 2
        blocks[f"block{k}"] = [
            Conv2d(filters, 3, padding=1, bias=False),
            BatchNorm(),
            ReLU(),
            *pool,
        ]
    return {**blocks, "head": [Flatten(), Dense(n_classes)]}


class OneShot:
    """A family of problems, one for each task: λ = {λ_l1, λ_l2, c, log ρ, log γ}.

    Lower level, for a task with support set S: g(w, λ) = Σ_{(x,y)∈S} ℓ(nn(x; w, λ), y) +
    Σ_j ρ_j ‖w_j − c_j‖², T steps of gradient descent with a step size γ_j for each parameter tensor
    w_j, from w_0 = c. Upper level: the mean of ℓ on the task's query set. The first blocks of the
    network (λ_l) are hyperparameters, which the upper level sees directly too.

    Parameters
    ----------
    layers : mapping of str to sequence of Layer
        The network, in named blocks, such as `four_blocks` returns.
    input_shape : tuple of int
        Shape of one image.
    adapt : sequence of str
        The last blocks of the network, whose parameters are w.
    T : int
        Steps of the lower level.
    features_once : bool
        Run the blocks that depend on λ alone once per λ, not once per step. The results are the
        same to rounding.
    backend : {"auto", "plain", "numba"}
        Who computes the network; see `Network`.

    Attributes
    ----------
    network, front, back : Network
        The whole, the blocks that are hyperparameters, and those that are adapted.
    layout : Layout
        Where ``front``, ``c``, ``log_rho`` and ``log_gamma`` lie in λ.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> layers = tb.problems.four_blocks(filters=4, input_shape=(1, 8, 8))
    >>> family = tb.problems.OneShot(layers, input_shape=(1, 8, 8), T=5)
    >>> lam = family.start(seed=0)
    >>> digits = tb.data.Characters.of(tb.data.digits())
    >>> problems = family.stream(digits, lam, ways=5, shots=1)
    >>> r = tb.KRMD(K=3)(problems[0], lam)
    >>> r.grad.shape, family.layout["c"], family.accuracy(lam, digits.draw(seed=1)) > 0.2
    ((541,), slice(196, 525, None), True)
    """

    def __init__(
        self,
        layers: Mapping[str, Any],
        *,
        input_shape: Sequence[int] = (1, 28, 28),
        adapt: Sequence[str] = ("block3", "block4", "head"),
        T: int = 50,
        features_once: bool = True,
        backend: str = "auto",
    ) -> None:
        if not isinstance(layers, Mapping):
            raise TypeError(f"layers must be a mapping of blocks of layers, got {layers!r}")
        names = list(layers)
        first = len(names) - len(adapt)
        if list(adapt) != names[first:] or not 0 < first < len(names):
            raise ValueError(f"adapt must name some of the last blocks of {names}, got {adapt!r}")
        front = {name: layers[name] for name in names[:first]}
        self.front = Network(front, input_shape, backend=backend)
        back = {name: layers[name] for name in adapt}
        self.back = Network(back, self.front.output_shape, backend=backend)
        self.network = Network(layers, input_shape, backend=backend)
        self.T, self.adapt = as_count("T", T), tuple(adapt)
        self.features_once = as_flag("features_once", features_once)
        tensors = [self.back.layout[name] for name in self.back.layout]
        self.sizes = [at.stop - at.start for at in tensors]
        self.layout = Layout(
            front=self.front.size,
            c=self.back.size,
            log_rho=len(self.sizes),
            log_gamma=len(self.sizes),
        )

    def __repr__(self) -> str:
        return f"OneShot({self.network!r}, adapt={self.adapt}, T={self.T})"

    def start(
        self,
        seed: int | np.random.Generator = 0,
        *,
        rho: float | Mapping[str, float] = 1.0,
        gamma: float | Mapping[str, float] = 0.02,
        dtype: Any = np.float32,
    ) -> Array:
        """Return λ_1: drawn layers, a head of zeros, and ρ and γ by block or for all."""
        drawn = self.network.init(seed, dtype)
        head = self.network.blocks[self.adapt[-1]]
        drawn[head] = 0
        blocks = [name.partition(".")[0] for name in self.back.layout]

        def by_tensor(name: str, value: float | Mapping[str, float]) -> Array:
            values = value if isinstance(value, Mapping) else dict.fromkeys(blocks, value)
            if set(values) != set(blocks):
                raise ValueError(
                    f"{name} must have a number for each of {[*self.back.blocks]}, got one for "
                    f"{[*values]}"
                )
            each = np.array([values[b] for b in blocks], dtype)
            if not (np.isfinite(each) & (each > 0)).all():
                raise ValueError(f"{name} must be greater than 0 and finite, got {value}")
            return np.log(each)

        return self.layout.pack(
            front=drawn[: self.front.size],
            c=drawn[self.front.size :],
            log_rho=by_tensor("rho", rho),
            log_gamma=by_tensor("gamma", gamma),
        )

    def problem(
        self, X: Any, y: Any, X_query: Any, y_query: Any, lam0: Array | None = None
    ) -> BilevelProblem:
        """Return one task's problem.

        Parameters
        ----------
        X, y : array_like
            n support images, (n,) and then `input_shape`, float32 or float64; their classes (n,).
        X_query, y_query : array_like
            m query images and their classes.
        lam0 : ndarray, optional
            λ_1 of the problem.

        Returns
        -------
        BilevelProblem

        Examples
        --------
        >>> import tinybilevel as tb
        >>> layers = tb.problems.four_blocks(filters=4, input_shape=(1, 8, 8))
        >>> family = tb.problems.OneShot(layers, input_shape=(1, 8, 8), T=5)
        >>> task = tb.data.Characters.of(tb.data.digits()).draw(ways=5, shots=1, seed=0)
        >>> problem = family.problem(task.X, task.y, task.X_query, task.y_query)
        >>> tb.KRMD(K=5)(problem, family.start(seed=0)).w.shape == (family.back.size,)
        True
        """
        X, y = self._checked("X", X, "y", y)
        X_query, y_query = self._checked("X_query", X_query, "y_query", y_query)
        if lam0 is not None:
            check_shape("lam0", lam0, (self.layout.size,))
        if not self.features_once:
            return self._plain(X, y, X_query, y_query, lam0)
        features = FeatureMap(self.front, [X, X_query])
        phi = Blocks(self.layout, front=features, log_rho=Exp(), log_gamma=Exp())
        at = phi.theta_layout
        support, query = (
            slice(at["front"].start + s.start, at["front"].start + s.stop) for s in features.slices
        )
        g = FeatureLoss(self.back, y, reduction="sum").on(support) + self._pull(at)
        f = FeatureLoss(self.back, y_query).on(query)
        return self._problem(g, f, at, phi, lam0)

    def _checked(self, name: str, X: Any, labels: str, y: Any) -> tuple[Array, Array]:
        X = self.network._examples(as_float(name, X), name)
        return X, as_labels(labels, y, len(X), self.network.output_shape[0])

    def _plain(self, X: Any, y: Any, X_query: Any, y_query: Any, lam0: Any) -> BilevelProblem:
        phi = Blocks(self.layout, log_rho=Exp(), log_gamma=Exp())
        at = self.layout

        def loss(X: Array, y: Any, reduction: str) -> Any:
            whole = NetworkLoss(self.network, X, y, reduction=reduction, adapt=self.adapt)
            return whole.on(at["front"])

        g = loss(X, y, "sum") + self._pull(at)
        return self._problem(g, loss(X_query, y_query, "mean"), at, phi, lam0)

    def _pull(self, at: Layout) -> Any:
        """Return Σ_j ρ_j ‖w_j − c_j‖² as a function of θ."""
        return ProximityPenalty(self.sizes).on(slice(at["c"].start, at["log_rho"].stop))

    def _problem(self, g: Any, f: Any, at: Layout, phi: Any, lam0: Any) -> BilevelProblem:
        gamma = Learned(at["log_gamma"], sizes=self.sizes)
        descent = GradientDescent(g, gamma, initial=at["c"])
        return BilevelProblem(descent, upper=f, T=self.T, hyper_map=phi, lam0=lam0)

    def stream(
        self,
        characters: Any,
        lam0: Array,
        *,
        ways: int = 5,
        shots: int = 1,
        queries: int = 5,
        seed: int = 0,
        tasks: int = 1,
    ) -> list[TaskStream]:
        """Return problems that are new tasks at each outer update, for `tinybilevel.minimize`.

        Parameters
        ----------
        characters : Characters
            What tasks are drawn from; see ``tinybilevel.data``.
        lam0 : ndarray
            λ_1; the images have its dtype.
        ways, shots, queries : int
            See `Characters.draw`; `queries` are those of each class.
        seed : int
            At least 0. Task k of update τ comes from (seed, τ, k) alone, so that a resumed run goes
            on with the same tasks.
        tasks : int
            Problems, over which each update averages.

        Returns
        -------
        list of TaskStream
        """
        as_count("seed", seed)
        lam0 = as_float("lam0", lam0, ndim=1)
        options = {"ways": ways, "shots": shots, "queries": queries, "dtype": lam0.dtype}
        return [
            TaskStream.of(_Draw(self, characters, lam0, options, (seed, k)))
            for k in range(as_count("tasks", tasks, minimum=1))
        ]

    def predict(self, lam: Array, task: Any, *, statistics: str = "query") -> Array:
        """Return the classes that the network, adapted to a task, gives its query images.

        Parameters
        ----------
        lam : ndarray
            λ.
        task : Task
            Its support set is what is learned from; see ``tinybilevel.data``.
        statistics : {"query", "support"}
            The batch that a `BatchNorm` takes its mean and variance from: all query images together
            ("transductive": each helps to tell the others), or the support set.

        Returns
        -------
        ndarray (m,) of int

        Examples
        --------
        >>> import tinybilevel as tb
        >>> layers = tb.problems.four_blocks(filters=4, input_shape=(1, 8, 8))
        >>> family = tb.problems.OneShot(layers, input_shape=(1, 8, 8), T=5)
        >>> task = tb.data.Characters.of(tb.data.digits()).draw(queries=3, seed=0)
        >>> family.predict(family.start(seed=0), task).shape
        (15,)
        """
        return self._predict(self.adapted(lam, task), task, statistics)

    def accuracy(self, lam: Array, task: Any, *, statistics: str = "query") -> float:
        """Return the share of a task's query images that `predict` gets right."""
        return self._share(self.adapted(lam, task), task, statistics)

    def evaluate(
        self, lam: Array, tasks: Iterable[Any], *, executor: Executor | None = None
    ) -> dict[str, Accuracy]:
        """Return the mean accuracy over tasks with either statistics, each with its 95 % interval.

        Parameters
        ----------
        lam : ndarray
            λ.
        tasks : iterable of Task
            One after the other, or all at once with an `executor`.
        executor : concurrent.futures.Executor, optional
            Runs the tasks side by side.

        Returns
        -------
        dict of str to Accuracy
            ``"query"`` and ``"support"``; see `predict`.

        Warns
        -----
        StabilityWarning
            Once, with how many tasks it is about: if the lower level does not settle in some.

        Examples
        --------
        >>> import tinybilevel as tb
        >>> layers = tb.problems.four_blocks(filters=4, input_shape=(1, 8, 8))
        >>> family = tb.problems.OneShot(layers, input_shape=(1, 8, 8), T=5)
        >>> digits = tb.data.Characters.of(tb.data.digits())
        >>> tasks = [digits.draw(seed=s) for s in range(3)]
        >>> found = family.evaluate(family.start(seed=0), tasks)
        >>> found["query"].tasks, found["query"].mean > 0.2
        (3, True)
        """
        both = partial(self._both, lam)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", StabilityWarning)
            shares = list(map(both, tasks) if executor is None else executor.map(both, tasks))
        if not shares:
            raise ValueError("tasks must hold at least one task")
        unsettled = [w for w in caught if issubclass(w.category, StabilityWarning)]
        for other in (w for w in caught if w not in unsettled):
            warnings.warn(other.message, other.category, stacklevel=2)
        if unsettled:
            warnings.warn(
                f"in {len(unsettled)} of {len(shares)} tasks {unsettled[0].message}",
                StabilityWarning,
                stacklevel=2,
            )
        columns = zip(*shares, strict=True)
        return {name: Accuracy(each) for name, each in zip(_STATISTICS, columns, strict=True)}

    def adapted(self, lam: Array, task: Any) -> Array:
        """Return all parameters of the network for a task: λ_l, then w_T."""
        # The query set has no part in w_T, and is larger.
        problem = self.problem(task.X, task.y, task.X, task.y)
        return np.concatenate([lam[self.layout["front"]], KRMD(K=0)(problem, lam).w])

    def _both(self, lam: Array, task: Any) -> tuple[float, ...]:
        whole = self.adapted(lam, task)
        return tuple(self._share(whole, task, name) for name in _STATISTICS)

    def _share(self, whole: Array, task: Any, statistics: str) -> float:
        return float(np.mean(self._predict(whole, task, statistics) == task.y_query))

    def _predict(self, whole: Array, task: Any, statistics: str) -> Array:
        if statistics not in _STATISTICS:
            raise ValueError(
                f"statistics must be one of {', '.join(_STATISTICS)}, got {statistics!r}"
            )
        batch = task.X if statistics == "support" else None
        return self.network.forward(whole, task.X_query, batch).argmax(axis=1)


@dataclass(frozen=True)
class _Draw:
    """τ → the problem of a task that is drawn for it."""

    family: OneShot
    characters: Any
    lam0: Array
    options: dict[str, Any]
    seed: tuple[int, int]

    def task(self, tau: int) -> Any:
        seed, k = self.seed
        return self.characters.draw(**self.options, seed=np.random.default_rng([seed, tau, k]))

    def __call__(self, tau: int) -> BilevelProblem:
        task = self.task(tau)
        return self.family.problem(task.X, task.y, task.X_query, task.y_query, self.lam0)
