"""``dsdi prepare``, ``member import`` and ``ensemble build``."""

from pathlib import Path
from typing import Annotated

import typer

from dsdi_ray.cli.output import AddressOption, JsonOption, print_facts, print_json
from dsdi_ray.taxonomy import DEFAULT_TAXONOMY, load_taxonomy

Json = Annotated[bool, JsonOption]
Address = Annotated[str | None, AddressOption]
TaxonomyName = Annotated[
    str, typer.Option("--taxonomy", "-t", help="ladi_v1, ladi_v2a, or a YAML file of your own.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    member = typer.Typer(no_args_is_help=True, help="Trained networks.")
    ensemble = typer.Typer(no_args_is_help=True, help="Weighted lists of members.")
    app.command("prepare")(prepare)
    member.command("import")(import_)
    ensemble.command("build")(build)
    app.add_typer(member, name="member")
    app.add_typer(ensemble, name="ensemble")


def prepare(
    answers: Annotated[
        Path, typer.Argument(help="LADI v1 answers TSV, or a CSV/TSV of 0/1 columns.")
    ],
    images: Annotated[Path, typer.Option("--images", help="Folder of the images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the prepared set.")],
    taxonomy: TaxonomyName = DEFAULT_TAXONOMY,
    short_side_px: Annotated[int, typer.Option(help="Images are stored at this short side.")] = 512,
    validation_fraction: Annotated[
        float, typer.Option(help="Part held back for validation.")
    ] = 0.2,
    split_seed: Annotated[int, typer.Option(help="Which images are held back.")] = 0,
    split_by: Annotated[
        str | None,
        typer.Option(
            "--split-by", help="group: images of one event, flight or folder stay on one side."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another set.")] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Turn crowd answers and images into soft labels: a prepared set for `dsdi train`.

    Every class's votes are counted per image and divided by the largest count. Unknown answer
    strings, missing and unreadable images are counted here and listed in OUT/report.json.

    Example: dsdi prepare answers.tsv --images images/ --out prepared/
    """
    from dsdi_ray.distributed.prepare import prepare_set
    from dsdi_ray.distributed.session import ray_session

    classes = load_taxonomy(taxonomy)
    with ray_session(address=address):
        summary = prepare_set(
            answers,
            images=images,
            out=out,
            taxonomy=classes,
            short_side_px=short_side_px,
            validation_fraction=validation_fraction,
            split_seed=split_seed,
            split_by=split_by,
            overwrite=overwrite,
        )
    if as_json:
        print_json(summary)
        return
    print_facts(
        "Nothing to do, the set is complete" if summary.reused else "Prepared",
        {
            "images": f"{summary.num_images:,} ({summary.num_train:,} to train, "
            f"{summary.num_validation:,} to validate)",
            "missing images": summary.num_missing,
            "unreadable images": summary.num_unreadable,
            "bad rows": summary.num_bad_rows,
            "unknown answers": ", ".join(f"{s} ({n})" for s, n in summary.unknown_strings.items())
            or "none",
            "seconds": summary.seconds,
            "set": f"{summary.out} (id {summary.prepared_id})",
            "report": f"{summary.out}/report.json",
        },
    )


def import_(
    backbone: Annotated[str, typer.Option("--backbone", help="Name, such as resnest50d.")],
    weights: Annotated[Path, typer.Option("--weights", help=".safetensors, .pt or .pth file.")],
    input_px: Annotated[int, typer.Option("--input-px", help="Side of the square input.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the member bundle.")],
    taxonomy: TaxonomyName = DEFAULT_TAXONOMY,
    as_json: Json = False,
) -> None:
    """Make a member of weights that were trained elsewhere; no pickled code is ever run.

    Example: dsdi member import --backbone resnest50d --weights w.pth --input-px 360 --out m/
    """
    from dsdi_ray.distributed.members import import_member

    spec = import_member(
        backbone=backbone,
        weights_file=weights,
        taxonomy=load_taxonomy(taxonomy),
        input_px=input_px,
        out=out,
    )
    facts = {
        "member_id": spec.member_id,
        "backbone": spec.backbone,
        "input_px": spec.input_px,
        "taxonomy": spec.taxonomy.taxonomy_id,
        "out": str(out),
    }
    if as_json:
        print_json(facts)
    else:
        print_facts("Imported", facts)


def build(
    members: Annotated[
        list[str], typer.Argument(help="Member folders or URIs, each with :WEIGHT if not 1.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the ensemble bundle.")],
    as_json: Json = False,
) -> None:
    """Join members into an ensemble; equal weights as in the paper unless given.

    Example: dsdi ensemble build members/a01 members/b02:2 --out ensembles/two
    """
    from dsdi_ray.storage.bundles import read_ensemble, write_ensemble

    write_ensemble([_member_and_weight(text) for text in members], out)
    ensemble = read_ensemble(out)
    if as_json:
        rows = [
            {"path": m.path, "member_id": m.member_id, "weight": m.weight} for m in ensemble.members
        ]
        print_json({"out": str(out), "taxonomy": ensemble.taxonomy.taxonomy_id, "members": rows})
        return
    facts: dict[str, object] = {
        m.member_id: f"weight {m.weight:g}, {m.path}" for m in ensemble.members
    }
    print_facts(f"Ensemble {out}, taxonomy {ensemble.taxonomy.taxonomy_id}", facts)


def _member_and_weight(text: str) -> tuple[str, float]:
    path, colon, weight = text.rpartition(":")
    try:
        return (path, float(weight)) if colon and path else (text, 1.0)
    except ValueError:
        return text, 1.0
