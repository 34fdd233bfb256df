"""Names of channels, groups and prefixes: what is accepted and what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final

from ._check import Layer, LayerMaker, check
from ._tools import drained, member, refused

GOOD_GROUPS: Final = ("a", "Z", "0", "-_.", ".a.", "http.request", "x" * 100)
GOOD_CHANNELS: Final = (
    *GOOD_GROUPS,
    "http.body?a1b2",
    "x?" + "y" * 98,
    "specific.nobody!local",
    "x!" + "y" * 98,
)
ALLOWED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-!?")

Calls = dict[str, Callable[[], Awaitable[object]]]


def _channel_calls(layer: Layer, name: Any) -> Calls:
    return {
        "send": lambda: layer.send(name, {"type": "x"}),
        "receive": lambda: layer.receive(name),
        "group_add": lambda: layer.group_add("group", name),
        "group_discard": lambda: layer.group_discard("group", name),
    }


def _group_calls(layer: Layer, name: Any) -> Calls:
    return {
        "group_add": lambda: layer.group_add(name, "channel"),
        "group_discard": lambda: layer.group_discard(name, "channel"),
        "group_send": lambda: layer.group_send(name, {"type": "x"}),
    }


async def _all_refuse(calls: Calls, name: object, *, but: str = "") -> None:
    for call, function in calls.items():
        if call != but:
            await refused(function, TypeError, what=f"{call} with the name {name!r}")


async def _refused_everywhere(layer: Layer, names: Iterable[object]) -> None:
    for name in names:
        await _all_refuse(_channel_calls(layer, name), name)
        await _all_refuse(_group_calls(layer, name), name)


@check("names")
async def good_channel_names_work(make: LayerMaker) -> None:
    """Every kind of name that the grammar allows carries a message."""
    layer = await make()
    for name in GOOD_CHANNELS:
        await layer.send(name, {"to": name})
        assert await layer.receive(name) == {"to": name}


@check("names")
async def good_group_names_work(make: LayerMaker) -> None:
    """Every kind of group name that the grammar allows reaches its member."""
    layer = await make()
    for name in GOOD_GROUPS:
        channel = await member(layer, name)
        await layer.group_send(name, {"to": name})
        assert await layer.receive(channel) == {"to": name}


@check("names")
async def a_newline_is_in_no_name(make: LayerMaker) -> None:
    """A name is matched in full: a newline at its end is not overlooked."""
    await _refused_everywhere(await make(), ("a\n", "\na", "a\r\n", "a!b\n", "\n"))


@check("names")
async def other_alphabets_are_in_no_name(make: LayerMaker) -> None:
    """Letters and digits are those of ASCII, before and after a mark."""
    names = ("\u00e4", "\u043a\u0430\u043d\u0430\u043b", "\u540d", "a\u0663", "a!\u00e9", "\u212a")
    await _refused_everywhere(await make(), names)


@check("names")
async def other_ascii_is_in_no_name(make: LayerMaker) -> None:
    """Space, slash, colon and everything else outside the grammar is refused."""
    others = (chr(code) for code in range(128) if chr(code) not in ALLOWED)
    await _refused_everywhere(await make(), (f"a{other}b" for other in others))


@check("names")
async def an_empty_name_is_refused(make: LayerMaker) -> None:
    """A name has at least one character."""
    await _refused_everywhere(await make(), ("",))


@check("names")
async def a_name_has_at_most_100_characters(make: LayerMaker) -> None:
    """The limit counts the whole name, the local part included."""
    names = ("x" * 101, "x!" + "y" * 99, "x?" + "y" * 99, "x" * 10_000)
    await _refused_everywhere(await make(), names)


@check("names")
async def a_channel_name_has_at_most_one_mark(make: LayerMaker) -> None:
    """One `!` or one `?`, never two of them."""
    names = ("a!b!c", "a?b?c", "a!b?c", "a?b!c", "a!!", "a??", "a?!")
    await _refused_everywhere(await make(), names)


@check("names")
async def a_group_name_has_no_mark(make: LayerMaker) -> None:
    """A group is not a channel."""
    layer = await make()
    for name in ("a!b", "a?b", "a!", "!", "?"):
        await _all_refuse(_group_calls(layer, name), name)


@check("names")
async def a_question_mark_is_never_last(make: LayerMaker) -> None:
    """A single-reader name has a part behind its mark, in every call."""
    layer = await make()
    await _all_refuse(_channel_calls(layer, "http.body?"), "http.body?")


@check("names")
async def an_exclamation_mark_is_last_only_in_receive(make: LayerMaker) -> None:
    """Nobody sends to a non-local part, and it joins no group."""
    layer = await make()
    await _all_refuse(_channel_calls(layer, "specific.x!"), "specific.x!", but="receive")
    await layer.send("specific.x!y", {"n": 1})
    assert await layer.receive("specific.x!") == {"n": 1}


@check("names")
async def a_name_is_a_string(make: LayerMaker) -> None:
    """Bytes, numbers, None and lists are no names."""
    await _refused_everywhere(await make(), (None, 3, b"name", ["name"], ("name",), object()))


@check("names")
async def a_bad_name_is_shown(make: LayerMaker) -> None:
    """The error shows the name, so that its author finds it, and says more than that."""
    layer = await make()
    for name in ("no spaces", "a\n", "\u00e4bc", "x" * 101, b"bytes", 12_345, ["list"], {"a": 1}):
        for call, function in {**_channel_calls(layer, name), **_group_calls(layer, name)}.items():
            error = str(await refused(function, TypeError, what=f"{call} with {name!r}"))
            assert str(name) in error or repr(name) in error, (
                f"{call}: {name!r} is not in {error!r}"
            )
            assert len(error) > len(repr(name)), f"{call}: {error!r} does not say what is wrong"


@check("names")
async def a_bad_name_changes_nothing(make: LayerMaker) -> None:
    """After the error the group and the channel are as before."""
    layer = await make()
    channel = await member(layer, "group")
    await _all_refuse(_channel_calls(layer, "no spaces"), "no spaces")
    await layer.group_send("group", {"n": 1})
    assert await drained(layer, channel) == [{"n": 1}]


@check("names")
async def a_prefix_has_at_most_70_characters(make: LayerMaker) -> None:
    """A name made with the longest prefix is a good name; a longer prefix is refused."""
    layer = await make()
    for prefix in ("p" * 70, "p" * 69 + "?"):
        channel = await layer.new_channel(prefix)
        await layer.send(channel, {"n": 1})
        assert await layer.receive(channel) == {"n": 1}
        assert len(channel) <= 100, channel
        longer = "p" + prefix
        await refused(partial(layer.new_channel, longer), TypeError, what=f"prefix {longer!r}")


@check("names")
async def a_bad_prefix_is_refused(make: LayerMaker) -> None:
    """A prefix follows the grammar; only a question mark may end it."""
    layer = await make()
    bad: tuple[Any, ...] = ("", "a b", "a\n", "\u00e4", "a!", "a!b", "a?b", "a??", None, 3, b"a")
    for prefix in bad:
        await refused(partial(layer.new_channel, prefix), TypeError, what=f"prefix {prefix!r}")


@check("names")
async def names_that_join_alike_stay_apart(make: LayerMaker) -> None:
    """Group `chat` with `s.x` and group `chats` with `.x` have nothing in common."""
    layer = await make()
    await layer.group_add("chat", "s.x")
    await layer.group_add("chats", ".x")
    await layer.group_send("chat", {"to": "chat"})
    await layer.group_send("chats", {"to": "chats"})
    assert await layer.receive("s.x") == {"to": "chat"}
    assert await layer.receive(".x") == {"to": "chats"}


@check("names")
async def a_group_and_a_channel_may_share_a_name(make: LayerMaker) -> None:
    """What is sent to the group does not reach the channel of that name."""
    layer = await make()
    channel = await member(layer, "news")
    await layer.group_send("news", {"to": "group"})
    await layer.send("news", {"to": "channel"})
    assert await layer.receive("news") == {"to": "channel"}
    assert await drained(layer, channel) == [{"to": "group"}]
