"""Explicit tables of named things, resolved lazily.

A `Spec` says what a thing is called and where its code lives ("module:attr"); a `Registry` is an
ordered table of specs with exact keys. Listing a table imports nothing, so the command line and the
page can show every choice at once; the code of an entry is imported by `Spec.load`. There is no
scanning and no decorator: what exists is what the table says. Imports no torch.
"""

import difflib
import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trainers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One row of a registry.

    Args:
        name: the exact key, as typed on the command line.
        title: the label shown on the page.
        summary: one sentence that says what it does.
        target: where the code lives, "package.module:attribute".
    """

    name: str
    title: str
    summary: str
    target: str

    def __post_init__(self):
        module, _, attribute = self.target.partition(":")
        if not module or not attribute:
            raise ValueError(
                f"The target of '{self.name}' must read 'module:attribute', not '{self.target}'."
            )

    def load(self) -> Any:
        """Import the module of `target` and return its attribute."""
        return resolve(self.target)


def resolve(target: str) -> Any:
    """Import the module of "package.module:attribute" and return the attribute."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Write the hint that follows an unknown name: the nearest valid one, then all of them."""
    valid = tuple(valid)
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Valid: {', '.join(valid)}."


S = TypeVar("S", bound=Spec)


class Registry(Generic[S]):
    """An ordered table of specs of one kind.

    Args:
        kind: what an entry is called in messages, for example "reward".
        specs: the rows, in the order in which they are listed.
    """

    def __init__(self, kind: str, specs: Iterable[S] = ()):
        self.kind = kind
        self._specs: dict[str, S] = {}
        for spec in specs:
            self.register(spec)

    def register(self, spec: S) -> S:
        """Add a row and return it.

        Raises:
            ValueError: the name is taken.
        """
        if spec.name in self._specs:
            raise ValueError(f"The {self.kind} '{spec.name}' is already registered.")
        self._specs[spec.name] = spec
        return spec

    def get(self, name: str) -> S:
        """Return the row called `name`.

        Raises:
            InputError: there is none; the sentence names the nearest and all valid names.
        """
        if name in self._specs:
            return self._specs[name]
        raise InputError(self.unknown(name))

    def unknown(self, name: str) -> str:
        """Write the sentence for a name that is not in the table."""
        return f"Unknown {self.kind} '{name}'. {nearest(name, self._specs)}"

    def names(self) -> tuple[str, ...]:
        """Return every name, in table order."""
        return tuple(self._specs)

    def specs(self) -> tuple[S, ...]:
        """Return every row, in table order."""
        return tuple(self._specs.values())

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __iter__(self) -> Iterator[S]:
        return iter(self._specs.values())

    def __len__(self) -> int:
        return len(self._specs)
