"""What is printed: nothing of it commands the terminal, and what its encoding lacks ends no command."""

import io
import json
import os
import subprocess
import sys

import pytest

from tests.e2e.shell import ROOT
from trainers import progress, terminal
from trainers.cli import main
from trainers.run_folder import RunStatus
from trainers.terminal import prepare_output, printable

ATTACKS = {
    "the window's title": "\x1b]0;pwned\x07",
    "one-byte CSI": "\x9b2J",
    "clear and home": "\x1b[2J\x1b[H",
    "over the line": "fine\rError: not fine",
    "bell and backspace": "\x07\x08\x08",
    "right to left": "photo\u202egnp.exe",
    "isolates": "\u2066a\u2069",
    "half a surrogate pair": "a\ud800b",
    "delete": "\x7f",
    "line separator": "a\u2028b",
}
HARMLESS = ["two\nlines\tand a tab", "naïve → × · 猫 🐈 قطة חתול", "a\u200fb", ""]


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_what_a_terminal_would_obey_is_replaced(text, capsys):
    shown = printable(text)
    assert all(letter.isprintable() or letter in "\n\t" for letter in shown) and "\ufffd" in shown
    terminal.say(text)
    terminal.report(text)
    printed = capsys.readouterr()
    assert printed.out == printed.err == f"{shown}\n"


@pytest.mark.parametrize("text", HARMLESS)
def test_everything_else_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_a_command_that_repeats_what_it_was_given_sends_no_command_to_the_terminal(text, capsys, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model": text}))
    assert main(["train", "--dry-run", "--config", str(config)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("Error: ") and all(letter.isprintable() or letter in "\n\t" for letter in told)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "shift_jis"])
def test_what_an_encoding_lacks_is_replaced(encoding, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    prepare_output()
    terminal.say("→ × 猫 🐈 \udcff")
    terminal.report("→ × 猫 🐈 \udcff")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        assert b"?" in stream.buffer.getvalue()


def test_a_closed_output_is_no_reason_to_fail(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    prepare_output()
    with progress.ProgressBar() as bar:
        bar.show(RunStatus(phase="train", message="x"))
    terminal.say("x")
    terminal.report("x")
    for stream in (sys.stdout, sys.stderr):
        stream.close()


class Gone(io.StringIO):
    """A pipe or a terminal whose reader has left."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal

    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_run_goes_on_when_nobody_watches_it_any_more(monkeypatch, is_terminal):
    watched = io.StringIO()
    watched.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", watched)
    with progress.ProgressBar() as bar:
        bar.show(RunStatus(phase="load"))
        gone = Gone(is_terminal)
        monkeypatch.setattr(sys, "stderr", gone)
        bar._bar.fp = gone
        bar.show(RunStatus(phase="train", updates=3, progress=0.5, message="x\x1b[2J"))


def test_whole_programs_write_to_what_is_not_utf_8(tmp_path):
    """The command line, and that of the Hub; the latter's help has a dash that ASCII lacks."""
    latin = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for words in (["-m", "trainers", "list"], ["-m", "rsm_app.hub", "push", "nowhere", "--repo", "a/→"]):
        done = subprocess.run([sys.executable, *words], cwd=ROOT, env=latin, capture_output=True)
        assert done.returncode in (0, 2) and b"Traceback" not in done.stderr, done.stderr
        assert b"?" in done.stdout + done.stderr
