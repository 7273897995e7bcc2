"""A stranger's repository and a visitor's shared run: others are served, and nothing obeys what they hold."""

import json
import re
import struct
import tracemalloc
import zlib

import gradio as gr
import orjson
import pytest
from huggingface_hub import HfApi, ModelCard
from markdown_it import MarkdownIt

from rsm_app.hub import cli, fetching, published
from rsm_app.hub.bundle import bundle
from rsm_app.hub.fetching import fetch
from rsm_app.hub.push import Push
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import Run, RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import pictures, watch
from rsm_app.ui.api import Api
from rsm_app.ui.card_view import card_html
from rsm_app.ui.panel import build_panel
from rsm_app.ui.sight import Sight
from tests.e2e.shell import lines, read
from tests.hub.card_rules import metadata_errors
from tests.hub.conftest import REPO
from tests.hub.test_fetching import replace
from tests.ui.asking import asker
from trainers import cli as trainers_cli
from trainers.errors import InputError
from trainers.run_folder import RunFolder, write_json, write_lines

EVIL = "\ud800 is it?\n```\n# Owned\n<script>alert(1)</script>\x1b]0;owned\x07\x9b2J\u202e"
MB = 2**20


@pytest.fixture
def published_run(hub, run, writer):
    Push(run, REPO, writer, endpoint=hub.url).run()
    return hub


def png(width, height):
    """A black PNG of one bit a pixel: a few kilobytes, whatever it unpacks to."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" * (1 + -(-width // 8))
    packer = zlib.compressobj(9)
    pieces = [packer.compress(row * part) for part in [256] * (height // 256) + [height % 256]]
    body = b"".join(pieces) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def clean(text):
    return all(letter.isprintable() or letter in "\n\t" for letter in text) and "\u202e" not in text


# -- what is brought from the Hub ------------------------------------------------------------------------


def many_pictures():
    """64 pairs of pictures that are each as large as may be."""
    record = {"prompt": "x", "seed": 1, "reward_before": 0.0, "reward_after": 1.0}
    names = [{side: f"images/{n:02d}-{side}.png" for side in ("before", "after")} for n in range(1, 65)]
    text = "".join(json.dumps(record | pair) + "\n" for pair in names).encode()
    largest = png(4096, 4096)
    large = {path.replace(".", "__"): largest for pair in names for path in pair.values()}
    return {"images/pairs__jsonl": text} | large


AFTER = "images/01-after__png"
BOMBS = {
    "lines": (lambda: {"metrics__jsonl": b"{}\n" * 2_000_000}, "more than 100,000"),
    "empty lists": (lambda: {"report__json": b'{"x":[' + b"[]," * 300_000 + b"1]}"}, "damaged"),
    "many numbers": (lambda: {"report__json": b'{"x":[' + b"1," * 300_000 + b"1]}"}, "damaged"),
    "depth": (lambda: {"config__json": b'{"a":' * 40 + b"1" + b"}" * 40}, "damaged"),
    "900 million pixels": (lambda: {AFTER: png(30_000, 30_000)}, "not a whole PNG"),
    "144 million pixels": (lambda: {AFTER: png(12_000, 12_000)}, "not a whole PNG"),
    "many large pictures": (many_pictures, "larger than any run draws them"),
    "prompts of one letter": (lambda: {"prompts__txt": b"a\n" * 4_000_000}, "more than 300,000 lines"),
    "prompts by other breaks": (lambda: {"prompts__txt": b"a\x1d" * 400_000}, "more than 300,000 lines"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_a_sentence_at_a_small_price(published_run, tmp_path, name):
    make, sentence = BOMBS[name]
    replace(published_run, **make())
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=sentence):
            fetch(REPO, None, tmp_path / "new" / "a", published_run.url, limits=Limits(free_mb=0))
        assert tracemalloc.get_traced_memory()[1] < 64 * MB
    finally:
        tracemalloc.stop()
    assert list((tmp_path / "new").iterdir()) == []


def test_many_but_not_too_many_lines_are_copied_one_by_one(published_run, tmp_path):
    text = b"".join(b'{"step": %d, "kl": 0.5, "evil": "\\ud800", "x": [1]}\n' % n for n in range(90_000))
    replace(published_run, metrics__jsonl=text)
    tracemalloc.start()
    try:
        path = fetch(REPO, None, tmp_path / "a", published_run.url, limits=Limits(free_mb=0))
        assert tracemalloc.get_traced_memory()[1] < 64 * MB
    finally:
        tracemalloc.stop()
    with open(path / "metrics.jsonl") as file:
        assert sum(1 for line in file if json.loads(line).keys() == {"step", "kl"}) == 90_000
    assert len(RunFolder(path).read_metrics()) < 20_000


def test_texts_of_a_repository_obey_nowhere(published_run, run, tmp_path):
    config = read(run / "config.json") | {"judge_question": EVIL}
    pairs = [json.loads(line) for line in published_run.files(REPO)["images/pairs.jsonl"].splitlines()]
    spoiled = "".join(json.dumps(pair | {"prompt": f"a {EVIL}"}) + "\n" for pair in pairs)
    files = {"config__json": json.dumps(config).encode(), "images/pairs__jsonl": spoiled.encode()}
    replace(published_run, **files)
    path = fetch(REPO, None, tmp_path / "runs" / "20260101-000000-cccccc", published_run.url)
    folder = RunFolder(path)
    assert "is it?" in folder.read_config()["judge_question"] and clean(
        folder.read_config()["judge_question"]
    )
    assert all(clean(pair["prompt"]) and "\n" not in pair["prompt"] for pair in folder.read_pairs())


# -- what a visitor shares, or somebody put into the folder ----------------------------------------------


@pytest.fixture
def shared(run):
    """A finished run whose records were written by somebody who means harm."""
    write_json(run / "config.json", read(run / "config.json") | {"judge_question": EVIL})
    for name in ("report.json", "status.json"):
        more = {"notes": {"evil": EVIL}, "message": EVIL, "huge": 10**400}
        write_json(run / name, read(run / name) | more)
    pairs = [pair | {"prompt": f"a {EVIL}"} for pair in lines(run / "samples" / "pairs.jsonl")]
    write_lines(run / "samples" / "pairs.jsonl", pairs)
    return run


def test_a_shared_run_breaks_no_list(shared, tmp_path):
    supervisor = Supervisor(RunStore(shared.parent))
    rows = Api(supervisor).list_runs(asker())
    assert [row["run"] for row in rows] == [shared.name]
    text = orjson.dumps(rows).decode()  # as Gradio sends it
    assert "is it?" in text and "\ud800" not in str(rows)
    orjson.dumps(Api(supervisor).run_status(asker(), shared.name))


def test_a_shared_run_stays_inside_the_card_s_block_of_code(shared):
    card = bundle(shared, REPO).card
    assert metadata_errors(card) == [] and clean(card.replace("\u202e", ""))
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(ModelCard(card).text)
    followed = zip(tokens, tokens[1:], strict=False)
    assert "Owned" not in [after.content for token, after in followed if token.type == "heading_open"]
    assert not [token for token in tokens if token.type == "html_block" and "<script" in token.content]
    (shell,) = [token for token in tokens if token.type == "fence" and token.info == "sh"]
    assert "# Owned" in shell.content and "--set" in shell.content
    assert "<script>alert" not in card_html(bundle(shared, REPO)).replace("&lt;script&gt;", "")


def test_a_shared_run_sends_no_command_to_a_terminal(shared, capsys, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["push", str(shared), "--repo", REPO, "--dry-run"]) == 0
    write_json(shared / "config.json", read(shared / "config.json") | {"reward": f"x{EVIL}", EVIL: 1})
    assert trainers_cli.main(["resume", str(shared)]) == 2
    assert trainers_cli.main(["evaluate", str(shared)]) == 2
    assert cli.main(["push", str(shared), "--repo", REPO, "--dry-run"]) == 2
    printed = capsys.readouterr()
    assert "Error: " in printed.err and clean(printed.out) and clean(printed.err)


def test_the_fetch_command_repeats_no_command_of_a_repository(
    published_run, run, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(fetching, "HfApi", lambda endpoint, token: HfApi(published_run.url, token=token))
    for key in ("reward", "estimator", "model"):
        config = read(run / "config.json") | {key: f"x{EVIL}"}
        replace(published_run, config__json=json.dumps(config).encode())
        assert cli.main(["fetch", f"{published_run.url}/{REPO}", "--out", str(tmp_path / "a")]) == 2
    printed = capsys.readouterr()
    assert len(re.findall("(?m)^Error: ", printed.err)) == 3 and clean(printed.err)


def test_bombs_among_the_samples_of_a_shared_run_are_left_out(shared):
    pairs = lines(shared / "samples" / "pairs.jsonl")
    bombs = [
        png(30_000, 30_000),
        png(12_000, 12_000),
        b"GIF89a",
        b"%!PS-Adobe-3.0 EPSF",
        b"",
        b"\x89PNG\r\n\x1a\n",
    ]
    for pair, bomb in zip(pairs, bombs, strict=False):
        (shared / pair["after"]).write_bytes(bomb)
    pairs[len(bombs)]["after"] = "samples/\0.png"
    write_lines(shared / "samples" / "pairs.jsonl", pairs)
    run = Run(shared)
    shown = pictures.pair_gallery(run, run.folder.read_pairs(), len(pairs))
    assert len(shown) == len(pairs) - len(bombs) - 1
    with pytest.raises(InputError, match="damaged, so the run cannot be published"):
        bundle(shared, REPO)


def test_a_huge_file_of_metrics_is_no_work_for_the_event_loop(shared):
    (shared / "metrics.jsonl").write_bytes(b'{"step": 1, "reward_mean": 0.5}\n' * 200_000)
    with gr.Blocks():
        panel = build_panel("", watch.PARTS)
    sight = Sight(Run(shared), True)
    assert not sight.quick, "a thread reads it"
    supervisor = Supervisor(RunStore(shared.parent))
    tracemalloc.start()
    try:
        shown = watch.look(supervisor, panel, sight, shared.name, "", "")
        assert tracemalloc.get_traced_memory()[1] < 32 * MB
    finally:
        tracemalloc.stop()
    orjson.dumps(shown[panel.status])
    assert len(Sight(Run(shared), True).lines) < 20_000
    (shared / "metrics.jsonl").write_bytes(b'{"step": 1, "reward_mean": 0.5}\n')
    assert len(Sight(Run(shared), True).lines) == 1 and Sight(Run(shared), True).quick


def test_limits_of_a_repository_are_those_of_this_app():
    """What is published from here can be brought here."""
    from trainers.bounded_json import MAX_RECORD_BYTES, MOST_SAMPLED

    assert 2 * MOST_SAMPLED < published.MAX_METRIC_LINES
    assert MAX_RECORD_BYTES >= 2**20
