"""aupipe: offline audio-visual features for facial behaviour, kept in a store, and heads trained on them."""

from aupipe.types import (
    FaceTrack,
    Features,
    FeatureSpec,
    Frames,
    Labels,
    Recording,
    Waveform,
    Window,
)

__version__ = "0.1.0"
__all__ = ["FaceTrack", "FeatureSpec", "Features", "Frames", "Labels", "Recording", "Waveform", "Window", "__version__"]
