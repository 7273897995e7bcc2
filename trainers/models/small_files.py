"""The files without which a tokenizer or a scheduler cannot be made, by their names. Torch-free."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec

SCHEDULER_CONFIG, TOKENIZER_CONFIG = "scheduler_config.json", "tokenizer_config.json"
# A tokenizer is read from any of these sets of files; without one it has no words and says nothing of it.
_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",))
_SENTENCEPIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
_READERS = ("sentencepiece", "google.protobuf")


def small_file_problem(kind: str, names: Collection[str], where: str, name: str) -> str:
    """Say what keeps a part without weights from being made; empty when nothing does.

    Args:
        kind: The part's class.
        names: Names of its files.
        where: Its folder, or its name on the Hub.
        name: What the model is called in sentences.
    """
    needed = SCHEDULER_CONFIG if kind.endswith("Scheduler") else ""
    if kind.startswith("CLIPTokenizer"):  # else it would not know how many tokens its encoder reads
        needed = TOKENIZER_CONFIG
    if needed and needed not in names:
        return f"The model '{name}' is incomplete: {where}/{needed} is missing. Fetch the rest of it."
    if "Tokenizer" not in kind or any(set(files) <= set(names) for files in _VOCABULARIES):
        return ""
    if not any(file in names for file in _SENTENCEPIECE):
        return f"The model '{name}' is incomplete: {where} has no vocabulary. Fetch the rest of it."
    if all(map(_installed, _READERS)):
        return ""
    return (
        f"The tokenizer of '{name}' in {where} is read with the packages sentencepiece and protobuf, which "
        "are not both installed. Install them."
    )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
