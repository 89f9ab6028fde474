"""``dsdi member import`` and ``ensemble build``."""

from pathlib import Path
from typing import Annotated

import typer

from dsdi_ray.cli.options import Json, TaxonomyName, path_and_weight
from dsdi_ray.cli.output import print_facts, print_json
from dsdi_ray.taxonomy import DEFAULT_TAXONOMY, load_taxonomy


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    member = typer.Typer(no_args_is_help=True, help="Trained networks.")
    ensemble = typer.Typer(no_args_is_help=True, help="Weighted lists of members.")
    member.command("import")(import_)
    ensemble.command("build")(build)
    app.add_typer(member, name="member")
    app.add_typer(ensemble, name="ensemble")


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

    write_ensemble([path_and_weight(text) for text in members], out)
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
