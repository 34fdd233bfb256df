"""Clients that are spread over all processes behind one address, whichever accepts them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect

PATIENCE_S = 30.0  # for a process that fits; a new one may still be starting
MOST_AT_ONCE = 16  # where all processes listen at one socket, only a rush gets past the quickest


class Spread:
    """Connects clients to one address, so many to each process.

    Attributes:
        served: How many clients each process has, by its id; whoever lets one go counts it off.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.served: Counter[int] = Counter()

    async def connect(self, name: str) -> tuple[ClientConnection, dict[str, Any]]:
        """Connect to a process that does not have its share yet; return its first frame too."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._connect(name)
        except TimeoutError:
            problem = f"no process but {list(self.served)} answers at {self._url}"
            raise RuntimeError(problem) from None

    async def _connect(self, name: str) -> tuple[ClientConnection, dict[str, Any]]:
        at_once = 1
        while True:
            found = await asyncio.gather(*(self._try(name) for _ in range(at_once)))
            # Those that fit first: of them one stays, if there is any.
            found.sort(key=lambda connected: not self._fits(connected[1]))
            stays = found.pop(0) if self._fits(found[0][1]) else None
            await asyncio.gather(*(socket.close() for socket, _ in found))
            if stays:
                self.served[stays[1]["process"]] += 1
                return stays
            at_once = min(2 * at_once, MOST_AT_ONCE)

    async def _try(self, name: str) -> tuple[ClientConnection, dict[str, Any]]:
        socket = await connect(f"{self._url}/ws?name={quote(name)}", proxy=None)
        return socket, json.loads(await socket.recv())

    def _fits(self, welcome: dict[str, Any]) -> bool:
        process, processes = int(welcome["process"]), int(welcome["processes"])
        share = -(-(self.served.total() + 1) // processes)  # rounded up
        return self.served[process] < share
