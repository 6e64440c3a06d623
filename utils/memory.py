"""Whether the computer's memory holds the result."""

from __future__ import annotations


def too_little_for(result: int, free: int | None, refused: bool = False) -> str | None:
    """One sentence where a result of `result` bytes does not fit into the computer's `free` ones (None: not known), or
    was refused."""
    if not refused and (free is None or result <= free):
        return None
    there = "" if free is None else f", of which {free / 2**30:.1f} GiB are free"
    return (
        f"The result takes {result / 2**30:.1f} GiB of the computer's memory{there}; load the video in parts with "
        "VideoHelperSuite's Meta Batch Manager, use the node Interpolate Video File, which writes frame by frame, or "
        "run `python -m tlbvfi interpolate`, which does so too."
    )
