"""Which forms of `hosts` are taken, and what is said of those that are not."""

from __future__ import annotations

import traceback

import pytest

from channels_layers import ConfigurationError, RedisChannelLayer, UnsupportedByBackend
from channels_layers.redis._hosts import addresses, urls_of

FORMS = "must be a URL, (host, port) or {'address': ..., 'name': ...}"
A_URL = "must be a URL such as redis://host:port/database, rediss:// with TLS, or unix:///path"

TAKEN = [
    (None, ["localhost:6379/0"]),
    ("redis://", ["localhost:6379/0"]),
    ("redis://h", ["h:6379/0"]),
    ("redis://H.example:7000/2", ["h.example:7000/2"]),
    ("redis://h/1?db=2", ["h:6379/2"]),
    ("redis://:7000", ["localhost:7000/0"]),
    ("redis:///3", ["localhost:6379/3"]),
    ("redis://[::1]:7000/1", ["[::1]:7000/1"]),
    ("redis://me:p%40ss@h", ["h:6379/0"]),
    ("redis://h?username=me&password=pass&client_name=c", ["h:6379/0"]),
    ("rediss://h:7000", ["h:7000/0"]),
    ("unix:///run/redis.sock", ["/run/redis.sock/0"]),
    ("unix:///run/a%20b?db=2", ["/run/a b/2"]),
    ("unix://me:pass@/run/redis.sock", ["/run/redis.sock/0"]),
    ("/run/redis.sock", ["/run/redis.sock/0"]),
    (("h", 7000), ["h:7000/0"]),
    (["h", 7000], ["h:7000/0"]),
    (("h", "7000"), ["h:7000/0"]),
    ([("h", "7000"), ["g", "07001"]], ["h:7000/0", "g:7001/0"]),
    ({"host": "h", "port": "7000"}, ["h:7000/0"]),
    (("::1", 7000), ["[::1]:7000/0"]),
    (("[::1]", 7000), ["[::1]:7000/0"]),
    ({"address": "redis://h"}, ["h:6379/0"]),
    ({"address": "redis://h", "name": "first"}, ["first"]),
    ({"address": ("h", 7000), "db": 3, "password": "pass"}, ["h:7000/3"]),
    ({"address": ["h", 7000]}, ["h:7000/0"]),
    ({"address": "unix:///run/redis.sock", "db": 5}, ["/run/redis.sock/5"]),
    ({"address": "redis://h/2", "db": 3}, ["h:6379/3"]),
    ({"address": "redis://h/2", "db": 0}, ["h:6379/0"]),
    ({"host": "h"}, ["h:6379/0"]),
    ({"host": "h", "port": 7000, "db": "4"}, ["h:7000/4"]),
    (["redis://h", ("h", 7000), {"host": "g"}], ["h:6379/0", "h:7000/0", "g:6379/0"]),
    ((("h", 1), ("h", 2)), ["h:1/0", "h:2/0"]),
    (["redis://h/0", "redis://h/1"], ["h:6379/0", "h:6379/1"]),
    ([{"address": "redis://h", "name": "a"}, {"address": "redis://h", "name": "b"}], ["a", "b"]),
]

REFUSED = [
    (5, "hosts", f"{FORMS}, or a list of those"),
    (b"redis://h", "hosts", f"{FORMS}, or a list of those"),
    ({"redis://h"}, "hosts", f"{FORMS}, or a list of those"),
    ([], "hosts", "must name at least one server"),
    (["redis://h", "redis://me:hunter2@H:6379/0"], "hosts", "h:6379/0 is there twice; give each"),
    ([5], "hosts[0]", f"{FORMS}, got a int"),
    (["redis://h", None], "hosts[1]", f"{FORMS}, got a NoneType"),
    ([("h", 1, 2)], "hosts[0]", f"{FORMS}, got a tuple"),
    ([("h", "x")], "hosts[0]", f"{FORMS}, got a tuple"),
    ([("h", True)], "hosts[0]", f"{FORMS}, got a tuple"),
    (("h", 70_000), "hosts[0]", "a port is a number from 1 to 65535, got 70000"),
    (("h", "70000"), "hosts[0]", "a port is a number from 1 to 65535, got '70000'"),
    (("h", -1), "hosts[0]", "a port is a number from 1 to 65535, got -1"),
    ({"host": "h", "port": 0}, "hosts[0]['address']", "a port is a number from 1 to 65535, got 0"),
    ("", "hosts[0]", A_URL),
    ("h:6379", "hosts[0]", A_URL),
    ("http://me:hunter2@h", "hosts[0]", A_URL),
    ("unix://", "hosts[0]", A_URL),
    ("unix://relative", "hosts[0]", A_URL),
    ("redis://me:hunter2@h:x", "hosts[0]", "is a URL with a port that is none"),
    ("redis://me:hunter2/@h", "hosts[0]", "is a URL with a port that is none"),
    ("redis://me:hunter2@[h", "hosts[0]", "is a URL with a port that is none"),
    ("redis://h:70000", "hosts[0]", "is a URL with a port that is none"),
    ("redis://me:hunter2@h/x", "hosts[0]", "the path of the URL is a database number"),
    ("redis://h/1/2", "hosts[0]", "the path of the URL is a database number"),
    ("redis://h/-1", "hosts[0]", "the path of the URL is a database number"),
    ("redis://h?db=x", "hosts[0]", "a database is a number, got 'x'"),
    ("redis://h?timeout=5", "hosts[0]", "unknown parameter 'timeout'"),
    ("redis://h/²", "hosts[0]", "the path of the URL is a database number"),
    ("redis://h?db=²", "hosts[0]", "a database is a number"),
    ("redis://h:0", "hosts[0]", "is a URL with a port that is none"),
    ("redis://a,b", "hosts[0]", "must name one host"),
    ("redis://me:hunter#2@h", "hosts[0]", ""),
    ("redis://h#x", "hosts[0]", "must name one host, and have no fragment"),
    ("unix:relative", "hosts[0]", A_URL),
    ({}, "hosts[0]['address']", "must be a URL or (host, port)"),
    ({"address": 5}, "hosts[0]['address']", "must be a URL or (host, port)"),
    ({"address": ("h", "x")}, "hosts[0]['address']", f"{FORMS}, got a tuple"),
    ({"address": "redis://h", "name": 5}, "hosts[0]['name']", "must be a str, got 5"),
    ({"address": "redis://h", "db": -1}, "hosts[0]", "a database is a number, got -1"),
    (
        {"address": "redis://h", "passwd": "hunter2"},
        "hosts[0]['passwd']",
        "is unknown; known are address, name, username, password, db,",
    ),
]


@pytest.mark.parametrize(("hosts", "labels"), TAKEN, ids=[repr(hosts) for hosts, _ in TAKEN])
def test_a_shard_is_called_by_its_place(hosts, labels):
    assert [address.label for address in addresses(hosts)] == labels


@pytest.mark.parametrize(
    ("hosts", "field", "problem"), REFUSED, ids=[repr(hosts) for hosts, *_ in REFUSED]
)
def test_hosts_that_are_none_are_told_and_no_password_is_shown(hosts, field, problem):
    with pytest.raises(ConfigurationError) as caught:
        addresses(hosts)
    assert caught.value.field == field
    assert caught.value.problem.startswith(problem)
    shown = [repr(caught.value), *traceback.format_exception_only(caught.value)]
    for error in (caught.value.__cause__, caught.value.__context__):
        shown += [repr(error)]
    assert not any("hunter" in text for text in shown)


@pytest.mark.parametrize("key", ["sentinels", "master_name"])
def test_sentinel_is_told_to_be_unsupported(key):
    with pytest.raises(UnsupportedByBackend, match="Sentinel"):
        addresses([{key: [("h", 26379)]}])


def test_an_address_does_not_show_its_password():
    [first, second] = addresses(
        ["redis://me:hunter2@h", {"address": "redis://g", "password": "hunter2"}]
    )
    assert "hunter2" in first.url
    assert second.options == {"password": "hunter2"}
    assert "hunter" not in repr((first, second)) + first.label + second.label


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("redis://", ["localhost:6379/0"]),
        ("redis://h1,h2:7000/2?prefix=x", ["h1:6379/2", "h2:7000/2"]),
        ("redis://me:a,b@c@h1,h2", ["h1:6379/0", "h2:6379/0"]),
        ("unix:///run/a,b?prefix=x", ["/run/a,b/0"]),
        ("unix:///run/a?db=4&prefix=x", ["/run/a/4"]),
    ],
)
def test_a_url_of_several_hosts_is_as_many_addresses(url, urls):
    assert [address.label for address in addresses(urls_of(url)[0])] == urls


def test_the_database_of_a_socket_is_no_option_of_the_layer():
    _, rest = urls_of("unix:///run/a?db=4&prefix=x")
    assert rest == "unix:///run/a?prefix=x"
    RedisChannelLayer.from_url("unix:///run/a?db=4&prefix=x")


@pytest.mark.parametrize(
    "option",
    [{"rotation": float("nan")}, {"rotation": 0}, {"rotation": "5"}, {"after_failover": "both"}],
)
def test_options_of_the_layer_are_checked(option):
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        RedisChannelLayer(**option)


def test_a_url_with_an_empty_host_among_others_is_refused():
    with pytest.raises(ConfigurationError, match="a host that is empty"):
        urls_of("redis://a,")
