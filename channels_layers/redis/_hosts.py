"""Which servers there are: what users write, checked, as one address for each shard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeGuard
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from ..errors import ConfigurationError, UnsupportedByBackend

Host: TypeAlias = str | tuple[str, int | str] | Mapping[str, Any]

_DEFAULT: Final = "redis://localhost:6379"
_SCHEMES: Final = ("redis", "rediss", "unix")
# Of redis-py's connections; what would change how this package waits and reads is its own.
_TAKEN: Final = ("username", "password", "db", "client_name", "socket_keepalive")
_HIGHEST_PORT: Final = 65_535
_FORMS: Final = "a URL, (host, port) or {'address': ..., 'name': ...}"


@dataclass(frozen=True, slots=True)
class Address:
    """One server.

    Attributes:
        label: What it is called, in errors and on the hash ring; never a password.
        url: For redis-py.
        options: More for redis-py's connection.
    """

    label: str
    url: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def addresses(hosts: Host | Sequence[Host] | None) -> tuple[Address, ...]:
    """Return the address of each shard.

    Raises:
        ConfigurationError: one of them is none, or two have one label.
    """
    found = tuple(_address(f"hosts[{index}]", host) for index, host in enumerate(_several(hosts)))
    if not found:
        raise ConfigurationError("hosts", "must name at least one server")
    labels = [address.label for address in found]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigurationError("hosts", f"{label} is there twice; give each shard a name")
    return found


def urls_of(url: str) -> tuple[list[str], str]:
    """Take ``redis://user:password@host:1,host:2/0?prefix=…`` apart.

    Returns:
        One URL for each host, without a query but for the database of a socket; and the whole
        without what they have of its query.
    """
    parts = urlsplit(url)
    userinfo, at, netloc = parts.netloc.rpartition("@")
    if parts.scheme == "unix":
        query = parse_qsl(parts.query, keep_blank_values=True)
        own = urlencode([(key, value) for key, value in query if key == "db"])
        rest = urlencode([(key, value) for key, value in query if key != "db"])
        socket = urlunsplit(parts._replace(query=own))
        return [socket], f"{url.partition('?')[0]}?{rest}" if own else url
    hosts = netloc.split(",")
    if len(hosts) > 1 and not all(hosts):
        raise ConfigurationError("url", "names a host that is empty")
    urls = [
        urlunsplit((parts.scheme, f"{userinfo}{at}{host}", parts.path, "", parts.fragment))
        for host in hosts
    ]
    return urls, url


def _several(hosts: Host | Sequence[Host] | None) -> Iterable[Host]:
    if hosts is None:
        return [_DEFAULT]
    if isinstance(hosts, str | Mapping):
        return [hosts]
    if not isinstance(hosts, list | tuple):
        raise ConfigurationError("hosts", f"must be {_FORMS}, or a list of those")
    if len(hosts) == 2 and isinstance(hosts[0], str) and _is_port(hosts[1]):
        return [(hosts[0], hosts[1])]
    return hosts


def _address(path: str, host: object) -> Address:
    if isinstance(host, str):
        return _from_url(path, host, {}, "")
    if isinstance(host, tuple | list) and len(host) == 2:
        name, port = host
        if isinstance(name, str) and _is_port(port):
            if not 1 <= int(port) <= _HIGHEST_PORT:
                problem = f"a port is a number from 1 to {_HIGHEST_PORT}, got {port!r}"
                raise ConfigurationError(path, problem)
            return _from_url(path, f"redis://{_bracketed(name)}:{int(port)}", {}, "")
    if isinstance(host, Mapping):
        return _from_mapping(path, host)
    raise ConfigurationError(path, f"must be {_FORMS}, got a {type(host).__name__}")


def _from_mapping(path: str, host: Mapping[str, Any]) -> Address:
    given = dict(host)
    if "sentinels" in given or "master_name" in given:
        raise UnsupportedByBackend("Sentinel", "RedisChannelLayer")
    label = given.pop("name", "")
    address = given.pop("address", None)
    if address is None and "host" in given:
        address = (given.pop("host"), given.pop("port", 6379))
    unknown = sorted(set(given) - set(_TAKEN))
    if unknown:
        known = ", ".join(("address", "name", *_TAKEN))
        raise ConfigurationError(f"{path}[{unknown[0]!r}]", f"is unknown; known are {known}")
    if not isinstance(label, str):
        raise ConfigurationError(f"{path}['name']", f"must be a str, got {label!r}")
    if isinstance(address, tuple | list):
        address = _address(f"{path}['address']", tuple(address)).url
    if not isinstance(address, str):
        raise ConfigurationError(f"{path}['address']", "must be a URL or (host, port)")
    return _from_url(path, address, given, label)


def _from_url(path: str, url: str, options: Mapping[str, Any], label: str) -> Address:
    if url.startswith("/"):
        url = f"unix://{url}"
    port = None
    with suppress(ValueError):
        parts = urlsplit(url)
        port = 6379 if parts.port is None else parts.port or None
    if port is None:  # outside a handler: a cause or a context would show what may be a password
        raise ConfigurationError(path, "is a URL with a port that is none")
    is_unix = parts.scheme == "unix"
    if parts.scheme not in _SCHEMES or (is_unix and not parts.path.startswith("/")):
        # The rest is not shown, since it may hold a password.
        forms = "redis://host:port/database, rediss:// with TLS, or unix:///path"
        raise ConfigurationError(path, f"must be a URL such as {forms}")
    if parts.fragment or "," in parts.netloc.rpartition("@")[2]:
        raise ConfigurationError(path, "must name one host, and have no fragment; quote a '#'")
    query = parse_qsl(parts.query)
    unknown = [key for key, _ in query if key not in _TAKEN]
    if unknown:
        raise ConfigurationError(path, f"unknown parameter {unknown[0]!r}")
    database = options.get("db", dict(query).get("db"))
    if parts.scheme != "unix":
        database = parts.path.strip("/") if database is None else database
        if parts.path.strip("/") and not _is_number(parts.path.strip("/")):
            raise ConfigurationError(path, "the path of the URL is a database number")
        where = f"{_bracketed((parts.hostname or 'localhost').lower())}:{port}"
    else:
        where = unquote(parts.path)
    if not _is_number(str(database or 0)):
        raise ConfigurationError(path, f"a database is a number, got {database!r}")
    # An empty host would be a surprise to redis-py.
    netloc = parts.netloc if parts.hostname or parts.scheme == "unix" else f"localhost:{port}"
    whole = urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, quote_via=quote), ""))
    return Address(label or f"{where}/{int(database or 0)}", whole, dict(options))


def _is_port(value: object) -> TypeGuard[int | str]:
    """Whether a port is meant, as a number or as text, which it is in the environment."""
    if isinstance(value, str):
        return _is_number(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
