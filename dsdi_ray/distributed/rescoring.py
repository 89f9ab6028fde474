"""A rescoring: how an archive's new run differs from the last one, written beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from dsdi_ray.distributed.contact_sheet import write_contact_sheet
from dsdi_ray.distributed.rank import Ranking
from dsdi_ray.distributed.score import ScoreSummary
from dsdi_ray.method.run_changes import compare_runs
from dsdi_ray.report.rescore_page import Rescoring, newly_on_top, write_rescore_page
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.storage.filesystems import path_in
from dsdi_ray.storage.manifest import MANIFEST_SCHEMA
from dsdi_ray.storage.manifest_changes import ManifestChanges, compare_manifests
from dsdi_ray.storage.media_files import without_blanks
from dsdi_ray.storage.run_history import PastRun, changed_inputs, next_run, run_inputs
from dsdi_ray.storage.runs import scores_of_run, write_run_files
from dsdi_ray.storage.trecvid import TrecvidRun
from dsdi_ray.vision.decode import DecodeSettings

RUNS = "runs"
_PAGE = "index.html"
_SHEET_FEATURES, _SHEET_CLIPS = 8, 6


@dataclass(frozen=True, kw_only=True)
class RescoreSummary:
    """What a rescoring came to.

    Attributes:
        run: Folder of the new run, None where nothing changed or nothing was written.
        compared_with: Folder of the last run before, None for a first one.
        changed: What a run is made of that is another than in the last run: clips, members,
            decode_id, pool, outcomes (how many clips are ok, partial, failed).
        num_new: Clips that the last run's archive lacked.
        num_changed: Clips whose content is another.
        num_gone: Clips that are no longer there; they are not ranked, their scores are kept.
        score: What the scoring found and did.
        num_clips_ranked: Clips in the new run.
        unranked: Clips that are not, by reason.
        features: Of each feature, how many clips entered and left the top, rose and fell, which
            share of it stayed, and Kendall's tau.
        page: The page, None where none was written.
        files: The new run's files.
    """

    run: str | None = None
    compared_with: str | None
    changed: list[str]
    num_new: int
    num_changed: int
    num_gone: int
    score: ScoreSummary
    num_clips_ranked: int = 0
    unranked: dict[str, int] = field(default_factory=dict)
    features: list[dict[str, object]] = field(default_factory=list)
    page: str | None = None
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ScoredArchive:
    """An archive and its scores as they are now, beside the last run.

    Attributes:
        out: Folder of the runs and the page.
        ensemble_name: For the names of files.
        members: The ensemble.
        manifest: The clips that there are.
        settings: How frames were sampled.
        pool: How frames become a clip.
        scored: What the scoring found and did.
        last: The last run, None where there is none.
    """

    out: Path
    ensemble_name: str
    members: EnsembleSpec
    manifest: pa.Table
    settings: DecodeSettings
    pool: str
    scored: ScoreSummary
    last: PastRun | None

    @cached_property
    def clips(self) -> ManifestChanges:
        """Clips that came, changed and went since the last run."""
        before = self.last.manifest if self.last else MANIFEST_SCHEMA.empty_table()
        return compare_manifests(before, self.manifest)

    @cached_property
    def inputs(self) -> Mapping[str, str]:
        """What a run of it is made of."""
        scored = self.scored
        return run_inputs(
            self.manifest,
            self.members,
            decode_id=self.settings.decode_id,
            pool=self.pool,
            num_outcomes={
                "ok": scored.num_ok, "partial": scored.num_partial, "failed": scored.num_failed
            },
        )  # fmt: skip

    @property
    def changed(self) -> list[str]:
        """What of it is another than in the last run."""
        return changed_inputs(self.last.inputs if self.last else {}, self.inputs)

    def summary(self) -> RescoreSummary:
        """Of a rescoring that adds no run."""
        return RescoreSummary(
            compared_with=str(self.out / RUNS / self.last.name) if self.last else None,
            changed=self.changed,
            num_new=len(self.clips.new),
            num_changed=len(self.clips.changed),
            num_gone=len(self.clips.gone),
            score=self.scored,
        )


def write_rescoring(now: ScoredArchive, ranking: Ranking, *, top_k: int) -> RescoreSummary:
    """Add a run to the others, and write the page of what it changes.

    Args:
        now: The archive.
        ranking: Its clips, ranked.
        top_k: Clips per feature that are compared with the last run.
    """
    before = scores_of_run(now.last.run) if now.last else {}
    changes = compare_runs(before, scores_of_run(ranking.run), top_k=top_k)
    with next_run(now.out / RUNS) as new:
        files = write_run_files(
            ranking.run,
            new.folder,
            taxonomy=now.members.taxonomy,
            tag=without_blanks(now.ensemble_name),
            about=TrecvidRun(elapsed_seconds=ranking.seconds),
            metadata=now.inputs,
        )
        new.write_manifest(now.manifest)
        rescoring = Rescoring(
            name=new.name,
            compared_with=now.last.name if now.last else None,
            how=f"Scored at {now.settings.fps:g} frames per second; frames are pooled by {now.pool}.",
            facts=_facts(now, ranking),
            members=_members(now),
            clips=now.clips,
            failed=now.scored.reasons,
            unranked=ranking.unranked,
            run=ranking.run,
            changes=changes,
            top_k=top_k,
        )
        newest = newly_on_top(ranking.run, changes, num_clips=_SHEET_CLIPS)
        sheet = new.folder / "new_on_top.png" if len(newest) else None
        if sheet is not None:
            write_contact_sheet(
                newest,
                now.manifest,
                sheet,
                settings=now.settings,
                num_features=_SHEET_FEATURES,
                num_clips=top_k,
            )
        # Before the run gets its number: where this is cut off, the same command does it again.
        page = write_rescore_page(now.out / _PAGE, rescoring, sheet=sheet)

    folder = now.out / RUNS / new.name
    return replace(
        now.summary(),
        run=str(folder),
        num_clips_ranked=ranking.num_clips,
        unranked=dict(ranking.unranked),
        features=_features(rescoring) if now.last else [],
        page=str(page),
        files=[str(folder / file.name) for file in files],
    )


def _facts(now: ScoredArchive, ranking: Ranking) -> dict[str, float]:
    """What the page says of the work."""
    clips, scored = now.clips, now.scored
    return {
        "clips in the archive": scored.num_clips,
        "new": len(clips.new),
        "changed": len(clips.changed),
        "gone": len(clips.gone),
        "(clip, member) pairs in the store": scored.num_pairs_present,
        "pairs that were missing": scored.num_pairs_missing,
        "clips decoded": scored.num_clips_scored,
        "frames scored": scored.num_frames,
        "clips scored on every frame": scored.num_ok,
        "scored on a part of their frames": scored.num_partial,
        "failed": scored.num_failed,
        "ranked": ranking.num_clips,
        "seconds": round(scored.seconds + ranking.seconds),
    }


def _members(now: ScoredArchive) -> dict[str, tuple[str, float | None, float | None]]:
    """Members of now and of the last run by id: name, weight, weight before."""
    before = now.last.member_weights if now.last else {}
    here = {
        m.member_id: (path_in(m.path).name, m.weight, before.get(m.member_id))
        for m in now.members.members
    }
    gone = {i: ("no longer in it", None, weight) for i, weight in before.items() if i not in here}
    return {**here, **gone}


def _features(rescoring: Rescoring) -> list[dict[str, object]]:
    names = rescoring.feature_names
    return [
        {
            "feature": names.get(feature_id, str(feature_id)),
            "entered": len(change.entered),
            "left": len(change.left),
            "rose": len(change.risen),
            "fell": len(change.fallen),
            "overlap": change.overlap,
            "kendall_tau": change.kendall_tau,
        }
        for feature_id, change in rescoring.changes.items()
    ]
