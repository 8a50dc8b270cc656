"""The report of a data set: its page, and a page, a video and a contact sheet for each of some recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from aupipe.dataset import Dataset
from aupipe.errors import AupipeError, DamageError, UsageError
from aupipe.extract.encoders.visual.blendshapes import NAMES
from aupipe.extract.planning.features import FeatureSet
from aupipe.files import PRIVATE
from aupipe.quantities import counted
from aupipe.report.checks.corpus import CorpusReport
from aupipe.report.checks.judge import Finding
from aupipe.report.drawing import Faces
from aupipe.report.faces import RecordingFaces, read_faces, read_rows, without_faces
from aupipe.report.frames import refuse_changed
from aupipe.report.index_page import order_of, render_index, write_csv, write_json
from aupipe.report.packing import HEIGHT_WIDTH
from aupipe.report.page import make_folder, write_page
from aupipe.report.panels import Heat, Panel, blendshape_heat, measured_panels, stored_rows, task_panels
from aupipe.report.proxy import Proxy, write_proxy
from aupipe.report.recording_page import FILE, SHEET_FILE, VIDEO_FILE, RecordingView, render_recording
from aupipe.report.report_folder import folder_name, replaced_folder
from aupipe.report.sheet import encode_sheet
from aupipe.report.video_file import read_sound, rising
from aupipe.store import Store
from aupipe.train.predictions import Predictions
from aupipe.types import Labels, Recording, Waveform


@dataclass(frozen=True)
class DataReport:
    """What a report is made from, and how. ``clean`` takes folders out of a text; ``predicted`` says of predictions,
    by recording, and ``media`` of videos what stands on a page."""

    dataset: Dataset
    features: FeatureSet
    store: Store
    checks: CorpusReport
    clean: Callable[[str], str]
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    predicted: Mapping[str, str] = field(default_factory=dict)
    media: Mapping[str, Sequence[str]] = field(default_factory=dict)
    faces: Faces = "show"
    keep_sound: bool = True

    def write(self, out: Path, names: Sequence[str], paged: Sequence[str], workers: int) -> Iterator[tuple[str, str]]:
        """Write the folder ``out``: ``names`` are on its page, worst first, and those of ``paged`` have their own.

        Yields each recording that has no page, or a page without a video, with the reason, while they are made.
        """
        known = {recording.id: recording for recording in self.dataset.recordings}
        pages, sheets = dict[str, str](), dict[str, str]()
        with replaced_folder(out) as folder:
            if paged:
                make_folder(folder / "rec")
            with ThreadPoolExecutor(workers) as pool:
                made = {
                    pool.submit(self._write_recording, folder / "rec" / folder_name(name), known[name]): name
                    for name in paged
                }
                try:
                    for done in as_completed(made):
                        name = made[done]
                        reason, has_sheet = done.result()
                        if reason:
                            yield name, reason
                        here = f"rec/{folder_name(name)}"
                        if (folder / here / FILE).exists():
                            pages[name] = f"{here}/{FILE}"
                        if has_sheet:
                            sheets[name] = f"{here}/{SHEET_FILE}"
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
            videos = any(folder.glob(f"rec/*/{VIDEO_FILE}"))
            kept = ["Sound: kept in the videos." if self.keep_sound and videos else "Sound: none."]
            mode = self.faces if videos else "none"
            index = render_index(self.checks, names, pages, sheets, kept, self.clean, mode)
            write_page(folder / "index.html", index)
            write_page(folder / "checks.csv", write_csv(self.checks, names))
            write_page(folder / "checks.json", write_json(self.checks, names, self.clean))

    def _write_recording(self, folder: Path, recording: Recording) -> tuple[str, bool]:
        """Write the folder of a recording; why it has no page or no video, and whether it has a contact sheet."""
        try:
            times = read_rows(self.store, recording, self.features.graph(recording).clock)
            if times is None or not len(times):
                return "no page: its clock is not stored: aupipe extract", False
            faces = None if recording.aligned else read_faces(self.store, self.features, recording)
        except DamageError as error:
            return f"no page: {error}", False
        make_folder(folder)
        times = rising(np.asarray(times, np.float64).reshape(-1))
        faces = None if faces is None else replace(faces, times_s=times)  # the video and its page have one clock
        sound = read_sound(recording)
        made, failure = Proxy(), ""
        if self.faces != "none":
            made, failure = self._write_pictures(folder, recording, times, faces, sound)
        panels, lacking = self._panels(recording, times, faces, sound)
        size = made.size if made.size[0] or faces is None else _stored_size(faces)
        heat, reason = self._heat(recording, times)
        lacking += [f"blendshapes ({reason})"] * bool(reason)
        notes = [f"No video: {self.clean(failure)}."] * bool(failure)
        notes += [f"Not shown: {'; '.join(lacking)}."] * bool(lacking)
        notes += [f"Missing: {counted(made.missing, 'image')}; their rows are grey."] * bool(made.missing)
        notes += [f"Media: {self.clean(note)}." for note in self.media.get(recording.video_id, ())]
        notes += [self.clean(each) for each in (self.predicted.get(recording.id),) if each]
        view = RecordingView(
            recording.id,
            times,
            faces,
            panels,
            heat,
            size,
            bool(made.size[0]),
            bool(made.tiles),
            self._findings(recording),
            [*notes, self._sound_words(sound if made.size[0] else None)],
            self.faces if made.size[0] else "none",
        )
        if made.tiles and faces is not None:
            write_page(folder / SHEET_FILE, encode_sheet(made.tiles, recording, faces, ".jpg"))
        for file, html in render_recording(view).items():
            write_page(folder / file, html)
        return f"no video on its page: {failure}" if failure else "", bool(made.tiles)

    def _write_pictures(
        self,
        folder: Path,
        recording: Recording,
        times: NDArray[np.float64],
        faces: RecordingFaces | None,
        sound: Waveform | None,
    ) -> tuple[Proxy, str]:
        """Write the video; what came of it, and why there is none."""
        path = folder / VIDEO_FILE
        path.touch(PRIVATE)
        try:
            refuse_changed(self.store, self.features, recording)
            of_rows = without_faces(times) if faces is None else faces
            made = write_proxy(recording, of_rows, path, self.faces, sound if self.keep_sound else None)
        except (AupipeError, OSError, av.FFmpegError) as error:
            path.unlink()
            return Proxy(), str(error)
        if faces is None:
            made.tiles.clear()
        return made, ""

    def _panels(
        self,
        recording: Recording,
        times: NDArray[np.float64],
        faces: RecordingFaces | None,
        sound: Waveform | None,
    ) -> tuple[list[Panel], list[str]]:
        """The panels that there are, and those that are not, with the reason."""
        speech, reason = stored_rows(self.store, self.features, recording, "vad", 1)
        lacking = [f"speech ({reason})"] * bool(reason)
        lacking += ["faces (none are stored)"] * (faces is None)
        lacking += ["sound (there is none that can be decoded)"] * (sound is None)
        found = measured_panels(times, faces, sound, speech)
        predicted = self.predictions.get(recording.id)
        tasks = dict.fromkeys([*([predicted.task.name] if predicted else []), *self.dataset.tasks])
        for task in tasks:
            labels: Labels | None = None
            try:
                labels = self.dataset.labels(recording, task)
            except UsageError as error:
                lacking.append(f"{task} labels ({self.clean(str(error))})")
            own = predicted if predicted is not None and predicted.task.name == task else None
            found += task_panels(len(times), labels, own)
        return found, lacking

    def _heat(
        self, recording: Recording, times: NDArray[np.float64]
    ) -> tuple[Callable[[slice, float], Heat] | None, str]:
        rows, reason = stored_rows(self.store, self.features, recording, "blendshapes", len(NAMES))
        if rows is None:
            return None, reason
        return lambda part, end_s: blendshape_heat(times[part], end_s, rows[part]), ""

    def _findings(self, recording: Recording) -> list[Finding]:
        return [replace(one, why=self.clean(one.why)) for one in self.checks.flagged.get(recording.id, ())]

    def _sound_words(self, sound: Waveform | None) -> str:
        if sound is None:
            return "Sound: none."
        return "Sound: kept in the video." if self.keep_sound else "Sound: left out of the video."


def choose_pages(checks: CorpusReport, names: Sequence[str], most: int | None) -> tuple[list[str], list[str]]:
    """The recordings, worst first, and those of them that have a page: at most so many, None for all."""
    ordered = order_of(checks, names)
    return ordered, ordered[:most]


def _stored_size(faces: RecordingFaces) -> tuple[int, int]:
    """Width and height of the first picture with a face; (0, 0) where there is none."""
    if not len(faces.every.rows):
        return (0, 0)
    height, width = faces.every.rows[0, HEIGHT_WIDTH]
    return int(width), int(height)
