"""A partition is a data set: the names under `datasets:` in params.yaml, as in DVC's matrix."""

import sys

import dagster as dg

from orchestration.dvc_project import DvcProject
from xmc_core.errors import ConfigError

project = DvcProject.here()

try:
    datasets = dg.StaticPartitionsDefinition(project.datasets())
except ConfigError as error:
    # Still an exception, so that Dagster shows it where it loads this; but the user can mend it,
    # and where in the code it comes from would only hide what it says.
    sys.tracebacklimit = 0
    raise ConfigError(" ".join(str(error).split())) from None
