"""``dsdi member import``, ``ensemble build`` and ``ensemble select``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dsdi_ray.cli.commands import CommandLine
from dsdi_ray.cli.options import Address, Gpu, Json, TaxonomyName, path_and_weight
from dsdi_ray.cli.output import json_alone, print_facts, print_json
from dsdi_ray.cli.selection import print_selection
from dsdi_ray.taxonomy import DEFAULT_TAXONOMY, load_taxonomy


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    member = CommandLine(no_args_is_help=True, help="Trained networks.")
    ensemble = CommandLine(no_args_is_help=True, help="Weighted lists of members.")
    member.command("import")(import_)
    ensemble.command("build")(build)
    ensemble.command("select")(select)
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


def select(
    places: Annotated[
        list[Path],
        typer.Argument(help="Member bundles, or folders with members at any depth, as of a sweep."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the ensemble bundle.")],
    size: Annotated[int, typer.Option("--size", help="Members; with free weights, steps.")] = 10,
    metric: Annotated[
        Literal["map", "lrap"],
        typer.Option("--metric", help="What is best; map is of the features."),
    ] = "map",
    weights: Annotated[
        Literal["equal", "free"],
        typer.Option(
            "--weights",
            help="equal: each member once, as in the paper; free: a member may be added again and "
            "counts as often, and the best ensemble on the way is taken.",
        ),
    ] = "equal",
    initial: Annotated[int, typer.Option("--initial", help="Start from so many best members.")] = 1,
    bags: Annotated[
        int,
        typer.Option("--bags", help="Choose so many times from a random half of the members each."),
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of the halves of images and members.")] = 0,
    with_snapshots: Annotated[
        bool,
        typer.Option("--with-snapshots", help="Also choose from last/ and snapshots/ in members."),
    ] = False,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit",
            help="Then train the chosen recipes anew on all images (recipe key train_on: all) into "
            "OUT/members; needs --data.",
        ),
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Prepared set of the members, for --refit.")
    ] = None,
    gpu: Gpu = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Choose an ensemble among trained members, greedily by their validation predictions.

    The members must have been validated on the same images (one prepared set, one split_seed); they
    are judged by validation.parquet in their bundles, no picture is read. One half of the images
    chooses, every number is shown on the other half too: what was not chosen on tells what it is
    worth. OUT is the ensemble, selection.json and selection.parquet in it say how it came about.
    With --refit it is first the ensemble of the members as they are; the same command goes on where
    it was cut off.

    Example: dsdi ensemble select sweep/ --size 10 --metric map --out ensembles/ten
    """
    from dsdi_ray.distributed.ensemble_selection import SelectionSettings, select_ensemble
    from dsdi_ray.errors import ConfigError
    from dsdi_ray.storage.member_library import find_bundles, read_library

    if refit != (data is not None):
        raise ConfigError("--refit and --data must be given together")
    library = read_library(find_bundles(places, with_snapshots=with_snapshots))
    if data is not None:
        from dsdi_ray.distributed.refit import check_refit_data, refit_ensemble
        from dsdi_ray.distributed.session import ray_session

        check_refit_data(data, library.prepared_id)
    settings = SelectionSettings(
        size=size, metric=metric, weights=weights, initial=initial, bags=bags, seed=seed
    )
    report = select_ensemble(library, settings, out=out)
    if data is not None:
        with json_alone(as_json), ray_session(address=address):
            report = refit_ensemble(report, data=data, use_gpu=gpu)
    if as_json:
        print_json(report)
    else:
        print_selection(report)
