"""Who is on the device while prompts are encoded; the meta device plays it, and main memory itself."""

import types

import pytest
import torch
from torch import nn

from tests.models.tiny_pipelines import build
from trainers import evaluate
from trainers.machine import quiet_libraries
from trainers.models.conditions import Conditions
from trainers.models.encoding import PromptStore, encoder_names
from trainers.models.memory import Footprint
from trainers.models.random_weights import random_spec

META = torch.device("meta")


def place(module):
    return next(module.parameters()).device.type


class Listener(nn.Linear):
    """A part of a pipeline that tells where all parts are when it works."""

    def __init__(self, told, parts):
        super().__init__(2, 2)
        self.register_buffer("positions", torch.arange(2))
        self.told, self.parts = told, [parts]

    def forward(self, _values):
        self.told.append({name: place(part) for name, part in self.parts[0].items()})


def listening(encoding):
    """A store on the meta device, its parts, and what was told while one prompt was encoded."""
    told, parts = [], {}
    for name in ("text_encoder", "text_encoder_2", "unet", "vae"):
        parts[name] = Listener(told, parts).requires_grad_(False)
    pipe = types.SimpleNamespace(components=parts, **parts)

    def encode(prompts):
        pipe.text_encoder(None)
        pipe.text_encoder_2(None)
        return Conditions(torch.zeros(len(prompts), 1, 1), None, torch.zeros(1, 1, 1), None)

    return PromptStore(pipe, META, encode, encoding), parts, told


@pytest.mark.parametrize(
    ("encoding", "first", "second"),
    [("alone", "meta meta", "meta meta"), ("in turn", "meta cpu", "cpu meta")],
)
def test_encoders_have_the_device_for_themselves(encoding, first, second):
    store, parts, told = listening(encoding)
    before = [
        tensor.data_ptr() for name in ("text_encoder", "text_encoder_2") for tensor in tensors(parts, name)
    ]
    store.add(["a"])
    assert [" ".join(list(one.values())[:2]) for one in told] == [first, second]
    assert all(one["unet"] == one["vae"] == "cpu" for one in told)
    assert place(parts["unet"]) == place(parts["vae"]) == "meta", "both came back to the device"
    after = [
        tensor.data_ptr() for name in ("text_encoder", "text_encoder_2") for tensor in tensors(parts, name)
    ]
    assert after == before, "the encoders never left main memory"
    store.add(["a"])
    assert len(told) == 2, "a prompt is encoded once"


def tensors(parts, name):
    return [*parts[name].parameters(), *parts[name].buffers()]


def test_where_all_fit_nobody_leaves():
    store, parts, told = listening("beside")
    store.add(["a"])
    assert [list(one.values()) for one in told] == [["meta", "meta", "cpu", "cpu"]] * 2
    assert place(parts["text_encoder"]) == "cpu"


@pytest.mark.parametrize("encoding", ["beside", "alone", "in turn"])
def test_real_encoders_say_the_same_wherever_they_visit(encoding):
    quiet_libraries()
    spec = random_spec("tiny-sd3")
    model = spec.load()(spec, build("tiny-sd3"), dict(spec.call))
    prompts = [f"a red circle and {word}" for word in ("a dog", "two blue squares")]
    wanted = model.encode(prompts)
    store = PromptStore(model.pipe, torch.device("cpu"), model._encode, encoding)
    with torch.inference_mode():
        store.add(prompts)
    found = store.get(prompts).select(torch.tensor([0, 1]))
    assert torch.allclose(found.embeds, wanted.embeds, atol=1e-5)
    assert torch.allclose(found.pooled, wanted.pooled, atol=1e-5)
    assert not found.embeds.is_inference()
    encoders = [getattr(model.pipe, name) for name in encoder_names(model.pipe)]
    assert not any(encoder._forward_hooks or encoder._forward_pre_hooks for encoder in encoders)


def test_a_drawing_in_several_batches_calls_the_encoders_once():
    quiet_libraries()
    spec = random_spec("tiny-sd3")
    model = spec.load()(spec, build("tiny-sd3"), dict(spec.call))
    model.use_footprint(Footprint(offload=True))
    visits = []
    model.pipe.text_encoder_3.register_forward_hook(lambda *_: visits.append(1))
    items = evaluate.plan(["a red circle", "a dog", "two dogs"], 3, 1, 0)
    pictures = list(evaluate.sample_items(model, items, 1, None))
    assert len(pictures) == 3 and len(visits) == 2, "once for the prompts, once for the empty one"
