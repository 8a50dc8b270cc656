"""What a file is: by its suffix where that says it, else by its first bytes."""

from __future__ import annotations

from pathlib import Path

VIDEO_SUFFIXES = frozenset({
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".flv", ".3gp", ".ogv", ".vob"),
})  # fmt: skip
OTHER_SUFFIXES = frozenset({  # their files are not opened to see whether they are videos
    *(".txt", ".md", ".log", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".pdf", ".toml", ".yaml", ".yml"),
    *(".ini", ".srt", ".vtt", ".ass", ".align", ".textgrid", ".eaf", ".pts", ".py", ".ipynb", ".sh", ".m", ".r"),
    *(".wav", ".mp3", ".m4a", ".m4b", ".mka", ".aac", ".flac", ".ogg", ".oga", ".opus", ".wma", ".weba", ".aiff"),
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".heic", ".avif", ".svg", ".npy", ".npz"),
    *(".mat", ".h5", ".hdf5", ".pkl", ".pt", ".pth", ".onnx", ".safetensors", ".parquet", ".xls", ".xlsx", ".docx"),
    *(".zip", ".gz", ".xz", ".tar", ".7z", ".part", ".partial", ".crdownload", ".download", ".tmp", ".bak"),
})  # fmt: skip
HEAD_BYTES = 4096
SOUND_ONLY = ("wav", "flac", "mp3", "ogg")  # demuxers; Ogg with video is called .ogv
NO_VIDEO_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"crx ", b"M4A ", b"M4B ", b"M4P ")  # photos and sound


def is_video(path: Path) -> bool:
    """Whether a file is listed as a video: by its suffix, or by its content where that may be anything (.mod, none).

    False for hidden files without the suffix of a video, for pipes, and for files that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in OTHER_SUFFIXES or path.name.startswith("."):
        return suffix in VIDEO_SUFFIXES
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    is_photo = head[4:8] == b"ftyp" and head[8:12] in NO_VIDEO_BRANDS
    return not is_photo and find_demuxer(head) not in (None, *SOUND_ONLY)


def find_demuxer(head: bytes) -> str | None:
    """The FFmpeg demuxer for a media file that begins with these bytes; None where it is none that aupipe reads."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"AVIX"):
        return "avi"
    if head.startswith((b"RIFF", b"RF64")) and head[8:12] == b"WAVE":
        return "wav"
    if head.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"):
        return "asf"
    if head.startswith(b"\x00\x00\x01\xba"):
        return "mpeg"
    if head.startswith(b"\x00\x00\x01\xb3"):
        return "mpegvideo"
    if head.startswith(b"FLV\x01"):
        return "flv"
    if head.startswith(b"OggS"):
        return "ogg"
    if head.startswith(b"fLaC"):
        return "flac"
    if head.startswith(b"ID3") or _is_mpeg_audio(head):
        return "mp3"
    for offset in (0, 4):  # transport streams: sync byte every 188, or every 192 with a time code (m2ts)
        step = 188 + offset
        if len(head) > 4 * step and all(head[offset + i * step] == 0x47 for i in range(4)):
            return "mpegts"
    return None


def _is_mpeg_audio(head: bytes) -> bool:
    """A frame header: sync, a layer, a bit rate and a sample rate that exist; and no text in UTF-16."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0 or head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    return head[1] & 0x06 != 0 and 0 < head[2] >> 4 < 15 and head[2] & 0x0C != 0x0C


def is_text(head: bytes) -> bool:
    """Whether a file that begins with these bytes is text in UTF-8 or UTF-16."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True  # UTF-16
    try:
        head[: HEAD_BYTES - 4].decode("utf-8")  # a cut character at the end is not a sign of binary data
    except UnicodeDecodeError as error:
        return error.start > HEAD_BYTES - 8
    return b"\0" not in head
