"""JSON and TOML as other people's files hold them: whatever is wrong with one is the parser's own error.

Python's parsers answer deep nesting with a RecursionError, a number of thousands of digits with a bare ValueError, and
bytes that are no text are noticed before them: none of which who reads a file thinks of.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """A JSON document. Raises json.JSONDecodeError for whatever is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from None


def read_json(path: Path) -> Any:
    """The JSON document in a file. Raises json.JSONDecodeError for whatever is none, OSError where there is no file."""
    return parse_json(path.read_bytes())


def parse_toml(content: bytes) -> dict[str, Any]:
    """A TOML document, with or without a byte order mark. Raises tomllib.TOMLDecodeError for whatever is none."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise tomllib.TOMLDecodeError("nested too deeply") from None
    except ValueError as error:
        raise tomllib.TOMLDecodeError(str(error)) from None
