"""Ranking stores of every kind, whose rows were written by hand: where they lie, what they lost."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dsdi_ray.distributed.rank import rank_archive, rank_systems
from dsdi_ray.distributed.submission_runs import rank_all
from dsdi_ray.errors import DataError, StoreError
from dsdi_ray.storage.bundles import EnsembleMember, EnsembleSpec, MemberSpec
from dsdi_ray.storage.score_rows import frame_rows
from dsdi_ray.storage.score_store import OUTCOMES, ScoreStore, logits_folder
from dsdi_ray.taxonomy import taxonomy_from_dict

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
TAXONOMY = taxonomy_from_dict({"name": "two", "classes": ["flood", "boat"]})
LOST = "its logits are lost (see `dsdi store verify`)"


def write_store(folder: Path, clips: tuple[str, ...] = ("a", "b", "c")) -> ScoreStore:
    """A store with a part of logits and one of outcomes per clip, of the member `m`."""
    store = ScoreStore.open_or_create(str(folder), TAXONOMY)
    for i, clip in enumerate(clips):
        rows = frame_rows(
            content_ids=[clip],
            spans=["all"],
            frame_indices=[np.arange(2, dtype=np.int32)],
            times_seconds=[np.arange(2) / 10],
            logits=[np.full((2, 2), -i, np.float32)],
        )
        store.write_logits("d", "m", rows)
        done = {"clip_id": clip, "uri": f"/{clip}.mp4", "content_id": clip, "span": "all"}
        done |= {"decode_id": "d", "member_ids": ["m"], "status": "ok", "frames_scored": 2}
        store.write_outcomes([done | {"frames_expected": 2, "finished_at": datetime.now(UTC)}])
    return store


def ensemble_of(*member_ids: str) -> EnsembleSpec:
    spec = MemberSpec(backbone="b", input_px=32, mean=(0, 0, 0), std=(1, 1, 1), taxonomy=TAXONOMY)
    members = [EnsembleMember(path=m, member_id=m, weight=1.0, spec=spec) for m in member_ids]
    return EnsembleSpec(members=tuple(members), taxonomy=TAXONOMY)


def parts(store: ScoreStore, clip: str) -> list[Path]:
    """The parts of logits that hold a clip."""
    paths = [Path(path) for path in store.logits_files("d", ["m"])]
    return [path for path in paths if clip in contents_of(store, path)]


def contents_of(store: ScoreStore, path: Path) -> list[str]:
    with store.files.open_part(str(path)) as part:
        return part.read(["content_id"])["content_id"].to_pylist()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def overwrite(path: Path) -> None:
    """Leave the last part of the file, which says what is in it, as it is."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 60 + content[64:])


@pytest.mark.parametrize("above", ["span=2020", "member_id=x/decode_id=y", "a b%20c=d"])
def test_folders_above_a_store_may_be_named_like_its_columns(tmp_path: Path, above: str) -> None:
    store = write_store(tmp_path / above / "scores")
    ranking = rank_archive(store.uri, ensemble=ensemble_of("m"), decode_id="d")
    assert ranking.run["clip_id"].to_pylist() == ["a", "b", "c"] * 2


def test_clips_whose_logits_are_lost_are_left_out_and_counted(tmp_path: Path) -> None:
    store = write_store(tmp_path / "scores")
    parts(store, "b")[0].unlink()
    (ranking,) = rank_systems(store.uri, [ensemble_of("m")], decode_id="d")
    assert ranking.run["clip_id"].to_pylist() == ["a", "c"] * 2
    assert (ranking.num_clips, ranking.unranked) == (2, {LOST: 1})


def record(store: ScoreStore, clip: str, **facts: object) -> None:
    known = {"clip_id": clip, "uri": f"/{clip}.mp4", "content_id": clip, "span": "all"}
    known |= {"decode_id": "d", "member_ids": [], "status": "failed", "frames_expected": 0}
    now = datetime.now(UTC)
    store.write_outcomes([known | {"frames_scored": 0, "finished_at": now} | facts])


def test_coverage_is_of_the_frames_that_were_scored_whatever_failed_since(tmp_path: Path) -> None:
    store = write_store(tmp_path / "scores")
    record(store, "b", status="partial", member_ids=["m"], frames_expected=4, frames_scored=2)
    record(store, "b", is_transient=True)
    record(store, "copy-of-b", content_id="b", is_transient=True)
    record(store, "c", is_transient=True)
    given = {"ensemble": ensemble_of("m"), "decode_id": "d", "min_coverage": 0.9}
    ranking = rank_archive(store.uri, **given)
    assert ranking.run["clip_id"].to_pylist() == ["a", "c"] * 2
    assert ranking.unranked == {"too few of its frames decode (see --min-coverage)": 2}
    named = pa.chunked_array([["copy-of-b", "a"]])
    assert rank_archive(store.uri, **given, clip_ids=named).num_clips == 1


def test_a_clip_that_another_member_cannot_score_is_not_said_to_be_undecodable(
    tmp_path: Path,
) -> None:
    store = write_store(tmp_path / "scores", clips=("a", "b"))
    record(store, "b", is_transient=True)
    record(store, "new", member_ids=["bad"])
    record(store, "broken")
    record(store, "gone", content_id=None)
    with pytest.raises(DataError, match=r"2 no frame decodes .*; 3 not scored by every member"):
        rank_archive(store.uri, ensemble=ensemble_of("m", "bad"), decode_id="d")
    ranking = rank_archive(store.uri, ensemble=ensemble_of("m"), decode_id="d")
    assert ranking.num_clips == 2


def test_clips_that_the_store_has_never_seen_are_counted(tmp_path: Path) -> None:
    store = write_store(tmp_path / "scores")
    asked = pa.chunked_array([["b", "new"], ["newer", "a"]])
    ranking = rank_archive(store.uri, ensemble=ensemble_of("m"), decode_id="d", clip_ids=asked)
    assert ranking.run["clip_id"].to_pylist() == ["a", "b"] * 2
    assert ranking.unranked == {"not in the store (run `dsdi score`)": 2}
    with pytest.raises(DataError, match="no clip to rank: 1 not in the store"):
        rank_archive(
            store.uri,
            ensemble=ensemble_of("m"),
            decode_id="d",
            clip_ids=pa.chunked_array([["new"]]),
        )


def test_submissions_rank_the_clips_of_the_archive_and_no_others_that_the_store_has(
    tmp_path: Path,
) -> None:
    store = write_store(tmp_path / "scores")
    systems = {"one": ensemble_of("m")}
    for names in (["a", "b"], ["a", "c"], ["a", "c"]):
        runs = rank_all(
            systems,
            out=tmp_path / "runs",
            store_uri=store.uri,
            decode_id="d",
            scores_id="-".join(names),
            clip_ids=pa.chunked_array([names]),
            taxonomy=TAXONOMY,
        )
        assert runs["one"]["clip_id"].to_pylist() == names * 2


def test_a_store_that_lost_all_its_logits_has_no_clip_to_rank(tmp_path: Path) -> None:
    store = write_store(tmp_path / "scores")
    for path in store.logits_files("d", ["m"]):
        Path(path).unlink()
    with pytest.raises(DataError, match="no clip to rank: 3 its logits are lost"):
        rank_archive(store.uri, ensemble=ensemble_of("m"), decode_id="d")


@pytest.mark.parametrize("damage", [cut, overwrite])
@pytest.mark.parametrize("folder", [OUTCOMES, logits_folder("d", "m")])
def test_a_damaged_part_is_an_error_that_says_where_to_look(
    tmp_path: Path, folder: str, damage: Callable[[Path], None]
) -> None:
    store = write_store(tmp_path / "scores")
    damage(next((tmp_path / "scores" / folder).iterdir()))
    with pytest.raises(StoreError, match=r"scores.*cannot be read: .*`dsdi store verify`") as error:
        rank_archive(store.uri, ensemble=ensemble_of("m"), decode_id="d")
    assert "Traceback" not in str(error.value)
