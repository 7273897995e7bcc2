"""Where a row's defaults differ from the published ones, and where presets differ from the row; torch-free.

Values are effective ones: what ``auto`` and empty settings come to on a model. Every setting has a value for
each of ``published.KINDS`` of rewards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from trainers.assets import asset_root
from trainers.config import FIELDS
from trainers.custom import CUSTOM
from trainers.deviations import REASONS
from trainers.deviations_embedded import EMBEDDED
from trainers.method import DIFFUSION, FLOW, Method
from trainers.methods import METHODS
from trainers.models import MODELS, ModelSpec
from trainers.presets import default_config
from trainers.published import Published, Values
from trainers.published_diffusion import PUBLISHED_DIFFUSION
from trainers.published_flow import PUBLISHED_FLOW
from trainers.published_forward import PUBLISHED_FORWARD

TARGETS, LAST_STEP = "lora_targets", "last_step"
PUBLISHED = (*PUBLISHED_FLOW, *PUBLISHED_FORWARD, *PUBLISHED_DIFFUSION)
AUTO_KERNELS = {FLOW: "flow_sde", DIFFUSION: "ddim"}
_MODELS = {FLOW: ("sd35-medium", "tiny-flow"), DIFFUSION: ("sd15", "tiny-diffusion")}
# A reward of each of KINDS, for large and for embedded models.
_REWARDS = {
    False: ("pick_score", "geneval", "ocr", "colorfulness"),
    True: ("tiny_clip", "shapes", "ocr", "colorfulness"),
}
_BY_REWARD = ("prompts", "heldout_prompts")  # these follow the reward, not the row


@dataclass(frozen=True)
class Line:
    """One setting of a row on a family.

    Attributes:
        field: Its name in ``RunConfig`` or ``Method``, or ``lora_targets``.
        published: The published values; None where there is no number.
        words: What is said of it.
        ours: The values of the reference model and those of the embedded one.
        models: Those of these models on which ours differ from the published.
        reasons: Why, one per model; "" where nobody has said it.
        usual: Those of ``models`` that begin with what they have for every row.
    """

    field: str
    published: Values
    words: str
    ours: tuple[Values, ...]
    models: tuple[str, ...]
    reasons: tuple[str, ...]
    usual: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether there is a published number."""
        return self.published[0] is not None

    @property
    def agrees(self) -> bool:
        """Whether both models begin with what is published."""
        return not self.models


@dataclass(frozen=True)
class Change:
    """A setting in which a preset differs from its row, or a model from the reference model."""

    model: str
    field: str
    values: Values
    reason: str


def published(method: str, family: str) -> Published | None:
    """Return what is known of a row on a family; None where no program was read."""
    return next((one for one in PUBLISHED if (one.method, one.family) == (method, family)), None)


def reference(family: str) -> tuple[str, str]:
    """Return the reference model and the embedded model of a family."""
    return _MODELS[family]


def lines(method: Method, family: str) -> list[Line]:
    """Compare a row with what is published, setting by setting, in the order of ``RunConfig``."""
    known = published(method.name, family)
    names = set(known.fields) if known else set()
    for model in MODELS:
        if model.family == family:
            names |= {name for name in changed(model.name, method)}
    found = [_line(method, family, name, known) for name in FIELDS if name in names]
    if known and known.targets:
        ours = [(MODELS.get(model).lora_targets,) for model in reference(family)]
        found.insert(0, _compared(method, family, TARGETS, (known.targets,), "", ours))
    for name, value in known.row.items() if known else ():
        ours = [(_of_row(method, model, name),) for model in reference(family)]
        found.append(_compared(method, family, name, (value,), "", ours))
    return found


def _line(method: Method, family: str, name: str, known: Published | None) -> Line:
    theirs = known.values(name) if known else (None,)
    words = known.words.get(name, "") if known else ""
    ours = [values(model, method, name) for model in reference(family)]
    return _compared(method, family, name, theirs, words, ours)


def _of_row(method: Method, model: str, name: str) -> Any:
    """Return what a row says of itself, as far as a model lets it."""
    said = getattr(method, name)
    return said and "skip" not in _raw(model, method, name) if name == LAST_STEP else said


def _compared(method: Method, family: str, name: str, theirs: Values, words: str, ours: list[Values]) -> Line:
    models = tuple(
        model
        for model, mine in zip(reference(family), ours, strict=True)
        if not _idle(method, model, name) and _differs(method, model, name, theirs, mine, words)
    )
    reasons = tuple(reason(method.name, model, name) for model in models)
    usual = tuple(model for model in models if _is_usual(method, model, name))
    return Line(name, theirs, words, tuple(ours), models, reasons, usual)


def _differs(method: Method, model: str, name: str, theirs: Values, mine: Values, words: str) -> bool:
    if theirs[0] is None:  # in words alone, or not known: then only what a preset changes wants a reason
        return bool(words) or name in changed(model, method)
    return not all(map(same, theirs, mine))


def _is_usual(method: Method, model: str, name: str) -> bool:
    """Whether an embedded model begins with what it has for every row, for a reason that holds for all."""
    key = _key(method.name, model, name)
    if not MODELS.get(model).embedded or key not in (("*", model, name), ("*", EMBEDDED, name)):
        return False
    return name == TARGETS or set(_raw(model, method, name)) == {_own(model, name)}


def _own(model: str, name: str) -> Any:
    """Return what a model begins with where no row says otherwise, as the config has it."""
    return MODELS.get(model).defaults.get(name, FIELDS[name].default)


def own(model: str, name: str) -> Any:
    """Return the effective value that a model begins with where no row says otherwise."""
    spec = MODELS.get(model)
    return spec.lora_targets if name == TARGETS else _effective(spec, None, name, _own(model, name))


def usual(family: str) -> dict[str, str]:
    """Return the settings that the embedded model of a family has for every row, and why."""
    model = reference(family)[1]
    found = {line.field for method in named(family) for line in lines(method, family) if model in line.usual}
    return {name: reason("*", model, name) for name in (TARGETS, *FIELDS) if name in found}


def named(family: str) -> list[Method]:
    """Return the rows that some paper defines for a family."""
    return [method for method in METHODS if method.name != CUSTOM and family in method.home]


def _idle(method: Method, model: str, name: str) -> bool:
    """Whether a setting has no effect on a model because another one is 0."""
    return name == "ema_every" and values(model, method, "ema_decay")[0] == 0


def same(first: Any, second: Any) -> bool:
    """Whether two settings are the same; further branches of 0 count as missing, modules have no order."""
    if isinstance(first, tuple) and isinstance(second, tuple):
        if first and isinstance(first[0], str):
            return set(first) == set(second)
        return _trimmed(first) == _trimmed(second)
    if isinstance(first, float) and isinstance(second, float | int):
        return math.isclose(first, second, rel_tol=1e-9)
    return first == second


def _trimmed(counts: tuple[int, ...]) -> tuple[int, ...]:
    return counts[: max((step + 1 for step, count in enumerate(counts) if count), default=0)]


def extensions(method: Method, family: str) -> list[Change]:
    """Return what presets change of a row on a family for which no paper defines it."""
    return [
        Change(model.name, name, values(model.name, method, name), reason(method.name, model.name, name))
        for model in MODELS
        if model.family == family
        for name in changed(model.name, method)
    ]


def other_models(method: Method, family: str) -> list[Change]:
    """Return the settings told of a row in which other models differ from the reference model."""
    first, embedded = reference(family)
    names = [line.field for line in lines(method, family) if line.field in FIELDS]
    found = []
    for model in MODELS:
        if model.family == family and model.name not in (first, embedded):
            for name in names:
                alike = all(map(same, _raw(first, method, name), _raw(model.name, method, name)))
                if not alike and not _idle(method, model.name, name):
                    mine = values(model.name, method, name)
                    found.append(Change(model.name, name, mine, reason(method.name, model.name, name)))
    return found


def everywhere(family: str) -> list[Change]:
    """Return what ``other_models`` finds for every row of a family about which something is published."""
    found = [other_models(method, family) for method in named(family) if published(method.name, family)]
    return [change for change in found[0] if all(change in changes for changes in found)]


def changed(model: str, method: Method) -> tuple[str, ...]:
    """Return the settings in which a model's presets differ from its own defaults under the row's."""
    spec = MODELS.get(model)
    base = {name: known.default for name, known in FIELDS.items()} | dict(spec.defaults)
    base |= method.defaults
    found = []
    for reward in _REWARDS[spec.embedded]:
        config = default_config(model, method.name, reward)
        found += [name for name in FIELDS if name in base and getattr(config, name) != base[name]]
    named = ("model", "estimator", "reward", *_BY_REWARD)
    return tuple(name for name in dict.fromkeys(found) if name not in named)


def values(model: str, method: Method, name: str) -> Values:
    """Return a setting's effective values, one per kind of reward."""
    spec = MODELS.get(model)
    return tuple(_effective(spec, method, name, value) for value in _raw(model, method, name))


def _raw(model: str, method: Method, name: str) -> Values:
    """Return a setting as the config has it, which may be ``auto`` or empty."""
    rewards = _REWARDS[MODELS.get(model).embedded]
    return tuple(getattr(default_config(model, method.name, reward), name) for reward in rewards)


def _effective(spec: ModelSpec, method: Method | None, name: str, value: Any) -> Any:
    if name == "guidance_scale" and value is None:
        return float(_call(spec).get(name, 1.0))
    if name == "resolution" and value == 0:
        return spec.call.get("height", spec.sizes[0])
    if name == "kernel" and value == "auto":
        return AUTO_KERNELS[spec.family]
    if name == "kl_scale" and value == "auto" and method:
        return method.kl_scale
    return value


def _call(spec: ModelSpec) -> dict[str, Any]:
    return _embedded_call(spec.location) if spec.embedded else dict(spec.call)


@cache
def _embedded_call(location: str) -> dict[str, Any]:
    return json.loads((asset_root() / location / "call.json").read_text(encoding="utf-8"))["call"]


def reason(method: str, model: str, name: str) -> str:
    """Return why a setting differs, by the most specific entry of ``deviations.REASONS``; "" without one."""
    key = _key(method, model, name)
    return REASONS[key] if key else ""


def _key(method: str, model: str, name: str) -> tuple[str, str, str] | None:
    return next((key for key in keys(method, model, name) if key in REASONS), None)


def keys(method: str, model: str, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield the keys under which a reason may stand, most specific first."""
    spec = MODELS.get(model)
    scopes = (model, *([EMBEDDED] if spec.embedded else []), spec.family, "*")
    for scope in scopes:
        for row in (method, "*"):
            yield row, scope, name


def explained() -> Iterator[tuple[str, str, str, str]]:
    """Yield (method, model, setting, reason) of everything on the page that needs a reason."""
    for method in METHODS:
        if method.name == CUSTOM:
            continue
        for family in method.families:
            if family in method.home:
                for line in lines(method, family):
                    for model, why in zip(line.models, line.reasons, strict=True):
                        yield method.name, model, line.field, why
                changes = other_models(method, family)
            else:
                changes = extensions(method, family)
            for change in changes:
                yield method.name, change.model, change.field, change.reason
