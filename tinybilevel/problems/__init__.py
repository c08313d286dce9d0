"""Problems, one paper section per file."""

from tinybilevel.problems.hypercleaning import append_bias, hypercleaning, rejected
from tinybilevel.problems.toy import toy

__all__ = ["append_bias", "hypercleaning", "rejected", "toy"]
