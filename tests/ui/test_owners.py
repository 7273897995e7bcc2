"""Who asks: the Hub name that signing in keeps in the session, or the address behind a Space's proxies."""

import fastapi
import gradio as gr
import pytest
from fastapi.testclient import TestClient
from starlette.middleware.sessions import SessionMiddleware

from rsm_app.ui.access import owner_of, owners_of
from tests.ui.asking import asker


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("1.2.3.4, 5.6.7.8", "5.6.7.8"),
        ("1.2.3.4, 5.6.7.8, 10.1.2.3, 127.0.0.1", "5.6.7.8"),
        ("1.2.3.4, 2a01:4f8::7, fd00::1", "2a01:4f8::7"),
        ("10.1.2.3, 192.168.0.7", "192.168.0.7"),
        ("", "172.17.0.1"),
    ],
)
def test_behind_a_space_s_proxies_the_last_public_address_counts(monkeypatch, forwarded, address):
    asked = asker("172.17.0.1", x_forwarded_for=forwarded)
    assert owner_of(asked) == "172.17.0.1"
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    assert owner_of(asked) == address


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
    with TestClient(gr.mount_gradio_app(app, demo, path="/app"), client=("10.0.0.1", 50000)) as client:
        answers = []
        for _ in range(2):
            event = client.post("/app/gradio_api/call/who", json={"data": []}).json()["event_id"]
            answers.append(client.get(f"/app/gradio_api/call/who/{event}").text)
            client.get("/sign-in")
    assert '["10.0.0.1"]' in answers[0] and '["ada 10.0.0.1"]' in answers[1]
