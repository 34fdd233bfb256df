"""A channel layer of one's own: clients in one process that meet at a `Switchboard`.

Run it with:  python examples/custom_layer.py

A backend says where the messages for other clients go; all else is the layer's. This one keeps
them in dicts. The tests hold it to the whole contract, with several clients.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from channels_layers import ChannelFull, ChannelLayer, Guarantees, Statistics
from channels_layers.backend import Backend, Client
from channels_layers.options import LayerOptions
from channels_layers.statistics import Dropped, Tally, add_up, counts_of, statistics_of


class Queue:
    """A channel that no client owns: its messages, and which client has how many readers."""

    def __init__(self) -> None:
        self.letters: deque[tuple[float, bytes]] = deque()  # (expires at, payload)
        self.wanted: dict[str, int] = {}  # client id -> receivers that wait there
        self.accepted, self.refused = Tally(), Tally()
        self.dropped: Counter[Dropped] = Counter()

    def drop_expired(self, now: float) -> None:
        while self.letters and self.letters[0][0] <= now:
            self.letters.popleft()
            self.dropped[Dropped.EXPIRED] += 1

    def statistics(self, now: float, expiry: float) -> Statistics:
        self.drop_expired(now)
        age = now - self.letters[0][0] + expiry if self.letters else 0.0
        pending = len(self.letters)
        return statistics_of(
            self.accepted, self.refused, self.dropped, pending=pending, max_age=age, now=now
        )


class Switchboard:
    """What the clients of one prefix share; a forked child begins with an empty one."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        self.lock = threading.RLock()  # taken before a client's own lock, never after it
        self.clients: dict[str, Client] = {}
        self.queues: dict[str, Queue] = {}
        self.groups: dict[str, dict[str, float]] = {}  # group -> channel -> ends at
        self.counted = add_up([])  # by clients that are gone

    def owner(self, channel: str) -> Client | None:
        return self.clients.get(channel.partition("!")[0].rpartition(".")[2])

    def queue(self, channel: str) -> Queue:
        return self.queues.setdefault(channel, Queue())


class SwitchboardBackend(Backend):
    """One client's line to the switchboard. Nothing here waits, so any loop may call it."""

    guarantees = Guarantees(shared=True)
    has_home = False

    def __init__(self, board: Switchboard, options: LayerOptions) -> None:
        self._board = board
        self._options = options
        self._client: Client | None = None

    async def open(self, client: Client) -> None:
        with self._board.lock:
            self._client = self._board.clients[client.id] = client

    async def close(self) -> None:
        client, self._client = self._client, None
        with self._board.lock:
            if client is None or self._board.clients.get(client.id) is not client:
                return
            for members in self._board.groups.values():
                for channel in [name for name in members if self._board.owner(name) is client]:
                    del members[channel]
            del self._board.clients[client.id]
            self._board.counted = add_up([self._board.counted, counts_of(client.statistics())])
            for queue in self._board.queues.values():
                queue.wanted.pop(client.id, None)

    async def send(self, channel: str, payload: bytes, capacity: int) -> None:
        with self._board.lock:
            owner = self._board.owner(channel)
            if owner is None:
                self._put(channel, payload, capacity)
            elif not owner.deliver(channel, payload, self._options.expiry):
                raise ChannelFull(channel, capacity)

    def want(self, channel: str, readers: int) -> None:
        with self._board.lock:
            if self._client is not None:
                self._board.queue(channel).wanted[self._client.id] = readers
                self._hand_out(channel)

    def give_back(self, channel: str, letters: Sequence[tuple[bytes, float]]) -> None:
        now = time.monotonic()
        with self._board.lock:
            queue = self._board.queue(channel).letters
            queue.extendleft((now + lifetime, payload) for payload, lifetime in reversed(letters))
            self._hand_out(channel)

    async def is_alive(self, client_id: str) -> bool:
        return client_id in self._board.clients

    async def group_add(self, group: str, channel: str) -> None:
        with self._board.lock:
            ends = time.monotonic() + self._options.group_expiry
            self._board.groups.setdefault(group, {})[channel] = ends
            owner = self._board.owner(channel)
            if owner is not None:
                owner.member_added(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        with self._board.lock:
            self._board.groups.get(group, {}).pop(channel, None)
            owner = self._board.owner(channel)
            if owner is not None:
                owner.member_discarded(group, channel)

    async def group_send(self, group: str, payload: bytes) -> None:
        with self._board.lock:
            for client in list(self._board.clients.values()):
                client.fan_out(group, payload)
            for channel in self._members(group):
                if self._board.owner(channel) is None:
                    try:
                        self._put(channel, payload, self._capacity(channel))
                    except ChannelFull:
                        self._board.queue(channel).dropped[Dropped.FULL] += 1

    async def group_channels(self, group: str) -> list[str]:
        return self._members(group)

    async def flush(self) -> None:
        with self._board.lock:
            for queue in self._board.queues.values():
                queue.letters.clear()
            self._board.groups.clear()
            for client in list(self._board.clients.values()):
                client.forget()

    async def statistics(self, channel: str | None = None) -> Statistics:
        with self._board.lock:
            now, expiry = time.monotonic(), self._options.expiry
            queues = [q for name, q in self._board.queues.items() if channel in (None, name)]
            parts = [queue.statistics(now, expiry) for queue in queues]
            parts += [client.statistics(channel) for client in self._board.clients.values()]
            if channel is None:
                parts.append(self._board.counted)
            return add_up(parts)

    def _members(self, group: str) -> list[str]:
        now = time.monotonic()
        with self._board.lock:
            members = self._board.groups.get(group, {})
            return [name for name, ends in members.items() if self._lasts(group, name, ends > now)]

    def _lasts(self, group: str, channel: str, is_fresh: bool) -> bool:
        """Whether a membership lasts; where a client owns the channel, it alone knows."""
        owner = self._board.owner(channel)
        return is_fresh if owner is None else owner.is_member(group, channel)

    def _put(self, channel: str, payload: bytes, capacity: int) -> None:
        now = time.monotonic()
        queue = self._board.queue(channel)
        queue.drop_expired(now)
        if len(queue.letters) >= capacity:
            queue.refused.add(1, now)
            raise ChannelFull(channel, capacity)
        queue.accepted.add(1, now)
        queue.letters.append((now + self._options.expiry, payload))
        self._hand_out(channel)

    def _hand_out(self, channel: str) -> None:
        """Deliver to the clients that want messages, in turn."""
        now = time.monotonic()
        names = list(self._board.queues) if channel.endswith("!") else [channel]
        for name in [name for name in names if name.startswith(channel)]:
            queue = self._board.queue(name)
            queue.drop_expired(now)
            while queue.letters and (found := self._hungry(name)):
                wanted, client_id = found
                count = wanted.pop(client_id)  # to the end of the dict: its turn is over
                ends, payload = queue.letters[0]
                if self._board.clients[client_id].deliver(name, payload, ends - now):
                    queue.letters.popleft()
                    wanted[client_id] = count - 1

    def _hungry(self, channel: str) -> tuple[dict[str, int], str] | None:
        """Return who is next to get a message of `channel`, and in which demand."""
        prefix, mark, _ = channel.partition("!")
        for name in (channel, prefix + mark):
            wanted = self._board.queue(name).wanted
            for client_id, readers in wanted.items():
                if readers > 0:
                    return wanted, client_id
        return None

    def _capacity(self, channel: str) -> int:
        return self._options.rules().capacities.of(channel)


class SwitchboardLayer(ChannelLayer):
    """A client of the switchboard; `options` as for `LayerOptions`."""

    def __init__(self, board: Switchboard, **options: Any) -> None:
        checked = LayerOptions(**options)
        super().__init__(checked, SwitchboardBackend(board, checked))


async def main() -> None:
    board = Switchboard()
    async with SwitchboardLayer(board) as alice, SwitchboardLayer(board) as bob:
        channel = await bob.new_channel()
        await alice.group_add("friends", channel)
        await alice.group_send("friends", {"text": "hello, Bob"})
        print(await bob.receive(channel))


if __name__ == "__main__":
    asyncio.run(main())
