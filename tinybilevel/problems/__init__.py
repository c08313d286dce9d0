"""Problems, one paper section per file."""

from tinybilevel.problems.accuracy import Accuracy
from tinybilevel.problems.counterexample import counterexample
from tinybilevel.problems.hypercleaning import append_bias, hypercleaning, rejected
from tinybilevel.problems.one_shot import OneShot, four_blocks
from tinybilevel.problems.row_space import RowSpace
from tinybilevel.problems.task_interaction import InteractionMap, interactions, task_interaction
from tinybilevel.problems.task_stream import TaskStream
from tinybilevel.problems.toy import toy

__all__ = [
    "Accuracy",
    "InteractionMap",
    "OneShot",
    "RowSpace",
    "TaskStream",
    "append_bias",
    "counterexample",
    "four_blocks",
    "hypercleaning",
    "interactions",
    "rejected",
    "task_interaction",
    "toy",
]
