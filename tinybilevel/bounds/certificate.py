"""A certificate: which assumptions hold at one λ, and what the theory then promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinybilevel.bounds.assumptions import Assumption, at, theorem_3_4_assumptions
from tinybilevel.bounds.bias import proposition_3_1
from tinybilevel.bounds.descent import lemma_3_2
from tinybilevel.bounds.readable import Readable
from tinybilevel.measure.constants import Constants, measure
from tinybilevel.methods.base import Method
from tinybilevel.methods.unrolled import KRMD
from tinybilevel.problem import BilevelProblem

__all__ = ["Certificate", "certificate"]


@dataclass(frozen=True, repr=False)
class Certificate(Readable):
    """What is known of a truncated hypergradient at one λ. Prints as a table.

    Attributes
    ----------
    method : KRMD
        The method.
    K : int
        Backward steps that it took.
    constants : Constants
        As measured.
    status, a_posteriori_status : str
        What the bounds are worth; see `TruncationBound`.
    assumptions : tuple of Assumption
        Those of Proposition 3.1, then those of Theorem 3.4.
    eq_9, eq_10 : float or None
        The a-priori bounds on ‖h_{T−K} − d_λ f‖; None where an assumption is gone.
    a_posteriori : float
        S_{T−K} ‖α_{T−K}‖, from the norms that the backward pass saw and those of all A_t and B_t.
    error : float or None
        The true ‖h_{T−K} − d_λ f‖, if it was asked for.
    descent : float or None
        h_{T−K}ᵀ d_λ f / ‖d_λ f‖², if the true error was asked for.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> c = tb.bounds.certificate(tb.problems.toy(), method=tb.KRMD(K=20))
    >>> [a.name for a in c.missing]
    []
    >>> print(f"{c.a_posteriori:.2f}", c.a_posteriori_status)
    8.23 certified, by exact spectra
    """

    method: KRMD
    K: int
    constants: Constants
    assumptions: tuple[Assumption, ...]
    eq_9: float | None
    eq_10: float | None
    a_posteriori: float
    error: float | None
    descent: float | None
    status: str
    a_posteriori_status: str

    @property
    def missing(self) -> tuple[Assumption, ...]:
        """The assumptions that do not hold, or were not measured."""
        return tuple(a for a in self.assumptions if not a.holds)

    def __str__(self) -> str:
        c, verdict = self.constants, {True: "yes", False: "NO", None: "?"}
        (N, M), T = c.shape, c.T
        lines = [f"{self.method} at one λ: N = {N}, M = {M}, T = {T}, K = {self.K}", ""]
        width = max(len(a.name) for a in self.assumptions)
        for title, part in (
            ("Proposition 3.1 asks for", self.assumptions[:-4]),
            ("Theorem 3.4 adds", self.assumptions[-4:]),
        ):
            lines.append(title)
            lines += [
                f"  {a.name:<{width}}  {verdict[a.holds]:<3}  {a.measured}{_worth(a)}".rstrip()
                for a in part
            ]
        lines.append("‖h_{T−K} − d_λ f‖ is at most")
        for name, bound, status in (
            ("a priori, eq. (9)", self.eq_9, self.status),
            ("a priori, eq. (10)", self.eq_10, self.status),
            ("a posteriori, S ‖α_{T−K}‖", self.a_posteriori, self.a_posteriori_status),
        ):
            number = "no promise" if bound is None else f"{bound:.3e}  {status}"
            lines.append(f"  {name:<{width}}  {number}")
        lines.append("in truth")
        for name, value in (
            ("‖h_{T−K} − d_λ f‖", self.error),
            ("h_{T−K}ᵀ d_λ f / ‖d_λ f‖²", self.descent),
        ):
            lines.append(f"  {name:<{width}}  {_number(value, 'not measured')}")
        return "\n".join(lines)


def _worth(a: Assumption) -> str:
    return f" ({a.status})" if a.status in ("estimated", "sampled") else ""


def _number(value: float | None, without: str) -> str:
    return without if value is None else f"{value:.3e}"


def certificate(
    problem: BilevelProblem,
    lam: Any = None,
    method: Method | None = None,
    *,
    exact: bool = False,
    alpha: float | None = None,
    beta: float | None = None,
    confidence: float | None = None,
) -> Certificate:
    """Certify a truncated hypergradient at one λ.

    Parameters
    ----------
    problem : BilevelProblem
        Any.
    lam : array_like (N,), optional
        Where; by default the problem's `lam0`.
    method : KRMD, optional
        Without a tail; by default ``KRMD(K=1)``.
    exact : bool
        Also compute the true error and the direction of descent, by full reverse mode.
    alpha, beta : float, optional
        Known constants of strong convexity and smoothness, in place of the measured ones.
    confidence : float, optional
        See `measure`: bounds on a large problem are estimates without it.

    Returns
    -------
    Certificate

    Raises
    ------
    TypeError
        If `method` is another one: the statements are about K-RMD.
    ValueError
        If an argument does not fit the problem.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> print(tb.bounds.certificate(tb.problems.toy(), method=tb.KRMD(K=20), exact=True))
    KRMD(K=20, storage=Ring()) at one λ: N = 2, M = 2, T = 100, K = 20
    ...
    """
    method = KRMD(K=1) if method is None else method
    if not isinstance(method, KRMD) or method.tail is not None:
        raise TypeError(f"method must be a KRMD without a tail, got {method!r}")
    lam, _ = at(problem, lam, 0)
    c = measure(problem, lam, confidence=confidence)
    K = method(problem, lam).K
    b = proposition_3_1(problem, lam, K, alpha=alpha, beta=beta, constants=c)
    return Certificate(
        method=method,
        K=K,
        constants=c,
        assumptions=b.assumptions + theorem_3_4_assumptions(problem, lam, K, c, exact=exact),
        eq_9=b.eq_9,
        eq_10=b.eq_10,
        a_posteriori=b.a_posteriori,
        error=b.error if exact else None,
        descent=float(lemma_3_2(problem, lam, K).by_grad[0]) if exact else None,
        status=b.status,
        a_posteriori_status=b.a_posteriori_status,
    )
