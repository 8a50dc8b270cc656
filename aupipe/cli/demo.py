"""`aupipe demo`: extract, train and score on a corpus drawn by code."""

from __future__ import annotations

import json
import time
from pathlib import Path

from aupipe.cli.data import gather
from aupipe.cli.options import open_or_create
from aupipe.cli.output import echo, echo_err
from aupipe.cli.overwrite import refuse_nonempty
from aupipe.cli.run_report import run_plan
from aupipe.cli.template import template
from aupipe.config import FILE_NAME, load_config
from aupipe.dataset import open_dataset
from aupipe.errors import UsageError
from aupipe.quantities import counted

CORPUS_FILE = "demo.json"  # the parameters the corpus in this folder was drawn with
DRAWING = ".drawing"  # marks a corpus that was stopped while drawing, and may be drawn again


def run_demo(folder: Path, *, recordings: int, seconds: float, seed: int) -> None:
    """Draw a corpus, extract, train a linear head and a TCN, and score both on the validation split."""
    wanted = {"recordings": recordings, "seconds": seconds, "seed": seed}
    is_drawn = _is_drawn(folder, wanted)  # before libraries are loaded: what cannot be done is said at once
    from aupipe.extract.engine.options import ExecutionOptions
    from aupipe.extract.executors.local import local_executor
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.extract.planning.plan import make_plan
    from aupipe.train.evaluate import trivial_baseline
    from aupipe.train.fit import fit
    from aupipe.train.fit_config import FitConfig, FitData
    from aupipe.train.predict import predict
    from aupipe.train.prediction_files import write_csv
    from aupipe.train.recipe import load_recipe
    from aupipe.train.run import holds_run, load_run

    began = time.monotonic()
    _step(1, "draw talking faces")
    if is_drawn:
        echo(f"{folder} is drawn already", err=True)
    else:
        _draw(folder, wanted)
    config = load_config(folder / FILE_NAME)
    dataset = open_dataset(config.dataset)

    _step(2, "extract: decode, find faces, encode, store")
    store = open_or_create(config, create=True)
    assert store is not None
    plan = make_plan(dataset.recordings, build_feature_set(config), store)
    executor = local_executor(plan.parts, store.path, ["cpu"], ExecutionOptions())
    if plan.jobs and (code := run_plan(plan, store, executor, "cpu")):
        raise SystemExit(code)
    if not plan.jobs:
        echo(f"nothing to do: {counted(plan.counts['done'], 'item')} stored", err=True)

    runs = {}
    for number, name in ((3, "baseline"), (4, "tcn")):
        _step(number, f"train: {name}")
        out = folder / "runs" / f"{name}-au"
        if holds_run(out) and load_run(out).finished:
            echo(f"{out} is trained already", err=True)
            runs[name] = load_run(out)
        else:
            _clear(out)
            recipe = load_recipe(name)
            data = gather(config, store, recipe, "au")
            given = FitData(data.train, data.validation, data.labels, data.features)
            runs[name] = fit(store, given, FitConfig(recipe, data.task), out, progress=echo_err)
    predictions = predict(runs["tcn"], store, dataset.split("au", "validation"))
    write_csv(predictions, folder / "runs" / "tcn-au" / "predictions.csv", overwrite=True)  # its own of an earlier run
    labels = dataset.labels_of(dataset.split("au", "validation"), "au")
    scores = {name: run.scores for name, run in runs.items() if run.scores is not None}
    others = {"linear": scores["baseline"], "always 1": trivial_baseline(labels, "au")}
    echo()
    echo(*scores["tcn"].table(others, name="tcn").split("\n"))
    echo(
        "",
        f"{time.monotonic() - began:.0f} s in all. The faces are drawn: the scores only show that the pipeline works.",
    )
    for what, where in (
        ("videos and annotations", folder),
        ("features", config.store.path),
        ("trained heads", folder / "runs"),
        ("predictions per frame", folder / "runs" / "tcn-au" / "predictions.csv"),
    ):
        echo(f"{what:24} {where}")
    echo(f"next: cd {folder} && aupipe status && aupipe inspect")


def _step(number: int, what: str) -> None:
    echo("", f"[{number}/4] {what}", err=True)


def _is_drawn(folder: Path, wanted: dict[str, float]) -> bool:
    """Whether this corpus is in the folder already. Raises UsageError for a folder with other content."""
    stamp = folder / CORPUS_FILE
    if stamp.is_file():
        if (drawn := stamp.read_text()) != json.dumps(wanted):
            how = " ".join(drawn.translate(str.maketrans("", "", '{}"')).split())
            raise UsageError(f"{folder} holds another demo ({how}): choose another folder")
        return True
    if not (folder / DRAWING).exists():
        refuse_nonempty(folder, " and holds no demo")
    return False


def _draw(folder: Path, wanted: dict[str, float]) -> None:
    """Draw the corpus, and write its configuration."""
    from aupipe.demo import draw_corpus

    folder.mkdir(parents=True, exist_ok=True)
    (folder / DRAWING).touch()
    draw_corpus(
        folder,
        recordings=int(wanted["recordings"]),
        seconds=wanted["seconds"],
        seed=int(wanted["seed"]),
        progress=echo_err,
    )
    (folder / FILE_NAME).write_text(template("affwild2"), encoding="utf-8")
    (folder / CORPUS_FILE).write_text(json.dumps(wanted))
    (folder / DRAWING).unlink()


def _clear(out: Path) -> None:
    """Remove the files of an unfinished run."""
    for file in out.glob("*") if out.is_dir() else ():
        file.unlink()
