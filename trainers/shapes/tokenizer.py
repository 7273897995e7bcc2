"""The tiny models' own CLIP tokenizer: every word of the grammar is one token, any other text still encodes.

The vocabulary starts with the 256 byte symbols of CLIP's byte-level alphabet, inside and at the end of words,
so no character is unknown; merges are then added word by word until each known word is a single token.
"""

from __future__ import annotations

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from trainers.shapes.grammar import COLORS, COUNTS, RELATIONS, SHAPES

MAX_LENGTH = 12  # the longest caption has eight words, plus begin and end of text
_EXTRA = (
    "an the some with picture image photo of small large big little next to beside under over between in "
    "front behind is are object objects background white grey black orange pink brown five six star cross "
    "no not many bright dark"
)
END, BEGIN = "<|endoftext|>", "<|startoftext|>"


def words() -> tuple[str, ...]:
    """Return every word that is one token: the grammar's first, then a few harmless others."""
    own = ["a", "and", *COUNTS, *COLORS, *SHAPES, *(f"{shape}s" for shape in SHAPES)]
    own += [word for relation in RELATIONS for word in relation.split()]
    return tuple(dict.fromkeys([*own, *_EXTRA.split()]))


def build_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer; deterministic, saves and loads as a plain ``CLIPTokenizer``."""
    alphabet = list(bytes_to_unicode().values())
    symbols = alphabet + [f"{symbol}</w>" for symbol in alphabet]
    merges: list[tuple[str, str]] = []
    for word in words():
        _merge_word(word, merges)
    symbols += [left + right for left, right in merges] + [BEGIN, END]
    vocabulary = {symbol: index for index, symbol in enumerate(dict.fromkeys(symbols))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)


def _merge_word(word: str, merges: list[tuple[str, str]]) -> None:
    """Append the merges that complete a word; earlier words keep theirs, earlier merges rank higher."""
    parts = [*word[:-1], f"{word[-1]}</w>"]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    while len(parts) > 1:
        pairs = [
            (ranks.get(pair, len(ranks)), at) for at, pair in enumerate(zip(parts, parts[1:], strict=False))
        ]
        rank, at = min(pairs)
        if rank == len(ranks):
            at = 0
            merges.append((parts[0], parts[1]))
            ranks[merges[-1]] = len(ranks)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
