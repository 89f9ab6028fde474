"""What a scoring job has to do: nothing that the store has, everything that it lacks."""

import random
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdi_ray.storage import outcome_columns, score_plan
from dsdi_ray.storage.manifest import manifest_table
from dsdi_ray.storage.outcome_counts import count_outcomes
from dsdi_ray.storage.score_plan import ScoringPlan, plan_scoring
from dsdi_ray.storage.score_rows import span_key
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.score_writer import ScoreWriter
from dsdi_ray.taxonomy import taxonomy_from_dict

TWO = taxonomy_from_dict({"name": "two", "classes": ["flood", "fire"]})


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return ScoreStore.open_or_create(str(tmp_path / "store"), TWO)


def clips(*ids: str, **columns: object) -> pa.Table:
    return manifest_table(
        {
            "clip_id": i,
            "uri": f"/{i}.mp4",
            "media": "video",
            "content_id": f"content-{i}",
            "duration_seconds": 1800.0,
            **columns,
        }
        for i in ids
    )


def plan(manifest: pa.Table, store: ScoreStore, *members: str, **options: bool) -> ScoringPlan:
    return plan_scoring(manifest, store=store, member_ids=members, decode_id="d", **options)


def scored_rows(
    plan: ScoringPlan,
    work_id: int,
    *,
    status: str = "ok",
    num_frames: int = 3,
    is_transient: bool | None = None,
    to_blame: list[str] | None = None,
):
    """What the scoring actors send for one work item: a chunk per member, then the outcome."""
    members = plan.work["member_ids"][work_id].as_py()
    logits = np.arange(num_frames * 2, dtype=np.float32)
    outcome = {
        "status": status,
        "error": None if status == "ok" else "broken",
        "note": None,
        "decoder": "decord" if status == "ok" else None,
        "frames_expected": num_frames,
        "frames_scored": num_frames if status == "ok" else 0,
        "attempts": 1,
        "seconds": 0.1,
        "num_chunks": 1 if status == "ok" else 0,
        "member_ids": to_blame,
        **({} if is_transient is None else {"is_transient": is_transient}),
    }
    chunks = [
        {
            "work_id": work_id,
            "chunk_index": 0,
            "member_id": m,
            "frame_indices": list(range(num_frames)),
            "times_seconds": [k / 10 for k in range(num_frames)],
            "logits": logits.tobytes(),
            "outcome": None,
        }
        for m in members
    ]
    last = {
        "work_id": work_id,
        "chunk_index": None,
        "member_id": None,
        "frame_indices": None,
        "times_seconds": None,
        "logits": None,
        "outcome": outcome,
    }
    return [*(chunks if status == "ok" else []), last]


def counts(store: ScoreStore, clips: pa.Table, *members: str) -> Mapping[tuple[str, str], int]:
    return store.read_outcomes(
        partial(count_outcomes, clips=clips, member_ids=members, decode_id="d")
    )


def do(plan: ScoringPlan, store: ScoreStore, **status: str) -> ScoreWriter:
    writer = ScoreWriter(store, plan, decode_id="d", fps=10.0)
    writer.record_without_decoding()
    for work_id in range(plan.num_work_items):
        uri = plan.work["uri"][work_id].as_py()
        rows = scored_rows(plan, work_id, status=status.get(Path(uri).stem, "ok"))
        writer.add(pa.Table.from_pylist(rows))
    writer.flush()
    return writer


def test_an_empty_store_lacks_everything(store: ScoreStore) -> None:
    first = plan(clips("a", "b"), store, "m1", "m2")
    assert (first.num_pairs_missing, first.num_pairs_present, first.num_work_items) == (4, 0, 2)
    assert first.footage_hours == pytest.approx(1.0)


def test_what_is_scored_is_not_scored_again(store: ScoreStore) -> None:
    do(plan(clips("a", "b"), store, "m1"), store)
    again = plan(clips("a", "b"), store, "m1")
    assert (again.num_pairs_missing, again.num_pairs_present, again.num_work_items) == (0, 2, 0)
    assert not again.known
    assert not again.unreadable


def test_a_new_member_is_the_only_one_computed(store: ScoreStore) -> None:
    do(plan(clips("a", "b"), store, "m1"), store)
    more = plan(clips("a", "b", "c"), store, "m1", "m2")
    by_uri = dict(
        zip(more.work["uri"].to_pylist(), more.work["member_ids"].to_pylist(), strict=True)
    )
    assert by_uri == {"/a.mp4": ["m2"], "/b.mp4": ["m2"], "/c.mp4": ["m1", "m2"]}


def test_changed_content_is_new_work(store: ScoreStore) -> None:
    do(plan(clips("a"), store, "m1"), store)
    assert plan(clips("a", content_id="changed"), store, "m1").num_work_items == 1


def test_other_decode_settings_are_new_work(store: ScoreStore) -> None:
    do(plan(clips("a"), store, "m1"), store)
    other = plan_scoring(clips("a"), store=store, member_ids=["m1"], decode_id="e")
    assert other.num_work_items == 1


def test_copies_of_a_file_are_decoded_once_and_both_have_an_outcome(store: ScoreStore) -> None:
    same = pa.concat_tables([clips("a", content_id="x"), clips("b", content_id="x")])
    first = plan(same, store, "m1")
    assert first.num_work_items == 1
    do(first, store)
    assert store.latest_outcomes()["clip_id"].to_pylist() == ["a", "b"]


def test_a_copy_that_arrives_later_needs_no_decoding(store: ScoreStore) -> None:
    do(plan(clips("a"), store, "m1"), store)
    later = plan(clips("z", content_id="content-a"), store, "m1")
    assert later.num_work_items == 0
    do(later, store)
    outcomes = {o["clip_id"]: o for o in store.latest_outcomes().to_pylist()}
    assert outcomes["z"]["status"] == "ok"
    assert outcomes["z"]["uri"] == "/z.mp4"
    assert not plan(clips("z", content_id="content-a"), store, "m1").known


def test_failed_clips_are_tried_again_only_when_asked(store: ScoreStore) -> None:
    do(plan(clips("a", "bad"), store, "m1"), store, bad="failed")
    assert plan(clips("a", "bad"), store, "m1").num_work_items == 0
    retry = plan(clips("a", "bad"), store, "m1", retry_failed=True)
    assert retry.work["uri"].to_pylist() == ["/bad.mp4"]
    do(retry, store)
    assert store.latest_outcomes()["status"].to_pylist() == ["ok", "ok"]


def test_a_clip_of_which_no_frame_decodes_is_not_tried_with_a_new_member(store: ScoreStore) -> None:
    do(plan(clips("a"), store, "m1"), store, a="failed")
    assert plan(clips("a"), store, "m1", "m2").num_work_items == 0


def fail(plan: ScoringPlan, store: ScoreStore, *to_blame: str) -> None:
    """Record that the first work item failed while it was scored."""
    writer = ScoreWriter(store, plan, decode_id="d", fps=10.0)
    rows = scored_rows(plan, 0, status="failed", is_transient=False, to_blame=list(to_blame))
    writer.add(pa.Table.from_pylist(rows))
    writer.flush()


def members_to_do(store: ScoreStore, *members: str, **options: bool) -> list[list[str]]:
    return plan(clips("a"), store, *members, **options).work["member_ids"].to_pylist()


def test_a_member_that_cannot_score_a_clip_does_not_keep_others_from_it(store: ScoreStore) -> None:
    do(plan(clips("a"), store, "m1", "m2"), store)
    fail(plan(clips("a"), store, "m1", "m2", "bad"), store, "bad")
    assert members_to_do(store, "m1", "m2", "bad") == []
    assert members_to_do(store, "m1", "m2", "m3") == [["m3"]]
    assert members_to_do(store, "m1", "m2", "bad", retry_failed=True) == [["bad"]]


def test_a_clip_that_all_members_scored_counts_as_scored_whatever_failed_for_others(
    store: ScoreStore,
) -> None:
    first = plan(clips("a", "b"), store, "m1")
    do(first, store)
    more = plan(clips("a", "b"), store, "m1", "bad")
    fail(more, store, "bad")
    archive = more.manifest
    assert counts(store, archive, "m1") == {("ok", ""): 2}
    assert counts(store, archive, "m1", "bad") == {("failed", "broken"): 1, ("ok", ""): 1}


def test_a_clip_counts_as_failed_though_members_beside_the_one_to_blame_scored_it_since(
    store: ScoreStore,
) -> None:
    first = plan(clips("a"), store, "bad", "m1")
    fail(first, store, "bad")
    do(plan(clips("a"), store, "bad", "m1"), store)
    assert counts(store, first.manifest, "bad", "m1") == {("failed", "broken"): 1}
    assert counts(store, first.manifest, "m1") == {("ok", ""): 1}


def test_members_beside_the_one_to_blame_are_scored_without_it(store: ScoreStore) -> None:
    fail(plan(clips("a"), store, "bad", "m1"), store, "bad")
    assert members_to_do(store, "bad", "m1") == [["m1"]]


def test_a_clip_that_ended_its_worker_is_tried_again_only_with_other_members(
    store: ScoreStore,
) -> None:
    writer = ScoreWriter(store, plan(clips("a"), store, "m1", "bad"), decode_id="d", fps=10.0)
    writer.give_up(writer.undone(), reason="it dies each time")
    writer.flush()
    assert members_to_do(store, "m1", "bad") == []
    assert members_to_do(store, "m1") == []
    assert members_to_do(store, "m1", "m2") == [["m1", "m2"]]
    do(plan(clips("a"), store, "m1", "m2"), store)
    assert members_to_do(store, "m1", "m2", "bad") == []


def test_a_transient_failure_is_an_outcome_and_is_tried_again(store: ScoreStore) -> None:
    first = plan(clips("a"), store, "m1")
    writer = ScoreWriter(store, first, decode_id="d", fps=10.0)
    rows = scored_rows(first, 0, status="failed", is_transient=True)
    writer.add(pa.Table.from_pylist(rows))
    writer.flush()
    (outcome,) = store.latest_outcomes().to_pylist()
    assert (outcome["status"], outcome["is_transient"]) == ("failed", True)
    assert plan(clips("a"), store, "m1").num_work_items == 1


def partial_outcome(*members: str, is_transient: bool, number: int = 0) -> dict[str, object]:
    attempt = ("a", "/a.mp4", "content-a", (None, None), "cut off", "d", members, "partial")
    return as_outcome((*attempt, is_transient), number)


def test_a_clip_that_a_passing_error_cut_short_is_done_again_until_it_is_whole(
    store: ScoreStore,
) -> None:
    store.write_outcomes([partial_outcome("m1", is_transient=True)])
    again = plan(clips("a"), store, "m1")
    assert (again.num_pairs_present, again.num_pairs_missing) == (0, 1)
    assert counts(store, again.manifest, "m1") == {("partial", "cut off"): 1}
    do(again, store)
    assert members_to_do(store, "m1") == []
    assert counts(store, again.manifest, "m1") == {("ok", ""): 1}


def test_a_clip_that_is_damaged_for_good_is_done_again_only_when_asked(store: ScoreStore) -> None:
    store.write_outcomes([partial_outcome("m1", is_transient=False)])
    assert members_to_do(store, "m1") == []
    assert members_to_do(store, "m1", retry_failed=True) == [["m1"]]
    do(plan(clips("a"), store, "m1", retry_failed=True), store)
    assert members_to_do(store, "m1", retry_failed=True) == []


def test_a_clip_that_failed_once_and_was_scored_since_is_scored_by_new_members(
    store: ScoreStore,
) -> None:
    do(plan(clips("a"), store, "m1"), store, a="failed")
    do(plan(clips("a"), store, "m1", retry_failed=True), store)
    assert plan(clips("a"), store, "m1", "m2").work["member_ids"].to_pylist() == [["m2"]]


def test_outcomes_say_how_many_seconds_the_scored_frames_cover(store: ScoreStore) -> None:
    gone = clips("gone", content_id=None, probe_error="no")
    do(plan(pa.concat_tables([clips("a"), gone]), store, "m1"), store)
    assert store.latest_outcomes()["seconds_covered"].to_pylist() == [pytest.approx(0.3), 0.0]


def test_content_that_left_its_clip_is_known_to_the_next_clip_that_has_it(
    store: ScoreStore,
) -> None:
    do(plan(clips("a"), store, "m1"), store)
    do(plan(clips("a", content_id="changed"), store, "m1"), store)
    moved = plan(clips("z", content_id="content-a"), store, "m1")
    assert moved.num_work_items == 0
    assert moved.known["clip_id"].to_pylist() == ["z"]


def test_an_unreadable_file_is_an_outcome_and_written_once(store: ScoreStore) -> None:
    gone = clips("gone", content_id=None, probe_error="cannot be read: No such file")
    do(plan(gone, store, "m1"), store)
    (outcome,) = store.latest_outcomes().to_pylist()
    assert (outcome["status"], outcome["error"]) == ("failed", "cannot be read: No such file")
    assert not plan(gone, store, "m1").unreadable


def test_parts_of_a_file_are_work_of_their_own(store: ScoreStore) -> None:
    parts = pa.concat_tables(
        [
            clips("p1", content_id="x", start_seconds=0.0, end_seconds=5.0),
            clips("p2", content_id="x", start_seconds=5.0, end_seconds=10.0),
        ]
    )
    assert plan(parts, store, "m1").work["span"].to_pylist() == ["0-5", "5-10"]


def test_an_outcome_waits_for_all_logits_of_its_clip(store: ScoreStore) -> None:
    todo = plan(clips("a"), store, "m1", "m2")
    writer = ScoreWriter(store, todo, decode_id="d", fps=10.0)
    *chunks, last = scored_rows(todo, 0)
    assert writer.add(pa.Table.from_pylist([last, chunks[0]])) == []
    writer.flush()
    assert len(store.outcomes()) == 0
    assert plan(clips("a"), store, "m1", "m2").num_pairs_missing == 2
    assert writer.add(pa.Table.from_pylist([chunks[1]])) == [0]
    writer.flush()
    assert store.latest_outcomes()["member_ids"].to_pylist() == [["m1", "m2"]]


def test_a_chunk_that_arrives_twice_counts_once(store: ScoreStore) -> None:
    import pyarrow.parquet as pq

    todo = plan(clips("a"), store, "m1")
    writer = ScoreWriter(store, todo, decode_id="d", fps=10.0)
    chunk, last = scored_rows(todo, 0)
    assert writer.add(pa.Table.from_pylist([chunk, chunk, last])) == [0]
    writer.flush()
    (file,) = store.logits_files("d", ["m1"])
    assert pq.read_table(file, partitioning=None)["frame_index"].to_pylist() == [0, 1, 2]


CONTENTS = st.sampled_from(["x", "y", "z", None])
SPANS = st.sampled_from([(None, None), (0.0, 5.0)])
URIS = st.sampled_from(["/1.mp4", "/2.mp4"])
ERRORS = st.sampled_from(["no", "gone"])
CLIPS = st.lists(
    st.tuples(st.sampled_from("abcde"), URIS, CONTENTS, SPANS, ERRORS),
    min_size=1,
    max_size=5,
    unique_by=lambda clip: clip[0],
)
ATTEMPTS = st.lists(
    st.tuples(
        st.sampled_from("abcde"),
        URIS,
        CONTENTS,
        SPANS,
        ERRORS,
        st.sampled_from("de"),
        st.sets(st.sampled_from(["m1", "m2", "m3"])),
        st.sampled_from(["ok", "partial", "failed"]),
        st.sampled_from([None, False, True]),
    ),
    max_size=12,
)


def as_outcome(attempt: tuple, number: int) -> dict[str, object]:
    clip_id, uri, content_id, span, error, decode_id, members, status, is_transient = attempt
    return {
        "clip_id": clip_id,
        "uri": uri,
        "content_id": content_id,
        "span": span_key(*span),
        "error": error,
        "decode_id": decode_id,
        "member_ids": sorted(members) if content_id else [],
        "status": status if content_id else "failed",
        "is_transient": is_transient,
        "finished_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
    }


@settings(max_examples=60, deadline=None)
@given(CLIPS, ATTEMPTS, st.booleans(), st.randoms(use_true_random=False))
def test_a_plan_is_what_sets_of_pairs_say(
    tmp_path_factory: pytest.TempPathFactory,
    archive: list,
    attempts: list,
    retry_failed: bool,
    chance: random.Random,
) -> None:
    store = ScoreStore.open_or_create(str(tmp_path_factory.mktemp("s")), TWO)
    outcomes = [as_outcome(attempt, number) for number, attempt in enumerate(attempts)]
    shuffled = chance.sample(outcomes, len(outcomes))
    store.write_outcomes(shuffled[:5])
    store.write_outcomes(shuffled[5:])
    manifest = manifest_table(
        {
            "clip_id": clip_id, "uri": uri, "media": "video", "content_id": content,
            "start_seconds": span[0], "end_seconds": span[1], "probe_error": error,
        }
        for clip_id, uri, content, span, error in archive
    )  # fmt: skip
    members = ["m2", "m1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome_columns, "_ROWS_PER_LOOKUP", 3)
        patch.setattr(outcome_columns, "_BATCH_ROWS", 2)
        patch.setattr(score_plan, "_LISTS_PER_CHUNK", 2)
        got = plan(manifest, store, *members, retry_failed=retry_failed)
        counted = counts(store, got.manifest, *members)

    keys = [(content, span_key(*span)) if content else None for _, _, content, span, _ in archive]
    mine = [o for o in outcomes if o["decode_id"] == "d" and o["content_id"]]
    key_of = {id(o): (o["content_id"], o["span"]) for o in mine}
    present = {(key_of[id(o)], m) for o in mine if o["status"] != "failed" for m in o["member_ids"]}
    done = {
        (key_of[id(o)], m)
        for o in mine
        if o["status"] == "ok"
        or (o["status"] == "partial" and not o["is_transient"] and not retry_failed)
        for m in o["member_ids"]
    }
    lasting = [o for o in mine if o["status"] != "failed" or not o["is_transient"]]
    newest = {key_of[id(o)]: o for o in lasting}
    has_failed = {
        key for key, o in newest.items() if o["status"] == "failed" and not o["member_ids"]
    }
    failures = [(key_of[id(o)], o["member_ids"]) for o in lasting if o["status"] == "failed"]
    to_blame = {(key, m) for key, tried in failures for m in tried if len(tried) == 1}
    suspect = {(key, m) for key, tried in failures for m in tried if len(tried) > 1}
    wanted = {(key, m) for key in keys if key for m in members}
    missing = wanted - done
    if not retry_failed:
        missing = {(key, m) for key, m in missing - to_blame if key not in has_failed}
        missing = {pair for pair in missing if any(p[0] == pair[0] for p in missing - suspect)}
    assert got.num_pairs_present == len(wanted & done)
    assert got.num_pairs_missing == len(missing)
    to_do = dict.fromkeys(key for key in keys if any((key, m) in missing for m in members))
    assert [(r["content_id"], r["span"], r["member_ids"]) for r in got.work.to_pylist()] == [
        (*key, sorted(m for m in members if (key, m) in missing)) for key in to_do
    ]
    assert got.clips_of_work.to_pylist() == [
        [row for row, other in enumerate(keys) if other == key] for key in to_do
    ]

    said = {o["clip_id"]: o for o in outcomes if o["decode_id"] == "d" or not o["content_id"]}
    is_recorded = [
        clip[0] in said
        and said[clip[0]]["uri"] == clip[1]
        and said[clip[0]]["content_id"] == clip[2]
        and (said[clip[0]]["span"] == key[1] if key else said[clip[0]]["error"] == clip[4])
        for clip, key in zip(archive, keys, strict=True)
    ]
    rows = range(len(archive))
    assert got.unreadable.to_pylist() == [r for r in rows if not keys[r] and not is_recorded[r]]
    scored = {key_of[id(o)]: o for o in mine if o["status"] != "failed"}
    best = newest | scored
    known = [r for r in rows if keys[r] in newest and keys[r] not in to_do and not is_recorded[r]]
    assert [(o["clip_id"], o["uri"], o["error"]) for o in got.known.to_pylist()] == [
        (archive[r][0], archive[r][1], best[keys[r]]["error"]) for r in known
    ]

    failed = {key_of[id(o)]: o for o in mine if o["status"] == "failed" and not o["is_transient"]}
    by_clip = [
        (scored if all((key, m) in present for m in members) else failed).get(
            key, said.get(clip[0])
        )
        for clip, key in zip(archive, keys, strict=True)
    ]
    assert counted == Counter((o["status"], o["error"]) for o in by_clip if o)


def test_the_work_comes_to_the_frames_of_its_footage_and_one_of_each_still_image(
    store: ScoreStore,
) -> None:
    images = clips("x", "y", media="image", duration_seconds=None)
    slow = clips("s", source_fps=1.0)
    missing = plan(pa.concat_tables([clips("a", source_fps=30.0), images, slow]), store, "m")
    assert missing.frames_per_item(10.0).tolist() == [18_000, 1, 1, 1_800]
    assert (missing.footage_hours, missing.num_unknown) == (1.0, 0)
    assert len(plan(clips(), store, "m").frames_per_item(10.0)) == 0


def test_clips_of_unknown_length_are_counted_and_taken_for_as_long_as_the_others(
    store: ScoreStore,
) -> None:
    raw = clips("r", "q", duration_seconds=None)
    both = plan(pa.concat_tables([clips("a"), raw]), store, "m")
    assert both.frames_per_item(10.0).tolist() == [18_000] * 3
    assert both.num_unknown == 2
    assert plan(raw, store, "m").frames_per_item(10.0).tolist() == [0, 0]
