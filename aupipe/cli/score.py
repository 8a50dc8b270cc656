"""evaluate: score trained runs."""

from __future__ import annotations

from typing import Any

import click

from aupipe.cli.options import json_option
from aupipe.cli.output import echo, echo_json
from aupipe.cli.scoring import ScoreRequest, score_models, score_options


@click.command()
@score_options
@json_option
def evaluate(as_json: bool, **asked: Any) -> None:
    """Score RUNs or ensembles as the challenge does: pooled over all annotated frames, each counted once.

    Confidence intervals are bootstrapped over videos. The post-processing fitted for a RUN is applied; recordings it
    was fitted on are refused without --on-tuned. Several RUNs are shown side by side, with the interval of each
    difference to the first.

    \b
    Examples:
      aupipe evaluate runs/20260101-120000-tcn-au --split validation
      aupipe evaluate runs/best-folds runs/tcn-folds            # ensembles of folds; a paired comparison
      aupipe evaluate runs/tcn-folds --split train --held-out
    """
    from aupipe.train.intervals import compare

    request = ScoreRequest(**asked)
    scored = score_models(request)
    if as_json:
        lines = [
            {"run": str(one.model.path), **one.to_json()} | ({"where": request.where} if request.where else {})
            for one in scored.evaluations
        ]
        if len(lines) == 1:
            echo_json("scores", lines[0])
        else:
            echo_json("comparison", {"models": lines})
        return
    first, *rest = scored.evaluations
    models = [one.model for one in scored.evaluations]
    names = [model.name if len(models) == 1 else f"{number} {model.name}" for number, model in enumerate(models, 1)]
    others = {name: one.scores for name, one in zip(names[1:], rest, strict=True)}
    table = first.scores.table({**others, **scored.trivial}, name=names[0], interval=first.interval)
    echo(*table.split("\n"))
    for name, one in zip(names[1:], rest, strict=True):
        echo(f"{name}: {one.scores.footnote()}")
        if first.interval and one.interval and first.interval.sums.groups == one.interval.sums.groups:
            low, high = compare(one.interval, first.interval)
            difference = one.scores.mean - first.scores.mean
            echo(f"{name} minus {names[0]}: {difference:+.3f}, 95% {low:+.3f} to {high:+.3f}")
        elif first.interval and one.interval:
            echo(f"{name} and {names[0]} were scored on different videos, so they are not compared")
