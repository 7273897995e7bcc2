"""What a model card says about the base model: its name on the Hub, its licence, how to load and call it.

The licence is the base's own word: the front matter of its README. A base from the Hub whose card is not on
this machine keeps its licence by name and address, because an adapter never loosens what it was made from.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import ModelCard, constants, try_to_load_from_cache

from trainers.assets import asset_root
from trainers.models import MODELS


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
    """

    name: str
    title: str
    hub_id: str
    license: str
    license_name: str = ""
    license_link: str = ""
    load: dict = field(default_factory=dict)
    pipeline: str = ""

    @property
    def embedded(self) -> bool:
        """Whether it is a folder of this project."""
        return not self.hub_id and self.name in MODELS


def describe(name: str) -> Base:
    """Return what is known of a base model without asking the Hub.

    Args:
        name: Of the model table, a Hub id, or the path of a folder.

    Raises:
        InputError: There is no such model.
    """
    spec = None if "/" in name and name not in MODELS else MODELS.get(name)
    location = spec.location if spec else name
    folder = asset_root() / location
    hub_id = "" if folder.is_dir() else location
    title = spec.title if spec else name.rpartition("/")[2]
    readme = folder / "README.md" if not hub_id else try_to_load_from_cache(location, "README.md")
    return Base(
        name=Path(name).name if os.path.isabs(name) else name,
        title=title,
        hub_id=hub_id,
        load=_json(folder / "call.json").get("load", {}),
        pipeline=str(_json(folder / "model_index.json").get("_class_name", "")),
        **_licence(readme, hub_id),
    )


def project_address() -> str:
    """Return where this app's own files are on the Hub, when it runs as a Space; else empty."""
    space = os.environ.get("SPACE_ID", "")
    return f"{constants.ENDPOINT}/spaces/{space}" if space else ""


def _licence(readme: object, hub_id: str) -> dict[str, str]:
    text = Path(readme).read_text(encoding="utf-8") if isinstance(readme, str | Path) else ""
    data = ModelCard(text).data if text.startswith("---") else None
    if data is not None and data.license:
        names = {"license_name": data.license_name, "license_link": data.license_link}
        return {"license": str(data.license), **{key: str(value or "") for key, value in names.items()}}
    link = f"{constants.ENDPOINT}/{hub_id}" if hub_id else ""
    return {"license": "other", "license_name": "that-of-the-base-model", "license_link": link}


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
