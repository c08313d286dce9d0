"""torch, eager: double backward, an explicit adjoint, and two libraries built on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.cases import Case, numbers

Function = Callable[[Any, Any], Any]


def losses(case: Case) -> tuple[Function, Function, Any, Any, float]:
    """Return g(w, λ), f(w), w_0, λ and γ."""
    n = numbers(case)
    data = {name: torch.from_numpy(a) for name, a in n.data.items()}
    w0, lam = torch.from_numpy(n.w0), torch.from_numpy(n.lam)
    if case.kind != "hypercleaning":
        G = data["curvature"]

        def quadratic(w: Any, lam: Any) -> Any:
            r = w - lam
            return 0.5 * torch.dot(r, G * r if G.ndim == 1 else G @ r)

        def rippled(w: Any, lam: Any) -> Any:
            return (w**2 + 10 * torch.sin(w) ** 2).sum()

        def squares(w: Any, lam: Any) -> Any:
            return 0.5 * (w**2).sum()

        return quadratic, rippled if case.kind == "toy" else squares, w0, lam, n.step_size
    X, X_val = data["X"], data["X_val"]
    y, y_val = data["y"].long(), data["y_val"].long()

    def lower(w: Any, lam: Any) -> Any:
        each = F.cross_entropy(X @ w.view(10, -1).T, y, reduction="none")
        return (torch.dot(torch.sigmoid(lam), each) + 1e-3 * (w**2).sum()) / case.rows

    def upper(w: Any, lam: Any) -> Any:
        return F.cross_entropy(X_val @ w.view(10, -1).T, y_val)

    return lower, upper, w0, lam, n.step_size


def build(case: Case, style: str) -> Callable[[], np.ndarray]:
    """Return a call; `style` is ``autograd``, ``adjoint``, ``higher`` or ``torchopt``."""
    g, f, w0, lam0, gamma = losses(case)
    T, K = case.T, case.K

    def forward(lam: Any, steps: int) -> Any:
        w = w0.clone()
        for _ in range(steps):
            w.requires_grad_()
            (grad,) = torch.autograd.grad(g(w, lam), w)
            w = w.detach() - gamma * grad
        return w

    def autograd() -> np.ndarray:
        lam = lam0.clone().requires_grad_()
        w = forward(lam.detach(), T - K).requires_grad_()
        for _ in range(K):
            (grad,) = torch.autograd.grad(g(w, lam), w, create_graph=True)
            w = w - gamma * grad
        return torch.autograd.grad(f(w, lam), lam)[0].numpy()

    def adjoint() -> np.ndarray:
        lam = lam0.clone().requires_grad_()
        w, states = forward(lam0, T - K), []
        for _ in range(K):
            states.append(w.detach())
            w = w.detach().requires_grad_()
            (grad,) = torch.autograd.grad(g(w, lam0), w)
            w = w.detach() - gamma * grad
        w.requires_grad_()
        (alpha,) = torch.autograd.grad(f(w, lam0), w)
        h = torch.zeros_like(lam0)
        for state in reversed(states):
            state = state.clone().requires_grad_()
            (grad,) = torch.autograd.grad(g(state, lam), state, create_graph=True)
            hessian, mixed = torch.autograd.grad(grad, (state, lam), gamma * alpha)
            alpha, h = alpha - hessian, h - mixed
        return h.numpy()

    def higher_() -> np.ndarray:
        import higher

        lam = lam0.clone().requires_grad_()
        model = _Weights(forward(lam.detach(), T - K))
        optimizer = torch.optim.SGD(model.parameters(), lr=gamma)
        with higher.innerloop_ctx(model, optimizer) as (inner, step):
            for _ in range(K):
                step.step(g(inner(), lam))
            return torch.autograd.grad(f(inner(), lam), lam)[0].numpy()

    def torchopt_() -> np.ndarray:
        import torchopt

        lam = lam0.clone().requires_grad_()
        model = _Weights(forward(lam.detach(), T - K))
        optimizer = torchopt.MetaSGD(model, lr=gamma)
        for _ in range(K):
            optimizer.step(g(model(), lam))
        return torch.autograd.grad(f(model(), lam), lam)[0].numpy()

    return {"autograd": autograd, "adjoint": adjoint, "higher": higher_, "torchopt": torchopt_}[
        style
    ]


class _Weights(torch.nn.Module):
    """w as a module, which `higher` and TorchOpt ask for."""

    def __init__(self, w: Any) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(w)

    def forward(self) -> Any:
        return self.w
