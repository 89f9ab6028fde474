"""``dsdi fuse``."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from dsdi_ray.cli.options import (
    Description,
    Json,
    Priority,
    Tag,
    TaxonomyName,
    Team,
    TrainingType,
    path_and_weight,
)
from dsdi_ray.cli.output import print_facts, print_json, print_table
from dsdi_ray.taxonomy import DEFAULT_TAXONOMY, load_taxonomy


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("fuse")(fuse)


def fuse(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Runs, each with :WEIGHT if not 1: .parquet, .trec, .txt, .run or .xml."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the fused run's files.")],
    normalisation: Annotated[
        Literal["none", "minmax", "rank"],
        typer.Option(
            "--normalisation",
            help="none (scores are probabilities), minmax (each list to [0, 1]) or rank (1 for the "
            "first of n down to 1/n).",
        ),
    ] = "none",
    top: Annotated[int, typer.Option("--top", min=1, help="Clips per feature.")] = 1000,
    taxonomy: TaxonomyName = DEFAULT_TAXONOMY,
    tag: Tag = "dsdi",
    description: Description = "",
    team: Team = "DSDI_RAY",
    training_type: TrainingType = "L",
    priority: Priority = 1,
    as_json: Json = False,
) -> None:
    """Fuse runs of several systems by their scores: run.parquet, run.trec and run.xml.

    A clip that a run does not list scores 0 in it. Runs need not be of this program. Those of other
    scales need --normalisation, and so does XML, which has ranks and no scores.

    Example: dsdi fuse runs/ours/run.parquet:2 theirs.xml --normalisation rank --out runs/fused
    """
    from dsdi_ray.storage.fused_runs import WeightedRun, fuse_run_tables
    from dsdi_ray.storage.runs import read_run, write_run_files
    from dsdi_ray.storage.trecvid import TrecvidRun

    about = TrecvidRun(
        team=team, training_type=training_type, priority=priority, description=description
    )
    started = time.monotonic()
    classes = load_taxonomy(taxonomy)
    parts = [
        WeightedRun(name=path, run=read_run(Path(path), taxonomy=classes), weight=weight)
        for path, weight in map(path_and_weight, runs)
    ]
    fused = fuse_run_tables(parts, normalisation=normalisation, taxonomy=classes, top=top)
    seconds = time.monotonic() - started
    files = write_run_files(
        fused,
        out,
        taxonomy=classes,
        tag=tag,
        about=replace(about, elapsed_seconds=seconds),
        metadata={
            "fused": ", ".join(f"{part.name}:{part.weight:g}" for part in parts),
            "normalisation": normalisation,
        },
    )
    rows = [
        {
            "run": part.name,
            "weight": part.weight,
            "features": len(part.run["feature_id"].unique()),
            "clips": len(part.run["clip_id"].unique()),
        }
        for part in parts
    ]
    facts = {
        "clips": len(fused["clip_id"].unique()),
        "features": len(fused["feature_id"].unique()),
        "normalisation": normalisation,
        "seconds": seconds,
        "files": [str(file) for file in files],
    }
    if as_json:
        print_json({**facts, "runs": rows})
        return
    print_table(["run", "weight", "features", "clips"], [list(row.values()) for row in rows])
    print_facts("Fused", {**facts, "files": ", ".join(map(str, files))})
