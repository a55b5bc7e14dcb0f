"""Sends prepared requests over raw sockets from one thread and times the answers, where wrk is not installed.

Python is enough here: a server on two cores answers tens of requests a second, and the generator's own CPU time is
reported beside every figure. Knows nothing of what requests mean.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.window import Outcome, Window

_LIMIT = 300.0


@dataclass
class _Caller:
    """One connection: what is still to send, what came so far."""

    connection: socket.socket | None = None
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    received: bytearray = field(default_factory=bytearray)
    expected: int | None = None
    started: float = 0.0


class Generator:
    """`callers` connections, each with one request on the way at any time, taken in turn from `requests`."""

    def __init__(
        self,
        address: tuple[str, int],
        requests: list[bytes],
        callers: int,
        watch: Callable[[bytes], None] = lambda answer: None,
    ) -> None:
        """`watch` is given every answer, head and body."""
        self._address, self._requests = address, itertools.cycle(requests)
        self._callers = [_Caller() for _ in range(callers)]
        self._selector = selectors.DefaultSelector()
        self._watch = watch

    def run(self, warm_up: float, seconds: float, at_edge: Callable[[], None] = lambda: None) -> Outcome:
        """Drives the server for a window of `seconds` after `warm_up` seconds: see Window."""
        window = Window(len(self._callers), warm_up, seconds, at_edge)
        for latency, error in self._answers():
            if window.add(latency, error):
                break
        self._close()
        return window.outcome

    def _answers(self) -> Iterator[tuple[float, str | None]]:
        """Endless: the latency of each answer, and its head and body if its status was not 200."""
        for one in self._callers:
            self._send_next(one)
        while True:
            events = self._selector.select(timeout=_LIMIT)
            if not events:
                raise TimeoutError(f"no answer for {_LIMIT:.0f} s")
            for key, mask in events:
                caller: _Caller = key.data
                if mask & selectors.EVENT_WRITE:
                    self._write(caller)
                if mask & selectors.EVENT_READ and self._read(caller):
                    latency = time.monotonic() - caller.started
                    answer = bytes(caller.received)
                    self._send_next(caller)
                    self._watch(answer)
                    yield latency, None if answer[9:12] == b"200" else answer[:600].decode("latin-1")

    def _send_next(self, caller: _Caller) -> None:
        caller.unsent = memoryview(next(self._requests))
        caller.received.clear()
        caller.expected = None
        caller.started = time.monotonic()
        if caller.connection is None:
            caller.connection = socket.create_connection(self._address)
            caller.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            caller.connection.setblocking(False)
            self._selector.register(caller.connection, selectors.EVENT_READ | selectors.EVENT_WRITE, caller)
        else:
            self._selector.modify(caller.connection, selectors.EVENT_READ | selectors.EVENT_WRITE, caller)

    def _write(self, caller: _Caller) -> None:
        assert caller.connection is not None
        try:
            caller.unsent = caller.unsent[caller.connection.send(caller.unsent) :]
        except BlockingIOError:
            return
        if not caller.unsent:
            self._selector.modify(caller.connection, selectors.EVENT_READ, caller)

    def _read(self, caller: _Caller) -> bool:
        """Takes what has come; whether the answer is whole."""
        assert caller.connection is not None
        try:
            data = caller.connection.recv(1 << 18)
        except BlockingIOError:
            return False
        if not data:
            self._drop(caller)
            if caller.expected is not None or b"\r\n\r\n" not in caller.received:
                raise ConnectionError(f"the server hung up within an answer: {bytes(caller.received[:200])!r}")
            return True
        caller.received += data
        if caller.expected is None:
            caller.expected = _whole_length(caller.received)
        if caller.expected is None or len(caller.received) < caller.expected:
            return False
        if caller.received.startswith(b"HTTP/1.0") or b"connection: close" in caller.received[:2000].lower():
            self._drop(caller)
        return True

    def _drop(self, caller: _Caller) -> None:
        if caller.connection is not None:
            self._selector.unregister(caller.connection)
            caller.connection.close()
            caller.connection = None

    def _close(self) -> None:
        for caller in self._callers:
            self._drop(caller)
        self._selector.close()


def _whole_length(received: bytearray) -> int | None:
    """Bytes of head and body together, once the head is whole and says so."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    for line in bytes(received[:end]).lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return end + 4 + int(line.partition(b":")[2])
    return None
