"""Who is let in, over real connections to a small app; and that a class of thirty behind one address is."""

import asyncio
import contextlib
import json
import select
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rsm_app.jobs.limits import Limits, read_limits
from rsm_app.ui import connections, documents, open_files, rates, request_bodies
from rsm_app.ui.admission import MAX_BODY_BYTES, Admission
from rsm_app.ui.connections import Connection
from rsm_app.ui.rates import Rates
from tests.ui.greedy import Greedy, at_once, statuses
from tests.ui.server import free_port

SPACE = read_limits({"SPACE_ID": "ann/studio"})
HEAD = b"POST /length HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
REQUEST = b"GET /length HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def length(request):
    return JSONResponse(len(await request.body()))


async def upload(request):
    await request.body()
    return JSONResponse(["/srv/a/x.txt", "/srv/b/y.txt"])


async def stream(request):
    async def ticks():
        for number in range(1000):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(ticks(), media_type="text/event-stream")


async def flood(request):
    async def pieces():
        for _ in range(1000):
            yield b"x" * 2**20

    return StreamingResponse(pieces())


at_work = {"now": 0, "most": 0}


async def page(request):
    at_work["now"] += 1
    at_work["most"] = max(at_work.values())
    await asyncio.sleep(0.01)
    at_work["now"] -= 1
    return JSONResponse("a page")


async def large(request):
    return Response(b"x" * 2**25)


ROUTES = [
    Route("/page", page),
    Route("/large", large),
    Route("/length", length, methods=["GET", "POST", "PUT"]),
    Route("/stream", stream),
    Route("/flood", flood),
    Route("/gradio_api/upload", upload, methods=["POST"]),
    Route("/gradio_api/deep_link", length),
]


@contextlib.contextmanager
def serving(limits):
    """Serve the small app as the app is served; yield its port and what was heard of uploads."""
    heard = []
    pages = ("/page", "/large")
    admission = Middleware(
        Admission, limits=limits, uploaded=lambda *told: heard.append(told), documents=pages
    )
    app = Starlette(routes=ROUTES, middleware=[admission])
    port = free_port()
    config = uvicorn.Config(app, port=port, http=Connection, log_level="warning", timeout_keep_alive=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield port, heard
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def impatient(monkeypatch):
    """Seconds become fractions of one."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(request_bodies, "PIECE_SECONDS", 0.3)
    monkeypatch.setattr(request_bodies, "WHOLE_SECONDS", 1.0)


def rest(connection):
    """Return everything that a connection still gets, until the other side ends it."""
    connection.settimeout(30)
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            found += piece
    return found


UNFINISHED = {
    "nothing": (b"", b""),
    "half a line": (b"POST /leng", b""),
    "half a head": (HEAD, b""),
    "half a body": (HEAD + b"Content-Length: 100\r\n\r\n{", b" 408 "),
    "half a chunked body": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b" 408 "),
    "half of a second head": (REQUEST + b"GET /leng", b" 200 "),
}


@pytest.mark.parametrize("kind", UNFINISHED)
def test_what_is_not_sent_to_its_end_is_over_soon(impatient, kind):
    sent, answer = UNFINISHED[kind]
    with serving(Limits()) as (port, _), Greedy(port, "127.0.0.1").holding(sent, 3) as sockets:
        for one in sockets:
            heard = rest(one)
            assert answer in heard and (answer or not heard)


def test_a_body_that_trickles_is_over_soon_too(impatient):
    head = HEAD + b"Content-Length: 1000\r\n\r\n"
    with serving(Limits()) as (port, _), Greedy(port, "127.0.0.1").holding(head, 1) as (one,):
        one.settimeout(0.1)
        heard = b""
        for _ in range(300):
            with contextlib.suppress(OSError):
                one.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                heard += one.recv(4096)
                break
        assert b" 408 " in heard and b"did not arrive in time" in heard


def test_answers_may_take_as_long_as_they_like(impatient):
    asked = REQUEST.replace(b"/length", b"/stream")
    with serving(Limits()) as (port, _), Greedy(port, "127.0.0.1").holding(asked, 1) as (one,):
        one.settimeout(30)
        heard = b""
        while heard.count(b"data:") < 25:  # each 50 ms later than the one before
            piece = one.recv(4096)
            assert piece, "the stream was cut off"
            heard += piece


def test_of_too_many_silent_connections_the_oldest_end(monkeypatch):
    monkeypatch.setattr(connections, "MOST_SILENT", 20)
    with serving(Limits()) as (port, _):
        greedy = Greedy(port, "127.0.0.1")
        with greedy.holding(b"", 60) as sockets:
            assert greedy.get("/length").status == 200
            for one in sockets[:30]:
                assert rest(one) == b""


STREAM = REQUEST.replace(b"/length", b"/stream")
BEHIND = b"GET /stream HTTP/1.1\r\nHost: studio.example\r\nX-Forwarded-For: 2001:db8:%d::%d\r\n\r\n"


@pytest.fixture
def crowded(monkeypatch):
    """An app that has room for thirty connections, and has said nothing of it yet."""
    monkeypatch.setattr(Connection, "most", 30)
    monkeypatch.setattr(Connection, "_said", False)


def test_of_too_many_connections_the_oldest_of_whoever_has_most_end(crowded, caplog):
    with serving(Limits()) as (port, _):
        ann, bob, eve = (Greedy(port, f"127.0.0.{number}") for number in (2, 66, 67))
        with (
            ann.holding(STREAM, 3) as kept,
            bob.holding(STREAM, 100) as his,
            eve.holding(STREAM, 100) as hers,
        ):
            for one in (*his[:80], *hers[:80]):
                rest(one)
            for _ in range(5):
                assert ann.get("/length").status == 200
            assert his[-1].recv(64) and hers[-1].recv(64), "they have a share as well"
            for one in kept:
                one.settimeout(30)
                heard = [one.recv(4096) for _ in range(5)]
                assert all(heard), "another one's streams go on"
        assert caplog.text.count("30 connections are open") == 1


def test_whose_a_connection_is_a_named_proxy_says(crowded):
    """All come from one address; a subscriber's many addresses of IPv6 are one."""
    with serving(Limits()) as (port, _):
        proxy = Greedy(port, "127.0.0.1")
        with contextlib.ExitStack() as stack:
            (ann,) = stack.enter_context(proxy.holding(BEHIND % (1, 1), 1))
            assert b" 200 " in ann.recv(64)
            greedy = [stack.enter_context(proxy.holding(BEHIND % (2, number), 1))[0] for number in range(60)]
            for one in greedy[:25]:
                rest(one)
            ann.settimeout(30)
            assert all(ann.recv(4096) for _ in range(5)) and greedy[-1].recv(64)


def test_who_does_not_read_is_closed_too_and_web_sockets_are_refused(crowded):
    upgrade = b"GET /length HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    upgrade += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    asked = REQUEST.replace(b"/length", b"/flood")
    with serving(Limits()) as (port, _):
        bob = Greedy(port, "127.0.0.66")
        with bob.holding(asked, 60), bob.holding(upgrade, 10) as sockets:
            assert b" 400 " in rest(sockets[-1])
            assert Greedy(port, "127.0.0.2").get("/length").status == 200
            assert Connection._count <= 30
    assert Connection._count == 0 and not Connection._open


@pytest.mark.parametrize(
    ("limit", "taken", "connections", "backlog"),
    [
        (1024, 24, 303, 202),
        (256, 24, 16, 16),
        (65536, 24, 8000, 2048),
        (4096, 24, 1455, 970),
        (64, 60, 16, 16),
    ],
)
def test_connections_and_what_is_fetched_through_them_leave_files_for_other_work(
    limit, taken, connections, backlog
):
    room = open_files.room_for(limit, taken)
    assert (room.connections, room.backlog) == (connections, backlog)
    if limit > 1000:
        assert taken + 2 * room.connections + room.backlog <= limit - 100
    assert open_files.room_for(None, 24) == open_files.room_for(1 << 30, 24)


@pytest.mark.parametrize(
    ("soft", "hard", "allowed", "reached"),
    [
        (1024, 524288, 1 << 30, 65536),
        (1024, 4096, 1 << 30, 4096),
        (1024, 1024, 1 << 30, 1024),
        (256, -1, 10240, 10240),  # macOS: infinite, but not more than OPEN_MAX
        (256, -1, 5000, 4096),
        (256, -1, 100, 256),
        (100000, 524288, 1 << 30, 100000),
        (-1, -1, 1 << 30, None),
    ],
)
def test_a_process_may_open_as_many_files_as_its_platform_lets_it(monkeypatch, soft, hard, allowed, reached):
    resource = pytest.importorskip("resource")
    found = []

    def set_limit(_, wanted):
        if wanted[0] > allowed:
            raise ValueError("current limit exceeds maximum limit")
        found.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert open_files.raise_limit() == reached
    assert found == ([(reached, hard)] if reached not in (soft, None) else [])


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_has_a_size(chunked):
    with serving(Limits()) as (port, _):
        greedy = Greedy(port, "127.0.0.1")
        assert greedy.request("POST", "/length", b"x" * MAX_BODY_BYTES).json == MAX_BODY_BYTES
        if not chunked:
            answer = greedy.request("POST", "/length", b"x" * (MAX_BODY_BYTES + 1))
            assert answer.status == 413 and "may have at most 4 MB" in answer.json["detail"]
            return
        piece = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
        with greedy.holding(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", 1) as (one,):
            with contextlib.suppress(OSError):
                for _ in range(MAX_BODY_BYTES // 65536 + 2):
                    one.sendall(piece)
            one.settimeout(30)
            assert b" 413 " in one.recv(4096)


def test_one_owner_s_bodies_together_have_a_size(monkeypatch):
    monkeypatch.setattr(request_bodies, "MOST_HELD", 4 * 2**20)
    half = HEAD + b"Content-Length: 3000000\r\n\r\n" + b"x" * 2_900_000
    with serving(Limits()) as (port, _):
        ann, bob = Greedy(port, "127.0.0.2"), Greedy(port, "127.0.0.66")
        with bob.holding(half, 3) as sockets:
            answered = {}
            until = time.monotonic() + 60
            while len(answered) < 2 and time.monotonic() < until:
                silent = [one for one in sockets if one not in answered]
                answered |= {one: one.recv(4096) for one in select.select(silent, [], [], 1.0)[0]}
            assert len(answered) == 2 and all(b" 429 " in answer for answer in answered.values())
            silent = [one for one in sockets if one not in answered]
            assert not select.select(silent, [], [], 1.0)[0], "one has room"
            assert ann.request("POST", "/length", b"x" * 3_000_000).status == 200


def test_uploads_are_heard_of_when_they_are_there():
    with serving(Limits()) as (port, heard):
        assert Greedy(port, "127.0.0.2").upload(b"x").json == ["/srv/a/x.txt", "/srv/b/y.txt"]
        assert heard == [("127.0.0.2", ["/srv/a/x.txt", "/srv/b/y.txt"])]


def test_without_limits_only_what_is_closed_is_refused():
    with serving(Limits()) as (port, _):
        greedy = Greedy(port, "127.0.0.1")
        assert statuses(at_once(lambda _: greedy.get("/length"), 800)) == {200}
        assert greedy.get("/gradio_api/deep_link").status == 404


def test_every_owner_has_a_bucket_of_their_own_and_scripts_of_the_page_are_free(monkeypatch):
    monkeypatch.setattr(rates, "time", SimpleNamespace(monotonic=lambda: 1000.0))  # nothing drips in
    with serving(Limits(owner_rate=20)) as (port, _):
        ann, bob = Greedy(port, "127.0.0.2"), Greedy(port, "127.0.0.66")
        answers = at_once(lambda _: bob.get("/length"), 400)
        assert Counter(answer.status for answer in answers) == {200: 80, 429: 320}
        assert ann.get("/length").status == 200
        refused = bob.get("/length")
        assert refused.status == 429 and "Wait a few seconds" in json.loads(refused.body)["detail"]
        assert bob.get("/assets/x.js").status == 404, "looked for, and not there"


def test_names_of_one_address_have_one_rate_and_a_refused_head_has_no_body():
    """Behind a forwarder that adds no header a visitor chooses the name that they ask for."""
    with serving(Limits(owner_rate=20)) as (port, _):
        bob = Greedy(port, "127.0.0.66")

        def ask(number):
            return bob.request("GET", "/length", headers={"Host": f"h{number % 40}.example"})

        answers = at_once(ask, 800)
        assert statuses(answers) == {200, 429}
        assert Greedy(port, "127.0.0.66").get("/length").status == 200, "whoever sits there has a share"
        with bob.holding(
            b"HEAD /gradio_api/deep_link HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 1
        ) as (one,):
            assert rest(one).endswith(b"\r\n\r\n")


def test_open_requests_are_counted_until_they_end():
    with serving(Limits(owner_requests=3)) as (port, _):
        ann, bob = Greedy(port, "127.0.0.2"), Greedy(port, "127.0.0.66")
        with bob.holding(REQUEST.replace(b"/length", b"/stream"), 3) as sockets:
            for one in sockets:
                assert b" 200 " in one.recv(64)
            assert bob.get("/length").status == 429 and ann.get("/length").status == 200
        until = time.monotonic() + 30
        while bob.get("/length").status != 200:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.parametrize("seconds", [60])
def test_a_class_of_thirty_behind_one_address_is_never_refused(monkeypatch, seconds):
    """Thirty people who open a page at once, then look at a run at work in three tabs each, on a Space."""
    now = [1000.0]
    monkeypatch.setattr(rates.time, "monotonic", lambda: now[0])
    buckets = Rates(SPACE.owner_rate)
    for _ in range(30):  # a document, which may wait a second or two, and what its page asks for
        while not buckets.take("school", documents.COST, 0.5):
            now[0] += 0.05
        assert all(buckets.take("school") for _ in range(12))
    assert now[0] - 1000.0 < documents.WAIT_SECONDS / 2
    for _ in range(seconds):
        now[0] += 1.0
        assert all(buckets.take("school") for _ in range(30 * 3))
    assert SPACE.owner_requests > 30 * 3 * 2, "a heartbeat and a stream in each tab"
    assert SPACE.owner_events > 30 * 3, "everybody draws the three figures of the laboratory"
    assert SPACE.owner_sessions > 30 * 3
