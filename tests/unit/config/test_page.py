"""The page and who serves it: bounded, cautious, plain, and the same for every reader."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from http import HTTPStatus
from typing import Any

import pytest

from config.page import render, server
from config.page.account import Account, CopyLine, HaltLine, TableLine, from_json
from config.page.peer import Cached, ask_peer
from config.page.plot import HEIGHT, SAMPLES, History, height, line
from config.page.render import Wish
from config.page.server import MOST_CONNECTIONS, Answer, serving
from config.page.site import Site, shown_on
from replicator.sandbox.processes import free_port
from replicator.sandbox.waiting import wait_until

NASTY = "<b>&\"'</table><script>alert(1)</script>"


def replicator_account(**changes: Any) -> Account:
    account = Account(
        "replicator",
        lag=0.0,
        link_up=True,
        position="bin.000007:4711",
        bytes_behind=0,
        ready=True,
        tables=[
            TableLine("patient", "streaming", 12, "2026-01-02T03:04:05", "aaaa1111"),
            TableLine("sheet", "queued", 900, "2026-01-01T00:00:00", "bbbb2222"),
            TableLine(NASTY, "streaming", 1, "", ""),
        ],
        tables_told=True,
        history=[0.0, 3.0, 0.0],
    )
    for name, value in changes.items():
        setattr(account, name, value)
    return account


def loader_account(**changes: Any) -> Account:
    account = Account(
        "loader",
        lag=0.2,
        whole_lag=0.4,
        link_up=True,
        ready=True,
        tables=[
            TableLine("patient", "streaming", 80, "2026-01-03T03:04:05", "aaaa1111"),
            TableLine("sheet", "streaming", 7000, "2026-01-01T00:00:01", "cccc3333"),
        ],
        tables_told=True,
    )
    for name, value in changes.items():
        setattr(account, name, value)
    return account


def page(first: Account | None, second: Account | None, **query: str) -> str:
    return render.page("replicator", first, second, Wish.of(query), 1_767_300_000.0)


class _Strict(HTMLParser):
    """Notes what a policy without scripts and strangers must not see, and elements left open."""

    VOID = frozenset({"meta", "input", "br", "hr", "line", "polyline", "img", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            outside = name in ("href", "src", "action") and not (value or "").startswith("/")
            if outside or name == "style" or name.startswith("on") or tag in ("script", "img"):
                self.faults.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data.strip())


def read(html: str) -> _Strict:
    reader = _Strict()
    reader.feed(html)
    assert reader.open == []
    assert reader.faults == []
    return reader


def names(html: str) -> list[str]:
    return re.findall(r"<td class=name>(.*?)</td>", html)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (replicator_account(), loader_account(), "caught up"),
        (replicator_account(ready=False), loader_account(), "behind"),
        (replicator_account(link_up=False), loader_account(), "a link is down"),
        (
            replicator_account(copies=[CopyLine("first copy", 5, 100, "3 of 9 tables left")]),
            loader_account(ready=False),
            "first copy",
        ),
        (replicator_account(doing="starting", link_up=False), loader_account(), "starting"),
        (replicator_account(link_up=False), loader_account(doing="starting"), "a link is down"),
        (None, loader_account(), "replicator does not answer"),
        (replicator_account(), None, "loader does not answer"),
        (None, None, "replicator does not answer"),
    ],
)
def test_the_page_says_in_a_word_how_it_goes(
    first: Account | None, second: Account | None, verdict: str
) -> None:
    words = read(page(first, second)).words
    assert words[words.index("OpenDental pipeline") + 1 :][0] == verdict


def test_without_its_style_the_page_tells_the_flow_in_its_order() -> None:
    words = " ".join(
        word for word in read(page(replicator_account(), loader_account())).words if word
    )
    flow = (
        "source .* → 0.0 s replicator .* replica .* → 0.2 s loader raw .* From source to raw: 0.4 s"
    )
    assert re.search(flow, words), words


def test_text_from_elsewhere_is_escaped() -> None:
    halts = [HaltLine(NASTY, NASTY, NASTY, NASTY, 1_767_299_990.0)]
    copies = [CopyLine(NASTY, 1, 2, NASTY)]
    first = replicator_account(halts=halts, copies=copies, doing=NASTY, verified=NASTY)
    html = page(first, loader_account(position=NASTY), q=NASTY, state=NASTY, sort=NASTY)
    read(html)
    assert "<script" not in html


def test_tables_are_sorted_by_what_the_query_says() -> None:
    both = replicator_account(), loader_account()
    escaped = names(page(*both, sort="table"))[0]
    assert "&lt;b&gt;" in escaped
    assert names(page(*both)) == ["sheet", escaped, "patient"]  # what is not simply streaming
    assert names(page(*both, sort="rows")) == ["sheet", "patient", escaped]
    assert names(page(*both, sort="changed")) == ["patient", "sheet", escaped]
    assert names(page(*both, sort="nonsense")) == names(page(*both))


def test_tables_are_filtered_by_name_and_state() -> None:
    both = replicator_account(), loader_account()
    assert names(page(*both, q="PAT")) == ["patient"]
    assert names(page(*both, state="queued")) == ["sheet"]
    assert names(page(*both, state="queued", q="pat")) == []
    assert "queued → streaming" in page(*both)
    assert "cccc3333 → bbbb2222" in page(*both)


def test_very_many_tables_make_a_page_all_the_same() -> None:
    many = [TableLine(f"table{n}", "streaming", n) for n in range(3000)]
    html = page(replicator_account(tables=many), None)
    assert len(names(html)) == render.MOST_ROWS
    assert "2,000 more" in html


def test_an_account_survives_the_way_to_the_other_daemon() -> None:
    account = replicator_account(
        halts=[HaltLine("loader", "E", "m", "r", 1.0)], copies=[CopyLine("c", 1, 2)]
    )
    assert from_json(account.as_json()) == account
    assert from_json(replicator_account(purge_in=float("inf")).as_json()).purge_in is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"leg": 1}', '{"tables": [{"x": 1}]}'])
def test_what_is_no_account_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"account|Expecting"):
        from_json(text)


def test_a_lag_is_drawn_from_the_bottom_and_within_the_frame() -> None:
    assert height(0.0) == 0.0
    assert 0 < height(1.0) < height(60.0) < height(3600.0) < HEIGHT
    assert height(10**9) == HEIGHT
    points = line([0.0] * (SAMPLES + 5)).split()
    assert len(points) == SAMPLES
    assert points[-1].split(",")[0] == "720"


def test_history_is_bounded() -> None:
    history = History()
    for lag in range(SAMPLES * 2):
        history.add(lag)
    assert history.all() == list(range(SAMPLES, SAMPLES * 2))


# --- serving ---------------------------------------------------------------------------------


def _say(path: str, query: dict[str, str]) -> Answer:
    if path == "/broken":
        raise RuntimeError("a secret")
    return Answer(f"{path} {query}" * (200_000 if path == "/large" else 1))


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.5)
    with serving("127.0.0.1", 0, _say) as taken:
        yield taken


def ask(port: int, method: str = "GET", path: str = "/x", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def raw(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    return received


def test_get_is_answered_and_head_without_the_body(port: int) -> None:
    assert ask(port, path="/x?a=1&b=%3C") == (200, "/x {'a': '1', 'b': '<'}")
    assert ask(port, "HEAD") == (200, "")


def test_other_methods_are_refused(port: int) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "nonsense"):
        assert ask(port, method)[0] == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:9405", 200),
        ("[::1]:9405", 200),
        ("10.0.0.7", 200),
        ("evil.example", 421),
        ("localhost.evil.example:9405", 421),
    ],
)
def test_on_loopback_no_other_name_is_answered_to(port: int, host: str, status: int) -> None:
    assert ask(port, Host=host)[0] == status


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /?" + b"a&" * 9 + b" HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /?" + b"a=1&" * 30 + b" HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHalf", b"408"),
    ],
)
def test_what_is_no_request_is_refused(port: int, request_bytes: bytes, status: bytes) -> None:
    assert raw(port, request_bytes)[:12] == b"HTTP/1.1 " + status


def test_an_error_of_ours_tells_nothing(port: int) -> None:
    status, text = ask(port, path="/broken")
    assert (status, "secret" in text) == (500, False)


def test_silent_and_slow_readers_give_their_places_back(port: int) -> None:
    """As many as there are places say nothing, or take nothing; later ones are answered again."""
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(MOST_CONNECTIONS)]
    for n, connection in enumerate(held):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if n % 2:
            connection.sendall(b"GET /large HTTP/1.1\r\n\r\n")

    def answered() -> bool:
        try:
            return ask(port)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    assert not answered()
    wait_until(answered, 20, what="a place")
    for connection in held:
        connection.close()


def test_answers_bring_headers_that_a_browser_heeds(port: int) -> None:
    head = raw(port, b"HEAD / HTTP/1.1\r\n\r\n").decode()
    for line_ in ("nosniff", "no-store", "default-src 'none'", "no-referrer", "Connection: close"):
        assert line_ in head


class _Leg:
    """A leg that is as far behind as the test says."""

    def __init__(self) -> None:
        self.behind, self.reason, self.looks = 0.0, "", 0

    def lag(self) -> float:
        return self.behind

    def unready(self) -> str:
        return self.reason

    def account(self) -> Account:
        self.looks += 1
        return replicator_account()


@pytest.fixture
def leg() -> _Leg:
    return _Leg()


def test_readiness_is_a_bound_on_the_lag(leg: _Leg) -> None:
    site = Site("replicator", leg, ("127.0.0.1", free_port()))
    answers = []
    for leg.behind, leg.reason, query in (
        (59.0, "", {}),
        (61.0, "", {}),
        (61.0, "", {"within": "100"}),
        (0.0, "the first copy is under way", {}),
        (0.0, "", {"within": "soon"}),
    ):
        answers.append(site.answer("/readyz", query).status.value)
    assert answers == [200, 503, 200, 503, 400]
    leg.behind = 10**6
    assert site.answer("/healthz", {}).status is HTTPStatus.OK
    assert site.answer("/else", {}).status is HTTPStatus.NOT_FOUND


def test_a_daemon_shows_the_other_one_and_looks_at_itself_rarely(leg: _Leg) -> None:
    with shown_on("127.0.0.1", 0, "replicator", leg, ("127.0.0.1", free_port())) as first:
        assert "loader does not answer" in ask(first, path="/")[1]
        told = ask_peer("127.0.0.1", first)
        assert told is not None
        assert told.tables == replicator_account().tables
        for _ in range(5):
            ask(first, path="/")
        assert leg.looks <= 2
        assert "replicator_lag_seconds" in ask(first, path="/metrics")[1]
    assert ask_peer("127.0.0.1", first) is None


def test_a_peer_that_is_something_else_is_no_peer(port: int) -> None:
    assert ask_peer("127.0.0.1", port) is None


def test_what_is_cached_is_read_again_when_it_is_old() -> None:
    reads: list[float] = []

    def read_it() -> int:
        reads.append(time.monotonic())
        return len(reads)

    slow: Cached[int] = Cached(1000.0, read_it)
    quick: Cached[int] = Cached(0.0, read_it)
    assert [slow.get(), slow.get(), quick.get(), quick.get(), slow.get()] == [1, 1, 2, 3, 1]


def test_an_address_that_is_taken_is_told(port: int) -> None:
    with pytest.raises(OSError, match="in use"), serving("127.0.0.1", port, _say):
        pass
