"""Members of a list of recipes, trained side by side over a cluster's GPUs, or a machine's cores.

On this machine::

    python jobs/train_members.py jobs/recipes/a01.yaml jobs/recipes/b02.yaml \
        --data prepared/ --out members/

On a cluster, with paths that every node sees (see ``cluster/README.md``)::

    ray job submit --working-dir . -- python jobs/train_members.py jobs/recipes/*.yaml \
        --data /shared/prepared --out /shared/members

Each recipe gets one GPU, or a share of the cores; the others wait for their turn. The same command
goes on where it stopped: members that are complete are kept, others go on from their last epoch. A
recipe that fails does not end the others; the table says why, and the exit status is 1. One member
over several GPUs is ``dsdi train --workers``.
"""

from pathlib import Path
from typing import Annotated

import typer

from dsdi_ray.cli.job import job_app, run_job
from dsdi_ray.cli.options import Address, Gpu, Json, Overrides
from dsdi_ray.cli.output import json_alone, print_json, print_table
from dsdi_ray.config import load_recipe
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.distributed.train_members import TrainOutcome, train_each

app = job_app()


@app.command()
def main(
    recipes: Annotated[list[Path], typer.Argument(help="Recipe YAML files.")],
    data: Annotated[Path, typer.Option("--data", help="Prepared set.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the members, each by its recipe's name.")
    ],
    *,
    overrides: Overrides = None,
    gpu: Gpu = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Train a member of each recipe; the same command goes on where it stopped.

    Example: python jobs/train_members.py jobs/recipes/a01.yaml --data prepared/ --out members/
    """
    # All recipes are read before the first is trained: a wrong key is a mistake now.
    loaded = [load_recipe(recipe, overrides or []) for recipe in recipes]
    with json_alone(as_json), ray_session(address=address):
        outcomes = train_each(loaded, data=data, out=out, use_gpu=gpu)
    if as_json:
        print_json([as_row(outcome) for outcome in outcomes])
    else:
        rows = [list(as_row(outcome).values()) for outcome in outcomes]
        print_table(list(as_row(outcomes[0])), rows)
    if any(outcome.error is not None for outcome in outcomes):
        raise typer.Exit(1)


def as_row(outcome: TrainOutcome) -> dict[str, object]:
    """A recipe's line of the table."""
    summary = outcome.summary
    if summary is None:
        status = f"failed: {' '.join(str(outcome.error).split())[:300]}"
    else:
        status = "was complete" if summary.reused else "trained"
    return {
        "recipe": outcome.recipe,
        "LRAP": summary.lrap if summary else None,
        "mAP": summary.map if summary else None,
        "epochs": summary.epochs if summary else None,
        "selected": summary.best_epoch if summary else None,
        "seconds": summary.seconds if summary else None,
        "status": status,
        "member": str(summary.out) if summary else None,
    }


if __name__ == "__main__":
    run_job(app)
