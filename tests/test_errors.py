"""What an error says of a package that is not there."""

import configparser
import re
from pathlib import Path

import pytest

from tinybilevel.errors import PACKAGES, missing_extra

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("extra", sorted(PACKAGES))
def test_the_hint_names_the_packages_that_the_extra_installs(extra):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = re.findall(r"^[\w\[\]-]+", config["options.extras_require"][extra], re.MULTILINE)
    assert PACKAGES[extra].replace('"', "").split() == wanted


def test_the_hint_works_with_and_without_a_checkout():
    error = missing_extra("digits needs scikit-learn", "data", ModuleNotFoundError("no sklearn"))
    assert str(error) == (
        "digits needs scikit-learn: pip install pillow pooch scikit-learn "
        '(or, in a checkout of tinybilevel, pip install ".[data]")'
    )


def test_what_is_installed_but_broken_is_not_said_to_be_missing():
    cause = ImportError("Numba needs NumPy 2.3 or less. Got NumPy 2.4.")
    message = str(missing_extra("compile needs Numba", "fast", cause))
    assert "pip install" not in message
    assert message.endswith("Numba needs NumPy 2.3 or less. Got NumPy 2.4.")


def test_nothing_tells_the_user_to_install_a_name_that_no_index_has():
    files = [*(ROOT / "tinybilevel").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    files.append(ROOT / "README.md")
    assert [f for f in files if "tinybilevel[" in f.read_text("utf-8")] == []
