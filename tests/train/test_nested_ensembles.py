"""A member of an ensemble has one number, one weight and one vote, also where it is an ensemble itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from aupipe.cli.ensemble import ensemble
from aupipe.errors import DamageError, UsageError
from aupipe.train.model import load_model, save_ensemble
from aupipe.train.model_prediction import predict_held_out, predict_model
from aupipe.train.postprocess import Options, PostProcess
from aupipe.train.predictions import Predictions
from aupipe.train.recipe import load_recipe
from aupipe.train.run import load_run, load_weights, save_postprocess, save_run

from .toy_corpus import Corpus, make_corpus, train_corpus

SCORES = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.9}  # the score of every frame by the run in each folder


@dataclass(frozen=True)
class Runs:
    """Folders of runs that differ only in their predictions."""

    folder: Path
    corpus: Corpus

    def join(self, name: str, members: str, rule: str = "mean", **options: object):
        return save_ensemble(
            self.folder / name,
            [load_model(self.folder / one) for one in members.split()],
            rule,  # type: ignore[arg-type]
            **options,  # type: ignore[arg-type]
        )

    def ask(self, model) -> dict[str, float]:
        """The one score of each recording."""
        found = predict_model(model, self.corpus.store, self.corpus.validation)
        return {name: round(float(item.scores[0, 0]), 4) for name, item in found.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    corpus = make_corpus(train=4, validation=3, frames=40)
    folder = tmp_path_factory.mktemp("runs")
    small = ["epochs=1", "window=20", "hop=20"]
    train_corpus(corpus, folder / "a", load_recipe("baseline", small))
    for name in list(SCORES)[1:]:
        shutil.copytree(folder / "a", folder / name)
    return Runs(folder, corpus)


@pytest.fixture
def runs(trained: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    from aupipe.train import model_prediction as module

    def constant(run, store, recordings, *_, **__):
        return {
            r.id: Predictions(
                r.id,
                "au",
                run.names,
                np.full((5, 12), SCORES[run.path.name], np.float32),
                np.ones(5, bool),
                np.arange(5.0),
            )
            for r in recordings
        }

    monkeypatch.setattr(module, "predict", constant)
    shutil.copytree(trained.folder, tmp_path / "runs")
    return replace(trained, folder=tmp_path / "runs")


def test_an_ensemble_of_ensembles_routes_each_recording_to_the_right_model(runs: Runs) -> None:
    runs.join("folds", "a b c")
    first, second, third = (r.id for r in runs.corpus.validation)
    routed = runs.join("scenes", "folds d e", "routed", routes={first: 0, second: 1}, default=2)
    assert runs.ask(routed) == {first: 0.2, second: 0.4, third: 0.9}
    again = runs.join("twice", "e scenes", "routed", routes={first: 0}, default=1)
    assert runs.ask(again) == {first: 0.9, second: 0.4, third: 0.9}
    assert runs.ask(load_model(runs.folder / "twice")) == runs.ask(again)


def test_the_command_line_numbers_the_runs_as_they_were_given(runs: Runs) -> None:
    parts = [str(runs.folder / name) for name in "abc"]
    assert CliRunner().invoke(ensemble, [*parts, "--out", str(runs.folder / "folds")]).exit_code == 0
    first, second, third = (r.id for r in runs.corpus.validation)
    routes = runs.folder / "routes.csv"
    routes.write_text(f"name,member\n{first},2\n{second},1\n")
    for recording in runs.corpus.validation:
        (runs.folder / "videos" / recording.id).mkdir(parents=True)
        (runs.folder / "videos" / recording.id / "00001.jpg").touch()
    (runs.folder / "aupipe.toml").write_text('[dataset]\nlayout = "images"\nfps = 25.0\n')
    given = [str(runs.folder / name) for name in ("folds", "d", "e")]
    ask = [*given, "--config", str(runs.folder / "aupipe.toml"), "--rule", "routed", "--routes", str(routes)]
    ask += ["--default", "3", "--out"]
    answer = CliRunner().invoke(ensemble, [*ask, str(runs.folder / "scenes")])
    assert answer.exit_code == 0, answer.output
    assert runs.ask(load_model(runs.folder / "scenes")) == {first: 0.4, second: 0.2, third: 0.9}
    routes.write_text(f"{first},{runs.folder / 'd'}\n{second},{runs.folder / 'folds'}\n")  # by name is the same
    assert CliRunner().invoke(ensemble, [*ask, str(runs.folder / "named")]).exit_code == 0
    assert runs.ask(load_model(runs.folder / "named")) == runs.ask(load_model(runs.folder / "scenes"))
    for text, said in (
        (f"{first},4\n", "member '4': expected one of 1 "),  # of five runs the fourth, of what was given none
        (f"{first},0\n", "member '0': expected one of 1 "),
        (f"{first},nobody\n", "member 'nobody': expected one of 1 "),
        (f"{first},1\n{first},2\n", "has two routes"),
        (f"{first}9,1\n", f"a route of '{first}9', which is no recording or video of this data set"),
    ):
        routes.write_text(text)
        answer = CliRunner().invoke(ensemble, [*ask, str(runs.folder / "no")])
        assert isinstance(answer.exception, UsageError)
        assert said in str(answer.exception)
    ask[ask.index("3")] = "5"
    routes.write_text(f"{first},1\n")
    answer = CliRunner().invoke(ensemble, [*ask, str(runs.folder / "no")])
    assert "--default: member '5': expected one of 1 " in str(answer.exception)
    assert not (runs.folder / "no").exists()


def test_a_numbering_that_does_not_fit_is_refused_when_the_file_is_read(runs: Runs) -> None:
    runs.join("scenes", "a b", "routed", routes={"x": 1}, default=0)
    file = runs.folder / "scenes" / "ensemble.json"
    sound = json.loads(file.read_text())
    for key, value in (("routes", {"x": 2}), ("default", 7), ("default", -1), ("weights", [1.0])):
        file.write_text(json.dumps(sound | {key: value}))
        with pytest.raises(DamageError, match="not readable as an ensemble"):
            load_model(runs.folder / "scenes")


def test_a_member_has_one_weight_and_one_vote_however_many_runs_it_is(runs: Runs) -> None:
    runs.join("folds", "a b c")
    name = runs.corpus.validation[0].id
    assert runs.ask(runs.join("even", "folds e"))[name] == pytest.approx((0.2 + 0.9) / 2)
    assert runs.ask(runs.join("uneven", "folds e", weights=[1, 3]))[name] == pytest.approx((0.2 + 3 * 0.9) / 4)
    with pytest.raises(UsageError, match="4 weights for 2 members"):
        runs.join("no", "folds e", weights=[1, 1, 1, 1])
    voted = runs.join("voted", "folds e", "vote", ties="positive")
    assert runs.ask(voted)[name] == 1  # one of two, not one of four
    assert runs.ask(runs.join("mixed", "voted d"))[name] == pytest.approx((1 + 0.4) / 2)


def test_a_member_votes_after_its_own_post_processing(runs: Runs) -> None:
    folds = runs.join("folds", "a b c")
    low = PostProcess("au", Options(), threshold=(0.15,) * 12, tuned_on=("x",))
    save_postprocess(folds, low)
    voted = runs.join("voted", "folds d e", "vote")
    assert runs.ask(voted)[runs.corpus.validation[0].id] == 1  # folds and e
    assert voted.tuned_on == {"x"}


def test_each_recording_is_held_out_by_the_member_it_is_routed_to(runs: Runs) -> None:
    first, second, third = (r.id for r in runs.corpus.validation)
    held = {"a": [first], "b": [second], "c": [third], "d": [first, second], "e": [first, second, third]}
    for name, ids in held.items():
        run = load_run(runs.folder / name)
        save_run(replace(run, validation=tuple(ids)), *load_weights(run))
    runs.join("folds", "a b c")
    routed = runs.join("scenes", "folds d e", "routed", routes={first: 0, second: 1, third: 1})
    found = predict_held_out(routed, runs.corpus.store, runs.corpus.validation)
    assert {name: round(float(item.scores[0, 0]), 4) for name, item in found.items()} == {first: 0.1, second: 0.4}


@pytest.mark.parametrize("weights", [(float("nan"), 1.0), (0.0, 0.0), (-1.0, 2.0), (float("inf"), 1.0)])
def test_invalid_weights_are_refused_and_nothing_is_written(trained: Runs, weights: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="expected 0 or more, and not all 0"):
        trained.join("odd", "a b", weights=weights)
    assert not (trained.folder / "odd").exists()
