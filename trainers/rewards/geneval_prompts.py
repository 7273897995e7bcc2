"""What a GenEval prompt asks for: objects with counts, colours and places, read off its fixed sentences.
Torch-free.

The benchmark's prompts come from six templates, so their requirements can be read back from the text; a
prompt set in GenEval's own JSON lines (``{"prompt": …, "tag": …, "include": […]}``) says them itself.

Source: Ghosh, Hajishirzi, Schmidt, GenEval, 2023: object names of COCO, colours, numbers and positions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# In COCO's order, which is that of detectors' classes; a few names are GenEval's own.
OBJECTS = tuple(
    """person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|
parking meter|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|
suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|
tennis racket|bottle|wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|
hot dog|pizza|donut|cake|chair|couch|potted plant|bed|dining table|toilet|tv|laptop|computer mouse|tv remote|
computer keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|scissors|teddy bear|
hair drier|toothbrush""".replace("\n", "").split("|")
)
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
}
POSITIONS = ("left of", "right of", "above", "below")

_PLURALS = {f"{name}es" if name.endswith("s") else f"{name}s": name for name in OBJECTS}
_THING = rf"an? (?:({'|'.join(COLORS)}) )?({'|'.join(OBJECTS)})"
_COUNTED = re.compile(rf"a photo of ({'|'.join(NUMBERS)}) ({'|'.join(_PLURALS)})")
_PLACED = re.compile(rf"a photo of {_THING} ({'|'.join(POSITIONS)}) {_THING}")
_THINGS = re.compile(rf"a photo of {_THING}(?: and {_THING})?")


@dataclass(frozen=True)
class Thing:
    """One kind of object that has to be there.

    Attributes:
        name: One of ``OBJECTS``.
        count: How many.
        color: One of ``COLORS``, or empty for any.
        position: One of ``POSITIONS``, or empty for anywhere.
        target: Number of the thing that ``position`` refers to.
    """

    name: str
    count: int = 1
    color: str = ""
    position: str = ""
    target: int = 0


@dataclass(frozen=True)
class Request:
    """What a prompt asks for; ``counting`` marks those that are about numbers, where detections must be
    surer.
    """

    things: tuple[Thing, ...]
    counting: bool = False


def read_request(prompt: str, record: Mapping[str, Any] | None = None) -> Request | None:
    """Return what a prompt asks for, or None when it cannot be told.

    Args:
        prompt: The text.
        record: GenEval's own metadata of the prompt, if there is any.
    """
    if record and record.get("include"):
        return _from_record(record)
    text = prompt.strip().rstrip(".").lower()
    if counted := _COUNTED.fullmatch(text):
        number, plural = counted.groups()
        return Request((Thing(_PLURALS[plural], NUMBERS[number]),), counting=True)
    if placed := _PLACED.fullmatch(text):
        color, name, position, target_color, target = placed.groups()
        return Request(
            (Thing(target, color=target_color or ""), Thing(name, color=color or "", position=position))
        )
    if things := _THINGS.fullmatch(text):
        color, name, other_color, other = things.groups()
        others = (Thing(other, color=other_color or ""),) if other else ()
        return Request((Thing(name, color=color or ""), *others))
    return None


def _from_record(record: Mapping[str, Any]) -> Request | None:
    try:
        things = tuple(
            Thing(
                str(entry["class"]),
                int(entry.get("count", 1)),
                str(entry.get("color", "")),
                str(entry.get("position", ("", 0))[0]),
                int(entry.get("position", ("", 0))[1]),
            )
            for entry in record["include"]
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    return Request(things, record.get("tag") == "counting") if _valid(things) else None


def _valid(things: tuple[Thing, ...]) -> bool:
    return all(
        thing.name in OBJECTS
        and thing.count >= 1
        and thing.color in ("", *COLORS)
        and thing.position in ("", *POSITIONS)
        and 0 <= thing.target < max(1, number)
        for number, thing in enumerate(things)
    )
