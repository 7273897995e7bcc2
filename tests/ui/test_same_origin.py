"""What a request must say of the page that made it, over everything that Gradio serves."""

import json
import re

import pytest
from fastapi.testclient import TestClient
from gradio.routes import App

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import serving, shell
from rsm_app.ui.hosts import Authority, is_loopback, parse_host, parse_origin
from rsm_app.ui.same_origin import SameOrigin, is_foreign
from rsm_app.ui.theme import build_theme
from tests.ui.asking import asker

HOST = "studio.example:8000"
OPEN = re.compile(
    r"/(compare/?|runs/?|publish/?|lab/?|about/?)?|/(assets|static|svelte)/x|/favicon\.ico|/robots\.txt|"
    r"/manifest\.json|/pwa_icon(/x)?|(/gradio_api)?/theme\.css|/gradio_api/custom_component/x/x/x/x"
)
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://studio.example:8001"},
    {"Origin": "http://studio.example"},
    {"Origin": "http://studio.example:8000.evil.example"},
    {"Origin": "http://studio.example:8000@evil.example"},
    {"Origin": "http://evil.example/studio.example:8000"},
    {"Origin": "http://evil.example#studio.example:8000"},
    {"Origin": "http://x.studio.example:8000"},
    {"Origin": "http://studio.example.:8001"},
    {"Origin": "file://studio.example:8000"},
    {"Origin": "studio.example:8000"},
    {"Origin": ""},
    {"Origin": "http://studio.example:99999999"},
    {"Origin": "http://" + "a" * 5000},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://studio.example:8000"},
    {"Sec-Fetch-Site": "anything", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"},  # of no proxy that is named
]
OWN = [
    {},
    {"Origin": "http://studio.example:8000"},
    {"Origin": "HTTP://Studio.Example:8000"},
    {"Origin": "https://studio.example:8000"},
    {"Origin": "http://studio.example.:8000"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://studio.example:8000"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    # The browser says that it is its own page, through a proxy that has another name for this app.
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://public.example"},
]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSM_DEVICES", "cpu")
        supervisor = Supervisor(RunStore(tmp_path_factory.mktemp("app") / "runs"), Limits(free_mb=0))
        demo = shell.build(supervisor)
        demo.theme, demo.css, demo.css_paths, demo.head_paths = build_theme(), "", [], []
        demo._set_html_css_theme_variables()
        demo.config = demo.get_config_file()
        app = App.create_app(demo, **serving.prepare(demo, supervisor))
        yield app
        supervisor.close()


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app, f"http://{HOST}", client=("203.0.113.7", 50000), follow_redirects=False) as client:
        yield client


def all_routes(app):
    """Every method and path that the app answers, with x for whatever a path leaves open."""
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        for one in inner.routes if inner else [route]:
            for method in sorted(getattr(one, "methods", None) or ()):
                yield method, re.sub(r"\{[^}]*\}", "x", one.path)


def test_the_check_is_around_everything_else(app, client):
    assert isinstance(app.middleware_stack, SameOrigin)


def test_no_page_of_another_address_reaches_more_than_documents_and_reads_nothing(app, client):
    routes = list(all_routes(app))
    events = [path for _, path in routes if re.search(r"/(queue|run|call|upload|component_server)", path)]
    assert len(routes) > 60 and len(events) > 12
    opened = set()
    for method, path in routes:
        for number, headers in enumerate(FOREIGN):
            if number and OPEN.fullmatch(path) and method in ("GET", "HEAD"):
                continue  # what is open is so to each alike
            answer = client.request(method, path, headers=headers)
            assert not [name for name in answer.headers if name.startswith("access-control")], (path, headers)
            if answer.status_code == 403 and method != "HEAD":
                assert "asked for this app at" in answer.json()["detail"]
            elif answer.status_code != 403:
                opened.add((method, path))
    assert opened == {(m, p) for m, p in routes if m in ("GET", "HEAD") and OPEN.fullmatch(p)}


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_foreign_page_may_not_even_ask_whether_it_may(client, headers):
    for path in ("/gradio_api/queue/join", "/config", "/", "/assets/x"):
        asking = {
            **{"Origin": "https://evil.example"},
            **headers,
            **{"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-forwarded-host"},
        }
        answer = client.options(path, headers=asking)
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_the_app_s_own_pages_and_programs_go_on(client, headers):
    asked = {"data": ["", 5]}
    answer = client.post("/gradio_api/call/list_runs", json=asked, headers=headers)
    assert answer.status_code == 200 and answer.json()["event_id"]
    assert client.get("/config", headers=headers).status_code == 200
    assert client.get("/gradio_api/info", headers=headers).status_code == 200


def test_a_file_that_is_opened_by_itself_is_no_page_s_business(client):
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    shown = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    path = "/gradio_api/file=/nowhere/at/all.png"
    assert "asked for this app" not in client.get(path, headers=opened).text
    assert "asked for this app" in client.get(path, headers=shown).text


SPACE = {"SPACE_ID": "ann/studio", "SPACE_HOST": "ann-studio.hf.space,studio.example"}


@pytest.mark.parametrize(
    ("environment", "peer", "headers", "foreign"),
    [
        # A Space in its frame, at its own domain and at its platform's name, however its proxy asks for it.
        (SPACE, "10.1.3.80", {"host": "ann-studio.hf.space", "origin": "https://ann-studio.hf.space"}, False),
        (SPACE, "10.16.3.80", {"host": "ann-studio.hf.space", "origin": "https://studio.example"}, False),
        (SPACE, "10.16.3.80", {"host": "10.16.3.81:7860", "origin": "https://ann-studio.hf.space"}, False),
        (SPACE, "10.16.3.80", {"host": "ann-studio.hf.space", "origin": "https://huggingface.co"}, True),
        (SPACE, "10.16.3.80", {"host": "ann-studio.hf.space", "origin": "https://bob-evil.hf.space"}, True),
        # nginx on this machine: with the Host that it was asked for, without its port, or with another one.
        ({}, "127.0.0.1", {"host": "studio.example", "origin": "https://studio.example"}, False),
        ({}, "127.0.0.1", {"host": "studio.example", "origin": "http://studio.example:8080"}, False),
        ({}, "127.0.0.1", {"host": "studio.example", "origin": "http://evil.example:8080"}, True),
        (
            {},
            "127.0.0.1",
            {"host": "127.0.0.1:7860", "x_forwarded_host": "studio.example", "origin": "https://studio.example"},
            False,
        ),
        (
            {},
            "127.0.0.1",
            {
                "host": "studio.example:80",
                "x_forwarded_for": "203.0.113.7",
                "origin": "http://studio.example:8080",
            },
            False,
        ),
        # A proxy elsewhere: believed when it is named.
        (
            {"FORWARDED_ALLOW_IPS": "10.0.0.5"},
            "10.0.0.5",
            {"host": "app:7860", "x_forwarded_host": "studio.example, inner", "origin": "https://studio.example"},
            False,
        ),
        (
            {"FORWARDED_ALLOW_IPS": "10.0.0.5"},
            "10.0.0.6",
            {"host": "app:7860", "x_forwarded_host": "studio.example", "origin": "https://studio.example"},
            True,
        ),
        # The address that the app is told to have.
        (
            {"GRADIO_ROOT_PATH": "https://studio.example/lora"},
            "10.0.0.6",
            {"host": "app:7860", "origin": "https://studio.example"},
            False,
        ),
        ({"GRADIO_ROOT_PATH": "/lora"}, "10.0.0.6", {"host": "app:7860", "origin": "https://app"}, True),
        # At home and in the local network.
        ({}, "127.0.0.1", {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, False),
        ({}, "127.0.0.1", {"host": "localhost:7860", "origin": "http://localhost:7860"}, False),
        ({}, "::1", {"host": "[::1]:7860", "origin": "http://[::1]:7860"}, False),
        ({}, "192.168.1.5", {"host": "192.168.1.9:7860", "origin": "http://192.168.1.9:7860"}, False),
        ({}, "172.17.0.1", {"host": "localhost:8080", "origin": "http://localhost:8080"}, False),
        ({}, "127.0.0.1", {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:3000"}, True),
        ({}, "127.0.0.1", {"host": "127.0.0.1:7860", "origin": "http://localhost:7860"}, True),
        ({}, "127.0.0.1", {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1"}, True),
        ({}, "127.0.0.1", {"host": "", "origin": "http://127.0.0.1"}, True),
        ({}, "127.0.0.1", {"origin": "http://127.0.0.1"}, True),
    ],
)  # fmt: skip
def test_where_people_run_the_app_its_own_pages_are_known(monkeypatch, environment, peer, headers, foreign):
    for name in ("SPACE_ID", "SPACE_HOST", "GRADIO_ROOT_PATH", "FORWARDED_ALLOW_IPS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    scope = {**asker(peer, **headers).request.scope, "server": ("127.0.0.1", 7860)}
    assert is_foreign(scope) is foreign
    scope["headers"] = [*scope["headers"], (b"sec-fetch-site", b"cross-site")]
    assert is_foreign(scope)


def test_at_a_usual_port_a_host_without_one_says_which(monkeypatch):
    scope = asker("203.0.113.7", host="studio.example", origin="http://studio.example:3000").request.scope
    assert is_foreign({**scope, "server": ("0.0.0.0", 80)})
    assert not is_foreign({**scope, "server": ("0.0.0.0", 7860)})


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "127.0.0.1:7860", "127.1.2.3", "127.255.255.254:1", "localhost", "LOCALHOST:7860"),
        *("localhost.", "localhost.:7860", "studio.localhost:7860", "a.b.localhost", "[::1]", "[::1]:7860"),
        *(
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:7860",
            "[::ffff:7f00:1]",
            "127.0.0.1:",
            " 127.0.0.1:7860 ",
        ),
    ],
)
def test_every_form_of_this_machine_s_own_address_is_known(text):
    host = parse_host(text)
    assert host is not None and is_loopback(host.name)
    origin = parse_origin(f"http://{text.strip()}")
    assert origin is not None and is_loopback(origin.name) and origin.port is not None


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1.example.com", "127.0.0.1.nip.io:7860", "localhost.evil", "localhost.evil:7860"),
        *("evil-localhost", "xlocalhost", "localhost-evil.example", "notlocalhost:7860", "0.0.0.0", "[::]"),
        *("0.0.0.0:7860", "0", "128.0.0.1", "1.127.0.0", "126.255.255.255", "169.254.1.1", "192.168.0.1"),
        *("127.0.0.1@evil.example", "localhost:7860@evil.example", "user:pw@127.0.0.1", "127.0.0.1/../evil"),
        *(
            "127.0.0.1\\evil.example",
            "127.0.0.1#evil",
            "127.0.0.1?evil",
            "127.0.0.1,evil.example",
            "127.0.0.1 x",
        ),
        *(
            "[::1].evil.example",
            "[::1",
            "::1",
            "[::2]",
            "[::ffff:10.0.0.1]",
            "[fe80::1]",
            "[localhost]",
            "[]:7860",
        ),
        *("127.0.0.1:7860:evil", "127.0.0.1:port", "127.0.0.1:-1", "", ".", ":7860", "%31%32%37.0.0.1"),
        *(
            "127.0.0.1%00.evil",
            "\u0661\u0662\u0667.0.0.1",
            "\uff11\uff12\uff17.0.0.1",
            "127.0.0.256",
            "127.0.0.01",
        ),
        *("localhost..", "..localhost.evil", "localhost\t.evil", "a" * 400 + ".localhost"),
    ],
)
def test_no_forgery_of_this_machine_s_own_address_is_taken_for_it(text):
    host = parse_host(text)
    assert host is None or not is_loopback(host.name)
    origin = parse_origin(f"http://{text}")
    assert origin is None or not is_loopback(origin.name)


def test_an_origin_has_a_port_and_a_host_may_have_none():
    assert parse_origin("https://Studio.Example.") == Authority("studio.example", 443)
    assert parse_origin("http://[2001:DB8::1]") == Authority("2001:db8::1", 80)
    assert parse_host("studio.example") == Authority("studio.example", None)
    assert [parse_origin(text) for text in ("null", "", "ftp://x", "//x", "http://")] == [None] * 5


def test_what_is_refused_is_said_in_the_log_once_for_each_pair_of_addresses(app, client, caplog):
    for _ in range(3):
        client.post("/gradio_api/queue/join", headers={"Origin": "https://once.example"})
    assert sum("https://once.example" in record.getMessage() for record in caplog.records) == 1
    for number in range(300):
        client.post("/gradio_api/queue/join", headers={"Origin": f"https://{number}.example"})
    assert len(caplog.records) <= 100
    told = client.post("/gradio_api/queue/join", headers={"Origin": "https://" + "x" * 5000}).json()
    assert len(json.dumps(told)) < 2000
