"""Own prompts before and after: the base model and one run's adapter draw the same seed.

A few loaded pipelines are kept, the least recently used one leaves first. Of those that take memory a run may
need, which are all but the small ones on a CPU, there is one at a time: it draws both pictures, its adapter
switched off and on, and it goes when nobody has drawn for a while or a run starts. One wish at a time is
drawn on a device; on a CPU the two pictures of a small model are drawn side by side, one core each. What a
run's own comparison drew is drawn again in the same batch, because the last bit of a picture depends on its
size.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from trainers.adapter import WEIGHTS, reload_adapter
from trainers.coercion import from_mapping
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError
from trainers.evaluate import Item
from trainers.lending import gpu_is_real
from trainers.machine import choose_device, quiet_libraries
from trainers.models import EMBEDDED, MODELS
from trainers.models.base import PipelineModel, load_model
from trainers.models.configured import configured
from trainers.parallel import map_chunks
from trainers.pictures import picture_name, read_pictures
from trainers.run_folder import RunFolder, read_lines
from trainers.wish import Wish, WishError

KEPT_PIPELINES = 4
KEPT_PICTURES = 16
IDLE_SECONDS = 120.0
LARGEST_BATCH = 64  # above it a picture of the comparison is drawn alone, to answer in time
NO_ADAPTER = "This run has no adapter yet. Resume it and let it finish, or choose another run."
BAD_ADAPTER = (
    "The adapter of this run cannot be loaded: its file is damaged, half-written or of another model. Resume "
    "the run or train it a little more, which writes the file anew."
)
BAD_SETTINGS = "The settings of this run cannot be read; they are damaged or of another version of this app."

Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Drawing:
    """The two pictures of a wish.

    Attributes:
        before: (3, H, W) uint8, drawn by the base model.
        after: (3, H, W) uint8, drawn with the adapter at the wished strength.
        index: The wish's number in the run's comparison when it is one of its pictures, else None.
        stored: Whether the pictures equal the stored ones of that number bit for bit; None when they cannot
            be compared. The second one is only compared at strength 1.
        seconds: How long the drawing took, loading left out.
    """

    before: Tensor
    after: Tensor
    index: int | None
    stored: bool | None
    seconds: float


@dataclass(frozen=True)
class _Batch:
    """What passes through a pipeline at once to get one picture.

    Attributes:
        items: The batch.
        place: The wished picture's place in it.
        index: Its number in the run's comparison, or None.
    """

    items: tuple[Item, ...]
    place: int
    index: int | None


@dataclass(frozen=True)
class _Key:
    """What tells the loaded base models of two runs apart."""

    model: str
    resolution: int
    guidance_scale: float | None
    memory: str
    device: str

    @property
    def heavy(self) -> bool:
        """Whether it takes memory that a run may need."""
        return self.model not in EMBEDDED or self.device != "cpu"


@dataclass
class _Loaded:
    """A pipeline and the stamp of the adapter that is in it, or None."""

    model: PipelineModel
    stamp: tuple | None = None


class Playground:
    """Draws wishes; may be used by several threads."""

    def __init__(self, kept: int = KEPT_PIPELINES, idle_seconds: float = IDLE_SECONDS):
        """Start with nothing loaded.

        Args:
            kept: Loaded pipelines that are kept, base models included; at least 2.
            idle_seconds: Seconds after a drawing until what takes a run's memory goes.
        """
        self._kept, self._idle_seconds = kept, idle_seconds
        self._models: OrderedDict[tuple[_Key, tuple | None], _Loaded] = OrderedDict()
        self._bases: OrderedDict[tuple, Tensor] = OrderedDict()
        self._guard = threading.Lock()
        self._devices: dict[str, threading.Lock] = {}
        self._releases = 0
        self._idle: threading.Timer | None = None

    @property
    def loaded(self) -> int:
        """How many pipelines are in memory."""
        return len(self._models)

    def release(self) -> None:
        """Let go of what takes memory that a run may need; what is drawing goes when it has drawn."""
        with self._guard:
            self._releases += 1
            heavy = [key for key in self._models if key[0].heavy]
            for key in heavy:
                del self._models[key]
        if heavy:
            _free_memory()

    def draw(self, path: Path, wish: Wish, tell: Tell | None = None) -> Drawing:
        """Draw a wish with the base model and with a run's adapter.

        Args:
            path: The run folder; it is only read.
            wish: What to draw.
            tell: Hears the share that is done, in [0, 1], and what is going on; from any thread.

        Raises:
            WishError: The prompt is too long for the model.
            InputError: The run has no readable settings or asks for a device that is not there.
            FaultError: The adapter or the base model is missing or damaged.
        """
        folder = RunFolder(path)
        config = _read_config(folder)
        stamp = _adapter_stamp(folder)
        device = choose_device(config)
        tell = tell or (lambda _share, _text: None)
        with self._lock(device), self._leaving():
            return self._draw_on(device, folder, config, stamp, wish, tell)

    def prepare(self, path: Path) -> None:
        """Load what a run's first drawing needs, if its base model is one of those shipped here.

        Others may take minutes, and memory that a run needs: they are loaded when somebody draws.

        Raises:
            InputError: As in ``draw``.
            FaultError: As in ``draw``.
        """
        folder = RunFolder(path)
        config = _read_config(folder)
        if config.model not in EMBEDDED:
            return
        stamp = _adapter_stamp(folder)
        device = choose_device(config)
        with self._lock(device), self._leaving():
            self._trained(config, device, folder, stamp, self._base(config, device))

    def _lock(self, device: str) -> threading.Lock:
        with self._guard:
            return self._devices.setdefault(device, threading.Lock())

    @contextmanager
    def _leaving(self) -> Iterator[None]:
        """See to it that what the body loads does not stay for good, and not past a release meanwhile."""
        with self._guard:
            before = self._releases
            if self._idle is not None:
                self._idle.cancel()
        try:
            yield
        finally:
            with self._guard:
                released = self._releases != before
                if not released and any(key.heavy for key, _ in self._models):
                    self._idle = threading.Timer(self._idle_seconds, self.release)
                    self._idle.daemon = True
                    self._idle.start()
            if released:
                self.release()
                _free_memory()

    def _draw_on(self, device, folder, config, stamp: tuple, wish: Wish, tell: Tell) -> Drawing:
        """Load and draw; when it returns nothing holds the pipelines but what keeps them."""
        tell(0.0, "Loading the base model")
        base = self._base(config, device)
        found = base.model.prompt_problems([wish.prompt])
        if found:
            raise WishError({"prompt": found[0]})
        tell(0.0, "Loading the adapter")
        trained = self._trained(config, device, folder, stamp, base)
        batch = _batch(folder, config, base.model, wish)
        drawn = (_key(config, device), replace(wish, strength=0.0), batch.place, len(batch.items))
        return self._draw(folder, batch, base.model, trained, wish, drawn, tell)

    def _draw(self, folder, batch, base, trained, wish: Wish, key: tuple, tell: Tell) -> Drawing:
        """Draw both pictures; ``key`` tells what the base model draws from everything else it may draw."""
        started = time.monotonic()
        known = self._bases.get(key)
        models = (trained,) if known is not None else (base, trained)
        _count_steps(models, wish.steps, tell)

        # One pipeline cannot have its adapter on and off at the same time.
        turn = threading.Lock() if base is trained else nullcontext()

        def job(strength: float | None) -> Tensor:
            if strength is None and known is not None:
                return known
            model = base if strength is None else trained
            with turn:
                if model is trained:
                    model.set_strength(strength or 0.0)
                return _sample(model, batch, wish)

        try:
            # Always two chunks: one alone would spread each small operation over every core.
            before, after = map_chunks(job, (None, wish.strength), base.device)
        finally:
            for model in models:
                model.before_batch = None
        with self._guard:
            _keep(self._bases, key, before, KEPT_PICTURES)
        stored = _equals_stored(folder, batch.index, before, after if wish.strength == 1.0 else None)
        return Drawing(before, after, batch.index, stored, time.monotonic() - started)

    def _base(self, config: RunConfig, device: str) -> _Loaded:
        return self._get(_key(config, device), None, lambda: load_model(configured(config), device))

    def _trained(
        self, config: RunConfig, device: str, folder: RunFolder, stamp: tuple, base: _Loaded
    ) -> PipelineModel:
        """Return a pipeline with the run's adapter: the base model's own where there is one at a time."""
        key = _key(config, device)
        if not key.heavy:
            return self._get(key, stamp, lambda: _with_adapter(config, folder, device)).model
        if base.stamp != stamp:
            base.stamp = None
            _with_adapter(config, folder, device, base.model)
            base.stamp = stamp
        return base.model

    def _get(self, key: _Key, stamp: tuple | None, load: Callable[[], PipelineModel]) -> _Loaded:
        """Return a loaded pipeline; the caller holds its device's lock, so none is loaded twice."""
        with self._guard:
            found = self._models.get((key, stamp))
            others = [other for other in self._models if key.heavy and other[0].heavy and found is None]
            for other in others:
                del self._models[other]
        if others:
            _free_memory()
        if found is None:
            quiet_libraries()
            found = _Loaded(load())
        with self._guard:
            _keep(self._models, (key, stamp), found, self._kept)
        return found


def _with_adapter(
    config: RunConfig, folder: RunFolder, device: str, base: PipelineModel | None = None
) -> PipelineModel:
    try:
        model = reload_adapter(configured(config), folder.adapter, device, base)
    except FaultError as error:
        raise FaultError(BAD_ADAPTER) from error
    if not model.lora_names():  # plain diffusers takes a file of other modules without a word
        raise FaultError(BAD_ADAPTER)
    return model


def _free_memory() -> None:
    """Give back what pipelines that nobody holds any more have taken."""
    gc.collect()
    if torch.cuda.is_initialized() and gpu_is_real():
        torch.cuda.empty_cache()


def _key(config: RunConfig, device: str) -> _Key:
    return _Key(config.model, config.resolution, config.guidance_scale, config.memory, device)


def _keep(store: OrderedDict, key: tuple, value, limit: int) -> None:
    store[key] = value
    store.move_to_end(key)
    while len(store) > limit:
        store.popitem(last=False)


def _read_config(folder: RunFolder) -> RunConfig:
    settings = folder.read_config()
    try:
        config = from_mapping(settings)
    except InputError as error:
        raise InputError(BAD_SETTINGS) from error
    if not settings:
        raise InputError(BAD_SETTINGS)
    try:
        MODELS.get(config.model)
    except InputError as error:
        raise InputError(BAD_SETTINGS) from error
    return config


def _adapter_stamp(folder: RunFolder) -> tuple:
    """Return what changes when a run's adapter does."""
    weights = folder.adapter / WEIGHTS
    try:
        info = weights.stat()
    except OSError:
        raise FaultError(NO_ADAPTER) from None
    return (str(weights), info.st_size, info.st_mtime_ns)


def _count_steps(models: Sequence[PipelineModel], steps: int, tell: Tell) -> None:
    lock, done = threading.Lock(), 0

    def count() -> None:
        nonlocal done
        with lock:
            done += 1
            share = done / (steps * len(models))
        tell(min(1.0, share), "Drawing")

    for model in models:
        model.before_batch = count


def _sample(model: PipelineModel, batch: _Batch, wish: Wish) -> Tensor:
    prompts, seeds = [item.prompt for item in batch.items], [item.seed for item in batch.items]
    images = model.sample(prompts, seeds, wish.guidance, wish.steps)
    return (images[batch.place] * 255).round().to(torch.uint8)


def _batch(folder: RunFolder, config: RunConfig, base: PipelineModel, wish: Wish) -> _Batch:
    """Return the batch in which the comparison drew the wish, or the wish alone."""
    alone = _Batch((Item(0, wish.prompt, wish.seed),), 0, None)
    guidance = base.guidance_scale if config.guidance_scale is None else config.guidance_scale
    own = (wish.steps, wish.guidance) == (int(base.call["num_inference_steps"]), guidance)
    if not own or config.eval_batch > LARGEST_BATCH:
        return alone
    lines = read_lines(folder.samples / "before.jsonl")
    drawn = [(line.get("prompt"), line.get("seed")) for line in lines]
    if (wish.prompt, wish.seed) not in drawn:
        return alone
    index = drawn.index((wish.prompt, wish.seed))
    first = index // config.eval_batch * config.eval_batch
    items = tuple(Item(first + i, *pair) for i, pair in enumerate(drawn[first : first + config.eval_batch]))
    readable = all(isinstance(item.prompt, str) and isinstance(item.seed, int) for item in items)
    return _Batch(items, index - first, index) if readable else alone


def _equals_stored(folder: RunFolder, index: int | None, before: Tensor, after: Tensor | None) -> bool | None:
    if index is None:
        return None
    drawn = {"before": before} | ({} if after is None else {"after": after})
    for side, picture in drawn.items():
        stored = read_pictures(folder, [picture_name(side, index)])
        if stored is None:
            return None
        if stored.shape[1:] != picture.shape or not torch.equal(stored[0], picture):
            return False
    return True
