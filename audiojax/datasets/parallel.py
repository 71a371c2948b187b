"""Work that threads share, its results in order."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int = os.cpu_count() or 1,
    ahead: int | None = None,
) -> Generator[R]:
    """`map` by threads, in order, which begin now and not when the first is asked for.

    Args:
        function: to call with each of the items.
        items: taken as they are needed.
        workers: how many threads.
        ahead: the most results that are waiting or under way; four a thread if None.
    """
    items = iter(items)
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    pending = collections.deque(
        pool.submit(function, item)
        for item in itertools.islice(items, ahead or 4 * workers)
    )

    def results() -> Generator[R]:
        try:
            while pending:
                result = pending.popleft().result()
                for item in itertools.islice(items, 1):
                    pending.append(pool.submit(function, item))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)

    return results()
