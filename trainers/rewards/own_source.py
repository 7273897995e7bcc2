"""What the source of a person's own reward file says, read by parsing and never by running it. Torch-free.

A name counts when the file binds it at its top level: by ``def``, ``class``, an assignment or an import, also
within ``if``, ``try`` and ``with``. What only running the file can tell is left to ``own_function``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)  # the last two from deep nesting
MOST_ARGUMENTS = 3
_EVERYTHING = "*"


def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file.

    Raises:
        OSError: It cannot be read.
        SyntaxError, ValueError, RecursionError, MemoryError: It is not valid Python (``NOT_PYTHON``).
    """
    return ast.parse(path.read_bytes())  # bytes, so that a coding line at the top of the file counts


def source_problems(path: Path, name: str, tree: ast.Module) -> list[str]:
    """Say what keeps a name in a file from being a reward, as far as its source tells."""
    bound = dict(_bound(tree.body))
    node = bound.get(name)
    if node is None:
        if _EVERYTHING in bound:  # an import of everything may bind it
            return []
        rewards = [
            known for known, kind in bound.items() if not isinstance(kind, ast.Import | ast.ImportFrom)
        ]
        there = f"it has {', '.join(rewards)}" if rewards else "it has none"
        return [f"The file {path} has no function '{name}' at its top level ({there})."]
    if isinstance(node, ast.AsyncFunctionDef):
        return [f"'{name}' in {path} is an async function, which gives no numbers; write it with def."]
    if isinstance(node, ast.ClassDef):
        return _class_problems(path, name, node)
    if isinstance(node, ast.FunctionDef) and not node.decorator_list:
        return argument_problems(f"'{name}' in {path}", *_arguments(node.args))
    return []


def says_differentiable(tree: ast.Module, name: str) -> bool:
    """Whether a file has the line ``name.differentiable = True`` at its top level."""
    return any(
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and node.value.value is True
        and any(ast.unparse(target) == f"{name}.differentiable" for target in node.targets)
        for node in tree.body
    )


def argument_problems(what: str, needed: int, keywords: list[str]) -> list[str]:
    """Say what keeps a function from being called with images, prompts and metadata.

    Args:
        what: The function, for the sentence.
        needed: How many arguments by position it cannot do without.
        keywords: Arguments by keyword that it cannot do without.
    """
    if needed > MOST_ARGUMENTS or keywords:
        extra = f" and by keyword {', '.join(keywords)}" if keywords else ""
        return [
            f"{what} needs {needed} arguments{extra}; a reward is called with (images, prompts) or with "
            "(images, prompts, metadata). Give the others defaults."
        ]
    return []


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Yield every name that statements bind, with the statement; ``*`` for an import of everything."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield (alias.asname or alias.name).partition(".")[0], node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
            yield from ((part.id, node) for part in names if isinstance(part.ctx, ast.Store))
        for inner in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from _bound(getattr(node, inner, []))
        for handler in getattr(node, "handlers", []):
            yield from _bound(handler.body)


def _class_problems(path: Path, name: str, node: ast.ClassDef) -> list[str]:
    methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    if "__call__" not in methods:
        if node.bases:
            return []
        return [f"'{name}' in {path} is a class without __call__, so it cannot score images."]
    needed, keywords = _arguments(methods["__call__"].args)
    return argument_problems(f"'{name}.__call__' in {path}", needed - 1, keywords)


def _arguments(arguments: ast.arguments) -> tuple[int, list[str]]:
    """Return how many arguments by position are needed, and which by keyword."""
    needed = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return needed, [argument.arg for argument, default in pairs if default is None]


def source_files(path: Path) -> list[Path]:
    """Return a reward file and the neighbours in its folder that it imports, and what these import."""
    folder, found, waiting = path.parent, [], [path]
    while waiting:
        file = waiting.pop(0)
        if file in found:
            continue
        found.append(file)
        try:
            names = sorted(set(_imported_names(parse(file))))
        except (OSError, *NOT_PYTHON):
            continue
        for name in names:
            module, package = folder / f"{name}.py", folder / name
            waiting += [module] if module.is_file() else []
            waiting += sorted(package.rglob("*.py")) if package.is_dir() else []
    return found


def _imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
