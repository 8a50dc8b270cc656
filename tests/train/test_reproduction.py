"""The files of the papers: their rows, figures, runs and recipes."""

import numpy as np
import pytest
import torch

from aupipe.cli.reproduce_steps import write_recipes
from aupipe.errors import UsageError
from aupipe.tasks import OFFICIAL
from aupipe.train.heads import build_head
from aupipe.train.recipe import load_recipe
from aupipe.train.recipe_tables import merged, read_tables
from aupipe.train.reproduction import load_reproduction, reproduction_from, reproduction_names

from .papers_page import PAGE, with_tables
from .recipe_shapes import row_shapes

PAPERS = ("s1", "s2", "s3", "s4", "s5")
HEAD = {"cite": "A", "title": "B", "tasks": ["au"]}
RUN = {"name": "a", "recipe": "tcn", "task": "au"}


def table(**row):
    return {**HEAD, "run": [RUN], "table": [{"id": "t", "table": "1", "task": "au", "rows": [{"row": "x", **row}]}]}


def test_the_five_papers_are_there():
    assert tuple(reproduction_names()) == PAPERS
    with pytest.raises(UsageError, match=r"unknown paper 's6'. Did you mean"):
        load_reproduction("s6")


@pytest.mark.parametrize("name", PAPERS)
def test_every_row_has_a_figure_and_a_model_or_the_reason_why_it_cannot_be_had(name):
    paper = load_reproduction(name)
    assert len({row.id for row in paper.rows}) == len(paper.rows)
    for row in paper.rows:
        assert bool(row.model) != bool(row.why)
        assert row.task in paper.tasks
        assert row.share is None or 0 < row.share < 1
    assert {task for task in paper.tasks if any(row.submission and row.task == task for row in paper.rows)} == set(
        paper.tasks
    )


@pytest.mark.parametrize("name", PAPERS)
def test_the_mean_of_the_figures_of_a_row_is_its_average_as_printed(name):
    for row in load_reproduction(name).rows:
        if row.each:
            names = OFFICIAL[row.task].names
            assert len(row.each) == len(names), row.id
            assert abs(np.mean(row.each) - row.paper) < (0.06 if row.paper > 1 else 6e-4), row.id


@pytest.mark.parametrize("name", PAPERS)
def test_every_run_has_a_recipe_that_has_a_loss_for_its_task(name):
    paper = load_reproduction(name)
    used = {run.name for row in paper.rows if row.model for run in paper.runs_of(row.model)}
    assert used == set(paper.runs)
    assert {post.name for post in paper.posts.values()} == {row.post for row in paper.rows} - {"none", "own"}
    for run in paper.runs.values():
        assert load_recipe(run.recipe, task=OFFICIAL[run.task]).loss_for(OFFICIAL[run.task])
        assert merged(read_tables(run.recipe, OFFICIAL[run.task])[1], run.changes)["head"]["kind"]


@pytest.mark.parametrize("name", PAPERS)
def test_the_head_of_every_run_accepts_the_features_of_the_run(name, tmp_path):
    paper = load_reproduction(name)
    for run, recipe in zip(paper.runs.values(), write_recipes(list(paper.runs.values()), tmp_path), strict=True):
        one, task = recipe.members[0].recipe, OFFICIAL[run.task]
        dims = tuple(int(np.prod(shape)) for shape in row_shapes(one).values())
        of_torchvision = "torchvision" in str(one.head.params.get("tail"))  # its RegNets compute while they are made
        with torch.device("cpu" if of_torchvision else "meta"):  # meta: without memory
            known = {"names": one.features, "read_weights": False}
            inputs = sum(dims) + len(dims)
            assert build_head(one.head.kind, one.head.params, inputs, len(task.names), dims, task.kind, **known)


def test_rows_are_chosen_by_task_table_and_id():
    paper = load_reproduction("s4")
    assert {row.task for row in paper.select("va", ())} == {"va"}
    assert [row.id for row in paper.select("au", ["t8.1", "t1-au"])] == ["t1-au.1", "t8.1"]
    assert len(paper.select("au", ["t8"])) == 10
    with pytest.raises(UsageError, match=r"s4 has no row 't9'. Did you mean"):
        paper.select("au", ["t9"])
    with pytest.raises(UsageError, match="s1 is on au, not on va"):
        load_reproduction("s1").select("va", ())


def test_members_of_a_join_come_before_it_and_runs_are_found_through_it():
    paper = reproduction_from(
        {
            **table(model="c"),
            "run": [RUN, {**RUN, "name": "b"}],
            "join": [{"name": "ab", "members": ["a", "b"]}, {"name": "c", "members": ["ab", "a"]}],
        },
        "p",
    )
    assert [run.name for run in paper.runs_of("c")] == ["a", "b", "a"]
    assert [join.name for join in paper.joins_of("c")] == ["ab", "c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(), "give either the model, or why"),
        (table(model="a", why="no"), "give either the model, or why"),
        (table(model="z"), "model 'z': unknown"),
        (table(model="a", post="smooth"), "post 'smooth': unknown"),
        (table(model="a", papre=1.0), r"unknown key 'papre'. Did you mean 'paper'"),
        ({**table(model="a"), "join": [{"name": "j", "members": ["b"]}]}, "join j: member 'b': unknown"),
    ],
)
def test_a_wrong_file_is_refused_by_name(content, message):
    with pytest.raises(UsageError, match=message):
        reproduction_from(content, "p")


def test_the_page_of_the_papers_has_every_row_with_its_command_or_the_reason():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "python -m tests.train.papers_page writes the tables anew"
    for name in PAPERS:
        for row in load_reproduction(name).rows:
            assert f"| {row.row} | " in page
            assert (row.why or f"`aupipe reproduce {name} --rows {row.id}`") in page
