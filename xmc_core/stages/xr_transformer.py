"""Stage: the encoder, fine-tuned along the tree, and the embeddings of all texts.

With `encoder.devices` above 1 the work is done by that many processes of this module, started by
torchrun; the stage itself waits for them. An ensemble's members are fine-tuned one after the other;
each has the files of a single model, in members/0/, 1/ ...
"""

import csv
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xmc_core.config import Config, config_from_mapping, to_mapping
from xmc_core.errors import ConfigError, EncoderError, XmcError
from xmc_core.models.pipeline import member_folders
from xmc_core.persistence import read_store, write_store
from xmc_core.persistence.atomic import write_text
from xmc_core.persistence.locks import locked
from xmc_core.reporting import SILENT, MemberReporter, Reporter, StageReporter
from xmc_core.stages.inputs import Inputs
from xmc_core.stages.paths import ProjectPaths
from xmc_core.tree import LabelTree

if TYPE_CHECKING:
    from xmc_core.encoder.distributed import World
    from xmc_core.encoder.finetune import CurvePoint, Look

STAGE = "xr_transformer"
CURVES = "curves.csv"
JOB, FAILED = "job.json", "failed.txt"


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Fine-tune level by level and encode train and test; `encoder: none` gives zero columns."""
    members, scratch = config.members, inputs.paths.scratch(STAGE)
    for own in members:
        check_devices(own)
    folders = member_folders(out, len(members))
    if len(members) == 1:
        run_member(inputs, config, out, scratch, None, report)
    else:
        check_members(members, inputs.disentangled_tree)
        for number, own in enumerate(members):
            kept = member_folders(scratch, len(members))[number]
            report.message(f"member {number + 1} of {len(members)}: {own.encoder.name}")
            run_member(inputs, own, folders[number], kept, number + 1, report)
        write_store(out, "members", facts={"members": len(members)})
        join_curves([folder / CURVES for folder in folders], out / CURVES)
        report.metrics(members=len(members))


def run_member(
    inputs: Inputs,
    config: Config,
    out: Path,
    scratch: Path,
    member: int | None,
    report: Reporter,
) -> None:
    """One model; `member` is its number in the ensemble, from 1, if it belongs to one."""
    if config.encoder.name == "none":
        rows = (len(inputs.dataset.train_texts), len(inputs.dataset.test_texts))
        train, test = (np.empty((n_rows, 0), np.float16) for n_rows in rows)
        write_store(out, "embeddings", arrays={"train": train, "test": test})
        write_curve(out / CURVES, (), ())
    elif config.encoder.devices > 1:
        _run_processes(inputs.paths, config, out, scratch, member)
    else:
        from xmc_core.encoder.distributed import ALONE  # loads torch

        told = _of_member(report, member)
        fine_tune_and_encode(inputs, config, out, scratch, ALONE, told)

    levels, steps = _course(out / CURVES)
    dimensions = read_store(out, "embeddings").arrays["train"].shape[1]
    _of_member(report, member).metrics(dimensions=dimensions, levels=levels, steps=steps)


def check_devices(config: Config) -> None:
    """Raises ConfigError if there are fewer GPUs than `encoder.devices` asks for."""
    wanted = config.encoder.devices
    if wanted == 1 or config.encoder.name == "none":
        return
    import torch

    there = torch.cuda.device_count()
    if 0 < there < wanted:
        raise ConfigError(
            f"encoder.devices is {wanted} but there are {there} GPUs here; lower it, or hide the "
            "GPUs (CUDA_VISIBLE_DEVICES=) to work on the CPU."
        )


def check_members(members: Sequence[Config], tree: LabelTree) -> None:
    """Find out now what would fail when a member's turn comes, hours later.

    Raises ConfigError or EncoderError, which names the member: no such encoder on this machine,
    or it does not fit its settings, or these the tree.
    """
    sound = set()
    for number, own in enumerate(members):
        settings = own.encoder
        if settings.name == "none":
            continue
        import torch

        from xmc_core.encoder.device import pick_device, resolve_dtype
        from xmc_core.encoder.model import TextEncoder
        from xmc_core.encoder.plan import plan_levels

        try:
            plan_levels(tree, settings)
            resolve_dtype(settings.precision, pick_device())
            what = (
                settings.name, settings.max_length, settings.pooling, settings.frozen_layers,
                settings.components, settings.gradient_checkpointing,
            )  # fmt: skip
            if what not in sound:
                TextEncoder.pretrained(settings, torch.device("cpu"))
        except XmcError as error:
            raise type(error)(f"ensemble.members[{number}]: {error}") from error
        sound.add(what)


def fine_tune_and_encode(
    inputs: Inputs, config: Config, out: Path, scratch: Path, world: "World", report: Reporter
) -> None:
    """What the stage is about, in one of the processes of `world`; the first one writes."""
    from xmc_core.encoder.device import pick_device
    from xmc_core.encoder.distributed import local_device
    from xmc_core.models.xr_transformer import fine_tune

    dataset = inputs.dataset

    def wait() -> None:
        report.message(f"waiting for another process that works in {scratch}")

    # A run that was killed may not have ended yet. The others wait for the first process.
    with locked(scratch / "lock", wait) if world.first else nullcontext():
        tuned = fine_tune(
            dataset.train_texts,
            inputs.X_train,
            inputs.Y_train,
            inputs.disentangled_tree,
            config,
            scratch=scratch,
            world=world,
            device=local_device(pick_device()),
            report=report,
        )
        tokens = tuned.encoder.tokenize(dataset.test_texts, report)
        test = tuned.encoder.embed(
            tokens, config.encoder, n_threads=config.n_threads, report=report, world=world
        )
        if world.first:
            tuned.encoder.save(out / "encoder")
            write_store(out, "embeddings", arrays={"train": tuned.embeddings, "test": test})
            write_curve(out / CURVES, tuned.curve, tuned.looks)
        world.wait()


def _of_member(report: Reporter, member: int | None) -> Reporter:
    return report if member is None else MemberReporter(report, member)


def _run_processes(
    paths: ProjectPaths, config: Config, out: Path, scratch: Path, member: int | None
) -> None:
    from xmc_core.encoder.distributed import torchrun

    scratch.mkdir(parents=True, exist_ok=True)
    job = {
        "data": str(paths.data.resolve()),
        "dataset": paths.dataset,
        "preset": paths.preset,
        "out": str(out.resolve()),
        "scratch": str(scratch.resolve()),
        "config": to_mapping(config),
        "member": member,
    }
    write_text(scratch / JOB, json.dumps(job))
    failed = scratch / FAILED
    failed.unlink(missing_ok=True)
    try:
        torchrun(__name__, [str((scratch / JOB).resolve())], config.encoder.devices)
    except EncoderError:
        if failed.exists():
            raise EncoderError(failed.read_text(encoding="utf-8")) from None
        raise


def work(job_file: Path) -> None:
    """One of several processes: join the others, do the work; the first one reports."""
    from xmc_core.encoder.device import pick_device
    from xmc_core.encoder.distributed import joined

    job = json.loads(job_file.read_text(encoding="utf-8"))
    paths = ProjectPaths(Path(job["data"]), job["dataset"], job["preset"])
    config = config_from_mapping(job["config"], str(job_file))
    with joined(pick_device()) as world:
        teller = StageReporter(STAGE, paths.dataset) if world.first else SILENT
        report = _of_member(teller, job["member"])
        try:
            fine_tune_and_encode(
                Inputs(paths), config, Path(job["out"]), Path(job["scratch"]), world, report
            )
        except XmcError as error:
            write_text(job_file.with_name(FAILED), str(error))
            raise


def write_curve(file: Path, curve: Sequence["CurvePoint"], looks: Sequence["Look"]) -> None:
    """One row a point; only the header for a frozen encoder or none. Where documents were held out,
    what they said stands at the step at which they were asked."""
    said = {look.step: f"{look.precision[0]:.6g}" for look in looks}
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["step", "level", "loss", "learning_rate", "validation_precision_at_1"])
        for point in curve:
            numbers = [f"{point.loss:.6g}", f"{point.learning_rate:.6g}"]
            writer.writerow([point.step, point.level, *numbers, said.get(point.step, "")])


def join_curves(files: Sequence[Path], out: Path) -> None:
    """The curves of an ensemble's members one after the other, with a column `member`; steps run
    on from one to the next."""
    with out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        before = 0
        for member, file in enumerate(files, start=1):
            with file.open(encoding="utf-8", newline="") as own:
                header, *rows = csv.reader(own)
            if member == 1:
                writer.writerow([*header, "member"])
            writer.writerows([before + int(step), *rest, member] for step, *rest in rows)
            before += _course(file)[1]


def _course(file: Path) -> tuple[int, int]:
    """How many levels were fine-tuned, and how many steps were taken."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return len({row["level"] for row in rows}), max((int(row["step"]) for row in rows), default=0)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
