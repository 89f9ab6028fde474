"""An archive as time goes by: footage arrived, or the ensemble changed; what rose, what fell?

On this machine::

    python jobs/rescore_archive.py footage/ --ensemble ensembles/two --out watch/

On a cluster, with paths that every node sees (see ``cluster/README.md``)::

    ray job submit --working-dir . -- python jobs/rescore_archive.py /shared/footage \
        --ensemble /shared/ensembles/two --out /shared/watch

Run it again whenever something may have changed. ``OUT/manifest.parquet`` holds the clips that are
known, so that only new files are probed; ``OUT/scores`` is one store for all times, so that only
what it lacks is scored; ``OUT/runs/0001``, ``0002``, ... are the runs, each with its manifest, none
ever overwritten. ``OUT/index.html`` says what was done and how the last run differs from the one
before. Where nothing changed, that is said in seconds and no run is added. A job that was cut off
goes on where it stopped.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from dsdi_ray.cli.archive import print_plan
from dsdi_ray.cli.job import job_app, run_job, say_stage
from dsdi_ray.cli.options import Address, Fps, Json
from dsdi_ray.cli.output import duration, json_alone, print_facts, print_json, print_table
from dsdi_ray.distributed.contact_sheet import write_contact_sheet
from dsdi_ray.distributed.rank import Ranking, rank_archive
from dsdi_ray.distributed.reindex import update_archive
from dsdi_ray.distributed.score import ScoreSummary, score_archive
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.errors import ConfigError
from dsdi_ray.method.pooling import POOLS
from dsdi_ray.method.run_changes import compare_runs
from dsdi_ray.report.rescore_page import Rescoring, newly_on_top, write_rescore_page
from dsdi_ray.storage.bundles import EnsembleSpec, read_ensemble
from dsdi_ray.storage.filesystems import path_in
from dsdi_ray.storage.manifest import MANIFEST_SCHEMA
from dsdi_ray.storage.manifest_changes import ManifestChanges, compare_manifests
from dsdi_ray.storage.run_history import (
    PastRun,
    changed_inputs,
    last_run,
    next_run,
    run_inputs,
)
from dsdi_ray.storage.runs import scores_of_run, write_run_files
from dsdi_ray.vision.decode import DecodeSettings

SHEET_FEATURES, SHEET_CLIPS = 8, 6

app = job_app()


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


def run(
    archive: str,
    *,
    ensemble: str,
    out: Path,
    fps: float = 10.0,
    pool: str = "max",
    top_k_diff: int = 20,
    retry_failed: bool = False,
    dry_run: bool = False,
    address: str | None = None,
) -> RescoreSummary:
    """Index what is new, score what is missing, rank, and compare with the last run.

    Args:
        archive: A folder, file or glob of footage, or a manifest of ``dsdi index``; or a URI.
        ensemble: Folder or URI of the ensemble bundle.
        out: Folder of the manifest, the score store, the runs and the page.
        fps: Frames per second that are scored.
        pool: How frames become a clip, see :mod:`dsdi_ray.method.pooling`.
        top_k_diff: Clips per feature that are compared with the last run.
        retry_failed: Decode clips again that failed before.
        dry_run: Say what there is to do, and write nothing.
        address: A Ray cluster that sees all these paths; None for the one of ``RAY_ADDRESS``,
            which Ray sets for a submitted job, else for a local Ray.

    Raises:
        DsdiError: If there is no footage, no ensemble, or no clip that can be ranked.
    """
    if pool not in POOLS:
        raise ConfigError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")
    out = out.resolve()
    members = read_ensemble(ensemble)
    settings = DecodeSettings(fps=fps)
    last = last_run(out / "runs")

    with ray_session(address=address):
        say_stage("1/4 Index what is new (dsdi index)")
        manifest = update_archive(archive, out / "manifest.parquet", write=not dry_run)
        clips = compare_manifests(
            last.manifest if last else MANIFEST_SCHEMA.empty_table(), manifest
        )

        say_stage("2/4 Score what the store lacks (dsdi score)")
        scored = score_archive(
            manifest,
            ensemble=members,
            store_uri=str(out / "scores"),
            settings=settings,
            retry_failed=retry_failed,
            dry_run=dry_run,
            on_plan=print_plan,
        )
        inputs = run_inputs(
            manifest,
            members,
            decode_id=settings.decode_id,
            pool=pool,
            num_outcomes={
                "ok": scored.num_ok, "partial": scored.num_partial, "failed": scored.num_failed
            },
        )  # fmt: skip
        changed = changed_inputs(last.inputs if last else {}, inputs)
        summary = RescoreSummary(
            compared_with=str(out / "runs" / last.name) if last else None,
            changed=changed,
            num_new=len(clips.new),
            num_changed=len(clips.changed),
            num_gone=len(clips.gone),
            score=scored,
        )
        if dry_run or not (changed or scored.num_frames):
            return summary

        say_stage("3/4 Rank the clips for each feature (dsdi rank)")
        ranking = rank_archive(
            str(out / "scores"),
            ensemble=members,
            decode_id=settings.decode_id,
            pool=pool,
            clip_ids=manifest["clip_id"],
        )

    say_stage("4/4 Compare with the last run and write the page")
    before = scores_of_run(last.run) if last else {}
    changes = compare_runs(before, scores_of_run(ranking.run), top_k=top_k_diff)
    with next_run(out / "runs") as new:
        files = write_run_files(
            ranking.run,
            new.folder,
            taxonomy=members.taxonomy,
            tag=path_in(ensemble).name or "ensemble",
            elapsed_seconds=ranking.seconds,
            metadata=inputs,
        )
        new.write_manifest(manifest)
        rescoring = Rescoring(
            name=new.name,
            compared_with=last.name if last else None,
            how=f"Scored at {settings.fps:g} frames per second; frames are pooled by {pool}.",
            facts=_facts(clips, scored, ranking),
            members=_members(members, last),
            clips=clips,
            failed=scored.reasons,
            unranked=ranking.unranked,
            run=ranking.run,
            changes=changes,
            top_k=top_k_diff,
        )
        newest = newly_on_top(ranking.run, changes, num_clips=SHEET_CLIPS)
        sheet = new.folder / "new_on_top.png" if len(newest) else None
        if sheet is not None:
            write_contact_sheet(
                newest,
                manifest,
                sheet,
                settings=settings,
                num_features=SHEET_FEATURES,
                num_clips=top_k_diff,
            )
        # Before the run gets its number: where this is cut off, the same command does it again.
        page = write_rescore_page(out / "index.html", rescoring, sheet=sheet)

    folder = out / "runs" / new.name
    return replace(
        summary,
        run=str(folder),
        num_clips_ranked=ranking.num_clips,
        unranked=dict(ranking.unranked),
        features=_features(rescoring) if last else [],
        page=str(page),
        files=[str(folder / file.name) for file in files],
    )


@app.command()
def main(
    archive: Annotated[str, typer.Argument(help="Folder, file or glob of footage, or a manifest.")],
    ensemble: Annotated[
        str, typer.Option("--ensemble", "-e", help="Ensemble bundle: folder or URI.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of manifest, store, runs and page.")
    ],
    *,
    fps: Fps = 10.0,
    pool: Annotated[
        str, typer.Option("--pool", help="Frames to clip: max, mean, topk_mean or logsumexp.")
    ] = "max",
    top_k_diff: Annotated[
        int,
        typer.Option("--top-k-diff", min=1, help="Clips per feature to compare with the last run."),
    ] = 20,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Decode clips again that failed before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do, and write nothing.")
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Bring an archive's scores up to date and say which clips rose or fell since the last run.

    Only new files are probed, only missing (clip, member) pairs are scored; where nothing changed
    no run is added.

    Example: python jobs/rescore_archive.py footage/ --ensemble ensembles/two --out watch/
    """
    with json_alone(as_json):
        summary = run(
            archive,
            ensemble=ensemble,
            out=out,
            fps=fps,
            pool=pool,
            top_k_diff=top_k_diff,
            retry_failed=retry_failed,
            dry_run=dry_run,
            address=address,
        )
    if as_json:
        print_json(asdict(summary))
    else:
        _print_summary(summary)


def _facts(clips: ManifestChanges, scored: ScoreSummary, ranking: Ranking) -> dict[str, float]:
    """What the page says of the work."""
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


def _members(
    ensemble: EnsembleSpec, last: PastRun | None
) -> dict[str, tuple[str, float | None, float | None]]:
    """Members of now and of the last run by id: name, weight, weight before."""
    before = last.member_weights if last else {}
    now = {
        m.member_id: (path_in(m.path).name, m.weight, before.get(m.member_id))
        for m in ensemble.members
    }
    gone = {i: ("no longer in it", None, weight) for i, weight in before.items() if i not in now}
    return {**now, **gone}


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


def _print_summary(summary: RescoreSummary) -> None:
    scored = summary.score
    if scored.dry_run:
        title = "Dry run"
    elif summary.run is None:
        title = "Nothing changed since the last run, no run added"
    else:
        title = "Rescored"
    print_facts(
        title,
        {
            "clips": f"{scored.num_clips:,}: {summary.num_new:,} new, {summary.num_changed:,} "
            f"changed, {summary.num_gone:,} gone since the last run",
            "(clip, member) pairs": f"{scored.num_pairs_present:,} in the store, "
            f"{scored.num_pairs_missing:,} missing",
            "estimated time": duration(scored.estimated_seconds),
            "outcomes": f"{scored.num_ok} ok, {scored.num_partial} partial, "
            f"{scored.num_failed} failed",
            "ranked": summary.num_clips_ranked or None,
            "run": summary.run,
            "compared with": summary.compared_with,
            "page": summary.page,
        },
    )
    for reason, count in sorted(scored.reasons.items(), key=lambda item: -item[1]):
        typer.echo(f"    failed {count:>5}  {reason}")
    for reason, count in summary.unranked.items():
        typer.echo(f"    not ranked {count:>5}  {reason}")
    if summary.features:
        print_table(list(summary.features[0]), [list(row.values()) for row in summary.features])


if __name__ == "__main__":
    run_job(app)
