"""``dsdi store verify``, ``compact`` and ``gc``: look after a score store."""

from typing import Annotated

import typer

from dsdi_ray.cli.commands import CommandLine
from dsdi_ray.cli.options import MAX_FPS, Json, bounded
from dsdi_ray.cli.output import print_facts, print_json

EXIT_PROBLEMS = 3
_MAX_PRINTED = 20

StoreArgument = Annotated[str, typer.Argument(help="Score store: folder or URI.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = CommandLine(
        no_args_is_help=True, help="Check a score store, compact it, free its space."
    )
    group.command("verify")(verify)
    group.command("compact")(compact)
    group.command("gc")(gc)
    app.add_typer(group, name="store")


def verify(store: StoreArgument, as_json: Json = False) -> None:
    """Read a store whole and report what is wrong; exits with 3 if anything is.

    Every file must be readable and of its schema, every logit finite, and each outcome borne out by
    as many frames as it says. Rows that are there twice and those of jobs that were cut off are
    counted; they are harmless. Where logits are lost, drop their member with `dsdi store gc` and
    score again.

    Example: dsdi store verify scores/
    """
    from dsdi_ray.storage.score_store import ScoreStore
    from dsdi_ray.storage.store_verify import verify_store

    found = verify_store(ScoreStore.open(store))
    if as_json:
        print_json(found)
    else:
        print_facts(
            "Problems found" if found.num_problems else "No problem",
            {
                "files": found.num_parts,
                "outcomes": found.num_outcomes,
                "(clip, member) pairs": found.num_pairs,
                "frames of logits": found.num_logits_rows,
                "there twice (harmless)": found.num_duplicate_rows,
                "without an outcome (harmless)": found.num_orphan_rows,
                "unfinished files (harmless)": found.num_temporaries,
                "problems": found.num_problems,
                "store": store,
            },
        )
        _print_some(
            [f"{p.kind}: {p.where}: {p.message}" for p in found.problems], found.num_problems
        )
        _print_some([f"without an outcome: {name}" for name in found.orphans], len(found.orphans))
    if found.num_problems:
        raise typer.Exit(EXIT_PROBLEMS)


def compact(store: StoreArgument, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Merge the many small files of a store into few large ones, sorted, each row once.

    Jobs may score into the store and read it meanwhile. A compaction that was cut off loses
    nothing; the same command goes on.

    Example: dsdi store compact scores/ --dry-run
    """
    from dsdi_ray.storage.score_store import ScoreStore
    from dsdi_ray.storage.store_compact import compact_store

    summary = compact_store(ScoreStore.open(store), dry_run=dry_run)
    if as_json:
        print_json(summary)
        return
    if summary.dry_run:
        title = "Dry run"
    else:
        title = "Compacted" if summary.num_parts_merged else "Nothing to do"
    print_facts(
        title,
        {
            "files before": f"{summary.num_parts_before:,} ({_size(summary.bytes_before)})",
            "files to merge" if dry_run else "files merged": f"{summary.num_parts_merged:,} "
            f"({_size(summary.bytes_merged)})",
            "files now": None
            if summary.num_parts_after is None or summary.bytes_after is None
            else f"{summary.num_parts_after:,} ({_size(summary.bytes_after)})",
            "rows that were there twice": summary.num_rows_dropped,
            "store": store,
        },
    )


def gc(
    store: StoreArgument,
    keep: Annotated[
        list[str],
        typer.Option(
            "--keep", "-k", help="Ensemble whose members stay: folder or URI; repeatable."
        ),
    ],
    keep_fps: Annotated[
        list[float] | None,
        typer.Option(
            "--keep-fps",
            callback=bounded("--keep-fps", low=0, high=MAX_FPS, low_counts=False),
            help="Frames per second whose scores stay; repeatable; default: all.",
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Drop the logits of members that no kept ensemble uses, and what cut-off jobs left behind.

    What is dropped counts as never scored. Logits without an outcome and unfinished files go once
    they are a day old. Not while a job scores members that are to go.

    Example: dsdi store gc scores/ --keep ensembles/two --dry-run
    """
    from dsdi_ray.storage.bundles import read_ensemble
    from dsdi_ray.storage.score_store import ScoreStore
    from dsdi_ray.storage.store_gc import Kept, collect_garbage
    from dsdi_ray.taxonomy import check_same_taxonomy
    from dsdi_ray.vision.decode import DecodeSettings

    opened = ScoreStore.open(store)
    ensembles = [read_ensemble(path) for path in keep]
    for ensemble in ensembles:
        check_same_taxonomy(opened.taxonomy, ensemble.taxonomy, what="the ensemble")
    kept = Kept(
        member_ids={m.member_id for ensemble in ensembles for m in ensemble.members},
        decode_ids={DecodeSettings(fps=fps).decode_id for fps in keep_fps} if keep_fps else None,
    )
    summary = collect_garbage(opened, kept, dry_run=dry_run)
    if as_json:
        print_json(summary)
        return
    print_facts(
        "Dry run" if summary.dry_run else "Dropped",
        {
            "(clip, member) pairs": summary.num_claims_dropped,
            "files of their logits": summary.num_parts_dropped,
            "frames without an outcome": summary.num_orphan_rows,
            "unfinished files": summary.num_temporaries,
            "size": _size(summary.bytes_dropped),
            "store": store,
        },
    )


def _print_some(lines: list[str], num_lines: int) -> None:
    for line in lines[:_MAX_PRINTED]:
        typer.echo(f"    {line}")
    if num_lines > _MAX_PRINTED:
        typer.echo(f"    and {num_lines - _MAX_PRINTED:,} more (--json lists up to 1,000)")


def _size(num_bytes: int) -> str:
    if num_bytes < 2**20:
        return f"{num_bytes / 2**10:.1f} KiB"
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:,.2f} GiB"
