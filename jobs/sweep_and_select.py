"""From a prepared set to an ensemble: a sweep of recipes, then the members that do best together.

On this machine, with the small sweep and synthetic pictures, or with one's own::

    python jobs/sweep_and_select.py --out sweep-output
    python jobs/sweep_and_select.py --data prepared/ --sweep jobs/sweeps/losses.yaml --out losses/

On a cluster, with paths that every node sees (see ``cluster/README.md``)::

    ray job submit --working-dir . -- python jobs/sweep_and_select.py --data /shared/prepared \
        --sweep jobs/sweeps/losses.yaml --out /shared/losses

The same command goes on where it stopped. Every step can be run by itself with the command named
beside it.
"""

from pathlib import Path
from typing import Annotated

import typer

from dsdi_ray.cli.job import job_app, run_job, say_stage
from dsdi_ray.cli.options import Address, Gpu
from dsdi_ray.cli.selection import print_selection
from dsdi_ray.cli.sweep import print_sweep
from dsdi_ray.distributed.demo_archive import make_archive
from dsdi_ray.distributed.ensemble_selection import SelectionSettings, select_ensemble
from dsdi_ray.distributed.prepare import prepare_set
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.distributed.sweep import run_sweep
from dsdi_ray.storage.member_library import find_bundles, read_library
from dsdi_ray.sweep_config import load_sweep
from dsdi_ray.taxonomy import load_taxonomy

SMOKE = Path(__file__).parent / "sweeps" / "smoke.yaml"

app = job_app()


@app.command()
def main(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all that is made.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Prepared set; without one pictures are rendered.")
    ] = None,
    sweep: Annotated[Path, typer.Option("--sweep", help="Sweep YAML.")] = SMOKE,
    size: Annotated[int, typer.Option("--size", min=1, help="Members of the ensemble.")] = 4,
    images: Annotated[int, typer.Option("--images", min=40, help="Pictures to render.")] = 600,
    gpu: Gpu = None,
    address: Address = None,
) -> None:
    """Sweep, then select an ensemble; the same command goes on where it stopped.

    Example: python jobs/sweep_and_select.py --data prepared/ --out sweep-output
    """
    loaded = load_sweep(sweep)
    out = out.resolve()
    with ray_session(address=address):
        if data is None:
            say_stage("1/3 Render crowd-labelled images and prepare them (dsdi prepare)")
            archive = make_archive(out / "archive", num_images=images, num_clips=1, seed=0)
            prepared = prepare_set(
                archive.answers_tsv,
                images=[archive.images_dir],
                out=out / "prepared",
                taxonomy=load_taxonomy("ladi_v1"),
            )
            data = prepared.out

        say_stage("2/3 Train the trials (dsdi sweep)")
        print_sweep(run_sweep(loaded, data=data, out=out / "sweep", use_gpu=gpu))

        say_stage("3/3 Select the members that do best together (dsdi ensemble select)")
        bundles = find_bundles([out / "sweep"])
        settings = SelectionSettings(
            size=min(size, len(bundles)), metric="lrap" if loaded.metric == "lrap" else "map"
        )
        report = select_ensemble(read_library(bundles), settings, out=out / "ensemble")
        print_selection(report)


if __name__ == "__main__":
    run_job(app)
