"""What became of the clips, for people: counts first, then no more rows than anyone reads."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from dsdi_ray.cli import app
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.taxonomy import taxonomy_from_dict

TWO = taxonomy_from_dict({"name": "two", "classes": ["flood", "fire"]})
NUM_CLIPS = 30_000
REASONS = {0: ("ok", None), 1: ("failed", "the file is empty (0 bytes)"), 2: ("partial", "cut off")}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ScoreStore.open_or_create(str(tmp_path_factory.mktemp("s") / "scores"), TWO)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    rows = []
    for i in range(NUM_CLIPS):
        status, error = REASONS[i % 10 if i % 10 in (1, 2) else 0]
        row = {"clip_id": f"clip{i:05}", "content_id": f"{i}", "span": "all", "decode_id": "d"}
        rows.append(row | {"status": status, "error": error, "finished_at": now, "member_ids": []})
    store.write_outcomes(rows)
    return store.uri


def shown(*arguments):
    done = CliRunner().invoke(app, ["outcomes", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.exception
    return done.output


def test_counts_come_first_and_then_a_hundred_clips_at_once(store):
    lines = shown(store).splitlines()
    assert [" ".join(line.split()) for line in lines[:4]] == [
        "30,000 clips",
        "ok 24,000",
        "partial 3,000 cut off",
        "failed 3,000 the file is empty (0 bytes)",
    ]
    assert sum(line.lstrip().startswith("clip0") for line in lines) == 100
    assert lines[-1] == "29,900 more clips: --all lists them, --json too"


def test_all_clips_are_listed_where_they_are_few_or_asked_for(tmp_path):
    store = ScoreStore.open_or_create(str(tmp_path), TWO)
    row = {"content_id": "c", "span": "all", "decode_id": "d", "status": "ok", "member_ids": []}
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store.write_outcomes([row | {"clip_id": f"c{i:03}", "finished_at": now} for i in range(120)])
    lines = shown(store.uri, "--all").splitlines()
    assert sum(line.lstrip().startswith("c1") for line in lines) == 20
    assert "more clips" not in lines[-1]


def test_json_has_every_clip(store):
    rows = json.loads(shown(store, "--status", "failed", "--json"))
    assert len(rows) == 3000
    assert {row["error"] for row in rows} == {"the file is empty (0 bytes)"}
    assert {"clip_id", "member_ids", "is_transient"} <= rows[0].keys()


def test_reasons_that_are_many_do_not_fill_the_screen(tmp_path):
    store = ScoreStore.open_or_create(str(tmp_path), TWO)
    row = {"span": "all", "decode_id": "d", "status": "failed", "member_ids": []}
    row |= {"finished_at": datetime(2026, 1, 1, tzinfo=UTC), "content_id": "c"}
    store.write_outcomes(
        [row | {"clip_id": f"c{i}", "error": f"why {chr(0x3B1 + i // 2)}"} for i in range(48)]
    )
    lines = [" ".join(line.split()) for line in shown(store.uri).splitlines()]
    assert "failed 28 for 14 more reasons: see --json" in lines
