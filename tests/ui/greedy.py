"""A visitor at an address of their own who takes what they can get, in plain HTTP."""

import contextlib
import http.client
import json
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """What the app answered."""

    status: int
    body: bytes

    @property
    def json(self):
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Greedy:
    """A visitor of the app on a port of this machine, from any loopback address.

    Attributes:
        port: Where the app listens.
        address: Where the visitor asks from.
        named: The visitor's address as a proxy at that one names it; empty without a proxy.
        events: Number of an event by name, and the values that its page sends, as far as it was read.
    """

    port: int
    address: str
    named: str = ""
    events: dict[str, int] = field(default_factory=dict)
    values: dict[str, list] = field(default_factory=dict)

    def read_page(self, page: str = "") -> "Greedy":
        """Learn a page's events from its own description."""
        config = self.get(f"/config?page={page}").json
        values = {part["id"]: part["props"].get("value") for part in config["components"]}
        for dependency in config["dependencies"]:
            name = re.sub(r"_\d+$", "", str(dependency["api_name"]))
            self.events.setdefault(name, dependency["id"])
            self.values.setdefault(name, [values.get(number) for number in dependency["inputs"]])
        return self

    def request(self, method: str, path: str, body=None, headers=JSON) -> Answer:
        """Ask once."""
        connection = self.connect()
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body)
            connection.request(method, path, data, {**headers, **self.forwarded})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        finally:
            connection.close()

    @property
    def forwarded(self) -> dict[str, str]:
        """What a proxy adds to a request."""
        return {"X-Forwarded-For": self.named} if self.named else {}

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection from the visitor's address."""
        own = (self.address, 0)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60, source_address=own)

    def get(self, path: str) -> Answer:
        """Ask for a document."""
        return self.request("GET", path)

    def join(self, event: str, values: list | None = None, session: str = "") -> Answer:
        """Put an event of a page into the queue."""
        sent = self.values[event] if values is None else values
        body = {"data": sent, "fn_index": self.events[event], "session_hash": session or secrets.token_hex(6)}
        return self.request("POST", "/gradio_api/queue/join", body)

    def ask(self, event: str, values: list | None = None) -> dict:
        """Put an event into the queue and wait for what the page would be told."""
        session = secrets.token_hex(6)
        joined = self.join(event, values, session)
        assert joined.status == 200, joined
        connection = self.connect()
        try:
            connection.request(
                "GET", f"/gradio_api/queue/data?session_hash={session}", headers=self.forwarded
            )
            for line in connection.getresponse():
                message = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if message.get("msg") == "process_completed":
                    return message
        finally:
            connection.close()
        raise AssertionError(f"the answer to {event} broke off")

    def call(self, name: str, *values) -> dict:
        """Call a public endpoint; return its answer, or the sentence of its error under ``error``."""
        begun = self.request("POST", f"/gradio_api/call/{name}", {"data": list(values)})
        assert begun.status == 200, begun
        answer = self.get(f"/gradio_api/call/{name}/{begun.json['event_id']}").body.decode()
        kind, _, data = answer.partition("\ndata: ")
        told = json.loads(data)
        return told[0] if "complete" in kind else {"error": (told or {}).get("error", "")}

    def start(self, prompts: str = "", **settings) -> dict:
        """Start a run of few settings."""
        return self.call(
            "start_run",
            "tiny-flow",
            "colorfulness",
            "rsm_zeroth_order_flow",
            900,
            0,
            prompts,
            settings or None,
        )

    def upload(self, content: bytes, name: str = "mine.txt") -> Answer:
        """Upload a file as a page does."""
        mark = secrets.token_hex(8)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        return self.request("POST", "/gradio_api/upload", body, kind)

    @contextlib.contextmanager
    def holding(self, text: bytes, count: int):
        """Open connections, send the same on each and leave it at that."""
        sockets = [
            socket.create_connection(("127.0.0.1", self.port), 60, (self.address, 0)) for _ in range(count)
        ]
        try:
            for one in sockets:
                one.sendall(text)
            yield sockets
        finally:
            for one in sockets:
                one.close()


def at_once(action: Callable[[int], object], count: int, threads: int = 16) -> list:
    """Return what an action returns when many do it at the same time, in any order."""
    numbers, found, lock = iter(range(count)), [], threading.Lock()

    def go_on() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            result = action(number)
            with lock:
                found.append(result)

    workers = [threading.Thread(target=go_on) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


def statuses(answers: Iterable[Answer]) -> set[int]:
    """Return which statuses occur."""
    return {answer.status for answer in answers}
