"""``dsdi prepare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dsdi_ray.cli.options import Address, Json, TaxonomyName
from dsdi_ray.cli.output import (
    duration,
    json_alone,
    print_facts,
    print_json,
    print_table,
)
from dsdi_ray.taxonomy import DEFAULT_TAXONOMY, load_taxonomy

if TYPE_CHECKING:
    from dsdi_ray.distributed.prepare import PrepareSummary


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("prepare")(prepare)


def prepare(
    answers: Annotated[
        Path, typer.Argument(help="LADI v1 answers TSV, or a CSV/TSV of 0/1 columns.")
    ],
    images: Annotated[
        list[str],
        typer.Option(
            "--images",
            help="Folder, .tar, or s3://, gs://, https:// URI of the images; of several (repeat "
            "the option) the first that has an image counts.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the prepared set.")],
    taxonomy: TaxonomyName = DEFAULT_TAXONOMY,
    metadata: Annotated[
        Path | None,
        typer.Option(
            "--metadata",
            help="LADI's CSV of images (uuid, timestamp, gps_lat, ..., url): where and when they "
            "were taken, and where to find those that answers name by uuid.",
        ),
    ] = None,
    short_side_px: Annotated[int, typer.Option(help="Images are stored at this short side.")] = 512,
    validation_fraction: Annotated[
        float, typer.Option(help="Part held back for validation.")
    ] = 0.2,
    split_seed: Annotated[int, typer.Option(help="Which images are held back.")] = 0,
    split: Annotated[
        Literal["random", "event", "flight", "folder", "given"] | None,
        typer.Option(
            "--split",
            help="What is held back as one: random (images, as in the paper), event or flight "
            "(a column of the labels, else LADI's paths), folder, or given (the labels' column "
            "split). Default: given or event where the labels have such a column, else random.",
        ),
    ] = None,
    max_gap_minutes: Annotated[
        float, typer.Option(help="With --split flight: a longer pause begins a new flight.")
    ] = 30.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another set.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what there is to do and how long it would take."),
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Turn crowd answers and images into soft labels: a prepared set for `dsdi train`.

    Every class's votes are counted per image and divided by the largest count. Unknown answer
    strings, missing, unreadable and duplicate images are counted here and listed in
    OUT/report.json; copies of one file are never on both sides of the split. A killed job resumes
    with the same command. LADI's public bucket is s3://anonymous@ladi/Images.

    Example: dsdi prepare answers.tsv --images images/ --out prepared/ --split event
    """
    from dsdi_ray.distributed.prepare import prepare_set
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.storage.prepare_plan import PrepareSettings

    classes = load_taxonomy(taxonomy)
    settings = PrepareSettings(
        short_side_px=short_side_px,
        validation_fraction=validation_fraction,
        split_seed=split_seed,
        split=split,
        max_gap_minutes=max_gap_minutes,
    )
    with json_alone(as_json), ray_session(address=address, has_state_api=False):
        summary = prepare_set(
            answers,
            images=images,
            out=out,
            taxonomy=classes,
            settings=settings,
            metadata=metadata,
            overwrite=overwrite,
            dry_run=dry_run,
        )
    if as_json:
        print_json(summary)
    elif summary.dry_run:
        _print_dry_run(summary)
    else:
        _print_summary(summary)


def _print_dry_run(summary: "PrepareSummary") -> None:
    print_facts(
        "Dry run",
        {
            "labelled images": summary.num_labelled,
            "found": summary.num_labelled - summary.num_missing,
            "missing images": summary.num_missing,
            "done before": summary.num_done_before,
            "to do": summary.num_to_do,
            "estimated time": duration(summary.estimated_seconds),
            "bad rows": summary.num_bad_rows,
            "unknown answers": _unknown(summary),
        },
    )


def _print_summary(summary: "PrepareSummary") -> None:
    from dsdi_ray.storage.prepared import PreparedSet

    prepared = PreparedSet.open(summary.out)
    report = prepared.report
    rows = [
        [name, *counts.values()]
        for name, counts in report["classes"].items()
        if counts["images_asked"]
    ]
    print_table(["class", "answers", "images asked", "by majority", "of these in train"], rows)
    by_answers = report["images_by_number_of_answers"]
    missing_metadata = report.get("missing_metadata")
    print_facts(
        "Nothing to do, the set is complete" if summary.reused else "Prepared",
        {
            "images": f"{summary.num_images:,} ({summary.num_train:,} to train, "
            f"{summary.num_validation:,} to validate)",
            "split": f"{prepared.settings['split']}, {report['split_units']:,} units",
            "answers per image": f"{report['answers'] / max(1, summary.num_labelled):.1f} "
            f"({', '.join(f'{n}: {images}' for n, images in by_answers.items())})",
            "missing images": summary.num_missing,
            "unreadable images": summary.num_unreadable,
            "missing metadata": None if missing_metadata is None else len(missing_metadata),
            "duplicates": f"{sum(map(len, report['duplicates']))} images of "
            f"{len(report['duplicates'])} files, {report['duplicates_on_both_sides']} of these on "
            "both sides of the split",
            "bad rows": summary.num_bad_rows,
            "unknown answers": _unknown(summary),
            "seconds": summary.seconds,
            "set": f"{summary.out} (id {summary.prepared_id})",
            "report": f"{summary.out}/report.json",
        },
    )


def _unknown(summary: "PrepareSummary") -> str:
    return ", ".join(f"{s} ({n})" for s, n in summary.unknown_strings.items()) or "none"
