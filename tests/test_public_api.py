"""What the package offers: its names, what importing them costs, and what they say they do."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import channels_layers
from channels_layers import ChannelLayer
from channels_layers.testing.resilience import Unreliable

PACKAGE = Path(channels_layers.__file__).parent
TREE = ast.parse((PACKAGE / "__init__.py").read_text())
TYPED = ast.parse((Path(__file__).parent / "typing" / "api.py").read_text())
COROUTINES = [
    function
    for name, function in inspect.getmembers(ChannelLayer, inspect.iscoroutinefunction)
    if not name.startswith("_")
]
# Nothing that the caller does makes these fail.
NEVER_RAISE = {"flush", "statistics", "close"}
PUBLIC_FILES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not any(part.startswith("_") for part in path.relative_to(PACKAGE).parts)
]


def imported_for_type_checkers():
    """Return the module of each name that type checkers are told of."""
    block = next(node for node in TREE.body if isinstance(node, ast.If))
    return {alias.name: node.module for node in block.body for alias in node.names}


def fresh(code):
    """Return the first parts of the modules that `code` imports in a new interpreter."""
    code = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in ran.stdout.split()}


def sections(docstring):
    """Return the parts of a docstring by their titles; what comes first has none."""
    titles = r"^(Args|Returns|Raises|Delivery|Cancellation|Cost):$"
    first, *rest = re.split(titles, inspect.cleandoc(docstring or ""), flags=re.MULTILINE)
    return {"": first, **dict(zip(rest[::2], rest[1::2], strict=True))}


def silent(source):
    """Return the public classes and functions of a file that have no docstring."""
    found = []
    for node in ast.parse(source).body:
        for inner in [node, *(node.body if isinstance(node, ast.ClassDef) else [])]:
            is_named = isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if is_named and not {node.name[0], inner.name[0]} & {"_"}:
                found += [] if ast.get_docstring(inner) else [inner.name]
    return found


# The names


def test_every_name_is_offered_once_in_three_places():
    names = channels_layers.__all__
    assert names == sorted(set(names))
    assert imported_for_type_checkers() == channels_layers._HOMES
    assert set(names) == channels_layers._HOMES.keys() <= set(dir(channels_layers))


def test_every_name_is_what_its_home_calls_so():
    for name, home in channels_layers._HOMES.items():
        value = getattr(channels_layers, name)
        assert value.__qualname__ == name
        assert f"{value.__module__}.".startswith(f"channels_layers.{home}.")


def test_every_error_is_offered():
    kinds = {name for name, kind in vars(channels_layers.errors).items() if isinstance(kind, type)}
    assert {name for name in kinds if not name.startswith("_")} <= set(channels_layers.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Channel'"):
        channels_layers.Channel  # noqa: B018 - asking for it is the test


def test_the_type_checked_program_uses_every_name():
    used = {node.id for node in ast.walk(TYPED) if isinstance(node, ast.Name)}
    assert set(channels_layers.__all__) - used == set()


@pytest.mark.parametrize("kind", [ChannelLayer, Unreliable])
def test_the_type_checked_program_uses_every_method(kind):
    used = {node.attr for node in ast.walk(TYPED) if isinstance(node, ast.Attribute)}
    assert {name for name in dir(kind) if not name.startswith("_")} - used == set()


# What importing costs


def test_importing_the_package_imports_only_the_package_and_small_parts_of_python():
    found = fresh("import channels_layers")
    assert "channels_layers" in found
    assert found <= sys.stdlib_module_names | {"channels_layers"}
    assert not found & {"asyncio", "threading", "socket", "logging", "inspect"}


def test_no_name_is_imported_before_it_is_asked_for():
    code = "import channels_layers as c; assert not vars(c).keys() & set(c.__all__)"
    assert fresh(code) == fresh("import channels_layers")


@pytest.mark.parametrize("name", sorted(set(channels_layers._HOMES.values())))
def test_every_home_can_be_imported_first_and_alone(name):
    found = fresh(f"import channels_layers.{name}")
    wanted = {"redis", "uhashring"} if name == "redis" else set()
    assert not found & {"redis", "uhashring", "django", "trio", "pytest"} - wanted


def test_errors_take_nothing_but_the_exceptions_of_channels():
    code = "import channels_layers.errors\nfor name in list(sys.modules):\n"
    code += "    assert name.split('.')[0] != 'channels' or name in ('channels', {!r}), name"
    assert "channels_layers" in fresh(code.format("channels.exceptions"))


def test_the_in_memory_layer_works_without_channels_and_trio():
    code = "for name in ('channels', 'django', 'redis', 'trio'): sys.modules[name] = None\n"
    code += "import asyncio; from channels_layers import InMemoryChannelLayer as Layer\n"
    code += "async def main():\n    async with Layer() as layer: await layer.send('a', {})\n"
    assert "ormsgpack" in fresh(f"{code}asyncio.run(main())")


# What the names say


@pytest.mark.parametrize("path", PUBLIC_FILES, ids=lambda path: path.stem)
def test_every_public_class_and_function_has_a_docstring(path):
    assert silent(path.read_text()) == []


def test_a_public_function_without_docstring_is_found():
    source = (
        '"""M."""\nclass A:\n    """A."""\n    def b(self): ...\n    def _c(self): ...\ndef d(): 0'
    )
    assert silent(source) == ["b", "d"]


@pytest.mark.parametrize("coroutine", COROUTINES, ids=lambda coroutine: coroutine.__name__)
def test_every_coroutine_says_what_it_raises_and_what_cancelling_does(coroutine):
    said = sections(coroutine.__doc__)
    assert said["Cancellation"].strip()
    assert bool(said.get("Raises")) == (coroutine.__name__ not in NEVER_RAISE)


@pytest.mark.parametrize("coroutine", COROUTINES, ids=lambda coroutine: coroutine.__name__)
def test_docstrings_name_real_errors_and_real_arguments(coroutine):
    said = sections(coroutine.__doc__)
    errors = re.findall(r"^    (\w+):", said.get("Raises", ""), re.MULTILINE)
    assert set(errors) <= {*channels_layers.__all__, *dir(builtins)}
    arguments = re.findall(r"^    (\w+):", said.get("Args", ""), re.MULTILINE)
    assert set(arguments) <= inspect.signature(coroutine).parameters.keys()


def test_the_contract_has_a_coroutine_for_each_of_its_calls():
    assert {coroutine.__name__ for coroutine in COROUTINES} == {
        *("send", "receive", "receive_from", "new_channel"),
        *("group_add", "group_discard", "group_send", "group_channels"),
        *("flush", "statistics", "channel_statistics", "open", "close"),
    }
