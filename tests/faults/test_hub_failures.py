"""What the Hub may answer, asked for real over HTTP from a server on this machine: one sentence each."""

import http.server
import os
import subprocess
import sys
import threading

import pytest

from tests.e2e.shell import ROOT
from trainers.failures import GATED, MISSING, NETWORK

_ASK = """
import sys
from huggingface_hub import hf_hub_download
from trainers.failures import explain
try:
    hf_hub_download("someone/model", "config.json", cache_dir=sys.argv[1])
except Exception as error:
    print(explain(error))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers everything with the status and the error code of the server it belongs to."""

    def do_HEAD(self):  # noqa: N802 (the library's name)
        self.send_response(self.server.answer[0])
        self.send_header("X-Error-Code", self.server.answer[1])
        self.send_header("X-Error-Message", "as the Hub says it")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        """Keep quiet."""


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((403, "GatedRepo"), GATED),
        ((401, "GatedRepo"), GATED),
        ((404, "RepoNotFound"), MISSING),
        ((404, "EntryNotFound"), MISSING),
        (None, NETWORK),
    ],
)
def test_an_answer_of_the_hub_becomes_a_sentence(answer, sentence, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.answer = answer
    address = f"http://127.0.0.1:{server.server_address[1]}"
    if answer is None:
        server.server_close()  # nobody listens there any more
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    result = subprocess.run(
        [sys.executable, "-c", _ASK, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if answer is not None:
        server.shutdown()
        server.server_close()
    assert result.stdout.strip() == sentence, result.stdout + result.stderr
