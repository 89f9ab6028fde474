"""Clips, members, manifest and store on a server of S3's protocol, by way of a proxy with faults."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from file_servers import CONTROL, CUT, Faults, faulty_proxy, file_server, s3_server
from footage import make_ensemble, write_clip, write_footage
from pyarrow import fs as pafs
from test_cli import ENVIRONMENT

from dsdi_ray.storage.score_store import ScoreStore

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]  # seventeen commands in one Ray

# Commands one after the other in one local Ray; between them the proxy is told what to do.
SCRIPT = """
import json, sys, time
from urllib.request import Request, urlopen
from typer.testing import CliRunner
from dsdi_ray.cli import app
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.storage.filesystems import write_bytes

results = []
with ray_session(num_cpus=2, has_state_api=False):
    for kind, *step in json.loads(sys.argv[1]):
        print(time.strftime("%X"), kind, step, file=sys.stderr)
        if kind == "faults":
            url, faults = step
            urlopen(Request(url, json.dumps(faults).encode(), method="PUT")).close()
        elif kind == "copy":
            write_bytes(step[1], open(step[0], "rb").read())
        else:
            done = CliRunner().invoke(app, step)
            error = done.exception
            mistake = type(error).__name__ + ": " + str(error) if error else ""
            results.append([json.loads(done.stdout) if done.stdout else None, mistake])
print(json.dumps(results))
"""
Step = list[Any]


def run_steps(steps: list[Step], environment: dict[str, str]) -> list[tuple[Any, str]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(steps)],
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
        env={**ENVIRONMENT, **environment},
    )
    assert done.returncode == 0, done.stderr
    return [(output, mistake) for output, mistake in json.loads(done.stdout.splitlines()[-1])]


def dsdi(*arguments: object) -> Step:
    return ["dsdi", *map(str, arguments), "--json"]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a user whose bucket ``archive`` is behind a proxy with faults."""
    with s3_server() as server, faulty_proxy(server) as proxy:
        client(server).create_dir("archive")
        yield {
            "AWS_ACCESS_KEY_ID": "user",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_REGION": "us-east-1",
            "DSDI_MAX_ATTEMPTS": "3",
            "DSDI_SCRATCH_DIR": str(tmp_path_factory.mktemp("scratch")),
        }


def client(url: str) -> pafs.S3FileSystem:
    host = url.removeprefix("http://")
    return pafs.S3FileSystem(
        access_key="user", secret_key="secret", endpoint_override=host, scheme="http",
        region="us-east-1", allow_bucket_creation=True,
    )  # fmt: skip


def upload(folder: Path, path: str, url: str) -> None:
    pafs.copy_files(
        str(folder),
        path,
        source_filesystem=pafs.LocalFileSystem(),
        destination_filesystem=client(url),
    )


def logits_by_clip(store_uri: str) -> dict[tuple[str, str, int], list[float]]:
    store = ScoreStore.open(store_uri)
    clip_of = {o["content_id"]: o["clip_id"] for o in store.latest_outcomes().to_pylist()}
    found = {}
    for file in Path(store_uri).rglob("logits/**/*.parquet"):
        member = file.parent.name
        for row in pq.read_table(file, partitioning=None).to_pylist():
            found[member, clip_of[row["content_id"]], row["frame_index"]] = row["logits"]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local")


@pytest.fixture(scope="module")
def results(s3: dict[str, str], place: Path) -> dict[str, tuple[Any, str]]:
    """What each command of one session printed as JSON, and its error."""
    footage = write_footage(place / "footage", num_clips=3)
    original = write_clip(footage / "changed.mp4", seed=8)
    write_clip(footage / "down.mp4", seed=9)
    write_clip(footage / "denied.mp4", seed=10)
    write_clip(place / "other.mp4", seed=11)
    write_clip(footage / "blocked.mp4", seed=12)
    write_clip(place / "web" / "long flight.mp4", seed=13, num_pictures=120)
    make_ensemble(place / "models", sizes=(64,))
    upload(place / "footage", "archive/footage", s3["AWS_ENDPOINT_URL"])
    upload(place / "models", "archive/models", s3["AWS_ENDPOINT_URL"])
    control = s3["AWS_ENDPOINT_URL"] + CONTROL
    remote = ("s3://archive/m.parquet", "-e", "s3://archive/models/ensemble")
    score = dsdi("score", *remote, "-s", "s3://archive/scores")
    # Each clip's first requests fail; one answer of clip2's content breaks off.
    blocked: Faults = {"blocked": [403]}
    hiccups: Faults = {"clip0": [503, 500, 0], "clip1": [503, 0], "clip2": [0, CUT, 0]}
    changed = "s3://archive/footage/changed.mp4"
    steps = {
        "original": ["copy", str(original), changed],
        "some are blocked": ["faults", control, blocked],
        "index": dsdi("index", "s3://archive/footage", "-o", "s3://archive/m.parquet"),
        "change": ["copy", str(place / "other.mp4"), changed],
        "hiccups": ["faults", control, {**hiccups, "down": [503], "denied": [403]}],
        "first": score,
        "failed": dsdi("outcomes", "s3://archive/scores", "--status", "failed"),
        "mended": ["faults", control, {}],
        "changed back": ["copy", str(original), changed],
        "resumed": [*score, "--decoders", "1"],
        "unfindable": ["faults", control, {"scores": [503]}],
        "store is down": dsdi("outcomes", "s3://archive/scores"),
        "findable": ["faults", control, {}],
        "again": score,
        "rank": dsdi("rank", "s3://archive/scores", *remote[1:], "-o", place / "run"),
        "local score": dsdi(
            "score", footage, "-e", place / "models/ensemble", "-s", place / "scores",
            "--decoders", 1,
        ),
        "local rank": dsdi(
            "rank", place / "scores", "-e", place / "models/ensemble", "-o", place / "local"
        ),
    }  # fmt: skip
    with file_server(place / "web") as web:
        steps |= {
            "web index": dsdi(
                "index", f"{web.url}/long%20flight.mp4", "-o", place / "windows.parquet",
                "--window-seconds", 1.5,
            ),
            "web score": dsdi(
                "score", place / "windows.parquet", "-e", place / "models/ensemble",
                "-s", place / "windows",
            ),
            "web outcomes": dsdi("outcomes", place / "windows"),
        }  # fmt: skip
        done = run_steps(list(steps.values()), s3)
        num_whole = sum(headers["Range"] != "bytes=0-0" for *_, headers in web.requests)
    commands = [name for name, step in steps.items() if step[0] == "dsdi"]
    return {**dict(zip(commands, done, strict=True)), "whole files sent": (num_whole, "")}


def test_objects_are_indexed_with_what_their_headers_say(results, place):
    summary, mistake = results["index"]
    assert mistake == ""
    # The empty one, the one cut short, and one that the server does not give.
    assert (summary["num_clips"], summary["num_unreadable"]) == (9, 3)
    seconds = (20 + 80 + 140 + 3 * 45) / 30  # of clip0, clip1, clip2 and three others
    assert summary["hours"] == pytest.approx(seconds / 3600)


def test_a_server_that_fails_for_a_while_costs_nothing_but_time(results):
    (summary, mistake) = results["first"]
    assert mistake == ""
    assert summary["num_ok"] == 3


def test_what_cannot_be_had_or_has_changed_is_an_outcome_with_its_reason(results):
    errors = {row["clip_id"]: row["error"] for row in results["failed"][0]}
    assert set(errors) == {"changed", "cut", "down", "denied", "blocked", "empty"}
    assert errors["changed"].startswith("changed since it was indexed")
    assert "HTTP status 503" in errors["down"]
    assert "ACCESS_DENIED" in errors["denied"]
    assert "ACCESS_DENIED" in errors["blocked"]
    assert errors["empty"] == "the file is empty (0 bytes)"


def test_clips_that_can_be_had_again_are_scored_by_the_next_run(results):
    assert (results["resumed"][0]["num_ok"], results["resumed"][0]["num_failed"]) == (6, 3)


def test_a_further_run_scores_nothing(results):
    again = results["again"][0]
    assert (again["num_clips_scored"], again["num_pairs_missing"], again["num_ok"]) == (0, 0, 6)


def test_a_store_that_cannot_be_reached_is_one_clear_line(results):
    mistake = results["store is down"][1]
    assert mistake.startswith("DataError: score store s3://archive/scores")
    assert "HTTP status 503" in mistake


def test_scores_are_those_of_local_files_bit_for_bit(results, s3, place):
    pafs.copy_files(
        "archive/scores",
        str(place / "copied"),
        source_filesystem=client(s3["AWS_ENDPOINT_URL"]),
        destination_filesystem=pafs.LocalFileSystem(),
    )
    far, near = logits_by_clip(str(place / "copied")), logits_by_clip(str(place / "scores"))
    assert len(far) > 100
    assert far.keys() == {key for key in near if key[1] != "blocked"}
    assert all(np.array_equal(far[key], near[key]) for key in far)


def test_ranks_are_those_of_local_files(results, place):
    runs = [
        {
            (row["feature"], row["clip_id"]): row["score"]
            for row in pq.read_table(place / folder / "run.parquet").to_pylist()
            if row["clip_id"] != "blocked"
        }
        for folder in ("run", "local")
    ]
    assert results["rank"][0]["clips"] == 6
    assert runs[0] == runs[1]


def test_nothing_is_left_in_scratch_but_the_weights(results, s3):
    environment = {**os.environ, **s3}
    code = "from dsdi_ray.storage.scratch import Scratch; Scratch().close()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    kept = [p for p in Path(s3["DSDI_SCRATCH_DIR"]).rglob("*") if p.is_file()]
    assert [p.suffix for p in kept if p.suffix != ".lock"] == [".safetensors"]


def test_windows_of_a_file_on_a_web_server_are_one_fetch(results):
    assert results["web index"][0]["num_clips"] == 3
    assert results["web score"][0]["num_ok"] == 3
    frames = {row["clip_id"]: row["frames_scored"] for row in results["web outcomes"][0]}
    assert frames == {"long_flight@0-1.5": 15, "long_flight@1.5-3": 15, "long_flight@3-": 10}
    assert 2 <= results["whole files sent"][0] <= 3  # one to probe it, one per decode actor
