"""``dsdi rank`` and ``evaluate``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from dsdi_ray.cli.options import (
    Address,
    Description,
    Fps,
    Json,
    Pool,
    Priority,
    Tag,
    Team,
    TrainingType,
    bounded,
)
from dsdi_ray.cli.output import json_alone, print_facts, print_json, print_reasons, print_table


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("rank")(rank)
    app.command("evaluate")(evaluate)


def rank(
    store: Annotated[str, typer.Argument(help="Score store.")],
    ensemble: Annotated[
        str, typer.Option("--ensemble", "-e", help="Ensemble bundle: folder or URI.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the run's files.")],
    archive: Annotated[
        str | None,
        typer.Option(
            "--archive",
            help="Rank only the clips of this manifest or folder; default: all that the store has.",
        ),
    ] = None,
    pool: Pool = "max",
    order: Annotated[
        Literal["frame_first", "clip_first"],
        typer.Option("--order", help="Where members are averaged: per frame, or per clip."),
    ] = "frame_first",
    top: Annotated[int, typer.Option("--top", min=1, help="Clips per feature.")] = 1000,
    min_coverage: Annotated[
        float,
        typer.Option(
            callback=bounded("--min-coverage", low=0, high=1),
            help="Leave out clips of which less of the frames decoded, 0 to 1.",
        ),
    ] = 0.0,
    fps: Fps = 10.0,
    tag: Tag = "dsdi",
    description: Description = "",
    team: Team = "DSDI_RAY",
    training_type: TrainingType = "L",
    priority: Priority = 1,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Rank the clips of a store for each feature: run.parquet, run.trec and run.xml.

    No pixel is touched; another pool or ensemble of scored members is a matter of seconds. A store
    keeps clips whose files are gone or were renamed: --archive says which count.

    Example: dsdi rank scores/ --ensemble ensembles/two --out runs/two --pool topk_mean
    """
    from dsdi_ray.distributed.index import load_archive
    from dsdi_ray.distributed.rank import rank_archive
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.storage.bundles import read_ensemble
    from dsdi_ray.storage.runs import write_run_files
    from dsdi_ray.storage.trecvid import TrecvidRun
    from dsdi_ray.vision.decode import DecodeSettings

    about = TrecvidRun(
        team=team, training_type=training_type, priority=priority, description=description
    )
    members = read_ensemble(ensemble)
    with json_alone(as_json), ray_session(address=address, has_state_api=False):
        ranking = rank_archive(
            store,
            ensemble=members,
            decode_id=DecodeSettings(fps=fps).decode_id,
            pool=pool,
            order=order,
            top=top,
            min_coverage=min_coverage,
            clip_ids=None if archive is None else load_archive(archive)["clip_id"],
        )
    files = write_run_files(
        ranking.run,
        out,
        taxonomy=members.taxonomy,
        tag=tag,
        about=replace(about, elapsed_seconds=ranking.seconds),
        metadata=ranking.made_of,
    )
    facts = {
        "clips": ranking.num_clips,
        "features": len(members.taxonomy.features),
        "seconds": ranking.seconds,
        "files": [str(file) for file in files],
        "unranked": ranking.unranked,
    }
    if as_json:
        print_json(facts)
        return
    print_facts("Ranked", {**facts, "files": ", ".join(map(str, files)), "unranked": None})
    print_reasons("not ranked", ranking.unranked, see=f"dsdi outcomes {store}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="run.parquet, run.trec or run.xml.")],
    qrels: Annotated[Path, typer.Option("--qrels", "-q", help="TREC qrels: topic iter docno rel.")],
    cutoff: Annotated[
        int, typer.Option("--cutoff", "-M", min=1, help="Clips per feature that count.")
    ] = 1000,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete", "-c", help="Features that the run lacks count as 0 (trec_eval -c)."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Average precision per feature and their mean, as trec_eval computes them.

    Example: dsdi evaluate runs/two/run.parquet --qrels qrels.txt
    """
    from dsdi_ray.report.evaluation import evaluate_run
    from dsdi_ray.storage.runs import read_run
    from dsdi_ray.storage.trec import read_qrels

    evaluation = evaluate_run(read_run(run), read_qrels(qrels), cutoff=cutoff, complete=complete)
    if as_json:
        print_json(evaluation)
        return
    rows = [[f.feature_id, f.feature or "", f.num_rel, f.ap, f.chance] for f in evaluation.features]
    print_table(["feature", "name", "relevant", "AP", "chance"], rows)
    typer.echo(
        f"mAP {evaluation.map:.4f} over {len(rows)} features, chance {evaluation.chance:.4f}"
    )
