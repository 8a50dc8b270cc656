"""Parsers of JSON and TOML that raise one error type for every invalid document.

Python's parsers raise RecursionError for deep nesting and ValueError for a number of thousands of digits, and decoding
raises UnicodeDecodeError for bytes that are not text. Here each becomes the parser's own error.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON document. Raises json.JSONDecodeError for an invalid one."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from None


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises json.JSONDecodeError for an invalid document, OSError for a file that cannot be read."""
    return parse_json(path.read_bytes())


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parse a TOML document, with or without a byte order mark. Raises tomllib.TOMLDecodeError for an invalid one."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except tomllib.TOMLDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise tomllib.TOMLDecodeError(f"byte {error.start + 1} is not UTF-8: save it as UTF-8 text") from None
    except RecursionError:
        raise tomllib.TOMLDecodeError("nested too deeply") from None
    except ValueError as error:
        raise tomllib.TOMLDecodeError(str(error)) from None
