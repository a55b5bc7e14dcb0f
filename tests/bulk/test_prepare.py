"""Images that lie elsewhere: fetched beside decoding, and never more bytes at once than there is room for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

from clipsrv.ahead import in_order
from clipsrv.bulk.prepare import FetchingPreparer, Prepared, Preparer
from clipsrv.bulk.records import BadFile, Entry
from clipsrv.images.budget import PixelBudget
from clipsrv.settings import ImageLimits


@dataclass
class Counting:
    """In place of a Preparer: counts bytes from the start of a fetch to the end of decoding. The first two fetches wait
    for a third to begin."""

    limits: ImageLimits = field(default_factory=lambda: ImageLimits(max_bytes=100))
    held: int = 0
    most: int = 0
    begun: int = 0
    third: threading.Event = field(default_factory=threading.Event)
    decoders: set[str] = field(default_factory=set)
    lock: Any = field(default_factory=threading.Lock)

    def read(self, listed: Entry | BadFile) -> bytes | Prepared:
        if isinstance(listed, BadFile):
            return Prepared(Entry(listed.id, listed.path), bad=listed)
        with self.lock:
            self.held += int(listed.path)
            self.begun += 1
            self.most = max(self.most, self.held)
            if self.begun > 2:
                self.third.set()
        assert self.third.wait(60)
        return bytes(int(listed.path))

    def decode(self, entry: Entry, blob: bytes) -> Prepared:
        with self.lock:
            self.held -= len(blob)
            self.decoders.add(threading.current_thread().name)
        return Prepared(entry, "sha256")


def through(entries: list[Entry | BadFile], counting: Counting, room: int) -> list[str]:
    with ThreadPoolExecutor(2, "decode") as decoders, ThreadPoolExecutor(16, "fetch") as fetchers:
        work = FetchingPreparer(cast("Preparer", counting), decoders, PixelBudget(room))
        return [one.entry.id for one in in_order(fetchers, work, entries, 20)]


def test_more_are_fetched_than_decoded_in_threads_of_their_own_and_come_in_order() -> None:
    counting = Counting()
    entries: list[Entry | BadFile] = [Entry(str(number), "10", 10) for number in range(200)]
    entries[7] = BadFile("7", "list, line 8", "bad_entry", "no path")
    assert through(entries, counting, 1_000) == [str(number) for number in range(200)]
    assert counting.decoders <= {"decode_0", "decode_1"}


def test_bytes_on_their_way_and_waiting_are_bounded_and_an_unknown_size_counts_as_the_largest() -> None:
    known = Counting()
    through([Entry(str(number), "40", 40) for number in range(100)], known, 200)
    assert 120 <= known.most <= 200
    unknown = Counting()
    through([Entry(str(number), "40") for number in range(100)], unknown, 300)
    assert unknown.most == 120
