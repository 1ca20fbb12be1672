import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from xmc_core.metrics import Interval, PairedResult, Slice, plots, tables
from xmc_core.metrics.promises import Promise
from xmc_core.metrics.reliability import Reliability
from xmc_core.metrics.render import Answer, Picture, to_html, to_markdown
from xmc_core.metrics.report import (
    MODELS,
    SUMMARY,
    Evaluation,
    Groups,
    Probabilities,
    blocks,
    model_titles,
    shorten,
    summary_table,
    tone,
)


def sliced(recall: float) -> list[Slice]:
    return [
        Slice(decile, 3, 90 - decile, 11 - decile, recall - decile, recall, 1.5)
        for decile in range(1, 10)
    ] + [Slice(10, 3, 1, 0, float("nan"), float("nan"), 0.0)]


INTERVALS = {
    model: {name: Interval(50.0 + place, 48.5 + place, 51.0 + place) for name in SUMMARY}
    for place, model in enumerate(MODELS)
}
RESULTS = {
    MODELS[1]: dict.fromkeys(SUMMARY, PairedResult(1.0, -0.5, 2.5, 0.21)),
    MODELS[2]: dict.fromkeys(SUMMARY, PairedResult(2.0, 1.25, 2.75, 0.0009)),
}
GROUP_NAMES = ("R@5 head", "R@5 torso", "R@5 tail")
GROUPS = Groups(
    {model: dict.fromkeys(GROUP_NAMES, Interval(40.0, 38.0, 42.0)) for model in MODELS},
    {MODELS[2]: dict.fromkeys(GROUP_NAMES, PairedResult(-3.0, -4.0, -2.0, 0.001))},
)
PROMISES = [Promise(80.0, 0.5, (80.1, 40.0, 90.0), (81.5, 42.0, 91.0))]
BENT = Reliability(
    np.array([10.0, 50.0, 90.0]), np.array([5.0, 40.0, 95.0]), np.array([3.0, 30.0, 90.0]),
    np.array([8.0, 50.0, 99.0]), np.array([20.0, 20.0, 20.0]),
)  # fmt: skip
LEFT = {name: np.array([100.0, 60.0, 20.0]) for name in ("precision", "recall", "answered")} | {
    "score": np.array([0.0, 0.5, 1.0])
}
POINTS = [
    {"step": step, "level": level, "loss": 1 / (step + level), "learning_rate": 1e-4 / step}
    for level in (1, 2)
    for step in range(1, 31)
]


@pytest.fixture
def evaluation() -> Evaluation:
    metrics = {
        model: {name: interval.value for name, interval in own.items()}
        for model, own in INTERVALS.items()
    }
    return Evaluation(
        dataset="made",
        titles=model_titles("none"),
        metrics=metrics,
        intervals=INTERVALS,
        against_baseline=RESULTS,
        facts=[("Test documents", "1,234")],
        answers=[
            Answer(
                "sort <b>an</b> *array* | please",
                (("numpy.sort", 0.875, True), ("os.path", 0.5, False)),
                ("numpy.argsort",),
            )
        ],
        groups=GROUPS,
        pictures=[Picture("metrics.png", "Three models.", b"\x89PNG not really")],
    )


def test_the_html_needs_no_other_file(evaluation):
    html = to_html("Evaluation of made", blocks(evaluation))
    assert html.count("data:image/png;base64,iVBORyBub3QgcmVhbGx5") == 1
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_texts_of_users_cannot_become_markup(evaluation):
    html = to_html("a < b", blocks(evaluation))
    assert "sort &lt;b&gt;an&lt;/b&gt; *array* | please" in html
    assert "<title>a &lt; b</title>" in html
    markdown = to_markdown("Evaluation", blocks(evaluation))
    assert r"> sort \<b\>an\</b\> \*array\* \| please" in markdown


def test_the_report_shows_figures_intervals_and_tests(evaluation):
    markdown = to_markdown("Evaluation of made", blocks(evaluation))
    assert "| XR-Linear, initial tree | 50.00 (48.5 to 51.0) |" in markdown
    assert "| Final rankers (no encoder) | **52.00** (50.5 to 53.0) |" in markdown
    # Twelve figures in the table: 12 * 0.0009, and 6 * 0.21 for what comes after these six.
    assert "| XR-Linear, disentangled tree | +1.00 (-0.50 to +2.50, p = 1.000) |" in markdown
    assert "**▲ +2.00** (+1.25 to +2.75, p = 0.011)" in markdown
    assert "| Final rankers (no encoder) | **▼ 40.00** (38.0 to 42.0) |" in markdown
    assert "- ✓ numpy.sort (0.875)\n- ✗ os.path (0.500)\n\nAlso true: numpy.argsort" in markdown
    assert "![Three models.](metrics.png)" in markdown
    assert "| Test documents | 1,234 |" in markdown


def test_summary_rows_carry_the_titles_people_read():
    metrics = {model: dict.fromkeys((*SUMMARY, "R@5"), 12.3456) for model in MODELS}
    rows = summary_table(metrics, encoder="all-MiniLM-L6-v2")
    assert [title for title, _ in rows] == [
        "XR-Linear, initial tree",
        "XR-Linear, disentangled tree",
        "XR-Transformer, final rankers",
    ]
    assert rows[0][1] == (12.3456,) * 6
    assert summary_table({"own": metrics["xr_linear"]})[0][0] == "own"


def test_long_texts_are_cut_between_words():
    text = "word " * 100
    assert len(shorten(text)) <= 302
    assert shorten(text).endswith("word …")
    assert shorten("a\n b") == "a b"
    assert len(shorten("x" * 999)) <= 302


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.metric_bars(INTERVALS),
        lambda: plots.recall_by_decile({"a": sliced(60), "b": sliced(70)}, 5),
        lambda: plots.recall_by_beam(
            {"a": {1: {1: 40.0, 10: 90.0}, 2: {1: 30.0}}, "b": {2: {1: 45.0, 10: 95.0}}}
        ),
        lambda: plots.recall_by_beam({"a": {0: {1: 100.0}}}),
        lambda: plots.reliability_diagram({"best label": BENT}, LEFT, 5),
        lambda: plots.reliability_diagram({}, {}, 5),
        lambda: plots.learning_curve(POINTS),
        lambda: plots.learning_curve(POINTS[:1]),
        lambda: plots.learning_curve([]),
        lambda: plots.learning_curve(
            [{**point, "member": member} for member in (1.0, 2.0) for point in POINTS]
        ),
    ],
)
def test_pictures_are_pictures_and_the_same_every_time(draw):
    drawing = draw()
    image = Image.open(io.BytesIO(drawing.png))
    assert image.size == (1200, 660)
    assert len(np.unique(np.asarray(image.convert("L")))) > 10  # something is drawn
    assert "Software" not in image.info
    root = ElementTree.fromstring(drawing.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{http://www.w3.org/2000/svg}path")) > 5
    assert draw() == drawing


def test_probabilities_have_a_section_of_their_own(evaluation):
    assert "## Probabilities" not in to_markdown("Evaluation", blocks(evaluation))
    metrics = dict(evaluation.metrics)
    metrics[MODELS[2]] = {**metrics[MODELS[2]], "ECE@1": 3.21, "ECE@5": 1.09}
    told = replace(
        evaluation,
        metrics=metrics,
        reliability=Picture("reliability.png", "Are they right?", b""),
        probabilities=Probabilities("isotonic", 3400, PROMISES),
    )
    markdown = to_markdown("Evaluation", blocks(told))
    assert "fitted on 3,400 training documents" in markdown
    assert "3.2 points for the best label, 1.1 for the five best" in markdown
    assert "| 80 % | 0.500 | 80.1 | 40.0 | 90.0 | 81.5 | 42.0 | 91.0 |" in markdown
    assert "![Are they right?](reliability.png)" in markdown
    assert "| ECE@1 |  |  | 3.21 |" in markdown  # the others' scores are no probabilities


def test_a_difference_is_called_one_only_below_the_corrected_level():
    result = PairedResult(2.0, 1.25, 2.75, 0.0009)
    assert tone(result, 0.049) == "up"
    assert tone(result, 0.05) == ""
    assert tone(result.reversed(), 0.011) == "down"


def test_a_figure_that_does_not_exist_is_empty_in_the_table():
    lines = tables.slices_csv({"xr_linear": sliced(60.0)}).splitlines()
    assert lines[0] == (
        "model,decile,group,labels,train_positives,test_positives,recall,precision,psp"
    )
    assert lines[1] == "xr_linear,1,head,3,89,10,59.0000,60.0000,1.5000"
    assert lines[10] == "xr_linear,10,tail,3,1,0,,,0.0000"


def test_recalls_and_comparisons_keep_four_decimals():
    recalls = {"a": {1: {1: 12.34567, 10: 50.0}, 2: {1: 10.0}}, "b": {1: {1: 20.0}}}
    assert tables.recall_csv(recalls) == (
        "model,level,beam_size,recall\n"
        "a,1,1,12.3457\na,1,10,50.0000\na,2,1,10.0000\nb,1,1,20.0000\n"
    )
    told = json.loads(tables.comparison_json(INTERVALS, RESULTS))
    assert told["xr_linear"]["P@1"] == {"value": 50.0, "low": 48.5, "high": 51.0}
    assert told["xr_transformer"]["P@1"]["against_baseline"]["p_value"] == 0.0009


def test_learning_curves_are_read_back_and_further_columns_ignored():
    text = "step,level,loss,learning_rate,extra\n1,1,0.5,1e-4,x\n"
    expected = [{"step": 1.0, "level": 1.0, "loss": 0.5, "learning_rate": 1e-4}]
    assert tables.read_curves(text) == expected
    assert tables.read_curves(tables.empty_curves()) == []
    several = "step,level,loss,learning_rate,member\n1,1,0.5,1e-4,2\n"
    assert tables.read_curves(several) == [{**expected[0], "member": 2.0}]


def test_groups_have_a_line_for_each_k():
    figures = {"a": {"head": {"P@1": 1.0, "R@1": 2.0, "P@3": 3.0}, "tail": {"P@1": 4.0}}}
    assert tables.groups_csv(figures) == (
        "model,group,k,P,R\n"
        "a,head,1,1.0000,2.0000\na,head,3,3.0000,\na,tail,1,4.0000,\na,tail,3,,\n"
    )


def test_thresholds_and_pairs_are_tables():
    assert tables.thresholds_csv(PROMISES).splitlines() == [
        "wanted_precision,threshold,held_out_precision,held_out_recall,held_out_answered,"
        "test_precision,test_recall,test_answered",
        "80.0000,0.5000,80.1000,40.0000,90.0000,81.5000,42.0000,91.0000",
    ]
    assert len(tables.thresholds_csv([]).splitlines()) == 1
    results = {"P@1": PairedResult(1.0, 0.5, 1.5, 0.01), "P@5": PairedResult(0.0, -1.0, 1.0, 0.9)}
    assert tables.pairs_csv({("b", "a"): results}).splitlines() == [
        "model,minus,metric,difference,low,high,p_value,p_corrected",
        "b,a,P@1,1.0000,0.5000,1.5000,0.0100,0.0200",
        "b,a,P@5,0.0000,-1.0000,1.0000,0.9000,0.9000",
    ]
