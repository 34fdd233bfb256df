"""Imports point one way, what is not ours has one home, and SYNC comments come in pairs."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

import channels_layers

PACKAGE = Path(channels_layers.__file__).parent
FILES = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.lua")]
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(FILES)}
MODULES = {path: source for path, source in SOURCES.items() if path.endswith(".py")}
DESIGN = (Path(__file__).parents[1] / "docs" / "design.md").read_text()

LEVELS = (
    ("errors", "guarantees"),
    ("_core", "codecs", "_loops", "_fork"),
    ("backend", "options", "statistics", "_home", "_turns"),
    ("layer", "_remote", "_client"),
    ("config",),
    ("memory", "ipc", "redis"),
    ("testing", "integrations", "cli"),
    ("__init__",),
)
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}
# A part imports itself and lower levels. These few, and no backend, also look to their side.
SIDEWAYS = {("codecs", "_core"), ("layer", "_remote"), ("layer", "_client"), ("_remote", "_client")}

# Where a name from outside may be imported. Standard modules that are not here may be anywhere.
HOMES = {
    "anyio": ("_loops.py", "_remote.py", "integrations/", "ipc/", "redis/", "testing/"),
    "asyncio": ("_home.py", "_loops.py", "integrations/django.py", "redis/", "testing/checks/"),
    "channels": ("errors.py", "integrations/django.py"),
    "cryptography": ("codecs/",),
    "django": ("integrations/django.py",),
    "fcntl": ("ipc/",),
    "hiredis": ("redis/",),
    "mmap": ("ipc/",),
    "multiprocessing": ("ipc/",),
    "ormsgpack": ("codecs/msgpack.py", "redis/"),
    "os": (
        "_fork.py",
        "ipc/",
        "redis/",
        "testing/checks/_children.py",
        "testing/checks/_makers.py",
        "testing/conformance.py",
    ),
    "posix_ipc": ("ipc/",),
    "pytest": ("testing/pytest_plugin.py",),
    "redis": ("redis/",),
    "sniffio": ("_loops.py",),
    "socket": ("ipc/", "redis/_abandoned.py"),
    "sqlite3": ("ipc/",),
    "trio": ("_loops.py",),
    "uhashring": ("redis/",),
}
# Names of os, of asyncio and of named tuples.
PRIVATE_TO_PYTHON = {"_exit", "_get_running_loop", "_log_destroy_pending", "_replace"}
NOT_IN_CORE = {"anyio", "asyncio", "os", "redis", "socket", "threading", "time", "trio"}


def imported(path, source):
    """Return the whole name of each module that a file imports, wherever in it that stands."""
    folder = ["channels_layers", *path.split("/")[:-1]]
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) + 1 - node.level] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            found += [module] if node.module else [f"{module}.{a.name}" for a in node.names]
    return [name.split(".") for name in found]


def part_of(path):
    return path.split("/")[0].removesuffix(".py")


def wrong_ways(path, source):
    here = part_of(path)
    ours = [name for name in imported(path, source) if name[0] == "channels_layers"]
    parts = {(name[1:] or ["__init__"])[0] for name in ours} - {here}
    return [
        f"{path} imports {part}"
        for part in sorted(parts)
        if LEVEL_OF.get(part, len(LEVELS)) >= LEVEL_OF[here] and (here, part) not in SIDEWAYS
    ]


def strangers(path, source):
    return [
        f"{path} imports {name}"
        for name in sorted({name[0] for name in imported(path, source)} - {"channels_layers"})
        if not path.startswith(HOMES.get(name, ("",) if name in sys.stdlib_module_names else ()))
        or (part_of(path) == "_core" and name in NOT_IN_CORE)
    ]


def lonely_tags(sources):
    tags = Counter(re.findall(r"(?:#|--) SYNC\b ?([\w-]*)", "\n".join(sources)))
    return sorted(tag for tag, count in tags.items() if count < 2 or not tag)


def foreign_privates(path, source):
    """Return the private attributes that a file uses and no object of its own has."""
    nodes = list(ast.walk(ast.parse(source)))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    own = {node.attr for node in attributes if getattr(node.value, "id", "") in ("self", "cls")}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    used = {node.attr for node in attributes if re.match(r"_(?!_)", node.attr)}
    return [f"{path} uses {name}" for name in sorted(used - own - PRIVATE_TO_PYTHON)]


def faults(rule):
    return [fault for path, source in MODULES.items() for fault in rule(path, source)]


def test_imports_go_down_the_levels_only():
    assert faults(wrong_ways) == []


def test_every_part_of_the_package_has_a_level():
    assert {part_of(path) for path in MODULES} <= LEVEL_OF.keys()


def test_the_design_names_the_same_levels():
    house = DESIGN.partition("## The house")[2].split("```")[1]
    level = -1
    for line in house.splitlines():
        level += line.startswith("level")
        names = re.split(r"\s{2,}", line[9:])[0] if not line[9:10].isspace() else ""
        for name in re.findall(r"\w+", names.replace("/msgpack", "")):
            assert LEVEL_OF[name] == level, f"{name} is in {line!r}"
    assert level == len(LEVELS) - 1


def test_what_is_not_ours_is_imported_at_its_home_only():
    assert faults(strangers) == []


def test_every_sync_tag_has_a_partner():
    assert lonely_tags(SOURCES.values()) == []


def test_nobody_uses_the_private_attributes_of_another_file():
    assert faults(foreign_privates) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("_core/names.py", "from ..layer import ChannelLayer", "layer"),
        ("_core/names.py", "if TYPE_CHECKING:\n    from ..config import x", "config"),
        ("errors.py", "def late():\n    from . import options", "options"),
        ("redis/_backend.py", "from ..ipc._ring import Ring", "ipc"),
        ("memory.py", "from .redis import RedisChannelLayer", "redis"),
        ("ipc/_backend.py", "import channels_layers", "__init__"),
        ("ipc/_backend.py", "from channels_layers.testing import run", "testing"),
        ("testing/resilience.py", "from ..integrations import asgi", "integrations"),
        ("config.py", "from .redis import RedisChannelLayer", "redis"),
        ("redis/_layer.py", "from ..config import query_options", None),
        ("layer.py", "from .novelty import x", "novelty"),
        ("redis/_backend.py", "from .. import _home, backend\nfrom . import _keys", None),
        ("__init__.py", "from .config import from_url", None),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_found(path, source, fault):
    assert wrong_ways(path, source) == ([f"{path} imports {fault}"] if fault else [])


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("config.py", "import redis.asyncio as client", "redis"),
        ("integrations/asgi.py", "from django.conf import settings", "django"),
        ("layer.py", "async def f():\n    from asyncio import sleep", "asyncio"),
        ("testing/resilience.py", "import pytest", "pytest"),
        ("codecs/msgpack.py", "import msgspec", "msgspec"),
        ("_core/wheel.py", "import time", "time"),
        ("_core/wheel.py", "import heapq", None),
        ("redis/_connection.py", "import asyncio, redis\nimport time", None),
        ("redis.py", "import redis", "redis"),
    ],
)
def test_an_import_away_from_its_home_is_found(path, source, fault):
    assert strangers(path, source) == ([f"{path} imports {fault}"] if fault else [])


def test_a_sync_tag_without_partner_is_found():
    sources = ["# SYNC both: a\n# SYNC one: a", "-- SYNC both: b\n# SYNC: no tag\n# noqa: ASYNC1"]
    assert lonely_tags(sources) == ["", "one"]


def test_a_private_attribute_of_another_object_is_found():
    source = "def f(self, layer):\n    return self._own, layer._own, layer._lock, layer.__class__"
    assert foreign_privates("a.py", source) == ["a.py uses _lock"]
