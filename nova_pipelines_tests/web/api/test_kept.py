"""What is read once for many."""

import threading
import time

import pytest

from nova_pipelines.web.kept import Kept


def test_many_who_ask_at_once_read_once():
    kept, reads = Kept[int](60), []

    def read() -> int:
        reads.append(1)
        time.sleep(0.05)
        return len(reads)

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(kept.of(read))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, len(reads)) == ([1] * 8, 1)


def test_it_is_read_anew_after_its_time_and_a_failure_is_not_kept():
    kept = Kept[int](0.0)
    assert (kept.of(lambda: 1), kept.of(lambda: 2)) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        kept.of(lambda: 1 // 0)
    assert kept.of(lambda: 3) == 3
