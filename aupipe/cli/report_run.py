"""report run: pages of trained models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aupipe.cli.output import echo
from aupipe.cli.overwrite import overwrite_option
from aupipe.cli.scoring import ScoreRequest, score_models, score_options
from aupipe.quantities import counted


@click.command()
@score_options
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder to write. Default: report in RUN."
)
@click.option(
    "--figures", type=click.Choice(["svg", "pdf"]), help="Also write each figure as a file, for a paper or a talk."
)
@overwrite_option("the report at --out")
def run(out: Path | None, figures: str | None, overwrite: bool, **asked: Any) -> None:
    """Write a page on RUN: its score, the worst recordings, what is found and missed, thresholds, calibration, cost.

    The score is that of `aupipe evaluate` with the same options. Several RUNs are put side by side, with the intervals
    of their differences to the first, and a page for each. The page is one file that needs no network and no scripts;
    report.json beside it holds its numbers.

    \b
    Examples:
      aupipe report run runs/20260101-120000-tcn-au
      aupipe report run runs/best-folds runs/tcn-folds --out compared
      aupipe report run runs/tcn-folds --split train --held-out --figures pdf
    """
    from aupipe.report.page import require_extra

    require_extra()
    from aupipe.report.run.pages import INDEX, make_report, refuse_report, write_report

    request = ScoreRequest(**asked)
    out = out or request.runs[0] / "report"
    refuse_report(out, overwrite)
    scored = score_models(request)
    split = f"{request.split} split"
    split += f" with {' and '.join(request.where)}" if request.where else ""
    split += ", each recording by the members that did not see it" if request.held_out else ""
    (trivial,) = scored.trivial.items()
    report = make_report(scored.evaluations, split, trivial, scored.context.store)
    files = write_report(report, out, figures, overwrite)
    size = sum(path.stat().st_size for path in files)
    echo(f"wrote {out / INDEX}: {counted(len(files), 'file')}, {size / 1e3:,.0f} kB")
