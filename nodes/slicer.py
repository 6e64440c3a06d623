"""Two neighbouring frames out of a video."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ..tlbvfi.frames import check_dense
from ..tlbvfi.numbers import whole_number
from ..tlbvfi.quoting import quoted
from ..utils.images import check_batch


class FramePairSlicer:
    """ComfyUI node: frames `pair_index` and `pair_index + 1` of a batch, as one batch of two and one by one."""

    CATEGORY = "frame_interpolation/TLBVFI-TF32"
    DESCRIPTION = (
        "Takes two neighbouring frames out of a video: pair 0 is frames 0 and 1, pair 1 is frames 1 and 2, and so on. "
        "Connect prev_frame and next_frame to the interpolator."
    )
    SEARCH_ALIASES: ClassVar = ["frame pair", "neighbouring frames", "split frames", "vfi", "tlb-vfi"]
    FUNCTION = "slice"
    RETURN_TYPES = ("IMAGE", "INT", "INT", "BOOLEAN", "IMAGE", "IMAGE")
    RETURN_NAMES = ("frame_pair", "pair_index", "total_pairs", "is_last_pair", "prev_frame", "next_frame")
    OUTPUT_TOOLTIPS = (
        "Both frames of the pair as a batch of two.",
        "The number of the pair, as given.",
        "How many pairs the video has: one less than its frames.",
        "Whether this is the last pair.",
        "The first frame of the pair alone, for the interpolator's prev_frame.",
        "The second frame of the pair alone, for the interpolator's next_frame.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The frames of a video, two or more."}),
            },
            "optional": {
                "pair_index": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 2**31 - 1,
                        "step": 1,
                        "tooltip": "Which pair: 0 for frames 0 and 1, 1 for frames 1 and 2, up to the number of "
                        "frames minus two.",
                    },
                ),
            },
        }

    def slice(self, images: Tensor, pair_index: int = 0) -> tuple[Tensor, int, int, bool, Tensor, Tensor]:
        """Pick a pair. The three images are views of `images` (N, H, W, C): (2, H, W, C) and twice (1, H, W, C).

        Raises:
            ValueError: no images, fewer than two frames, or no such pair; one sentence.
        """
        if isinstance(images, Tensor):
            check_dense(images, "images")
        check_batch(images, "images")
        count = images.shape[0]
        if count < 2:
            raise ValueError(f"images holds {count} frame{'' if count == 1 else 's'}; a pair needs at least 2.")
        total = count - 1
        pair_index = whole_number("pair_index", pair_index, floats=True)
        if not 0 <= pair_index < total:
            raise ValueError(
                f"pair_index {quoted(pair_index)} is out of range: {count} frames make {total} "
                f"pair{'s' * (total > 1)}, so it must be {f'between 0 and {total - 1}' if total > 1 else '0'}."
            )
        pair = images[pair_index : pair_index + 2]
        return pair, pair_index, total, pair_index == total - 1, pair[:1], pair[1:]


class DeprecatedFramePairSlicer(FramePairSlicer):
    """The same node under the key that older graphs use."""

    DEPRECATED = True
