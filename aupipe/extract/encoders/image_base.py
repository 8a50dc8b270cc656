"""Torch networks on face crops: the base classes that the encoders extend, and the function they give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.encoders.base import Encode
from aupipe.extract.imaging.templates import ArcFaceCropTemplate, BoxCropTemplate, CropTemplate
from aupipe.extract.weights import RANDOM, find_weights, identify, is_random, random_seed, random_weights
from aupipe.types import Modality, Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

N = TypeVar("N", bound="nn.Module")

Precision = Literal["float32", "float16", "bfloat16"]
Crop = Literal["aligned", "box"]
Normal = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of channels in [0, 1]

IMAGENET: Normal = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Normal = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # to [-1, 1]


def template(crop: Crop, size_px: int) -> CropTemplate:
    """The five-point ArcFace crop at this size, or the detector's box stretched to it."""
    return ArcFaceCropTemplate(size_px) if crop == "aligned" else BoxCropTemplate(size_px)


@dataclass(frozen=True, kw_only=True)
class ImageEncoder(ABC):
    """A torch network on face crops: a subclass is its parameters, its network and its taps.

    ``precision``: of the network; rows are float32.
    """

    precision: Precision = "float32"

    modality: ClassVar[Modality] = "visual"
    version: ClassVar[int] = 1
    requires: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu")  # `onnx_export`

    @property
    @abstractmethod
    def reads(self) -> CropTemplate:
        """The crop the network takes in."""

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        """The shape of a row, or None where only the weights tell."""
        return None

    @property
    def mean_std(self) -> Normal:
        """What pixels are normalised by."""
        return IMAGENET

    @abstractmethod
    def identify_weights(self) -> Weights:
        """Which weights the network has. Raises WeightsMissingError."""

    @abstractmethod
    def network(self) -> Any:
        """The network with its weights."""

    @abstractmethod
    def rows(self, network: Any, x: Tensor) -> Tensor:
        """Rows (B, ...) of normalised pixels (B, 3, S, S)."""

    def load(self, device: str) -> Encode:
        network = self.network()
        rows = partial(self.rows, network)
        return image_encoder(network, device, self.mean_std, rows, self.precision, self.reads.size_px)


@dataclass(frozen=True, kw_only=True)
class CheckpointEncoder(ImageEncoder):
    """An `ImageEncoder` whose weights are one file.

    ``weights``: a file, absolute or in AUPIPE_WEIGHTS (safetensors, or the import of a checkpoint of torch), or
    ``"random"``, numbers from a fixed seed, for tests and benchmarks; ``"random:NAME"``: from another seed.
    """

    weights: str

    licence: ClassVar[str] = "unknown"  # of the published weights

    @property
    @abstractmethod
    def network_name(self) -> str:
        """What random weights are the weights of; part of the identity of features made with those."""

    @abstractmethod
    def build(self, state: Mapping[str, Tensor]) -> Any:
        """The network these weights fit, not filled yet; for random weights ``state`` is empty."""

    def adapt(self, network: Any, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights under the names that ``network`` has for them."""
        return state

    def identify_weights(self) -> Weights:
        return identify_weights(self.weights, self.network_name, self.licence)

    def network(self) -> Any:
        """The network with its weights. Raises RefusedWeightsError for a file whose keys are not the network's."""
        if is_random(self.weights):
            return seeded(lambda: self.build({}), self.weights)
        state, source = read_weights(self.weights)
        network = self.build(state)
        return filled(network, self.adapt(network, state), source)


@dataclass(frozen=True)
class TensorEncode:
    """An encoder's function whose work is torch's: crops uint8 (B, S, S, 3) RGB -> (B, ...) float32.

    ``forward`` does it on ``device``. Crops may lie on the device already; `start` leaves the rows there and does
    not wait for them.
    """

    device: str
    forward: Callable[[Tensor], Tensor]
    is_graph: bool = True  # the same operations whatever the batch and what is in it

    def start(self, crops: NDArray[np.uint8] | Tensor) -> Tensor:
        """(B, ...) float32 on the device, which may not be computed yet."""
        import torch

        from aupipe.extract.gpu.transfer import upload

        with torch.inference_mode():
            return self.forward(upload(crops, self.device) if isinstance(crops, np.ndarray) else crops)

    def __call__(self, crops: NDArray[np.uint8] | Tensor) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self.start(crops).cpu().numpy()
        return rows


def image_encoder(
    network: nn.Module,
    device: str,
    normal: Normal,
    forward: Callable[[Tensor], Tensor],
    precision: Precision = "float32",
    size_px: int = 0,
) -> TensorEncode:
    """crops uint8 (B, S, S, 3) RGB -> (B, ...) float32: normalised on the device, in eval mode, as one batch.

    ``size_px``: S, where it is always the same and so are the operations; on the CPU the network then runs by the
    fastest route there is.
    """
    import torch

    from aupipe.extract.encoders.onnx_export import exported
    from aupipe.extract.gpu.warp import normalize

    dtype = getattr(torch, precision)
    network.eval().to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values, device=device) for values in normal)
    if size_px and device == "cpu" and dtype == torch.float32:
        forward = exported(network, forward, size_px) or forward

    def encode(crops: Tensor) -> Tensor:
        # Not every network takes an empty batch; one black crop tells the shape of its rows.
        batch = crops if len(crops) else crops.new_zeros((1, *crops.shape[1:]))
        pixels = batch.permute(0, 3, 1, 2)  # (B, S, S, 3) -> (B, 3, S, S)
        return forward(normalize(pixels, mean, std, dtype)).float()[: len(crops)]

    return TensorEncode(device, encode, is_graph=bool(size_px))


def identify_weights(weights: str, network_name: str, licence: str = "unknown") -> Weights:
    """Which weights a network uses: a file, or random numbers."""
    return random_weights(network_name, weights) if is_random(weights) else identify(weights, licence)


def seeded(build: Callable[[], N], weights: str = RANDOM) -> N:
    """What ``build`` makes of the random numbers that ``weights`` asks for; the caller's own stay where they are."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed(weights))
        return build()


def read_weights(weights: str) -> tuple[dict[str, Tensor], str]:
    """The state dict of a weight file, and the path to name in errors."""
    from aupipe.extract.weights.checkpoint import read_state_dict

    path = find_weights(weights)
    return read_state_dict(path), str(path)


def filled(network: N, state: Mapping[str, Tensor], source: str) -> N:
    """The network with these weights, every key of them. Raises RefusedWeightsError, naming keys."""
    from aupipe.extract.weights.checkpoint import load_into

    load_into(network, state, source)
    return network
