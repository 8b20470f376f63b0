"""What the service manager hears, over a real socket."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pymysql
import pytest

from config.service import ServiceManager, waits_for_server


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(5)
        yield listening, address


def heard(listening: socket.socket) -> str:
    return listening.recv(4096).decode()


def test_states_are_sent_in_the_protocols_words(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager
    service = ServiceManager.from_environment({"NOTIFY_SOCKET": address})
    assert service.present
    service.ready()
    service.status("streaming\nat source-bin.000001:4")
    service.status("streaming\nat source-bin.000001:4")  # the same again: nothing new
    service.reloading()
    service.stopping()
    said = [heard(listening) for _ in range(4)]
    assert said[:2] == ["READY=1", "STATUS=streaming at source-bin.000001:4"]
    assert said[2].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert said[3] == "STOPPING=1"


def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0")  # the kernel chooses a name
        listening.settimeout(5)
        name = listening.getsockname()
        shown = name.decode() if isinstance(name, bytes) else name
        ServiceManager("@" + shown[1:]).ready()
        assert heard(listening) == "READY=1"


def _watched(address: str, seconds: float) -> ServiceManager:
    return ServiceManager.from_environment(
        {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(int(seconds * 1e6))}
    )


def test_a_loop_that_comes_round_gives_signs_of_life(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager
    service = _watched(address, 0.2)
    said: list[str] = []
    with service.watchdog():
        while len(said) < 3:
            service.stepped(lambda: "at work")
            listening.setblocking(False)
            with suppress(BlockingIOError):
                said.append(heard(listening))
    assert set(said) == {"STATUS=at work", "WATCHDOG=1"}


def test_a_loop_that_hangs_gives_none(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager
    service = _watched(address, 0.08)
    listening.settimeout(0.5)
    with service.watchdog():
        assert heard(listening) == "WATCHDOG=1"  # once: it has just begun
        with pytest.raises(TimeoutError):
            heard(listening)
        service.stepped(lambda: "at work")
        assert "WATCHDOG=1" in (heard(listening), heard(listening))


def test_a_wait_for_a_server_is_no_hang() -> None:
    """Asked of a real wait: a connection to somebody who accepts and says nothing."""
    seen: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        waiting = threading.Thread(target=_log_in_in_vain, args=(silent.getsockname()[1],))
        waiting.start()
        client, _ = silent.accept()
        assert waiting.ident is not None
        with client:
            while not any(seen) and waiting.is_alive():
                seen.append(waits_for_server(sys._current_frames().get(waiting.ident)))
        waiting.join()
    assert seen[-1]
    assert not waits_for_server(sys._getframe())


def _log_in_in_vain(port: int) -> None:
    with suppress(pymysql.MySQLError):
        pymysql.connect(host="127.0.0.1", port=port, user="nobody", read_timeout=10)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "/nowhere/to/be/found"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "soon"},
    ],
)
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    service = ServiceManager.from_environment(environ)
    service.ready()
    service.status("streaming")
    with service.watchdog():
        service.stepped(lambda: "streaming")
    service.stopping()
    assert service.watchdog_seconds is None
