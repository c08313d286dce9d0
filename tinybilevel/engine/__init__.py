"""The recursion: eq. (4), its storages, eq. (6) and (8) backward, eq. (7) forward."""

from tinybilevel.engine.dynamics import Cost, Dynamics
from tinybilevel.engine.forward import forward
from tinybilevel.engine.reverse import backward
from tinybilevel.engine.storage import Binomial, Checkpoint, Ring, Storage

__all__ = ["Binomial", "Checkpoint", "Cost", "Dynamics", "Ring", "Storage", "backward", "forward"]
