"""Many at once, all or none. Knows nothing of what is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def together(do: Callable[[Item], Awaitable[Result]], items: Sequence[Item]) -> Sequence[Result]:
    """What `do` gives for each item, begun in their order. The first that fails ends the others and is raised.

    Not a TaskGroup: its group of errors holds the frames they came through, and these hold the group.
    """
    if not items:
        return []
    results: dict[int, Result] = {}
    first_error: list[Exception] = []
    over = asyncio.get_running_loop().create_future()

    async def one(index: int, item: Item) -> None:
        try:
            results[index] = await do(item)
        except Exception as error:  # noqa: BLE001 - raised below
            if not first_error:
                first_error.append(error)
        if (first_error or len(results) == len(items)) and not over.done():
            over.set_result(None)

    tasks = [asyncio.create_task(one(index, item)) for index, item in enumerate(items)]
    try:
        await over
    finally:
        if unfinished := [task for task in tasks if task.cancel()]:
            await asyncio.wait(unfinished)
    if first_error:
        raise first_error.pop()
    return [results[index] for index in range(len(items))]
