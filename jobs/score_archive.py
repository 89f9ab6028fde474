"""An archive from footage to ranked clips: index, score, rank.

On this machine::

    python jobs/score_archive.py footage/ --ensemble ensembles/two --out archive-output

On a cluster, with paths that every node sees (see ``cluster/README.md``)::

    ray job submit --working-dir . -- python jobs/score_archive.py /shared/footage \
        --ensemble /shared/ensembles/two --out /shared/archive-output

The same command goes on where it stopped: the score store in the output folder remembers what is
done. Every step can be run by itself with the command named beside it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from dsdi_ray.cli.job import job_app, run_job, say_stage
from dsdi_ray.cli.options import Address, Fps, Json, Pool
from dsdi_ray.cli.output import json_alone, print_facts, print_json, print_reasons
from dsdi_ray.cli.scoring_output import print_score_summary
from dsdi_ray.distributed.index import index_archive, load_archive
from dsdi_ray.distributed.rank import rank_archive
from dsdi_ray.distributed.score import ScoreSummary, score_archive
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.method.fusion import check_pooling
from dsdi_ray.storage.bundles import read_ensemble
from dsdi_ray.storage.filesystems import path_in
from dsdi_ray.storage.manifest import MANIFEST_SUFFIXES
from dsdi_ray.storage.media_files import without_blanks
from dsdi_ray.storage.runs import write_run_files
from dsdi_ray.storage.trecvid import TrecvidRun
from dsdi_ray.vision.decode import DecodeSettings

app = job_app()


@dataclass(frozen=True, kw_only=True)
class ArchiveSummary:
    """What an archive came to.

    Attributes:
        score: What the scoring found and did.
        num_clips_ranked: Clips in the run.
        unranked: Clips that are not, by reason.
        files: The run: run.parquet, run.trec and run.xml.
    """

    score: ScoreSummary
    num_clips_ranked: int
    unranked: dict[str, int]
    files: list[str]


def run(
    archive: str,
    *,
    ensemble: str,
    out: Path,
    fps: float = 10.0,
    pool: str = "max",
    retry_failed: bool = False,
    address: str | None = None,
) -> ArchiveSummary:
    """Index, score and rank.

    Args:
        archive: A folder, file or glob of footage, or a manifest of ``dsdi index``; or a URI.
        ensemble: Folder or URI of the ensemble bundle.
        out: Folder of the manifest, the score store and the run.
        fps: Frames per second that are scored.
        pool: How frames become a clip, see :mod:`dsdi_ray.method.pooling`.
        retry_failed: Decode clips again that failed before or are partial.
        address: A Ray cluster that sees all these paths; None for the one of ``RAY_ADDRESS``,
            which Ray sets for a submitted job, else for a local Ray.

    Raises:
        DsdiError: If there is no such pool, no footage, no ensemble, or no clip that can be ranked.
    """
    check_pooling(pool=pool)
    out = out.resolve()
    members = read_ensemble(ensemble)
    settings = DecodeSettings(fps=fps)

    with ray_session(address=address, has_state_api=False):
        say_stage("1/3 Index the footage (dsdi index)")
        manifest_file = archive
        if path_in(archive).suffix.lower() not in MANIFEST_SUFFIXES:
            manifest_file = str(out / "manifest.parquet")
            index_archive([archive], out=manifest_file)
        manifest = load_archive(manifest_file)

        say_stage("2/3 Score what the store lacks (dsdi score)")
        store = str(out / "scores")
        scored = score_archive(
            manifest,
            ensemble=members,
            store_uri=store,
            settings=settings,
            retry_failed=retry_failed,
        )
        print_score_summary(scored, store)

        say_stage("3/3 Rank the clips for each feature (dsdi rank)")
        ranking = rank_archive(
            store,
            ensemble=members,
            decode_id=settings.decode_id,
            pool=pool,
            clip_ids=manifest["clip_id"],
        )

    files = write_run_files(
        ranking.run,
        out / "run",
        taxonomy=members.taxonomy,
        metadata=ranking.made_of,
        tag=without_blanks(path_in(ensemble).name) or "dsdi",
        about=TrecvidRun(elapsed_seconds=ranking.seconds),
    )
    return ArchiveSummary(
        score=scored,
        num_clips_ranked=ranking.num_clips,
        unranked=dict(ranking.unranked),
        files=[str(file) for file in files],
    )


@app.command()
def main(
    archive: Annotated[str, typer.Argument(help="Folder, file or glob of footage, or a manifest.")],
    ensemble: Annotated[
        str, typer.Option("--ensemble", "-e", help="Ensemble bundle: folder or URI.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of manifest, store and run.")],
    *,
    fps: Fps = 10.0,
    pool: Pool = "max",
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Decode clips again that failed before or are partial."
        ),
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Index, score and rank an archive; the same command goes on where it stopped.

    Example: python jobs/score_archive.py footage/ --ensemble ensembles/two --out archive/
    """
    with json_alone(as_json):
        summary = run(
            archive,
            ensemble=ensemble,
            out=out,
            fps=fps,
            pool=pool,
            retry_failed=retry_failed,
            address=address,
        )
    if as_json:
        print_json(asdict(summary))
        return
    facts = {"clips": summary.num_clips_ranked, "files": ", ".join(summary.files)}
    print_facts("Ranked", facts)
    print_reasons("not ranked", summary.unranked, see="dsdi outcomes")


if __name__ == "__main__":
    run_job(app)
