"""``dsdi train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsdi_ray.cli.options import Address, Gpu, Json, Mlflow, Overrides
from dsdi_ray.cli.output import duration, json_alone, print_facts, print_json, print_yaml

if TYPE_CHECKING:
    from dsdi_ray.config import Recipe


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("train")(train)


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe YAML, such as jobs/recipes/a01.yaml.")],
    data: Annotated[Path | None, typer.Option("--data", help="Prepared set.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the member bundle.")
    ] = None,
    overrides: Overrides = None,
    workers: Annotated[
        int, typer.Option("--workers", help="Data-parallel workers that share each batch.")
    ] = 1,
    gpu: Gpu = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Go on from the last epoch, or start over."),
    ] = True,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the whole recipe as YAML, do no more.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what there is to do and estimate the time."),
    ] = False,
    mlflow: Mlflow = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Train one member with Ray Train; a killed run resumes with the same command.

    OUT is the member of the best epoch (recipe key `select`), OUT/last that of the last one,
    OUT/snapshots/cycle-K those of a cyclic schedule. OUT/history.jsonl and OUT/tensorboard have the
    metrics of each epoch.

    Example: dsdi train jobs/recipes/a01.yaml --data prepared/ --out members/a01 --set epochs=10
    """
    from dsdi_ray.config import load_recipe
    from dsdi_ray.errors import ConfigError

    resolved = load_recipe(recipe, overrides or [])
    if print_config:
        print_yaml(resolved.model_dump(mode="json"))
        return
    if data is None or (out is None and not dry_run):
        raise ConfigError("--data and --out must be given")
    if dry_run:
        _print_plan(resolved, data, workers=workers, gpu=gpu, address=address, as_json=as_json)
        return
    from dsdi_ray.distributed.network_libraries import load_meanwhile
    from dsdi_ray.distributed.session import ray_session

    assert out is not None
    load_meanwhile()
    with json_alone(as_json), ray_session(address=address, has_state_api=False):
        from dsdi_ray.distributed.train import train_member

        summary = train_member(
            resolved,
            data=data,
            out=out,
            num_workers=workers,
            use_gpu=gpu,
            resume=resume,
            mlflow=mlflow,
        )
    if as_json:
        print_json(summary)
        return
    print_facts(
        "Nothing to do, the member is complete" if summary.reused else "Trained",
        {
            "backbone": summary.backbone,
            "epochs": f"{summary.epochs}, selected {summary.best_epoch}",
            "LRAP": summary.lrap,
            "mAP (validation)": summary.map,
            "seconds": summary.seconds,
            "member": f"{summary.out} (id {summary.member_id})",
        },
    )


def _print_plan(
    recipe: "Recipe",
    data: Path,
    *,
    workers: int,
    gpu: bool | None,
    address: str | None,
    as_json: bool,
) -> None:
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.distributed.train_plan import plan_training

    with json_alone(as_json), ray_session(address=address, has_state_api=False):
        plan = plan_training(recipe, data=data, num_workers=workers, use_gpu=gpu)
    if as_json:
        print_json(plan)
        return
    peak = "" if plan.peak_mib is None else f"; {plan.peak_mib:,.0f} MiB seen on the GPU"
    print_facts(
        "Dry run",
        {
            "images": f"{plan.num_train:,} to train, {plan.num_validation:,} to validate",
            "input": " x ".join(map(str, plan.micro_batch))
            + f", {recipe.accumulate} a step on each of {workers} worker(s)",
            "network": f"{plan.num_parameters / 1e6:,.2f} M parameters, "
            f"{plan.gigaflops:,.2f} GFLOPs a picture forward",
            "steps": f"{plan.steps_per_epoch:,} an epoch, {plan.num_steps:,} in {plan.epochs} epochs",
            f"memory ({plan.device})": f"{plan.weights_mib + plan.activations_mib:,.0f} MiB: "
            f"{plan.weights_mib:,.0f} for weights, {plan.activations_mib:,.0f} for activations{peak}",
            "pictures": f"{plan.pictures_mib:,.0f} MiB of memory on each "
            f"{'node' if plan.pictures_are_shared else 'worker'}",
            "enlarged": f"{plan.num_enlarged:,} pictures have a short side of less than "
            f"{recipe.input_px} px: `dsdi prepare --short-side-px {recipe.input_px}` keeps what "
            "larger originals hold"
            if plan.num_enlarged
            else None,
            "time": f"about {duration(plan.estimated_seconds)}, {plan.seconds_per_step:.2f} s a step",
        },
    )
