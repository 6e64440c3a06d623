"""Packages whose names are imported when they are first asked for: PyTorch takes seconds, which not every use needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

TYPE_CHECKING = False  # as in typing, whose import would take most of that of a package
if TYPE_CHECKING:
    from typing import Any


def late_imports(package: str, modules: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], Any]]:
    """A package's ``__getattr__`` and ``__dir__``.

    Args:
        modules: what the package offers, by the modules of its that have it.
    """
    place = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name in place:
            return getattr(import_module(f"{package}.{place[name]}"), name)
        if find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(import_module(package)), *place})

    return get, names
