"""What is pushed: exactly this, nothing of the machine, and a card that keeps the Hub's rules."""

import getpass
import json
import re
import shutil

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt
from PIL import Image

from rsm_app.hub.bases import Base, describe
from rsm_app.hub.bundle import bundle
from rsm_app.hub.card_words import plain
from tests.e2e.shell import ROOT, lines, read
from tests.hub.card_rules import metadata_errors
from tests.hub.conftest import REPO
from trainers.adapter_file import WEIGHTS
from trainers.errors import InputError
from trainers.run_folder import write_json, write_lines

PICTURES = {f"images/{number:02d}-{side}.png" for number in range(1, 13) for side in ("before", "after")}


@pytest.fixture(scope="module")
def whole(trained):
    return bundle(trained, REPO)


def content(bundle, path):
    with bundle.file(path).open() as file:
        return file.read()


def test_exactly_what_is_documented_is_sent(whole):
    records = {"README.md", WEIGHTS, "config.json", "report.json", "metrics.jsonl", "prompts.txt"}
    drawn = {"images/grid.png", "images/reward.png", "images/pairs.jsonl"}
    assert {file.path for file in whole.files} == records | drawn | PICTURES
    assert all(len(content(whole, file.path)) == file.size for file in whole.files)
    assert whole.size == sum(file.size for file in whole.files)


def test_the_adapter_and_the_pictures_are_the_run_s_own(whole, trained):
    assert content(whole, WEIGHTS) == (trained / "adapter" / WEIGHTS).read_bytes()
    first = lines(trained / "samples" / "pairs.jsonl")[0]
    shown = [json.loads(line) for line in content(whole, "images/pairs.jsonl").splitlines()]
    assert shown[0]["prompt"] == first["prompt"] and shown[0]["seed"] == first["seed"]
    assert content(whole, shown[0]["after"]) == (trained / first["after"]).read_bytes()
    assert len({pair["prompt"] for pair in shown}) == 12


def test_nothing_of_the_machine_is_in_any_file(whole, trained):
    settings = json.loads(content(whole, "config.json"))
    assert settings["prompts"] == "prompts.txt"
    everything = b"".join(content(whole, file.path) for file in whole.files)
    status = read(trained / "status.json")
    told = [str(trained), str(trained.parent), str(ROOT), status["pid_identity"], f'"pid": {status["pid"]}']
    assert not [text for text in told if text.encode() in everything]
    text = b"".join(
        content(whole, f.path) for f in whole.files if not f.path.endswith((".png", "safetensors"))
    )
    assert not re.search(rb"/(root|home|tmp|Users)/", text)
    assert len(getpass.getuser()) < 5 or getpass.getuser().encode() not in text


def test_the_card_keeps_the_rules_and_its_pictures_are_sent(whole):
    assert metadata_errors(whole.card) == []
    card = ModelCard(whole.card)
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0" and data["pipeline_tag"] == "text-to-image"
    assert {"lora", "diffusers", "template:sd-lora"} <= set(data["tags"])
    sent = {file.path for file in whole.files}
    assert {widget["output"]["url"] for widget in data["widget"]} < sent and len(data["widget"]) == 12
    assert set(re.findall(r"\((images/[^)]+)\)", card.text)) <= sent
    assert "<Gallery />" in card.text


def test_the_model_index_is_the_report(whole, trained):
    report = read(trained / "report.json")
    name, results = model_index_to_eval_results(ModelCard(whole.card).data.to_dict()["model-index"])
    found = {(result.metric_type, result.metric_name.split()[-2]): result.metric_value for result in results}
    assert name == REPO.partition("/")[2]
    for side in ("before", "after"):
        assert found["brightness", side] == pytest.approx(report[side]["reward"]["mean"], abs=1e-6)
        for other, entry in report[side]["others"].items():
            assert found[other, side] == pytest.approx(entry["mean"], abs=1e-6)


def test_the_card_tells_gain_interval_method_command_and_limits(whole, trained):
    paired = read(trained / "report.json")["paired"]
    low = paired["mean_gain"] - 1.96 * paired["stderr"]
    for text in (f"{paired['mean_gain']:+.3f}", f"{low:+.3f}", "95 % interval", "rsm_zeroth_order_flow"):
        assert text in whole.card
    assert "python -m trainers train" in whole.card and "--prompts prompts.txt" in whole.card
    assert "arXiv 2604.17415" in whole.card and "## Limits" in whole.card and "not optimised" in whole.card
    assert "The comparison rests on 12 prompts" in whole.card


def test_the_card_is_sound_markdown(whole):
    html = MarkdownIt("commonmark").enable("table").render(ModelCard(whole.card).text)
    assert html.count("<table>") == 3 and html.count("<pre>") == 3 and html.count("<h2>") == 7
    assert "|---|" not in html


def test_a_prompt_cannot_write_into_the_page(run):
    nasty = 'a "red" `circle` <script>alert(1)</script> | # [x](y) --- \\'
    pairs = [pair | {"prompt": nasty} for pair in lines(run / "samples" / "pairs.jsonl")]
    write_lines(run / "samples" / "pairs.jsonl", pairs)
    card = bundle(run, REPO).card
    assert metadata_errors(card) == []
    assert ModelCard(card).data.to_dict()["widget"] == [
        {"text": nasty, "output": {"url": "images/01-after.png"}}
    ]
    assert "<script>" not in MarkdownIt("commonmark", {"html": True}).render(ModelCard(card).text).replace(
        "&lt;script&gt;", ""
    )
    shown = MarkdownIt("commonmark").renderInline(plain(nasty))
    assert "<a " not in shown and "<code" not in shown


def test_the_usage_snippet_is_valid_python(whole):
    block = re.search(r"```python\n(.*?)```", whole.card, re.DOTALL)[1]
    compile(block, "README.md", "exec")
    assert f'load_lora_weights("{REPO}")' in block and "text_encoder_3=None" in block


def test_a_base_from_the_hub_is_linked_with_its_licence(trained):
    base = Base(
        "someone/big", "Big", "someone/big", "other", "that-of-the-base-model", "https://x/someone/big"
    )
    card = bundle(trained, REPO, base).card
    data = ModelCard(card).data.to_dict()
    assert metadata_errors(card) == []
    assert (data["base_model"], data["base_model_relation"]) == ("someone/big", "adapter")
    assert data["license_name"] == "that-of-the-base-model" and "toy" not in card


def test_a_base_from_a_folder_of_this_machine_is_named_without_its_path(trained, tmp_path):
    shutil.copytree(ROOT / "assets" / "tiny-flow", tmp_path / "my-base")
    base = describe(str(tmp_path / "my-base"))
    assert (base.name, base.hub_id, base.embedded, base.license) == ("my-base", "", False, "apache-2.0")
    card = bundle(trained, REPO, base).card
    assert str(tmp_path) not in card and "only its owner can pass on" in card and "a toy of" not in card


@pytest.mark.parametrize("model", ["tiny-flow", "tiny-diffusion"])
def test_embedded_models_say_their_own_licence(model):
    base = describe(model)
    assert base.license == "apache-2.0" and not base.hub_id and base.pipeline.endswith("Pipeline")


def test_a_space_says_where_its_base_models_are(trained, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "ann/rsm-studio")
    assert (
        "hf download ann/rsm-studio --repo-type space --include 'assets/tiny-flow/*'"
        in bundle(trained, REPO).card
    )


def test_the_grid_shows_every_pair(whole, tmp_path):
    path = tmp_path / "grid.png"
    path.write_bytes(content(whole, "images/grid.png"))
    with Image.open(path) as grid:
        assert min(grid.size) > 4 * 144 and len(grid.convert("RGB").getcolors(10**6)) > 20


def remove_report(run):
    (run / "report.json").unlink()


def remove_adapter(run):
    shutil.rmtree(run / "adapter")


def cut_adapter(run):
    path = run / "adapter" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def remove_pictures(run):
    shutil.rmtree(run / "samples" / "after")


def fail(run):
    write_json(run / "status.json", {"state": "failed", "error": "x"})


def damage_settings(run):
    (run / "config.json").write_text('{"seed": "no number"}')


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (remove_report, "was not compared"),
        (remove_adapter, "no adapter yet"),
        (cut_adapter, "not a whole safetensors file"),
        (remove_pictures, "no before/after pictures"),
        (fail, "This run failed"),
        (damage_settings, "settings of this run"),
        (shutil.rmtree, "no run in this folder"),
    ],
)
def test_a_run_that_cannot_be_published_says_why(run, damage, sentence):
    damage(run)
    with pytest.raises(InputError, match=sentence):
        bundle(run, REPO)


def test_pictures_outside_the_run_are_never_sent(run, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    pairs = lines(run / "samples" / "pairs.jsonl")
    (run / pairs[2]["after"]).unlink()
    (run / pairs[2]["after"]).symlink_to(secret)
    write_lines(run / "samples" / "pairs.jsonl", [pairs[0] | {"after": "../../secret.png"}, *pairs[2:]])
    sent = bundle(run, REPO)
    assert not [file.path for file in sent.files if content(sent, file.path) == b"secret"]
