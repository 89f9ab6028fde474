"""``dsdi index``, ``score`` and ``outcomes``."""

from typing import Annotated, Literal

import typer

from dsdi_ray.cli.options import MAX_TIMEOUT_SECONDS, Address, Fps, Json, bounded
from dsdi_ray.cli.output import json_alone, print_facts, print_json, print_reasons
from dsdi_ray.cli.scoring_output import (
    MAX_OUTCOMES,
    print_outcomes,
    print_plan,
    print_score_summary,
)
from dsdi_ray.errors import UserError

EXIT_CLIPS_FAILED = 3
_OUTCOME_COLUMNS = [
    "clip_id", "uri", "status", "error", "decoder", "frames_expected", "frames_scored", "attempts",
    "note", "content_id", "span", "member_ids", "seconds", "finished_at", "seconds_covered",
    "is_transient",
]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("index")(index)
    app.command("score")(score)
    app.command("outcomes")(outcomes)


def index(
    paths: Annotated[
        list[str],
        typer.Argument(help="Files, folders, globs, or s3://, gs://, https:// URIs of these."),
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="Manifest to write: .parquet or URI.")],
    window_seconds: Annotated[
        float | None, typer.Option("--window-seconds", help="Cut longer videos into windows.")
    ] = None,
    window_overlap_seconds: Annotated[
        float, typer.Option("--window-overlap-seconds", help="How much windows overlap.")
    ] = 0.0,
    shots: Annotated[
        str | None,
        typer.Option(
            "--shots",
            help="CSV of the clips: uri or file, start_seconds, end_seconds (or HH:MM:SS.mmm), "
            "clip_id.",
        ),
    ] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """List and probe footage: a manifest for `dsdi score`.

    Unreadable files stay in the manifest with the reason. A public bucket is read without
    credentials as s3://anonymous@bucket/.

    Example: dsdi index footage/ 's3://bucket/flights/*.ts' --out manifest.parquet
    """
    from dsdi_ray.distributed.index import index_archive
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.storage.parts import Windows

    windows = None
    if window_seconds is not None:
        windows = Windows(length_seconds=window_seconds, overlap_seconds=window_overlap_seconds)
    elif window_overlap_seconds:
        raise UserError("--window-overlap-seconds needs --window-seconds")
    with json_alone(as_json), ray_session(address=address, has_state_api=False):
        summary = index_archive(paths, out=out, windows=windows, shots=shots)
    if as_json:
        print_json(summary)
        return
    print_facts(
        "Indexed",
        {
            "clips": summary.num_clips,
            "unreadable": summary.num_unreadable,
            "end after their file": summary.num_past_end or None,
            "of unknown length": _unknown(summary.num_unknown, is_cut=windows is not None),
            "hours": summary.hours,
            "seconds": summary.seconds,
            "manifest": summary.manifest,
        },
    )
    print_reasons("unreadable", summary.reasons, see=f"probe_error in {summary.manifest}")


def _unknown(num_clips: int, *, is_cut: bool) -> str | None:
    return f"{num_clips:,}{', left whole' if is_cut else ''}" if num_clips else None


def score(
    archive: Annotated[
        str, typer.Argument(help="Manifest, or a folder, file or glob of footage; or URI.")
    ],
    ensemble: Annotated[
        str, typer.Option("--ensemble", "-e", help="Ensemble bundle: folder or URI.")
    ],
    store: Annotated[str, typer.Option("--store", "-s", help="Score store: folder or URI.")],
    fps: Fps = 10.0,
    decoders: Annotated[
        int | None, typer.Option("--decoders", min=1, help="Decode actors; default: one per core.")
    ] = None,
    scorers: Annotated[
        int | None,
        typer.Option(
            "--scorers", min=1, help="Scoring actors; default: one per GPU, or per four cores."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Frames per forward pass; default: 32 on a GPU, 16 on a core."),
    ] = None,
    timeout_seconds: Annotated[
        float,
        typer.Option(
            callback=bounded("--timeout-seconds", low=1, high=MAX_TIMEOUT_SECONDS),
            help="A decoder that makes no progress for so long is killed.",
        ),
    ] = 30.0,
    gpu: Annotated[
        bool | None,
        typer.Option("--gpu/--cpu", help="Where to score; default: GPU if there is one."),
    ] = None,
    compile_networks: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the networks first (torch.compile); for long jobs."
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Decode clips again that failed before or are partial."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what there is to do and how long a few clips take."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 where clips failed.")
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Score every clip by every member; scores that the store has are not computed again.

    Each clip ends as an outcome (ok, partial or failed with a reason): see `dsdi outcomes`. A
    killed job resumes with the same command. A large job tries the beginnings of a few clips first
    and says how long it will take, as --dry-run does.

    Example: dsdi score footage/ --ensemble ensembles/two --store scores/
    """
    from dsdi_ray.distributed.index import load_archive
    from dsdi_ray.distributed.score import score_archive
    from dsdi_ray.distributed.scoring_pool import scoring_pool
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.storage.bundles import read_ensemble
    from dsdi_ray.vision.decode import DecodeSettings

    members = read_ensemble(ensemble)
    settings = DecodeSettings(fps=fps, progress_timeout_seconds=timeout_seconds)
    with json_alone(as_json), ray_session(address=address):
        pool = scoring_pool(
            use_gpu=gpu,
            num_decoders=decoders,
            num_scorers=scorers,
            micro_batch=batch_size,
            compile_networks=compile_networks,
        )
        summary = score_archive(
            load_archive(archive),
            ensemble=members,
            store_uri=store,
            settings=settings,
            pool=pool,
            retry_failed=retry_failed,
            dry_run=dry_run,
            on_plan=print_plan,
        )
    if as_json:
        print_json(summary)
    else:
        print_score_summary(summary, store)
    if strict and summary.num_failed:
        raise typer.Exit(EXIT_CLIPS_FAILED)


def outcomes(
    store: Annotated[str, typer.Argument(help="Score store.")],
    status: Annotated[
        Literal["ok", "partial", "failed"] | None,
        typer.Option("--status", help="Only clips that came out so."),
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help=f"List every clip, not the first {MAX_OUTCOMES} alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what became of the clips: how many are ok, partial or failed and why, then clip by clip.

    --json has every clip.

    Example: dsdi outcomes scores/ --status failed
    """
    import pyarrow.compute as pc

    from dsdi_ray.storage.score_store import ScoreStore

    latest = ScoreStore.open(store).latest_outcomes()
    if status:
        latest = latest.filter(pc.field("status") == status)
    if as_json:
        print_json(latest.select(_OUTCOME_COLUMNS).to_pylist())
    else:
        print_outcomes(latest, max_rows=len(latest) if show_all else MAX_OUTCOMES)
