"""Whose event is next, who may have how many waiting, and whose session is forgotten."""

from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.server_messages import ProcessCompletedMessage
from starlette.exceptions import HTTPException

from rsm_app.jobs.limits import Limits
from rsm_app.ui import costly, fair_queue, sessions
from rsm_app.ui.fair_queue import FairQueue
from rsm_app.ui.request_bodies import SIZE
from rsm_app.ui.sessions import Sessions, asking
from tests.ui.asking import asker, run_apart


@pytest.fixture
def demo():
    """An app of two events: one of a costly kind and a quick one."""
    with gr.Blocks() as blocks:
        text = gr.Textbox()
        text.change(lambda value: value, text, text, api_name="drawn", **costly.kind("lab"))
        text.blur(lambda value: value, text, text, api_name="checked", **costly.kind("hub"))
        text.submit(lambda value: value, text, text, api_name="looked", concurrency_limit=None)
    return blocks.queue(max_size=1000)


def fair(demo, limits=None):
    """The app's queue, and sessions of owners, before anything begins."""
    demo._queue = FairQueue(limits or Limits(), demo._queue)
    demo._queue.max_thread_count = costly.PLACES
    demo._queue.active_jobs = [None] * costly.PLACES
    holder = Sessions((limits or Limits()).owner_sessions)
    holder.set_blocks(demo)
    return demo._queue


def push(queue, name, address, session="x", size=0):
    """Let somebody put an event into the queue, that came in a body of some bytes."""
    (number,) = (number for number, fn in queue.blocks.fns.items() if fn.api_name == name)
    body = SimpleNamespace(fn_index=number, session_hash=session, event_id=None, request=None)
    who = asker(address)
    who.request.scope[SIZE] = size
    token = asking.set(address)
    try:
        return run_apart(queue.push(body, who.request, None))
    finally:
        asking.reset(token)


def take(queue) -> str | None:
    """Begin the next event, as the queue's own loop does, and return whose it is."""
    found = queue.get_events()
    if found is None:
        return None
    events, _, kind = found
    queue.active_jobs[queue.active_jobs.index(None)] = events
    queue.event_queue_per_concurrency_id[kind].current_concurrency += 1
    return events[0].owner


def finish(queue, count=1):
    """End the events that began first."""
    for _ in range(count):
        number = next(number for number, job in enumerate(queue.active_jobs) if job)
        kind = queue.active_jobs[number][0].concurrency_id
        queue.event_queue_per_concurrency_id[kind].current_concurrency -= 1
        queue.active_jobs[number] = None
        queue._changes += 1  # as when Gradio has answered an event


def one_by_one(queue) -> list[str]:
    """Return the owners of all waiting events of a kind with one place, in the order they are answered."""
    found = []
    while (owner := take(queue)) is not None:
        found.append(owner)
        finish(queue)
    return found


def test_owners_take_turns_whoever_came_first(demo):
    queue = fair(demo)
    for _ in range(5):
        push(queue, "drawn", "10.0.0.66")
    for _ in range(2):
        push(queue, "drawn", "10.0.0.1")
    push(queue, "drawn", "10.0.0.2")
    found = [owner.rpartition(".")[2] for owner in one_by_one(queue)]
    assert found[:5] in (["66", "1", "2", "66", "1"], ["66", "1", "2", "1", "66"])
    assert sorted(found) == sorted(["66"] * 5 + ["1"] * 2 + ["2"])


def test_of_one_owner_what_came_first_is_first(demo):
    queue = fair(demo)
    for session in "abc":
        push(queue, "drawn", "10.0.0.1", session)
    order = []
    while found := queue.get_events():
        order.append(found[0][0].session_hash)
    assert order == ["a", "b", "c"]


def test_one_owner_has_half_of_a_kind_s_places_where_visitors_share(demo):
    queue = fair(demo, Limits(owner_events=100))
    for _ in range(20):
        push(queue, "checked", "10.0.0.66")
    assert [take(queue) for _ in range(5)] == ["10.0.0.66"] * 4 + [None]
    push(queue, "checked", "10.0.0.1")
    assert take(queue) == "10.0.0.1" and take(queue) is None
    finish(queue)
    assert take(queue) == "10.0.0.66"


def test_whoever_is_alone_with_the_machine_has_all_places(demo):
    queue = fair(demo)
    for _ in range(20):
        push(queue, "checked", "127.0.0.1")
    assert [take(queue) for _ in range(9)] == ["127.0.0.1"] * 8 + [None]


def test_quick_events_of_one_owner_take_half_of_all_places_at_most(demo):
    queue = fair(demo, Limits(owner_events=1000))
    for _ in range(costly.PLACES):
        push(queue, "looked", "10.0.0.66")
    taken = [take(queue) for _ in range(costly.PLACES)]
    assert taken.count("10.0.0.66") == costly.PLACES // 2
    push(queue, "looked", "10.0.0.1")
    assert take(queue) == "10.0.0.1"


def test_costly_kinds_together_leave_places_to_what_is_quick():
    assert sum(costly._KINDS.values()) <= costly.PLACES // 2


def test_who_has_enough_waiting_is_told_so_and_others_are_not(demo):
    queue = fair(demo, Limits(owner_events=3))
    for _ in range(3):
        assert push(queue, "drawn", "10.0.0.66")[0]
    with pytest.raises(HTTPException) as refused:
        push(queue, "looked", "10.0.0.66")
    assert refused.value.status_code == 429 and "3 requests waiting here already" in refused.value.detail
    assert push(queue, "drawn", "10.0.0.1")[0] and push(queue, "looked", "10.0.0.1")[0]
    take(queue), take(queue), take(queue)
    assert push(queue, "drawn", "10.0.0.66")[0], "one of theirs is being answered"


def test_everybody_of_one_ipv6_network_counts_as_one(demo):
    queue = fair(demo, Limits(owner_events=2))
    push(queue, "drawn", "2001:db8::1")
    push(queue, "drawn", "2001:db8::2")
    with pytest.raises(HTTPException):
        push(queue, "drawn", "2001:db8::3")
    assert push(queue, "drawn", "2001:db8:0:1::1")[0]


def test_a_queue_that_is_stuck_is_not_looked_through_again_and_again(demo, monkeypatch):
    queue, looked = fair(demo, Limits(owner_events=100)), []
    for _ in range(20):
        push(queue, "checked", "10.0.0.66")
    assert [take(queue) for _ in range(5)][-1] is None
    monkeypatch.setattr(queue, "_at_work", lambda kind: looked.append(kind))
    monkeypatch.setattr(queue, "_again", float("inf"))
    assert [take(queue) for _ in range(1000)] == [None] * 1000 and looked == []
    monkeypatch.undo()
    push(queue, "checked", "10.0.0.1")
    assert take(queue) == "10.0.0.1"


def waiting(queue, network=""):
    """How many events of a network wait; of all without one."""
    queues = queue.event_queue_per_concurrency_id.values()
    return sum(event.owner.startswith(network) for kind in queues for event in kind.queue)


def told(queue, session):
    """The errors that a session is told of."""
    messages = queue.pending_messages_per_session[session]
    outputs = [message.output for message in messages._queue if message.msg == "process_completed"]
    return [output["error"] for output in outputs]


def fill(queue, name, network="2001:db8:66", count=10**6):
    """Let as many networks of 64 bits of a wider one put events into the queue as there are places."""
    for number in range(count):
        try:
            push(queue, name, f"{network}:{number % 40}::1", f"{network}-{number}")
        except HTTPException as refused:
            return refused
    return None


@pytest.mark.parametrize("name", ["drawn", "looked"])
def test_who_has_many_networks_keeps_nobody_from_the_queue(demo, name):
    """A kind with few places or with as many as there are: what is newest gives way, and is told why."""
    demo.queue(max_size=100)
    queue = fair(demo, Limits(owner_events=20))
    refused = fill(queue, name)
    assert refused.status_code in (429, 503) and "Try again in a moment" in refused.detail
    assert 40 <= waiting(queue, "2001:db8:66") <= 80, "four owners' shares"
    fill(queue, name, "2001:db8:67", 60)
    before = waiting(queue)
    for address in ("10.0.0.1", "10.0.0.2", "2001:db8:1::1"):
        for _ in range(3):
            assert push(queue, "drawn", address, address)[0] and push(queue, "looked", address, address)[0]
    assert waiting(queue, "10.0.0.") == 12 and waiting(queue, "2001:db8:1:") == 6
    assert waiting(queue) <= 100 and before <= 100
    sessions = [name for name in queue.pending_messages_per_session if name.startswith("2001:db8:6")]
    gave_way = [sentence for name in sessions for sentence in told(queue, name)]
    assert gave_way and all("Try again in a moment" in sentence for sentence in gave_way)
    assert told(queue, "10.0.0.1") == []


def test_costly_events_of_everybody_leave_half_of_the_queue_to_quick_ones(demo):
    demo.queue(max_size=100)
    queue = fair(demo, Limits(owner_events=20))
    refused = []
    for number in range(200):
        try:
            push(queue, "drawn", f"10.1.{number}.1", f"s{number}")
        except HTTPException as error:
            refused.append(error.status_code)
    assert waiting(queue) == 50 and set(refused) == {503}
    assert push(queue, "looked", "10.0.0.1", "mine")[0]


def test_what_waiting_events_were_sent_with_is_bounded(demo, monkeypatch):
    monkeypatch.setattr(fair_queue, "MOST_BYTES_OF_ONE", 10_000)
    monkeypatch.setattr(fair_queue, "MOST_BYTES", 22_000)
    queue = fair(demo, Limits(owner_events=100))
    for owner in ("10.0.0.66", "10.0.0.67"):
        for _ in range(3):
            push(queue, "drawn", owner, owner, size=3000)
        with pytest.raises(HTTPException) as refused:
            push(queue, "drawn", owner, owner, size=3000)
        assert refused.value.status_code == 429 and "are large" in refused.value.detail
        assert push(queue, "drawn", owner, owner)[0], "a small one is not"
    for _ in range(2):
        assert push(queue, "drawn", "10.0.0.1", "10.0.0.1", size=3000)[0]
    assert waiting(queue, "10.0.0.1") == 2 and told(queue, "10.0.0.1") == []
    assert len(told(queue, "10.0.0.66")) + len(told(queue, "10.0.0.67")) == 1


# -- answers -------------------------------------------------------------------------------------------


def answered(queue, owner, session):
    """Put an event into the queue and answer it at once."""
    push(queue, "looked", owner, session)
    ((event,), _, _) = queue.get_events()
    queue.send_message(event, ProcessCompletedMessage(output={"data": ["x"]}, success=True))
    queue.event_ids_to_events.pop(event._id)


def unread(queue, start=""):
    """How many answers lie in sessions whose name begins so."""
    found = queue.pending_messages_per_session.items()
    return sum(messages.qsize() for session, messages in found if session.startswith(start))


@pytest.mark.parametrize("sessions_of_bob", [1, 7, 1000])
def test_answers_that_nobody_fetches_are_bounded(demo, sessions_of_bob):
    """In one session, in several or each in its own; another one's stay until they are fetched."""
    queue = fair(demo, Limits(owner_events=20))
    for number in range(20):
        answered(queue, "10.0.0.1", f"ann{number}")
    for number in range(1000):
        answered(queue, "10.0.0.66", f"bob{number % sessions_of_bob}")
    assert unread(queue, "bob") <= 2 * 20 + 20, "an answer, and one notice of each"
    assert unread(queue, "ann") == 40


def test_answers_of_many_networks_are_bounded_and_others_stay(demo, monkeypatch):
    monkeypatch.setattr(fair_queue, "MOST_UNREAD", 100)
    queue = fair(demo, Limits(owner_events=20))
    for number in range(10):
        answered(queue, "10.0.0.1", f"ann{number}")
    for number in range(1000):
        answered(queue, f"2001:db8:66:{number}::1", f"bob{number}")
    assert unread(queue, "bob") <= 2 * (100 + 100) and unread(queue, "ann") == 20


def test_who_fetches_answers_gets_them_all(demo):
    queue = fair(demo, Limits(owner_events=20))
    for number in range(500):
        answered(queue, "10.0.0.1", f"ann{number % 3}")
        messages = queue.pending_messages_per_session[f"ann{number % 3}"]
        kinds = [messages.get_nowait().msg for _ in range(messages.qsize())]
        assert kinds[-1] == "process_completed"


# -- sessions ------------------------------------------------------------------------------------------


def look(demo, session, owner):
    """Let an owner's request begin or use a session."""
    token = asking.set(owner)
    try:
        return demo.state_holder[session]
    finally:
        asking.reset(token)


def test_an_owner_s_many_sessions_end_their_own_oldest_and_nobody_else_s(demo):
    fair(demo, Limits(owner_sessions=5))
    look(demo, "ann", "ann")
    for number in range(20):
        look(demo, f"bob{number}", "bob")
    assert set(demo.state_holder.session_data) == {"ann", *(f"bob{number}" for number in range(15, 20))}
    look(demo, "bob15", "bob")
    look(demo, "bob99", "bob")
    assert "bob15" in demo.state_holder and "bob16" not in demo.state_holder, "the one not used for longest"


def test_when_all_together_are_too_many_who_has_most_gives(demo, monkeypatch):
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 10)
    fair(demo)
    for number in range(3):
        look(demo, f"ann{number}", "ann")
    for number in range(30):
        look(demo, f"bob{number}", "bob")
    kept = set(demo.state_holder.session_data)
    assert len(kept) == 10 and {"ann0", "ann1", "ann2"} < kept


def test_many_networks_of_one_wider_one_push_out_nobody_s_session(demo, monkeypatch):
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 10)
    fair(demo)
    for owner in ("ann", "eve", "dan"):
        look(demo, owner, owner)
    for number in range(30):
        look(demo, f"bob{number}", f"2001:db8:66:{number}::/64")
    kept = set(demo.state_holder.session_data)
    assert len(kept) == 10 and {"ann", "eve", "dan", "bob29"} < kept


def test_a_session_has_a_short_name(demo):
    queue = fair(demo)
    for begin in (
        lambda name: push(queue, "looked", "10.0.0.66", name),
        lambda name: look(demo, name, "bob"),
    ):
        with pytest.raises(HTTPException) as refused:
            begin("x" * 201)
        assert refused.value.status_code == 400 and "at most 200 characters" in refused.value.detail
        begin("x" * 200)
    assert list(demo.state_holder.session_data) == ["x" * 200]
    assert list(queue.pending_messages_per_session) == ["x" * 200]


def test_a_session_that_waits_for_an_answer_stays(demo):
    queue = fair(demo, Limits(owner_sessions=2))
    push(queue, "drawn", "10.0.0.66", "waits")
    for number in range(10):
        look(demo, f"more{number}", "10.0.0.66")
    assert "waits" in demo.state_holder and "waits" in queue.pending_messages_per_session
    queue.event_ids_to_events.clear()  # it is answered
    look(demo, "last", "10.0.0.66")
    look(demo, "very last", "10.0.0.66")
    assert "waits" not in demo.state_holder and "waits" not in queue.pending_messages_per_session


def test_a_session_has_the_app_s_events_and_no_description_of_its_parts(demo):
    fair(demo)
    fresh = look(demo, "x", "ann")
    assert fresh.blocks_config.fns == demo.default_config.fns and fresh.config_values == {}
    assert list(fresh.components) == []


def test_what_one_session_changes_is_not_seen_by_another(demo):
    fair(demo)
    (box,) = (block for block in demo.blocks.values() if isinstance(block, gr.Textbox))
    mine, theirs = look(demo, "x", "ann"), look(demo, "y", "bob")
    mine[box._id] = gr.Textbox(label="Mine")
    assert mine[box._id].label == "Mine" and theirs[box._id].label is None and box.label is None
