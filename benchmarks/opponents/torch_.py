"""torch, eager: double backward, two libraries built on it, and an adjoint by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.cases import Case, numbers


class Problem(NamedTuple):
    """g(w, λ) and f(w) for autograd; by hand, θ(λ) and its vjp, ∇g(w, θ) and the products."""

    lower: Callable[..., Any]
    upper: Callable[..., Any]
    theta: Callable[..., Any]
    pull: Callable[..., Any]
    grad: Callable[..., Any]
    products: Callable[..., Any]


def _quadratic(case: Case, data: dict[str, Any]) -> Problem:
    G = data["curvature"]

    def curve(v: Any) -> Any:
        return G * v if G.ndim == 1 else G @ v

    def upper(w: Any) -> Any:
        toy = case.kind == "toy"
        return (w**2 + 10 * torch.sin(w) ** 2).sum() if toy else 0.5 * (w**2).sum()

    def products(w: Any, theta: Any, alpha: Any) -> tuple[Any, Any]:
        curved = curve(alpha)
        return curved, -curved

    return Problem(
        lower=lambda w, lam: 0.5 * torch.dot(w - lam, curve(w - lam)),
        upper=upper,
        theta=lambda lam: lam,
        pull=lambda lam, h: h,
        grad=lambda w, theta: curve(w - theta),
        products=products,
    )


def _hypercleaning(case: Case, data: dict[str, Any]) -> Problem:
    X, y, n = data["X"], data["y"].long(), case.rows
    Y = F.one_hot(y, 10).to(X.dtype)

    def lower(w: Any, lam: Any) -> Any:
        each = F.cross_entropy(X @ w.view(10, -1).T, y, reduction="none")
        return (torch.dot(torch.sigmoid(lam), each) + 1e-3 * (w**2).sum()) / n

    def grad(w: Any, theta: Any) -> Any:
        R = torch.softmax(X @ w.view(10, -1).T, dim=1).sub_(Y).mul_(theta[:, None])
        return (R.T @ X).view(-1).add_(w, alpha=2e-3).div_(n)

    def products(w: Any, theta: Any, alpha: Any) -> tuple[Any, Any]:
        both = X @ torch.cat([w, alpha]).view(20, -1).T
        P, dS = torch.softmax(both[:, :10], dim=1), both[:, 10:]
        dP = P * (dS - (P * dS).sum(1, keepdim=True))
        mixed = ((P - Y) * dS).sum(1).div_(n)
        hessian = (dP.mul_(theta[:, None]).T @ X).view(-1).add_(alpha, alpha=2e-3)
        return hessian.div_(n), mixed

    return Problem(
        lower,
        upper=lambda w: F.cross_entropy(data["X_val"] @ w.view(10, -1).T, data["y_val"].long()),
        theta=torch.sigmoid,
        pull=lambda lam, h: torch.sigmoid(lam) * (1 - torch.sigmoid(lam)) * h,
        grad=grad,
        products=products,
    )


def _tasks(case: Case, data: dict[str, Any]) -> Problem:
    """The penalty in Laplacian form; the bias is the last column of W, which it leaves alone."""
    n, V, y, y_val = case.rows, case.classes, data["y"].long(), data["y_val"].long()
    X, X_val = (F.pad(data[k], (0, 1), value=1.0) for k in ("X", "X_val"))
    Y, (i, j) = F.one_hot(y, V).to(X.dtype), torch.triu_indices(V, V, 1, device=X.device)
    penalized = (torch.arange(X.shape[1], device=X.device) < case.features).to(X.dtype)
    eye = torch.eye(V, dtype=X.dtype, device=X.device)

    def theta(lam: Any) -> Any:
        C = lam.new_zeros(V, V).index_put((i, j), lam[:-1])
        C = C + C.T
        return 4 * (torch.diag(C.sum(1)) - C) + 2 * lam[-1] * eye

    def lower(w: Any, lam: Any) -> Any:
        W = w.view(V, -1)
        P, loss = theta(lam), F.cross_entropy(X @ W.T, y)
        W = W * penalized
        return loss + 0.5 * (W * (P @ W)).sum()

    def grad(w: Any, P: Any) -> Any:
        W = w.view(V, -1)
        R = torch.softmax(X @ W.T, dim=1).sub_(Y).div_(n)
        return torch.addmm(P @ (W * penalized), R.T, X).view(-1)

    def products(w: Any, P: Any, alpha: Any) -> tuple[Any, Any]:
        both = X @ torch.cat([w, alpha]).view(2 * V, -1).T
        S, dS = torch.softmax(both[:, :V], dim=1), both[:, V:]
        dP = S * (dS - (S * dS).sum(1, keepdim=True))
        A = alpha.view(V, -1) * penalized
        return torch.addmm(P @ A, dP.div_(n).T, X).view(-1), w.view(V, -1) @ A.T

    def pull(lam: Any, h: Any) -> Any:
        with torch.enable_grad():
            lam = lam.clone().requires_grad_()
            return torch.autograd.grad(theta(lam), lam, h)[0]

    def upper(w: Any) -> Any:
        return F.cross_entropy(X_val @ w.view(V, -1).T, y_val)

    return Problem(lower, upper, theta, pull, grad, products)


class _Weights(torch.nn.Module):
    """w as a module, which `higher` and TorchOpt ask for."""

    def __init__(self, w: Any) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(w)

    def forward(self) -> Any:
        return self.w


def build(case: Case, style: str) -> Callable[[], np.ndarray]:
    """Return a call; `style`: ``autograd``, ``adjoint``, ``compiled``, ``higher``, ``torchopt``."""
    n, T, K = numbers(case), case.T, case.K
    device = "cuda" if case.device == "gpu" else "cpu"
    data = {name: torch.from_numpy(a).to(device) for name, a in n.data.items()}
    p = {"hypercleaning": _hypercleaning, "tasks": _tasks}.get(case.kind, _quadratic)(case, data)
    gamma = n.step_size
    w0, lam0 = torch.from_numpy(n.w0).to(device), torch.from_numpy(n.lam).to(device)
    if style == "compiled":
        p = p._replace(grad=torch.compile(p.grad), products=torch.compile(p.products))

    def start() -> Any:
        """Return w_{T−K}, which nothing is differentiated through."""
        w = w0.clone()
        for _ in range(T - K):
            w.requires_grad_()
            (grad,) = torch.autograd.grad(p.lower(w, lam0), w)
            w = w.detach() - gamma * grad
        return w

    def autograd() -> Any:
        lam, w = lam0.clone().requires_grad_(), start().requires_grad_()
        for _ in range(K):
            (grad,) = torch.autograd.grad(p.lower(w, lam), w, create_graph=True)
            w = w - gamma * grad
        return torch.autograd.grad(p.upper(w), lam)[0]

    def higher_() -> Any:
        import higher

        lam, model = lam0.clone().requires_grad_(), _Weights(start())
        optimizer = torch.optim.SGD(model.parameters(), lr=gamma)
        with higher.innerloop_ctx(model, optimizer) as (inner, step):
            for _ in range(K):
                step.step(p.lower(inner(), lam))
            return torch.autograd.grad(p.upper(inner()), lam)[0]

    def torchopt_() -> Any:
        import torchopt

        lam, model = lam0.clone().requires_grad_(), _Weights(start())
        optimizer = torchopt.MetaSGD(model, lr=gamma)
        for _ in range(K):
            optimizer.step(p.lower(model(), lam))
        return torch.autograd.grad(p.upper(model()), lam)[0]

    @torch.no_grad()
    def adjoint() -> Any:
        theta, w, states = p.theta(lam0), w0, []
        for t in range(T):
            if t >= T - K:
                states.append(w)
            w = w - gamma * p.grad(w, theta)
        with torch.enable_grad():
            (alpha,) = torch.autograd.grad(p.upper(w.requires_grad_()), w)
        h = torch.zeros_like(theta)
        for w in reversed(states):
            hessian, mixed = p.products(w, theta, alpha)
            alpha = alpha - gamma * hessian
            h -= gamma * mixed
        return p.pull(lam0, h)

    call = {"autograd": autograd, "higher": higher_, "torchopt": torchopt_}.get(style, adjoint)
    return lambda: call().cpu().numpy()
