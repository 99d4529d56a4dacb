"""Which connections are kept, and who may search next: no network, no database."""

from __future__ import annotations

import threading
import time

from nova_pipelines.nodes.turns import Turns
from nova_pipelines.nodes.watch_plan import Account, plan_routes


def account(number: int, *folders: str, user: str = "", host: str = "imap.example.com") -> Account:
    settings = {"imap_host": host, "user": user or f"user{number}"}
    return Account(number, number, f"client{number}", settings, b"secret", folders or ("INBOX",))


def shares(accounts: list[Account], connections: int) -> list[tuple[int, tuple[str, ...]]]:
    return [(route.credential_id, route.folders) for route in plan_routes(accounts, connections=connections).secrets]


def test_each_folder_has_its_connection_as_far_as_the_limit_goes():
    assert shares([account(1, "a", "b", "c", "d")], 5) == [(1, ("a",)), (1, ("b",)), (1, ("c",)), (1, ("d",))]
    assert shares([account(1, "a", "b", "c", "d")], 2) == [(1, ("a",)), (1, ("b", "c", "d"))]
    assert shares([account(1, "a", "b")], 1) == [(1, ("a", "b"))]


def test_the_limit_is_of_a_host_and_user_whoever_the_client_is():
    same = [account(1, "a", "b", user="Ana"), account(2, "a", "b", user="ana"), account(3, "a", user="ana")]
    assert shares(same, 4) == [(1, ("a",)), (1, ("b",)), (2, ("a", "b")), (3, ("a",))]
    routes = plan_routes(same, connections=2)
    assert len(routes.secrets) == 2
    assert [left.credential_id for left in routes.left_out] == [3]
    others = [account(1, user="ana"), account(2, user="ana", host="other.example.com"), account(3, user="eva")]
    assert len(shares(others, 1)) == 3


def test_a_changed_password_is_the_same_route_and_changed_settings_are_another():
    before = plan_routes([account(1)], connections=5).secrets
    rotated = Account(1, 1, "client1", dict(account(1).settings), b"another", ("INBOX",))
    assert plan_routes([rotated], connections=5).secrets.keys() == before.keys()
    assert plan_routes([account(1, user="eva")], connections=5).secrets.keys() != before.keys()
    assert "secret" not in repr(account(1)).replace("secrets", "")


def test_turns_go_in_the_order_of_asking():
    turns, order = Turns(1), []
    holder = turns.take()

    def work(number: int) -> None:
        for _ in range(2):
            with turns.take():
                order.append(number)

    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        deadline = time.monotonic() + 10
        while len(turns._queue) <= number:
            assert time.monotonic() < deadline
    with holder:
        assert order == []
    for thread in threads:
        thread.join(10)
    # nobody was served twice while another one waited
    assert order == [0, 1, 2, 0, 1, 2]


def test_one_that_hangs_keeps_nobody_waiting():
    turns = Turns(1)
    hanging = turns.take()
    assert turns.lend(60) == 0
    assert turns.lend(0) == 1
    assert turns.lend(0) == 0, "a place is lent once"
    with turns.take():
        assert not turns.give_back(hanging), "coming back late makes no second place"
        waiting = threading.Event()
        thread = threading.Thread(target=lambda: (turns.take(), waiting.set()))
        thread.start()
        assert not waiting.wait(0.05)
    assert waiting.wait(10)
    thread.join(10)
