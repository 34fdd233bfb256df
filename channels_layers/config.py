"""Layers from settings: a CHANNEL_LAYERS table, or one URL.

Nothing here waits or connects. A layer is made at first use, and opens itself at its own.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from .errors import ConfigurationError

if TYPE_CHECKING:
    from .layer import ChannelLayer

SCHEMES_GROUP: Final = "channels_layers.schemes"
# Said again in code, so that it also works from a source tree, which has no metadata.
_BUILT_IN: Final = (
    EntryPoint("ipc", "channels_layers.ipc:IPCChannelLayer", SCHEMES_GROUP),
    EntryPoint("memory", "channels_layers.memory:InMemoryChannelLayer", SCHEMES_GROUP),
    *(
        EntryPoint(scheme, "channels_layers.redis:RedisChannelLayer", SCHEMES_GROUP)
        for scheme in ("redis", "rediss", "unix")
    ),
)
_KEYS: Final = ("BACKEND", "CONFIG", "TEST_CONFIG")
_BOOLS: Final = {"true": True, "false": False}
_EXAMPLE_URL: Final = "memory://?capacity=100"


class ChannelLayers:
    """A table of layers by alias, each made at first use and from then on the same object.

    The form of the whole table is checked at once; a backend is imported when it is needed.
    There is no lock: threads that race may make a layer each, and all get the first.

    Args:
        channel_layers: For each alias a mapping with ``BACKEND`` (a class, or the dotted path of
            one), ``CONFIG`` (its keyword arguments) and ``TEST_CONFIG`` (those that
            `make_test_layer` uses instead). The last two may be left out.

    Raises:
        ConfigurationError: the table has the wrong form; the error's `field` is a path into it.
    """

    def __init__(self, channel_layers: Mapping[str, Mapping[str, Any]]) -> None:
        table = _mapping("CHANNEL_LAYERS", channel_layers)
        self._settings = {
            alias: _checked(_at("CHANNEL_LAYERS", alias), settings)
            for alias, settings in table.items()
        }
        self._layers: dict[str, ChannelLayer] = {}

    def __getitem__(self, alias: str) -> ChannelLayer:
        """Return the layer of `alias`.

        Raises:
            ConfigurationError: there is no such alias, or its settings make no layer.
        """
        if alias not in self._layers:
            self._layers.setdefault(alias, self._made(alias, "CONFIG"))
        return self._layers[alias]

    def make_test_layer(self, alias: str = "default") -> ChannelLayer:
        """Make a fresh layer with the TEST_CONFIG of `alias`; it is not kept.

        Raises:
            ConfigurationError: as for the layer itself, or there is no TEST_CONFIG.
        """
        if "TEST_CONFIG" not in self._settings_of(alias):
            raise ConfigurationError(_at("CHANNEL_LAYERS", alias, "TEST_CONFIG"), "is missing")
        return self._made(alias, "TEST_CONFIG")

    def _settings_of(self, alias: str) -> Mapping[str, Any]:
        if "://" in alias:  # and it may hold a password, so it is not shown
            raise ConfigurationError("alias", "is a URL, not an alias; from_url() takes URLs")
        try:
            return self._settings[alias]
        except KeyError as exc:
            problem = f"no such alias{_hint(alias, self._settings)}"
            raise ConfigurationError(_at("CHANNEL_LAYERS", alias), problem) from exc

    def _made(self, alias: str, key: str) -> ChannelLayer:
        settings = self._settings_of(alias)
        backend = _imported(_at("CHANNEL_LAYERS", alias, "BACKEND"), settings["BACKEND"])
        path = _at("CHANNEL_LAYERS", alias, key)
        return _called(backend, settings.get(key, {}), path, lambda field: _at(path, field))


_process_wide: ChannelLayers | None = None


def configure(channel_layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Set the table of this process, from which `get_channel_layer` takes its layers.

    A second call replaces the table; layers taken from the old one stay as they are.

    Args:
        channel_layers: As for `ChannelLayers`; the ``CHANNEL_LAYERS`` of Django settings fits.

    Raises:
        ConfigurationError: the table has the wrong form; the old one stays.
    """
    global _process_wide  # one table per process is what this function is for
    _process_wide = ChannelLayers(channel_layers)


def get_channel_layer(alias: str = "default") -> ChannelLayer:
    """Return the layer of `alias`: the same object at each call, made at the first.

    Raises:
        ConfigurationError: `configure` was not called, or the settings of `alias` are wrong.
    """
    if _process_wide is None:
        raise ConfigurationError("CHANNEL_LAYERS", "call channels_layers.configure({...}) first")
    return _process_wide[alias]


def from_url(url: str) -> ChannelLayer:
    """Make a new layer from a URL such as ``"ipc://my-app?capacity=5&expiry=0.5"``.

    The scheme chooses a factory: the entry point of that name in the group
    ``channels_layers.schemes``. The host, if there is one, becomes the keyword argument
    ``prefix`` of a factory that takes one. Each parameter of the query becomes a keyword
    argument, turned into what the factory's annotation says: int, float, bool (``true``,
    ``false``), None (``none``), str or a Literal of str. Nothing else may be in the URL.

    A factory with a ``from_url`` attribute gets the whole URL instead, as it is, and reads it
    by itself; `query_options` is there to help.

    Raises:
        ConfigurationError: the URL describes no layer. The error never shows a password.
    """
    parts = _split(url)
    secrets = _secrets(url)
    try:
        return _from_parts(url, parts)
    except ConfigurationError as exc:
        if not secrets:
            raise
        safe = ConfigurationError(_redacted(exc.field, secrets), _redacted(exc.problem, secrets))
    raise safe  # outside the handler: a cause or a context would show what is secret


def query_options(factory: Callable[..., Any], url: str) -> dict[str, Any]:
    """Turn the query of a URL into keyword arguments for `factory`, by its annotations.

    For a factory that has a ``from_url`` of its own and reads the rest of the URL there::

        @classmethod
        def from_url(cls, url: str) -> Self:
            hosts = urlsplit(url).netloc.split(",")
            return cls(hosts, **query_options(cls, url))

    Raises:
        ConfigurationError: a parameter is unknown, given twice or of the wrong type.
    """
    parts = _split(url)
    return _options(factory, f"{parts.scheme}://", _query(parts))


def _from_parts(url: str, parts: SplitResult) -> ChannelLayer:
    path = f"{parts.scheme}://"
    factory = _factory(parts.scheme)
    from_whole = getattr(factory, "from_url", None)
    if from_whole is not None:
        return _called(partial(from_whole, url), {}, path, lambda field: field)
    options = _options(factory, path, _host(factory, parts) | _query(parts))
    return _called(factory, options, path, lambda field: f"{path}?{field}")


def _called(
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    path: str,
    field_of: Callable[[str], str],
) -> ChannelLayer:
    """Make a layer; whatever `factory` raises becomes an error that names the field."""
    try:
        layer: ChannelLayer = factory(**options)
    except ConfigurationError as exc:
        raise ConfigurationError(field_of(exc.field), exc.problem) from exc
    except Exception as exc:
        # Making a layer touches nothing outside, so whatever fails is its configuration.
        known = _parameters(factory)
        closed = known and not any(p.kind is p.VAR_KEYWORD for p in known.values())
        unknown = next((name for name in options if closed and name not in known), None)
        if unknown is not None:
            problem = f"unknown option{_hint(unknown, known)}"
            raise ConfigurationError(field_of(unknown), problem) from exc
        raise ConfigurationError(path, f"{_name_of(factory)} refused it: {exc}") from exc
    return layer


def _checked(path: str, settings: object) -> Mapping[str, Any]:
    """Return the settings of one alias, their form checked."""
    checked = _mapping(path, settings)
    for key, value in checked.items():
        if key == "ROUTING":
            problem = "is not taken any more; a layer routes nothing, so leave it out"
            raise ConfigurationError(_at(path, key), problem)
        if key not in _KEYS:
            raise ConfigurationError(_at(path, key), f"unknown key{_hint(key, _KEYS)}")
        if key != "BACKEND":
            _mapping(_at(path, key), value)
    field = _at(path, "BACKEND")
    if "BACKEND" not in checked:
        raise ConfigurationError(field, "is missing")
    backend = checked["BACKEND"]
    is_path = isinstance(backend, str) and re.fullmatch(r"\w+(\.\w+)+", backend)
    if not is_path and not isinstance(backend, type):
        found = _redacted(repr(backend), _secrets(str(backend)))
        problem = f"must be a class or a dotted path such as 'package.Class', got {found}"
        raise ConfigurationError(field, problem)
    return checked


def _imported(path: str, backend: str | type[Any]) -> type[Any]:
    """Return the class that BACKEND is or names."""
    if isinstance(backend, type):
        return backend
    module_name, _, name = backend.rpartition(".")
    module = None
    try:
        module = import_module(module_name)
        found = getattr(module, name)
    except ImportError as exc:  # of either line: a lazy name imports when it is asked for
        raise ConfigurationError(path, f"cannot import {backend!r}: {exc}") from exc
    except AttributeError as exc:
        if module is None:
            raise  # a mistake in that module
        problem = f"{module_name!r} has no {name!r}{_hint(name, dir(module))}"
        raise ConfigurationError(path, problem) from exc
    if not isinstance(found, type):
        raise ConfigurationError(path, f"must name a class, {backend!r} is {found!r}")
    return found


@cache  # looking them up reads a file of every installed package
def _schemes() -> dict[str, EntryPoint]:
    return {point.name: point for point in (*entry_points(group=SCHEMES_GROUP), *_BUILT_IN)}


def _factory(scheme: str) -> Callable[..., Any]:
    """Import what is registered for `scheme`."""
    schemes = _schemes()
    if scheme not in schemes:
        known = ", ".join(sorted(schemes))
        problem = f"no layer is registered for scheme {scheme!r}{_hint(scheme, schemes)}"
        raise ConfigurationError("url", f"{problem}; known: {known}")
    try:
        factory: Callable[..., Any] = schemes[scheme].load()
    except (ImportError, AttributeError) as exc:
        problem = f"cannot import {schemes[scheme].value!r}: {exc}"
        raise ConfigurationError(f"{scheme}://", problem) from exc
    return factory


def _split(url: object) -> SplitResult:
    """Take `url` apart; the error shows nothing of it, since a password may stand anywhere."""
    try:
        parts = urlsplit(url) if isinstance(url, str) and "://" in url else None
    except ValueError:
        parts = None  # nor what urlsplit says
    if parts is None or not parts.scheme:
        raise ConfigurationError("url", f"must be a str that looks like {_EXAMPLE_URL!r}")
    return parts


def _host(factory: Callable[..., Any], parts: SplitResult) -> dict[str, str]:
    """Return the prefix that is the host of a URL, which may have a query besides, and no more."""
    path = f"{parts.scheme}://"
    takes_prefix = "prefix" in _parameters(factory)
    host, colon, _ = parts.netloc.partition(":")
    refused = {
        "user": "@" in parts.netloc,
        "host": parts.netloc and not takes_prefix,
        "port": colon,
        "path": parts.path,
        "fragment": parts.fragment,
    }
    form = f"a query: {_EXAMPLE_URL!r}"
    if takes_prefix:
        form = f"a prefix and a query: '{path}name?capacity=100'"
    for part, given in refused.items():
        if given:
            raise ConfigurationError(path, f"takes no {part}, only {form}")
    if host and "prefix" in _query(parts):
        raise ConfigurationError(f"{path}?prefix", "is given twice; the host is the prefix")
    return {"prefix": unquote(host)} if host else {}


def _query(parts: SplitResult) -> dict[str, str]:
    query: dict[str, str] = {}
    for field in filter(None, parts.query.split("&")):
        name, _, text = map(unquote_plus, field.partition("="))
        if name in query:
            raise ConfigurationError(f"{parts.scheme}://?{name}", "is given twice")
        query[name] = text
    return query


def _options(factory: Callable[..., Any], path: str, query: dict[str, str]) -> dict[str, Any]:
    """Turn each parameter of a query into what `factory` is annotated to take."""
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    taken = _parameters(factory, eval_str=True)
    known = {name: parameter for name, parameter in taken.items() if parameter.kind not in many}
    options = {}
    for name, text in query.items():
        field = f"{path}?{name}"
        if name not in known:
            raise ConfigurationError(field, f"unknown parameter{_hint(name, known)}")
        try:
            options[name] = _converted(text, known[name].annotation)
        except TypeError as exc:
            problem = f"cannot be given in a URL; pass it to {_name_of(factory)}"
            raise ConfigurationError(field, problem) from exc
        except ValueError as exc:
            raise ConfigurationError(field, str(exc)) from exc
    return options


def _converted(text: str, annotation: Any) -> object:
    """Turn `text` into the first of None, bool, int, float, Literal and str that it can be.

    Raises:
        TypeError: it is none of those, and `annotation` has types that no text can be.
        ValueError: it is none of those; the error says what it must be.
    """
    is_union = get_origin(annotation) in (Union, UnionType)
    kinds = get_args(annotation) if is_union else (annotation,)
    literals = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if text.lower() == "none" and NoneType in kinds:
        return None
    if text.lower() in _BOOLS and bool in kinds:
        return _BOOLS[text.lower()]
    for number in (int, float):
        with suppress(ValueError):
            if number in kinds:
                return number(text)
    if text in literals or str in kinds:
        return text
    convertible = {NoneType: "none", bool: "true or false", int: "an int", float: "a number"}
    if not all(kind in convertible or get_origin(kind) is Literal for kind in kinds):
        raise TypeError(annotation)
    words = [convertible[kind] for kind in kinds if kind in convertible]
    raise ValueError(f"must be {' or '.join([*words, *map(repr, literals)])}, got {text!r}")


def _parameters(
    factory: Callable[..., Any], *, eval_str: bool = False
) -> Mapping[str, inspect.Parameter]:
    """Return what `factory` takes; nothing where that cannot be found out."""
    try:
        return inspect.signature(factory, eval_str=eval_str).parameters
    except (NameError, TypeError, ValueError):
        return {}


def _secrets(url: str) -> list[str]:
    """Return what of `url` no error may show, the longest first.

    Too much rather than too little: a raw "/", "#" or "@" tears a password into pieces, each of
    which stands where no password is looked for.
    """
    userinfo = url.partition("://")[2].rpartition("@")[0]
    password = userinfo.partition(":")[2]
    found = {password, *re.split(r"[/?#@:,]", password)}
    found.update(re.findall(r"[?&][^=&]*(?:pass|secret|token|key)[^=&]*=([^&#]+)", url, re.I))
    found |= {unquote(secret) for secret in found} | {unquote_plus(secret) for secret in found}
    return sorted(found - {""}, key=len, reverse=True)


def _redacted(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _mapping(path: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        # Its type only: whoever puts a URL there may have put a password into it.
        raise ConfigurationError(path, f"must be a mapping, got {type(value).__name__}")
    for key in value:
        if not isinstance(key, str):
            raise ConfigurationError(f"{path}[{key!r}]", "keys must be str")
    return value


def _at(path: str, *keys: str) -> str:
    """Return `path` with a subscript for each key; a field such as ``a["b"]`` is a key ``a``."""
    for key in keys:
        name, bracket, rest = key.partition("[")
        path = f"{path}[{json.dumps(name)}]{bracket}{rest}"
    return path


def _hint(word: str, known: Iterable[str]) -> str:
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def _name_of(factory: Callable[..., Any]) -> str:
    return getattr(getattr(factory, "func", factory), "__qualname__", "the factory")
