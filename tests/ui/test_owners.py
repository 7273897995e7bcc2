"""Who asks: the Hub name that signing in keeps in the session, or the address a named proxy wrote down."""

import contextlib
import socket

import fastapi
import gradio as gr
import pytest
from fastapi.testclient import TestClient
from starlette.middleware.sessions import SessionMiddleware

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import proxies
from rsm_app.ui.access import allowed, owner_of, owners_of
from rsm_app.ui.history import owner_name
from rsm_app.ui.proxies import CHAIN, SILENT, UNNAMED
from tests.jobs.small_runs import small_config
from tests.ui.asking import asker
from tests.ui.forgeries import ATTACKER, FORGERIES, PROXY
from trainers.errors import InputError

# Whatever address somebody has, also one that is not public, or none at all, and the owner that it is.
HOPS = {
    ATTACKER: ATTACKER,
    "100.64.3.3": "100.64.3.3",
    "192.168.7.7": "192.168.7.7",
    "127.0.0.1": "127.0.0.1 via studio.example",
    "2001:db8:5::9": "2001:db8:5::/64",
    **dict.fromkeys(("unknown", "", "[::1", "1.2.3", "localhost"), ""),
}
# Where requests come through: the socket, and whether that is a proxy that writes down whom it was asked by.
WAYS = {
    "directly": (ATTACKER, False),
    "through a proxy that is not named": ("10.8.8.8", True),
    "through a named proxy": (PROXY, True),
    "through a proxy on this machine": ("127.0.0.1", True),
}


def forged(way, forgery, hop=ATTACKER, joined=False):
    """What reaches the app of a forgery."""
    peer, adds = WAYS[way]
    lines = list(FORGERIES[forgery])
    if adds and joined and lines[-1][0].lower() == "x-forwarded-for":
        lines[-1] = (lines[-1][0], f"{lines[-1][1]}, {hop}")
    elif adds:
        lines.append(("X-Forwarded-For", hop))
    return asker(peer, lines=lines, host="studio.example" if way != "directly" else "127.0.0.1:7860")


@pytest.fixture
def named(monkeypatch):
    """A proxy that is named by its address, and one on this machine, which is by default."""
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", f"127.0.0.1, ::1, {PROXY}")


@pytest.mark.parametrize("joined", [False, True], ids=["a line of its own", "the same line"])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_no_header_makes_anybody_another_visitor(named, forgery, joined):
    for way, (peer, _) in WAYS.items():
        named_one = way not in ("directly", "through a proxy that is not named")
        through = f"{peer} via studio.example" if peer in ("127.0.0.1", "10.8.8.8") else peer
        for hop, address in HOPS.items():
            owner = owner_of(forged(way, forgery, hop, joined))
            assert owner == (address if named_one and address else through), (way, hop)


@pytest.mark.parametrize("forgery", FORGERIES)
def test_on_a_space_the_hop_that_its_proxy_wrote_counts(monkeypatch, forgery):
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    for hop, address in HOPS.items():
        for joined in (False, True):
            assert owner_of(forged("through a named proxy", forgery, hop, joined)) == (address or PROXY)
    monkeypatch.setenv("RSM_PROXY_HOPS", "2")
    lines = [*FORGERIES[forgery], ("X-Forwarded-For", f"{ATTACKER}, 10.1.2.3")]
    assert owner_of(asker("10.16.3.80", lines=lines)) == ATTACKER


@pytest.mark.parametrize(
    ("setting", "peer", "forwarded", "owner"),
    [
        (None, "127.0.0.1", "203.0.113.7", "203.0.113.7"),  # nginx on this machine, as it always worked
        (None, "::1", "203.0.113.7", "203.0.113.7"),
        (None, "::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7"),
        (None, "127.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
        (None, "127.0.0.1", "203.0.113.7:51234", "203.0.113.7"),
        (None, "127.0.0.1", "[2001:db8::7]:51234", "2001:db8::/64"),
        (None, "127.0.0.1", "", "127.0.0.1"),
        (None, "10.0.0.5", "203.0.113.7", "10.0.0.5"),
        ("", "127.0.0.1", "203.0.113.7", "127.0.0.1"),
        ("10.0.0.5", "10.0.0.5", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.5", "127.0.0.1", "203.0.113.7", "127.0.0.1"),
        ("10.0.0.0/24", "10.0.0.5", "203.0.113.7", "203.0.113.7"),
        ("fd00::/8", "fd00::5", "2001:db8::7", "2001:db8::/64"),
        ("10.0.0.5,10.0.0.6", "10.0.0.6", "203.0.113.7, 10.0.0.5", "203.0.113.7"),  # a chain of named ones
        ("10.0.0.5,10.0.0.6", "10.0.0.6", "1.1.1.1, 203.0.113.7, 10.0.0.5", "203.0.113.7"),
        ("10.0.0.0/24", "10.0.0.6", "203.0.113.7, 10.0.0.5", "10.0.0.5"),  # it may be anybody's in there
        ("127.0.0.1,::1", "127.0.0.1", "203.0.113.7, ::1", "::1 via 127.0.0.1"),
        ("*", "10.0.0.6", "1.1.1.1, 203.0.113.7", "203.0.113.7"),
    ],
)  # fmt: skip
def test_who_asks_is_whom_the_named_proxy_wrote_down(monkeypatch, setting, peer, forwarded, owner):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if setting is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", setting)
    assert owner_of(asker(peer, x_forwarded_for=forwarded)) == owner


def test_a_number_of_proxies_is_counted_from_the_last_and_a_shorter_way_is_none(monkeypatch):
    monkeypatch.setenv("RSM_PROXY_HOPS", "2")
    for forwarded, owner in (
        ("1.1.1.1, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("203.0.113.7", "127.0.0.1"),
    ):
        assert owner_of(asker("127.0.0.1", x_forwarded_for=forwarded)) == owner


@pytest.mark.parametrize(
    ("addresses", "owner"),
    [
        (("2a01:4f8:1:2::1", "2a01:4f8:1:2:ffff:ffff:ffff:ffff", "2A01:04F8:1:2:0::5"), "2a01:4f8:1:2::/64"),
        (("2a01:4f8:1:3::1",), "2a01:4f8:1:3::/64"),
        (("203.0.113.7", "::ffff:203.0.113.7", "::ffff:cb00:7107"), "203.0.113.7"),
        (("203.0.113.8",), "203.0.113.8"),
        (("fe80::1%eth0",), "fe80::1%eth0"),  # a link is everybody on it
        (("fe80::2%eth0",), "fe80::2%eth0"),
        (("::1",), "::1"),
        (("testclient",), "testclient"),
        (("",), "somebody"),
    ],
)  # fmt: skip
def test_a_network_that_one_subscriber_has_is_one_owner(addresses, owner):
    assert {owner_of(asker(address)) for address in addresses} == {owner}


def test_a_subscriber_s_many_addresses_have_one_share_and_see_the_runs_of_before(tmp_path, monkeypatch):
    """37 addresses of a network that one subscriber has queue as many runs as one may, and own them all."""
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0, owner_queued=3))
    monkeypatch.setattr(supervisor, "tick", lambda: None)
    askers = [asker(f"2a01:4f8:1:2::{number:x}") for number in range(1, 38)]
    queued = 0
    for who in askers:
        with contextlib.suppress(InputError):
            supervisor.submit(small_config(), None, *owners_of(who))
            queued += 1
    assert queued == 3
    (run, *_) = supervisor.store.runs()
    assert all(allowed(run, who) for who in askers) and not allowed(run, asker("2a01:4f8:1:3::1"))
    run.job_file.write_text(run.job_file.read_text().replace("2a01:4f8:1:2::/64", "2a01:4f8:1:2::9"))
    assert all(allowed(run, who) for who in askers), "as an earlier version recorded it"
    supervisor.close()


def test_another_name_of_this_machine_s_own_address_is_not_who_sits_at_it():
    """A forwarder that adds no header, and a stranger's page whose name leads here, ask for that name."""
    at_it = [asker("127.0.0.1", host=host) for host in ("127.0.0.1:7860", "localhost:7860", "[::1]:7860", "")]
    assert {owner_of(who) for who in at_it} == {"127.0.0.1"}
    assert owner_of(asker("127.0.0.1", host=f"{socket.gethostname()}:7860")) == "127.0.0.1"
    other = [owner_of(asker("127.0.0.1", host=host)) for host in ("evil.example:7860", "studio.example")]
    assert other == ["127.0.0.1 via evil.example", "127.0.0.1 via studio.example"]
    assert owner_of(asker("127.0.0.1", host="evil.example", x_forwarded_for="203.0.113.7")) == "203.0.113.7"
    assert {owner_name(owner, ("127.0.0.1",)) for owner in other} == {"another visitor"}
    assert owner_name("2a01:4f8:1:2::/64", ()) == "another visitor" and owner_name("ann", ()) == "ann"


@pytest.mark.parametrize(
    ("peer", "headers", "sentence"),
    [
        ("192.168.1.5", {}, ""),
        ("127.0.0.1", {}, ""),
        ("127.0.0.1", {"x_forwarded_for": "203.0.113.7"}, ""),
        ("10.0.0.5", {"x_forwarded_for": "203.0.113.7"}, UNNAMED),
        ("10.0.0.6", {"forwarded": "for=203.0.113.7"}, UNNAMED),
        ("10.0.0.7", {"x_real_ip": "203.0.113.7"}, UNNAMED),
        ("10.0.0.8", {"x_forwarded_proto": "https"}, UNNAMED),
        ("127.0.0.1", {"x_real_ip": "203.0.113.7"}, SILENT),
        ("127.0.0.1", {"x_forwarded_for": "unknown"}, SILENT),
        ("172.20.0.2", {"x_forwarded_for": "203.0.113.7"}, ""),
        ("172.20.0.2", {"x_forwarded_for": "203.0.113.7, 172.20.0.1"}, CHAIN),
    ],
)
def test_where_everybody_behind_a_proxy_is_one_visitor_it_is_said_to_them_and_once_in_the_log(
    monkeypatch, caplog, peer, headers, sentence
):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1,172.20.0.0/24")
    monkeypatch.setattr(proxies, "_logged_already", set())
    for _ in range(3):
        assert proxies.shared_by_all(asker(peer, **headers).request.scope) == sentence
    assert caplog.text.count(peer) == (1 if sentence else 0)


def test_headers_that_anybody_can_write_do_not_fill_the_log(monkeypatch, caplog):
    monkeypatch.setattr(proxies, "_logged_already", set())
    for number in range(1000):
        proxies.shared_by_all(asker(f"2001:db8::{number:x}", x_forwarded_for="1.1.1.1").request.scope)
    assert len(caplog.records) == 100


@pytest.mark.parametrize(
    "named",
    [
        *("*", " * ", "127.0.0.1,*", "0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1"),
        *("10.0.0.5, 64.0.0.0/2", "2000::/3"),
    ],
)
def test_not_everybody_is_named_a_proxy_where_others_can_ask(monkeypatch, named):
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", named)
    for host in ("0.0.0.0", "::", "192.168.1.5", "studio.example"):
        with pytest.raises(InputError, match="could pass for any other visitor"):
            proxies.check_proxies(host)
    for host in ("127.0.0.1", "localhost", "[::1]"):
        proxies.check_proxies(host)
    monkeypatch.setenv("SPACE_ID", "somebody/space")  # its proxy is the only way in
    proxies.check_proxies("0.0.0.0")


@pytest.mark.parametrize(
    "named",
    ["", "127.0.0.1", "10.0.0.0/8", "172.16.0.0/12,fc00::/7", "104.16.0.0/13,2400:cb00::/32", "fe80::/10"],
)
def test_a_proxy_a_private_network_and_a_provider_s_may_be_named(monkeypatch, named, caplog):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", named)
    proxies.check_proxies("0.0.0.0")
    assert not caplog.records


def test_a_name_that_is_no_address_is_told_and_a_number_of_proxies_that_is_none_refused(monkeypatch, caplog):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "proxy.internal,10.0.0.300")
    proxies.check_proxies("0.0.0.0")
    assert "'proxy.internal', which is no address" in caplog.text and "10.0.0.300" in caplog.text
    for text in ("0", "-1", "two", "1.5", "17"):
        monkeypatch.setenv("RSM_PROXY_HOPS", text)
        with pytest.raises(InputError, match="RSM_PROXY_HOPS must be how many proxies"):
            proxies.check_proxies("127.0.0.1")


def test_an_account_whose_name_is_an_address_has_nothing_of_that_address():
    for name in (
        "8.8.8.8",
        "10.0.0.1",
        "::1",
        "2a01:4f8:1:2::/64",
        "127.0.0.1 via evil.example",
        "somebody",
        "?",
    ):
        who = asker("10.0.0.9", name)
        assert owners_of(who) == (f"hub:{name}", "10.0.0.9")
        assert not {name} & set(owners_of(who))
    for name in ("ann", "a.b-c_d", "8.8.8", "10-0-0-1", "1234", "localhost"):
        assert owners_of(asker("10.0.0.9", name)) == (name, "10.0.0.9")


def test_a_sign_in_that_is_over_is_none():
    assert owner_of(asker("10.0.0.1", "ada", signed_in_for=-1)) == "10.0.0.1"


def test_the_session_of_gradio_s_sign_in_reaches_handlers_through_the_queue():
    """Signed in with a cookie, as Gradio's own callback leaves it, not with a request made by hand."""
    app = fastapi.FastAPI()
    app.add_middleware(SessionMiddleware, secret_key="a test's own")

    @app.get("/sign-in")
    def sign_in(request: fastapi.Request):
        request.session["oauth_info"] = {"userinfo": {"preferred_username": "ada"}}

    def who(request: gr.Request) -> str:
        return " ".join(owners_of(request))

    with gr.Blocks(analytics_enabled=False) as demo:
        gr.api(who, api_name="who")
    mounted = gr.mount_gradio_app(app, demo, path="/app")
    with TestClient(mounted, "http://127.0.0.1", client=("10.0.0.1", 50000)) as client:
        answers = []
        for _ in range(2):
            event = client.post("/app/gradio_api/call/who", json={"data": []}).json()["event_id"]
            answers.append(client.get(f"/app/gradio_api/call/who/{event}").text)
            client.get("/sign-in")
    assert '["10.0.0.1"]' in answers[0] and '["ada 10.0.0.1"]' in answers[1]
