"""What the evaluation report says, and the table that the command line ends with.

The content is a list of blocks; `xmc_core.metrics.render` turns it into Markdown and HTML. Figures
are those of metrics.json, so that no two places show different ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xmc_core.metrics.bootstrap import Interval, PairedResult
from xmc_core.metrics.render import Answer, Answers, Block, Cell, Heading, Picture, Table, Text
from xmc_core.types import Json

SUMMARY = ("P@1", "P@3", "P@5", "nDCG@5", "PSP@1", "PSP@5")
"""Metrics of the table that everybody sees."""

MODELS = ("xr_linear", "disentangled", "xr_transformer")
"""Keys of metrics.json: the baseline first, the final model last."""

TEXT_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that the report tells of one data set."""

    dataset: str
    titles: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, float]]
    """As in metrics.json."""

    intervals: Mapping[str, Mapping[str, Interval]]
    against_baseline: Mapping[str, Mapping[str, PairedResult]]
    """Of each model but the first."""

    facts: Sequence[tuple[str, str]]
    answers: Sequence[Answer]
    pictures: Sequence[Picture]

    over_members: Mapping[str, Mapping[str, PairedResult]] = field(default_factory=dict)
    """The final model minus each member, where it is an ensemble."""


def model_titles(encoder: str, members: Sequence[str] = ()) -> dict[str, str]:
    """How people read the three models; `encoder` is `encoder.name` of the config.

    With an ensemble, `members` says what tells each member from the others.

    >>> list(model_titles("none", ["seed 1", "seed 2"]).items())[2:4]
    [('xr_transformer', 'Ensemble of 2 models'), ('member_1', 'Member 1: seed 1')]
    """
    final = "Final rankers (no encoder)" if encoder == "none" else "XR-Transformer, final rankers"
    if members:
        final = f"Ensemble of {len(members)} models"
    titles = ("XR-Linear, initial tree", "XR-Linear, disentangled tree", final)
    told = {member_key(n): f"Member {n}: {what}" for n, what in enumerate(members, start=1)}
    return dict(zip(MODELS, titles, strict=True)) | told


def member_key(number: int) -> str:
    """Of a member's figures in metrics.json; members count from 1."""
    return f"member_{number}"


def summary_table(
    metrics: Json, encoder: str = "", members: Sequence[str] = ()
) -> list[tuple[str, tuple[float, ...]]]:
    """Rows (model, values of SUMMARY) of a metrics.json, for terminals.

    >>> one = {name: 50.0 for name in SUMMARY}
    >>> summary_table({"xr_linear": one})
    [('XR-Linear, initial tree', (50.0, 50.0, 50.0, 50.0, 50.0, 50.0))]
    """
    titles = model_titles(encoder, members)
    return [
        (titles.get(model, model), tuple(float(values[name]) for name in SUMMARY))
        for model, values in metrics.items()
    ]


def blocks(evaluation: Evaluation) -> list[Block]:
    """The report from top to bottom."""
    content: list[Block] = [
        Text(
            "Three models answered the same test documents: the linear baseline on the initial "
            "tree, the same after labels were given several clusters, and the final model"
            f"{', below it its members one by one' if evaluation.over_members else ''}. "
            "All figures are percent, each with its 95% interval: where it may as well have been, "
            "had other documents like these been asked (bootstrap over the test rows)."
        ),
        _summary(evaluation),
        Heading("Against the baseline"),
        Text(
            f"Difference to {evaluation.titles[MODELS[0]]} in percentage points, row by row on the "
            "same documents (paired bootstrap): 95% interval and p value. Up or down is said only "
            "where the interval leaves out 0."
        ),
        _comparison(evaluation, evaluation.against_baseline),
        *_gain_of_the_ensemble(evaluation),
        *evaluation.pictures,
        Heading("Five questions"),
        Text(
            f"Test documents picked by a hash of their text, not by how well they came out; the "
            f"five best labels of {evaluation.titles[MODELS[-1]]}."
        ),
        Answers(tuple(evaluation.answers)),
        Heading("All figures"),
        _everything(evaluation),
        Heading("The data"),
        Table(("", ""), tuple((Cell(name), Cell(value)) for name, value in evaluation.facts)),
        Heading("How to read it"),
        Text(
            "P@k: hits among the k best labels, divided by k. R@k: hits divided by the number of "
            "true labels. nDCG@k: hits, those further down count less. PSP@k and PSnDCG@k: the "
            "same with each hit weighted by how easily annotators overlook its label, so that rare "
            "labels count. coverage@k: labels that are right at least once. macro-F1@5 and "
            "micro-F1@5: mean over labels, and over all answers. Documents without labels count in "
            "P@k and are left out of R@k and nDCG@k; labels that training never showed count as "
            "missed."
        ),
    ]
    return content


def shorten(text: str, length: int = TEXT_LENGTH) -> str:
    """One line of at most `length` characters, cut between words.

    >>> shorten("several   words\\nhere", 14)
    'several words …'
    """
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    return line[: length + 1].rsplit(" ", 1)[0][:length] + " …"


def _summary(evaluation: Evaluation) -> Table:
    best = {name: max(values[name] for values in evaluation.metrics.values()) for name in SUMMARY}
    rows = []
    for model, title in evaluation.titles.items():
        cells = [Cell(title)]
        for name in SUMMARY:
            value, interval = evaluation.metrics[model][name], evaluation.intervals[model][name]
            tone = "best" if value == best[name] else ""
            cells.append(Cell(f"{value:.2f}", f"{interval.low:.1f} to {interval.high:.1f}", tone))
        rows.append(tuple(cells))
    return Table(("Model", *SUMMARY), tuple(rows))


def _gain_of_the_ensemble(evaluation: Evaluation) -> list[Block]:
    if not evaluation.over_members:
        return []
    return [
        Heading("What the ensemble gains"),
        Text(
            "The final model's figure minus that of each of its members alone, in the same way: up "
            "says that averaging was worth it."
        ),
        _comparison(evaluation, evaluation.over_members),
    ]


def _comparison(
    evaluation: Evaluation, compared: Mapping[str, Mapping[str, PairedResult]]
) -> Table:
    tones = {"better": "up", "worse": "down", "even": ""}
    rows = []
    for model, results in compared.items():
        cells = [Cell(evaluation.titles[model])]
        for name in SUMMARY:
            result = results[name]
            note = f"{result.low:+.2f} to {result.high:+.2f}\n{p_text(result.p_value)}"
            cells.append(Cell(f"{result.difference:+.2f}", note, tones[result.verdict]))
        rows.append(tuple(cells))
    return Table(("Model", *SUMMARY), tuple(rows))


def p_text(p_value: float) -> str:
    """
    >>> p_text(0.0312), p_text(0.0009995)
    ('p = 0.031', 'p < 0.001')
    """
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _everything(evaluation: Evaluation) -> Table:
    models = list(evaluation.titles)
    rows = tuple(
        (Cell(name), *(Cell(f"{evaluation.metrics[model][name]:.2f}") for model in models))
        for name in evaluation.metrics[models[0]]
    )
    return Table(("Metric", *evaluation.titles.values()), rows)
