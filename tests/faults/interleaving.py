"""Threads that take turns at chosen moments: every race can be had again from its seed.

Each thread runs calls of a layer on an event loop of its own. One thread runs at a time. It may
lose its turn wherever CPython may switch threads inside the package (after a call, at the start
of a function, at each round of a loop) and where it takes or releases a lock. For this the package
is imported a second time, as `switching`, with a call of `_pass` written in at those places.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import channels_layers

_NAME = "switching_channels_layers"
_FOLDER = Path(channels_layers.__file__).parent
_here = threading.local()


def _pass(value: Any = None) -> Any:
    """Give the other threads a chance, then return `value`."""
    threads = getattr(_here, "threads", None)
    if threads is not None:
        threads.pass_point()
    return value


class _Switches(ast.NodeTransformer):
    """Writes a call of `_pass` in wherever CPython may switch threads."""

    def visit_Call(self, node):
        self.generic_visit(node)
        return ast.Call(ast.Name("_pass", ast.Load()), [node], [])

    def visit_While(self, node):
        self.generic_visit(node)
        node.body.insert(0, _statement())
        return node

    def visit_For(self, node):
        self.generic_visit(node)
        node.body.append(_statement())
        return node

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.body.insert(1 if ast.get_docstring(node) is not None else 0, _statement())
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  # the name that ast looks for


def _statement() -> ast.stmt:
    return ast.Expr(ast.Call(ast.Name("_pass", ast.Load()), [], []))


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):
        tree = _Switches().visit(ast.parse(self.get_data(self.path)))
        return compile(ast.fix_missing_locations(tree), self.path, "exec")

    def exec_module(self, module):
        module._pass = _pass
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        first, *parts = fullname.split(".")
        if first != _NAME:
            return None
        folder = _FOLDER.joinpath(*parts)
        is_package = folder.is_dir()
        source = folder / "__init__.py" if is_package else folder.with_suffix(".py")
        return importlib.util.spec_from_file_location(
            fullname,
            source,
            loader=_Loader(fullname, str(source)),
            submodule_search_locations=[str(folder)] if is_package else None,
        )


def switching(name: str = "") -> Any:
    """Return a module of the package whose threads may be switched at every moment."""
    return importlib.import_module(f"{_NAME}{name}")


sys.meta_path.insert(0, _Finder())


class Loop(asyncio.AbstractEventLoop):
    """As much of an event loop as tasks and futures need; runs until nothing is ready."""

    def __init__(self) -> None:
        self._ready: deque[tuple[Any, ...]] = deque()
        self._is_closed = False

    def get_debug(self):
        return False

    def is_closed(self):
        return self._is_closed

    def close(self):
        self._is_closed = True
        self._ready.clear()

    def create_future(self):
        return asyncio.Future(loop=self)

    def create_task(self, coroutine, **_):
        return asyncio.Task(coroutine, loop=self)

    def call_soon(self, callback, *args, context=None):
        if self._is_closed:
            raise RuntimeError("Event loop is closed")
        self._ready.append((context.run, callback, *args) if context else (callback, *args))

    call_soon_threadsafe = call_soon

    def call_exception_handler(self, context):
        """Nobody asks for the errors of tasks that are thrown away."""

    def run_ready(self) -> bool:
        """Run until every task waits; say whether anything ran."""
        has_run = bool(self._ready)
        asyncio._set_running_loop(self)
        try:
            while self._ready:
                function, *args = self._ready.popleft()
                function(*args)
        finally:
            asyncio._set_running_loop(None)
        return has_run

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a call until it waits or ends."""
        task = self.create_task(coroutine)
        self.run_ready()
        return task

    def result(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a call that does not wait for others to its end."""
        task = self.start(coroutine)
        assert task.done(), "the call waits"
        return task.result()


def settle(loops: Iterable[Loop]) -> None:
    """Run all loops, one after the other, until nothing is ready in any."""
    open_loops = [loop for loop in loops if not loop.is_closed()]
    while sum(loop.run_ready() for loop in open_loops):
        pass


class Threads:
    """Runs plain functions in threads, of which one has the turn."""

    def __init__(self, should_switch: Callable[[int, int], bool]) -> None:
        """Make threads that are not started.

        Args:
            should_switch: Gets the number of the thread and how many switch points it has
                passed; says whether it loses its turn.
        """
        self._should_switch = should_switch
        self._turns: list[threading.Semaphore] = []
        self._alive: list[int] = []
        self._points: list[int] = []
        self._errors: list[BaseException] = []
        self._done = threading.Semaphore(0)
        self._waits_in_vain = 0  # for locks, since anybody got one

    def run(self, *bodies: Callable[[], None]) -> list[int]:
        """Run the bodies; return how many switch points each has passed.

        Raises:
            BaseException: what one of them raised.
        """
        self._turns = [threading.Semaphore(0) for _ in bodies]
        self._alive = list(range(len(bodies)))
        self._points = [0] * len(bodies)
        threads = [
            threading.Thread(target=self._run_one, args=(number, body), daemon=True)
            for number, body in enumerate(bodies)
        ]
        for thread in threads:
            thread.start()
        self._turns[0].release()
        assert self._done.acquire(timeout=20), "the threads do not end"
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        return self._points

    def pass_point(self) -> None:
        """Lose the turn, if the schedule says so; to be called in a thread."""
        number = _here.number
        self._points[number] += 1
        if self._should_switch(number, self._points[number]):
            self._give_way()

    def wait_for_lock(self) -> None:
        """Let the next thread go on, since this one cannot."""
        self._waits_in_vain += 1
        assert self._waits_in_vain < 1000, "the threads are in a deadlock"
        self._give_way()

    def got_lock(self) -> None:
        """Note that somebody could go on."""
        self._waits_in_vain = 0

    def _give_way(self) -> None:
        number = _here.number
        following = self._after(number)
        if following != number:
            self._turns[following].release()
            self._turns[number].acquire()

    def _run_one(self, number: int, body: Callable[[], None]) -> None:
        self._turns[number].acquire()
        _here.number, _here.threads = number, self
        try:
            body()
        except BaseException as error:  # noqa: BLE001  # raised again by the main thread
            self._errors.append(error)
        following = self._after(number)
        self._alive.remove(number)
        (self._turns[following] if self._alive else self._done).release()

    def _after(self, number: int) -> int:
        place = self._alive.index(number) + 1
        return self._alive[place % len(self._alive)]


class TurnLock:
    """A lock whose waiters let the others go on."""

    def __init__(self) -> None:
        self._is_held = False

    def acquire(self) -> bool:
        _pass()
        while self._is_held:
            threads = getattr(_here, "threads", None)
            assert threads is not None, "nobody can release this lock any more"
            threads.wait_for_lock()
        self._is_held = True
        if hasattr(_here, "threads"):
            _here.threads.got_lock()
        return True

    def release(self) -> None:
        assert self._is_held, "nobody holds this lock"
        self._is_held = False
        _pass()

    def locked(self) -> bool:
        return self._is_held

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def locks_that_take_turns():
    """Let every lock that is made meanwhile give way to the other threads."""
    usual = threading.Lock
    threading.Lock = TurnLock
    try:
        yield
    finally:
        threading.Lock = usual
