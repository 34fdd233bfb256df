"""Receiving from several channels at once."""

from __future__ import annotations

from functools import partial

from ._check import LayerMaker, check
from ._tools import client_part, drained, fill, line, refused, settled, waiting


@check("api: receive_from")
async def it_returns_the_channel_and_the_message(make: LayerMaker) -> None:
    """What waits on any of the channels is returned with its name."""
    layer = await make()
    channels = ["one", await layer.new_channel()]
    for channel in channels:
        await layer.send(channel, {"to": channel})
        assert await layer.receive_from(channels) == (channel, {"to": channel})


@check("api: receive_from")
async def it_waits_on_all_of_its_channels(make: LayerMaker) -> None:
    """Whichever channel gets a message first ends the wait."""
    layer = await make()
    channels = ["one", await layer.new_channel(), await layer.new_channel("other")]
    for channel in reversed(channels):
        async with waiting(partial(layer.receive_from, channels)) as [waiter]:
            await layer.send(channel, {"to": channel})
            assert await waiter.result() == (channel, {"to": channel})


@check("api: receive_from")
async def it_names_the_channel_as_it_was_sent_to(make: LayerMaker) -> None:
    """Waiting on a non-local part gives the full name."""
    layer = await make()
    first, second = await layer.new_channel(), await layer.new_channel()
    for channel in (second, first):
        await layer.send(channel, {"n": 1})
        got = await layer.receive_from(["quiet", client_part(first)])
        assert got == (channel, {"n": 1})


@check("api: receive_from")
async def it_names_the_channel_of_a_group_message(make: LayerMaker) -> None:
    """A copy for a member comes under the name of the member."""
    layer = await make()
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    await layer.group_send("group", {"n": 1})
    assert await layer.receive_from([client_part(channel)]) == (channel, {"n": 1})


@check("api: receive_from")
async def a_busy_channel_never_starves_a_quiet_one(make: LayerMaker) -> None:
    """However full one channel is kept, a message of the other comes through."""
    layer = await make(capacity=1000)
    busy, quiet = await layer.new_channel(), await layer.new_channel()
    for channels in ([busy, quiet], [quiet, busy]):
        await fill(layer, busy, 100)
        await layer.send(quiet, {"quiet": 1})
        for _ in range(300):
            await layer.send(busy, {"n": 0})
            channel, _ = await layer.receive_from(channels)
            if channel == quiet:
                break
        else:
            raise AssertionError("300 messages of the busy channel, none of the quiet one")


@check("api: receive_from")
async def a_busy_channel_never_starves_one_of_another_kind(make: LayerMaker) -> None:
    """Whichever is kept full, a message of each other comes through, wherever it lies."""
    layer = await make(capacity=1000)
    channels = [await layer.new_channel(), "jobs", "http.body?one"]
    for busy in channels:
        quiet = [channel for channel in channels if channel != busy]
        for channel in quiet:
            await layer.send(channel, {"to": channel})
        await fill(layer, busy, 100)
        while quiet:
            await layer.send(busy, {"n": 0})
            channel, message = await layer.receive_from(channels)
            if channel != busy:
                assert message == {"to": channel}
                quiet.remove(channel)
        await layer.flush()


@check("api: receive_from")
async def it_leaves_the_channels_it_did_not_return_alone(make: LayerMaker) -> None:
    """After it returned, it takes nothing more from any of its channels."""
    layer = await make()
    first, second = await layer.new_channel(), await layer.new_channel()
    async with waiting(partial(layer.receive_from, [first, second])) as [waiter]:
        await layer.send(first, {"n": 1})
        assert await waiter.result() == (first, {"n": 1})
        await fill(layer, second, 2)
        await fill(layer, first, 2)
        await settled()
        assert await drained(layer, second) == [{"n": 0}, {"n": 1}]
        assert await drained(layer, first) == [{"n": 0}, {"n": 1}]


@check("api: receive_from")
async def it_takes_one_message_when_several_arrive_at_once(make: LayerMaker) -> None:
    """The others stay where they are."""
    layer = await make()
    first, second = await layer.new_channel(), await layer.new_channel()
    async with waiting(partial(layer.receive_from, [first, second])) as [waiter]:
        await layer.send(second, {"to": second})
        await layer.send(first, {"to": first})
        channel, message = await waiter.result()
        assert message == {"to": channel}
    left = await drained(layer, first) + await drained(layer, second)
    assert [message, *left] in ([{"to": second}, {"to": first}], [{"to": first}, {"to": second}])


@check("api: receive_from")
async def no_channels_is_an_error(make: LayerMaker) -> None:
    """It would wait for ever."""
    layer = await make()
    await refused(lambda: layer.receive_from([]), TypeError, ValueError, what="an empty list")


@check("api: receive_from")
async def one_string_is_an_error(make: LayerMaker) -> None:
    """It would wait on channels of one letter each."""
    layer = await make()
    name: list[str] = "channel"  # type: ignore[assignment]  # the mistake that is tested
    await refused(lambda: layer.receive_from(name), TypeError, ValueError, what="a str")


@check("names")
async def it_refuses_bad_names(make: LayerMaker) -> None:
    """One bad name among good ones is a TypeError, and nothing is taken."""
    layer = await make()
    await layer.send("good", {"n": 1})
    for bad in ("no spaces", "a\n", "a?", "x" * 101, None):
        names: list[str] = ["good", bad]  # type: ignore[list-item]  # None is tested, too
        await refused(partial(layer.receive_from, names), TypeError, what=repr(bad))
    assert await layer.receive_from(["good"]) == ("good", {"n": 1})


@check("semantics 8")
async def it_waits_in_line_like_receive(make: LayerMaker) -> None:
    """Receivers of one channel are served by who waits longest, through whichever call."""
    layer = await make()
    channel = await layer.new_channel()
    several = partial(layer.receive_from, ["quiet", channel])
    single = partial(layer.receive, channel)
    async with waiting(several, single, several) as waiters:
        await fill(layer, channel, 3)
        got = [await waiter.result() for waiter in waiters]
    assert got == [(channel, {"n": 0}), {"n": 1}, (channel, {"n": 2})]


@check("semantics 2")
async def cancelling_it_takes_nothing(make: LayerMaker) -> None:
    """Not from the channel that just got a message, nor from the others."""
    layer = await make()
    first, second = await layer.new_channel(), await layer.new_channel()
    for woken in (False, True):
        async with waiting(partial(layer.receive_from, [first, second])) as [waiter]:
            if woken:
                await layer.send(second, {"n": 0})
            waiter.cancel()
            if not woken:
                await layer.send(second, {"n": 0})
            await waiter.end()
        kept = [] if waiter.got is None else [waiter.got[1]]
        assert kept + await drained(layer, second) == [{"n": 0}]
        assert await drained(layer, first) == []


@check("semantics 2")
async def cancelling_it_passes_the_message_on(make: LayerMaker) -> None:
    """The next in line of that channel is served."""
    layer = await make()
    channel = await layer.new_channel()
    for woken in (False, True):
        async with line(layer, channel, channel) as waiters:
            several = partial(layer.receive_from, ["quiet", channel])
            async with waiting(several) as [last]:
                for n in range(3 if woken else 0):
                    await layer.send(channel, {"n": n})
                waiters[0].cancel()
                for n in range(0 if woken else 3):
                    await layer.send(channel, {"n": n})
                for waiter in (*waiters, last):
                    await waiter.end()  # there is a message for each
                got = [waiter.got for waiter in waiters if waiter.got is not None]
                got.append(last.got[1])
        assert got + await drained(layer, channel) == [{"n": 0}, {"n": 1}, {"n": 2}]
