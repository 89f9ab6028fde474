"""What commands print."""

from dsdi_ray.cli.output import print_table


def test_a_table_shows_names_as_they_are_brackets_and_colons_included(capsys):
    names = ["cam[/x].mp4", "flood[north].mp4", "[bold]a", ":fire:.mp4"]
    print_table(["clip", "[red]frames"], [[name, 1] for name in names])
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*names, "[red]frames"])
