"""What people start: selections of assets with a verb for a name.

Selections are objects, never strings. A step of its own process costs 7 to 9 seconds (spawn and
imports, 2 cores), so jobs run their steps in one process; the stages run in their own anyway.
"""

import dagster as dg

train_and_register = dg.define_asset_job(
    "train_and_register",
    selection=dg.AssetSelection.assets("champion").upstream(),
    description=(
        "From raw text to a champion in the registry. DVC skips the stages whose inputs have not "
        "changed; the challenger becomes champion only if it is not worse."
    ),
    executor_def=dg.in_process_executor,
)

evaluate = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets("evaluation").upstream(),
    description="Everything up to the report. Nothing is registered.",
    executor_def=dg.in_process_executor,
)
