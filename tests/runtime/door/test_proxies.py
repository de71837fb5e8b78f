"""Who calls through a proxy: the address that a trusted one names, and nothing that a caller writes itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc
import pytest
from door_requests import call, exchange, grpc_request, json_request, post, refusal, video

from consisid_runtime.door.access import Access
from consisid_runtime.door.door import Door
from consisid_runtime.door.proxies import Proxies
from consisid_runtime.errors import InvalidOption

TRUSTED = Proxies.read("127.0.0.1, 10.0.0.0/8,2001:db8::/32")
ME, OTHER = "198.51.100.1", "198.51.100.2"


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("127.0.0.1", [ME], ME),
        ("::ffff:127.0.0.1", [ME], ME),
        ("127.0.0.1", [f"{ME}:4242"], ME),
        ("127.0.0.1", ["[2001:db9::1]:4242"], "2001:db9::1"),
        ("127.0.0.1", [" 2001:db9::1 "], "2001:db9::1"),
        ("127.0.0.1", [f"::ffff:{ME}"], ME),
        ("127.0.0.1", [f"{ME}, 10.0.0.7"], ME),
        ("127.0.0.1", [f"{ME}, 10.0.0.7", "2001:db8::9"], ME),
        # What a caller wrote is on the left of its own address, which the proxy wrote.
        ("127.0.0.1", [f"{OTHER}, {ME}"], ME),
        ("127.0.0.1", [OTHER, ME], ME),
        ("127.0.0.1", [f"127.0.0.1, 10.0.0.1, {ME}"], ME),
        ("127.0.0.1", [f"{OTHER}, unknown, {ME}, 10.0.0.7"], ME),
        # A proxy that names nobody stands for its callers.
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", [f"{ME}, "], "127.0.0.1"),
        ("127.0.0.1", [f"{OTHER}, _hidden, 10.0.0.7"], "10.0.0.7"),
        ("127.0.0.1", ["10.0.0.8, 10.0.0.7"], "10.0.0.8"),
        # Who is no trusted proxy is believed nothing.
        ("192.0.2.1", [ME], "192.0.2.1"),
        ("unix", [ME], "unix"),
        ("", [ME], ""),
    ],
)
def test_the_last_one_that_is_no_proxy_calls(peer: str, forwarded: list[str], caller: str) -> None:
    assert TRUSTED.caller(peer, forwarded) == caller
    assert Proxies().caller(peer, forwarded) == peer


@pytest.mark.parametrize("name", ["", "proxy.example.org", "10.0.0.1/8", "127.0.0.1:80", "*", "300.0.0.1"])
def test_what_is_no_address(name: str) -> None:
    with pytest.raises(InvalidOption, match="a trusted proxy is an IP address or a network"):
        Access.read(proxies=f"127.0.0.1,{name}")


def test_sixteen_kilobytes_of_addresses_cost_nothing() -> None:
    begin = time.thread_time()
    assert TRUSTED.caller("127.0.0.1", ["10.0.0.1," * 1800 + "10.0.0.2"]) == "10.0.0.1"
    assert time.thread_time() - begin < 0.1


def over_http(door: Door, prompt: str, *forwarded: str) -> str:
    fields = [f"X-Forwarded-For: {value}" for value in forwarded]
    return refusal(exchange(door.http_url, post(json_request(prompt), *fields)))[1] or "OK"


def over_grpc(door: Door, prompt: str, *forwarded: str) -> str:
    try:
        call(door.grpc_url, grpc_request(prompt), metadata=[("x-forwarded-for", value) for value in forwarded])
    except grpc.RpcError as error:
        return str(error.details()).partition(":")[0]
    return "OK"


Ask = Callable[..., str]


def full(door: Door, ask: Ask, names: list[tuple[str, ...]]) -> list[threading.Thread]:
    """One request runs, and two wait: those of `names`."""
    threads = [threading.Thread(target=ask, args=(door, "sleep 1", *forwarded)) for forwarded in names]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    return threads


@pytest.mark.server
@pytest.mark.parametrize("ask", [over_http, over_grpc])
def test_each_caller_behind_a_proxy_has_its_share(behind: Door, ask: Ask) -> None:
    threads = full(behind, ask, [(ME,), (OTHER, ME), (f"{OTHER}, {ME}",)])
    assert ask(behind, "a man", ME) == "BUSY", "three names that it gave itself are one caller"
    assert ask(behind, "a man", f"203.0.113.7, {ME}") == "BUSY"
    assert ask(behind, "a man", OTHER) == "OK"
    for thread in threads:
        thread.join()
    assert video(behind) == b"abc"


@pytest.mark.server
@pytest.mark.parametrize("ask", [over_http, over_grpc])
def test_without_a_trusted_proxy_nobody_is_believed(strict_door: Door, ask: Ask) -> None:
    threads = full(strict_door, ask, [("203.0.113.1",), ("203.0.113.2",), ("203.0.113.3",)])
    assert ask(strict_door, "a man", OTHER) == "BUSY"
    for thread in threads:
        thread.join()


@pytest.mark.server
def test_connections_of_a_proxy_are_not_one_callers(behind: Door) -> None:
    """One address may have four of eight; through a proxy, five work at once."""
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(over_http(behind, "sleep 0.3", f"203.0.113.{n}")))  # type: ignore[misc]
        for n in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["OK"] * 5
