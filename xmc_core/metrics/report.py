"""What the evaluation report says, and the table that the command line ends with.

The content is a list of blocks; `xmc_core.metrics.render` turns it into Markdown and HTML. Figures
are those of metrics.json, so that no two places show different ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xmc_core.metrics.ambiguity import Ambiguous, ambiguous_blocks
from xmc_core.metrics.bootstrap import Interval, PairedResult, holm
from xmc_core.metrics.promises import Promise
from xmc_core.metrics.render import Answer, Answers, Block, Cell, Heading, Picture, Table, Text
from xmc_core.metrics.summary import SUMMARY as SUMMARY
from xmc_core.types import Json

MODELS = ("xr_linear", "disentangled", "xr_transformer")
"""Keys of metrics.json: the baseline first, the final model last."""

GROUP_SUMMARY = ("R@5", "nDCG@5")
"""Shown of head, torso and tail."""

LEVEL = 0.05
"""Differences with a corrected p value below it are called up or down."""

TEXT_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Groups:
    """Figures of head, torso and tail, by model and "<metric> <group>"."""

    intervals: Mapping[str, Mapping[str, Interval]]
    against_baseline: Mapping[str, Mapping[str, PairedResult]]


@dataclass(frozen=True, slots=True)
class Probabilities:
    """What the report says about the final model's probabilities."""

    method: str
    rows: int
    """Training rows that were held out."""

    promises: Sequence[Promise]


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
    groups: Groups
    pictures: Sequence[Picture]
    """Of all of it, and of the groups."""

    more_pictures: Sequence[Picture] = ()
    """Of tree and training."""

    reliability: Picture | None = None
    probabilities: Probabilities | None = None
    """None for scores that are none."""

    ambiguous: Ambiguous | None = None
    """Labels in several clusters of the disentangled tree."""

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
            "same documents (paired bootstrap): 95% interval and p value. P values are corrected "
            "for the number of figures in the table (Holm); up or down is said only where the "
            "corrected one is below 0.05."
        ),
        _comparison(evaluation, evaluation.against_baseline),
        *_gain_of_the_ensemble(evaluation),
        *evaluation.pictures,
        *_groups(evaluation),
        *evaluation.more_pictures,
        *ambiguous_blocks(evaluation.ambiguous),
        *_probabilities(evaluation),
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
            "labels count. coverage@k: labels that are right at least once. macro-F1 and micro-F1: "
            "mean over labels, and over all answers; @5 with the five best labels as answers, else "
            "with all that reach the score from which on there are as many as in training. ECE@k: "
            "expected calibration error, the mean distance of probability and share of hits among "
            "the k best labels. Documents without labels count in "
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
    tones, corrected = _corrected(compared, SUMMARY)
    rows = []
    for model, results in compared.items():
        cells = [Cell(evaluation.titles[model])]
        for name in SUMMARY:
            result = results[name]
            note = f"{result.low:+.2f} to {result.high:+.2f}\n{p_text(corrected[model, name])}"
            cells.append(Cell(f"{result.difference:+.2f}", note, tones[model, name]))
        rows.append(tuple(cells))
    return Table(("Model", *SUMMARY), tuple(rows))


def _corrected(
    compared: Mapping[str, Mapping[str, PairedResult]], names: Sequence[str]
) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], float]]:
    """Tone and corrected p value of each figure of a table, by model and metric."""
    places = [(model, name) for model in compared for name in names if name in compared[model]]
    p_values = holm([compared[model][name].p_value for model, name in places])
    corrected = dict(zip(places, p_values, strict=True))
    return {
        (model, name): tone(compared[model][name], p) for (model, name), p in corrected.items()
    }, corrected


def tone(result: PairedResult, corrected_p: float) -> str:
    """up or down where the difference is beyond chance, else nothing."""
    if corrected_p >= LEVEL:
        return ""
    return "up" if result.difference > 0 else "down"


def _groups(evaluation: Evaluation) -> list[Block]:
    groups = evaluation.groups
    if not groups.intervals:
        return []
    names = list(next(iter(groups.intervals.values())))
    tones, _ = _corrected(groups.against_baseline, names)
    rows = []
    for model, intervals in groups.intervals.items():
        cells = [Cell(evaluation.titles[model])]
        for name in names:
            i = intervals[name]
            told = f"{i.low:.1f} to {i.high:.1f}"
            cells.append(Cell(f"{i.value:.2f}", told, tones.get((model, name), "")))
        rows.append(tuple(cells))
    return [
        Heading("Frequent and rare labels"),
        Text(
            "The same documents, as if only these labels were asked for. Head: the most frequent "
            "tenth of the training labels; torso: the next four tenths; tail: the rarer half. Up "
            f"or down against {evaluation.titles[MODELS[0]]}, corrected as above."
        ),
        Table(("Model", *names), tuple(rows)),
    ]


def _probabilities(evaluation: Evaluation) -> list[Block]:
    picture = [evaluation.reliability] if evaluation.reliability else []
    told = evaluation.probabilities
    if told is None:
        return [*picture]
    final = evaluation.metrics[MODELS[-1]]
    rows = tuple(
        (
            Cell(f"{promise.wanted:.0f} %"),
            Cell(f"{promise.threshold:.3f}"),
            *(Cell(f"{value:.1f}") for value in (*promise.held_out, *promise.test)),
        )
        for promise in told.promises
    )
    return [
        Heading("Probabilities"),
        Text(
            f"Scores of {evaluation.titles[MODELS[-1]]} are probabilities ({told.method}, fitted "
            f"on {told.rows:,} training documents that rankers like its own had not seen). "
            f"Expected calibration error on the test split: {final['ECE@1']:.1f} points for the "
            f"best label, {final['ECE@5']:.1f} for the five best."
        ),
        *picture,
        Text(
            "Who wants answers of a certain precision takes only labels that score at least the "
            "threshold; a document without any gets none. What the held-out documents promise, and "
            "what the test split shows, in percent (answered: documents that get a label). "
            "Precisions that no threshold reached are left out."
        ),
        Table(
            ("Wanted", "Threshold", "Precision", "Recall", "Answered", "Test: precision", "recall",
             "answered"),
            rows,
        ),
    ]  # fmt: skip


def p_text(p_value: float) -> str:
    """
    >>> p_text(0.0312), p_text(0.0009995)
    ('p = 0.031', 'p < 0.001')
    """
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _everything(evaluation: Evaluation) -> Table:
    models = list(evaluation.titles)
    names = dict.fromkeys(name for own in evaluation.metrics.values() for name in own)

    def cell(model: str, name: str) -> Cell:
        value = evaluation.metrics[model].get(name)
        return Cell("" if value is None else f"{value:.2f}")

    rows = tuple((Cell(name), *(cell(model, name) for model in models)) for name in names)
    return Table(("Metric", *evaluation.titles.values()), rows)
