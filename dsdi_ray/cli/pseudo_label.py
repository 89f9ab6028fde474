"""``dsdi pseudo-label``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsdi_ray.cli.options import Address, Fps, Json
from dsdi_ray.cli.output import (
    duration,
    json_alone,
    print_facts,
    print_json,
    print_reasons,
    print_table,
)

if TYPE_CHECKING:
    from dsdi_ray.distributed.pseudo_label import PseudoLabelSummary


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("pseudo-label")(pseudo_label)


def pseudo_label(
    store: Annotated[str, typer.Argument(help="Score store that the images were scored into.")],
    ensemble: Annotated[
        str, typer.Option("--ensemble", "-e", help="Ensemble bundle that labels: folder or URI.")
    ],
    manifest: Annotated[
        str,
        typer.Option(
            "--manifest",
            "-m",
            help="The images: what `dsdi score` was given; clips are passed over.",
        ),
    ],
    prepared: Annotated[
        Path, typer.Option("--prepared", "-p", help="Prepared set of labelled images.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new prepared set.")],
    confident: Annotated[
        float, typer.Option("--confident", help="A class is surely present from here on.")
    ] = 0.9,
    reject: Annotated[
        float, typer.Option("--reject", help="It is surely absent up to here.")
    ] = 0.1,
    max_images: Annotated[
        int | None,
        typer.Option(
            "--max-images", help="Take at most so many, the surest of each class in turn."
        ),
    ] = None,
    fps: Fps = 10.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another set.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what there is to do and how long it would take."),
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Add images that an ensemble is sure of to a prepared set, with its scores as soft labels.

    The labelled images stay as they are; the others are trained on, never validated on, and copies
    of labelled images and those of an event, flight or folder that is held back are left out.
    Classes between the two thresholds stay out of the loss with labels.masked=true. Index and score
    still images like clips. What was left out and why is in OUT/report.json. A killed job resumes
    with the same command.

    Example: dsdi pseudo-label scores/ -e ensemble/ -m images.parquet -p prepared/ -o more/
    """
    from dsdi_ray.distributed.index import load_archive
    from dsdi_ray.distributed.pseudo_label import pseudo_label_set
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.storage.bundles import read_ensemble
    from dsdi_ray.storage.pseudo_plan import PseudoSettings
    from dsdi_ray.vision.decode import DecodeSettings

    settings = PseudoSettings(confident=confident, reject=reject, max_images=max_images)
    members = read_ensemble(ensemble)
    with json_alone(as_json), ray_session(address=address, has_state_api=False):
        summary = pseudo_label_set(
            store,
            ensemble=members,
            manifest=load_archive(manifest),
            prepared=prepared,
            out=out,
            decode_id=DecodeSettings(fps=fps).decode_id,
            settings=settings,
            overwrite=overwrite,
            dry_run=dry_run,
        )
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary)


def _print_summary(summary: "PseudoLabelSummary") -> None:
    title = "Dry run"
    if not summary.dry_run:
        _print_classes(summary)
        title = "Nothing to do, the set is complete" if summary.reused else "Pseudo-labelled"
    print_facts(
        title,
        {
            "labelled images": summary.num_labelled,
            "pseudo-labelled images": summary.num_pseudo_labelled,
            "to train, to validate": f"{summary.num_train:,}, {summary.num_validation:,}",
            "labelled by ensemble": summary.ensemble_id,
            "done before": summary.num_done_before,
            "to do": summary.num_to_do if summary.dry_run else None,
            "estimated time": duration(summary.estimated_seconds),
            "seconds": summary.seconds,
            "set": None if summary.dry_run else f"{summary.out} (id {summary.prepared_id})",
            "report": None if summary.dry_run else f"{summary.out}/report.json",
        },
    )
    print_reasons("left out", summary.left_out, see=f"{summary.out}/report.json")


def _print_classes(summary: "PseudoLabelSummary") -> None:
    from dsdi_ray.storage.prepared import PreparedSet

    classes = PreparedSet.open(summary.out).report["pseudo_labels"]["classes"]
    rows = [[name, *counts.values()] for name, counts in classes.items()]
    print_table(["class", "surely present", "surely absent", "unsure"], rows)
