"""What FFmpeg's libraries complain of while one file is read; mostly they raise nothing.

One thread decodes a stream (``thread_count`` is 1), and PyAV keeps apart what is logged in each thread, so a message is
never another file's. Level "error" alone is asked for: the callback takes Python's lock, and says nothing of a whole
file. With decoder threads of FFmpeg's own it could wait for a lock that Python holds (PyAV-Org/PyAV#751).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av

MAX_MESSAGES, MAX_MESSAGE_SIGNS = 3, 160

av.logging.set_level(av.logging.ERROR)
av.logging.set_skip_repeated(False)  # "repeated" is judged across threads, and would leave out another file's message


@dataclass
class ErrorLog:
    """The lines of level "error", or worse, of one file."""

    count: int = 0
    messages: list[str] = field(default_factory=list)  # the first distinct ones, one line each

    def add(self, name: str, text: str) -> None:
        """Take in one message of a part of FFmpeg."""
        self.count += 1
        message = f"{name}: {' '.join(text.split())}"[:MAX_MESSAGE_SIGNS]
        if len(self.messages) < MAX_MESSAGES and message not in self.messages:
            self.messages.append(message)

    def take(self, lines: Sequence[tuple[int, str, str]]) -> None:
        """Take in what `av.logging.Capture` caught: (level, name, text)."""
        for level, name, text in lines:
            if level <= av.logging.ERROR:
                self.add(name, text)

    def clear(self) -> None:
        """Forget all."""
        self.count = 0
        self.messages.clear()


@contextmanager
def errors_into(log: ErrorLog) -> Iterator[None]:
    """Put what is logged in this thread into ``log``."""
    with av.logging.Capture() as lines:
        try:
            yield
        finally:
            log.take(lines)


def unknown_codec(path: Path, demuxer: str, kind: str) -> str:
    """What a file says its first stream of a kind ("video", "audio") is coded as, where FFmpeg has no decoder for it.

    PyAV knows nothing of such a stream, but FFmpeg names the codec in its log; "unknown" where it does not.
    """
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture() as lines, av.open(f"file:{os.path.abspath(path)}", format=demuxer):
            pass
    except (av.FFmpegError, ValueError, OSError):
        return "unknown"
    finally:
        av.logging.set_level(av.logging.ERROR)
    text = "\n".join(message for _, _, message in lines)
    for pattern in (r"Unknown/unsupported AVCodecID (\S+?)\.?(?:\s|$)", rf"\({kind.title()}: (?:none \()?(\w+)"):
        if found := re.search(pattern, text):
            return found[1]
    return "unknown"
