"""What of an installation, a machine and a project does not work, found before a run; each finding with its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["PASS", "WARN", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and what to do about it, where ``found`` does not say that."""

    state: State
    subject: str
    found: str
    remedy: str = ""
