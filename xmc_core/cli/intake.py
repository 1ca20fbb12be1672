"""Taking a user's files in: checked first, then put in place, all or nothing."""

import shutil
from pathlib import Path

from xmc_core.cli.params_file import add_dataset, check_name, has_dataset
from xmc_core.config import load_config
from xmc_core.data import Dataset
from xmc_core.data.raw import PACKED, RawFiles, read_raw
from xmc_core.errors import ConfigError
from xmc_core.persistence.atomic import fresh_folder, write_text
from xmc_core.reporting import SILENT, Reporter

KEPT = "README.md"
"""What people noted beside the files stays when the files are replaced."""


def take_in(
    name: str,
    files: RawFiles,
    *,
    data: Path,
    params: Path,
    preset: str | None = None,
    replace: bool = False,
    report: Reporter = SILENT,
) -> Dataset:
    """Check the files, copy them to data/raw/<name>/ and list <name> in params.yaml.

    Settings that `name` already has stay as they are.

    Raises
    ------
    ConfigError
        If the name or preset cannot be, or the data set exists and `replace` is not set.
    DataError
        If the files break a rule. In either case nothing has changed.
    """
    check_name(name)
    text = _read(params)
    folder = data / "raw" / name
    known = has_dataset(text, name)
    if (known or folder.exists()) and not replace:
        raise ConfigError(
            f"the data set {name!r} exists already; --replace puts these files there."
        )
    if known and preset is not None:
        raise ConfigError(
            f"{name!r} has settings already; leave out --preset, and change settings.{name} "
            f"in {params} if you want others."
        )
    extended = text if known else add_dataset(text, name, preset or "linear")
    config = (
        load_config(params, dataset=name)
        if known
        else load_config(params, preset=preset or "linear")
    )
    dataset = read_raw(files, config.dataset, report=report)

    try:
        with fresh_folder(folder) as fresh:
            for file, kept_as in (
                (files.train, "train.jsonl"),
                (files.test, "test.jsonl"),
                (files.labels, "labels.txt"),
            ):
                if file is not None:
                    packed = file.suffix if file.suffix in PACKED else ""
                    shutil.copyfile(file, fresh / f"{kept_as}{packed}")
            if (folder / KEPT).is_file():
                shutil.copyfile(folder / KEPT, fresh / KEPT)
            if extended != text:
                write_text(params, extended)
    except BaseException:
        if _read(params) != text:
            write_text(params, text)
        raise
    return dataset


def _read(params: Path) -> str:
    if not params.is_file():
        raise ConfigError(f"there is no {params} here; run xmc from the project's folder.")
    return params.read_text(encoding="utf-8")
