"""Every public name says what it is, in which shapes, and shows it in an example that runs."""

import inspect
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

import tinybilevel as tb
from tinybilevel import estimators

SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", flags=re.MULTILINE)
ENTRY = re.compile(r"^(\S.*)\n?((?: {4}.*\n?|\n)*)", flags=re.MULTILINE)
SHAPE = re.compile(r"\((?:[^()]|\([^()]*\))*,(?:[^()]|\([^()]*\))*\)")  # (N,), (V(V−1)/2 + 1,), …


def public(module: ModuleType, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield each public name with its value, those of public submodules included."""
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            yield from public(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


NAMES = dict(public(tb)) | dict(public(estimators, "estimators."))


def sections(text: str) -> dict[str, str]:
    """Split a numpydoc docstring into its sections."""
    _, *parts = SECTION.split(inspect.cleandoc(text))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def entries(section: str) -> Iterator[tuple[str, str]]:
    """Yield the head of each entry, such as ``lam : ndarray (N,)``, and what is said of it."""
    yield from ENTRY.findall(section)


def shapeless(text: str) -> list[str]:
    """Return the entries that are arrays and give no shape."""
    parts = sections(text)
    return [
        head
        for name in ("Parameters", "Returns", "Attributes")
        for head, _ in entries(parts.get(name, ""))
        if re.search(r"ndarray|array_like", head) and not SHAPE.search(head)
    ]


def test_an_array_without_a_shape_is_seen():
    text = "F.\n\nParameters\n----------\nx : ndarray (n,)\n    One.\ny : ndarray\n    Two (n,)."
    assert shapeless(text) == ["y : ndarray"]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_a_docstring_with_an_example(name):
    text = NAMES[name].__doc__ or ""
    assert re.search(r"^>>> ", sections(text).get("Examples", ""), flags=re.MULTILINE), name


@pytest.mark.parametrize("name", NAMES)
def test_every_array_has_a_shape(name):
    assert shapeless(NAMES[name].__doc__) == []


FUNCTIONS = {name: each for name, each in NAMES.items() if not isinstance(each, type)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_takes_and_returns(name):
    signature, text = inspect.signature(FUNCTIONS[name]), sections(FUNCTIONS[name].__doc__)
    heads = [head.partition(" : ")[0] for head, _ in entries(text.get("Parameters", ""))]
    assert ", ".join(heads).replace("*", "").split(", ") == (list(signature.parameters) or [""])
    assert ("Returns" in text) == (signature.return_annotation != "None")


def test_every_public_method_and_property_is_described():
    missing = []
    for name, each in NAMES.items():
        for member, value in vars(each).items() if isinstance(each, type) else ():
            is_member = inspect.isroutine(value) or isinstance(value, property)
            if is_member and not member.startswith("_") and member not in each.__doc__:
                missing += [] if inspect.getdoc(getattr(each, member)) else [f"{name}.{member}"]
    assert missing == []


#: Methods that a user calls; most of the others are called by the engine.
CALLED = {
    "BilevelProblem": "astype at_iteration check continuing starting_at to",
    "HyperMap": "jvp vjp",
    "Layout": "pack unpack",
    "LeastSquares": "predict",
    "LogisticRegression": "predict",
    "Method": "batch cost",
    "Objective": "from_functions grad grad_vjp on restrict value value_with_grads",
    "OptimizeResult": "load save",
    "RMD": "trace truncations",
    "SoftmaxRegression": "predict",
    "Transition": "from_functions",
    "bounds.Constants": "given remainder words",
    "data.Characters": "draw of rotated split take",
    "data.Dataset": "split",
    "data.Pool": "draw normalized of",
    "layers.Network": "forward init",
    "problems.Accuracy": "first",
    "problems.InteractionMap": "project step_bound",
    "problems.OneShot": "accuracy evaluate predict problem start stream",
    "problems.TaskStream": "of",
}


@pytest.mark.parametrize("name", CALLED)
def test_methods_that_users_call_are_shown(name):
    for method in CALLED[name].split():
        texts = map(inspect.getdoc, (NAMES[name], getattr(NAMES[name], method)))
        examples = re.findall(r"^(?:>>>|\.\.\.) .*", "\n".join(texts), re.MULTILINE)
        assert any(re.search(rf"\b{method}\(", line) for line in examples), f"{name}.{method}"
