"""Check an installed wheel: it holds every module of the checkout named on the command line."""

import importlib.util
import sys
import sysconfig
from pathlib import Path

import tinybilevel
import tinybilevel.kernels

root = Path(sys.argv[1])
installed = Path(sysconfig.get_path("purelib"), "tinybilevel")

for module in (tinybilevel, tinybilevel.kernels):
    assert installed in Path(module.__file__).parents, f"{module} is not the wheel's"
assert importlib.util.find_spec("kernels") is None, "a stray top-level kernels is installed"
assert (installed / "py.typed").exists(), "py.typed is missing"


def modules(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*.py")}


expected = modules(root / "tinybilevel")
expected |= {Path("kernels", path) for path in modules(root / "kernels")}
assert modules(installed) == expected, sorted(modules(installed) ^ expected)
