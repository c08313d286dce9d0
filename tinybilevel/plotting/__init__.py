"""Pictures, with matplotlib (extra ``plot``), which is loaded when the first one is drawn.

=================== ============================================================================
`trace`             ‖α_t‖, ‖B_t α_t‖, ‖h_t‖ and the error along a backward pass
`truncation_error`  error of the hypergradient against K, under its bounds
`landscape`         f(ŵ*(λ), λ) over two hyperparameters, with paths and gradients as arrows
`learning_curve`    loss, norm or accuracy against the hyper-iteration
`rejected_labels`   the images whose labels got the smallest weights
`image_grid`        images with captions
`confusion`         a confusion matrix
`interaction`       a matrix C between classes
`memory_time`       what methods and storages hold against what they run
`style`             the house's style, as a context
`sequence_colors`   colours for a series such as K = 1, 2, 5, …
=================== ============================================================================

Each function takes matplotlib axes as `ax`, or makes a figure with them, and returns them: set
titles, limits and scales there, and save by ``ax.figure.savefig(…)``. Axes that are given keep the
style that they were made with.
"""

from tinybilevel.plotting.curves import learning_curve, trace
from tinybilevel.plotting.images import image_grid, rejected_labels
from tinybilevel.plotting.landscapes import landscape
from tinybilevel.plotting.matrices import confusion, interaction
from tinybilevel.plotting.memory import memory_time
from tinybilevel.plotting.style import sequence_colors, style
from tinybilevel.plotting.truncations import truncation_error

__all__ = [
    "confusion",
    "image_grid",
    "interaction",
    "landscape",
    "learning_curve",
    "memory_time",
    "rejected_labels",
    "sequence_colors",
    "style",
    "trace",
    "truncation_error",
]
