"""``dsdi reproduce``: the paper's tables anew."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dsdi_ray.cli.demo import jobs_folder, load_job
from dsdi_ray.cli.options import Address, Gpu, Json, Overrides, TaxonomyName
from dsdi_ray.cli.output import duration, json_alone, print_facts, print_json, print_table
from dsdi_ray.errors import ConfigError
from dsdi_ray.taxonomy import DEFAULT_TAXONOMY

if TYPE_CHECKING:
    from dsdi_ray.distributed.paper_job import Inputs, PaperJob
    from dsdi_ray.distributed.reproduction_plan import StagePlan

_EXIT_MODELS_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("reproduce")(reproduce)


def reproduce(
    answers: Annotated[
        Path | None, typer.Argument(help="LADI v1 answers TSV; not with --scale smoke.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all that is made.")] = Path(
        "paper-output"
    ),
    images: Annotated[
        list[str] | None,
        typer.Option("--images", help="Folder, .tar or URI of LADI's images (may be repeated)."),
    ] = None,
    clips: Annotated[
        str | None,
        typer.Option("--clips", help="Test shots: a folder, file, glob or URI, or a manifest."),
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option("--qrels", "-q", help="TREC qrels; without them, no mAP.")
    ] = None,
    outside_run: Annotated[
        Path | None,
        typer.Option(
            "--outside-run",
            help="Another system's run (.parquet, .trec, .txt, .run, .xml) for VAS_2 and "
            "NII_UIT_1; without it they are not made.",
        ),
    ] = None,
    normalisation: Annotated[
        Literal["none", "minmax", "rank"] | None,
        typer.Option(
            "--normalisation",
            help="Of these two; default: as jobs/runs says. XML has ranks alone and needs rank.",
        ),
    ] = None,
    weights_dir: Annotated[
        Path | None,
        typer.Option(
            "--weights-dir",
            help="Where no hub can be reached: folder of ImageNet weights, BACKBONE.safetensors "
            "each (regnety_064, hrnet_w18, resnest50d, se_ibn_resnet50).",
        ),
    ] = None,
    taxonomy: TaxonomyName = DEFAULT_TAXONOMY,
    scale: Annotated[
        Literal["paper", "smoke"],
        typer.Option(
            "--scale",
            help="paper, or smoke: tiny networks on a made-up archive.",
        ),
    ] = "paper",
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is complete and what is left.")
    ] = False,
    gpu: Gpu = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Make the paper's Tables 2 and 3 anew: OUT/paper.html has its figures beside yours.

    The 13 models are trained, the test shots scored once by all of them, the 6 submissions ranked
    or fused, and evaluated. The same command goes on where it stopped. Exits with 1 if a model
    failed; the runs that need it are listed as not made.

    Example: dsdi reproduce answers.tsv --images images/ --clips shots/ --qrels qrels.txt --out p/
    """
    from dsdi_ray.distributed.paper_job import PaperJob
    from dsdi_ray.distributed.reproduction_plan import plan_reproduction
    from dsdi_ray.distributed.session import ray_session

    job = PaperJob(
        out=out,
        jobs=jobs_folder(),
        inputs=_inputs(answers, images, clips, qrels, outside_run, is_made_up=scale != "paper"),
        scale=scale,
        taxonomy_name=taxonomy,
        weights_dir=weights_dir,
        overrides=overrides or (),
        normalisation=normalisation,
        use_gpu=gpu,
    )
    _check_outside_run(job)
    if dry_run:
        with json_alone(as_json), ray_session(address=address):
            stages = plan_reproduction(job)
        _print_plan(stages, as_json=as_json)
        return
    with json_alone(as_json):
        summary = load_job("reproduce_paper").run(job, address=address)
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary)
    if any(model.problem for model in summary.models):
        raise typer.Exit(_EXIT_MODELS_FAILED)


def _inputs(
    answers: Path | None,
    images: list[str] | None,
    clips: str | None,
    qrels: Path | None,
    outside_run: Path | None,
    *,
    is_made_up: bool,
) -> "Inputs | None":
    from dsdi_ray.distributed.paper_job import Inputs

    if is_made_up and not (answers or images or clips or qrels or outside_run):
        return None
    if answers is None or not images or clips is None:
        raise ConfigError(
            "ANSWERS, --images and --clips must be given, or --scale smoke and none of them"
        )
    return Inputs(answers=answers, images=images, clips=clips, qrels=qrels, outside_run=outside_run)


def _check_outside_run(job: "PaperJob") -> None:
    """Find now, not once all is trained, that a run cannot be fused as it is."""
    from dsdi_ray.storage.fused_runs import check_probabilities

    outside = job.inputs and job.inputs.read_outside(job.load_taxonomy())
    kinds = {
        job.normalisation or one.fusion.normalisation
        for one in job.load_submissions()
        if one.fusion and any(part.outside for part in one.fused_parts)
    }
    if outside and "none" in kinds:
        check_probabilities(outside)


def _print_plan(stages: "list[StagePlan]", *, as_json: bool) -> None:
    if as_json:
        print_json([vars(stage) for stage in stages])
        return
    print_table(
        ["stage", "part", "complete", "what", "estimated time"],
        [[s.stage, s.part, s.is_complete, s.detail, duration(s.estimated_seconds)] for s in stages],
    )


def _print_summary(summary: Any) -> None:
    """Print the summary of the job, whose class is the job's."""
    print_table(
        ["model", "LRAP, paper", "LRAP, ours", "mAP (clips)", "status"],
        [
            [m.model, m.paper_lrap, m.lrap, m.clip_map, m.problem or "trained"]
            for m in summary.models
        ],
    )
    print_table(
        ["submission", "mAP, paper", "mAP, ours", "chance", "status"],
        [[s.name, s.paper_map, s.map, s.chance, s.problem or "made"] for s in summary.submissions],
    )
    if summary.warning:
        typer.secho(summary.warning, bold=True)
    print_facts(
        "The paper's tables anew",
        {
            "test clips": f"{summary.num_clips:,}, of which {summary.num_clips_failed:,} failed",
            "seconds": sum(time.seconds_now or 0.0 for time in summary.times),
            "page": summary.page,
        },
    )
