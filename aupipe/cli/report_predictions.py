"""What a run predicts of the recordings of a report: held out where it can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aupipe.cli.context import Context, choose_postprocess, open_context

if TYPE_CHECKING:
    from aupipe.report.checks.corpus import HeldOut
    from aupipe.train.predictions import Predictions
    from aupipe.types import Recording


class RunPredictions:
    """Predictions of a run or an ensemble, before its post-processing in `held_out`, after it in `of`."""

    def __init__(self, run: Path, config_file: Path | None, store: Path | None, gpu: str | None, cpu: bool) -> None:
        from aupipe.train.model import load_model

        self.model = load_model(run)
        self.context: Context = open_context(config_file, store, gpu, cpu, True, None)
        self.post = choose_postprocess(self.model, "own")
        unseen = {name for one in self.model.runs for name in set(one.validation) - set(one.train)}
        own = [recording for recording in self.context.dataset.recordings if recording.id in unseen]
        self._held_out = self.context.predict(self.model, own, held_out=True) if own else {}

    def held_out(self) -> HeldOut | None:
        """The scores that labels can be held against; None where no run held any recording out."""
        from aupipe.report.checks.corpus import HeldOut

        scores = {name: item.scores for name, item in self._held_out.items()}
        return HeldOut(self.model.task, scores) if scores else None

    def of(self, recordings: Sequence[Recording]) -> dict[str, Predictions]:
        """Post-processed predictions of some recordings, those that were not held out by the whole model."""
        from aupipe.train.postprocess import apply_postprocess

        rest = [recording for recording in recordings if recording.id not in self._held_out]
        found = self.context.predict(self.model, rest) if rest else {}
        found |= {each.id: self._held_out[each.id] for each in recordings if each.id in self._held_out}
        return apply_postprocess(self.post, found) if self.post is not None else found

    def notes(self, recordings: Sequence[Recording]) -> dict[str, str]:
        """What a reader must know of the predictions, by recording."""
        post = f"; {self.post.describe()}" if self.post is not None else ""
        found = {}
        for recording in recordings:
            if recording.id in self._held_out:
                kind = "held out"
            elif recording.id in self.model.trained_on:
                kind = "it was TRAINED on this recording, so they flatter it"
            else:
                kind = "it has not seen this recording"
            found[recording.id] = f"Predictions of {self.model.path.name}: {kind}{post}."
        return found
