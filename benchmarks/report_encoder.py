"""The encoder's part of docs/benchmarks.md."""

from collections.abc import Callable, Iterable
from statistics import fmean, median, stdev

from cells import Row, percent, span, spread
from journal import METRICS

PAIR_TEXT = """\
all-MiniLM-L6-v2, CPU, one thread, both sides in turn: level by level over 16, 256 and all labels
with 65, 85 and 130 steps of 32 documents at 64 tokens, learning rate 1e-4. libpecos does all else
as it ships for EUR-Lex-4K, ours as the preset `linear` with what `xmc tune` chose on tf-idf of the
training rows (benchmarks/encoder.py has the settings); ours prepares a level on the documents of
its steps alone (`rows_per_node` 0) and leaves the lowest of the six layers as pretrained
(`frozen_layers` 1), which libpecos does not do, nor the ladder below on this set. Both grow a tree
of their own on the tf-idf rows and another one on [tf-idf, embedding]. Training is everything from
matrices and texts to the model; its parts are told as far as they can be separated, and what
libpecos predicts of training rows counts as encoding. libpecos computes in fp32 alone; `auto` is
what the processor does best. Every result in results/encoder-pair.json carries its commit: with
--resume or --again, sides may be of different ones, and then were not in turn. CPU seconds, user
and system, of the whole process: median (smallest – largest) of the runs."""

LADDER_TEXT = """\
What each rung adds, preset `linear` (on eurlex-titles and python-api with tuned rankers), one
thread; mean ± standard deviation over the seeds, which move the tree, the batches and the head.
CPU seconds from matrices and texts to the model, and of the answers to all test rows. On
gutenberg-lcsh and python-api steps take 128 documents, and documents that share a label are drawn
together besides (`contrastive` .3); on python-api levels are prepared on the documents of their
steps alone. Encoders see 64 tokens of a text, of python-api's 128. All schedules stand at the top
of benchmarks/encoder.py."""

LEAF_TEXT = """\
XR-Transformer (16, then 256 clusters, 280 steps) beside X-Transformer (256 clusters at once, 900
steps), same encoder, one thread, `auto` precision. Heads start from linear classifiers and, of the
predecessor, at random. P@1: of the 256 clusters, on 1,000 training documents held out, looked at
every 10 or 30 steps; level by level, among the clusters whose parents the rankers on [tf-idf,
embedding] reach, as in training. CPU seconds of the encoder, all preparation included and the looks
taken off, until it first has the P@1 that both reach. The final rankers are asked about another
tenth of the training rows."""

ABLATION_TEXT = """\
The rung `fine-tuned` of eurlex-titles (16, 256 and all labels, 65, 85 and 130 steps), one part left
out or done otherwise. The last three are other final models on the embeddings of the first
line. Difference to `as it is`, seed by seed: mean ± standard deviation."""

GPU_TEXT = """\
bf16. Peak: what a product of two matrices of 8192 x 8192 reaches in the same run. Share of it: the
products of the transformer's layers that the tokens need (padding not counted; three times as many
in training). Steps include the head, the optimiser and the choice of candidates. Hours: 3 levels of
10,000 steps of 256 documents at the measured step time, without encoding and linear models between
levels."""


def pair_section(rows: list[Row]) -> Iterable[str]:
    if not rows:
        return
    yield from ("", "## XR-Transformer beside libpecos 1.2.8, eurlex-titles", "", PAIR_TEXT)
    for how in ("fine-tuned", "frozen"):
        sides = {
            "libpecos": of(rows, "libpecos", how),
            "xmc, fp32": of(rows, "xmc", f"{how}, fp32"),
            "xmc, auto": of(rows, "xmc", f"{how}, auto"),
        }
        if not any(sides.values()):
            continue
        yield from ("", f"### {how}", "")
        yield f"| | {' | '.join(sides)} | libpecos / fp32 | libpecos / auto |"
        yield "|---|---|---|---|---|---|"
        for title, value in pair_figures(rows, how):
            values = [[value(row) for row in side] for side in sides.values()]
            cells = [span(found) if found else "" for found in values]
            cells += [ratios(values[0], mine) for mine in values[1:]]
            yield f"| {title} | {' | '.join(cells)} |"
        for names in (METRICS[:3], METRICS[3:]):
            cells = [percent(side[0], names) if side else "" for side in sides.values()]
            yield f"| {' / '.join(names)} | {' | '.join(cells)} | | |"


def pair_figures(rows: list[Row], how: str) -> Iterable[tuple[str, Callable[[Row], float]]]:
    yield "training, CPU s", lambda row: row["cpu"]
    mine = [row for row in rows if row["settings"].startswith(how)]
    for part in dict.fromkeys(part for row in mine for part in row["parts"] if part != "other"):
        yield f"of it {part}", lambda row, part=part: row["parts"].get(part, 0.0)
    yield "of it other", lambda row: row["parts"]["other"]
    yield "all test rows, CPU s", lambda row: row["predict_cpu"]
    yield "of it encoding", lambda row: row["predict_parts"].get("encoding", 0.0)
    yield "peak memory of training, MB", lambda row: row["peak_mb"]


def ratios(theirs: list[float], ours: list[float]) -> str:
    """Run by run; empty where a side has none."""
    both = [a / b for a, b in zip(theirs, ours, strict=False) if b > 0]
    return span(both) if both else ""


def of(rows: list[Row], side: str, settings: str) -> list[Row]:
    found = [row for row in rows if (row["side"], row["settings"]) == (side, settings)]
    return sorted(found, key=lambda row: row["pair"])


def ladder_section(rows: list[Row]) -> Iterable[str]:
    if not rows:
        return
    yield from ("", "## What an encoder adds to tf-idf", "", LADDER_TEXT)
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        rungs = dict.fromkeys(row["settings"] for row in mine)
        n_seeds = len({row["pair"] for row in mine})
        yield from ("", f"### {name}, {n_seeds} seed{'s' if n_seeds > 1 else ''}", "")
        yield "| rung | P@1 / 3 / 5 | PSP@1 / 3 / 5 | train CPU s | test CPU s |"
        yield "|---|---|---|---|---|"
        for rung in rungs:
            runs = of(mine, "xmc", rung)
            cpu = (median(row[field] for row in runs) for field in ("cpu", "predict_cpu"))
            cells = [spread(runs, METRICS[:3]), spread(runs, METRICS[3:])]
            yield f"| {rung} | {' | '.join([*cells, *(f'{x:,.1f}' for x in cpu)])} |"


def leaf_section(rows: list[Row]) -> Iterable[str]:
    if not rows:
        return
    yield from ("", "## XR-Transformer beside X-Transformer, eurlex-titles", "", LEAF_TEXT, "")
    yield "| | encoder CPU s in all | best P@1 | CPU s to the P@1 of both | final rankers' P@1 |"
    yield "|---|---|---|---|---|"
    best = {row["settings"]: max(point["P@1"] for point in row["points"]) for row in rows}
    goal = min(best.values())
    reached: dict[str, float] = {}
    for row in rows:
        name = row["settings"]
        reached[name] = next(point["cpu"] for point in row["points"] if point["P@1"] >= goal)
        cells = f"{best[name]:.2f} | {reached[name]:,.0f} | {row['P@1']:.2f}"
        yield f"| {name} | {row['cpu']:,.0f} | {cells} |"
    if len(rows) > 1:
        ratio = reached["leaves alone"] / reached["level by level"]
        yield ""
        yield f"P@1 {goal:.2f}: leaves alone take {ratio:.2f} times the CPU seconds."


def ablation_section(rows: list[Row]) -> Iterable[str]:
    if not rows:
        return
    first = rows[0]["settings"]
    base = next(iter(rows[0]["finals"]))
    # Only what every seed has.
    seeds = min(len(of(rows, "xmc", name)) for name in {row["settings"] for row in rows})
    runs: dict[str, list[Row]] = {}
    for name in dict.fromkeys(row["settings"] for row in rows):
        runs[name] = [row["finals"][base] for row in of(rows, "xmc", name)[:seeds]]
    for name in list(rows[0]["finals"])[1:]:
        runs[name] = [row["finals"][name] for row in of(rows, "xmc", first)[:seeds]]
    yield from ("", "## What the parts of the fine-tuning give, eurlex-titles", "", ABLATION_TEXT)
    yield from ("", f"{seeds} seed{'s' if seeds > 1 else ''}.", "")
    yield f"| | P@1 / 3 / 5 | PSP@5 | {' | '.join((*METRICS[:3], METRICS[5]))} |"
    yield "|---|---|---|---|---|---|---|"
    for name, mine in runs.items():
        cells = [" / ".join(f"{fmean(run[metric] for run in mine):.2f}" for metric in METRICS[:3])]
        cells.append(f"{fmean(run[METRICS[5]] for run in mine):.2f}")
        for metric in (*METRICS[:3], METRICS[5]):
            apart = [a[metric] - b[metric] for a, b in zip(mine, runs[first], strict=True)]
            deviation = f" ± {stdev(apart):.2f}" if seeds > 1 else ""
            cells.append("" if name == first else f"{fmean(apart):+.2f}{deviation}")
        yield f"| {name} | {' | '.join(cells)} |"


def gpu_section(rows: list[Row]) -> Iterable[str]:
    yield from ("", "## The encoder on a GPU", "", GPU_TEXT, "")
    if not rows:
        yield "Not measured yet: the machines of the runs above had no GPU (`--tasks gpu`)."
        return
    yield (
        "| set, model | device | peak TFLOP/s | encoding, tokens/s | of peak | "
        "fine-tuning, tokens/s | of peak | s a step, by nodes | Amazon-3M, hours | GPU MB |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        steps = zip(row["nodes"], row["step_s"].values(), strict=True)
        cells = [
            f"{row['set']}, {row['settings']}",
            row["device"],
            f"{row['peak_tflops']:.0f}",
            f"{row['encoding_tokens_s']:,.0f}",
            f"{100 * row['encoding_share']:.0f} %",
            f"{row['training_tokens_s']:,.0f}",
            f"{100 * row['training_share']:.0f} %",
            ", ".join(f"{n:,}: {s:.3f}" for n, s in steps),
            f"{row['amazon_hours']:.1f}" if "amazon_hours" in row else "",
            f"{row['gpu_mb']:,.0f}" if row["gpu_mb"] else "",
        ]
        yield f"| {' | '.join(cells)} |"


SECTIONS: dict[str, Callable[[list[Row]], Iterable[str]]] = {
    "encoder-pair": pair_section,
    "encoder-ladder": ladder_section,
    "encoder-leaf": leaf_section,
    "encoder-ablation": ablation_section,
    "encoder-gpu": gpu_section,
}
