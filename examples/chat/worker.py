"""One server process of the chat, at a socket that it gets from whoever starts it.

python examples/chat/worker.py FD    is what processes.py runs; it ends when its input does
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

import uvicorn
from app import GOODBYE_S, MAX_FRAME_BYTES, app


def end_with_input() -> None:
    """Shut down when nobody is at the other end any more, so that no worker is left alone."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_level="warning",
        ws_max_size=MAX_FRAME_BYTES,
        timeout_graceful_shutdown=round(GOODBYE_S) + 1,
    )
    uvicorn.Server(config).run([socket.socket(fileno=int(sys.argv[1]))])
