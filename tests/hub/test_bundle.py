"""What is pushed: exactly this, nothing of the machine, and a card that keeps the Hub's rules."""

import getpass
import json
import re
import shutil
from types import SimpleNamespace

import huggingface_hub.constants as hub_constants
import pytest
from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt
from PIL import Image

from rsm_app.hub.bases import describe
from rsm_app.hub.bundle import bundle
from rsm_app.hub.card_words import plain
from rsm_app.hub.push import Push
from tests.e2e.shell import ROOT, lines, read
from tests.hub.card_rules import LICENSES, metadata_errors
from tests.hub.conftest import REPO
from trainers.adapter_file import WEIGHTS
from trainers.errors import InputError
from trainers.models import MODELS
from trainers.models.spec import load_arguments
from trainers.presets import build_config
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


def expect_nothing_of_the_machine(whole, run):
    everything = b"".join(content(whole, file.path) for file in whole.files)
    status = read(run / "status.json")
    told = [str(run), str(run.parent), str(ROOT), status["pid_identity"], f'"pid": {status["pid"]}']
    assert not [text for text in told if text.encode() in everything]
    text = b"".join(
        content(whole, f.path) for f in whole.files if not f.path.endswith((".png", "safetensors"))
    )
    assert not re.search(rb"/(root|home|tmp|Users)/", text)
    assert len(getpass.getuser()) < 5 or getpass.getuser().encode() not in text


def test_nothing_of_the_machine_is_in_any_file(whole, trained):
    assert json.loads(content(whole, "config.json"))["prompts"] == "prompts.txt"
    assert "instance_prompt" not in ModelCard(whole.card).data.to_dict()  # it says what a LoRA was trained on
    expect_nothing_of_the_machine(whole, trained)


def test_nothing_of_the_machine_is_in_any_file_of_a_run_on_parts_of_its_owner(own_parts):
    """A base folder, and functions in a file: in a mixture, and among what was not optimised."""
    whole = bundle(own_parts, REPO)
    expect_nothing_of_the_machine(whole, own_parts)
    settings, report = (json.loads(content(whole, f"{name}.json")) for name in ("config", "report"))
    mixture = "brightness:0.5,mine.py:redness:2,mine.py:darkness"
    assert settings["reward"] == report["reward"] == mixture and f"--reward {mixture}" in whole.card
    assert settings["others"] == "mine.py:darkness,colorfulness"
    assert set(report["after"]["others"]) == {"mine.py:darkness", "colorfulness"}
    assert "a function in the file mine.py, which is no part of this repository" in whole.card
    _, results = model_index_to_eval_results(ModelCard(whole.card).data.to_dict()["model-index"])
    assert {result.metric_type for result in results} == {mixture, "mine.py:darkness", "colorfulness"}


def test_nothing_of_the_machine_is_in_any_file_where_the_reward_is_one_function(run, tmp_path):
    own = str(tmp_path / "my things" / "mine.py:score")
    for name in ("config", "report"):
        write_json(run / f"{name}.json", read(run / f"{name}.json") | {"reward": own})
    whole = bundle(run, REPO)
    expect_nothing_of_the_machine(whole, run)
    _, results = model_index_to_eval_results(ModelCard(whole.card).data.to_dict()["model-index"])
    assert results[0].metric_type == "mine.py:score"


def test_addresses_of_endpoints_and_names_of_secrets_are_not_published(run):
    own = {"server_url": "http://10.0.0.7:1/score?key=S3CRET", "judge_url": "https://ann:S3CRET@judge/v1"}
    own |= {"judge_key_variable": "ANNS_JUDGE_SECRET", "others": "server,judge"}
    write_json(run / "config.json", read(run / "config.json") | own)
    whole = bundle(run, REPO)
    everything = b"".join(content(whole, file.path) for file in whole.files)
    assert not re.search(b"S3CRET|10.0.0.7|ANNS_|server_url|judge_url|judge_key_variable", everything)
    assert "set RSM\\_REWARD\\_SERVER to one of your own" in whole.card and "RSM\\_JUDGE\\_URL" in whole.card


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


@pytest.fixture
def hub_base(hub, run, monkeypatch, tmp_path):
    """A model of the Hub as the base of the run: its index is in this machine's cache, its card is not."""
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    index = (ROOT / "assets" / "tiny-flow" / "model_index.json").read_bytes()
    repo = hub.store.repos.setdefault("someone/big", {"private": False, "commits": []})

    def write(card):
        files = {"model_index.json": index, "README.md": card.encode()}
        hub.store.commit(repo, {name: hub.store.keep(text) for name, text in files.items()}, "model")

    write("---\nlicense: cc-by-4.0\n---\n")
    hf_hub_download("someone/big", "model_index.json", endpoint=hub.url)
    for name in ("config", "report"):
        write_json(run / f"{name}.json", read(run / f"{name}.json") | {"model": "someone/big"})
    return SimpleNamespace(repo=repo, write=write)


def card_data(text):
    assert metadata_errors(text) == []
    return ModelCard(text).data.to_dict()


def test_a_base_from_the_hub_is_linked_and_its_licence_asked_for(hub, run, hub_base, writer):
    known = bundle(run, REPO, writer, hub.url).card
    data = card_data(known)
    assert (data["base_model"], data["base_model_relation"]) == ("someone/big", "adapter")
    assert data["license"] == "cc-by-4.0" and "license_name" not in data and "toy" not in known
    assert 'from_pretrained("someone/big", dtype=torch.bfloat16).to("cuda")' in known
    page = "https://huggingface.co/someone/big"
    own = "license: other\nlicense_name: Big Licence\nlicense_link: LICENSE.md"
    for told, name, link in (
        (own, "big-licence", f"{page}/blob/main/LICENSE.md"),
        ("license: [mit, apache-2.0]", "mit-and-apache-2.0", page),
        ("tags: [x]", "that-of-the-base-model", page),
    ):
        hub_base.write(f"---\n{told}\n---\n")
        data = card_data(bundle(run, REPO, writer, hub.url).card)
        assert (data["license"], data["license_name"], data["license_link"]) == ("other", name, link)


def test_a_base_whose_licence_cannot_be_asked_for_is_pointed_to(hub, run, hub_base, writer):
    asked = len(hub.lines())
    unasked = bundle(run, REPO).card
    assert len(hub.lines()) == asked
    hub.fail({"match": "GET /api/models/someone/big", "status": 503})
    for card in (unasked, bundle(run, REPO, writer, hub.url).card):
        assert card_data(card)["license_name"] == "that-of-the-base-model"
        assert "could not be read when this card was written: it stands on [its page](https://" in card


def test_a_gated_base_does_not_keep_its_lora_from_being_pushed_since_only_that_is_sent(
    hub, run, hub_base, writer
):
    """Whether the Hub tells a gated model's licence, as it does, or refuses even that."""
    hub_base.repo["gated"] = True
    status = Push(run, REPO, writer, endpoint=hub.url).run()
    assert status.state == "succeeded" and "cc-by-4.0" in hub.files(REPO)["README.md"].decode()
    hub.fail({"match": "GET /api/models/someone/big", "status": 403, "code": "GatedRepo"})
    assert Push(run, REPO, writer, endpoint=hub.url).run().state == "succeeded"
    assert "could not be read when this card was written" in hub.files(REPO)["README.md"].decode()


@pytest.mark.parametrize("name", [name for name in MODELS.names() if not MODELS.get(name).embedded])
def test_models_of_the_table_are_called_with_their_licence_and_as_the_engine_loads_them(name):
    base, spec = describe(name), MODELS.get(name)
    assert base.license in LICENSES and base.licence_known and base.hub_id == spec.location
    assert (base.license == "other") == bool(base.license_name) == bool(base.license_link)
    assert base.load == load_arguments(spec) and base.peft == (spec.pipeline_class == "PixArtSigmaPipeline")


def test_a_base_that_is_a_folder_of_this_machine_is_called_one(own_parts, monkeypatch):
    """Wherever the command was given from, and whatever its README is: it has none here."""
    config = read(own_parts / "config.json")
    assert config["model"] == str(own_parts.parent / "my-base")
    whole = bundle(own_parts, REPO)
    assert metadata_errors(whole.card) == []
    assert "local folder called my-base, which only its owner can pass on" in whole.card
    assert "base_model" not in ModelCard(whole.card).data.to_dict() and "a toy of" not in whole.card
    assert "--model my-base --reward" in whole.card and "| `kl_weight` |" in whole.card
    monkeypatch.chdir(own_parts.parent)
    built = [build_config(name, "grpo", "brightness", {}) for name in ("./my-base", "../my things/my-base")]
    assert {config.model for config in built} == {str(own_parts.parent / "my-base")}
    for readme in ("---\nlicense: [\n---\n", "no metadata", "---\nlicense: mit\n---\n"):
        (own_parts.parent / "my-base" / "README.md").write_text(readme)
        base = describe("./my-base")
        assert (base.name, base.hub_id, base.embedded) == ("my-base", "", False)
        assert base.license == ("mit" if "mit" in readme else "other")
    (own_parts.parent / "my-base" / "README.md").unlink()


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
