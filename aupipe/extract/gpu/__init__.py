"""FrameChunk as tensors: colour conversion, shrinking, alignment, warping, on whatever device the planes lie.

Nothing here copies between device and host or waits for a device. FrameChunk are planar, (B, 3, H, W).
"""
