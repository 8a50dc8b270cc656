"""The network of Silero VAD 5 and 6 (snakers4/silero-vad, MIT) for 16 kHz, over all of a file at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

CHUNK = 512  # samples a row judges: 32 ms
CONTEXT = 64  # samples before them it also hears
BLOCK = 4096  # chunks held at a time


class Silero(nn.Module):
    """Sound (N,) at 16 kHz -> probability of speech (ceil(N / 512),), one per 32 ms.

    Loads ``silero_vad_16k.safetensors`` as `adapt_state_dict` names it. The spectrum and the convolutions look at each
    chunk alone, so they run in batches; only the LSTM goes through time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)  # cosines, then sines
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, samples: Tensor) -> Tensor:
        def read(start: int, stop: int) -> Tensor:
            outside = max(0, -start), max(0, stop - len(samples))
            return functional.pad(samples[max(0, start) : stop], outside)

        return torch.cat(list(self.blocks(read, len(samples))))

    def blocks(self, read: Callable[[int, int], Tensor], length: int) -> Iterator[Tensor]:
        """The same in blocks, of sound that is read as it is needed.

        ``read(start, stop)`` gives samples [start, stop) of ``length``, 0 beyond either end.
        """
        chunks = max(1, -(-length // CHUNK))
        state = None
        for start in range(0, chunks, BLOCK):
            stop = min(start + BLOCK, chunks)
            heard = read(start * CHUNK - CONTEXT, stop * CHUNK).unfold(0, CONTEXT + CHUNK, CHUNK)  # (b, 576), a view
            hidden, state = self.lstm(self.embed(heard)[None], state)  # (1, b, 128)
            yield torch.sigmoid(self.final_conv(torch.relu(hidden).transpose(1, 2)))[0, 0]  # (b,)

    def embed(self, heard: Tensor) -> Tensor:
        """(b, 576) samples -> (b, 128)."""
        # As many samples again as the context, mirrored: three and a half steps become four.
        wave = functional.pad(heard[:, None], (0, CONTEXT), mode="reflect")  # (b, 1, 640)
        spectrum = self.stft_conv(wave)  # (b, 258, 4)
        x = torch.sqrt(spectrum[:, :129].square() + spectrum[:, 129:].square())
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = torch.relu(conv(x))
        return x[:, :, 0]  # (b, 128, 1)


def adapt_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published names as this network's: the cell that is stepped there is a layer here."""
    return {
        name.replace("lstm_cell.", "lstm.") + ("_l0" if name.startswith("lstm_cell.") else ""): value
        for name, value in state.items()
    }
