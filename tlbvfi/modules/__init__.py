"""The networks. They name no device and no dtype; what must be float32 says so where it happens.

Shapes in comments: B pairs, C channels, T = 3 frames (x0, empty middle, x1), H x W pixels,
h x w latent positions.
"""
