"""What requests cost: bodies of many parts, large ones, documents that take turns, and wide networks."""

import json

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.owners import network_of
from rsm_app.ui import documents, request_bodies
from rsm_app.ui.rates import Rates
from tests.ui.greedy import Greedy, at_once, statuses
from tests.ui.test_admission import REQUEST, at_work, serving

PARTS = request_bodies.MOST_PARTS
MANY = {
    "lists": b"[" + b",".join([b"[]"] * 1_200_000) + b"]",
    "objects in text that ends": b'{"a": "x", "b": [' + b",".join([b"{}"] * PARTS) + b"]}",
    "members": json.dumps({str(number): 0 for number in range(PARTS + 2)}).encode(),
    "empty texts": b"[" + b",".join([b'""'] * 900_000) + b"]",
    "after escapes": json.dumps(["\\", '\\"', *[0] * (PARTS + 2)]).encode(),
    "in UTF-16": json.dumps(['"', [[]] * (PARTS + 2)], separators=(",", ":")).encode("utf-16-le"),
    "nested": b"[" * 1_000_000,
}
FEW = {
    "brackets in a text": json.dumps({"data": ["[],{}," * 160_000]}).encode(),
    "quotes and escapes in a text": json.dumps({"data": ['[{"a\\": "b\\\\"}],\n' * 50_000]}).encode(),
    "as many as there may be": json.dumps([0] * PARTS).encode(),
    "own prompts": json.dumps(["a red circle, a [blue] {square}\n" * 30_000, *[0] * 100]).encode(),
}


def test_a_body_has_only_so_many_parts_and_a_text_may_hold_anything():
    with serving(Limits()) as (port, _):
        greedy = Greedy(port, "127.0.0.1")
        for kind, body in MANY.items():
            answer = greedy.request("POST", "/length", body)
            assert answer.status == 413 and "at most 10000 values" in answer.json["detail"], kind
        for kind, body in FEW.items():
            assert greedy.request("POST", "/length", body).json == len(body), kind
        assert greedy.upload(MANY["lists"]).status == 200, "a file is not read as JSON"


def test_a_form_has_only_so_many_files_whatever_is_in_them():
    def form(files):
        head = b'--mark\r\nContent-Disposition: form-data; name="files"; filename="x.txt"\r\n\r\n'
        return b"".join(head + text + b"\r\n" for text in files) + b"--mark--\r\n"

    kind = {"Content-Type": 'multipart/form-data; boundary="mark"'}
    with serving(Limits()) as (port, _):
        greedy = Greedy(port, "127.0.0.1")
        refused = greedy.request("POST", "/gradio_api/upload", form([b"x"] * 21), kind)
        assert refused.status == 413 and "At most 20 files" in refused.json["detail"]
        for files in ([b"x"] * 20, [b"\r\n--\r\nfilename=x.txt, [], " * 10_000]):
            assert greedy.request("POST", "/gradio_api/upload", form(files), kind).status == 200


def test_large_bodies_cost_more_of_the_rate():
    with serving(Limits(owner_rate=25)) as (port, _):
        ann, bob = Greedy(port, "127.0.0.2"), Greedy(port, "127.0.0.66")
        large = json.dumps("x" * 3_000_000)
        assert statuses(at_once(lambda _: bob.request("POST", "/length", large), 12)) == {200, 429}
        assert statuses([ann.request("POST", "/length", large), ann.get("/length")]) == {200}


# -- documents -----------------------------------------------------------------------------------------


def test_documents_of_one_owner_wait_for_each_other_and_are_not_refused():
    """Forty tabs at once, at a rate of two documents a second after the first few."""
    at_work.update(now=0, most=0)
    with serving(Limits(owner_rate=100, owner_requests=100)) as (port, _):
        ann, bob = Greedy(port, "127.0.0.2"), Greedy(port, "127.0.0.66")
        assert statuses(at_once(lambda _: bob.get("/page"), 40, 40)) == {200}
        assert at_work["most"] == documents.AT_ONCE
        assert ann.get("/page").status == 200
        assert statuses(at_once(lambda _: bob.get("/length"), 100)) == {200}, "half of the bucket is left"


def test_a_document_whose_turn_does_not_come_is_refused(monkeypatch):
    monkeypatch.setattr(documents, "WAIT_SECONDS", 0.5)
    with serving(Limits(owner_rate=4)) as (port, _):
        bob = Greedy(port, "127.0.0.66")
        assert statuses(at_once(lambda _: bob.get("/page"), 20, 20)) == {200, 429}


def test_who_reads_a_document_slowly_keeps_nobody_waiting():
    asked = REQUEST.replace(b"/length", b"/large")
    with serving(Limits(owner_rate=1000)) as (port, _):
        bob = Greedy(port, "127.0.0.66")
        with bob.holding(asked, 2 * documents.AT_ONCE) as sockets:
            for one in sockets:
                assert b" 200 " in one.recv(64)
            assert bob.get("/page").status == 200


def test_networks_of_a_wider_one_have_a_few_shares_together():
    buckets = Rates(10)
    allowed = [buckets.take(f"2001:db8:66:{number}::/64") for number in range(1000)]
    assert 4 * 40 <= sum(allowed) <= 4 * 40 + 10
    assert buckets.take("2001:db8:67::/64") and buckets.take("10.0.0.1")
    assert all(buckets.take(f"10.0.{number}.1") for number in range(200)), "of IPv4 each is one"
    assert network_of("2001:db8:66:1::/64") == "2001:db8:66::/48"
    for owner in ("10.0.0.1", "ann", "fe80::1", "::1", "127.0.0.1 via x", "?", "somebody"):
        assert network_of(owner) == owner
