"""``dsdi sweep`` and ``dsdi sweep show``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from dsdi_ray.cli.commands import CommandLine
from dsdi_ray.cli.options import Address, Gpu, Json, Mlflow
from dsdi_ray.cli.output import duration, json_alone, print_facts, print_json, print_table

if TYPE_CHECKING:
    from dsdi_ray.distributed.sweep import SweepSummary

_SHOWN_TRIALS = 20


class _RunsByDefault(TyperGroup):
    """``dsdi sweep SWEEP.yaml`` is ``dsdi sweep run SWEEP.yaml``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    sweep = CommandLine(
        cls=_RunsByDefault,
        no_args_is_help=True,
        help="Hyperparameter searches: `dsdi sweep SWEEP.yaml --data SET --out DIR`.",
    )
    sweep.command("run")(run)
    sweep.command("show")(show)
    app.add_typer(sweep, name="sweep")


def run(
    sweep: Annotated[Path, typer.Argument(help="Sweep YAML, such as jobs/sweeps/losses.yaml.")],
    data: Annotated[Path, typer.Option("--data", help="Prepared set.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the sweep.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a value of the sweep: --set search.num_samples=20 (repeatable)."
        ),
    ] = None,
    gpu: Gpu = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run trials again that failed.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the trials, count the slots and estimate the time."),
    ] = False,
    mlflow: Mlflow = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Train many variants of a recipe and compare them; the same command goes on where it stopped.

    A sweep's file names a recipe, the keys that are varied and their values. Trials run side by
    side, one GPU or core each unless `resources` says otherwise; weak ones are stopped early. What
    it leaves in OUT: trials.parquet, index.html, figures/, and for each finished trial its member
    in trials/NNNN/member, for `dsdi ensemble select`.

    Example: dsdi sweep jobs/sweeps/losses.yaml --data prepared/ --out sweeps/losses
    """
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.distributed.sweep import run_sweep
    from dsdi_ray.distributed.sweep_plan import plan_sweep
    from dsdi_ray.sweep_config import load_sweep

    loaded = load_sweep(sweep, overrides or [])
    if dry_run:
        with json_alone(as_json), ray_session(address=address):
            plan = plan_sweep(loaded, data=data, out=out, use_gpu=gpu)
        if as_json:
            print_json(plan)
            return
        print_table(["trial", "point", "seed", "status"], plan.trials)
        facts = {
            "trials": f"{plan.num_trials}, {plan.num_waiting} to run",
            "at the same time": f"{plan.num_slots} ({plan.device})",
            "epochs": f"at most {plan.num_epochs:,} to train",
            "time": f"about {duration(plan.estimated_seconds)} if none is stopped early",
        }
        print_facts("Dry run", facts)
        return
    with json_alone(as_json), ray_session(address=address):
        summary = run_sweep(
            loaded, data=data, out=out, use_gpu=gpu, mlflow=mlflow, retry_failed=retry_failed
        )
    if as_json:
        print_json(summary)
    else:
        print_sweep(summary)


def show(
    out: Annotated[Path, typer.Argument(help="Folder of a sweep.")],
    every: Annotated[
        bool, typer.Option("--all", help=f"All trials, not only the best {_SHOWN_TRIALS}.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the trials of a sweep, the best first, while it runs or afterwards.

    Also draws the figures and the page anew. Example: dsdi sweep show sweeps/losses
    """
    from dsdi_ray.distributed.sweep_plan import show_sweep

    shown = show_sweep(out)
    if as_json:
        trials = [dict(zip(shown.table.columns, row, strict=True)) for row in shown.table.rows]
        print_json({"counts": shown.counts, "page": str(shown.page), "trials": trials})
        return
    rows = shown.table.rows if every else shown.table.rows[:_SHOWN_TRIALS]
    print_table(shown.table.columns, rows)
    counts = ", ".join(f"{n} {status}" for status, n in shown.counts.items())
    print_facts(f"Sweep {out}", {"trials": counts, "page": str(shown.page)})


def print_sweep(summary: "SweepSummary") -> None:
    """Print the best trials of a sweep that is over, and what it came to."""
    from dsdi_ray.distributed.sweep_plan import sweep_table

    table = sweep_table(summary.out)
    print_table(table.columns, table.rows[:_SHOWN_TRIALS])
    counts = ", ".join(f"{n} {status}" for status, n in sorted(summary.counts.items()))
    point = ", ".join(f"{key}={value}" for key, value in (summary.best_point or {}).items())
    best = None
    if summary.best_value is not None:
        best = f"{summary.metric} {summary.best_value:.4f}, trial {summary.best_trial}: {point}"
    print_facts(
        "Swept" if summary.num_run else "Nothing to do, all trials are over",
        {
            "trials": counts,
            "best": best,
            "member": str(summary.best_member) if summary.best_member else None,
            "seconds": summary.seconds,
            "page": str(summary.out / "index.html"),
            "table": str(summary.out / "trials.parquet"),
        },
    )
