"""``dsdi train``, ``member import`` and ``ensemble build``."""

from pathlib import Path
from typing import Annotated

import typer

from dsdi_ray.cli.output import AddressOption, JsonOption, print_facts, print_json
from dsdi_ray.cli.prepare import TaxonomyName
from dsdi_ray.taxonomy import DEFAULT_TAXONOMY, load_taxonomy

Json = Annotated[bool, JsonOption]
Address = Annotated[str | None, AddressOption]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    member = typer.Typer(no_args_is_help=True, help="Trained networks.")
    ensemble = typer.Typer(no_args_is_help=True, help="Weighted lists of members.")
    app.command("train")(train)
    member.command("import")(import_)
    ensemble.command("build")(build)
    app.add_typer(member, name="member")
    app.add_typer(ensemble, name="ensemble")


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe YAML, such as jobs/recipes/a01.yaml.")],
    data: Annotated[Path, typer.Option("--data", help="Prepared set.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the member bundle.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value: --set loss.gamma=1.5 (may be repeated)."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Data-parallel workers.")] = 1,
    gpu: Annotated[
        bool | None,
        typer.Option("--gpu/--cpu", help="Where to train; default: GPU if there is one."),
    ] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Train one member with Ray Train; a killed run resumes with the same command.

    Example: dsdi train jobs/recipes/a01.yaml --data prepared/ --out members/a01 --set epochs=10
    """
    from dsdi_ray.config import load_recipe
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.distributed.train import train_member

    resolved = load_recipe(recipe, overrides or [])
    with ray_session(address=address):
        summary = train_member(resolved, data=data, out=out, num_workers=workers, use_gpu=gpu)
    if as_json:
        print_json(summary)
        return
    print_facts(
        "Nothing to do, the member is complete" if summary.reused else "Trained",
        {
            "backbone": summary.backbone,
            "epochs": f"{summary.epochs}, best {summary.best_epoch}",
            "LRAP": summary.lrap,
            "mAP (validation)": summary.map,
            "seconds": summary.seconds,
            "member": f"{summary.out} (id {summary.member_id})",
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
