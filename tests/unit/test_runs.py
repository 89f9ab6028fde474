import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsdi_ray.errors import DataError
from dsdi_ray.method.fusion import fuse_runs
from dsdi_ray.storage.run_table import RUN_SCHEMA, lists_of_table, table_of_lists
from dsdi_ray.storage.runs import (
    ranked_run,
    read_run,
    run_metadata,
    run_of_scores,
    scores_of_run,
    write_run,
    write_run_files,
)
from dsdi_ray.storage.trecvid import TrecvidRun
from dsdi_ray.taxonomy import taxonomy_from_dict

TAXONOMY = taxonomy_from_dict(
    {
        "name": "three",
        "classes": [
            {"name": "flood", "feature": 7},
            {"name": "nothing", "none": True},
            {"name": "boat", "feature": 3},
        ],
    }
)
CLIPS = ["c2", "c1", "c3"]
SCORES = np.array([[0.5, 0.9, 0.1], [0.5, 0.9, 0.3], [0.75, 0.9, 0.2]])
PEAKS = np.array([[1.5, 0.0, 0.1], [2.5, 0.0, np.nan], [3.5, 0.0, 0.3]])


@pytest.fixture
def run():
    return ranked_run(CLIPS, SCORES, PEAKS, features=TAXONOMY, top=2)


def test_features_are_ranked_by_number_none_classes_are_not_and_ties_go_by_clip_id(run):
    assert run.schema.equals(RUN_SCHEMA)
    rows = [tuple(row.values()) for row in run.to_pylist()]
    assert rows == [
        (3, "boat", 1, "c1", 0.3, None),
        (3, "boat", 2, "c3", 0.2, 0.3),
        (7, "flood", 1, "c3", 0.75, 3.5),
        (7, "flood", 2, "c1", 0.5, 2.5),
    ]


def test_a_clip_whose_score_is_not_a_number_is_named():
    scores = SCORES.copy()
    scores[1, 2] = np.nan
    with pytest.raises(DataError, match="clip 'c1'"):
        ranked_run(CLIPS, scores, PEAKS, features=TAXONOMY)


def test_scores_of_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"\[3, 3\]"):
        ranked_run(CLIPS, SCORES[:, :2], None, features=TAXONOMY)


def test_a_run_splits_into_lists_and_back(run):
    lists = lists_of_table(run)
    assert [one.feature_id for one in lists] == [3, 7]
    assert table_of_lists(lists[::-1]).equals(run)
    assert lists_of_table(RUN_SCHEMA.empty_table()) == []
    assert table_of_lists([]).schema.equals(RUN_SCHEMA)


def test_parquet_gives_the_same_run_and_what_it_was_made_of(run, tmp_path):
    path = tmp_path / "new" / "run.parquet"
    write_run(run, path, metadata={"ensemble_id": "e-1", "pool": "max", "order": "frame_first"})
    again = read_run(path)
    assert again.equals(run)
    assert run_metadata(again) == {"ensemble_id": "e-1", "pool": "max", "order": "frame_first"}


def test_a_run_that_another_tool_wrote_in_wider_types_and_any_order_is_read(run, tmp_path):
    path = tmp_path / "run.parquet"
    wide = run.set_column(0, "feature_id", run["feature_id"].cast(pa.int64()))
    pq.write_table(wide.take([2, 1, 3, 0]), path)
    assert read_run(path).equals(run)


def test_all_three_formats_give_the_same_clips_in_the_same_order(tmp_path):
    rng = np.random.default_rng(0)
    clip_ids = [f"clip_{i}" for i in rng.permutation(1200)]
    scores = np.round(rng.random((1200, 3)), 2)  # a hundred values: many ties
    run = ranked_run(clip_ids, scores, None, features=TAXONOMY, top=1000)
    about = TrecvidRun(elapsed_seconds=1.25)
    files = write_run_files(run, tmp_path, taxonomy=TAXONOMY, tag="t", about=about)
    assert [f.name for f in files] == ["run.parquet", "run.trec", "run.xml"]
    for file in files:
        again = read_run(file, taxonomy=TAXONOMY)
        for column in ("feature_id", "feature", "rank", "clip_id"):
            assert again[column].to_pylist() == run[column].to_pylist(), (file, column)


def test_scores_of_runs_fuse_into_a_run(run):
    other = {3: {"c9": 1.0}}
    fused = run_of_scores(fuse_runs([scores_of_run(run), other], [1, 1]), taxonomy=TAXONOMY, top=2)
    assert fused["clip_id"].to_pylist() == ["c9", "c1", "c3", "c1"]
    assert fused["feature"].to_pylist() == ["boat", "boat", "flood", "flood"]
    assert fused["peak_seconds"].null_count == 4


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("rank", [1, 3, 1, 2], "feature 3: ranks must go from 1 without gaps"),
        ("score", [0.1, 0.2, 0.5, 0.5], "feature 3: scores must never increase"),
        ("score", [0.3, 0.2, float("nan"), 0.5], "feature 7: scores must be finite"),
        ("clip_id", ["a", "a", "b", "c"], "feature 3: a clip_id appears more than once"),
        ("clip_id", ["a", None, "b", "c"], "column `clip_id` has 1 nulls"),
        ("feature_id", [7, 7, 3, 3], "ascending order of feature_id"),
    ],
)
def test_a_run_that_breaks_a_rule_is_not_written(run, tmp_path, column, values, message):
    place = RUN_SCHEMA.get_field_index(column)
    broken = run.set_column(place, column, pa.array(values, RUN_SCHEMA.field(column).type))
    with pytest.raises(DataError, match=message):
        write_run(broken, tmp_path / "run.parquet")
    assert not (tmp_path / "run.parquet").exists()


def test_files_that_cannot_be_runs_are_refused_by_name(run, tmp_path):
    with pytest.raises(
        DataError, match=r"must end in .parquet, .trec, .txt, .run, .xml, got '.csv'"
    ):
        read_run(tmp_path / "run.csv")
    with pytest.raises(DataError, match="no such file"):
        read_run(tmp_path / "run.trec")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_run(tmp_path / "bad.parquet")
    pq.write_table(run.drop_columns(["rank"]), tmp_path / "short.parquet")
    with pytest.raises(DataError, match="no column `rank`"):
        read_run(tmp_path / "short.parquet")
    text = run.set_column(2, "rank", pa.array(["a", "b", "c", "d"]))
    pq.write_table(text, tmp_path / "text.parquet")
    with pytest.raises(DataError, match="columns must be"):
        read_run(tmp_path / "text.parquet")
