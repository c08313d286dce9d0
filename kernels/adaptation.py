"""T steps of gradient descent on the last blocks of a network, pulled to centres, and K back.

g = s Σ_i ℓ_i(network(x_i), y_i) + Σ_j ρ_j ‖w_j − c_j‖², a step size γ_j for each tensor w_j, from
w_0 = c. The network is blocks of a convolution, batch norm, ReLU and max-pooling, and a linear head
under softmax cross-entropy. All steps see the same x, whose patches U are the rows that the first
kernel V is multiplied by. So its gradient is UᵀG, where G is that of Y = UV, and V never leaves

    V_t = c + Uᵀm_t,    m ← m − γ(G + 2ρm),    Y = Uc + 𝒢m,    𝒢 = UUᵀ:

what is stepped through is m, with centre 0, and a step takes one product with 𝒢 where U takes two.
Back, with D the change of G along γα, and κ ← (1 − 2γρ)κ from 1, the part of α that belongs to V is

    α = κα_T + Uᵀn,    n ← (1 − 2γρ)n − D,    β = Uα ← (1 − 2γρ)β − 𝒢D,

and only β is multiplied by anything. What the steps send to U is

    −Σ_t (D V_tᵀ + G(γα)ᵀ) = −(Σ_t D)cᵀ − (Σ_t γκG)α_Tᵀ − (Σ_t (Dmᵀ + γGnᵀ))U.

What the blocks do is defined in `tinybilevel.layers`. Images have channels last here; kernels and
the head are matrices with a column for each output. A state is one vector: m, scale and shift; V,
scale and shift of each further block; the head and its bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tinybilevel.kernels.adaptation_loop import ascend, descend
from tinybilevel.kernels.images import fold, unfold
from tinybilevel.kernels.moves import restless
from tinybilevel.kernels.workspace import Workspace

__all__ = ["Adaptation", "Block"]

Array = np.ndarray[Any, np.dtype[Any]]

#: A block as the loops see it: its sizes, and where its parts lie in a state and in the memory of
#: a step.
_SIZES = (
    "n from_height from_width height width inputs outputs k s a pool rows patch windows "
    "at kept chosen room"
)
_BLOCK = np.dtype([(name, np.int64) for name in _SIZES.split()] + [("eps", np.float64)])


@dataclass(frozen=True)
class Block:
    """A convolution without bias, batch norm, ReLU and max-pooling, where 1 is none."""

    outputs: int
    window: tuple[int, int, int]  # kernel size, stride and padding
    eps: float
    pool: int


class Adaptation:
    """The forward pass; what it returns goes back.

    Parameters
    ----------
    blocks : sequence of Block
        At least one.
    shape : (int, int, int)
        Channels, height and width of an example.
    y : ndarray (n,) of int
        Classes.
    n_classes : int
        Outputs of the head.
    scale : float
        s.
    T : int
        Horizon.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        shape: tuple[int, int, int],
        y: Array,
        n_classes: int,
        scale: float,
        T: int,
    ) -> None:
        self.y, self.n_classes, self.scale, self.T = y.astype(np.int64), n_classes, scale, T
        self.blocks = np.zeros(len(blocks), _BLOCK)
        (channels, *sides), n, at, kept, chosen, room = shape, len(y), 0, 0, 0, 0
        order, sizes = [], []
        for b, block in enumerate(blocks):
            (k, s, a), out = block.window, block.outputs
            places = [(side + 2 * a - k) // s + 1 for side in sides]
            after = [side // block.pool for side in places]
            rows, patch, windows = n * prod(places), k * k * channels, n * prod(after)
            numbers = (n, *sides, *places, channels, out, k, s, a, block.pool, rows, patch, windows)
            self.blocks[b] = (*numbers, at, kept, chosen, room, block.eps)
            order += [_transposed(out, channels, k, k), np.arange(2 * out)]
            sizes += [rows * out if b == 0 else patch * out, out, out]
            at += sum(sizes[-3:])
            kept += rows * out + 2 * out + 3 * windows * out
            chosen += windows * out
            room += 4 * rows * patch + 3 * rows * out + 2 * out + 3 * windows * out
            channels, sides = out, after
        order += [_transposed(n_classes, channels, *sides), np.arange(n_classes)]
        sizes += [order[-2].size, n_classes]
        self.memory = kept + n * n_classes, chosen, room
        self.ends = np.cumsum(sizes)
        #: Where in w the entries lie that are one after the other here, and how many are V's.
        starts = np.cumsum([0, *(part.size for part in order)])
        self.order = np.concatenate([at + part for at, part in zip(starts, order, strict=False)])
        self.first = order[0].size

    @property
    def worth_it(self) -> bool:
        """Whether a product with 𝒢 is smaller than two with U."""
        return bool(self.blocks["rows"][0] < 2 * self.blocks["patch"][0])

    def forward(self, x: Array, c: Array, rho: Array, gamma: Array, K: int) -> Run:
        """Run T steps from c on the examples x (n, channels, height, width).

        `rho` and `gamma` have a number for each tensor; `K` steps can be gone back.
        """
        o, dtype, size = self.blocks[0], c.dtype, self.ends[-1]
        rows, patch, outputs = (int(o[name]) for name in ("rows", "patch", "outputs"))
        work, slots = Workspace(reuse=True), max(min(max(K, 2), self.T), 1)
        U = work("U", (rows, patch), c)
        X = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(-1, x.shape[1])
        unfold(X, (len(x), *x.shape[2:]), int(o["k"]), int(o["s"]), int(o["a"]), U)
        own, (kept, chosen, room) = c[self.order], self.memory
        V, gram = own[: self.first].reshape(patch, outputs), U @ U.T
        states = work("states", (slots + 1, size), c)
        centre = np.concatenate([np.zeros(rows * outputs, dtype), own[self.first :]])
        states[(-self.T - 1) % len(states)] = centre
        run = Run(
            self, U, V, gram, centre, rho, gamma, states,
            second=np.empty(size, dtype),
            grads=work("grads", (slots, size), c),
            kept=work("kept", (slots, kept), c),
            chosen=work("chosen", (slots, chosen), np.empty(0, np.uint8)),
            room=work("room", (room,), c),
            work=work,
        )  # fmt: skip
        descend(
            self.blocks, self.ends, self.y, self.n_classes, dtype.type(self.scale), self.T, gram,
            U @ V, run.centre, 2 * rho, gamma, states, run.second, run.grads, run.kept,
            run.chosen, run.room,
        )  # fmt: skip
        return run


@dataclass(frozen=True)
class Back:
    """What `Run.backward` finds: Σ B α by x, c, ρ and γ; α_{T−K}; ‖α_{T−1}‖² … ‖α_{T−K}‖²."""

    x: Array
    c: Array
    rho: Array
    gamma: Array
    alpha: Array
    squares: Array


@dataclass(frozen=True)
class Run:
    """T steps, the last of which can be gone back."""

    of: Adaptation
    U: Array
    V: Array
    gram: Array
    centre: Array
    rho: Array
    gamma: Array
    states: Array  # the last ones, oldest first
    second: Array  # the one after the first step
    grads: Array  # of the loss, at all of these states but the last
    kept: Array
    chosen: Array
    room: Array
    work: Workspace

    @property
    def w(self) -> Array:
        """w_T."""
        return self._ordered(self.states[-1], self.V)

    @property
    def held(self) -> int:
        """Bytes that were kept for the way back."""
        return sum(part.nbytes for part in (self.states, self.grads, self.kept, self.chosen))

    @property
    def restless(self) -> bool:
        """Whether the last steps swing and are longer than the first; see `moves`."""
        if self.of.T < 3:
            return False
        first, before, last = self.second - self.centre, *np.diff(self.states[-3:], axis=0)
        pairs = (first, first), (before, last), (last, last)
        return restless(self.of.T, np.array([[self._inner(*pair) for pair in pairs]]))

    def backward(self, alpha: Array, K: int) -> Back:
        """Go K steps back from α_T."""
        of, own, size, dtype = self.of, alpha[self.of.order], self.of.ends[0], alpha.dtype
        A, C = own[: of.first].reshape(self.V.shape), self.V.shape[1]
        a = np.concatenate([(self.U @ A).ravel(), own[of.first :]])
        n, total = np.zeros(size, dtype), np.zeros_like(a)
        left, right = self.work("factors", (2, len(self.U), 2 * K * C), a)
        by_tensor, squares = np.zeros((len(of.ends), 2), dtype), np.empty(K, dtype)
        D, G = along = np.zeros((2, size), dtype)
        kappa, kappas = ascend(
            of.blocks, of.ends, of.y, of.n_classes, dtype.type(of.scale), self.gram, self.centre,
            2 * self.rho, self.gamma, self.states, self.grads, self.kept, self.chosen, self.room,
            a, n, (A * A).sum(), total, left, right, along, by_tensor, squares,
        )  # fmt: skip
        D, G, rates = D.reshape(-1, C), G.reshape(-1, C), 2 * self.rho * self.gamma
        gU = D @ self.V.T + G @ A.T + np.linalg.multi_dot([left, right.T, self.U])
        pulls, slopes = by_tensor.T
        return Back(
            x=-self._folded(gU),
            c=self._ordered(
                np.repeat(rates, np.diff(of.ends, prepend=0)) * total, rates[0] * kappas * A
            ),
            rho=-2 * self.gamma * pulls,
            gamma=-slopes - 2 * self.rho * pulls,
            alpha=self._ordered(np.concatenate([n, a[size:]]), kappa * A),
            squares=np.maximum(squares, 0),
        )

    def _folded(self, gU: Array) -> Array:
        """Return the cotangent of x, from that of its patches."""
        o = self.of.blocks[0]
        n, height, width, channels = (
            int(o[f]) for f in ("n", "from_height", "from_width", "inputs")
        )
        gx = np.empty((n * height * width, channels), gU.dtype)
        fold(gU, (n, height, width), int(o["k"]), int(o["s"]), int(o["a"]), gx)
        return gx.reshape(n, height, width, channels).transpose(0, 3, 1, 2)

    def _inner(self, a: Array, b: Array) -> Any:
        """Return the inner product of two changes of w."""
        size = self.of.ends[0]
        own = self.gram @ b[:size].reshape(len(self.gram), -1)
        return a[:size] @ own.ravel() + a[size:] @ b[size:]

    def _ordered(self, state: Array, V: Array) -> Array:
        """Return V + Uᵀm and the rest of a state, in the order of w."""
        w, size = np.empty(len(self.of.order), state.dtype), self.of.ends[0]
        m = state[:size].reshape(len(self.U), -1)
        w[self.of.order] = np.concatenate([(V + self.U.T @ m).ravel(), state[size:]])
        return w


def _transposed(outputs: int, channels: int, *sides: int) -> Array:
    """Return where (sides, channels; outputs) lie in (outputs, channels, sides), entry by entry."""
    places = np.arange(outputs * channels * prod(sides)).reshape(outputs, channels, *sides)
    return places.transpose(2, 3, 1, 0).ravel()
