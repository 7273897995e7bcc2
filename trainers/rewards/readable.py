"""Which prompts a reward can score, for rewards that cannot score any: told before anything loads.

Each function takes prompts and the settings of the run and returns a sentence for each of the first prompts
that its reward cannot score; rows of the table name it as ``reads``. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from trainers.config import RunConfig
from trainers.prompts import prompt_records
from trainers.rewards.geneval_prompts import read_request
from trainers.shapes.grammar import parse

MAX_LISTED = 3
_QUOTED = re.compile(r'["“”]([^"“”]+)["“”]')


def shapes_captions(prompts: Sequence[str], config: RunConfig) -> list[str]:
    """Tell prompts that are outside the grammar of the shapes world."""
    return _told(prompts, _grammar_problem, "{} more prompts are outside the grammar of the shapes world.")


def quoted_texts(prompts: Sequence[str], config: RunConfig) -> list[str]:
    """Tell prompts that put no text in quotes."""
    return _told(prompts, _quote_problem, "{} more prompts have no text in quotes.")


def geneval_requests(prompts: Sequence[str], config: RunConfig) -> list[str]:
    """Tell prompts that are not of GenEval's kind, with the metadata of the config's prompt sets."""
    records = prompt_records(config)

    def problem(prompt: str) -> str:
        return "" if read_request(prompt, records.get(prompt)) else no_request(prompt)

    return _told(prompts, problem, "{} more prompts are not of GenEval's kind.")


def _told(prompts: Sequence[str], problem: Callable[[str], str], more: str) -> list[str]:
    found = [sentence for prompt in prompts if (sentence := problem(prompt))]
    rest = len(found) - MAX_LISTED
    return found if rest <= 0 else [*found[:MAX_LISTED], more.format(rest)]


def _grammar_problem(prompt: str) -> str:
    try:
        parse(prompt)
    except ValueError as error:
        return str(error)
    return ""


def _quote_problem(prompt: str) -> str:
    if quoted(prompt):
        return ""
    return f"'{prompt[:80]}' has no text in double quotes to look for, as in: a sign that says \"open\"."


def no_request(prompt: str) -> str:
    """Say that a prompt is not of GenEval's kind."""
    return (
        f"'{prompt[:80]}' is not a GenEval prompt such as 'a photo of two dogs' or 'a photo of a red car "
        "above a bench'; write prompts like these, or give GenEval's JSON lines."
    )


def quoted(prompt: str) -> str:
    """Return the first text in double quotes, lower case and without spaces; empty if there is none."""
    match = _QUOTED.search(prompt)
    return plain(match[1]) if match else ""


def plain(text: str) -> str:
    """Return a text in lower case and without spaces."""
    return "".join(text.split()).lower()
