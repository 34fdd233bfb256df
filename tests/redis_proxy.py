"""A TCP proxy in front of a server, which cuts, delays, swallows and refuses."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Proxy:
    """One port in front of another one; its event loop runs in a thread of its own."""

    def __init__(self, port):
        self._target = port
        self.port = 0
        self.delay = lambda: 0.0  # seconds, for each piece of data
        self.connections = 0  # that were made
        self._is_refusing = False
        self._is_silent = threading.Event()  # takes what comes, and hands nothing on
        self._writers = set()
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        ready = threading.Event()
        self._loop.call_soon(lambda: self._loop.create_task(self._serve(ready)))
        self._thread.start()
        assert ready.wait(60)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def cut(self):
        """Close all connections."""
        self._call(self._cut)

    def refuse(self, is_refusing=True):
        """Close all connections, and let no new one live."""
        self._is_refusing = is_refusing
        if is_refusing:
            self.cut()

    def be_silent(self, is_silent=True):
        """Let connections stand and swallow what comes: both sides think the other is there."""
        (self._is_silent.set if is_silent else self._is_silent.clear)()

    def close(self):
        self._call(self._end)
        self._thread.join(60)
        self._loop.close()

    def _call(self, act):
        asyncio.run_coroutine_threadsafe(act(), self._loop).result(60)

    def _run(self):
        self._loop.run_forever()

    async def _serve(self, ready):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        ready.set()

    def _accept(self, reader, writer):
        # Known at once: the task may be cancelled before it has begun.
        self.connections += 1
        self._writers.add(writer)
        task = self._loop.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader, writer):
        ends = [writer]
        try:
            if self._is_refusing:
                return
            with contextlib.suppress(OSError):
                there, forth = await asyncio.open_connection("127.0.0.1", self._target)
                ends.append(forth)
                self._writers.add(forth)
                await asyncio.gather(self._pipe(reader, forth), self._pipe(there, writer))
        finally:
            for end in ends:
                end.transport.abort()
            self._writers.difference_update(ends)

    async def _pipe(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if (seconds := self.delay()) > 0:
                    await asyncio.sleep(seconds)
                if self._is_silent.is_set():
                    continue
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def _cut(self):
        for writer in list(self._writers):
            writer.transport.abort()

    async def _end(self):
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._cut()
        await asyncio.sleep(0)  # in which what was cut is let go of
        self._loop.call_soon(self._loop.stop)
