"""Data sets to try a method on, and a way to spoil their labels.

Files are looked for in ``data_dir=``, then in the directory that the environment variable
``TINYBILEVEL_DATA`` names, then in the download cache; after that they are downloaded. Wherever
they come from, their SHA-256 is checked before they are parsed.
"""

from tinybilevel.data.cifar import cifar10, cifar10_features, cifar100, cifar100_features
from tinybilevel.data.corrupt import corrupt_labels
from tinybilevel.data.dataset import Dataset, Split
from tinybilevel.data.few_shot import Characters, Task
from tinybilevel.data.idx import DataError, read_idx
from tinybilevel.data.loaders import digits, fashion_mnist, mnist
from tinybilevel.data.omniglot import omniglot
from tinybilevel.data.pool import Pool, load_pool

__all__ = [
    "Characters",
    "DataError",
    "Dataset",
    "Pool",
    "Split",
    "Task",
    "cifar10",
    "cifar10_features",
    "cifar100",
    "cifar100_features",
    "corrupt_labels",
    "digits",
    "fashion_mnist",
    "load_pool",
    "mnist",
    "omniglot",
    "read_idx",
]
