"""xmc evaluate, xmc compare, xmc threshold: how good predictions are, ours and anybody's."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xmc_core.cli.options import PresetOption
from xmc_core.cli.prediction import open_model
from xmc_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from xmc_core.config import Config
    from xmc_core.data import Dataset, Predictions
    from xmc_core.metrics import PairedResult
    from xmc_core.stages.paths import ProjectPaths

FINAL = "final"
STAGES = {"baseline": "matcher", "disentangled": "disentangled_tree", FINAL: "rankers"}
"""Models of the pipeline by the names that these commands know."""

DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="A data set of params.yaml.")
]
LabelsOption = Annotated[
    str,
    typer.Option(
        "--labels",
        metavar="names|numbers",
        help="What labels of a CSV file are, where they could be either.",
        show_default="what they look like",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WHAT = (
    f"{', '.join(STAGES)} for a model of the pipeline; a file of predictions (.jsonl, .csv, .tsv, "
    ".npz); a stage's predictions/; a model's folder."
)


def evaluate(
    dataset: DatasetArgument,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            "--predictions",
            "-i",
            metavar="FILE|FOLDER|MODEL",
            help=f"{WHAT} May be repeated.",
            show_default="the final model alone",
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            "-n",
            metavar="NAME",
            help="What to call them, in the same order.",
            show_default="their file names",
        ),
    ] = None,
    against: Annotated[
        str, typer.Option("--against", metavar="NAME", help="What all others are compared with.")
    ] = FINAL,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            help="Least score of an answer in macro-F1 and micro-F1.",
            show_default="that from which on there are as many labels as in training",
        ),
    ] = None,
    labels: LabelsOption = "auto",
    preset: PresetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure predictions on the test documents of a data set, those of other systems too.

    With `--predictions` they stand in one table with the models of the pipeline: figures with 95%
    intervals, and paired tests against one of them, corrected for their number (Holm).

    Example: `xmc evaluate python-api --predictions theirs.csv --name theirs`
    """
    from xmc_core.cli.options import load_settings
    from xmc_core.metrics.bootstrap import bootstrap_intervals, compare_pairs
    from xmc_core.metrics.summary import all_metrics, row_figures
    from xmc_core.stages.inputs import Inputs

    config, paths = load_settings(dataset, preset, None)
    data = Inputs(paths).dataset
    models = _models(predictions, names, paths, data, config, labels)
    metrics = {
        name: all_metrics(own, data, config, threshold=threshold) for name, own in models.items()
    }
    rows = {name: row_figures(own, data, config) for name, own in models.items()}
    if against not in models and (predictions or against != FINAL):
        raise ConfigError(f"--against {against}: the table has {', '.join(models)}.")
    told: dict[str, dict[str, Any]] = {name: {"metrics": own} for name, own in metrics.items()}
    for name, own in rows.items():
        told[name]["intervals"] = bootstrap_intervals(own, seed=config.seed)
    others = {name: own for name, own in rows.items() if name != against}
    for name in others:
        pair = {against: rows[against], name: rows[name]}
        told[name]["against"] = compare_pairs(pair, seed=config.seed)[name, against]
    if as_json:
        typer.echo(json.dumps(_plain(told, against), indent=1))
    elif not predictions:
        _show_metrics(metrics[FINAL])
    else:
        _show_models(told)
        _show_differences({name: told[name]["against"] for name in others}, against)


def compare(
    dataset: DatasetArgument,
    first: Annotated[str, typer.Argument(metavar="A", help=WHAT)],
    second: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    labels: LabelsOption = "auto",
    preset: PresetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two models on the test documents, row by row: A minus B in every figure.

    Also as if only frequent or only rare labels were asked for (head, torso, tail). P values are
    those of a paired bootstrap, corrected for the number of figures shown (Holm).
    """
    from xmc_core.cli.options import load_settings
    from xmc_core.metrics.bootstrap import compare_pairs, holm
    from xmc_core.metrics.slices import GROUPS, frequency_groups, scores_by_group
    from xmc_core.metrics.summary import frequencies, row_figures
    from xmc_core.stages.inputs import Inputs

    config, paths = load_settings(dataset, preset, None)
    data = Inputs(paths).dataset
    groups = frequency_groups(data.label_counts)
    rows = {}
    for place, what in (("B", second), ("A", first)):
        own = _predictions(what, paths, data, config, labels)
        rows[place] = row_figures(own, data, config)
        parts = scores_by_group(
            own, data.Y_test, {name: groups[name] for name in GROUPS}, **frequencies(data, config)
        )
        for group, measures in parts.items():
            rows[place] |= {f"{name} {group}": measures[name] for name in ("P@5", "R@5", "nDCG@5")}
    results = compare_pairs(rows, seed=config.seed)["A", "B"]
    corrected = dict(zip(results, holm([r.p_value for r in results.values()]), strict=True))
    if as_json:
        figures = {
            name: {
                "A": round(rows["A"][name].value, 4),
                "B": round(rows["B"][name].value, 4),
                **_figures(result, corrected[name]),
            }
            for name, result in results.items()
        }
        typer.echo(json.dumps(figures, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("percent", title=f"A: {first}, B: {second}", title_justify="left")
    for column in ("A", "B", "A - B", "95% interval", "p", "p, corrected"):
        table.add_column(column, justify="right")
    for name, result in results.items():
        table.add_row(
            name,
            f"{rows['A'][name].value:.2f}",
            f"{rows['B'][name].value:.2f}",
            _marked(result, corrected[name]),
            f"{result.low:+.2f} to {result.high:+.2f}",
            f"{result.p_value:.3f}",
            f"{corrected[name]:.3f}",
        )
    Console(markup=False).print(table)
    typer.echo(
        f"p corrected for {len(results)} figures (Holm); marked where that is below 0.05: "
        "▲ A is better, ▼ B is."
    )


def threshold(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A data set whose final model is meant, or a model's folder."
        ),
    ],
    precision: Annotated[
        list[float] | None,
        typer.Option(
            "--precision",
            min=0,
            max=100,
            help="Wanted percentage of right labels; may be repeated.",
            show_default="50 60 70 80 90 95",
        ),
    ] = None,
    preset: PresetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say from which probability on labels are right often enough.

    What is promised was seen on training documents that were held out when the model was
    calibrated; the report shows what became of it on the test split.
    """
    from dataclasses import asdict

    pipeline = open_model(model, preset)
    points = {}
    for wanted in precision or (50.0, 60.0, 70.0, 80.0, 90.0, 95.0):
        try:
            points[wanted] = pipeline.operating_point(wanted)
        except DataError:
            if precision or pipeline.calibration is None:
                raise
    if as_json:
        told = [{"wanted": wanted, **asdict(point)} for wanted, point in points.items()]
        typer.echo(json.dumps(told, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("wanted", "threshold", "precision", "recall", "texts answered"):
        table.add_column(column, justify="right")
    for wanted, point in points.items():
        values = (point.precision, point.recall, point.answered)
        table.add_row(f"{wanted:g} %", f"{point.score:.4f}", *(f"{v:.1f} %" for v in values))
    Console(markup=False).print(table)


def _models(
    predictions: Sequence[str] | None,
    names: Sequence[str] | None,
    paths: "ProjectPaths",
    data: "Dataset",
    config: "Config",
    labels: str,
) -> "dict[str, Predictions]":
    """The final model, or all of the pipeline that there are and the others, by name."""
    predictions, names = predictions or [], names or []
    if len(names) > len(predictions):
        raise ConfigError(f"there are {len(names)} --name for {len(predictions)} --predictions.")
    ours = STAGES if predictions else {FINAL: STAGES[FINAL]}
    models = {
        name: _predictions(name, paths, data, config, labels)
        for name, stage in ours.items()
        if not predictions or (paths.out(stage) / "predictions").is_dir()
    }
    for place, what in enumerate(predictions):
        name = names[place] if place < len(names) else None
        if what in ours:
            if name not in (None, what):
                raise ConfigError(
                    f"--name {name}: {what} is in the table anyway, under its own name; leave out "
                    f"--predictions {what}."
                )
            continue
        name = name or Path(what).name.partition(".")[0] or what
        if name in models:
            raise ConfigError(f"there are two models called {name}; give each a --name.")
        models[name] = _predictions(what, paths, data, config, labels)
    return models


def _predictions(
    what: str, paths: "ProjectPaths", data: "Dataset", config: "Config", labels: str
) -> "Predictions":
    from xmc_core.data import Predictions
    from xmc_core.data.prediction_file import read_predictions
    from xmc_core.data.predictions import KIND
    from xmc_core.persistence.store import read_manifest
    from xmc_core.stages.paths import MADE_OF

    if what in STAGES:
        return Predictions.load(paths.existing(STAGES[what]) / "predictions")
    path = Path(what)
    if path.is_file() or not path.exists():
        return read_predictions(path, data.label_names, len(data.test_texts), labels=labels)
    if read_manifest(path)["kind"] == KIND:
        made_of = path.parent / MADE_OF
        if made_of.exists() and json.loads(made_of.read_text()) != paths.made_of():
            raise DataError(
                f"{what} belongs to another data set than {paths.dataset}, or to {paths.dataset} "
                "as it was before; what is measured must be said of its present test documents."
            )
        return Predictions.load(path)
    pipeline = open_model(what)
    if pipeline.label_names != data.label_names[: data.n_labels]:
        raise DataError(
            f"{what} was trained on other labels than {paths.dataset} has; "
            "a model can be measured on the data set it was trained on."
        )
    return pipeline.predict(data.test_texts, top_k=config.inference.top_k)


def _show_metrics(metrics: Mapping[str, float]) -> None:
    """Metrics down, k across; below them those without k."""
    from rich.console import Console
    from rich.table import Table

    ks = sorted({int(name.partition("@")[2]) for name in metrics if "@" in name})
    table = Table("percent", title_justify="left")
    for k in ks:
        table.add_column(f"@{k}", justify="right")
    table.add_column("at the threshold", justify="right")
    for kind in dict.fromkeys(name.partition("@")[0] for name in metrics):
        values = (metrics.get(name) for name in (*(f"{kind}@{k}" for k in ks), kind))
        table.add_row(kind, *("" if value is None else f"{value:.2f}" for value in values))
    Console(markup=False).print(table)


def _show_models(told: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from xmc_core.metrics.summary import SUMMARY

    table = Table("percent, 95% interval")
    columns = (*SUMMARY, "micro-F1", "macro-F1")
    for name in columns:
        table.add_column(name, justify="right")
    for model, own in told.items():
        cells = []
        for name in columns:
            interval = own["intervals"].get(name)
            around = f"\n{interval.low:.1f} to {interval.high:.1f}" if interval else ""
            cells.append(f"{own['metrics'][name]:.2f}{around}")
        table.add_row(model, *cells)
    Console(markup=False).print(table)


def _show_differences(compared: "Mapping[str, Mapping[str, PairedResult]]", against: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from xmc_core.metrics.bootstrap import holm
    from xmc_core.metrics.summary import SUMMARY

    table = Table(f"minus {against}")
    for name in SUMMARY:
        table.add_column(name, justify="right")
    p_values = iter(holm([compared[model][name].p_value for model in compared for name in SUMMARY]))
    for model, results in compared.items():
        cells = []
        for name in SUMMARY:
            result, p = results[name], next(p_values)
            interval = f"{result.low:+.2f} to {result.high:+.2f}"
            cells.append(f"{_marked(result, p)}\n{interval}\np {p:.3f}")
        table.add_row(model, *cells)
    Console(markup=False).print(table)
    typer.echo(
        f"p corrected for the {len(compared) * len(SUMMARY)} figures of the table (Holm); ▲ better "
        "and ▼ worse where that is below 0.05."
    )


def _marked(result: "PairedResult", corrected_p: float) -> str:
    from xmc_core.metrics.report import tone

    mark = {"up": "▲ ", "down": "▼ ", "": ""}[tone(result, corrected_p)]
    return f"{mark}{result.difference:+.2f}"


def _figures(result: "PairedResult", corrected_p: float) -> dict[str, float]:
    from dataclasses import asdict

    from xmc_core.metrics import rounded

    return rounded({**asdict(result), "p_corrected": corrected_p})


def _plain(told: Mapping[str, Mapping[str, Any]], against: str) -> dict[str, Any]:
    """As JSON holds it. P values are corrected for all figures of a model, as there are too many of
    all models for the draws to tell any apart."""
    from dataclasses import asdict

    from xmc_core.metrics import rounded
    from xmc_core.metrics.bootstrap import holm

    plain: dict[str, Any] = {}
    for name, own in told.items():
        plain[name] = {
            "metrics": own["metrics"],
            "intervals": {n: rounded(asdict(i)) for n, i in own["intervals"].items()},
        }
        if compared := own.get("against"):
            p_values = holm([result.p_value for result in compared.values()])
            plain[name]["against"] = {"model": against} | {
                n: _figures(result, p)
                for (n, result), p in zip(compared.items(), p_values, strict=True)
            }
    return plain
