"""Where a warp samples: the positions of :mod:`...modules.warp`, rounded as they are there.

For kernels that are started with ``enable_fp_fusion=False``: a product and a sum are two roundings.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sampled_position(base, offset, half, last, limit):
    """The pixel at which `grid_sample` reads along one side.

    base: of the place, from -1 to 1; offset: the flow; half: (size - 1) / 2; limit: size - 1, the far border; last: the
    last float before it.
    """
    position = (base + tl.div_rn(offset, half) + 1.0) * half
    position = tl.minimum(tl.maximum(position, 0.0), limit)
    position = tl.where(position >= last, limit, position)
    # From pixels to the sampler's coordinates, and back by the sampler.
    normalised = tl.div_rn(position, half) - 1.0
    return (normalised + 1.0) * 0.5 * limit
