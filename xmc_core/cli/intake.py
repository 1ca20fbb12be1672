"""Taking a user's files in: checked first, then put in place, all or nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path

from xmc_core.cli.params_file import add_dataset, check_name, has_dataset, others_wait, read_text
from xmc_core.config import load_config, read_params
from xmc_core.data import Dataset
from xmc_core.data.raw import PACKED, RawFiles, read_raw
from xmc_core.errors import ConfigError
from xmc_core.persistence.atomic import fresh_folder, write_text
from xmc_core.reporting import SILENT, Reporter

RAW = ("train.jsonl", "test.jsonl", "labels.txt")
"""Names of a data set's raw files, packed or not."""


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
        If the name or preset cannot be, the data set exists and `replace` is not set, or it has a
        raw file that is not given anew.
    DataError
        If the files break a rule. In either case nothing has changed.
    """
    check_name(name)
    if not params.is_file():
        raise ConfigError(f"there is no {params} here; run xmc from the project's folder.")
    folder = data / "raw" / name

    def with_dataset(text: str) -> str:
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
        return add_dataset(text, name, preset or "linear")

    for raw, option, file in zip(
        RAW[1:], ("test", "label-names"), (files.test, files.labels), strict=True
    ):
        there = [own for packed in PACKED if (own := folder / f"{raw}{packed}").exists()]
        if replace and there and file is None:
            raise ConfigError(
                f"{there[0]} is there and --replace would leave it out; give it with --{option}, "
                "or move it away first."
            )
    with_dataset(read_text(params))
    if name in (read_params(params)[0].get("settings") or {}):
        config = load_config(params, dataset=name)
    else:
        config = load_config(params, preset=preset or "linear")
    if config.dataset.source != "files":
        raise ConfigError(
            f"{name!r} is read from {config.dataset.source} (settings.{name}.dataset.source in "
            f"{params}), so files of its own would never be; choose another name."
        )
    dataset = read_raw(files, config.dataset, report=report)
    with others_wait(params):
        _put_in_place(files, folder, params, with_dataset)
    return dataset


def _put_in_place(
    files: RawFiles, folder: Path, params: Path, with_dataset: Callable[[str], str]
) -> None:
    """The files and the name in params.yaml, or neither."""
    before = written = ""
    try:
        with fresh_folder(folder) as fresh:
            own = {f"{name}{packed}" for name in RAW for packed in PACKED}
            for other in folder.iterdir() if folder.is_dir() else ():
                if other.name not in own:  # a note, a script that fetches the data
                    (shutil.copytree if other.is_dir() else shutil.copy2)(other, fresh / other.name)
            for name, file in zip(RAW, (files.train, files.test, files.labels), strict=True):
                if file is not None:
                    packed = file.suffix if file.suffix in PACKED else ""
                    shutil.copyfile(file, fresh / f"{name}{packed}")
            # Read anew: checking and copying takes minutes, in which people go on editing.
            before = read_text(params)
            written = with_dataset(before)
            if written != before:
                write_text(params, written)
    except BaseException:
        if written != before and params.read_bytes() == written.encode():
            write_text(params, before)
        raise
