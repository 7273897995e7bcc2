"""The small CLIP tokenizer: one token a word, nothing unknown, the same after saving."""

import pytest
from transformers import CLIPTokenizer

from trainers.shapes.grammar import render_caption
from trainers.shapes.prompts import all_captions
from trainers.shapes.tokenizer import MAX_LENGTH, build_tokenizer, words


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_every_known_word_is_one_token(tokenizer):
    assert {
        word: len(ids) - 2 for word, ids in zip(words(), tokenizer(list(words()))["input_ids"], strict=True)
    } == {word: 1 for word in words()}


def test_every_caption_fits_and_differs(tokenizer):
    texts = [render_caption(spec) for spec in all_captions()]
    rows = tokenizer(texts)["input_ids"]
    assert max(map(len, rows)) == MAX_LENGTH - 2
    assert len({tuple(row) for row in rows}) == len(texts)


@pytest.mark.parametrize("text", ["", "Zebra ☃ 漢字", "a red\ncircle!?", "\x00\U0001f600"])
def test_no_text_is_unknown(tokenizer, text):
    row = tokenizer(text, padding="max_length", truncation=True)["input_ids"]
    assert len(row) == MAX_LENGTH
    assert row[0] == tokenizer.bos_token_id and tokenizer.eos_token_id in row


def test_saving_keeps_class_and_tokens(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded("a red circle left of a blue square") == tokenizer("a red circle left of a blue square")
    assert loaded.model_max_length == MAX_LENGTH
