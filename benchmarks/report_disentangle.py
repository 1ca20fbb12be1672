"""The part of docs/benchmarks.md about labels in several clusters."""

from collections.abc import Callable, Iterable
from statistics import fmean, median, stdev

from cells import Row, spread, verdict
from journal import METRICS

BEST = 2
"""Clusters of a label at which rounds and bounds are looked at, and that the goals are about."""

GROWN = "as grown"


def clusters_title(number: int) -> str:
    return f"λ {number}"


MOVED, CHOSEN = clusters_title(1), clusters_title(BEST)
JUDGED = {
    CHOSEN: f"{MOVED}, room of {CHOSEN}",
    f"{CHOSEN}, 3 rounds": f"{MOVED}, room of {CHOSEN}, 3 rounds",
}
"""By the goals: one round, and what the presets do. Beside each, what differs from it in the number
of clusters alone: the goals are set against one round of MOVED, with half the room."""

COSTS = {"train_cpu": 1.6, "predict_cpu": 1.2, "model_bytes": 1.3}
"""Goals, in times those of MOVED."""

BETTER = 14 / 18
"""Goal: share of the figures that are to be better."""

MISSES = 0.75
"""Goal: true labels that the beam misses, in those of the matcher's tree, GROWN; shown beside
MOVED, too, which is no matcher's tree any more."""

OWN_ROOM = f"{CHOSEN}, own room"
"""What parts meanings: judged by the goal for merged pairs."""

STUDY_TEXT = f"""\
Preset `linear` with a beam of 10 and `held_out` among the negatives, one thread; every variant
of a set and seed on the same grown tree and the same beams of rows held out, the seeds move the
tree. `{GROWN}`: no label moves; λ: at most so many clusters a label, so λ 1 lets labels move;
one round, `capacity` .2, `budget` .286, `popularity` .1, `min_gain` 4 unless stated. A leaf may
hold (1 + capacity) λ times the labels of an average one: with `room of {CHOSEN}` labels move only,
but leaves may be as large as there. An answer may cost (1 + budget) times the looks, from the root
down, that it takes where leaves are equal. `no bound`: neither capacity nor budget. Missed: true
labels of the test rows, of those that training knows, in no cluster of their row's beam. Clusters,
training, test rows: CPU seconds of reassigning (with several rounds, of the beams between them,
too), of training the final model, and of answering all test rows (best of three, python-api's of
fifteen). MB: of the saved model."""

MERGED_TEXT = """\
Random pairs of labels, made one label before the tree is grown. A label can be told apart by
clusters only if it has a place of its own, so each of a pair has: more than half of its training
rows, held out, look first in one cluster, those of the two below different nodes of level 1; and
20 rows of train and 5 of test are without the other. Trees of 32 clusters, as smaller ones
scatter the rows of one meaning; a row counts for the one cluster where it looks first. `own
room`: first clusters leave room for second ones. Each test row of one meaning goes to the
label's cluster that scores best in its beam of 10, or to none. Variation of information: bits
between the parts by meaning and by cluster, 0 where they are the same, mean over the pairs.
Pulled apart: more than half of each meaning's rows go to one cluster, and the two to different
ones; with λ 1 no pair can be. Apart before: pairs for which that holds at λ 1 while they are two
labels. Reached: rows that go to some cluster of the label. Others: labels with 40 training rows
or more that were not merged. Means ± standard deviation over the seeds."""

Difference = tuple[float, float]
"""Mean and standard deviation over the seeds; the second is 0 where there is one seed."""


def of(rows: list[Row], task: str) -> list[Row]:
    return sorted((row for row in rows if row["task"] == task), key=lambda row: row["pair"])


def by_set(rows: list[Row]) -> dict[str, list[Row]]:
    return {
        name: [row for row in rows if row["set"] == name]
        for name in dict.fromkeys(row["set"] for row in rows)
    }


def values(rows: list[Row], variant: str, field: str) -> list[float]:
    """One a seed."""
    return [row["variants"][variant][field] for row in rows]


def apart(rows: list[Row], variant: str, base: str, field: str) -> Difference:
    """Seed by seed: how much more a variant has than the base."""
    both = zip(values(rows, variant, field), values(rows, base, field), strict=True)
    differences = [a - b for a, b in both]
    return fmean(differences), stdev(differences) if len(differences) > 1 else 0.0


def ratio(rows: list[Row], variant: str, base: str, field: str) -> float:
    """Seed by seed, the median."""
    both = zip(values(rows, variant, field), values(rows, base, field), strict=True)
    return median(a / b if b else 1.0 for a, b in both)


def counted(rows: list[Row], variant: str, base: str) -> tuple[int, list[str], int]:
    """Figures of all sets: how many are better, which are worse beyond the spread, and how many
    there are."""
    better, worse, total = 0, [], 0
    for name, mine in by_set(rows).items():
        for field in METRICS:
            mean, deviation = apart(mine, variant, base, field)
            total += 1
            better += mean > 0
            if mean < 0 and -mean > deviation:
                worse.append(f"{field} on {name} ({mean:+.2f} ± {deviation:.2f})")
    return better, worse, total


def study_section(rows: list[Row]) -> Iterable[str]:
    if not rows:
        return
    variants = list(rows[0]["variants"])
    yield from ("", "## Labels in several clusters", "", STUDY_TEXT)
    for name, mine in by_set(rows).items():
        seeds = f"{len(mine)} seed{'s' if len(mine) > 1 else ''}"
        beams = fmean(row["beams_cpu"] for row in mine)
        yield from ("", f"### {name}, {seeds}", "")
        yield f"Means; beams of rows held out for the grown tree, shared: {beams:.2f} CPU s."
        yield ""
        yield (
            "| variant | P@1 / 3 / 5 | PSP@1 / 3 / 5 | missed, % | slots a label | labels in "
            "several, % | largest leaf | clusters | training | test rows | MB |"
        )
        yield f"|{'---|' * 11}"
        for variant in variants:
            yield mean_line(mine, variant)
        for base in (MOVED, GROWN):
            yield from ("", f"Difference to `{base}`, seed by seed, ± its deviation:", "")
            yield f"| variant | {' | '.join(METRICS)} | missed |"
            yield f"|{'---|' * 8}"
            for variant in variants:
                if variant != base:
                    yield difference_line(mine, variant, base)
    yield from summary(rows, variants)
    for picture in ("figures", "misses", "cost"):
        yield from ("", f"![{PICTURES[picture]}](images/disentangle-{picture}.svg)")


PICTURES = {
    "figures": "P@k and PSP@k against the clusters of a label",
    "misses": "True labels that the beam misses against the clusters of a label",
    "cost": "Training, prediction and size against the clusters of a label",
}


def mean_line(rows: list[Row], variant: str) -> str:
    def mean(field: str) -> float:
        return fmean(values(rows, variant, field))

    cells = [
        variant,
        " / ".join(f"{mean(name):.2f}" for name in METRICS[:3]),
        " / ".join(f"{mean(name):.2f}" for name in METRICS[3:]),
        f"{mean('missed'):.2f}",
        f"{mean('slots_per_label'):.3f}",
        f"{mean('several'):.1f}",
        f"{mean('largest_leaf'):,.0f}",
        *(f"{mean(name):.2f}" for name in ("clusters_cpu", "train_cpu")),
        f"{mean('predict_cpu'):.3f}",
        f"{mean('model_bytes') / 2**20:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def difference_line(rows: list[Row], variant: str, base: str) -> str:
    cells = [variant]
    for field in (*METRICS, "missed"):
        mean, deviation = apart(rows, variant, base, field)
        cells.append(f"{mean:+.2f}" + (f" ± {deviation:.2f}" if len(rows) > 1 else ""))
    return f"| {' | '.join(cells)} |"


def summary(rows: list[Row], variants: list[str]) -> Iterable[str]:
    """Every variant beside MOVED on all sets; what the goals come to."""
    sets = by_set(rows)
    fields = ("missed", *COSTS)
    yield from ("", f"### All sets, beside `{MOVED}`", "")
    yield f"In times those of `{MOVED}`, median over the seeds, in the order {', '.join(sets)}:"
    yield ""
    yield (
        "| variant | figures better | worse beyond the spread | missed | training | test rows | "
        "MB |"
    )
    yield f"|{'---|' * 7}"
    for variant in variants:
        if variant == MOVED:
            continue
        better, worse, total = counted(rows, variant, MOVED)
        times = [
            ", ".join(f"{ratio(mine, variant, MOVED, field):.2f}" for mine in sets.values())
            for field in fields
        ]
        yield f"| {variant} | {better} of {total} | {len(worse)} | {' | '.join(times)} |"
    for variant, alike in JUDGED.items():
        if variant in variants:
            yield from goals(rows, variant)
        if {variant, alike} <= set(variants):
            better, worse, total = counted(rows, variant, alike)
            missed = (f"{ratio(mine, variant, alike, 'missed'):.2f}" for mine in sets.values())
            yield (
                f"Beside `{alike}`, as many rounds and as much room, `{variant}` is better on "
                f"{better} of {total}, worse beyond the spread on {len(worse)}; missed "
                f"{', '.join(missed)} times."
            )


def goals(rows: list[Row], variant: str) -> Iterable[str]:
    better, worse, total = counted(rows, variant, MOVED)
    least = round(BETTER * total)

    def most(field: str, base: str = MOVED) -> float:
        return max(ratio(mine, variant, base, field) for mine in by_set(rows).values())

    titles = ("training", "test rows", "model")
    told = [
        verdict(better >= least, f"better on {better} of {total}, at least {least}"),
        verdict(not worse, f"worse beyond the spread on {len(worse)}, on none"),
        verdict(
            most("missed", GROWN) <= MISSES,
            f"missed {most('missed', GROWN):.2f} times `{GROWN}` ({most('missed'):.2f} times "
            f"`{MOVED}`), at most {MISSES}",
        ),
        *(
            verdict(most(field) <= goal, f"{title} {most(field):.2f} times, at most {goal}")
            for (field, goal), title in zip(COSTS.items(), titles, strict=True)
        ),
    ]
    yield from ("", f"Goals of `{variant}` beside `{MOVED}`, on the worst set: {'; '.join(told)}.")
    if worse:
        yield f"Worse: {', '.join(worse)}."


def merged_section(rows: list[Row]) -> Iterable[str]:
    if not rows:
        return
    yield from ("", "## Two meanings in one label", "", MERGED_TEXT)
    fields = ("variation", "pulled_apart", "reached", "merged_in_several", "others_in_several")
    for name, mine in by_set(rows).items():
        pairs = ", ".join(str(row["pairs"]) for row in mine)
        asked, one, before, with_place = (
            fmean(row[field] for row in mine)
            for field in ("meaning_rows", "in_one_group", "apart_before", "with_place")
        )
        yield from ("", f"### {name}, {pairs} pairs")
        yield ""
        yield (
            f"{with_place:.0f} % of the labels with so many rows have a place; {asked:,.0f} test "
            f"rows a seed; all rows of a label in one group: {one:.2f} bits; {before:.0f} % of the "
            "pairs are apart before."
        )
        yield ""
        yield (
            "| variant | variation of information | pairs pulled apart, % | "
            "rows reached, % | merged labels in several, % | others in several, % |"
        )
        yield f"|{'---|' * 6}"
        for variant in mine[0]["variants"]:
            found = [row["variants"][variant] for row in mine]
            yield f"| {variant} | {' | '.join(spread(found, (field,)) for field in fields)} |"
        pulled = {v: fmean(values(mine, v, "pulled_apart")) for v in (MOVED, OWN_ROOM)}
        told = (
            verdict(pulled[OWN_ROOM] > 50, f"`{OWN_ROOM}` pulls most pairs apart"),
            verdict(pulled[MOVED] == 0, f"`{MOVED}` none"),
        )
        yield from ("", f"Goals: {'; '.join(told)}.")


def section(rows: list[Row]) -> Iterable[str]:
    yield from study_section(of(rows, "study"))
    yield from merged_section(of(rows, "merged"))


SECTIONS: dict[str, Callable[[list[Row]], Iterable[str]]] = {"disentangle": section}
