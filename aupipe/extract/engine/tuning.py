"""What is found out of an encoder on a device when it is loaded: its batch size, and its compiled form."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from aupipe.extract.engine.batch_size import CPU_BATCH, BatchSizes, one_prober, probe, remember, remembered
from aupipe.extract.engine.models import LoadedEncoder
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.types import FeatureSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuner:
    """Sets the batch size of each encoder on ``device``, and compiles it where asked to.

    ``sharing``: processes on the device, this one too.
    """

    device: str
    sizes: BatchSizes
    compiled: bool = False
    sharing: int = 1

    def __call__(self, spec: FeatureSpec, template: CropTemplate, loaded: LoadedEncoder) -> LoadedEncoder:
        if self.device.startswith("cuda") and not self.sizes.fixed and loaded.is_on_device:
            self.sizes.set(spec.id, self._batch_size(spec, template, loaded))
        if not self.compiled:
            return loaded
        from aupipe.extract.encoders.torch_compile import compiled

        made = compiled(loaded.encode, template.size_px, self.sizes.of(spec.id))
        if made is loaded.encode:
            return loaded
        return replace(loaded, encode=made, versions=loaded.versions | {"torch.compile": "inductor"})

    def _batch_size(self, spec: FeatureSpec, template: CropTemplate, loaded: LoadedEncoder) -> int:
        """The batch size of an encoder on this device: as it was found before, or probed."""
        import torch

        from aupipe.extract.gpu.transfer import empty_cache

        key = f"{spec.key} {torch.cuda.get_device_name(self.device)} {spec.params.get('precision', 'float32')}"
        key += f" 1/{self.sharing}" * (self.sharing > 1)  # of its memory

        def run(count: int) -> None:
            shape = (count, template.size_px, template.size_px, 3)
            loaded.encode(torch.zeros(shape, dtype=torch.uint8, device=self.device))

        with one_prober():  # the other processes of this device wait, and then find what this one wrote
            size = remembered(key)
            if size is None:
                size = probe(run)
                empty_cache()
                if size:
                    remember(key, size)
                    log.info("%s: %d at a time", spec.name, size)
        return size or CPU_BATCH
