"""PyTorch's caching allocator of a graphics card, simulated: what it reserves for a sequence of allocations.

Its rules: sizes are multiples of 512 bytes. Up to 1 MiB they come from segments of 2 MiB, below 10 MiB from segments of
20 MiB, else a segment is the size in multiples of 2 MiB. A block is taken from the smallest free one that holds it, of
the same stream and kind; what is left of it is a free block again (1 MiB or less of a large one is not split off), and
free neighbours are joined. Segments are kept. Where the card refuses a new one, those that are wholly free are given
back first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

_MIB = 1 << 20
_ROUNDED = 512
#: The largest block of the small kind, and its segments.
_SMALL, _SMALL_SEGMENT = _MIB, 2 * _MIB
#: Below this a large block comes from a segment of that size; from it on from one of its own, rounded to this.
_OWN_SEGMENT, _LARGE_SEGMENT, _SEGMENT_ROUNDED = 10 * _MIB, 20 * _MIB, 2 * _MIB
#: Free blocks of a stream and kind.
_Pool = tuple[int, bool]


def rounded(size: int, to: int = _ROUNDED) -> int:
    """The next multiple."""
    return -(-size // to) * to


def is_small(size: int) -> bool:
    """Whether a size comes from the segments of the small blocks."""
    return rounded(size) <= _SMALL


@dataclass(frozen=True)
class Event:
    """Something that happens to a device's memory.

    Attributes:
        key: which allocation.
        size: its bytes; 0 where it is freed.
        stream: that it is made on: what one stream has freed, others do not use.
    """

    key: int
    size: int
    stream: int = 0


class _Block:
    __slots__ = ("address", "after", "before", "free", "pool", "size")

    def __init__(self, address: int, size: int, pool: _Pool) -> None:
        self.address, self.size, self.pool = address, size, pool
        self.free = True
        self.before: _Block | None = None
        self.after: _Block | None = None


class CachingAllocator:
    """A card's allocator, empty at first.

    Attributes:
        limit: bytes of segments that the card gives at most; None for no limit.
        reserved: bytes of the segments that there are.
        peak: the most that were reserved.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.reserved = self.peak = 0
        self._used: dict[int, _Block] = {}
        self._free: dict[_Pool, list[tuple[int, int, _Block]]] = {}
        self._end = 0  # of the last segment; none is beside another one

    def allocate(self, key: int, size: int, stream: int = 0) -> bool:
        """Make an allocation; False where the card refuses the memory."""
        size = rounded(max(size, 1))
        pool = stream, is_small(size)
        block = self._found(pool, size) or self._reserve(pool, size)
        if block is None:
            return False
        left = block.size - size
        if left >= _ROUNDED if pool[1] else left > _SMALL:
            self._split(block, size)
        block.free = False
        self._used[key] = block
        return True

    def free(self, key: int) -> None:
        """Undo an allocation; unknown ones are none of this allocator's."""
        block = self._used.pop(key, None)
        if block is None:
            return
        block.free = True
        for neighbour in (block.before, block.after):
            if neighbour is not None and neighbour.free:
                self._forget(neighbour)
                block = _joined(neighbour, block) if neighbour is block.before else _joined(block, neighbour)
        self._remember(block)

    def release_unused(self) -> None:
        """Give back the segments that are wholly free."""
        for pool, blocks in self._free.items():
            whole = [entry for entry in blocks if entry[2].before is None and entry[2].after is None]
            self.reserved -= sum(size for size, _, _ in whole)
            self._free[pool] = [entry for entry in blocks if entry not in whole] if whole else blocks

    def replay(self, events: Iterable[Event]) -> bool:
        """Everything that happens, in order; False where the card refuses memory, and there it ends."""
        for event in events:
            if not event.size:
                self.free(event.key)
            elif not self.allocate(event.key, event.size, event.stream):
                return False
        return True

    def _found(self, pool: _Pool, size: int) -> _Block | None:
        blocks = self._free.setdefault(pool, [])
        place = bisect_left(blocks, (size,))
        return blocks.pop(place)[2] if place < len(blocks) else None

    def _reserve(self, pool: _Pool, size: int) -> _Block | None:
        own = rounded(size, _SEGMENT_ROUNDED)
        segment = _SMALL_SEGMENT if pool[1] else _LARGE_SEGMENT if size < _OWN_SEGMENT else own
        if self.limit is not None and self.reserved + segment > self.limit:
            self.release_unused()
            if self.reserved + segment > self.limit:
                return None
        self.reserved += segment
        self.peak = max(self.peak, self.reserved)
        self._end += segment + 1
        return _Block(self._end - segment, segment, pool)

    def _split(self, block: _Block, size: int) -> None:
        rest = _Block(block.address + size, block.size - size, block.pool)
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.after, block.size = rest, size
        self._remember(rest)

    def _remember(self, block: _Block) -> None:
        insort(self._free.setdefault(block.pool, []), (block.size, block.address, block))

    def _forget(self, block: _Block) -> None:
        blocks = self._free[block.pool]
        del blocks[bisect_left(blocks, (block.size, block.address))]


def _joined(first: _Block, second: _Block) -> _Block:
    """Two neighbours as one block."""
    first.size += second.size
    first.after = second.after
    if first.after is not None:
        first.after.before = first
    return first
