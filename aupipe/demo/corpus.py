"""Plan, film and write the demo corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aupipe.demo.labels import EXPRESSIONS, affect_labels, au_labels, expression_labels
from aupipe.demo.look import Look, draw_look
from aupipe.demo.picture import Camera, Filming, draw_camera
from aupipe.demo.script import AUS, INDEX, Performance, as_drawn, deal_events, perform
from aupipe.demo.voice import SAMPLE_RATE_HZ, room_noise, speak

TRAIN, VALIDATION = "Train_Set", "Validation_Set"


@dataclass(frozen=True)
class DemoCorpus:
    """What was drawn and where it lies; `frames` counts pictures, so a recording with two faces counts once."""

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
    play: Performance
    pitch_hz: float


@dataclass(frozen=True)
class Take:
    """One recording before it is filmed."""

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

    Labels depend on the arguments alone. Pictures and sound too, up to what the codecs make of them. Every third
    recording is for validation; one shows two faces. Raises ValueError for fewer than 2 recordings or 1 second.
    """
    takes = plan_corpus(recordings=recordings, seconds=seconds, fps=fps, seed=seed)
    root = Path(root)
    (root / "videos").mkdir(parents=True, exist_ok=True)
    videos = []
    for number, take in enumerate(takes, start=1):
        if progress is not None:
            progress(f"drawing {take.name} ({number}/{recordings})")
        for track in take.tracks:
            write_labels(root / "annotations", track, fps)
        videos.append(root / "videos" / f"{take.name}.mp4")
        write_video(videos[-1], film(take), record(take), take)
    tracks = [track for take in takes for track in take.tracks]
    return DemoCorpus(
        root=root,
        videos=tuple(videos),
        train=tuple(track.name for track in tracks if track.split == TRAIN),
        validation=tuple(track.name for track in tracks if track.split == VALIDATION),
        frames=sum(len(take.tracks[0].play.voice) for take in takes),
    )


def plan_corpus(*, recordings: int, seconds: float, fps: int, seed: int) -> list[Take]:
    """Decide everything about a corpus without drawing it: people, cameras, performances."""
    if recordings < 2:
        raise ValueError(f"recordings is {recordings}; a corpus with both splits needs at least 2")
    if seconds < 1.0 or fps < 5:
        raise ValueError(f"{seconds} s at {fps} frames per second is too short; draw at least 1 s at 5 or more")
    rng = np.random.default_rng(seed)
    frames = round(seconds * fps)
    spare = 1 if recordings == 2 else 2  # of each three, the one that goes to validation
    splits = [VALIDATION if n % 3 == spare else TRAIN for n in range(recordings)]
    pair = min(3, recordings - 1) if recordings > 2 else 0
    sides = [("_left", "_right") if n == pair else ("",) for n in range(recordings)]
    hands = {
        split: iter(deal_events(rng, sum(len(sides[n]) for n in range(recordings) if splits[n] == split), seconds))
        for split in (TRAIN, VALIDATION)
    }
    tones = iter((rng.permutation(recordings + 1) + rng.uniform()) / (recordings + 1))
    takes = []
    for n in range(recordings):
        name = f"demo-{n + 1:03d}"
        camera = draw_camera(rng, len(sides[n]))
        gap = {2: "cover", 5: "leave", 9: "cover", 13: "leave"}.get(n % 16, "") if len(sides[n]) == 1 else ""
        tracks = []
        for side in sides[n]:
            look = draw_look(rng, next(tones))
            turns = _turns(side, seconds)
            play = perform(rng, next(hands[splits[n]]), frames, fps, turns=turns, gap=gap)
            tracks.append(Track(name + side, splits[n], look, play, float(rng.uniform(90, 230))))
        takes.append(Take(name, camera, tuple(tracks), fps, int(rng.integers(2**31))))
    return takes


def _turns(side: str, seconds: float) -> tuple[tuple[float, float], ...]:
    """Two people take turns of about 3 s; one person alone may speak at any time: ()."""
    if not side:
        return ()
    length_s = min(3.0, seconds / 2)
    starts = np.arange(0.0 if side == "_left" else length_s, seconds, 2 * length_s)
    return tuple((float(start), float(min(start + length_s - 0.3, seconds))) for start in starts)


def film(take: Take) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Film a take: per frame a picture (H, W, 3) uint8 RGB and the true five landmarks of each face (F, 5, 2) px."""
    from aupipe.demo.face import FacePainter

    painters = [FacePainter(track.look) for track in take.tracks]
    plays = [as_drawn(track.play, track.look.gain, track.look.rest) for track in take.tracks]
    filming = Filming(take.camera, painters, plays, take.seed)
    for number in range(len(plays[0].voice)):
        yield filming.frame(number)


def record(take: Take) -> np.ndarray:
    """The sound of a take, all its voices and the room: (N,) float32 mono in [-1, 1]."""
    rng = np.random.default_rng(take.seed + 1)
    voices = [
        speak(rng, t.play.voice, t.play.intensity[:, INDEX["AU26"]], t.play.vowel, take.fps, t.pitch_hz)
        for t in take.tracks
    ]
    sound = np.sum(voices, axis=0)
    return np.clip(sound + room_noise(rng, len(sound)), -1.0, 1.0).astype(np.float32)


def write_labels(annotations: Path, track: Track, fps: int) -> None:
    """Write the three annotation files of a track, one row per frame."""
    affect = affect_labels(track.play, fps)
    seen = track.play.visible
    files = (
        ("AU_Detection_Challenge", ",".join(AUS), [",".join(map(str, row)) for row in au_labels(track.play)]),
        ("EXPR_Classification_Challenge", ",".join(EXPRESSIONS), list(map(str, expression_labels(track.play, fps)))),
        (
            "VA_Estimation_Challenge",
            "valence,arousal",
            [f"{v:.3f},{a:.3f}" if ok else "-5,-5" for (v, a), ok in zip(affect, seen, strict=True)],
        ),
    )
    for challenge, header, rows in files:
        path = annotations / challenge / track.split / f"{track.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def write_video(path: Path, frames: Iterator[tuple[np.ndarray, np.ndarray]], sound: np.ndarray, take: Take) -> None:
    """Encode pictures and sound into an mp4 of constant frame rate."""
    import av
    import cv2

    rng = np.random.default_rng(take.seed + 2)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": str(int(rng.integers(22, 29))), "threads": "1"}
        video = container.add_stream("h264", rate=take.fps, options=options)
        video.width, video.height, video.pix_fmt = take.camera.width_px, take.camera.height_px, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono", bit_rate=48_000)
        for picture, _ in frames:
            planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(video.encode())
        chunk = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        chunk.sample_rate, chunk.pts = SAMPLE_RATE_HZ, 0
        container.mux(audio.encode(chunk))
        container.mux(audio.encode())
