"""Metadata that people see in Dagster."""

from orchestration.assets.details import AMBIGUOUS, ambiguous_table
from xmc_core.metrics.ambiguity import AmbiguousLabel, ToldCluster
from xmc_core.metrics.tables import ambiguous_csv


def label(name: str) -> AmbiguousLabel:
    clusters = (ToldCluster(3, ("phone", "screen"), 6, 5), ToldCluster(8, ("pie",), 4, 3))
    return AmbiguousLabel(name, 10, 1, 30.0, clusters)


def test_ambiguous_labels_are_a_table_of_the_first_lines_of_the_report(tmp_path):
    labels = [label("apple | Apple"), *(label(f"label {n}") for n in range(AMBIGUOUS))]
    (tmp_path / "ambiguous_labels.csv").write_text(ambiguous_csv(labels), encoding="utf-8")
    lines = ambiguous_table(tmp_path).splitlines()
    assert lines[2:4] == [
        "| apple &#124; Apple | 10 | 30.0000 | phone; screen | 6 | 5 |",
        "| apple &#124; Apple | 10 | 30.0000 | pie | 4 | 3 |",
    ]
    assert len(lines) == 2 + AMBIGUOUS


def test_without_ambiguous_labels_the_table_is_its_header(tmp_path):
    (tmp_path / "ambiguous_labels.csv").write_text(ambiguous_csv([]), encoding="utf-8")
    assert len(ambiguous_table(tmp_path).splitlines()) == 2
