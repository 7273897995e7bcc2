"""The model card: metadata that the Hub reads, and a page that says what was done, what came of it and what
not.

Every number comes from the run's report. What a stranger needs first stands first: pictures, how to use it,
what changed; then how it was trained, its limits, and how to make it again.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from rsm_app.hub.bases import Base, project_address
from rsm_app.hub.card_words import bracketed, fenced, limits, measures, plain, reward_title, summary
from rsm_app.hub.front_matter import front_matter
from rsm_app.hub.lettering import shows
from rsm_app.hub.records import Recipe
from trainers.bounded_json import MOST_SAMPLED
from trainers.cautions import which
from trainers.cli import command_for
from trainers.custom import method_of
from trainers.method_docs import settings as method_settings

__all__ = ["PICTURE", "Facts", "Pair", "card_data", "reward_title", "write_card"]

TAGS = (
    "text-to-image",
    "diffusers",
    "diffusers-training",
    "lora",
    "template:sd-lora",
    "template:diffusion-lora",
)
TAGS += ("reward-score-matching", "rsm-studio")
PICTURE = re.compile(r"images/\d{2,4}-(before|after)\.png")
_TASK = "text-to-image"
_LOSS = "L = W1·‖ o_θ − (o_anchor + γ·G) ‖² + W2·‖ o_θ − o_old ‖² + β·κ·‖ o_θ − o_ref ‖²"
_BASICS = (
    "seed",
    "learning_rate",
    "lora_rank",
    "lora_alpha",
    "kl_weight",
    "rollout_steps",
    "prompts_per_update",
)


@dataclass(frozen=True)
class Pair:
    """One held-out prompt before and after.

    Attributes:
        number: Its number on the card, from 1.
        prompt: The prompt.
        seed: Seed of both pictures.
        rewards: The optimised reward before and after.
        pictures: Files of both pictures.
    """

    number: int
    prompt: str
    seed: int
    rewards: tuple[float, float]
    pictures: tuple[Path, Path]

    @property
    def names(self) -> tuple[str, str]:
        """The two pictures' paths in the repository."""
        return f"images/{self.number:02d}-before.png", f"images/{self.number:02d}-after.png"

    @property
    def files(self) -> tuple[tuple[str, Path], ...]:
        """Path in the repository and file, of both pictures."""
        return tuple(zip(self.names, self.pictures, strict=True))

    @property
    def sources(self) -> tuple[str, Path, Path]:
        """Prompt, picture before, picture after."""
        return (self.prompt, *self.pictures)

    def record(self) -> dict:
        """Return the pair as one line of ``images/pairs.jsonl``."""
        rewards = {"reward_before": self.rewards[0], "reward_after": self.rewards[1]}
        names = dict(zip(("before", "after"), self.names, strict=True))
        return {"index": self.number - 1, "prompt": self.prompt, "seed": self.seed, **rewards, **names}


@dataclass(frozen=True)
class Facts:
    """What a card is written from.

    Attributes:
        repo: The repository's full name.
        made: The settings, as published.
        report: The report, likewise.
        base: The base model.
        pairs: The pairs shown.
        has_curve: Whether there is a picture of the reward's curve.
        metric_lines: Lines of ``metrics.jsonl``; of a very long run fewer than updates.
    """

    repo: str
    made: Recipe
    report: Mapping
    base: Base
    pairs: tuple[Pair, ...]
    has_curve: bool
    metric_lines: int = 0


def write_card(facts: Facts) -> str:
    """Return the whole README, front matter included."""
    sections = [
        f"# {facts.repo.rpartition('/')[2]}",
        summary(facts.report, facts.base.title, facts.made.config),
        "<Gallery />",
        _pairs(facts),
        _usage(facts),
        _results(facts),
        _training(facts),
        "## Limits\n\n"
        + "\n".join(f"- {text}" for text in limits(facts.report, facts.base, facts.made.config)),
        _again(facts),
        _licence(facts.base),
    ]
    return f"{front_matter(card_data(facts).to_dict())}\n" + "\n\n".join(sections) + "\n"


def card_data(facts: Facts) -> ModelCardData:
    """Return the metadata; a base that is a folder of this project has no name that the Hub could link."""
    base = facts.base
    linked = {"base_model": base.hub_id, "base_model_relation": "adapter"} if base.hub_id else {}
    named = {"license_name": base.license_name, "license_link": base.license_link}
    named = {key: value for key, value in named.items() if value}
    return ModelCardData(
        license=base.license,
        library_name="diffusers",
        pipeline_tag=_TASK,
        tags=[*TAGS, base.name.rpartition("/")[2]],
        widget=[{"text": p.prompt, "output": {"url": p.names[1]}} for p in facts.pairs],
        model_name=facts.repo.rpartition("/")[2],
        eval_results=_evaluations(facts),
        **named,
        **linked,
    )


def _evaluations(facts: Facts) -> list[EvalResult]:
    """Return before and after of every reward, as entries of the model index."""
    prompts = facts.made.config.heldout_prompts
    shown = facts.report.get("paired", {}).get("n", 0)
    return [
        EvalResult(
            task_type=_TASK,
            task_name="Text to image",
            dataset_type=prompts,
            dataset_name=f"{prompts} ({shown} {which(facts.report, 'pictures')})",
            metric_type=name,
            metric_name=f"{title} {when}",
            metric_value=round(value, 6),
        )
        for name, title, values in measures(facts.report)
        for when, value in zip(("before training", "after training"), values, strict=True)
    ]


def _pairs(facts: Facts) -> str:
    hidden = [f"{pair.number}. {plain(pair.prompt)}" for pair in facts.pairs if not shows(pair.prompt)]
    listed = "\n\nPrompts that the picture cannot show in full:\n\n" + "\n".join(hidden) if hidden else ""
    return (
        "## Before and after\n\n"
        "![Pairs of pictures of the same prompt and seed, before on the left](images/grid.png)\n\n"
        f"Left the base model, right with this LoRA, at the same seed. These are the first "
        f"{len(facts.pairs)} {which(facts.report, 'prompts')}, with the first seed of each; "
        f"nothing was picked.{listed}"
    )


def _usage(facts: Facts) -> str:
    base, pair = facts.base, facts.pairs[0]
    call = dict(facts.report.get("sampling") or {})
    arguments = "".join(f", {name}={value!r}" for name, value in call.items())
    lines = (
        "import torch",
        "from diffusers import DiffusionPipeline",
        *(["from peft import PeftModel"] if base.peft else []),
        "",
        *_loading(facts),
        "",
        f'generator = torch.Generator("cpu").manual_seed({pair.seed})',
        f"image = pipe({pair.prompt!r}, generator=generator{arguments}).images[0]",
        'image.save("after.png")',
    )
    code = "\n".join(lines)
    exact = "" if base.embedded else ", up to what a device or a precision other than the run's changes"
    got = "" if base.hub_id else f"\n\n{_how_to_get(base)}"
    return f"## Use it\n\n{fenced(code, 'python')}\n\nThis draws the first pair's right picture{exact}.{got}"


def _loading(facts: Facts) -> tuple[str, str]:
    """Return the two lines that load base model and LoRA, as the run's own comparison loads them."""
    base, repo = facts.base, json.dumps(facts.repo)
    on_gpu = not base.embedded and facts.made.config.device != "cpu"
    place = base.hub_id or (f"assets/{base.name}" if base.embedded else base.name)
    given = [json.dumps(place), *(f"{name}={value!r}" for name, value in base.load.items())]
    given += ["dtype=torch.bfloat16"] if on_gpu else []
    moved = '.to("cuda")' if on_gpu else ""
    adapted = f"PeftModel.from_pretrained(pipe.transformer, {repo}).get_base_model()"
    return (
        f"pipe = DiffusionPipeline.from_pretrained({', '.join(given)}){moved}",
        f"pipe.transformer = {adapted}" if base.peft else f"pipe.load_lora_weights({repo})",
    )


def _how_to_get(base: Base) -> str:
    address, folder = project_address(), f"assets/{base.name}"
    if not base.embedded:
        return (
            f"The base model is no repository on the Hub but a local folder called {plain(base.name)}, which "
            "only its owner can pass on."
        )
    if address:
        space = address.partition("/spaces/")[2]
        return (
            "The base model is no repository of its own but a small folder of the "
            f"[app that trained this]({address}), which "
            f"`hf download {space} --repo-type space --include '{folder}/*' --local-dir .` fetches."
        )
    return (
        f"The base model is no repository of its own but the folder `{folder}` of RSM Studio, the project "
        "that trained this: run the lines in a checkout of it."
    )


def _results(facts: Facts) -> str:
    rows = [f"| on {which(facts.report, 'prompts')} | before | after | change |", "|---|---|---|---|"]
    for number, (_, title, (before, after)) in enumerate(measures(facts.report)):
        kind = "optimised" if number == 0 else "not optimised"
        rows.append(f"| {plain(title)} ({kind}) | {before:.3f} | {after:.3f} | {after - before:+.3f} |")
    sides = [facts.report.get(side, {}).get("diversity") for side in ("before", "after")]
    if all(isinstance(side, int | float) for side in sides):
        before, after = sides
        rows.append(
            f"| diversity (distance between pictures of one prompt) | {before:.3f} | {after:.3f} "
            f"| {after - before:+.3f} |"
        )
    if isinstance(facts.report.get("drift"), int | float):
        rows.append(f"| drift from the base model | 0 | {facts.report['drift']:.3f} | |")
    curve = "\n\n![Reward over the updates](images/reward.png)" if facts.has_curve else ""
    return "## What changed\n\n" + "\n".join(rows) + f"\n\n{bracketed(facts.report)}{curve}"


def _training(facts: Facts) -> str:
    config, report = facts.made.config, facts.report
    method = method_of(config)
    rows = method_settings(method)
    rows.pop("own settings", None)
    names = dict.fromkeys((*_BASICS, *facts.made.changed))
    shown = {f"`{name}`": _value(getattr(config, name)) for name in names if name not in ("prompts", "row")}
    table = "\n".join(f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows.items())
    more = "\n".join(f"| {name} | {plain(value)} |" for name, value in shown.items())
    start = f" {facts.made.origin}" if facts.made.origin else ""
    return (
        f"## How it was trained\n\nMethod: **{method.title}** (`{method.name}`). {method.idea}{start}\n\n"
        f"One loss, of which every method is a row (reward score matching, arXiv 2604.17415):\n\n"
        f"{fenced(_LOSS, 'text')}\n\n| part | this method |\n|---|---|\n{table}\n\n"
        f"{report.get('updates', 0)} updates on {report.get('images_sampled', 0)} sampled pictures, "
        f"{report.get('network_evaluations', 0)} network evaluations, "
        f"{report.get('wall_seconds', 0.0):.0f} s in all.\n\n"
        f"| setting | value |\n|---|---|\n{more}"
    )


def _again(facts: Facts) -> str:
    made = facts.made
    command = command_for(made.config, "runs/again", made.changed)
    if made.source:
        fetch = f"python -m rsm_app.hub fetch {shlex.quote(made.source)} --out runs/start"
        command = f"{fetch}\n{command} --from-adapter runs/start"
    missing = "".join(f"\n\n{plain(text)}" for text in made.missing)
    updates = facts.report.get("updates", 0)
    sampled = facts.metric_lines >= MOST_SAMPLED and facts.metric_lines < updates
    kept = f" Of the {updates:,} updates it keeps {facts.metric_lines:,}." if sampled else ""
    return (
        "## Make it again\n\nIn a checkout of RSM Studio, beside the files of this repository:\n\n"
        f"{fenced(command, 'sh')}{missing}\n\n"
        "The budget is in seconds, so another machine does another number of updates; `max_updates` fixes "
        f"it. `config.json`, `report.json` and `metrics.jsonl` are the run's own records.{kept}"
    )


def _licence(base: Base) -> str:
    name = base.license_name if base.license == "other" else base.license
    link = f" ([text]({base.license_link}))" if base.license_link else ""
    if base.licence_known:
        return f"## Licence\n\nThat of the base model, {plain(base.title)}: {plain(name)}{link}."
    where = f"stands on [its page]({base.license_link})" if base.license_link else "is with its owner"
    return (
        f"## Licence\n\nThat of the base model, {plain(base.title)}, which could not be read when this card "
        f"was written: it {where}."
    )


def _value(value: object) -> str:
    return (
        ", ".join(map(str, value))
        if isinstance(value, tuple)
        else "the model's own"
        if value is None
        else str(value)
    )
