"""From the store to batches: rows are not shifted, filled in, or copied before they are needed."""

import numpy as np
import pytest

from aupipe.errors import RecordingError, UsageError
from aupipe.store import create_store
from aupipe.train.data import CLIP, columns, fit_scaling, load_examples
from aupipe.train.windows import tile
from aupipe.types import FeatureSpec, Recording, Window
from tests.train.reference_batch import collate

from .toy_corpus import FACE, SOUND, make_corpus

MAPS = FeatureSpec("maps", "visual", "toy-maps", 1, dtype="float16")


@pytest.fixture(scope="module")
def corpus():
    return make_corpus()


def examples_of(corpus, recordings=None, **options):
    return load_examples(corpus.store, recordings or corpus.train, corpus.features, corpus.labels, **options)


def test_features_are_views_of_the_store(corpus):
    example = examples_of(corpus)[0]
    assert np.shares_memory(example.arrays[0], corpus.store.read(example.recording, FACE.id))


def test_siblings_share_the_audio_of_their_video_and_have_their_own_faces(corpus):
    left, right = examples_of(corpus)[:2]
    np.testing.assert_array_equal(left.arrays[1], right.arrays[1])
    assert not np.array_equal(left.arrays[0], right.arrays[0])


def test_recordings_without_features_or_labels_are_listed_and_refused(corpus):
    stranger, mute = Recording("stranger"), Recording("video3", video_id="mute")
    corpus.store.fail("mute", SOUND, "no audio stream")
    with pytest.raises(UsageError) as caught:
        examples_of(corpus, [*corpus.train, stranger, mute])
    message = str(caught.value)
    assert message.startswith("incomplete recordings, 2 of 8: stranger (face, sound, labels); ")
    assert "video3 (sound: failed, no audio stream)" in message
    assert "--allow-missing" in message
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="`aupipe extract --recipe r` computes what is missing"):
        examples_of(corpus, [*corpus.train, stranger], command="aupipe extract --recipe r")
    assert len(examples_of(corpus, [*corpus.train, stranger], allow_missing=True)) == len(corpus.train)


def test_a_feature_the_store_does_not_know_is_refused(corpus):
    with pytest.raises(UsageError, match=r"feature 'face' \(face@000000000000\) is not in the store"):
        load_examples(corpus.store, corpus.train, {"face": "face@000000000000"})


def test_features_of_different_lengths_are_refused_not_padded():
    store = create_store("short", "memory")
    store.publish("a", FACE, np.ones((10, 16), np.float32))
    store.publish("a", SOUND, np.ones((9, 3), np.float32))
    with pytest.raises(RecordingError, match=r"a: features of different lengths .*'sound': 9"):
        load_examples(store, [Recording("a")], {"face": FACE.id, "sound": SOUND.id})


def test_a_frame_without_a_face_keeps_its_row_of_zeros_and_a_presence_of_0(corpus):
    examples = {item.recording: item for item in examples_of(corpus)}
    scaling = fit_scaling(list(examples.values()))
    example = examples["video2"]
    batch = collate(examples, [Window("video2", 0, 40)], scaling)
    assert batch.x.shape == (1, 40, 16 + 3 + 2)
    assert batch.x.dtype == np.float32
    lost = (np.arange(40) >= 20) & (np.arange(40) < 26)
    np.testing.assert_array_equal(batch.x[0, :, -2], ~lost)
    assert (batch.x[0, :, -1] == 1).all()
    assert (batch.x[0, lost, :16] == 0).all()
    assert (batch.x[0, lost, 16:19] != 0).any()  # audio is present
    np.testing.assert_array_equal(example.face_found[:40], ~lost)
    np.testing.assert_array_equal(batch.targets[0], corpus.labels["video2"].targets[:40])
    np.testing.assert_array_equal(batch.valid[0], corpus.labels["video2"].valid[:40])
    assert batch.valid[0, 20:26].all()  # a valid label counts although no face was found


def test_trap_05_padding_is_masked_and_never_a_negative(corpus):
    examples = {item.recording: item for item in examples_of(corpus)}
    scaling = fit_scaling(list(examples.values()))
    batch = collate(examples, [Window("video2", 0, 40), Window("video3", 30, 45)], scaling)
    assert batch.mask.sum(axis=1).tolist() == [40, 15]
    assert not batch.valid[1, 15:].any()
    assert not batch.x[1, 15:].any()


def test_concatenated_windows_are_the_recording(corpus):
    examples = {item.recording: item for item in examples_of(corpus)}
    scaling = fit_scaling(list(examples.values()))
    example = examples["video4"]
    whole = collate(examples, [Window("video4", 0, len(example))], scaling)
    parts = collate(examples, tile("video4", len(example), 32, 32), scaling)
    np.testing.assert_array_equal(parts.x[parts.mask], whole.x[0])


def test_trap_09_standardisation_uses_the_training_split_and_present_rows_only(corpus):
    examples = examples_of(corpus)
    scaling = fit_scaling(examples)
    rows = np.concatenate([item.arrays[0][item.present[:, 0]] for item in examples]).astype(np.float64)
    np.testing.assert_allclose(scaling.mean[:16], rows.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scaling.std[:16], rows.std(axis=0), rtol=1e-5)
    other = fit_scaling(examples_of(corpus, corpus.validation))
    assert not np.allclose(other.mean, scaling.mean, atol=1e-3)


def test_a_column_that_is_constant_in_training_is_clipped_elsewhere():
    store = create_store("still", "memory")
    rng = np.random.default_rng(0)
    still = np.concatenate([rng.normal(size=(50, 15)), np.full((50, 1), 4.0)], axis=1).astype(np.float32)
    store.publish("a", FACE, still)
    store.publish("b", FACE, 1e6 * still)
    examples = {
        item.recording: item for item in load_examples(store, [Recording("a"), Recording("b")], {"face": FACE.id})
    }
    scaling = fit_scaling([examples["a"]])
    assert not collate(examples, [Window("a", 0, 50)], scaling).x[..., 15].any()
    assert np.abs(collate(examples, [Window("b", 0, 50)], scaling).x).max() <= CLIP


def test_a_large_mean_costs_no_precision():
    store = create_store("far", "memory")
    rows = (1e5 + np.random.default_rng(0).normal(size=(5000, 16))).astype(np.float32)
    store.publish("a", FACE, rows)
    scaling = fit_scaling(load_examples(store, [Recording("a")], {"face": FACE.id}))
    np.testing.assert_allclose(scaling.std, rows.astype(np.float64).std(axis=0), rtol=1e-6)


def test_rows_of_any_shape_become_columns():
    store = create_store("maps", "memory")
    maps = np.arange(2 * 3 * 4 * 4, dtype=np.float16).reshape(2, 3, 4, 4)
    store.publish("a", MAPS, maps)
    (example,) = load_examples(store, [Recording("a")], {"maps": MAPS.id})
    assert example.dims == (48,)
    assert columns(example.dims) == 49
    assert collate({"a": example}, [Window("a", 0, 2)], fit_scaling([example])).x.shape == (1, 2, 49)


def test_centring_subtracts_a_recordings_own_mean_over_its_present_rows(corpus):
    examples = {item.recording: item for item in examples_of(corpus)}
    for center in (0.5, 1.0):
        scaling = fit_scaling(list(examples.values()), center)
        rows = np.concatenate(
            [
                (part := item.arrays[0][item.present[:, 0]].astype(np.float64)) - center * part.mean(axis=0)
                for item in examples.values()
            ]
        )
        np.testing.assert_allclose(scaling.mean[:16], rows.mean(axis=0), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(scaling.std[:16], rows.std(axis=0), rtol=1e-5)
    x = collate(examples, [Window("video2", 0, len(examples["video2"]))], scaling).x[0]
    np.testing.assert_allclose(x[x[:, -2] == 1, :16].mean(axis=0), 0, atol=1e-5)
    assert (x[x[:, -2] == 0, :16] == 0).all()


def test_a_recording_without_a_single_row_can_be_centred():
    store = create_store("blind", "memory")
    store.publish("a", FACE, np.full((9, 16), np.nan, np.float32))
    (example,) = load_examples(store, [Recording("a")], {"face": FACE.id})
    assert not collate({"a": example}, [Window("a", 0, 9)], fit_scaling([example], 1.0)).x.any()
