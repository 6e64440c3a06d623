"""The simulated allocator, against sequences worked out by hand from PyTorch's rules."""

from __future__ import annotations

import pytest

from tlbvfi.allocator import CachingAllocator, Event, is_small

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("size", "reserved"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_a_first_allocation_takes_a_segment(size: int, reserved: int) -> None:
    allocator = CachingAllocator()
    assert allocator.allocate(0, size)
    assert allocator.reserved == allocator.peak == reserved
    allocator.free(0)
    assert allocator.reserved == reserved  # kept


def test_small_blocks_share_a_segment() -> None:
    """Down to its last 512 bytes."""
    allocator = CachingAllocator()
    assert all(allocator.allocate(key, 512) for key in range(4 * KIB))
    assert allocator.reserved == 2 * MIB
    assert allocator.allocate(-1, 1)
    assert allocator.reserved == 4 * MIB


def test_a_large_block_is_split_where_more_than_a_mebibyte_is_left() -> None:
    allocator = CachingAllocator()
    allocator.allocate(0, 19 * MIB)  # of 20
    allocator.free(0)
    allocator.allocate(1, 18 * MIB)
    allocator.allocate(2, 2 * MIB)
    assert allocator.reserved == 20 * MIB

    allocator = CachingAllocator()
    allocator.allocate(0, 20 * MIB)
    allocator.free(0)
    allocator.allocate(1, 19 * MIB)  # takes all of it
    allocator.allocate(2, MIB + 512)
    assert allocator.reserved == 40 * MIB


def test_the_smallest_free_block_is_taken() -> None:
    allocator = CachingAllocator()
    for key, size in enumerate((60, 30, 40)):
        allocator.allocate(key, size * MIB)
    for key in range(3):
        allocator.free(key)
    allocator.allocate(3, 25 * MIB)  # from the 30
    allocator.allocate(4, 40 * MIB)
    allocator.allocate(5, 60 * MIB)
    assert allocator.reserved == 130 * MIB


def test_free_neighbours_are_joined() -> None:
    allocator = CachingAllocator()
    allocator.allocate(0, 100 * MIB)
    allocator.free(0)
    for key in range(1, 5):
        allocator.allocate(key, 25 * MIB)
    for key in (1, 3, 2):
        allocator.free(key)
    allocator.allocate(5, 75 * MIB)
    assert allocator.reserved == 100 * MIB
    allocator.allocate(6, 25 * MIB)
    assert allocator.reserved == 126 * MIB


def test_streams_do_not_share_segments() -> None:
    allocator = CachingAllocator()
    allocator.allocate(0, 30 * MIB)
    allocator.free(0)
    allocator.allocate(1, 30 * MIB, stream=1)
    assert allocator.reserved == 60 * MIB


def test_unused_segments_go_before_memory_is_refused() -> None:
    allocator = CachingAllocator(100 * MIB)
    for key in range(2):
        allocator.allocate(key, 40 * MIB)
    allocator.free(0)
    assert allocator.allocate(2, 60 * MIB)
    assert (allocator.reserved, allocator.peak) == (100 * MIB, 100 * MIB)
    assert not allocator.allocate(3, 2 * MIB)
    allocator.free(1)
    assert allocator.allocate(3, 2 * MIB)


def test_a_segment_in_use_stays_whole() -> None:
    """Fragmentation: there are 90 MiB free, and no 50 of them can be given back."""
    allocator = CachingAllocator(100 * MIB)
    allocator.allocate(0, 100 * MIB)
    allocator.free(0)
    for key, size in enumerate((45, 10, 45)):
        allocator.allocate(key, size * MIB)
    allocator.free(0)
    allocator.free(2)
    assert not allocator.allocate(3, 50 * MIB)
    assert allocator.allocate(3, 45 * MIB)


def test_replay() -> None:
    events = [Event(0, 30 * MIB), Event(1, 30 * MIB), Event(0, 0), Event(2, 20 * MIB)]
    assert CachingAllocator(60 * MIB).replay(events)
    assert not CachingAllocator(58 * MIB).replay(events)
    allocator = CachingAllocator()
    assert allocator.replay([*events, Event(1, 0), Event(2, 0), Event(7, 0)])
    assert allocator.peak == 60 * MIB


def test_kinds() -> None:
    assert is_small(MIB) and not is_small(MIB + 1)
