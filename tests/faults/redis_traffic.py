"""Traffic between layers, of which every message is accounted for."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

from channels_layers import BackendTimeout, BackendUnavailable, ChannelFull


async def until(is_so, what, seconds=60):
    """Poll `is_so` until it is true; fail with `what` when it takes too long."""
    ends_at = asyncio.get_running_loop().time() + seconds
    while not (found := is_so()):
        assert asyncio.get_running_loop().time() < ends_at, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.005)
    return found


class Traffic:
    """Writers and readers; `check` says whether anything was lost, doubled or reordered."""

    def __init__(self):
        self.sent = defaultdict(list)  # (kind, writer) -> numbers that were taken
        self.unsure = defaultdict(set)  # the same, that may have been taken
        self.got = defaultdict(list)  # (kind, writer, reader) -> numbers
        self.readers = defaultdict(set)  # kind -> readers
        self.errors = Counter()
        self.is_ending = False
        self._reading = []
        self._writing = []

    def read(self, layer, kind, channel, reader, loop=None):
        """Receive until the end, in the running event loop or in another thread's."""
        self.readers[kind].add(reader)
        self._reading.append(_begin(self._read(layer, channel, reader), loop))

    def write(self, call, kind, writer, pause=0.001, loop=None):
        """Send numbers by `call` until the end; likewise."""
        self._writing.append(_begin(self._write(call, kind, writer, pause), loop))

    async def _read(self, layer, channel, reader):
        while True:
            message = await layer.receive(channel)
            if "n" in message:
                self.got[message["kind"], message["writer"], reader].append(message["n"])

    async def _write(self, call, kind, writer, pause):
        number = 0
        while not self.is_ending:
            message = {"kind": kind, "writer": writer, "n": number}
            try:
                await call(message)
                self.sent[kind, writer].append(number)
            except BackendTimeout as exc:
                self.errors[type(exc).__name__] += 1
                self.unsure[kind, writer].add(number)
            except (BackendUnavailable, ChannelFull) as exc:
                self.errors[type(exc).__name__] += 1
            number += 1
            await asyncio.sleep(pause)

    @property
    def count(self):
        return sum(map(len, self.sent.values()))

    def missing(self, kind, writer):
        """Return what was taken and did not come to all who should have it."""
        sent = set(self.sent[kind, writer])
        if kind in ("group", "direct"):
            got = [set(self.got[kind, writer, reader]) for reader in self.readers[kind]]
            return sent - set.intersection(*got) if got else sent
        got = set().union(*(self.got[kind, writer, reader] for reader in self.readers[kind]))
        return sent - got

    async def end(self):
        """Stop writing, wait until all has come, and check it."""
        self.is_ending = True
        async with asyncio.timeout(60):
            await asyncio.gather(*self._writing)
        await until(
            lambda: not any(self.missing(*pair) for pair in list(self.sent)),
            lambda: "all that was taken has come",
            30,
        )
        for task in self._reading:
            task.cancel()
        results = await asyncio.gather(*self._reading, return_exceptions=True)
        assert not [r for r in results if not isinstance(r, asyncio.CancelledError | None)], results
        self.check()

    def check(self, *, in_order=True):
        for (kind, writer), sent in self.sent.items():
            assert not self.missing(kind, writer), (kind, writer)
            allowed = set(sent) | self.unsure[kind, writer]
            every = []
            for reader in self.readers[kind]:
                got = self.got[kind, writer, reader]
                assert len(got) == len(set(got)), f"doubled: {kind} {writer} {reader}"
                unknown = set(got) - allowed
                assert not unknown, f"nobody has sent that: {kind} {writer} {unknown}"
                if in_order and kind != "jobs":
                    assert got == sorted(got), f"reordered: {kind} {writer} {reader}"
                every += got
            if kind == "jobs":
                assert len(every) == len(set(every)), f"doubled: {kind} {writer}"


def _begin(coroutine, loop):
    if loop is None:
        return asyncio.create_task(coroutine)
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))
