"""FrameChunk on the host: crop templates, warps, scaling."""
