"""The frame of all pages: one HTML file each, readable without scripts and without a network, and how it is written.

A page holds its styles and scripts, whose hashes stand in its Content-Security-Policy: nothing else runs, and nothing
is fetched but pictures and videos beside it. Templates are in ``web/`` and begin with ``{% extends "base.html.j2" %}``.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupipe.errors import UsageError
from aupipe.files import PRIVATE, write_file
from aupipe.report.palette import variables

if TYPE_CHECKING:
    from jinja2 import Environment

    from aupipe.report.drawing import Faces

WEB = Path(__file__).parent / "web"
FOLDER_MODE = 0o700  # pages show people: for their owner alone

PRIVACY: Mapping[str, str] = {
    "show": "Faces: shown. Pictures, video and sound are personal data of the people in them.",
    "blur": "Faces: blurred. This is not anonymisation: a face that no detector found in a picture where the subject's "
    "was found stays sharp; gait, clothes, voice and places stay, and boxes are biometric.",
    "none": "Faces: none. No picture, video or sound. Names, boxes, landmarks and curves are personal data too.",
}


def require_extra() -> None:
    """Raises UsageError where a library of the extra [report] is not installed."""
    found = {"jinja2": find_spec("jinja2"), "matplotlib": find_spec("matplotlib")}
    if missing := [name for name, spec in found.items() if spec is None]:
        raise UsageError(f"a report needs {' and '.join(missing)}: pip install 'aupipe[report]'")


def render_page(
    template: str,
    *,
    title: str,
    facts: str = "",
    faces: Faces = "none",
    up: tuple[str, str] | None = None,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    **content: Any,
) -> str:
    """The HTML of a page. ``content``: what the template names; it is escaped, unless the template says ``|safe``.

    ``facts``: the line below the title. ``up``: address and text of a link to the page above. ``styles`` and
    ``scripts``: files in ``web/``, after those of every page. Raises jinja2.UndefinedError for a name without a value.
    """
    style = variables() + "".join(_read(name) for name in ("page.css", *styles))
    code = [_read(name) for name in ("theme.js", *scripts)]
    policy = {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": " ".join(map(_hash, code)),
        "img-src": "'self' data:",
        "media-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            facts=facts,
            privacy=PRIVACY[faces],
            up=up,
            style=style,
            scripts=code,
            policy="; ".join(f"{name} {value}" for name, value in policy.items()),
            **content,
        )
    )


def make_folder(path: Path) -> None:
    """Make a folder for pages that only its owner may enter; one that exists is left as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def write_page(path: Path, content: str | bytes, overwrite: bool = False) -> None:
    """Write a file of a report by renaming, for its owner alone. Raises UsageError as `write_file` does."""
    make_folder(path.parent)
    write_file(path, content, overwrite, PRIVATE)


def to_script(content: Any) -> str:
    """JSON that may stand in ``<script type="application/json">`` whatever texts it holds: ``{{ data|json|safe }}``."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["json"] = to_script
    return made


@cache
def _read(name: str) -> str:
    return (WEB / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
