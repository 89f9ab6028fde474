"""What there is to score, and what a scoring job did, for people."""

from typing import TYPE_CHECKING

import typer

from dsdi_ray.cli.output import duration, print_facts

if TYPE_CHECKING:
    from dsdi_ray.distributed.score import ScoreSummary
    from dsdi_ray.distributed.scoring_pool import ScoringPool
    from dsdi_ray.storage.score_plan import ScoringPlan


def print_plan(plan: "ScoringPlan", pool: "ScoringPool", estimated_seconds: float | None) -> None:
    """Say what a scoring job has to do, before it begins."""
    estimate = duration(estimated_seconds)
    typer.echo(
        f"{len(plan.manifest):,} clips; (clip, member) pairs: {plan.num_pairs_present:,} in the "
        f"store, {plan.num_pairs_missing:,} missing; {plan.num_work_items:,} clips to decode, "
        f"{plan.footage_hours:.3f} h of footage; {pool}"
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
    for reason, count in sorted(summary.reasons.items(), key=lambda item: -item[1]):
        typer.echo(f"    failed {count:>5}  {reason}")
