"""The report of `aupipe reproduce`: each row with the paper's figure, the score here, and what differs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aupipe.cli.output import echo, echo_json
from aupipe.cli.recipe_features import differing_keys, with_encoders
from aupipe.cli.reproduce_steps import Choices, run_folder, scores_file
from aupipe.config import Config
from aupipe.tasks import OFFICIAL
from aupipe.train.ensemble_recipe import EnsembleRecipe
from aupipe.train.reproduction import Reproduction, Row
from aupipe.train.run import holds_run, load_run


def report(
    paper: Reproduction,
    rows: Sequence[Row],
    recipes: Mapping[str, EnsembleRecipe],
    out: Path,
    choices: Choices,
    config: Config,
    as_json: bool,
) -> None:
    """Print the rows: the paper's figure, the score here, its interval, and what differs."""
    notes: dict[str, int] = {}  # text -> its number
    found = [_row(paper, row, recipes, out, choices, config) for row in rows]
    if as_json:
        echo_json("reproduction", {"paper": paper.name, "cite": paper.cite, "rows": found}, indent=1)
        return
    width = max((len(row["row"]) for row in found), default=0)
    echo(f"{paper.cite}: {paper.title}")
    table = None
    for row in found:
        if (row["table"], row["task"]) != table:
            table = row["table"], row["task"]
            echo(
                "",
                f"table {row['table']} ({row['task']})",
                f"  {'row':{width}}  paper   ours   95%             differs",
            )
        marks = ", ".join(str(notes.setdefault(text, len(notes) + 1)) for text in row["differs"])
        ours = "" if row["ours"] is None else f"{row['ours']:.3f}"
        interval = "" if row["interval"] is None else "{:.3f} to {:.3f}".format(*row["interval"])
        figure = "" if row["paper"] is None else f"{row['paper']:.3f}"
        echo(f"  {row['row']:{width}}  {figure:5}  {ours:5}  {interval:14}  {row['why'] or marks}".rstrip())
    echo("", *(f"{number:3}  {text}" for text, number in notes.items()))
    echo(f"files: {out}")


def _row(
    paper: Reproduction,
    row: Row,
    recipes: Mapping[str, EnsembleRecipe],
    out: Path,
    choices: Choices,
    config: Config,
) -> dict[str, Any]:
    """One row of the report."""
    from aupipe.train.recipe_paper import departures, read_paper

    said: dict[str, Any] = {}
    differs = [row.note] if row.note else []
    own = row.chosen or bool(row.fold)
    if row.model and own and holds_run(run_folder(out, row)):
        scores = load_run(run_folder(out, row)).scores
        said = scores.to_json() if scores is not None else {}
        differs.append("the epoch was chosen on the recordings that are scored")
    elif row.model and not own and scores_file(out, row).is_file():
        said = json.loads(scores_file(out, row).read_text(encoding="utf-8"))
    differs += said.get("caveats", ())
    if said.get("tuned_on_itself"):
        differs.append("thresholds or smoothing were fitted on the recordings that are scored")
    if choices.random and row.model:
        differs.append("the weights of encoders are random")
    for run in paper.runs_of(row.model) if row.model else ():
        differs += [f"the weights of {name} are random" for name in choices.random_heads(run).values()]
        differs += _other_encoders(config, recipes[run.name])
        about = read_paper(run.recipe, OFFICIAL[run.task])
        if about is not None:
            # What a row of an ablation changes is no departure from the paper.
            says = {key: said for key, said in about.says.items() if not _is_changed(key, run.changes)}
            recipe = recipes[run.name].members[0].recipe
            differs += departures(recipe, replace(about, says=says), run.task, unstated=False)
    differs += [f"--set {change}" for change in choices.overrides if row.model]
    each = [value / 100 if max(row.each) > 1 else value for value in row.each]
    spread = said.get("spread") or {}
    return {
        "id": row.id,
        "table": row.table,
        "row": row.row,
        "task": row.task,
        "paper": row.share,
        "paper_each": each,
        "ours": said.get("mean"),
        "ours_each": said.get("values", []),
        "interval": spread.get("interval"),
        "differs": list(dict.fromkeys(differs)),
        "why": row.why or ("" if said else "not computed"),
    }


def _other_encoders(config: Config, recipe: EnsembleRecipe) -> list[str]:
    """The features that the configuration makes in another way than the recipe, each with the difference."""
    used = with_encoders(config, recipe.encoders, warn=False)
    found = {one.name: differing_keys(used.encoder(one.name), one) for one in recipe.encoders}
    return [f"feature {name!r} is that of {config.file}: {keys}" for name, keys in found.items() if keys]


def _is_changed(key: str, changes: Mapping[str, Any]) -> bool:
    """Does a run change this value of its recipe, or the whole head that it belongs to?"""
    first, _, rest = key.partition(".")
    table = changes.get(first)
    return table is not None and (not rest or "kind" in table or rest.partition(".")[0] in table)
