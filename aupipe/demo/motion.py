"""The motion of a demo face over time: action units, speech, blinks, gaze, head motion, and times without a face."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

AUS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")
INDEX = {au: k for k, au in enumerate(AUS)}


@dataclass(frozen=True)
class Event:
    """One kind of facial event: range of peak intensity per action unit, share of all time, range of length."""

    peaks: dict[str, tuple[float, float]]
    share: float
    length_s: tuple[float, float]
    closes_mouth: bool = False  # stops the speech


EVENTS = (
    Event({"AU6": (0.4, 0.9), "AU12": (0.6, 1.0), "AU7": (0.1, 0.5), "AU25": (0.0, 0.8)}, 0.15, (1.2, 3.5)),
    Event({"AU12": (0.45, 0.9)}, 0.11, (0.8, 2.5)),
    Event({"AU1": (0.6, 1.0), "AU2": (0.6, 1.0), "AU25": (0.5, 0.9), "AU26": (0.45, 0.95)}, 0.05, (0.7, 1.6)),
    Event({"AU1": (0.5, 0.9), "AU2": (0.45, 0.9)}, 0.05, (0.5, 1.5)),
    Event({"AU4": (0.5, 1.0), "AU7": (0.45, 0.9), "AU23": (0.55, 1.0)}, 0.03, (1.0, 2.0), True),
    Event({"AU4": (0.45, 0.95), "AU7": (0.4, 0.9)}, 0.09, (1.0, 3.0)),
    Event({"AU1": (0.5, 1.0), "AU4": (0.4, 0.8), "AU15": (0.55, 1.0)}, 0.06, (1.0, 2.2)),
    Event({"AU4": (0.2, 0.7), "AU7": (0.4, 0.8), "AU10": (0.6, 1.0), "AU25": (0.2, 0.6)}, 0.07, (1.0, 2.2)),
    Event({"AU10": (0.5, 0.95), "AU25": (0.3, 0.7)}, 0.26, (1.2, 3.5)),
    Event({"AU7": (0.45, 1.0)}, 0.16, (0.8, 3.0)),
    Event({"AU6": (0.45, 0.9), "AU7": (0.4, 0.8)}, 0.14, (1.0, 2.5)),
    Event({"AU23": (0.6, 1.0)}, 0.04, (0.8, 1.6), True),
    Event({"AU24": (0.6, 1.0)}, 0.07, (0.8, 1.8), True),
    Event({"AU1": (0.5, 0.9), "AU2": (0.4, 0.8), "AU4": (0.4, 0.8), "AU25": (0.5, 0.9)}, 0.02, (0.7, 1.5)),
    Event({"AU25": (0.45, 0.8)}, 0.12, (0.8, 2.5)),
    Event({"AU25": (0.5, 0.9), "AU26": (0.5, 1.0)}, 0.04, (0.6, 1.5)),
)


@dataclass(frozen=True)
class FaceMotion:
    """Everything that moves in one face, one row per frame; lengths in inter-ocular distances, angles in radians."""

    intensity: np.ndarray  # (T, 12) action units in [0, 1], order of AUS
    blink: np.ndarray  # (T,) 0 open, 1 closed
    gaze: np.ndarray  # (T, 2) right and down, in [-1, 1]
    # The next two belong to speech. Mouth shapes of single sounds are not coded as action units, so they have no label.
    stretch: np.ndarray  # (T,) mouth width of the vowel: -1 rounded, 1 spread
    meet: np.ndarray  # (T,) lips pressed for p, b and m
    voice: np.ndarray  # (T,) loudness of the voice in [0, 1]
    vowel: np.ndarray  # (T,) place of the vowel in [0, 1]: sets the second formant
    shift: np.ndarray  # (T, 2) head displacement
    angle: np.ndarray  # (T, 3) roll, yaw, pitch
    cover: np.ndarray  # (T,) how far a covering object has moved in: 0 away, 1 over the whole face
    leave: np.ndarray  # (T,) how far the head has left the picture: 0 in place, 1 gone

    @property
    def visible(self) -> np.ndarray:
        """(T,) bool: the whole face can be seen."""
        return (self.cover < 0.02) & (self.leave < 0.05)


def bump(time_s: np.ndarray, start_s: float, stop_s: float, rise_s: float, fall_s: float) -> np.ndarray:
    """Raised-cosine rise, plateau and raised-cosine fall on a clock: (T,) in [0, 1]."""
    up = np.clip((time_s - start_s) / rise_s, 0.0, 1.0)
    down = np.clip((stop_s - time_s) / fall_s, 0.0, 1.0)
    return (0.5 - 0.5 * np.cos(np.pi * up)) * (0.5 - 0.5 * np.cos(np.pi * down))


def wander(rng: np.random.Generator, time_s: np.ndarray, period_s: float) -> np.ndarray:
    """Slow random motion about zero with unit size: three sines near a period, (T,)."""
    waves = [
        np.sin(2 * np.pi * (time_s / (period_s * rng.uniform(0.6, 1.8)) + rng.uniform())) * rng.uniform(0.5, 1.0)
        for _ in range(3)
    ]
    return np.sum(waves, axis=0) / 1.3


def distribute_events(rng: np.random.Generator, faces: int, seconds: float) -> list[list[Event]]:
    """Distribute facial events over the faces of one split: each kind has its share of time, and occurs."""
    pool: list[Event] = []
    for event in EVENTS:
        mean_s = sum(event.length_s) / 2
        wanted = event.share * faces * seconds / mean_s
        pool += [event] * max(1, round(wanted + rng.uniform(-0.3, 0.3)))
    order = rng.permutation(len(pool))
    first = int(rng.integers(faces))
    found: list[list[Event]] = [[] for _ in range(faces)]
    for number, index in enumerate(order):
        found[(first + number) % faces].append(pool[index])
    return found


def simulate_motion(
    rng: np.random.Generator,
    events: list[Event],
    frames: int,
    fps: int,
    *,
    turns: tuple[tuple[float, float], ...] = (),
    gap: str = "",
) -> FaceMotion:
    """The motion of one face from its events, with speech and unlabelled movements.

    `turns`: half-open times (s) in which this face may speak; (): always. `gap`: "", or how the face is hidden for a
    while: "cover" or "leave".
    """
    time_s = np.arange(frames) / fps
    length_s = frames / fps
    intensity = np.zeros((frames, len(AUS)))
    mute = np.zeros(frames)
    # A short clip shortens its events rather than dropping them: every action unit should still occur.
    squeeze = min(1.0, 2.2 * length_s / max(sum(sum(e.length_s) / 2 for e in events), 0.1))
    busy = np.zeros((2, frames), bool)  # upper face, mouth
    for event in sorted(events, key=lambda e: not e.closes_mouth):
        event_s = min(rng.uniform(*event.length_s) * squeeze, 0.8 * length_s)
        start_s, span = _least_busy_time(rng, event, event_s, busy, fps)
        rise_s, fall_s = np.minimum(rng.uniform((0.16, 0.2), (0.5, 0.7)), 0.4 * event_s)
        shape = bump(time_s, start_s, start_s + event_s, rise_s, fall_s)
        for region in _regions(event):
            busy[region, span] = True
        for au, (low, high) in event.peaks.items():
            k = INDEX[au]
            intensity[:, k] = np.maximum(intensity[:, k], rng.uniform(low, high) * shape)
        if event.closes_mouth:
            mute = np.maximum(mute, shape)
    for _ in range(max(2, round(0.7 * length_s))):  # movements below the label threshold
        start_s, event_s = rng.uniform(-0.2, length_s), rng.uniform(0.3, 1.5)
        k = int(rng.integers(len(AUS) - 2))
        faint = rng.uniform(0.08, 0.27) * bump(time_s, start_s, start_s + event_s, 0.4 * event_s, 0.4 * event_s)
        intensity[:, k] = np.maximum(intensity[:, k], faint)

    lips, jaw, voice, stretch, vowel, meet = _speech(rng, time_s, turns)
    open_mouth = 1.0 - np.clip(1.8 * mute, 0.0, 1.0)  # pressed or tightened lips close the mouth and stop the voice
    for au, drive in (("AU25", lips), ("AU26", jaw)):
        k = INDEX[au]
        intensity[:, k] = np.maximum(intensity[:, k], drive) * open_mouth
    intensity[:, INDEX["AU10"]] *= open_mouth
    pose_size = rng.uniform(0.4, 1.0, 3) * (0.08, 0.15, 0.08)
    return FaceMotion(
        intensity=np.clip(intensity, 0.0, 1.0),
        blink=_blinks(rng, time_s),
        gaze=_gaze(rng, time_s),
        stretch=stretch * open_mouth,
        meet=meet * open_mouth,
        voice=voice * open_mouth,
        vowel=vowel,
        shift=np.stack([0.16 * wander(rng, time_s, 5.0), 0.08 * wander(rng, time_s, 4.0)], axis=1),
        angle=pose_size * np.stack([wander(rng, time_s, period_s) for period_s in (5.0, 4.0, 4.0)], axis=1)
        + rng.normal(0, (0.02, 0.05, 0.03)),
        cover=_gap(rng, time_s) if gap == "cover" else np.zeros(frames),
        leave=_gap(rng, time_s) if gap == "leave" else np.zeros(frames),
    )


def _regions(event: Event) -> list[int]:
    upper = any(INDEX[au] <= INDEX["AU7"] for au in event.peaks)
    return [0] * upper + [1] * any(INDEX[au] > INDEX["AU7"] for au in event.peaks)


def _least_busy_time(
    rng: np.random.Generator, event: Event, event_s: float, busy: np.ndarray, fps: int
) -> tuple[float, slice]:
    """Of several random times for an event the one with the least overlap: (start in s, its frames)."""
    length_s = busy.shape[1] / fps
    least, chosen = np.inf, (0.0, slice(0, 0))
    for start_s in rng.uniform(-0.1 * event_s, max(length_s - 0.9 * event_s, 0.0), 24):
        span = slice(max(int(start_s * fps), 0), int((start_s + event_s) * fps) + 1)
        overlap = busy[_regions(event), span].mean()
        if overlap < least:
            least, chosen = overlap, (float(start_s), span)
    return chosen


def _speech(
    rng: np.random.Generator, time_s: np.ndarray, turns: tuple[tuple[float, float], ...]
) -> tuple[np.ndarray, ...]:
    """Syllables in phrases: lips, jaw, voice, stretch, vowel, meet, each (T,)."""
    lips, jaw, voice, stretch, meet = (np.zeros(len(time_s)) for _ in range(5))
    vowel = np.full(len(time_s), 0.5)
    length_s = float(time_s[-1])
    loud, clock_s = rng.uniform(0.75, 1.0), rng.uniform(0.0, 0.6)
    for turn_start_s, turn_stop_s in turns or ((0.0, length_s),):
        clock_s = max(clock_s, turn_start_s)
        while clock_s < turn_stop_s:
            phrase_stop_s = min(clock_s + rng.uniform(1.2, 3.2), turn_stop_s)
            held = bump(time_s, clock_s - 0.1, phrase_stop_s + 0.2, 0.15, 0.25)
            lips = np.maximum(lips, rng.uniform(0.36, 0.5) * held)
            while clock_s < phrase_stop_s:
                syllable_s = 1.0 / rng.uniform(3.0, 6.0)
                half_s = 0.5 * syllable_s
                shape = bump(time_s, clock_s, clock_s + syllable_s, half_s, half_s)
                stress = rng.uniform(0.15, 0.75) * loud
                place, spread = rng.uniform(), rng.uniform(-1.0, 1.0)
                if rng.uniform() < 0.2:  # p, b, m: the lips meet before the vowel
                    closing = bump(time_s, clock_s - 0.07, clock_s + 0.09, 0.06, 0.06)
                    lips = lips * (1.0 - 0.9 * closing)
                    meet = np.maximum(meet, rng.uniform(0.5, 1.0) * closing)
                lips = np.maximum(lips, (0.3 + 0.6 * stress) * shape)
                jaw = np.maximum(jaw, 0.8 * stress * shape)
                voice = np.maximum(voice, (0.35 + 0.65 * stress) * np.sqrt(shape))
                stretch += spread * shape * stress
                vowel = np.where(shape > 0.05, place, vowel)
                clock_s += syllable_s
            clock_s = phrase_stop_s + rng.uniform(0.4, 2.2)
    return lips, jaw, voice, np.clip(1.6 * stretch, -1.0, 1.0), vowel, meet


def _blinks(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    closed, clock_s = np.zeros(len(time_s)), rng.uniform(0.2, 3.0)
    while clock_s < time_s[-1]:
        length_s = rng.uniform(0.16, 0.36)
        depth = rng.uniform(0.55, 1.0)
        closed = np.maximum(closed, depth * bump(time_s, clock_s, clock_s + length_s, 0.35 * length_s, 0.5 * length_s))
        clock_s += rng.uniform(1.0, 4.0)
    return closed


def _gaze(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    steps = len(time_s) // 12 + 2
    target = rng.normal(0, (0.35, 0.2), (steps, 2)) * (rng.uniform(size=(steps, 1)) < 0.5)
    return np.clip(np.repeat(target, 12, axis=0)[: len(time_s)], -1.0, 1.0)


def _gap(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    length_s = float(time_s[-1])
    gap_s = min(1.3, 0.35 * length_s)
    start_s = rng.uniform(0.2 * length_s, 0.9 * length_s - gap_s)
    return bump(time_s, start_s, start_s + gap_s, 0.3 * gap_s, 0.3 * gap_s)


def drawn_motion(motion: FaceMotion, gain: np.ndarray, rest: np.ndarray) -> FaceMotion:
    """The motion as drawn on one person: (12,) gains and resting offsets change the drawing, not the labels."""
    return replace(motion, intensity=np.clip(motion.intensity * gain + rest, -0.2, 1.2))
