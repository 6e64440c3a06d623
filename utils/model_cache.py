"""A small cache of loaded models, keyed by what was loaded and how."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import RLock
from typing import Generic, TypeVar

Model = TypeVar("Model")


@dataclass(frozen=True)
class FileIdentity:
    """A file as it was at one moment; another file at the same path is another identity."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileIdentity:
        """Raises OSError where there is no such file."""
        absolute = os.path.abspath(path)
        stat = os.stat(absolute)
        return cls(absolute, stat.st_size, stat.st_mtime_ns)


class ModelCache(Generic[Model]):
    """The models used last, at most `capacity` of them. Safe to use from several threads, which load in turn."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}.")
        self.capacity = capacity
        self._models: OrderedDict[tuple[FileIdentity, Hashable], Model] = OrderedDict()
        self._lock = RLock()

    def get(self, file: FileIdentity, variant: Hashable, load: Callable[[], Model]) -> Model:
        """The model of a file in a variant (such as device and dtype), loaded where it is not there.

        Room is made before loading: models of an earlier file at this path go, then those unused for longest. What
        `load` raises passes through, and nothing is kept of the attempt.
        """
        key = (file, variant)
        with self._lock:
            for other in [k for k in self._models if k[0].path == file.path and k[0] != file]:
                del self._models[other]
            if key not in self._models:
                while len(self._models) >= self.capacity:
                    self._models.popitem(last=False)
                self._models[key] = load()
            self._models.move_to_end(key)
            return self._models[key]

    def clear(self) -> list[Model]:
        """Forget every model, and return them: each stays as long as somebody else holds it."""
        with self._lock:
            models = list(self._models.values())
            self._models.clear()
            return models

    def __len__(self) -> int:
        return len(self._models)
