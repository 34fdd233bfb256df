"""Talk to the chat with many real clients; fail unless every message comes once and in order.

python examples/chat/check.py                            starts two server processes for it
python examples/chat/check.py --memory                   starts one, whose layer is in memory
python examples/chat/check.py --redis                    starts two, over three Redis servers
python examples/chat/check.py --url ws://127.0.0.1:8000  uses what runs, at one address or more
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from server import Server
from spread import Spread
from websockets.asyncio.client import ClientConnection

SILENCE_S = 5.0  # when nothing has come for so long, nothing more will


class Person:
    """A client in one room that remembers what it hears."""

    def __init__(self, room: str, socket: ClientConnection, welcome: dict[str, Any]) -> None:
        self.room = room
        self.socket = socket
        self.who: str = welcome["who"]
        self.process: int = welcome["process"]
        self.heard: dict[str, list[int]] = {}  # from whom, which numbers, in order of arrival

    async def join(self) -> None:
        """Come into the room; when this returns, all that is said there must arrive."""
        await self._send({"type": "join", "room": self.room})
        while (frame := await self._receive())["type"] != "joined" or frame["who"] != self.who:
            pass

    async def say(self, numbers: Sequence[int]) -> None:
        """Say each of these numbers."""
        for number in numbers:
            frame = {"type": "say", "room": self.room, "text": str(number), "ref": number}
            await self._send(frame)

    async def hear(self, members: set[str], last: int) -> None:
        """Listen until every member has said `last`, or there is silence."""
        while any(last not in self.heard.get(who, ()) for who in members):
            try:
                frame = await self._receive()
            except TimeoutError:
                return
            if frame["type"] == "said":
                self.heard.setdefault(frame["who"], []).append(int(frame["text"]))

    async def _send(self, frame: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(frame))

    async def _receive(self) -> dict[str, Any]:
        async with asyncio.timeout(SILENCE_S):
            frame: dict[str, Any] = json.loads(await self.socket.recv())
        return frame


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was heard, held against what was said. A delivery is one message at one member."""

    expected: int
    heard: int
    doubled: int = 0
    out_of_order: int = 0
    astray: int = 0  # heard in a room where it was not said

    @property
    def lost(self) -> int:
        """How many deliveries are missing."""
        return self.expected - self.heard

    def is_good(self) -> bool:
        """Whether every member heard every message of its room once, in order, and no other."""
        return not (self.lost or self.doubled or self.out_of_order or self.astray)

    def __str__(self) -> str:
        return (
            f"deliveries: {self.heard} of {self.expected}; {self.lost} lost,"
            f" {self.doubled} doubled, {self.out_of_order} out of order, {self.astray} astray"
        )


def judge(people: Sequence[Person], messages: int) -> Verdict:
    """Compare what each member heard with the numbers 0 to `messages` - 1 of each member."""
    found: Counter[str] = Counter()
    for person in people:
        members = {other.who for other in people if other.room == person.room}
        found["expected"] += len(members) * messages
        for who, numbers in person.heard.items():
            if who not in members:
                found["astray"] += len(numbers)
                continue
            counted = [number for number in numbers if number < messages]
            found["heard"] += len(set(counted))
            found["doubled"] += len(counted) - len(set(counted))
            found["out_of_order"] += sum(later < sooner for sooner, later in pairwise(counted))
    return Verdict(**{"heard": 0, **found})


async def converse(people: Sequence[Person], messages: int) -> float:
    """Let all of them talk at once; return how many seconds it took until all was heard."""
    await asyncio.gather(*(person.join() for person in people))
    started = time.monotonic()
    await _talk(people, range(messages))
    seconds = time.monotonic() - started
    # One more word from each: it comes after anything that still arrives twice.
    await _talk(people, range(messages, messages + 1))
    return seconds


async def _talk(people: Sequence[Person], numbers: range) -> None:
    async with asyncio.TaskGroup() as tasks:
        for person in people:
            members = {other.who for other in people if other.room == person.room}
            tasks.create_task(person.say(numbers))
            tasks.create_task(person.hear(members, numbers[-1]))


def tell_spread(people: Sequence[Person], processes: int) -> bool:
    """Print which process serves how many; say whether each room is spread over all of them."""
    served = Counter(person.process for person in people)
    rooms = Counter(person.room for person in people)
    met = Counter(room for room, _ in {(person.room, person.process) for person in people})
    found = all(met[room] == min(processes, members) for room, members in rooms.items())
    each = ", ".join(f"{count} by process {process}" for process, count in sorted(served.items()))
    print(f"clients served: {each}; every room by all of them: {'yes' if found else 'NO'}")
    return found


async def check(urls: Sequence[str], *, clients: int, rooms: int, messages: int) -> bool:
    """Put the clients into rooms, each spread over all server processes; print what they heard."""
    places = {(url, room): Spread(url) for url in urls for room in range(rooms)}
    layers, processes = set(), {}
    async with AsyncExitStack() as stack:
        people = []
        for number in range(clients):
            turn, room = divmod(number, rooms)
            url = urls[turn % len(urls)]
            socket, welcome = await places[url, room].connect(f"Client {number}")
            await stack.enter_async_context(socket)
            people.append(Person(f"check-{room}", socket, welcome))
            layers.add(welcome["layer"])
            processes[url] = welcome["processes"]
        print(f"layer: {', '.join(layers)}; server processes: {sum(processes.values())}")
        is_spread = tell_spread(people, sum(processes.values()))
        seconds = await converse(people, messages)
    verdict = judge(people, messages)
    print(
        f"{clients} clients in {rooms} rooms said {clients * messages} messages;"
        f" all was heard after {seconds:.1f} s"
    )
    print(verdict)
    is_good = is_spread and verdict.is_good()
    print("passed" if is_good else "FAILED")
    return is_good


def main() -> int:
    """Read the arguments, run the check, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", action="append", dest="urls", help="a server that runs already")
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--rooms", type=int, default=3)
    parser.add_argument("--messages", type=int, default=20, help="said by each client")
    kind = parser.add_mutually_exclusive_group()
    for name, what in (("--memory", "one process, layer in memory"), ("--redis", "over Redis")):
        kind.add_argument(name, action="append_const", const=name, dest="kind", help=what)
    options = vars(parser.parse_args())
    urls, kinds = options.pop("urls"), options.pop("kind") or []
    if urls:
        return 0 if asyncio.run(check(urls, **options)) else 1
    is_good = False
    with Server(*kinds) as server:
        try:
            is_good = asyncio.run(check([server.url], **options))
        finally:
            server.stop()
            if not is_good:
                print(f"the server printed:\n{server.output}", file=sys.stderr)
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
