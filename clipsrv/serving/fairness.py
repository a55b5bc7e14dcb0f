"""Who is next: callers in turn, and within a caller its requests in turn. A policy only, of no clock and no I/O.

Round robin over requests alone would give ten requests of one caller ten turns for every one of another's.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Waiting items. `take` gives each caller one in turn; of a caller's, each of its requests one in turn."""

    def __init__(self) -> None:
        self._callers: OrderedDict[Hashable, OrderedDict[Hashable, deque[Item]]] = OrderedDict()

    def add(self, item: Item, caller: Hashable = None, request: Hashable = None) -> None:
        """Puts `item` behind those of its own request; those of a request keep their order."""
        self._callers.setdefault(caller, OrderedDict()).setdefault(request, deque()).append(item)

    def take(self) -> Item:
        """The next item. Its caller, and its request within the caller, go to the back. Raises LookupError if empty."""
        caller, requests = self._callers.popitem(last=False)
        request, items = requests.popitem(last=False)
        item = items.popleft()
        if items:
            requests[request] = items
        if requests:
            self._callers[caller] = requests
        return item

    def clear(self) -> None:
        self._callers.clear()

    def __bool__(self) -> bool:
        return bool(self._callers)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Item]:
        """All items, in no order that matters."""
        for requests in self._callers.values():
            for items in requests.values():
                yield from items
