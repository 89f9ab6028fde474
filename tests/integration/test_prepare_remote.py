"""Images on a server of S3's protocol, behind a proxy with faults."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_servers import CONTROL, faulty_proxy, s3_server
from PIL import Image
from test_remote import client, dsdi, run_steps, upload

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

NUM_IMAGES = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in LADI's layout, a tar of them, and answers for one more."""
    root = tmp_path_factory.mktemp("ladi")
    random = np.random.default_rng(0)
    lines = ["url\tWorkerId\tAnswer"]
    for i in range(NUM_IMAGES + 1):
        file = root / "bucket/Images/FEMA_CAP/9073" / f"61382{i % 2}" / f"DSC_{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        if i < NUM_IMAGES:
            Image.fromarray(random.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(file)
        url = f"https://ladi.s3-us-west-2.amazonaws.com/{file.relative_to(root / 'bucket')}"
        lines.append(f"{url}\tW1\t['damage:flood/water']")
    (root / "answers.tsv").write_text("\n".join(lines))
    with tarfile.open(root / "bucket/all.tar", "w") as tar:
        tar.add(root / "bucket/Images", "Images")
    return root


@pytest.fixture(scope="module")
def results(place: Path) -> Iterator[dict[str, Any]]:
    """What each command printed as JSON, and its error; and the addresses that were asked for."""
    with s3_server() as server, faulty_proxy(server) as proxy:
        client(server).create_dir("ladi")
        upload(place / "bucket", "ladi", server)
        environment = {
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_REGION": "us-east-1",
            "DSDI_MAX_ATTEMPTS": "2",
        }
        prepare = ("prepare", place / "answers.tsv", "--short-side-px", 40, "--split", "flight")
        anonymous = (*prepare, "--images", "s3://anonymous@ladi/Images")
        hiccups = {"DSC_0": [503, 0], "DSC_1": [503]}
        steps = {
            "hiccups": ["faults", proxy.url + CONTROL, hiccups],
            "first": dsdi(*anonymous, "-o", place / "far"),
            "mended": ["faults", proxy.url + CONTROL, {"DSC_2": [403]}],
            "forbidden": dsdi(*anonymous, "-o", place / "forbidden"),
            "allowed": ["faults", proxy.url + CONTROL, {}],
            "far": dsdi(*anonymous, "-o", place / "far"),
            "again": dsdi(*anonymous, "-o", place / "far"),
            "tar": dsdi(*prepare, "--images", "s3://anonymous@ladi/all.tar", "-o", place / "tar"),
            "near": dsdi(*prepare, "--images", place / "bucket", "-o", place / "near"),
        }
        done = run_steps(list(steps.values()), environment)
        commands = [name for name, step in steps.items() if step[0] == "dsdi"]
        yield {
            **dict(zip(commands, done, strict=True)),
            "requests": [p for _, p, _ in proxy.requests],
        }


def test_a_server_that_is_down_for_an_image_ends_the_job_until_it_is_back(results):
    output, mistake = results["first"]
    assert output is None
    assert "StoreError: 1 of 7 images could not be had" in mistake
    assert "DSC_1.jpg" in mistake
    assert "503" in mistake
    assert results["far"][0]["num_images"] == NUM_IMAGES


def test_an_image_that_is_not_there_or_not_given_is_missing(results, place):
    assert (results["far"][0]["num_missing"], results["forbidden"][0]["num_missing"]) == (1, 2)
    report = json.loads((place / "forbidden/report.json").read_text())
    reasons = [image["reason"] for image in report["missing_images"]]
    assert "ACCESS_DENIED" in reasons[0]
    assert "404" in reasons[1]


def test_the_set_is_that_of_local_images_and_of_a_tar(results):
    assert len({results[name][0]["prepared_id"] for name in ("far", "near", "tar")}) == 1


def test_a_bucket_whose_images_are_named_by_url_is_not_listed(results):
    assert not [path for path in results["requests"] if "list-type" in path]


def test_a_set_that_is_complete_asks_the_server_nothing_again(results):
    assert results["again"][0]["reused"]
