"""Real HTTP servers that score pictures, well or badly."""

import base64
import contextlib
import io
import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


@dataclass
class Reply:
    """What a server says: chunks are sent one by one, with a pause before each; or headers without an end."""

    body: bytes | list[bytes] = b""
    status: int = 200
    pause: float = 0.0
    header_pause: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """A running server; `answer` may be changed while it runs."""

    address: str
    answer: Callable[[bytes, dict], Reply]
    requests: list[bytes] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


@contextlib.contextmanager
def serving(answer: Callable[[bytes, dict], Reply], port: int = 0) -> Iterator[Server]:
    """Answer requests on this machine while the body runs."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.send_response(405)
            self.end_headers()

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                served.requests.append(body)
                served.headers.append(dict(self.headers))
                served.at_once += 1
                served.most_at_once = max(served.most_at_once, served.at_once)
            try:
                with contextlib.suppress(OSError):  # a client that gives up closes its end
                    self.send(served.answer(body, dict(self.headers)))
            finally:
                with lock:
                    served.at_once -= 1

        def send(self, reply: Reply):
            if reply.header_pause:
                self.wfile.write(b"HTTP/1.0 200 OK\r\n")
                for number in range(1000):
                    time.sleep(reply.header_pause)
                    self.wfile.write(f"X-Slow-{number}: 1\r\n".encode())
            chunks = reply.body if isinstance(reply.body, list) else [reply.body]
            time.sleep(reply.pause)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(sum(map(len, chunks))))
            self.end_headers()
            for number, chunk in enumerate(chunks):
                time.sleep(reply.pause if number else 0)
                self.wfile.write(chunk)
                self.wfile.flush()

    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    http.daemon_threads = True
    served = Server(f"http://127.0.0.1:{http.server_address[1]}", answer)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def brightness(file: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(file))).mean() / 255)


def pickled(body: bytes, headers: dict) -> Reply:
    """Answer as the reward servers of Flow-GRPO do: brightness of each JPEG."""
    request = pickle.loads(body)
    scores = [brightness(file) for file in request["images"]]
    return Reply(pickle.dumps({"scores": scores, "rewards": [0.0] * len(scores), "group_rewards": {}}))


def in_json(body: bytes, headers: dict) -> Reply:
    """Answer the JSON variant."""
    files = [base64.b64decode(text) for text in json.loads(body)["images"]]
    return Reply(json.dumps({"scores": [brightness(file) for file in files]}).encode())


def question(body: bytes) -> tuple[str, bytes]:
    """Return the text and the picture of a chat completion."""
    text, picture = json.loads(body)["messages"][0]["content"]
    return text["text"], base64.b64decode(picture["image_url"]["url"].partition("base64,")[2])


def says(text: str) -> Reply:
    """Answer a chat completion with a text."""
    return Reply(json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode())


def judging(body: bytes, headers: dict) -> Reply:
    """Judge by brightness."""
    return says(f"It is what it is.\nScore: {10 * brightness(question(body)[1]):.3f}")
