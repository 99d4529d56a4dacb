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


def test_each_key_has_its_own_value_and_there_are_not_ever_more():
    kept = Kept[int | None](60, most=2)
    found = [kept.of(lambda: 1, "a"), kept.of(lambda: None, "b"), kept.of(lambda: 3, "a"), kept.of(lambda: 4, "b")]
    assert found == [1, None, 1, None]
    assert (kept.fresh("a"), kept.fresh("b"), kept.fresh("c")) == ((1,), (None,), None)
    assert kept.of(lambda: 5, "c") == 5
    assert (kept.fresh("a"), kept.fresh("c")) == (None, (5,))


def test_who_asks_for_another_value_does_not_wait():
    kept, reading, go_on = Kept[int](60), threading.Event(), threading.Event()

    def slowly() -> int:
        reading.set()
        assert go_on.wait(10)
        return 1

    other = threading.Thread(target=lambda: kept.of(slowly, "slow"))
    other.start()
    assert reading.wait(10)
    assert kept.of(lambda: 2, "quick") == 2
    go_on.set()
    other.join()
    assert kept.fresh("slow") == (1,)
