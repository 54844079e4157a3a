import threading
import time

import pytest

from gpuenc.archive.budget import ByteBudget, default_bytes


def test_no_more_is_out_than_there_is():
    budget, out, most, lock = ByteBudget(100), 0, 0, threading.Lock()

    def work(wanted):
        nonlocal out, most
        with budget.share(wanted) as granted:
            with lock:
                out += granted
                most = max(most, out)
            time.sleep(0.002)
            with lock:
                out -= granted

    threads = [threading.Thread(target=work, args=(size,)) for size in (10, 60, 40, 100, 250, 1) * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert out == 0
    assert 60 < most <= 100


def test_a_wish_beyond_all_gets_all():
    with ByteBudget(100).share(1000) as granted:
        assert granted == 100


def test_who_waits_says_so_and_who_comes_first_is_served_first():
    budget, told, served = ByteBudget(100), [], []

    def work(size):
        with budget.share(size, told.append):
            served.append(size)

    with budget.share(60, told.append):
        assert not told
        threads = []
        for waiting, size in enumerate((50, 10), 1):  # 10 would fit, and 50 would wait for ever behind many of them
            threads.append(threading.Thread(target=work, args=(size,)))
            threads[-1].start()
            while len(told) < waiting:
                time.sleep(0.001)
        time.sleep(0.02)
        assert not served
    for thread in threads:
        thread.join()
    assert sorted(served) == [10, 50]
    assert told == [True, True, False, False]


def test_what_was_held_comes_back_after_an_error():
    budget = ByteBudget(10)
    with pytest.raises(KeyError), budget.share(10):
        raise KeyError
    with budget.share(10) as granted:
        assert granted == 10


def test_the_default_is_a_part_of_this_machine():
    assert default_bytes() >= 512 << 20
