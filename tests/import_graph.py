"""Reads the imports of a source tree with `ast` and says which edges break the architecture.

Rules, bottom first: `core` knows only torch; samplers, rewards, models and shapes know core; estimators know
those; then the loop, the command line, the jobs, the pages and `app.py`. A layer may reach itself and those
below, directly or through helpers that have no layer of their own. Modules import each other without cycles.
"""

import ast
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PRODUCT = ("trainers", "rsm_app", "app")
LAYERS = (  # bottom first
    ("trainers.core",),
    ("trainers.samplers", "trainers.rewards", "trainers.models", "trainers.shapes"),
    ("trainers.estimators",),
    ("trainers.loop",),
    ("trainers.session",),
    ("trainers.__main__",),
    ("rsm_app.jobs", "rsm_app.hub"),
    ("rsm_app.ui",),
    ("app",),
)
TORCH_FREE = (
    *("trainers.config", "trainers.registry", "trainers.methods", "trainers.errors", "trainers.presets"),
    *(
        "trainers.rewards",
        "trainers.models",
        "trainers.preflight",
        "trainers.symptoms",
        "trainers.adapter_file",
    ),
)
HEAVY = {"torch", "diffusers", "transformers", "peft", "gradio"}
CORE_MAY_IMPORT = {"torch"} | sys.stdlib_module_names


@dataclass(frozen=True)
class Import:
    """One imported dotted name; `lazy` when it happens inside a function."""

    name: str
    lazy: bool


def within(module: str, package: str) -> bool:
    """Whether a dotted name is a package or lies in it."""
    return module == package or module.startswith(f"{package}.")


def layer(module: str) -> int | None:
    """Height of a module, or None if it belongs to no layer."""
    return next((i for i, names in enumerate(LAYERS) if any(within(module, name) for name in names)), None)


class Tree:
    """The product's modules below a folder, with what each imports."""

    def __init__(self, root: Path):
        files = [path for top in PRODUCT for path in (root / top).rglob("*.py")]
        files += [path for top in PRODUCT if (path := root / f"{top}.py").exists()]
        self.paths = {_dotted(path.relative_to(root)): path for path in files}
        self.imports = {module: _imports(module, path) for module, path in self.paths.items()}

    @cached_property
    def edges(self) -> dict[str, set[str]]:
        """Module → product modules it names, also lazily."""
        return {
            m: {t for i in found if (t := self.resolve(i.name))} - {m} for m, found in self.imports.items()
        }

    def resolve(self, name: str) -> str | None:
        """The longest prefix of a dotted name that is a module of the tree."""
        while name and name not in self.paths:
            name = name.rpartition(".")[0]
        return name or None

    def external(self, module: str) -> set[str]:
        """Top-level names of what a module imports from outside the product."""
        tops = {found.name.partition(".")[0] for found in self.imports[module]}
        return tops - set(PRODUCT)

    def reachable(self, start: str) -> set[str]:
        """Every product module that a module reaches."""
        return _closure(start, lambda module: self.edges[module])

    def loaded_with(self, start: str) -> set[str]:
        """Every product module that importing a module runs, its parent packages included."""

        def next_modules(module):
            direct = {self.resolve(found.name) for found in self.imports[module] if not found.lazy} - {None}
            return direct | {p for m in direct | {module} for p in _parents(m) if p in self.paths}

        return _closure(start, next_modules)


def violations(root: Path) -> list[str]:
    """Say every way in which the tree below a folder breaks the rules."""
    tree = Tree(root)
    found = [*_back_edges(tree), *_cycles(tree), *_heavy_tables(tree)]
    for module in tree.paths:
        external = tree.external(module)
        if "gradio" in external and not (within(module, "rsm_app.ui") or module == "app"):
            found.append(f"{module} imports gradio, which belongs to rsm_app.ui.")
        if within(module, "trainers.core"):
            found += [
                f"{module} imports {name}; core knows only torch." for name in external - CORE_MAY_IMPORT
            ]
            found += [f"{module} imports {t}." for t in tree.edges[module] if not within(t, "trainers.core")]
    return sorted(found)


def _back_edges(tree: Tree) -> list[str]:
    found = []
    for module in tree.paths:
        height, reached = layer(module), tree.reachable(module)
        if within(module, "trainers"):
            found += [
                f"{module} reaches {t}; trainers stands alone." for t in reached if not within(t, "trainers")
            ]
        if height is not None:
            found += [f"{module} reaches up to {t}." for t in reached if (layer(t) or 0) > height]
    return found


def _cycles(tree: Tree) -> list[str]:
    return [
        f"{module} imports itself in a circle."
        for module in tree.paths
        if module in _cycle_members(tree, module)
    ]


def _cycle_members(tree: Tree, module: str) -> set[str]:
    return set().union(*(tree.reachable(target) | {target} for target in tree.edges[module]))


def _heavy_tables(tree: Tree) -> list[str]:
    found = []
    for module in TORCH_FREE:
        for loaded in tree.loaded_with(module) | {module} if module in tree.paths else ():
            eager = {i.name.partition(".")[0] for i in tree.imports[loaded] if not i.lazy}
            found += [f"Importing {module} imports {name}, in {loaded}." for name in eager & HEAVY]
    return found


def _closure(start, next_of) -> set[str]:
    seen: set[str] = set()
    queue = [start]
    while queue:
        for target in next_of(queue.pop()) - seen:
            seen.add(target)
            queue.append(target)
    return seen - {start}


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _imports(module: str, path: Path) -> list[Import]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: list[Import] = []
    _visit(ast.parse(path.read_text(encoding="utf-8")), package, False, found)
    return found


def _visit(node: ast.AST, package: str, lazy: bool, found: list[Import]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                _visit(other, package, lazy, found)
        elif isinstance(child, ast.Import):
            found += [Import(alias.name, lazy) for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - child.level + 1], *filter(None, [base])])
            found += [Import(f"{base}.{alias.name}", lazy) for alias in child.names]
        else:
            inner = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            _visit(child, package, inner, found)
