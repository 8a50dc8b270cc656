"""report: pages to look at, of trained runs and of the data set."""

from __future__ import annotations

import click


@click.group()
def report() -> None:
    """Write pages to look at: HTML files that need no network and no server.

    They need the extra [report]: pip install 'aupipe[report]'.
    """
