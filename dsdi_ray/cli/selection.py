"""How a selection is shown."""

from typing import TYPE_CHECKING

import typer

from dsdi_ray.cli.output import print_table

if TYPE_CHECKING:
    from dsdi_ray.storage.selection_files import SelectionReport

_METRIC_NAMES = {"map": "mAP", "lrap": "LRAP"}


def print_selection(report: "SelectionReport") -> None:
    """Print the steps, what the ensemble is compared with, its members and what to know of it."""
    metric = _METRIC_NAMES[report.settings["metric"]]
    typer.secho(
        f"Chosen {len(report.chosen)} of {report.num_members} members by {metric} on "
        f"{report.num_selecting:,} images; {report.num_held_back:,} are held back "
        f"(divided by {report.divided_by})",
        bold=True,
    )
    if report.settings["bags"] == 1:
        print_table(
            ["step", "member added", metric, "gain", "held back", "in the ensemble"],
            [
                [
                    step.step,
                    step.member,
                    f"{step.selecting:.4f}",
                    "" if step.gain is None else f"{step.gain:+.4f}",
                    f"{step.held_back:.4f}",
                    step.is_kept,
                ]
                for step in report.steps
            ],
        )
    print_table(
        ["", metric, "held back"],
        [[c.system, f"{c.selecting:.4f}", f"{c.held_back:.4f}"] for c in report.compared],
    )
    _print_members(report, metric)
    for name, reason in report.left_out:
        typer.echo(f"left out: {name}: {reason}")
    for note in report.notes:
        typer.secho(f"note: {note}", fg="yellow")
    if report.refitted:
        typer.echo(f"{len(report.refitted)} members were trained anew on all images:")
        for path, weight in report.refitted:
            typer.echo(f"  weight {weight:g}  {path}")
        typer.echo("No image is held back from these: the numbers above are of those they replace.")
    typer.echo(f"Ensemble {report.out}")


def _print_members(report: "SelectionReport", metric: str) -> None:
    """The chosen members, alone and beside each other."""
    numbers = [str(i + 1) for i in range(len(report.chosen))]
    print_table(
        ["", "chosen member", "weight", f"{metric} alone", "held back"],
        [
            [number, m.member, f"{m.weight:g}", f"{m.selecting:.4f}", f"{m.held_back:.4f}"]
            for number, m in zip(numbers, report.chosen, strict=True)
        ],
    )
    typer.echo("Correlation of their logits, mean over classes:")
    print_table(
        ["", *numbers],
        [
            [number, *("-" if value is None else f"{value:.2f}" for value in row)]
            for number, row in zip(numbers, report.correlation, strict=True)
        ],
    )
