"""One-shot learning in torch: autograd through the last K steps, the first blocks once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.cases import Case
from benchmarks.one_shot import family, task


def build(case: Case) -> Callable[[], np.ndarray]:
    """Return a call that computes h_{T−K}."""
    torch.set_num_threads(1)
    f, numbers = family(case, "plain"), task(case)
    X, y, X_query, y_query, start = (torch.from_numpy(np.array(a)) for a in numbers)
    sizes = torch.tensor(f.sizes)

    def unpack(network: Any, w: Any) -> dict[str, Any]:
        return {n: w[network.layout[n]].reshape(network.shapes[n]) for n in network.layout}

    def blocks(tensors: dict[str, Any], names: Any, x: Any) -> Any:
        for name in names:
            x = F.conv2d(x, tensors[f"{name}.conv2d.weight"], stride=case.stride, padding=1)
            scale, shift = tensors[f"{name}.batchnorm.scale"], tensors[f"{name}.batchnorm.shift"]
            x = torch.relu(F.batch_norm(x, None, None, scale, shift, training=True, eps=1e-5))
            x = x if case.stride == 2 else F.max_pool2d(x, 2)
        return x

    def loss(w: Any, x: Any, y: Any, reduction: str) -> Any:
        tensors = unpack(f.back, w)
        x = blocks(tensors, ("block3", "block4"), x).flatten(1)
        s = F.linear(x, tensors["head.dense.weight"], tensors["head.dense.bias"])
        return F.cross_entropy(s, y, reduction=reduction)

    def call() -> np.ndarray:
        lam = start.clone().requires_grad_()
        parts = {n: lam[f.layout[n]] for n in f.layout}
        front, c = unpack(f.front, parts["front"]), parts["c"]
        rho, gamma = (parts[n].exp().repeat_interleave(sizes) for n in ("log_rho", "log_gamma"))
        x = blocks(front, ("block1", "block2"), X)
        w = c.detach().requires_grad_()
        for t in range(case.T):
            last = t >= case.T - case.K
            seen = (
                (x, rho, gamma, c) if last else (x.detach(), *(a.detach() for a in (rho, gamma, c)))
            )
            g = loss(w, seen[0], y, "sum") + (seen[1] * (w - seen[3]) ** 2).sum()
            grad = torch.autograd.grad(g, w, create_graph=last)[0]
            w = w - seen[2] * grad if last else (w - seen[2] * grad).detach().requires_grad_()
        query = blocks(front, ("block1", "block2"), X_query)
        return torch.autograd.grad(loss(w, query, y_query, "mean"), lam)[0].numpy()

    return call
