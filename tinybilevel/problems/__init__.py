"""Problems, one paper section per file."""

from tinybilevel.problems.counterexample import counterexample
from tinybilevel.problems.hypercleaning import append_bias, hypercleaning, rejected
from tinybilevel.problems.toy import toy

__all__ = ["append_bias", "counterexample", "hypercleaning", "rejected", "toy"]
