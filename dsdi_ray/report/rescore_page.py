"""The page of a rescoring: what was done, and which clips rose or fell since the last run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dsdi_ray.method.run_changes import ClipMove, FeatureChanges
from dsdi_ray.report.page import PageSection, PageTable, write_page
from dsdi_ray.storage.manifest_changes import ManifestChanges

_MAX_CLIPS_LISTED = 200
_MAX_MOVES_PER_FEATURE = 6
_BEST_PER_FEATURE = 5


@dataclass(frozen=True, kw_only=True)
class Rescoring:
    """What a rescoring came to.

    Attributes:
        name: The new run's name.
        compared_with: The last run's name, None for a first run.
        how: How frames became clips, in a sentence.
        facts: What was done, a name and a number each.
        members: The ensemble's members by id: (name, weight now, weight before), None where a
            member is not in that ensemble.
        clips: Clips that came, changed and went since the last run.
        failed: Clips without a frame by reason.
        unranked: Clips that are not ranked by reason.
        run: The new run.
        changes: Per feature; in a first run all clips are new.
        top_k: Clips per feature that count as the top.
    """

    name: str
    compared_with: str | None
    how: str
    facts: Mapping[str, float]
    members: Mapping[str, tuple[str, float | None, float | None]]
    clips: ManifestChanges
    failed: Mapping[str, int]
    unranked: Mapping[str, int]
    run: pa.Table
    changes: Mapping[int, FeatureChanges]
    top_k: int

    @property
    def feature_names(self) -> dict[int, str]:
        """Names of the run's features by number."""
        pairs = self.run.select(["feature_id", "feature"]).group_by(["feature_id", "feature"])
        rows = pairs.aggregate([]).to_pylist()
        return {row["feature_id"]: row["feature"] or str(row["feature_id"]) for row in rows}


def newly_on_top(
    run: pa.Table, changes: Mapping[int, FeatureChanges], *, num_clips: int
) -> pa.Table:
    """Rows of a run whose clips entered the top of their feature, so many of each at most."""
    keys = {
        (feature_id, move.clip_id)
        for feature_id, change in changes.items()
        for move in change.entered[:num_clips]
    }
    rows = zip(run["feature_id"].to_pylist(), run["clip_id"].to_pylist(), strict=True)
    return run.filter(pa.array([row in keys for row in rows], pa.bool_()))


def write_rescore_page(path: Path, rescoring: Rescoring, *, sheet: Path | None) -> Path:
    """Write the page of a rescoring.

    Args:
        path: HTML file to write.
        rescoring: What it came to.
        sheet: Contact sheet of the clips that are new on top, of the best ones for a first run.

    Returns:
        The path.
    """
    last = rescoring.compared_with
    lead = f"Run {rescoring.name}, " + (f"compared with run {last}." if last else "the first one.")
    if last is None:
        results = [_best(rescoring)]
    else:
        results = [_entered(rescoring), _moved(rescoring), _left(rescoring), _footage(rescoring)]
    sections = [_done(rescoring), *_pictures(rescoring, sheet), *results]
    return write_page(path, title="Rescored archive", lead=lead, sections=sections)


def _done(rescoring: Rescoring) -> PageSection:
    members = [
        [name, member_id, *weights] for member_id, (name, *weights) in rescoring.members.items()
    ]
    facts = list(rescoring.facts.items())
    tables = [
        PageTable(caption="This rescoring", columns=["what", "how many"], rows=facts),
        PageTable(
            caption="Members of the ensemble",
            columns=["member", "id", "weight", "weight before"],
            rows=members,
        ),
    ]
    for caption, reasons in (
        ("Clips that failed", rescoring.failed),
        ("Clips that are not ranked", rescoring.unranked),
    ):
        if reasons:
            rows = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            tables.append(PageTable(caption=caption, columns=["reason", "clips"], rows=rows))
    return PageSection(title="What was done", text=rescoring.how, tables=tables)


def _pictures(rescoring: Rescoring, sheet: Path | None) -> Iterator[PageSection]:
    if sheet is None:
        return
    title = f"Pictures: new in the top {rescoring.top_k}"
    if rescoring.compared_with is None:
        title = "Pictures: best clips"
    text = "Each clip at the moment when its score is highest, with its rank."
    yield PageSection(title=title, text=text, figures=[sheet])


def _footage(rescoring: Rescoring) -> PageSection:
    rows = list(rescoring.clips.footage.items())
    text = "Clips that came, changed or went since the last run."
    if len(rows) > _MAX_CLIPS_LISTED:
        text += f" The first {_MAX_CLIPS_LISTED} of {len(rows)} are listed."
    table = PageTable(
        caption=_counted(len(rows), "clip"),
        columns=["clip", "footage"],
        rows=rows[:_MAX_CLIPS_LISTED],
    )
    return PageSection(title="Footage", text=text, tables=[table])


def _best(rescoring: Rescoring) -> PageSection:
    run = rescoring.run
    top = run.filter(pc.less_equal(run["rank"], _BEST_PER_FEATURE)).to_pylist()
    names = rescoring.feature_names
    table = PageTable(
        caption=f"The best {_BEST_PER_FEATURE} clips of each feature",
        columns=["feature", "rank", "clip", "score"],
        rows=[[names[r["feature_id"]], r["rank"], r["clip_id"], r["score"]] for r in top],
    )
    text = "There is no earlier run to compare with; the next rescoring is compared with this one."
    return PageSection(title="Best clips", text=text, tables=[table])


def _entered(rescoring: Rescoring) -> PageSection:
    footage = rescoring.clips.footage
    rows = [
        [
            feature, move.clip_id, footage.get(move.clip_id, "known"), move.rank_after,
            move.rank_before, move.score_after, move.score_before,
        ]
        for feature, move in _first_moves(rescoring, lambda change: change.entered)
    ]  # fmt: skip
    num_entered = sum(len(change.entered) for change in rescoring.changes.values())
    table = PageTable(
        caption=f"{num_entered} times a clip entered the top {rescoring.top_k} of a feature",
        columns=["feature", "clip", "footage", "rank", "rank before", "score", "score before"],
        rows=rows,
    )
    text = "No rank before: the run before does not list the clip." + _limited(rescoring)
    title = f"New in the top {rescoring.top_k}"
    return PageSection(title=title, text=text, tables=[table])


def _moved(rescoring: Rescoring) -> PageSection:
    names = rescoring.feature_names
    summary = [
        [
            names.get(feature_id, str(feature_id)), len(change.entered), len(change.left),
            len(change.risen), len(change.fallen), change.overlap, change.kendall_tau,
        ]
        for feature_id, change in rescoring.changes.items()
    ]  # fmt: skip
    tables = [
        PageTable(
            caption=f"Top {rescoring.top_k} of each feature",
            columns=["feature", "entered", "left", "rose", "fell", "overlap", "Kendall's tau"],
            rows=summary,
        ),
        _moves_table(rescoring, "Rose", lambda change: change.risen),
        _moves_table(rescoring, "Fell", lambda change: change.fallen),
    ]
    text = (
        "Places are counted among the clips that both runs list, so that footage that arrived or "
        "went moves no other clip. Overlap is the share of the top that stayed; Kendall's tau is 1 "
        "where the clips that were or are on top kept their order, -1 where it was reversed."
    )
    return PageSection(title="Rose and fell", text=text + _limited(rescoring), tables=tables)


def _moves_table(
    rescoring: Rescoring, caption: str, moves_of: Callable[[FeatureChanges], Sequence[ClipMove]]
) -> PageTable:
    rows = [
        [
            feature, move.clip_id, move.places_risen, move.rank_before, move.rank_after,
            move.score_before, move.score_after,
        ]
        for feature, move in _first_moves(rescoring, moves_of)
    ]  # fmt: skip
    columns = [
        "feature", "clip", "places", "rank before", "rank", "score before", "score",
    ]  # fmt: skip
    return PageTable(caption=caption, columns=columns, rows=rows)


def _left(rescoring: Rescoring) -> PageSection:
    footage = rescoring.clips.footage
    rows = [
        [
            feature,
            move.clip_id,
            footage.get(move.clip_id, "known"),
            move.rank_before,
            move.rank_after,
        ]
        for feature, move in _first_moves(rescoring, lambda change: change.left)
    ]
    table = PageTable(
        caption=f"No longer in the top {rescoring.top_k}",
        columns=["feature", "clip", "footage", "rank before", "rank"],
        rows=rows,
    )
    return PageSection(title="Left the top", text=_limited(rescoring).strip(), tables=[table])


def _first_moves(
    rescoring: Rescoring, moves_of: Callable[[FeatureChanges], Sequence[ClipMove]]
) -> Iterator[tuple[str, ClipMove]]:
    names = rescoring.feature_names
    for feature_id, change in rescoring.changes.items():
        for move in moves_of(change)[:_MAX_MOVES_PER_FEATURE]:
            yield names.get(feature_id, str(feature_id)), move


def _limited(rescoring: Rescoring) -> str:
    longest = max(
        (
            len(moves)
            for change in rescoring.changes.values()
            for moves in (change.entered, change.left, change.risen, change.fallen)
        ),
        default=0,
    )
    if longest <= _MAX_MOVES_PER_FEATURE:
        return ""
    return f" At most {_MAX_MOVES_PER_FEATURE} clips are listed per feature."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
