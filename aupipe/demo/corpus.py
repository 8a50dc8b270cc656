"""Plan, draw and write the demo corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aupipe.demo.labels import EXPRESSIONS, affect_labels, au_labels, expression_labels
from aupipe.demo.look import Look, sample_look
from aupipe.demo.motion import AUS, INDEX, FaceMotion, distribute_events, drawn_motion, simulate_motion
from aupipe.demo.rendering import Camera, FrameRenderer, sample_camera
from aupipe.demo.speech import SAMPLE_RATE_HZ, background_noise, synthesise_speech

TRAIN, VALIDATION = "Train_Set", "Validation_Set"


@dataclass(frozen=True)
class DemoCorpus:
    """The files of a corpus; `frames` counts pictures, so frames of a recording with two faces count once."""

    root: Path
    videos: tuple[Path, ...]
    train: tuple[str, ...]  # track names
    validation: tuple[str, ...]
    frames: int


@dataclass(frozen=True)
class Track:
    """One face of one recording: `demo-001`, or `demo-004_left` where there are two."""

    name: str
    split: str
    look: Look
    motion: FaceMotion
    pitch_hz: float


@dataclass(frozen=True)
class RecordingPlan:
    """Everything that determines one recording."""

    name: str
    camera: Camera
    tracks: tuple[Track, ...]
    fps: int
    seed: int


def draw_corpus(
    root: Path,
    *,
    recordings: int = 16,
    seconds: float = 12.0,
    fps: int = 25,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> DemoCorpus:
    """Draw a labelled corpus of talking faces under `root`: `videos/` and `annotations/` as in Aff-Wild2.

    Labels depend on the arguments only; so do pictures and audio, and with one version of the codecs on one machine all
    bytes of the videos. Every third recording is for validation; one shows two faces. Raises ValueError for fewer than
    2 recordings or 1 second.
    """
    plans = plan_corpus(recordings=recordings, seconds=seconds, fps=fps, seed=seed)
    root = Path(root)
    (root / "videos").mkdir(parents=True, exist_ok=True)
    videos = []
    for number, plan in enumerate(plans, start=1):
        if progress is not None:
            progress(f"drawing {plan.name} ({number}/{recordings})")
        for track in plan.tracks:
            write_labels(root / "annotations", track, fps)
        videos.append(root / "videos" / f"{plan.name}.mp4")
        write_video(videos[-1], render_frames(plan), synthesise_audio(plan), plan)
    tracks = [track for plan in plans for track in plan.tracks]
    return DemoCorpus(
        root=root,
        videos=tuple(videos),
        train=tuple(track.name for track in tracks if track.split == TRAIN),
        validation=tuple(track.name for track in tracks if track.split == VALIDATION),
        frames=sum(len(plan.tracks[0].motion.voice) for plan in plans),
    )


def plan_corpus(*, recordings: int, seconds: float, fps: int, seed: int) -> list[RecordingPlan]:
    """Everything that determines a corpus, without drawing it: people, cameras, motion.

    Raises ValueError for fewer than 2 recordings, less than 1 s, or fewer than 5 frames per second.
    """
    if recordings < 2:
        raise ValueError(f"recordings is {recordings}; a corpus with both splits needs at least 2")
    if seconds < 1.0 or fps < 5:
        raise ValueError(f"{seconds} s at {fps} frames per second is too short; draw at least 1 s at 5 or more")
    rng = np.random.default_rng(seed)
    frames = round(seconds * fps)
    held_out = 1 if recordings == 2 else 2  # of each three recordings, the one for validation
    splits = [VALIDATION if n % 3 == held_out else TRAIN for n in range(recordings)]
    pair = min(3, recordings - 1) if recordings > 2 else 0
    sides = [("_left", "_right") if n == pair else ("",) for n in range(recordings)]
    events = {
        split: iter(
            distribute_events(rng, sum(len(sides[n]) for n in range(recordings) if splits[n] == split), seconds)
        )
        for split in (TRAIN, VALIDATION)
    }
    tones = iter((rng.permutation(recordings + 1) + rng.uniform()) / (recordings + 1))
    plans = []
    for n in range(recordings):
        name = f"demo-{n + 1:03d}"
        camera = sample_camera(rng, len(sides[n]))
        gap = {2: "cover", 5: "leave", 9: "cover", 13: "leave"}.get(n % 16, "") if len(sides[n]) == 1 else ""
        tracks = []
        for side in sides[n]:
            look = sample_look(rng, next(tones))
            turns = _turns(side, seconds)
            motion = simulate_motion(rng, next(events[splits[n]]), frames, fps, turns=turns, gap=gap)
            tracks.append(Track(name + side, splits[n], look, motion, float(rng.uniform(90, 230))))
        plans.append(RecordingPlan(name, camera, tuple(tracks), fps, int(rng.integers(2**31))))
    return plans


def _turns(side: str, seconds: float) -> tuple[tuple[float, float], ...]:
    """Half-open times (s) in which a person may speak: two people alternate every 3 s or so; (): always."""
    if not side:
        return ()
    length_s = min(3.0, seconds / 2)
    starts = np.arange(0.0 if side == "_left" else length_s, seconds, 2 * length_s)
    return tuple((float(start), float(min(start + length_s - 0.3, seconds))) for start in starts)


def render_frames(plan: RecordingPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per frame a picture (H, W, 3) uint8 RGB and the true five landmarks of each face (F, 5, 2) px."""
    from aupipe.demo.face import FacePainter

    painters = [FacePainter(track.look) for track in plan.tracks]
    motions = [drawn_motion(track.motion, track.look.gain, track.look.rest) for track in plan.tracks]
    renderer = FrameRenderer(plan.camera, painters, motions, plan.seed)
    for number in range(len(motions[0].voice)):
        yield renderer.render(number)


def synthesise_audio(plan: RecordingPlan) -> np.ndarray:
    """The audio of a recording, voices and background noise: (N,) float32 mono in [-1, 1] at 16 kHz."""
    rng = np.random.default_rng(plan.seed + 1)
    voices = [
        synthesise_speech(
            rng, t.motion.voice, t.motion.intensity[:, INDEX["AU26"]], t.motion.vowel, plan.fps, t.pitch_hz
        )
        for t in plan.tracks
    ]
    sound = np.sum(voices, axis=0)
    return np.clip(sound + background_noise(rng, len(sound)), -1.0, 1.0).astype(np.float32)


def write_labels(annotations: Path, track: Track, fps: int) -> None:
    """Write the three annotation files of a track, one row per frame."""
    affect = affect_labels(track.motion, fps)
    visible = track.motion.visible
    files = (
        ("AU_Detection_Challenge", ",".join(AUS), [",".join(map(str, row)) for row in au_labels(track.motion)]),
        ("EXPR_Classification_Challenge", ",".join(EXPRESSIONS), list(map(str, expression_labels(track.motion, fps)))),
        (
            "VA_Estimation_Challenge",
            "valence,arousal",
            [f"{v:.3f},{a:.3f}" if ok else "-5,-5" for (v, a), ok in zip(affect, visible, strict=True)],
        ),
    )
    for challenge, header, rows in files:
        path = annotations / challenge / track.split / f"{track.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def write_video(
    path: Path, frames: Iterator[tuple[np.ndarray, np.ndarray]], sound: np.ndarray, plan: RecordingPlan
) -> None:
    """Encode pictures and audio into an mp4 of constant frame rate."""
    import av
    import cv2

    rng = np.random.default_rng(plan.seed + 2)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": str(int(rng.integers(22, 29))), "threads": "1"}
        options["x264-params"] = "mbtree=0"  # with it the same pictures are other bytes each time, also in one thread
        video = container.add_stream("h264", rate=plan.fps, options=options)
        video.width, video.height, video.pix_fmt = plan.camera.width_px, plan.camera.height_px, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono", bit_rate=48_000)
        for picture, _ in frames:
            planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(video.encode())
        chunk = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        chunk.sample_rate, chunk.pts = SAMPLE_RATE_HZ, 0
        container.mux(audio.encode(chunk))
        container.mux(audio.encode())
