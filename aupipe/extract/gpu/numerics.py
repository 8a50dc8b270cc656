"""What a GPU makes of float32."""

from __future__ import annotations

import torch


def compute_as_written() -> None:
    """For all of this process: float32 is computed as float32, and a convolution by the same algorithm every time.

    torch's default has cuDNN round the factors of float32 convolutions to 10 bits (TF32), which moves rows by about
    1e-3, as much as float16 does; who wants that speed says so in an encoder's ``precision``. These are switches of the
    process: turned for one network they would be turned for those that other threads run at that moment.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
