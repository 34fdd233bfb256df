"""Layers from a CHANNEL_LAYERS table and from URLs: what is right, and what is said when wrong."""

from __future__ import annotations

import asyncio
import secrets
import threading
import tomllib
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import pytest

from channels_layers import (
    BackendError,
    InMemoryChannelLayer,
    IPCChannelLayer,
    RedisChannelLayer,
    config,
)
from channels_layers.config import (
    ChannelLayers,
    configure,
    from_url,
    get_channel_layer,
    query_options,
)
from channels_layers.errors import ConfigurationError

MEMORY = "channels_layers.InMemoryChannelLayer"


class Fake:
    """A layer that takes an option of every kind a URL can give, and one that it cannot."""

    def __init__(
        self,
        *,
        size: int = 1,
        share: float = 0.5,
        either: int | float = 1,
        loud: bool = False,
        name: str = "",
        end: float | None = 1.0,
        scope: Literal["channel", "process"] = "channel",
        table: Mapping[str, int] | None = None,
    ):
        if name.startswith("refused"):
            raise OSError(f"cannot use {name}")
        self.options = {
            "size": size,
            "share": share,
            "either": either,
            "loud": loud,
            "name": name,
            "end": end,
            "scope": scope,
            "table": table,
        }


class FakeFromUrl:
    """A layer that reads its URL itself."""

    def __init__(self, url: str):
        self.url = url

    @classmethod
    def from_url(cls, url: str):
        if "wrong" in url:
            raise ConfigurationError("hosts", f"{url} {unquote(url)} {urlsplit(url)}")
        return cls(url)


class FakeCluster:
    """A layer that reads the hosts from its URL itself, and leaves the query to us."""

    def __init__(self, hosts: list[str], database: int = 0, *, prefix: str = "asgi"):
        self.asked = (hosts, database, prefix)

    @classmethod
    def from_url(cls, url: str):
        parts = urlsplit(url)
        return cls(parts.netloc.split(","), int(parts.path[1:]), **query_options(cls, url))


class FakePrefix:
    """A layer that takes a prefix, and has a default for it."""

    def __init__(self, prefix: str = "asgi", *, capacity: int = 100):
        if prefix == "refused":
            raise ConfigurationError("prefix", "cannot be this one")
        self.asked = (prefix, capacity)


class FakeRedis(RedisChannelLayer):
    """A layer that reads its URL as ours does, and remembers what it was asked for."""

    def __init__(self, hosts: list[str], prefix: str = "asgi", *, capacity: int = 100):
        self.asked = (hosts, prefix, capacity)


class Counted:
    """A layer that counts its objects, and waits until as many as asked for are being made."""

    made = 0

    def __init__(self, together: threading.Barrier | None = None):
        type(self).made += 1
        if together is not None:
            together.wait(timeout=20)


class WithoutSignature:
    """A class that Python knows nothing about."""

    __signature__ = 5

    def __init__(self, **options: object):
        open_ended(**options)


def open_ended(**options: object):
    """A factory whose signature does not tell what it takes."""
    raise TypeError(f"not these: {sorted(options)}")


NOT_A_CLASS = Fake()
HERE = __name__


def problem_of(call, *args) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        call(*args)
    return caught.value


@pytest.fixture(autouse=True)
def no_table_is_left(monkeypatch):
    monkeypatch.setattr(config, "_process_wide", None)


@pytest.fixture(autouse=True)
def schemes(monkeypatch):
    """Stand-ins for what other packages register."""
    targets = {
        "fake": f"{HERE}:Fake",
        "whole": f"{HERE}:FakeFromUrl",
        "cluster": f"{HERE}:FakeCluster",
        "prefix": f"{HERE}:FakePrefix",
        "broken": "no_such_package:Layer",
        "gone": f"{HERE}:NoSuchLayer",
        "open": f"{HERE}:open_ended",
    }
    points = [EntryPoint(name, value, config.SCHEMES_GROUP) for name, value in targets.items()]
    monkeypatch.setattr(config, "entry_points", lambda group: points)
    config._schemes.cache_clear()
    yield
    config._schemes.cache_clear()


def test_an_alias_names_one_layer_object():
    configure({"default": {"BACKEND": MEMORY}, "other": {"BACKEND": MEMORY}})
    assert isinstance(get_channel_layer(), InMemoryChannelLayer)
    assert get_channel_layer() is get_channel_layer("default")
    assert get_channel_layer("other") is not get_channel_layer()


def test_config_becomes_keyword_arguments_of_the_backend():
    configure({"default": {"BACKEND": f"{HERE}.Fake", "CONFIG": {"size": 7, "table": {"a": 1}}}})
    options = get_channel_layer().options
    assert (options["size"], options["table"]) == (7, {"a": 1})


def test_a_backend_may_be_the_class_itself():
    configure({"default": {"BACKEND": Fake, "CONFIG": {"size": 7}}})
    assert get_channel_layer().options["size"] == 7


def test_a_table_of_ones_own_is_apart_from_the_process_wide_one():
    configure({"default": {"BACKEND": Fake}})
    table = ChannelLayers({"default": {"BACKEND": Fake}})
    assert table["default"] is table["default"]
    assert table["default"] is not get_channel_layer()


def test_configuring_again_replaces_the_table():
    configure({"default": {"BACKEND": Fake}})
    before = get_channel_layer()
    configure({"default": {"BACKEND": Fake}})
    assert get_channel_layer() is not before


def test_a_wrong_table_leaves_the_old_one():
    configure({"default": {"BACKEND": Fake}})
    before = get_channel_layer()
    problem_of(configure, {"default": {}})
    assert get_channel_layer() is before


def test_backends_are_imported_at_first_use_only():
    table = ChannelLayers({"default": {"BACKEND": Fake}, "x": {"BACKEND": "no_such_package.X"}})
    assert isinstance(table["default"], Fake)
    problem_of(table.__getitem__, "x")


def test_a_layer_is_made_once(monkeypatch):
    monkeypatch.setattr(Counted, "made", 0)
    table = ChannelLayers({"default": {"BACKEND": Counted}})
    assert Counted.made == 0
    assert table["default"] is table["default"]
    assert Counted.made == 1


def test_racing_threads_get_one_layer_object(monkeypatch):
    monkeypatch.setattr(Counted, "made", 0)
    config = {"together": threading.Barrier(8)}
    table = ChannelLayers({"default": {"BACKEND": Counted, "CONFIG": config}})
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: table["default"], range(8)))
    assert Counted.made == 8
    assert set(map(id, found)) == {id(table["default"])}


def test_a_test_layer_is_fresh_and_takes_the_test_config():
    settings = {"BACKEND": Fake, "CONFIG": {"size": 1}, "TEST_CONFIG": {"size": 2}}
    table = ChannelLayers({"default": settings})
    assert table.make_test_layer().options["size"] == 2
    assert table["default"].options["size"] == 1
    assert table.make_test_layer() is not table.make_test_layer()


def test_an_unconfigured_process_is_told_what_to_call():
    error = problem_of(get_channel_layer)
    assert str(error) == "CHANNEL_LAYERS: call channels_layers.configure({...}) first"


DEFAULT = 'CHANNEL_LAYERS["default"]'
WRONG_FORMS = {
    "no mapping": ([], "CHANNEL_LAYERS", "must be a mapping, got list"),
    "alias of another type": ({1: {}}, "CHANNEL_LAYERS[1]", "keys must be str"),
    "a URL as settings": (
        {"default": "redis://me:hunter2@host"},
        DEFAULT,
        "must be a mapping, got str",
    ),
    "a URL as BACKEND": (
        {"default": {"BACKEND": "redis://me:hunter2@host"}},
        f'{DEFAULT}["BACKEND"]',
        "must be a class or a dotted path such as 'package.Class', got 'redis://me:***@host'",
    ),
    "no BACKEND": ({"default": {}}, f'{DEFAULT}["BACKEND"]', "is missing"),
    "BACKEND of another type": (
        {"default": {"BACKEND": 5}},
        f'{DEFAULT}["BACKEND"]',
        "must be a class or a dotted path such as 'package.Class', got 5",
    ),
    "BACKEND without a dot": (
        {"default": {"BACKEND": "Layer"}},
        f'{DEFAULT}["BACKEND"]',
        "must be a class or a dotted path such as 'package.Class', got 'Layer'",
    ),
    "CONFIG of another type": (
        {"default": {"BACKEND": Fake, "CONFIG": [("size", 1)]}},
        f'{DEFAULT}["CONFIG"]',
        "must be a mapping, got list",
    ),
    "TEST_CONFIG of another type": (
        {"default": {"BACKEND": Fake, "TEST_CONFIG": None}},
        f'{DEFAULT}["TEST_CONFIG"]',
        "must be a mapping, got NoneType",
    ),
    "an option of another type": (
        {"default": {"BACKEND": Fake, "CONFIG": {1: 1}}},
        f'{DEFAULT}["CONFIG"][1]',
        "keys must be str",
    ),
    "unknown key": (
        {"default": {"BACKEND": Fake, "backend": Fake}},
        f'{DEFAULT}["backend"]',
        "unknown key; did you mean 'BACKEND'?",
    ),
    "misspelt key": (
        {"default": {"BACKEND": Fake, "COFIG": {}}},
        f'{DEFAULT}["COFIG"]',
        "unknown key; did you mean 'CONFIG'?",
    ),
    "ROUTING": (
        {"default": {"BACKEND": Fake, "ROUTING": "project.routing.channel_routing"}},
        f'{DEFAULT}["ROUTING"]',
        "is not taken any more; a layer routes nothing, so leave it out",
    ),
}


@pytest.mark.parametrize(("table", "field", "problem"), WRONG_FORMS.values(), ids=WRONG_FORMS)
def test_a_wrong_form_is_told_when_the_table_is_set(table, field, problem):
    error = problem_of(configure, table)
    assert (error.field, error.problem) == (field, problem)


WRONG_SETTINGS = {
    "unknown module": (
        {"BACKEND": "no_such_package.Layer"},
        '["BACKEND"]',
        "cannot import 'no_such_package.Layer': No module named 'no_such_package'",
        ModuleNotFoundError,
    ),
    "unknown class": (
        {"BACKEND": "channels_layers.config.ChannelLayer"},
        '["BACKEND"]',
        "'channels_layers.config' has no 'ChannelLayer'; did you mean 'ChannelLayers'?",
        AttributeError,
    ),
    "not a class": (
        {"BACKEND": "channels_layers.config.from_url"},
        '["BACKEND"]',
        "must name a class, 'channels_layers.config.from_url' is ",
        type(None),
    ),
    "unknown option of ours": (
        {"BACKEND": MEMORY, "CONFIG": {"capcity": 5}},
        '["CONFIG"]["capcity"]',
        "unknown option; did you mean 'capacity'?",
        (TypeError, ConfigurationError),
    ),
    "unknown option of another's": (
        {"BACKEND": Fake, "CONFIG": {"szie": 5}},
        '["CONFIG"]["szie"]',
        "unknown option; did you mean 'size'?",
        TypeError,
    ),
    "wrong value of ours": (
        {"BACKEND": MEMORY, "CONFIG": {"capacity": 0}},
        '["CONFIG"]["capacity"]',
        "must be at least 1, got 0",
        ConfigurationError,
    ),
    "wrong value deep in ours": (
        {"BACKEND": MEMORY, "CONFIG": {"channel_capacity": {"http.*": 0}}},
        '["CONFIG"]["channel_capacity"][\'http.*\']',
        "must be at least 1, got 0",
        ConfigurationError,
    ),
    "wrong value of another's": (
        {"BACKEND": Fake, "CONFIG": {"name": "refused"}},
        '["CONFIG"]',
        "Fake refused it: cannot use refused",
        OSError,
    ),
}


@pytest.mark.parametrize(
    ("settings", "path", "problem", "cause"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS
)
def test_wrong_settings_are_told_at_first_use(settings, path, problem, cause):
    table = ChannelLayers({"default": settings})
    error = problem_of(table.__getitem__, "default")
    assert error.field == DEFAULT + path
    assert error.problem.startswith(problem)
    assert isinstance(error.__cause__, cause)


def test_a_mistake_inside_a_backends_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "mistaken_backend.py").write_text("import json\njson.no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AttributeError, match="no_such_name"):
        ChannelLayers({"a": {"BACKEND": "mistaken_backend.Layer"}})["a"]


def test_a_backend_whose_extra_is_missing_is_told_as_it_says(tmp_path, monkeypatch):
    lazy = "def __getattr__(name):\n    raise ImportError('pip install package[redis]')\n"
    (tmp_path / "lazy_backend.py").write_text(lazy)
    monkeypatch.syspath_prepend(tmp_path)
    error = problem_of(ChannelLayers({"a": {"BACKEND": "lazy_backend.Layer"}}).__getitem__, "a")
    assert error.problem == "cannot import 'lazy_backend.Layer': pip install package[redis]"


def test_an_unknown_alias_is_told_with_the_nearest():
    error = problem_of(ChannelLayers({"default": {"BACKEND": Fake}}).__getitem__, "defualt")
    assert str(error) == "CHANNEL_LAYERS[\"defualt\"]: no such alias; did you mean 'default'?"
    assert isinstance(error.__cause__, KeyError)


def test_a_url_in_place_of_an_alias_is_told_what_takes_urls():
    configure({"default": {"BACKEND": Fake}})
    error = problem_of(get_channel_layer, "redis://me:hunter2@host")
    assert str(error) == "alias: is a URL, not an alias; from_url() takes URLs"


def test_a_missing_test_config_is_told():
    error = problem_of(ChannelLayers({"default": {"BACKEND": Fake}}).make_test_layer)
    assert str(error) == 'CHANNEL_LAYERS["default"]["TEST_CONFIG"]: is missing'


def test_a_wrong_test_config_is_named_as_such():
    table = ChannelLayers({"default": {"BACKEND": Fake, "TEST_CONFIG": {"szie": 1}}})
    assert problem_of(table.make_test_layer).field == f'{DEFAULT}["TEST_CONFIG"]["szie"]'


class OpenEnded:
    """A layer that takes anything, by its signature."""

    def __init__(self, **options: object):
        open_ended(**options)


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (OpenEnded, "OpenEnded refused it: not these: ['b']"),
        (WithoutSignature, "WithoutSignature refused it: not these: ['b']"),
        (range, "range refused it: "),
    ],
)
def test_where_a_signature_tells_nothing_the_backends_own_words_are_shown(backend, words):
    table = ChannelLayers({"a": {"BACKEND": backend, "CONFIG": {"b": 1}}})
    error = problem_of(table.__getitem__, "a")
    assert error.field == 'CHANNEL_LAYERS["a"]["CONFIG"]'
    assert error.problem.startswith(words)


def test_the_memory_scheme_makes_our_layer():
    assert isinstance(from_url("memory://"), InMemoryChannelLayer)
    assert from_url("memory://") is not from_url("memory://")


def test_the_ipc_scheme_makes_our_layer():
    layer = from_url("ipc://")
    assert isinstance(layer, IPCChannelLayer)
    assert from_url("ipc://") is not layer


def test_the_ipc_layer_is_a_backend_with_a_prefix_and_options():
    config = {"prefix": "test", "capacity": 5, "message_memory": 2**25}
    backend = "channels_layers.IPCChannelLayer"
    table = ChannelLayers({"default": {"BACKEND": backend, "CONFIG": config}})
    assert isinstance(table["default"], IPCChannelLayer)
    wrong = ChannelLayers({"default": {"BACKEND": backend, "CONFIG": {"prefix": ""}}})
    error = problem_of(wrong.__getitem__, "default")
    assert error.field == f'{DEFAULT}["CONFIG"]["prefix"]'


async def is_heard(url, other_url):
    """Say whether the layer of one URL sees a message that waits in the layer of another."""
    async with from_url(url) as layer, from_url(other_url) as other:
        await layer.send("a", {"n": 1})
        numbers = await other.channel_statistics("a")
        await layer.receive("a")
        return numbers["messages_pending"] == 1


@pytest.mark.parametrize(
    ("host", "expected"),
    [("test-{}", True), ("%74est-{}", True), ("test-{}-2", False), ("TEST-{}", False)],
)
def test_ipc_layers_meet_where_the_hosts_of_their_urls_are_one_prefix(host, expected):
    own = secrets.token_hex(8)
    assert asyncio.run(is_heard(f"ipc://test-{own}", f"ipc://{host.format(own)}")) is expected


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("redis://h1", (["redis://h1"], "asgi", 100)),
        (
            "redis://h1:1,h2:2,h3/0",
            (["redis://h1:1/0", "redis://h2:2/0", "redis://h3/0"], "asgi", 100),
        ),
        ("rediss://h1,h2?prefix=a%3Ab&capacity=5", (["rediss://h1", "rediss://h2"], "a:b", 5)),
        (
            "redis://me:pass,@h1,h2/2",
            (["redis://me:pass,@h1/2", "redis://me:pass,@h2/2"], "asgi", 100),
        ),
        ("redis://[::1]:1,[::2]:2", (["redis://[::1]:1", "redis://[::2]:2"], "asgi", 100)),
    ],
)
def test_a_redis_url_names_a_shard_for_each_host(url, asked):
    assert FakeRedis.from_url(url).asked == asked


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_the_redis_schemes_make_our_layer(scheme):
    layer = from_url(f"{scheme}:///1?prefix=test&capacity=5&rotation=0.5&capacity_scope=process")
    assert type(layer) is RedisChannelLayer


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://{host}/0?prefix={own}", True),
        ("redis://{host}?prefix={own}&capacity=5", True),
        ("redis://test-user:test-word@{host}/0?prefix={own}", True),
        ("unix://{socket}?prefix={own}", True),
        ("redis://{host}/1?prefix={own}", False),
        ("redis://{host}/0?prefix={own}-2", False),
        ("redis://{host}/0?prefix={own}:", False),
    ],
)
def test_redis_layers_meet_where_server_database_and_prefix_are_the_same(
    redis_server, url, expected
):
    redis_server.ask("ACL", "SETUSER", "test-user", "on", ">test-word", "~*", "&*", "+@all")
    places = {"host": f"127.0.0.1:{redis_server.port}", "socket": redis_server.socket}
    own = f"test-{secrets.token_hex(8)}"
    first = f"{redis_server.url}/0?prefix={own}"
    assert asyncio.run(is_heard(first, url.format(own=own, **places))) is expected


def test_a_refused_password_is_not_shown(redis_server):
    url = f"redis://nobody:hunter2@127.0.0.1:{redis_server.port}"

    async def use():
        async with from_url(url) as layer:
            await layer.send("a", {})

    with pytest.raises(BackendError) as caught:
        asyncio.run(use())
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


def test_the_redis_layer_is_a_backend_with_hosts_and_options():
    backend = "channels_layers.RedisChannelLayer"
    hosts = [("localhost", 6379), {"address": "redis://localhost:6380", "name": "second"}]
    settings = {"BACKEND": backend, "CONFIG": {"hosts": hosts, "capacity": 5}}
    assert isinstance(ChannelLayers({"a": settings})["a"], RedisChannelLayer)
    wrong = {"BACKEND": backend, "CONFIG": {"hosts": ["redis://h1", "redis://h1:6379/0"]}}
    error = problem_of(ChannelLayers({"default": wrong}).__getitem__, "default")
    assert error.field == f'{DEFAULT}["CONFIG"]["hosts"]'
    assert error.problem == "h1:6379/0 is there twice; give each shard a name"


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("prefix://", ("asgi", 100)),
        ("prefix://My_app.2", ("My_app.2", 100)),
        ("prefix://a%3Ab%2Fc?capacity=5", ("a:b/c", 5)),
        ("prefix://?prefix=other", ("other", 100)),
        ("cluster://h1:6379,h2:6379/2?prefix=x", (["h1:6379", "h2:6379"], 2, "x")),
    ],
)
def test_a_host_is_a_prefix_where_the_factory_reads_no_urls_itself(url, asked):
    assert from_url(url).asked == asked


def test_our_layer_takes_numbers_from_its_url():
    error = problem_of(from_url, "memory://?capacity=5&expiry=-0.5")
    assert str(error) == "memory://?expiry: must be 0.001 to 1000000000 seconds, got -0.5"


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("size=5", "size", 5),
        ("size=-5", "size", -5),
        ("share=0.25", "share", 0.25),
        ("share=2", "share", 2.0),
        ("either=2", "either", 2),
        ("either=2.0", "either", 2.0),
        ("loud=true", "loud", True),
        ("loud=False", "loud", False),
        ("name=a%26b+c", "name", "a&b c"),
        ("name=none", "name", "none"),
        ("name=", "name", ""),
        ("end=none", "end", None),
        ("end=1e3", "end", 1000.0),
        ("scope=process", "scope", "process"),
        ("table=none", "table", None),
    ],
)
def test_a_parameter_becomes_what_the_annotation_says(query, name, value):
    found = from_url(f"fake://?{query}").options[name]
    assert (found, type(found)) == (value, type(value))


WRONG_URLS = {
    "memory://localhost": ("memory://", "takes no host, only a query: 'memory://?capacity=100'"),
    "memory://me@": ("memory://", "takes no user, only a query: 'memory://?capacity=100'"),
    "memory:///asgi": ("memory://", "takes no path, only a query: 'memory://?capacity=100'"),
    "memory://#a": ("memory://", "takes no fragment, only a query: 'memory://?capacity=100'"),
    "ipc://me@asgi": (
        "ipc://",
        "takes no user, only a prefix and a query: 'ipc://name?capacity=100'",
    ),
    "ipc://asgi:80": (
        "ipc://",
        "takes no port, only a prefix and a query: 'ipc://name?capacity=100'",
    ),
    "ipc:///asgi": (
        "ipc://",
        "takes no path, only a prefix and a query: 'ipc://name?capacity=100'",
    ),
    "ipc://asgi#a": (
        "ipc://",
        "takes no fragment, only a prefix and a query: 'ipc://name?capacity=100'",
    ),
    "ipc://asgi?prefix=other": ("ipc://?prefix", "is given twice; the host is the prefix"),
    "ipc://?prefix=": ("ipc://?prefix", "must be a str that is not empty, got ''"),
    "ipc://?message_memory=1": (
        "ipc://?message_memory",
        "must be at least 16777216 bytes, got 1",
    ),
    "ipc://?message_memory=1MiB": ("ipc://?message_memory", "must be an int, got '1MiB'"),
    "prefix://refused": ("prefix://?prefix", "cannot be this one"),
    "cluster://h1/0?szie=1": ("cluster://?szie", "unknown parameter"),
    "cluster://h1/0?prefix=a&prefix=b": ("cluster://?prefix", "is given twice"),
    "cluster://h1/x": (
        "cluster://",
        "FakeCluster.from_url refused it: invalid literal for int() with base 10: 'x'",
    ),
    "redis://h1/x": ("hosts[0]", "the path of the URL is a database number"),
    "redis://h1,h2:x": ("hosts[1]", "is a URL with a port that is none"),
    "redis://h1,h1:6379": ("hosts", "h1:6379/0 is there twice; give each shard a name"),
    "redis://?capcity=5": ("redis://?capcity", "unknown parameter; did you mean 'capacity'?"),
    "redis://?prefix=": ("prefix", "must be a str that is not empty, got ''"),
    "redis://?rotation=0": ("rotation", "must be 0.001 to 1000000000 seconds, got 0.0"),
    "redis://?channel_capacity=5": (
        "redis://?channel_capacity",
        "cannot be given in a URL; pass it to RedisChannelLayer",
    ),
    "unix://": (
        "hosts[0]",
        "must be a URL such as redis://host:port/database, rediss:// with TLS, or unix:///path",
    ),
    "memory://?capcity=5": (
        "memory://?capcity",
        "unknown parameter; did you mean 'capacity'?",
    ),
    "memory://?capacity=5&expiry=1&capacity=6": ("memory://?capacity", "is given twice"),
    "memory://?capacity=five": ("memory://?capacity", "must be an int, got 'five'"),
    "memory://?capacity": ("memory://?capacity", "must be an int, got ''"),
    "memory://?capacity=0": ("memory://?capacity", "must be at least 1, got 0"),
    "memory://?channel_capacity=5": (
        "memory://?channel_capacity",
        "cannot be given in a URL; pass it to InMemoryChannelLayer",
    ),
    "fake://?loud=1": ("fake://?loud", "must be true or false, got '1'"),
    "fake://?end=x": ("fake://?end", "must be a number or none, got 'x'"),
    "fake://?scope=both": ("fake://?scope", "must be 'channel' or 'process', got 'both'"),
    "fake://?name=refused": ("fake://", "Fake refused it: cannot use refused"),
    "open://?options=1": ("open://?options", "unknown parameter"),
    "open://": ("open://", "open_ended refused it: not these: []"),
    "broken://": (
        "broken://",
        "cannot import 'no_such_package:Layer': No module named 'no_such_package'",
    ),
    "memry://": (
        "url",
        "no layer is registered for scheme 'memry'; did you mean 'memory'?;"
        " known: broken, cluster, fake, gone, ipc, memory, open, prefix,"
        " redis, rediss, unix, whole",
    ),
    "memory:": ("url", "must be a str that looks like 'memory://?capacity=100'"),
    "localhost": ("url", "must be a str that looks like 'memory://?capacity=100'"),
    "://": ("url", "must be a str that looks like 'memory://?capacity=100'"),
    "fake://[": ("url", "must be a str that looks like 'memory://?capacity=100'"),
    5: ("url", "must be a str that looks like 'memory://?capacity=100'"),
}


@pytest.mark.parametrize(("url", "expected"), WRONG_URLS.items(), ids=map(str, WRONG_URLS))
def test_a_wrong_url_is_told(url, expected):
    error = problem_of(from_url, url)
    assert (error.field, error.problem) == expected


def test_a_registered_name_that_does_not_exist_is_told():
    error = problem_of(from_url, "gone://")
    assert isinstance(error.__cause__, AttributeError)
    assert error.problem.startswith(f"cannot import '{HERE}:NoSuchLayer'")


def test_a_factory_that_reads_urls_names_its_own_fields():
    error = problem_of(from_url, "whole://wrong")
    assert error.field == "hosts"
    assert error.problem.startswith("whole://wrong ")


def test_what_is_wrong_in_a_url_keeps_its_cause():
    assert isinstance(problem_of(from_url, "fake://?name=refused").__cause__, OSError)


def test_a_factory_that_reads_urls_gets_the_whole_url():
    url = "whole://me:secret@host:5/path?a=1&a=2#end"
    assert from_url(url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "memory://me:hunter2@",
        "memory://:hunter2@localhost/0",
        "memory://:a/hunter2@localhost",
        "whole://me:hunter2@wrong",
        "whole://me:hunter%32@wrong",
        "whole://me:hunter2%32+a@wrong",
        "whole://me:a#hunter2@wrong",
        "whole://me:2/hunter2@wrong",
        "whole://wrong?password=hunter2",
        "whole://wrong?api_token=hunter2",
        "whole://wrong?a=b&client_secret=hunter%32",
        "whole://wrong?symmetric_encryption_keys=hunter+2",
        "fake://?name=refused&password=hunter2",
        "ipc://me:hunter2@",
        "ipc://:hunter2@asgi",
        "cluster://me:hunter2@h1/hunter2?password=hunter2",
        "fake://?name=refused_hunter2&secret_name=hunter2",
        "redis://me:hunter2@host/x",
        "redis://me:hunter2@h1,h2:x",
        "redis://me:hunter2,a@h1,h1",
        "redis://me:hunter2/a@host",
        "redis://me:a/hunter2@host",
        "redis://me:hunter2@host?capcity=5",
        "redis://host?password=hunter2",
        "rediss://:hunter2@host?capacity=0",
        "unix://me:hunter2@",
        "unknown://me:hunter2@host",
        "me:hunter2@host",
        "fake://me:hunter2@[::1",
        "memory://?capacity=1&capacity=1&token=hunter2",
    ],
)
def test_no_error_shows_a_password(url):
    error = problem_of(from_url, url)
    text = "".join(traceback.format_exception(error))
    assert "hunter" not in text + repr(error)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_the_registered_schemes_are_the_built_in_ones():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    registered = project["project"]["entry-points"][config.SCHEMES_GROUP]
    assert registered == {point.name: point.value for point in config._BUILT_IN}


def test_what_is_installed_is_looked_up_once(monkeypatch):
    lookups = []
    monkeypatch.setattr(config, "entry_points", lambda group: lookups.append(group) or [])
    from_url("memory://")
    from_url("memory://")
    assert lookups == [config.SCHEMES_GROUP]
