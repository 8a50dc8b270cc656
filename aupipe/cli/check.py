"""check: faults that spoil a data set, found in the store and the annotations, worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.completion import MODEL, RECORDING
from aupipe.cli.context import open_context
from aupipe.cli.options import config_options, device_options, existing_store, json_option, require_config, resolve
from aupipe.cli.output import echo, echo_json
from aupipe.dataset import open_dataset
from aupipe.quantities import counted, first_of

if TYPE_CHECKING:
    from aupipe.report.checks.corpus import CorpusReport, HeldOut
    from aupipe.report.checks.judge import Finding
    from aupipe.store import Store

FLAGGED = 14  # exit code of --strict
SHOWN = 40  # findings
NAMED = 3  # recordings, in the line of `aupipe train`


@click.command()
@click.argument("recordings", nargs=-1, type=RECORDING)
@click.option("--run", type=MODEL, metavar="RUN", help="Hold labels against RUN's held-out predictions.")
@click.option("--strict", is_flag=True, help=f"End with exit code {FLAGGED} where something is flagged.")
@click.option("--all", "show_all", is_flag=True, help=f"List all findings, not only the worst {SHOWN}.")
@device_options
@config_options
@json_option
def check(
    recordings: tuple[str, ...],
    run: Path | None,
    strict: bool,
    show_all: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> int:
    """Find what spoils a data set: late labels, wrong subjects, silent sound, lost faces, odd clocks, damage.

    Reads the store and the annotations, decodes nothing. Findings are listed worst first, each with its value, the
    median of the data set, and the reason. RECORDINGS: only these, measured against all.

    \b
    Examples:
      aupipe check
      aupipe check --strict --json
      aupipe check clips/a.mp4 --run runs/20260101-120000-tcn-au
    """
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.report.checks.corpus import check_corpus
    from aupipe.store.clocks import clock_of

    config = require_config(resolve(config_file, store))
    opened = existing_store(config)
    dataset = open_dataset(config.dataset, clock_of(opened))
    features = build_feature_set(config, known=opened.features())
    held_out = _held_out(run, config_file, store, gpu, cpu) if run is not None else None
    chosen = {recording.id for recording in dataset.select(recordings)} if recordings else None
    report = check_corpus(dataset, dataset.recordings, features, opened, held_out)
    remember(report, opened)
    findings = [finding for finding in report.findings if chosen is None or finding.recording in chosen]
    if as_json:
        echo_json("check", _json(report, findings, chosen), indent=1)
    else:
        echo(*_lines(report, findings, show_all))
    return FLAGGED if strict and findings else 0


def _held_out(run: Path, config_file: Path | None, store: Path | None, gpu: str | None, cpu: bool) -> HeldOut:
    """What a run predicts of the recordings that it was not trained on."""
    from aupipe.report.checks.corpus import HeldOut
    from aupipe.train.model import load_model

    model = load_model(run)
    context = open_context(config_file, store, gpu, cpu, True, None)
    found = context.predict(model, list(context.dataset.recordings), held_out=True)
    return HeldOut(model.task, {name: item.scores for name, item in found.items()})


def _json(report: CorpusReport, findings: Sequence[Finding], chosen: set[str] | None) -> dict[str, Any]:
    content = report.to_json()
    if chosen is not None:
        content["recordings"] = {name: content["recordings"][name] for name in content["recordings"] if name in chosen}
    return content | {"findings": [finding.to_json() for finding in findings]}


def _lines(report: CorpusReport, findings: Sequence[Finding], show_all: bool) -> list[str]:
    shown = list(findings) if show_all else list(findings[:SHOWN])
    head = ("recording", "fault", "value", "median", "why")
    rows = [head, *((one.recording, one.fault, one.shown, one.shown_median, one.why) for one in shown)]
    name, fault, value, median, _ = (max(len(row[column]) for row in rows) for column in range(5))
    lines = [f"{r[0]:{name}}  {r[1]:{fault}}  {r[2]:>{value}}  {r[3]:>{median}}  {r[4]}" for r in rows] * bool(shown)
    if len(shown) < len(findings):
        lines.append(f"... and {len(findings) - len(shown)} more: aupipe check --all")
    flagged = len({finding.recording for finding in findings})
    lines.append(f"{flagged} of {counted(len(report.facts), 'recording')} flagged, {counted(len(findings), 'finding')}")
    lines += [f"checked: {what}" for what in report.checked]
    lines += [f"not checked: {what}" for what in report.not_checked]
    return lines


def remember(report: CorpusReport, store: Store) -> None:
    """Leave the findings among the logs of the store, where `train` looks for them."""
    from aupipe.store.run_log import RunLog

    with RunLog.in_store(store.path, command="check", recordings=len(report.facts)) as log:
        for recording, findings in report.flagged.items():
            log.write("video", video=recording, flagged=[f"{finding.fault}: {finding.shown}" for finding in findings])
        log.end |= {"flagged": len(report.flagged)}


def flagged_before(store: Store) -> tuple[Mapping[str, Sequence[str]], str]:
    """Recording -> its faults, as the last `aupipe check` of a store found them, and when that was; empty without."""
    from aupipe.store.run_log import accounts, read_lines

    checks = [account for account in accounts(store.path, "check") if account.end]
    if not checks:
        return {}, ""
    lines = [line for line in read_lines(checks[-1].path) if line["kind"] == "video"]
    return {line["video"]: line["flagged"] for line in lines}, str(checks[-1].about["utc"])


def warn_flagged(recordings: Sequence[str], store: Store) -> dict[str, Sequence[str]]:
    """Print, in one line, which of some recordings the last check has flagged. Returns their faults."""
    found, when = flagged_before(store)
    own = {name: found[name] for name in recordings if name in found}
    if own:
        named = first_of([f"{name} ({', '.join(faults)})" for name, faults in own.items()], NAMED, "; ")
        count = f"{len(own)} of {counted(len(recordings), 'recording')}"
        echo(f"aupipe: {count} flagged by aupipe check of {when}: {named}", err=True)
    return own
