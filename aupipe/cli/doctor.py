"""doctor: what of the installation, the machine and the project does not work."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import click

from aupipe.cli.options import config_options, json_option, resolve
from aupipe.cli.output import echo, echo_json
from aupipe.config import Config
from aupipe.errors import AupipeError, UsageError
from aupipe.quantities import counted


@click.command()
@config_options
@json_option
def doctor(config_file: Path | None, store: Path | None, as_json: bool) -> int:
    """Look at Python, libraries, decoders, GPUs, disks, weights and the store. Exit code 2 where one FAILs.

    Nothing is changed: a folder is made beside the store, and removed again.

    \b
    Example:
      aupipe doctor
    """
    from aupipe.doctor import Finding
    from aupipe.doctor.folders import examine_folder
    from aupipe.doctor.installation import examine_installation
    from aupipe.doctor.project import examine_project

    wrong = []
    try:
        config = resolve(config_file, store)
        project = examine_project(config)
    except AupipeError as error:
        config, project = Config(), iter(())
        wrong = [Finding("FAIL", "configuration", str(error))]
    findings = []
    for finding in chain(examine_installation(), examine_folder(config.store.path), wrong, project):
        findings.append(finding)
        if not as_json:
            echo(f"{finding.state}  {finding.subject}: {finding.found}")
            if finding.remedy:
                echo(f"      -> {finding.remedy}")
    states = Counter(finding.state for finding in findings)
    if as_json:
        content = {"findings": [asdict(finding) for finding in findings], "states": dict(states)}
        echo_json("findings", content, indent=1)
    else:
        echo(f"{states['PASS']} passed, {counted(states['WARN'], 'warning')}, {states['FAIL']} failed")
    return UsageError.exit_code if states["FAIL"] else 0
