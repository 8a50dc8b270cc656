"""SynAU: faces that are a Markov chain over states with known action units, so that the best possible score is known.

36 facial states, each a fixed set of AUs; their stationary law is the maximum-entropy one whose AU rates are
Aff-Wild2's (training split). A state is kept with probability ``rho``, else drawn anew. Features show the AUs through
AR(1) noise and a per-video offset that carries nothing. Forward-backward over pair emissions then is the Bayes
optimum. It ranks implementations; it says nothing about Aff-Wild2 scores (docs/training.md, "SynAU"). The AU rates
follow from class weights in av-savchenko/face-emotion-recognition, src/ABAW. numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.store import Store, create_store
from aupipe.tasks import AU_NAMES, OFFICIAL
from aupipe.train.labels import NAMES
from aupipe.types import FeatureSpec, Labels, Recording

Array = NDArray[np.float64]

RATES = np.array([0.118, 0.050, 0.154, 0.266, 0.397, 0.344, 0.245, 0.028, 0.031, 0.026, 0.627, 0.074])

# One line per state: the AUs that show. Neutral; brows and lids; upper lip; smiles; surprise; sadness; pressed lips.
STATES = """
-
25 / 4 / 7 / 4 7 / 4 25 / 4 7 25 / 7 25 / 6 7 25
10 25 / 7 10 / 7 10 25 / 4 7 10 / 4 7 10 25 / 6 7 10 25
12 25 / 6 12 / 6 12 25 / 6 7 12 25 / 6 7 10 12 / 6 7 10 12 25 / 6 7 10 12 25 26
1 2 25 26 / 1 2 26 / 1 2 / 1 2 25 / 1 25 / 2 25 26 / 25 26
1 4 / 1 4 15 / 15 / 4 24 / 4 7 24 / 23 24 / 7 23
"""

VALENCE = dict(zip(AU_NAMES, (0, 0, -0.5, 0.5, -0.1, -0.2, 0.7, -0.4, -0.3, -0.2, 0, 0), strict=True))
AROUSAL = dict(zip(AU_NAMES, (0.3, 0.4, 0.1, 0.1, 0.1, 0.1, 0.2, -0.2, 0.1, 0, 0.1, 0.5), strict=True))

WEAK = {"AU15": 0.7, "AU23": 0.5, "AU24": 0.5, "AU26": 0.5, "AU12": 1.3}
UPPER = dict(zip(AU_NAMES, (1, 1, 1, 0.8, 0.6, 0.3, 0.2), strict=False))  # no AU below
VOICE = {"AU25": 0.9, "AU26": 1.0}


@dataclass(frozen=True)
class Config:
    """``amp`` scales every AU's gain, ``phi`` is the noise's autocorrelation per modality, ``rho`` the chance to stay.

    ``gains`` overrides single AUs of the first visual feature, ``pairs`` asks for correlations between AUs.
    """

    amp: float = 1.2
    phi: tuple[float, float, float] = (0.3, 0.3, 0.18)
    rho: float = 0.9
    videos: tuple[int, int, int] = (200, 24, 48)  # train, validation, test
    frames: int = 600
    gains: Mapping[str, float] = field(default_factory=dict)
    pairs: Mapping[tuple[str, str], float] = field(default_factory=dict)
    seed: int = 0


W1 = Config()
W2 = Config(phi=(0.9, 0.9, 0.9), rho=0.95)
AUCORR = Config(
    gains={"AU24": 0.1, "AU26": 0.1, "upper": 0.0, "voice": 0.0},
    pairs={("AU26", "AU1"): 0.25, ("AU26", "AU2"): 0.5},
)


@dataclass(frozen=True)
class Modality:
    """``means`` (S, d) of the states and ``basis`` (D, d), orthonormal: what is shown, and where in the feature."""

    spec: FeatureSpec
    means: Array
    basis: Array
    phi: float
    sd: float


@dataclass(frozen=True)
class World:
    """Features in ``store``, ``labels`` by recording id, splits, and what only Bayes knows."""

    config: Config
    store: Store
    splits: Mapping[str, list[Recording]]
    states: Mapping[str, NDArray[np.int64]]
    law: Array  # (S,)
    modalities: tuple[Modality, ...]
    restarts: Mapping[str, tuple[NDArray[np.bool_], ...]]  # per modality (T,): the noise begins anew
    cuts: Mapping[str, NDArray[np.bool_]]  # (T,) the state is drawn anew
    invalid: Mapping[str, NDArray[np.bool_]]

    @property
    def features(self) -> dict[str, str]:
        """Feature ids by name."""
        return {item.spec.name: item.spec.id for item in self.modalities}

    def labels(self, task: str = "au") -> dict[str, Labels]:
        """Annotations of every recording, invalid in bursts."""
        table = {"au": units(), "va": affect()}[task]
        found = {}
        for name, state in self.states.items():
            valid = np.repeat(~self.invalid[name][:, None], table.shape[1], axis=1)
            targets = np.where(valid, table[state], 0.0).astype(np.float32)
            found[name] = Labels(OFFICIAL[task], NAMES[task], targets, valid)
        return found

    def of(self, split: str, task: str = "au") -> dict[str, Labels]:
        """The annotations of one split."""
        labels = self.labels(task)
        return {recording.id: labels[recording.id] for recording in self.splits[split]}


def units() -> Array:
    """(S, 12): the AUs of each state."""
    lines = [part.strip() for line in STATES.strip().splitlines() for part in line.split("/")]
    return np.array([[name[2:] in line.split() for name in AU_NAMES] for line in lines], dtype=float)


def affect() -> Array:
    """(S, 2): valence and arousal of each state, within [-1, 1]."""
    weights = np.array([list(VALENCE.values()), list(AROUSAL.values())]).T  # (12, 2)
    return np.clip(units() @ weights, -1, 1)


def stationary(config: Config) -> Array:
    """(S,) the maximum-entropy law of the states with these AU rates and, for ``pairs``, these correlations."""
    shown = units()
    statistics, aims = [*shown.T], [*RATES]
    for (a, b), correlation in config.pairs.items():
        i, j = AU_NAMES.index(a), AU_NAMES.index(b)
        spread = np.sqrt(RATES[i] * (1 - RATES[i]) * RATES[j] * (1 - RATES[j]))
        statistics.append(shown[:, i] * shown[:, j])
        aims.append(RATES[i] * RATES[j] + correlation * spread)
    table, aim = np.stack(statistics, axis=1), np.array(aims)  # (S, n), (n,)
    weights = np.zeros(len(aim))

    def law(weights: Array) -> tuple[float, Array]:
        logits = table @ weights
        top = logits.max()
        each = np.exp(logits - top)
        return float(np.log(each.sum()) + top - weights @ aim), each / each.sum()

    value, current = law(weights)
    for _ in range(500):  # damped Newton on the convex dual
        miss = current @ table - aim
        if np.abs(miss).max() < 1e-9:
            return current
        centred = table - current @ table
        step = np.linalg.solve((centred * current[:, None]).T @ centred + 1e-9 * np.eye(len(aim)), miss)
        scale = 1.0
        while (trial := law(weights - scale * step))[0] > value - 1e-4 * scale * (miss @ step) and scale > 1e-9:
            scale /= 2
        weights, (value, current) = weights - scale * step, trial
    raise ValueError(f"no law of {len(shown)} states has these rates; off by {np.abs(miss).max():.1e}")


def make_world(config: Config = W1, path: str = "synau", backend: str = "memory") -> World:
    """Draw a world and publish its features in a store."""
    rng = np.random.default_rng(config.seed)
    law = stationary(config)
    modalities = _modalities(config, rng)
    store = create_store(path, backend)
    states: dict[str, NDArray[np.int64]] = {}
    restarts, cuts, invalid = {}, {}, {}
    splits: dict[str, list[Recording]] = {}
    for split, count in zip(("train", "validation", "test"), config.videos, strict=True):
        splits[split] = [Recording(f"{split}{i:03d}", split=split) for i in range(count)]
        for recording in splits[split]:
            name, size = recording.id, config.frames
            cut = np.zeros(size, dtype=bool)
            cut[[0, *rng.choice(np.arange(1, size), 2, replace=False)]] = True
            cuts[name], states[name] = cut, _chain(rng, law, cut, config.rho)
            missing, invalid[name] = _bursts(rng, size, 0.03, 12), _bursts(rng, size, 0.05, 40)
            found = []
            for item in modalities:
                gone = missing if item.spec.modality == "visual" else np.zeros(size, dtype=bool)
                restart = cut | np.concatenate([[False], gone[:-1] & ~gone[1:]])
                rows = _emit(rng, item, states[name], restart)
                rows[gone] = np.nan
                store.publish(recording.key_for(item.spec.modality), item.spec, rows.astype(np.float32))
                found.append(restart)
            restarts[name] = tuple(found)
    return World(config, store, splits, states, law, modalities, restarts, cuts, invalid)


def _modalities(config: Config, rng: np.random.Generator) -> tuple[Modality, ...]:
    shown = units()
    face = dict.fromkeys(AU_NAMES, 1.0) | WEAK | {k: v for k, v in config.gains.items() if k in AU_NAMES}
    upper = {k: v * config.gains.get("upper", 1.0) for k, v in UPPER.items()}
    voice = {k: v * config.gains.get("voice", 1.0) for k, v in VOICE.items()}
    made = []
    for (name, modality, gains, dim, sd), phi in zip(
        (
            ("visual_a", "visual", face, 24, 1.0),
            ("visual_b", "visual", upper, 12, 1.2),
            ("voice", "audio", voice, 8, 1.0),
        ),
        config.phi,
        strict=True,
    ):
        n = len(gains)
        scaled = shown[:, [AU_NAMES.index(au) for au in gains]] * np.array(list(gains.values()))  # (S, n)
        mixing = np.eye(n) + 0.25 * rng.normal(size=(n, n)) / np.sqrt(n)
        basis = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:, :n]
        params = {"config": repr(config), "name": name}  # two modalities may be alike but for their noise
        spec = FeatureSpec(name, modality, "synau", 1, params, dtype="float32")  # type: ignore[arg-type]
        made.append(Modality(spec, config.amp * scaled @ mixing.T, basis, phi, sd))
    return tuple(made)


def _chain(rng: np.random.Generator, law: Array, cut: NDArray[np.bool_], rho: float) -> NDArray[np.int64]:
    redrawn = cut | (rng.random(len(cut)) >= rho)
    drawn = rng.choice(len(law), size=len(cut), p=law)
    latest = np.maximum.accumulate(np.where(redrawn, np.arange(len(cut)), 0))
    return drawn[latest]


def _bursts(rng: np.random.Generator, size: int, share: float, mean: int) -> NDArray[np.bool_]:
    """(T,) True in bursts of ``mean`` frames on average, together about ``share`` of all."""
    out = np.zeros(size, dtype=bool)
    for _ in range(rng.poisson(share * size / mean)):
        start = rng.integers(size)
        out[start : start + rng.geometric(1 / mean)] = True
    out[0] = False
    return out


def _emit(rng: np.random.Generator, item: Modality, state: NDArray[np.int64], restart: NDArray[np.bool_]) -> Array:
    """(T, D) the state's mean, AR(1) noise, and an offset orthogonal to everything that is shown."""
    size, dim = len(state), item.basis.shape[0]
    noise = rng.normal(size=(size, dim)) * item.sd
    fresh = np.sqrt(1 - item.phi**2)
    for t in range(1, size):
        if not restart[t]:
            noise[t] = item.phi * noise[t - 1] + fresh * noise[t]
    offset = 1.5 * rng.normal(size=(dim,))
    offset -= item.basis @ (item.basis.T @ offset)
    return item.means[state] @ item.basis.T + offset + noise


View = Literal["frame", "filter", "smooth"]


def bayes(world: World, split: str, view: View = "smooth", use: tuple[str, ...] = ()) -> dict[str, Array]:
    """P(state | features) (T, S) of every recording: of one frame, of the past, or of the whole recording.

    ``use`` names the features that are looked at; none: all. Cuts and gaps are known to it, no label is.
    """
    names = [recording.id for recording in world.splits[split]]
    size, count = world.config.frames, len(world.law)
    videos = len(names)
    alone = np.zeros((size, videos, count))  # log p(z_t | j), of frames that begin anew, or of 'frame'
    new = np.zeros((size, videos, count))  # the parts of log p(z_t | z_{t-1}, i, j) that depend on j ...
    old = np.zeros((size, videos, count))  # ... on i ...
    both = np.zeros((2, 2, 2, count, count))  # ... and on both, by which modalities go on
    ongoing = np.zeros((size, videos, 3), dtype=int)
    for m, item in enumerate(world.modalities):
        if use and item.spec.name not in use:
            continue
        rows = np.stack(
            [world.store.read(r.key_for(item.spec.modality), item.spec.id) for r in world.splits[split]], axis=1
        )  # (T, V, D)
        present = ~np.isnan(rows[..., 0])
        z = np.nan_to_num(rows) @ item.basis  # (T, V, d)
        restart = np.stack([world.restarts[name][m] for name in names], axis=1)
        goes = present & np.roll(present, 1, axis=0) & ~restart
        goes[0] = False
        mu, phi, var, fresh = item.means, item.phi, item.sd**2, item.sd**2 * (1 - item.phi**2)
        single = (z @ mu.T - 0.5 * (mu**2).sum(axis=1)) / var
        alone += np.where(present[..., None], single, 0)
        e = z - phi * np.roll(z, 1, axis=0)
        pair = (e @ mu.T - 0.5 * (mu**2).sum(axis=1)) / fresh
        before = (-phi * (e @ mu.T) - 0.5 * phi**2 * (mu**2).sum(axis=1)) / fresh
        # Frames whose noise begins anew are emitted by the new state alone.
        begins = np.where((present & ~goes)[..., None], single, 0)
        new += np.where(goes[..., None], pair, begins)
        old += np.where(goes[..., None], before, 0)
        cross = phi * (mu @ mu.T) / fresh  # (i, j)
        index = [slice(None)] * 3
        index[m] = 1  # type: ignore[call-overload]
        both[tuple(index)] += cross
        ongoing[..., m] = goes
    cut = np.stack([world.cuts[name] for name in names], axis=1)  # (T, V)
    stay = world.config.rho * np.eye(count) + (1 - world.config.rho) * world.law
    if view == "frame":
        posterior = _normal(alone + np.log(world.law))
        return {name: posterior[:, v] for v, name in enumerate(names)}

    def step(t: int) -> Array:
        """(V, i, j) the potential between frames t - 1 and t, up to a factor per video."""
        g = ongoing[t]
        log = new[t][:, None, :] + old[t][:, :, None] + both[g[:, 0], g[:, 1], g[:, 2]]
        prior = np.where(cut[t][:, None, None], world.law, stay)
        return np.exp(log - log.max(axis=(1, 2), keepdims=True)) * prior

    forward = np.empty((size, videos, count))
    forward[0] = _normal(alone[0] + np.log(world.law))
    for t in range(1, size):
        moved = np.einsum("vi,vij->vj", forward[t - 1], step(t))
        forward[t] = moved / moved.sum(axis=1, keepdims=True)
    if view == "filter":
        return {name: forward[:, v] for v, name in enumerate(names)}
    backward = np.ones((videos, count))
    posterior = forward.copy()
    for t in range(size - 1, 0, -1):
        backward = np.einsum("vij,vj->vi", step(t), backward)
        backward /= backward.sum(axis=1, keepdims=True)
        joint = forward[t - 1] * backward
        posterior[t - 1] = joint / joint.sum(axis=1, keepdims=True)
    return {name: posterior[:, v] for v, name in enumerate(names)}


def _normal(logits: Array) -> Array:
    each = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(each / each.sum(axis=-1, keepdims=True))
