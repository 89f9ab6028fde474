"""What there is to score, what a scoring job did and what became of the clips, for people."""

from typing import TYPE_CHECKING

import typer

from dsdi_ray.cli.output import duration, print_facts, print_reasons, print_table
from dsdi_ray.reasons import count_reasons

if TYPE_CHECKING:
    import pyarrow as pa

    from dsdi_ray.distributed.score import ScoreSummary
    from dsdi_ray.distributed.scoring_pool import ScoringPool
    from dsdi_ray.storage.score_plan import ScoringPlan

MAX_OUTCOMES = 100  # a table of thousands takes seconds and is read by nobody


def print_plan(plan: "ScoringPlan", pool: "ScoringPool", estimated_seconds: float | None) -> None:
    """Say what a scoring job has to do, before it begins."""
    estimate = duration(estimated_seconds)
    unknown = f", {plan.num_unknown:,} of unknown length" if plan.num_unknown else ""
    typer.echo(
        f"{len(plan.manifest):,} clips; (clip, member) pairs: {plan.num_pairs_present:,} in the "
        f"store, {plan.num_pairs_missing:,} missing; {plan.num_work_items:,} clips to decode, "
        f"{plan.footage_hours:.3f} h of footage{unknown}; {pool}"
        + (f"; estimated time {estimate}" if estimate else ""),
        err=True,
    )


def print_score_summary(summary: "ScoreSummary", store: str) -> None:
    """Print what a scoring job found and did."""
    if summary.dry_run:
        title = "Dry run"
    elif summary.num_clips_scored:
        title = "Scored"
    else:
        title = "Nothing to do, every clip is accounted for"
    footage_seconds = summary.footage_hours * 3600
    realtime = footage_seconds / summary.seconds if summary.num_frames else None
    decoders = ", ".join(f"{name} {n}" for name, n in sorted(summary.decoders.items()))
    print_facts(
        title,
        {
            "clips": summary.num_clips,
            "(clip, member) pairs": f"{summary.num_pairs_present:,} in the store, "
            f"{summary.num_pairs_missing:,} missing",
            "footage to score": f"{summary.footage_hours:.3f} h",
            "estimated time": duration(summary.estimated_seconds),
            "clips decoded now": None if summary.dry_run else summary.num_clips_scored,
            "frames scored now": None if summary.dry_run else summary.num_frames,
            "decoders": decoders or None,
            "times real time": realtime,
            "busy": ", ".join(f"{name} {share:.0%}" for name, share in summary.shares.items())
            or None,
            "limited by": summary.limited_by,
            "outcomes": f"{summary.num_ok} ok, {summary.num_partial} partial, "
            f"{summary.num_failed} failed",
            "seconds": summary.seconds,
            "store": store,
        },
    )
    print_reasons("failed", summary.reasons, see=f"dsdi outcomes {store}")
    print_reasons("partial", summary.partial_reasons, see=f"dsdi outcomes {store}")


def print_outcomes(outcomes: "pa.Table", *, max_rows: int) -> None:
    """Print how many clips came out how and why, then the first of them one by one.

    Args:
        outcomes: One row per clip, of :data:`~dsdi_ray.storage.score_rows.OUTCOME_SCHEMA`.
        max_rows: So many are listed.
    """
    typer.echo(f"{len(outcomes):,} clips")
    for status in ("ok", "partial", "failed"):
        print_reasons(f"{status:<7}", _reasons(outcomes, status), see="--json")
    rows = outcomes.slice(0, max_rows).to_pylist()
    print_table(
        ["clip", "status", "frames", "decoder", "attempts", "reason"],
        [
            [
                row["clip_id"],
                row["status"],
                f"{row['frames_scored']}/{row['frames_expected']}",
                row["decoder"],
                row["attempts"],
                row["error"] or row["note"] or "",
            ]
            for row in rows
        ],
    )
    if len(outcomes) > len(rows):
        typer.echo(f"{len(outcomes) - len(rows):,} more clips: --all lists them, --json too")


def _reasons(outcomes: "pa.Table", status: str) -> dict[str, int]:
    import pyarrow as pa
    import pyarrow.compute as pc

    told = outcomes.filter(pc.equal(outcomes["status"], status))
    counts = pc.value_counts(pc.coalesce(told["error"], told["note"], pa.scalar("")))
    return count_reasons((row["values"], row["counts"]) for row in counts.to_pylist())
