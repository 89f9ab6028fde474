"""What options take: numbers out of range and words that there are not are refused before anything runs."""

from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from typer.testing import CliRunner

from dsdi_ray.cli import app, archive, fuse, prepare, reproduce, results, training
from dsdi_ray.cli.demo import load_job
from dsdi_ray.cli.options import MAX_FPS, bounded
from dsdi_ray.errors import ConfigError, UserError
from dsdi_ray.method.fusion import NORMALISATIONS, ORDERS
from dsdi_ray.method.pooling import POOLS
from dsdi_ray.method.quick_metrics import METRICS
from dsdi_ray.method.selection import WEIGHTS
from dsdi_ray.storage.prepare_plan import SPLITS
from dsdi_ray.vision.decode import DecodeSettings, Status

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


@pytest.mark.parametrize(
    ("command", "option", "known"),
    [
        (results.rank, "pool", POOLS),
        (results.rank, "order", ORDERS),
        (load_job("score_archive").main, "pool", POOLS),
        (load_job("rescore_archive").main, "pool", POOLS),
        (fuse.fuse, "normalisation", NORMALISATIONS),
        (reproduce.reproduce, "normalisation", [*NORMALISATIONS, None]),
        (training.select, "metric", METRICS),
        (training.select, "weights", WEIGHTS),
        (prepare.prepare, "split", [*SPLITS, None]),
        (archive.outcomes, "status", [*get_args(Status), None]),
    ],
)
def test_an_option_offers_the_words_that_the_method_knows(command, option, known):
    assert _words(get_type_hints(command, include_extras=True)[option]) == set(known)


def _words(hint):
    """The words of a Literal, None for NoneType, in unions too."""
    if hint is type(None):
        return {None}
    parts = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return {hint} if not parts else set().union(*map(_words, parts))


def test_a_word_that_there_is_not_is_a_mistake_that_lists_the_others():
    done = CliRunner().invoke(app, [*COMMANDS["--fps"], "--pool", "median"])
    assert done.exit_code == 2
    assert "'median' is not one of 'max'" in done.output


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["rank", "store", "-e", "e", "--out", "s3://bucket/run"], "--out"),
        (["train", "gs://bucket/recipe.yaml"], "recipe"),
        (["ensemble", "build", "m", "--out", "https://host/e"], "--out"),
    ],
)
def test_a_uri_is_refused_where_only_a_local_path_will_do(tmp_path, monkeypatch, arguments, name):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, UserError), done.output
    assert str(done.exception).startswith(f"{name} must be a path on this machine")
    assert not list(tmp_path.iterdir())
