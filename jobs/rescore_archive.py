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

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dsdi_ray.cli.job import job_app, run_job, say_stage
from dsdi_ray.cli.options import Address, Fps, Json, Pool
from dsdi_ray.cli.output import (
    duration,
    json_alone,
    print_facts,
    print_json,
    print_reasons,
    print_table,
)
from dsdi_ray.cli.scoring_output import print_plan
from dsdi_ray.distributed.rank import rank_archive
from dsdi_ray.distributed.reindex import update_archive
from dsdi_ray.distributed.rescoring import (
    RUNS,
    RescoreSummary,
    ScoredArchive,
    write_rescoring,
)
from dsdi_ray.distributed.score import score_archive
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.method.fusion import check_pooling
from dsdi_ray.storage.bundles import read_ensemble
from dsdi_ray.storage.filesystems import path_in
from dsdi_ray.storage.run_history import last_run
from dsdi_ray.vision.decode import DecodeSettings

app = job_app()


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
        retry_failed: Decode clips again that failed before or are partial.
        dry_run: Say what there is to do, and write nothing.
        address: A Ray cluster that sees all these paths; None for the one of ``RAY_ADDRESS``,
            which Ray sets for a submitted job, else for a local Ray.

    Raises:
        DsdiError: If there is no footage, no ensemble, or no clip that can be ranked.
    """
    check_pooling(pool=pool)
    out = out.resolve()
    members = read_ensemble(ensemble)
    settings = DecodeSettings(fps=fps)
    last = last_run(out / RUNS)

    with ray_session(address=address):
        say_stage("1/4 Index what is new (dsdi index)")
        manifest = update_archive(archive, out / "manifest.parquet", write=not dry_run)

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
        now = ScoredArchive(
            out=out,
            ensemble_name=path_in(ensemble).name or "ensemble",
            members=members,
            manifest=manifest,
            settings=settings,
            pool=pool,
            scored=scored,
            last=last,
        )
        if dry_run or not (now.changed or scored.num_frames):
            return now.summary()

        say_stage("3/4 Rank the clips for each feature (dsdi rank)")
        ranking = rank_archive(
            str(out / "scores"),
            ensemble=members,
            decode_id=settings.decode_id,
            pool=pool,
            clip_ids=manifest["clip_id"],
        )

    say_stage("4/4 Compare with the last run and write the page")
    return write_rescoring(now, ranking, top_k=top_k_diff)


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
    pool: Pool = "max",
    top_k_diff: Annotated[
        int,
        typer.Option("--top-k-diff", min=1, help="Clips per feature to compare with the last run."),
    ] = 20,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Decode clips again that failed before or are partial."
        ),
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
    print_reasons("failed", scored.reasons, see="dsdi outcomes")
    print_reasons("partial", scored.partial_reasons, see="dsdi outcomes")
    print_reasons("not ranked", summary.unranked, see="dsdi outcomes")
    if summary.features:
        print_table(list(summary.features[0]), [list(row.values()) for row in summary.features])


if __name__ == "__main__":
    run_job(app)
