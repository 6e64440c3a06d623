"""How the host starts a kernel."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from . import ahead

#: Integers that Triton passes in 32 bits.
_INT32 = range(-(2**31), 2**31)


def by_address() -> bool:
    """Whether Triton starts what it compiled with addresses: since 3.3, where constants are among the arguments."""
    try:
        import triton
    except ImportError:
        return False
    found = re.match(r"(\d+)\.(\d+)", triton.__version__)
    return found is not None and (int(found[1]), int(found[2])) >= (3, 3)


class Started:
    """A kernel that the host starts as ``kernel[grid](...)``; see :mod:`.ahead` for when it is not.

    Triton looks at every argument by every start, which takes the host longer than many a kernel takes the card, and
    asks the driver for each pointer, which does not know the memory of a graph that is being captured by
    cudaMallocAsync. So what was compiled for arguments of a kind is kept here, and started with their addresses.
    """

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self._compiled: dict[Any, Any] = {}
        self._free: frozenset[int] | None = None

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        wanted = ahead.wanted()
        if wanted is not None:
            return lambda *arguments, **options: wanted.append(self._wanted(grid, arguments, options))
        return lambda *arguments, **options: self._start(grid, arguments, options)

    def _start(self, grid: tuple[int, ...], arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        key = self._key(arguments, options)
        compiled = self._compiled.get(key)
        if compiled is None:
            with ahead.loading:
                compiled = self.kernel[grid](*arguments, **options)
            if compiled is not None and by_address():  # Triton's interpreter compiles nothing
                self._compiled[key] = compiled
            return
        values = [value.data_ptr() if isinstance(value, Tensor) else value for value in arguments]
        constants = [options[name] for name in self.kernel.arg_names[len(arguments) :]]
        compiled[(*grid, 1, 1)[:3]](*values, *constants)

    def _wanted(self, grid: tuple[int, ...], arguments: tuple[Any, ...], options: dict[str, Any]) -> ahead.Wanted:
        def compiled() -> Any:
            made = self.kernel.warmup(*arguments, grid=grid, **options)
            _prepare_start(made)
            return made

        def load(made: Any) -> None:
            getattr(made, "run", None)

        return ahead.Wanted((self, self._key(arguments, options)), compiled, load)

    def _key(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """What decides into what a kernel is compiled for such arguments."""
        if self._free is None:
            parameters = getattr(self.kernel, "params", ())
            self._free = frozenset(p.num for p in parameters if getattr(p, "do_not_specialize", False))
        return tuple(_kind(value, n in self._free) for n, value in enumerate(arguments)), tuple(options.items())


def _prepare_start(compiled: Any) -> None:
    """Have Triton write what starts a kernel to its cache on the disk: some versions run a compiler for that. What it
    gives here is thrown away, see :mod:`.ahead`."""
    from triton.runtime import driver

    driver.active.launcher_cls(compiled.src, compiled.metadata)


def _kind(value: Any, free: bool) -> Any:
    """What Triton's compiler knows of an argument; of an integer that is `free` only how wide it is."""
    if isinstance(value, Tensor):
        return value.dtype, value.device, value.data_ptr() % 16 == 0
    if type(value) is int:
        wide = value not in _INT32
        return wide if free else (wide, value == 1, value % 16 == 0)
    return type(value)
