"""What a model card says about the base model: its name on the Hub, its licence, how to load and call it.

The licence is the base's own word: that of the model table, else the front matter of its README, which the
Hub is asked for when something is pushed. Where it cannot be had, the card points to the base model's page,
because an adapter never loosens what it was made from.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, constants, try_to_load_from_cache

from rsm_app.hub.licenses import OTHER, license_id, license_name
from rsm_app.hub.problems import HubProblem, told
from rsm_app.hub.sign_in import Token
from rsm_app.hub.wire import conversation
from trainers.assets import asset_root
from trainers.models import MODELS, ModelSpec
from trainers.models.families import FAMILIES
from trainers.models.folders import place_of
from trainers.models.spec import load_arguments

UNKNOWN = "that-of-the-base-model"
_ADDRESS = re.compile(r"https?://[^\s<>()\"']{1,500}")
_FILE = re.compile(r"[\w.+-][\w./+-]{0,199}")


@dataclass(frozen=True)
class Base:
    """One base model as its users see it.

    Attributes:
        name: Its name in the model table, its Hub id, or the last part of its folder's path.
        title: Its label.
        hub_id: Its repository on the Hub; empty for a folder of this project or of this machine.
        license: The Hub's identifier of its licence.
        license_name: What the licence is called when the identifier is ``other``.
        license_link: Where its text is, likewise.
        load: Arguments of ``DiffusionPipeline.from_pretrained``.
        pipeline: The name of its diffusers pipeline, for example ``StableDiffusion3Pipeline``.
        embedded: Whether it is a folder of this project.
        peft: Whether PEFT reads its LoRA, because diffusers does not.
    """

    name: str
    title: str
    hub_id: str
    license: str
    license_name: str = ""
    license_link: str = ""
    load: dict = field(default_factory=dict)
    pipeline: str = ""
    embedded: bool = False
    peft: bool = False

    @property
    def licence_known(self) -> bool:
        """Whether anything is known of its licence."""
        return self.license_name != UNKNOWN


def describe(name: str) -> Base:
    """Return what is known of a base model without asking the Hub, if its index is on this machine.

    Args:
        name: Of the model table, a Hub id, or the path of a folder.

    Raises:
        InputError: There is no such model.
    """
    spec = MODELS.get(name)
    folder = asset_root() / spec.location if spec.embedded else place_of(spec.location)
    hub_id = "" if folder else spec.location
    readme = folder / "README.md" if folder else try_to_load_from_cache(spec.location, "README.md")
    return Base(
        name=folder.name if folder and not spec.embedded else name,
        title=spec.title,
        hub_id=hub_id,
        load=_read(folder / "call.json").get("load", {}) if spec.embedded else load_arguments(spec),
        pipeline=spec.pipeline_class,
        embedded=spec.embedded,
        peft=FAMILIES[spec.pipeline_class].peft,
        **(_licence_of_table(spec) if spec.licence_id else _licence(_front_matter(readme), hub_id)),
    )


def asked(base: Base, token: Token, endpoint: str | None = None) -> Base:
    """Return a base model with the licence that its page on the Hub tells, if it is not known yet.

    A Hub that refuses or is silent does not keep a LoRA from being published; the card says it then.
    """
    if not base.hub_id or base.licence_known:
        return base
    try:
        with conversation(), told():
            card = HfApi(endpoint=endpoint, token=token.reveal()).model_info(base.hub_id).card_data
    except HubProblem:
        return base
    return dataclasses.replace(base, **_licence(card.to_dict() if card else {}, base.hub_id))


def project_address() -> str:
    """Return where this app's own files are on the Hub, when it runs as a Space; else empty."""
    space = os.environ.get("SPACE_ID", "")
    return f"{constants.ENDPOINT}/spaces/{space}" if space else ""


def _licence_of_table(spec: ModelSpec) -> dict[str, str]:
    page = f"{constants.ENDPOINT}/{spec.location}"
    link = f"{page}/blob/main/{spec.licence_file}" if spec.licence_file else page
    name = spec.licence_name
    return {"license": spec.licence_id, "license_name": name, "license_link": link if name else ""}


def _licence(data: Mapping[str, Any], hub_id: str) -> dict[str, str]:
    """Return the licence that a card's metadata tells, as the metadata of an adapter's card.

    Args:
        data: The base model's metadata; empty when there is none.
        hub_id: Its repository; empty for a folder of this machine, which has no addresses.
    """
    given = data.get("license") or []
    names = [str(name) for name in (given if isinstance(given, list) else [given])]
    known = [license_id(name) for name in names]
    if len(names) == 1 and known[0] not in (None, OTHER):
        return {"license": known[0], "license_name": "", "license_link": ""}
    said = "-and-".join(identifier or name for identifier, name in zip(known, names, strict=True))
    name = license_name(str(data.get("license_name") or said))
    return {
        "license": OTHER,
        "license_name": name if name not in ("", OTHER) else UNKNOWN,
        "license_link": _license_link(str(data.get("license_link") or ""), hub_id),
    }


def _license_link(link: str, hub_id: str) -> str:
    """Return where a license's text is: its address, else a file of the model's page, else that page."""
    if _ADDRESS.fullmatch(link):
        return link
    page = f"{constants.ENDPOINT}/{hub_id}" if hub_id else ""
    return f"{page}/blob/main/{link}" if page and _FILE.fullmatch(link) else page


def _front_matter(readme: object) -> dict[str, Any]:
    """Return the metadata of a README; empty when there is none, or none that can be read."""
    try:
        text = Path(readme).read_text(encoding="utf-8") if isinstance(readme, str | Path) else ""
        return ModelCard(text).data.to_dict() if text.startswith("---") else {}
    except Exception:  # whatever YAML a stranger wrote
        return {}


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
