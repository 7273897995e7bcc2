"""What the Hub documents about a model card's metadata, as far as it can be checked without the Hub."""

from __future__ import annotations

import re

from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id

LICENSES = {
    *(
        "apache-2.0",
        "mit",
        "openrail",
        "openrail++",
        "creativeml-openrail-m",
        "bigscience-openrail-m",
        "cc-by-4.0",
    ),
    *("cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0", "bsd-3-clause", "gpl-3.0", "unknown", "other"),
}
RELATIONS = {"adapter", "finetune", "merge", "quantized"}
REQUIRED = ("license", "library_name", "pipeline_tag", "tags", "widget", "model-index")


def metadata_errors(text: str) -> list[str]:
    """Say what the Hub would refuse in a README; empty when nothing."""
    if not REGEX_YAML_BLOCK.search(text):
        return ["There is no metadata block."]
    try:
        data = ModelCard(text).data.to_dict()
    except Exception as error:
        return [f"The metadata cannot be read: {type(error).__name__}."]
    found = [f'"{name}" is required' for name in REQUIRED if not data.get(name)]
    if data.get("license") not in LICENSES:
        found.append(f'"license" must be one of the known identifiers, not {data.get("license")!r}')
    if data.get("license") == "other" and not data.get("license_name"):
        found.append('"license_name" is required with the licence "other"')
    if "license_name" in data and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", data["license_name"]):
        found.append('"license_name" must be lower case, with dots and dashes')
    base = data.get("base_model")
    if base is not None:
        try:
            validate_repo_id(base)
        except ValueError:
            found.append('"base_model" with this value is not valid. Use a model id')
    if data.get("base_model_relation") not in (None, *RELATIONS) or (
        data.get("base_model_relation") and not base
    ):
        found.append('"base_model_relation" is not allowed here')
    tags = data.get("tags") or []
    if not all(isinstance(tag, str) and 0 < len(tag) < 100 for tag in tags):
        found.append('"tags" must be short texts')
    for widget in data.get("widget") or []:
        if not isinstance(widget.get("text"), str) or not isinstance(
            widget.get("output", {}).get("url"), str
        ):
            found.append('"widget" entries need a text and an output url')
    try:
        _, results = model_index_to_eval_results(data["model-index"])
        if not all(isinstance(result.metric_value, int | float) for result in results):
            found.append('"model-index" has a metric that is no number')
    except (KeyError, TypeError, ValueError):
        found.append('"model-index" cannot be parsed')
    return found
