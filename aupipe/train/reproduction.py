"""What a paper reports and how it is reproduced: the files in `aupipe/train/papers`, read by `aupipe reproduce`.

A file has ``[[run]]`` tables, what is trained; ``[[join]]`` tables, what is combined; ``[[post]]`` tables, what is
fitted afterwards; and ``[[table]]`` tables with the rows of the paper's tables: the paper's figure, and the run or join
whose score stands beside it, or why there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any, Literal

from aupipe.documents import parse_toml
from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.tables import build

FOLDS = "/*"  # after the name of a run: its folds, one by one


@dataclass(frozen=True)
class PaperRun:
    """``changes``: tables that are laid over those of ``recipe``. ``args``: further arguments of `aupipe train`.

    ``folds``: of a cross-validation; 0: the official split. ``post_from``: the run whose post-processing it takes.
    """

    name: str
    recipe: str
    task: str
    folds: int = 0
    args: tuple[str, ...] = ()
    post_from: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Join:
    """``members``: names of runs and joins; ``run/*``: the folds of a run. ``args``: arguments of `aupipe ensemble`."""

    name: str
    members: tuple[str, ...]
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Post:
    """A post-processing: ``set`` as `aupipe tune --set`, fitted on the ``split``, or on what folds held out."""

    name: str
    set: tuple[str, ...]
    split: Literal["train", "validation", "held-out"] = "validation"


@dataclass(frozen=True)
class Row:
    """One figure of a paper. ``why`` it cannot be had, or the ``model`` (a run or a join) whose score it is.

    ``paper``: the figure as printed; above 1 it is a percentage. ``post``: none, own (of the recipe), or that of a
    ``[[post]]`` table. ``fold``: number of the fold of the model that is scored, on what it held out. ``chosen``: the
    score is that by which the model's epoch was chosen. ``column``: of the data set, without which the row cannot be
    had. ``each``: figures per AU, class or dimension. ``note``: what differs here. ``submission``: its predictions
    become a submission too. ``optional``: it is computed only where its id is given.
    """

    id: str
    table: str
    row: str
    task: str
    paper: float | None = None
    model: str = ""
    fold: int = 0
    chosen: bool = False
    column: str = ""
    post: str = "none"
    each: tuple[float, ...] = ()
    submission: bool = False
    optional: bool = False
    note: str = ""
    why: str = ""

    @property
    def table_id(self) -> str:
        return self.id.partition(".")[0]

    @property
    def share(self) -> float | None:
        """The paper's figure from 0 to 1."""
        return None if self.paper is None else self.paper / 100 if self.paper > 1 else self.paper


@dataclass(frozen=True)
class Reproduction:
    """The content of a file; ``tasks`` are those of the paper."""

    name: str
    cite: str
    title: str
    tasks: tuple[str, ...]
    runs: Mapping[str, PaperRun]
    joins: Mapping[str, Join]
    posts: Mapping[str, Post]
    rows: tuple[Row, ...]

    def runs_of(self, model: str) -> list[PaperRun]:
        """The runs that a model is made of."""
        if (run := self.runs.get(model.removesuffix(FOLDS))) is not None:
            return [run]
        return [run for member in self.joins[model].members for run in self.runs_of(member)]

    def joins_of(self, model: str) -> list[Join]:
        """The joins that a model is made of, members before what they are members of."""
        if model.removesuffix(FOLDS) in self.runs:
            return []
        join = self.joins[model]
        return [*(one for member in join.members for one in self.joins_of(member)), join]

    def conditions_of(self, model: str) -> list[tuple[str, str]]:
        """The columns and values of the data set that the runs of a model are trained on (`aupipe train --where`)."""
        args = [arg for run in self.runs_of(model) for arg in zip(run.args, run.args[1:], strict=False)]
        pairs = [text.partition("=") for option, text in args if option == "--where"]
        return list(dict.fromkeys((column, value) for column, _, value in pairs))

    def select(self, task: str | None, ids: Sequence[str]) -> list[Row]:
        """The rows of a task but the optional ones, or those of these ids or tables.

        Raises UsageError for unknown ones, with the nearest.
        """
        if task is not None and task not in self.tasks:
            raise UsageError(f"{self.name} is on {', '.join(self.tasks)}, not on {task}")
        rows = [row for row in self.rows if task in (None, row.task)]
        known = [row.id for row in rows] + list(dict.fromkeys(row.table_id for row in rows))
        for one in ids:
            if one not in known:
                tables = ", ".join(name for name in known if name not in {row.id for row in rows})
                raise UsageError(f"{self.name} has no row {one!r}.{nearest(one, known)} Tables of rows: {tables}")
        return [row for row in rows if (row.id in ids or row.table_id in ids if ids else not row.optional)]

    def optional(self, task: str | None) -> list[str]:
        """The ids of the optional tables of a task."""
        return list(dict.fromkeys(row.table_id for row in self.rows if row.optional and task in (None, row.task)))


def reproduction_names() -> list[str]:
    """The papers that can be reproduced, sorted."""
    folder = resources.files("aupipe.train") / "papers"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_reproduction(name: str) -> Reproduction:
    """The paper of this name. Raises UsageError for an unknown one."""
    names = reproduction_names()
    if name not in names:
        raise UsageError(f"unknown paper {name!r}.{nearest(name, names)} Available: {', '.join(names)}")
    content = (resources.files("aupipe.train") / "papers" / f"{name}.toml").read_bytes()
    return reproduction_from(parse_toml(content), name)


def reproduction_from(tables: Mapping[str, Any], name: str) -> Reproduction:
    """A checked reproduction. Raises UsageError for unknown keys and models, and rows without a model or a reason."""
    runs = {}
    for table in tables.get("run", []):
        plain = {key: value for key, value in table.items() if key != "changes"}
        run = build(PaperRun, plain, f"{name}: [[run]]")
        runs[run.name] = replace(run, changes=table.get("changes", {}))
    joins = {one.name: one for one in (build(Join, table, f"{name}: [[join]]") for table in tables.get("join", []))}
    posts = {one.name: one for one in (build(Post, table, f"{name}: [[post]]") for table in tables.get("post", []))}
    rows: list[Row] = []
    for table in tables.get("table", []):
        shared = {key: value for key, value in table.items() if key not in ("id", "rows")}
        for number, given in enumerate(table["rows"], 1):
            own = {"id": f"{table['id']}.{number}", **shared, **given}
            rows.append(build(Row, own, f"{name}: row {own['id']}"))
    known = [*runs, *joins]
    for row in rows:
        _refuse_unknown(row.model, ("", *known), f"{name}: row {row.id}: model")
        _refuse_unknown(row.post, ("none", "own", *posts), f"{name}: row {row.id}: post")
        if bool(row.model) == bool(row.why):
            raise UsageError(f"{name}: row {row.id}: give either the model, or why it cannot be had")
    for join in joins.values():
        for member in join.members:
            _refuse_unknown(member.removesuffix(FOLDS), known, f"{name}: join {join.name}: member")
    for run in runs.values():
        _refuse_unknown(run.post_from, ("", *runs), f"{name}: run {run.name}: post_from")
    plain = {key: tables[key] for key in ("cite", "title", "tasks")}
    return Reproduction(name, plain["cite"], plain["title"], tuple(plain["tasks"]), runs, joins, posts, tuple(rows))


def _refuse_unknown(name: str, known: Iterable[str], what: str) -> None:
    if name not in known:
        raise UsageError(f"{what} {name!r}: unknown.{nearest(name, known)}")
