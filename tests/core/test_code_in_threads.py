"""Steps that run at once ask for the code's hash at once, and get one answer, however they take turns."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

from core.core_builders import forget_code

from sameworld.store.code import code_hash

THREADS, TIMES = 8, 6


@contextmanager
def restless() -> Iterator[None]:
    """Let threads take turns as often as can be, also in the midst of a parse, where only a collection lets them."""

    def pause(_phase: str, _info: dict[str, int]) -> None:
        time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    gc.callbacks.append(pause)
    try:
        yield
    finally:
        gc.callbacks.remove(pause)
        sys.setswitchinterval(interval)


def hashes_at_once() -> set[str]:
    forget_code()
    start = Barrier(THREADS)

    def ask(_: int) -> str:
        start.wait(20)
        return code_hash("tasks.report")

    with restless(), ThreadPoolExecutor(THREADS) as pool:
        return set(pool.map(ask, range(THREADS)))


def test_threads_that_ask_for_a_hash_at_once_get_the_one_that_a_lone_one_gets() -> None:
    forget_code()
    alone = code_hash("tasks.report")
    assert [hashes_at_once() for _ in range(TIMES)] == [{alone}] * TIMES
