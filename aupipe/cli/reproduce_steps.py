"""The commands that reproduce rows of a paper, in their order, and what each of them makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aupipe.cli.recipe_features import encoder_text, recipe_file_text, table_text
from aupipe.cli.train_request import is_finished, read_request
from aupipe.cli.work import Place
from aupipe.config import Config, EncoderConfig
from aupipe.encoder_tables import encoder_table
from aupipe.errors import UsageError
from aupipe.extract.planning.random_weights import randomised
from aupipe.files import write_file
from aupipe.tasks import OFFICIAL
from aupipe.train.ensemble_recipe import EnsembleRecipe, ensemble_recipe_from_json, load_ensemble_recipe
from aupipe.train.folder_lock import REQUEST_FILE
from aupipe.train.model import FILE
from aupipe.train.recipe_tables import merged, read_tables
from aupipe.train.reproduction import FOLDS, PaperRun, Reproduction, Row
from aupipe.train.run import POST_FILE


@dataclass(frozen=True)
class Choices:
    """What the user chose for all commands: changes of recipes, random weights, the place and the configuration.

    With a scheduler its machines extract and train; the rest, which is short, is computed by this process.
    """

    overrides: tuple[str, ...] = ()
    random: bool = False
    mask: tuple[str, ...] = ()  # options of `extract` for recordings without sound or words
    place: Place = field(default_factory=Place)
    config: tuple[str, ...] = ()  # --config and --store
    sample: Path | None = None
    split: str = "validation"  # of submissions: test, where the data set has one

    def changes(self, run: PaperRun) -> tuple[str, ...]:
        """What is set in the recipe of a run; a head that reads weights has random ones where encoders have."""
        return (*self.overrides, *(f"{path}.weights=random" for path in self.random_heads(run)))

    def random_heads(self, run: PaperRun) -> dict[str, str]:
        """Where the head of a run has random numbers in the place of weights: key of the recipe -> its name."""
        if not self.random:
            return {}
        tables = merged(read_tables(run.recipe, OFFICIAL[run.task])[1], run.changes)["head"]
        parts = {"head": tables, "head.then": tables.get("then", {}), "head.tail": tables.get("tail", {})}
        return {
            path: f"the head {table['kind']}" if "kind" in table else "the trained encoder"
            for path, table in parts.items()
            if table.get("weights")
        }

    def to_json(self) -> dict[str, object]:
        """What must be the same when a reproduction goes on."""
        return {"set": list(self.overrides), "random weights": self.random}


@dataclass(frozen=True)
class Step:
    """A command of aupipe, and what it ``makes``; None: it finds out itself what is to be done.

    ``captures``: what it prints on stdout is what it makes.
    """

    what: str
    command: tuple[str, ...]
    makes: Path | None = None
    captures: bool = False
    kept: tuple[str, ...] = ()  # options that the command which continues it has too

    @property
    def done(self) -> bool:
        if self.what == "train":
            return self.makes is not None and is_finished(self.makes) and _has_post(self.makes)
        return self.makes is not None and self.makes.exists()

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command, or the one that continues it where it was stopped."""
        begun = self.what == "train" and self.makes is not None and (self.makes / REQUEST_FILE).is_file()
        if not begun:
            return self.command
        return ("train", "--resume", str(self.makes), *self.kept)


def _has_post(folder: Path) -> bool:
    """Has a finished training written its post-processing, which is the last that folds write?"""
    if not (folder / FILE).is_file():
        return True  # a run writes it before it is finished
    request = read_request(folder)
    recipe = ensemble_recipe_from_json(request.recipe).members[0].recipe
    wanted = recipe.postprocess_for(OFFICIAL[request.task]) is not None
    return not wanted or (folder / POST_FILE).is_file()


def build_steps(paper: Reproduction, rows: Sequence[Row], out: Path, choices: Choices) -> list[Step]:
    """The steps of the rows that can be had: extract, train, tune, join, evaluate, predict; each once."""
    wanted = [row for row in rows if row.model]
    runs = runs_of(paper, wanted)
    common = (*choices.place.here().arguments(), *choices.config)
    steps = [_extract(out, choices)] if runs else []
    steps += [_train(run, out, choices) for run in runs]
    for run in (run for run in runs if run.post_from):
        folder = _folder(out, run.name)
        command = ("tune", str(folder), "--from", str(_folder(out, run.post_from)), *common)
        steps.append(Step("tune", command, folder / "postprocess.json"))
    for join in dict.fromkeys(one.name for row in wanted for one in paper.joins_of(row.model)):
        members = [
            str(folder) for member in paper.joins[join].members for folder in _member_folders(paper, out, member)
        ]
        folder = _folder(out, join)
        command = ("ensemble", *members, *paper.joins[join].args, "--out", str(folder))
        steps.append(Step("join", command, folder / "ensemble.json"))
    for model, name in dict.fromkeys((row.model, row.post) for row in wanted if row.post not in ("none", "own")):
        post = paper.posts[name]
        on = ("--held-out",) if post.split == "held-out" else ("--split", post.split)
        sets = [part for change in post.set for part in ("--set", change)]
        file = _post_file(out, model, name)
        command = ("tune", str(_folder(out, model)), *on, *sets, "--out", str(file), *common)
        steps.append(Step("tune", command, file))
    for row in {(row.model, row.post): row for row in wanted if not (row.fold or row.chosen)}.values():
        post_of = ("--post", _post(out, row))
        command = ("evaluate", str(_folder(out, row.model)), *post_of, "--on-tuned", "--json", *common)
        steps.append(Step("evaluate", command, scores_file(out, row), captures=True))
    for row in (row for row in wanted if row.submission):
        file = out / "submissions" / f"{row.id}.txt"
        sample = ("--sample", str(choices.sample)) if choices.sample else ()
        command = ("predict", str(_folder(out, row.model)), "--split", choices.split, "--format", "abaw")
        command += ("--post", _post(out, row), "--out", str(file), "--overwrite", *sample, *common)
        steps.append(Step("predict", command))  # again each time: the sample may be another one
    return steps


def runs_of(paper: Reproduction, rows: Iterable[Row]) -> list[PaperRun]:
    """The runs that rows need, each once."""
    return list({run.name: run for row in rows if row.model for run in paper.runs_of(row.model)}.values())


def write_recipes(
    runs: Sequence[PaperRun], out: Path, choices: Choices = Choices(), config: Config | None = None
) -> list[EnsembleRecipe]:
    """Write the recipe files of runs that change theirs, and one that names the features of all.

    With random weights every run has a file: its [[encoder]] tables say that the weights are random, so that all
    commands read the same features. Features without a table in the recipe are those of ``config``.

    Returns the recipes of ``runs``, with the changes chosen. Raises UsageError where two runs have two features of one
    name.
    """
    recipes = []
    for run in runs:
        tables = {"extends": run.recipe, **run.changes}
        if run.changes or choices.random:
            _write_recipe(_recipe_file(out, run), recipe_file_text(tables))
        recipe = load_ensemble_recipe(_recipe(out, run, choices), choices.overrides, task=OFFICIAL[run.task])
        if choices.random:
            encoders = {one.name: one for one in recipe.encoders}
            own = [name for name in recipe.features if name not in encoders] if config is not None else []
            encoders |= {name: config.encoder(name) for name in own if config is not None}
            tables["encoder"] = [encoder_table(randomised(one)) for one in encoders.values()]
            _write_recipe(_recipe_file(out, run), recipe_file_text(tables))
            recipe = load_ensemble_recipe(_recipe_file(out, run), choices.overrides, task=OFFICIAL[run.task])
        recipes.append(recipe)
    found: dict[str, EncoderConfig] = {}
    for recipe in recipes:
        for one in recipe.encoders:
            if found.setdefault(one.name, one) != one:
                raise UsageError(f"{out}: two runs have two features {one.name!r}: reproduce them one after the other")
    features = dict.fromkeys([*found, *(name for recipe in recipes for name in recipe.features)])
    table = table_text({"extends": "baseline", "features": list(features)})
    _write_recipe(_features_file(out), "\n\n".join([table, *map(encoder_text, found.values())]) + "\n")
    return recipes


def _write_recipe(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, text, overwrite=True)


def run_folder(out: Path, row: Row) -> Path:
    """The folder of the run whose own score a row has."""
    return _folder(out, row.model) / f"fold{row.fold}" if row.fold else _folder(out, row.model)


def scores_file(out: Path, row: Row) -> Path:
    """Where the scores of a row's model lie."""
    return out / "scores" / f"{row.model}-{row.post}.json"


def _extract(out: Path, choices: Choices) -> Step:
    features = ("--recipe", str(_features_file(out)), "--task", "au")
    # What failed is tried again by the same command: its video may be another one now, or its sound be masked.
    where = (*choices.place.arguments(), *choices.config)
    return Step("extract", ("extract", *features, "--retry-failed", *choices.mask, *where))


def _train(run: PaperRun, out: Path, choices: Choices) -> Step:
    folder = _folder(out, run.name)
    folds = ("--folds", str(run.folds)) if run.folds else ()
    sets = [part for change in choices.changes(run) for part in ("--set", change)]
    command = ("train", "--recipe", str(_recipe(out, run, choices)), "--task", run.task, *folds, *run.args, *sets)
    where = (*choices.place.arguments(), *choices.config)
    return Step("train", (*command, "--out", str(folder), *where), folder, kept=where)


def _recipe(out: Path, run: PaperRun, choices: Choices) -> str | Path:
    return _recipe_file(out, run) if run.changes or choices.random else run.recipe


def _recipe_file(out: Path, run: PaperRun) -> Path:
    return out / "recipes" / f"run-{run.name}.toml"  # never the name of a recipe that comes with aupipe


def _features_file(out: Path) -> Path:
    return out / "recipes" / "features.toml"


def _member_folders(paper: Reproduction, out: Path, member: str) -> list[Path]:
    name = member.removesuffix(FOLDS)
    numbers = range(1, paper.runs[name].folds + 1) if name != member else ()
    return [_folder(out, name) / f"fold{number}" for number in numbers] or [_folder(out, name)]


def _folder(out: Path, model: str) -> Path:
    return out / "runs" / model


def _post_file(out: Path, model: str, name: str) -> Path:
    return out / "post" / f"{model}-{name}.json"


def _post(out: Path, row: Row) -> str:
    return row.post if row.post in ("none", "own") else str(_post_file(out, row.model, row.post))
