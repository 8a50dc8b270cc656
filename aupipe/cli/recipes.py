"""recipes: what recipes there are, and what one of them does for a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.completion import RECIPE, TASK
from aupipe.cli.options import json_option
from aupipe.cli.output import echo, echo_json
from aupipe.cli.recipe_features import recipe_file_text
from aupipe.errors import UsageError
from aupipe.tasks import OFFICIAL

if TYPE_CHECKING:
    from aupipe.train.recipe import Recipe

OURS = "this project"


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def recipes(context: click.Context, as_json: bool) -> None:
    """List the recipes: their paper, its tasks and features, and how much of it is published code.

    \b
    Examples:
      aupipe recipes
      aupipe recipes show tcn-transformer --task va
    """
    if context.invoked_subcommand is not None:
        return
    from aupipe.train.recipe_tables import recipe_names

    rows = list(map(_row, recipe_names()))
    if as_json:
        echo_json("recipes", {"recipes": rows}, indent=1)
        return
    for row in rows:
        code = f"code {row['code']}" if row["code"] else "no published code"
        echo(f"{row['recipe']:28}{row['paper'] or OURS}{'; ' + code if row['paper'] else ''}")
        for task, features in row["features"].items():
            echo(f"    {task:5} {', '.join(features) or 'the features of aupipe.toml'}")
        if row["paper"]:
            echo(
                f"    not stated in the paper: {row['from_code']} settings from code, {row['ours']} of ours; further "
                f"departures: {row['departures']}"
            )


def _row(name: str) -> dict[str, Any]:
    """One recipe, with how many of its settings the paper does not state, and how many differ from it."""
    from aupipe.train.ensemble_recipe import load_ensemble_recipe
    from aupipe.train.recipe_paper import departures, read_paper

    paper = read_paper(name)
    features = {
        task: list(load_ensemble_recipe(name, task=OFFICIAL[task]).features)
        for task in (paper.tasks if paper else OFFICIAL)
    }
    if len({tuple(one) for one in features.values()}) == 1:
        features = {", ".join(features): next(iter(features.values()))}
    row: dict[str, Any] = {"recipe": name, "paper": "", "code": "", "from_code": 0, "ours": 0, "departures": 0}
    if paper is not None:
        task = paper.tasks[0]
        lines = departures(
            load_ensemble_recipe(name, task=OFFICIAL[task]).members[0].recipe,
            read_paper(name, OFFICIAL[task]) or paper,
            task,
            unstated=False,
        )
        sources = list(paper.unstated.values())
        row |= {
            "paper": paper.cite,
            "code": paper.code,
            "from_code": sum(source.startswith("from") for source in sources),
            "ours": sum(source.startswith("ours") for source in sources),
            "departures": len(lines),
        }
    return row | {"features": features}


@recipes.command()
@click.argument("name", metavar="NAME|FILE", type=RECIPE)
@click.option("--task", type=TASK, default="au", show_default=True, help="au, expr, va, or a kind of task.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a value, as `train --set` does.")
@json_option
def show(name: str, task: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print a recipe as it is for one task, and in what it departs from its paper.

    \b
    Example:
      aupipe recipes show tcn-transformer --task va
    """
    from aupipe.train.ensemble_recipe import load_ensemble_recipe
    from aupipe.train.recipe_paper import departures, read_paper

    if task not in OFFICIAL:
        raise UsageError(f"--task {task}: expected {', '.join(OFFICIAL)}")
    chosen = load_ensemble_recipe(name, overrides, task=OFFICIAL[task])
    paper = read_paper(name, OFFICIAL[task])
    lines = departures(chosen.members[0].recipe, paper, task) if paper else []
    if as_json:
        said = {"cite": paper.cite, "title": paper.title, "code": paper.code} if paper else None
        echo_json("recipe", {"recipe": chosen.to_json(), "task": task, "paper": said, "departures": lines})
        return
    for member in chosen.members:
        if len(chosen.members) > 1:
            echo(f"# member {member.name}" + ", once per feature" * member.per_feature)
        echo(*_text(member.recipe, task).split("\n"))
    if paper is None:
        echo(f"# a recipe of {OURS}")
        return
    echo(f"# {paper.cite}: {paper.title}" + f" ({paper.code})" * bool(paper.code))
    echo("# departures from the paper:", *(f"#   {line}" for line in lines))


def _text(recipe: Recipe, task: str) -> str:
    """A recipe as TOML, without the losses and the post-processing of other tasks."""
    tables = recipe.to_json()
    encoders = tables.pop("encoder")
    for key in ("loss", "postprocess"):
        tables[key] = {name: table for name, table in tables[key].items() if name == task}
    return recipe_file_text({**tables, "encoder": encoders})
