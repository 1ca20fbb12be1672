"""What must hold before anything expensive builds on a stage's files."""

from orchestration.checks.data import no_test_text_in_train, rows_and_labels_are_sound
from orchestration.checks.features import rows_are_finite_and_of_unit_length
from orchestration.checks.predictions import predictions_are_sound
from orchestration.checks.report import final_model_is_not_below_the_baseline
from orchestration.checks.trees import every_label_has_a_leaf

CHECKS = [
    rows_and_labels_are_sound,
    no_test_text_in_train,
    rows_are_finite_and_of_unit_length,
    *every_label_has_a_leaf,
    *predictions_are_sound,
    final_model_is_not_below_the_baseline,
]
