"""report: pages to look at, of trained models and of the data set."""

from __future__ import annotations

import click

from aupipe.cli.report_data import data_report
from aupipe.cli.report_run import run


@click.group()
def report() -> None:
    """Write pages to look at: HTML files that need no network and no server.

    They need the extra [report]: pip install 'aupipe[report]'.
    """


report.add_command(run)
report.add_command(data_report)
