"""Numbers that options take: what is out of range is refused before anything runs."""

import pytest
from typer.testing import CliRunner

from dsdi_ray.cli import app
from dsdi_ray.cli.options import MAX_FPS, bounded
from dsdi_ray.errors import ConfigError
from dsdi_ray.vision.decode import DecodeSettings

COMMANDS = {
    "--fps": ["rank", "store", "-e", "e", "-o", "out"],
    "--keep-fps": ["store", "gc", "store", "-k", "e", "--keep-fps", "10"],
    "--timeout-seconds": ["score", "footage", "-e", "e", "-s", "store"],
    "--min-coverage": ["rank", "store", "-e", "e", "-o", "out"],
}


@pytest.mark.parametrize(
    ("option", "numbers", "rule"),
    [
        ("--fps", ["0", "-1", "nan", "inf", "1001"], "(0, 1000]"),
        ("--keep-fps", ["0", "nan"], "(0, 1000]"),
        ("--timeout-seconds", ["0", "nan", "inf", "1e300"], "[1, 86400]"),
        ("--min-coverage", ["-0.1", "1.1", "nan"], "[0, 1]"),
    ],
)
def test_a_number_out_of_range_is_a_mistake_that_names_the_option(option, numbers, rule):
    for number in numbers:
        done = CliRunner().invoke(app, [*COMMANDS[option], option, number])
        assert isinstance(done.exception, ConfigError), done.output
        assert str(done.exception) == f"{option} must be in {rule}, got {float(number):g}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"fps": 0},
        {"fps": float("nan")},
        {"fps": MAX_FPS + 1},
        {"chunk_frames": 0},
        {"progress_timeout_seconds": 0},
    ],
)
def test_the_settings_themselves_refuse_what_the_options_do(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DecodeSettings(**wrong)
    assert DecodeSettings(fps=MAX_FPS).fps == MAX_FPS


def test_numbers_in_range_pass():
    check = bounded("--x", low=0, high=2, low_counts=False)
    assert [check(value) for value in (0.1, 2, [1.0, 2.0], None)] == [0.1, 2, [1.0, 2.0], None]
