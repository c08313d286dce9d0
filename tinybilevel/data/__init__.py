"""Data sets to try a method on, and a way to spoil their labels.

Files are looked for in ``data_dir=``, then in the directory that the environment variable
``TINYBILEVEL_DATA`` names, then in the download cache; after that they are downloaded. Wherever
they come from, their SHA-256 is checked before they are parsed.
"""

from tinybilevel.data.corrupt import corrupt_labels
from tinybilevel.data.dataset import Dataset, Split
from tinybilevel.data.idx import DataError, read_idx
from tinybilevel.data.loaders import digits, fashion_mnist, mnist

__all__ = [
    "DataError",
    "Dataset",
    "Split",
    "corrupt_labels",
    "digits",
    "fashion_mnist",
    "mnist",
    "read_idx",
]
