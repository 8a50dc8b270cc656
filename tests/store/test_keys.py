import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from aupipe.store.keys import recording_key, shard_folder

KEY = re.compile(r"[a-z0-9._-]{1,111}-[0-9a-f]{8}")
ANY_NAME = st.text(alphabet=st.characters(), max_size=400) | st.binary(max_size=300).map(
    lambda name: name.decode("utf-8", "surrogateescape")
)
TWINS = [
    ("A.mp4", "a.mp4"),
    ("a/b.mp4", "a_b.mp4"),
    (unicodedata.normalize("NFC", "é.mp4"), unicodedata.normalize("NFD", "é.mp4")),
    ("x" * 300 + "1", "x" * 300 + "2"),
    ("a\n", "a"),
    ("", "item"),
    ("\udcff", "\udcfe"),
    ("\ud800", "\ud801"),
]
HARD = [
    *(name for pair in TWINS for name in pair),
    "..",
    "../../x",
    "/abs",
    "con",
    "NUL.mp4",
    "C:\\x",
    "zarr.json",
    ".",
    "-",
]


def assert_safe(key):
    assert KEY.fullmatch(key)
    assert len(key) <= 120
    assert key not in (".", "..")
    assert not re.match(r"[.-]|(con|nul)(\.|$)", key)
    assert re.fullmatch(r"[0-9a-f]{2}", shard_folder(key))


def test_hard_names_have_safe_keys():
    for name in HARD:
        assert_safe(recording_key(name))


@given(ANY_NAME)
def test_every_name_has_a_safe_key_and_always_the_same(name):
    assert_safe(recording_key(name))
    assert recording_key(name) == recording_key(name)


def test_names_that_differ_have_keys_that_differ():
    for first, second in TWINS:
        assert recording_key(first) != recording_key(second)


@given(ANY_NAME, ANY_NAME)
def test_two_names_share_no_key(first, second):
    assert (first == second) == (recording_key(first) == recording_key(second))


def test_the_key_shows_the_end_of_the_name():
    assert re.fullmatch(r"corpus_a_clip_01.mp4-[0-9a-f]{8}", recording_key("corpus A/clip 01.mp4"))
