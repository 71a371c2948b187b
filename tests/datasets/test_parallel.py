import threading

import pytest

from audiojax.datasets import parallel


def test_in_parallel_keeps_the_order_and_does_not_run_ahead():
    taken, lock = [], threading.Lock()

    def items():
        for item in range(1000):
            with lock:
                taken.append(item)
            yield item

    results = parallel.in_parallel(lambda item: item * item, items())
    assert [next(results) for _ in range(10)] == [n * n for n in range(10)]
    assert len(taken) < 500
    assert list(results) == [n * n for n in range(10, 1000)]


def test_in_parallel_passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        list(parallel.in_parallel(lambda item: 1 // item, [1, 0, 1]))
