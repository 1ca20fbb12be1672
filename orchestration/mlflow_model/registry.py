"""Model versions: how they are made, found and fetched.

One registered model per data set, `xmc-<dataset>`. A version carries the bundle, what it predicted
on the test split, and tags that lead back to where it came from.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import xmc_core
from xmc_core.config import Config
from xmc_core.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

CHALLENGER, CHAMPION, PREVIOUS, BEST = "challenger", "champion", "previous", "best"
"""Aliases: the newest candidate, the one to use, the way back, and the last that was truly better:
a champion that is "not worse" than the one before, night after night, could sink without limit."""

MD5 = "dvc.md5."
"""Tag of a stage's md5: `dvc.md5.rankers` says which bundle a version holds."""

STATUS = "validation_status"
"""Tag: what the gate made of a version, which it judges once."""

PENDING, PASSED, REFUSED, REPLACED = "pending", "passed", "refused", "replaced"
"""Values of the tag. A champion that the gate replaced may be judged again, should its settings
return; a version that passed and is not champion was taken back by hand."""

ABSENT = "RESOURCE_DOES_NOT_EXIST"
"""MLflow's code of an error: what was asked for is not there."""

ALWAYS_NEEDED = ("numpy", "scipy", "numba", "pyyaml")
NEEDED_BY_ENCODER = ("torch", "transformers", "safetensors")

DESCRIPTION = """\
Ranks the labels of `{dataset}` for a text: extreme multi-label classification by xmc.

```python
model = mlflow.pyfunc.load_model("models:/{name}@champion")
model.predict(["some text"], params={{"top_k": 5}})  # [{{"labels": [...], "scores": [...]}}]
```

Scores of a calibrated model are probabilities. `threshold` in params leaves out labels that score
less; `precision` chooses it so that this percentage of the labels is right. A text that is left
without labels has `none_of_these` true.

`mlflow models serve -m models:/{name}@champion --env-manager local` answers the same over HTTP.
Aliases: `champion` is the one to use, `challenger` the newest candidate, `previous` the way back,
`best` the last that was better than all before.
"""


def model_name(dataset: str) -> str:
    return f"xmc-{dataset}"


def all_versions(client: "MlflowClient", name: str) -> "list[ModelVersion]":
    """Of a model, oldest first; none if there is no such model yet."""
    found = client.search_model_versions(f"name = '{name}'", max_results=1000)
    return sorted(found, key=lambda version: int(version.version))


def find_version(client: "MlflowClient", name: str, md5: str) -> "ModelVersion | None":
    """The newest version that holds the bundle with this md5."""
    same = [v for v in all_versions(client, name) if v.tags.get(f"{MD5}rankers") == md5]
    return same[-1] if same else None


def aliased(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    """The version that an alias names; None if there is no such alias, or no such model yet."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        # Of a missing model the first, of a missing alias of an existing one the second.
        if error.error_code in (ABSENT, "INVALID_PARAMETER_VALUE"):
            return None
        raise


def register(
    client: "MlflowClient",
    run_id: str,
    *,
    dataset: str,
    config: Config,
    bundle: Path,
    predictions: Path,
    example: Sequence[str],
    tags: Mapping[str, str],
) -> "ModelVersion":
    """Log the bundle as a model of the run, see that it answers, and register it.

    Takes a few seconds and two copies of the bundle.
    """
    import mlflow
    import mlflow.pyfunc

    name = model_name(dataset)
    inference = config.inference
    params = {"top_k": inference.top_k, "beam_size": inference.beam_size}
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("model.py")),
            artifacts={"bundle": str(bundle), "predictions": str(predictions)},
            code_paths=[str(Path(xmc_core.__file__).parent)],
            signature=signature(params),
            input_example=(list(example), params),
            pip_requirements=requirements(with_encoder=needs_encoder(config)),
            tags=dict(tags),
        )
    # MLflow tries the example itself, but only warns when it fails. What cannot answer is not
    # registered.
    with TemporaryDirectory(prefix="xmc-logged-") as folder:  # from a server a copy is loaded
        model = mlflow.pyfunc.load_model(logged.model_uri, dst_path=folder)
        model.predict(list(example), params=params)
    _describe(client, name, dataset)
    made = mlflow.register_model(logged.model_uri, name, tags={**tags, STATUS: PENDING})
    return client.get_model_version(name, made.version)


def signature(params: Mapping[str, int]) -> "ModelSignature":
    """One unnamed column of strings: a list of texts fits it, and so does a data frame."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string)]),
        outputs=Schema(
            [
                ColSpec(Array(DataType.string), "labels"),
                ColSpec(Array(DataType.double), "scores"),
                ColSpec(DataType.boolean, "none_of_these"),
            ]
        ),
        params=ParamSchema(
            [
                *(ParamSpec(name, "long", value) for name, value in params.items()),
                ParamSpec("calibrated", "boolean", None),
                ParamSpec("threshold", "double", None),
                ParamSpec("precision", "double", None),
            ]
        ),
    )


def needs_encoder(config: Config) -> bool:
    """Whether any model of the bundle has a transformer."""
    return any(own.encoder.name != "none" for own in config.members)


def requirements(*, with_encoder: bool) -> list[str]:
    """Pins of what the bundle needs to answer: the versions that it was trained with."""
    names = ALWAYS_NEEDED + (NEEDED_BY_ENCODER if with_encoder else ())
    # A local build such as 2.13.0+cpu is in no index; the same release is.
    return [f"{name}=={installed_version(name).partition('+')[0]}" for name in names]


def fetch(name: str, version: str | int, artifact: str, into: Path) -> Path:
    """Copy of a version's `bundle` or `predictions` in a folder of the caller's, who removes it.

    Raises StoreError if its files are gone.
    """
    return _download(name, version, f"artifacts/{artifact}", into)


def fetch_code(name: str, version: str | int, into: Path) -> Path:
    """The same of the folder with the library that was registered with a version."""
    return _download(name, version, "code", into)


def _download(name: str, version: str | int, path: str, into: Path) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = f"models:/{name}/{version}"
    destination = str(into / str(version))
    try:
        return Path(mlflow.artifacts.download_artifacts(f"{uri}/{path}", dst_path=destination))
    except MlflowException as error:
        if error.error_code != ABSENT:  # a server that is away fails here again, and comes back
            folder, _, last = path.rpartition("/")
            there = mlflow.artifacts.list_artifacts(f"{uri}/{folder}" if folder else uri)
            if last in {Path(item.path).name for item in there}:
                raise
        raise StoreError(
            f"version {version} of {name} has no {path} in MLflow any more; restore its files, or "
            "delete the version"
        ) from error


def _describe(client: "MlflowClient", name: str, dataset: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name, {"dataset": dataset}, DESCRIPTION.format(dataset=dataset, name=name)
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
