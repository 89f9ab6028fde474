import numpy as np
import pytest

from dsdi_ray.errors import DataError
from dsdi_ray.storage.run_table import lists_of_table
from dsdi_ray.storage.runs import run_of_scores
from dsdi_ray.storage.trec import read_qrels, read_trec_run, write_trec_run


def sorted_as_trec_eval_does(path):
    """Its own words: sims as float32 descending, then docno descending; rank is ignored."""
    by_topic = {}
    for line in path.read_text().splitlines():
        topic, _, docno, _, sim, _ = line.split()
        by_topic.setdefault(topic, []).append((np.float32(float(sim)), docno))
    return {t: [d for _, d in sorted(rows, reverse=True)] for t, rows in by_topic.items()}


def test_what_trec_eval_sorts_is_the_runs_own_order_even_where_scores_tie(tmp_path):
    scores = {
        1: {f"clip{i:04d}": round(i % 7 / 6, 3) for i in range(2000)},
        12: {"a": 0.0, "b": 0.0},
    }
    run = run_of_scores(scores)
    path = tmp_path / "run.trec"
    write_trec_run(run, path, tag="mine")
    expected = {str(one.feature_id): list(one.clip_ids) for one in lists_of_table(run)}
    assert sorted_as_trec_eval_does(path) == expected
    again = read_trec_run(path)
    assert again["clip_id"].to_pylist() == run["clip_id"].to_pylist()
    assert again["rank"].to_pylist() == run["rank"].to_pylist()
    np.testing.assert_allclose(again["score"].to_numpy(), run["score"].to_numpy(), atol=1e-4)


def test_the_lines_are_those_of_the_format(tmp_path):
    write_trec_run(run_of_scores({3: {"a": 0.5, "b": 0.25}}), tmp_path / "r.trec", tag="mine")
    assert (tmp_path / "r.trec").read_text() == "3 Q0 a 1 0.5 mine\n3 Q0 b 2 0.25 mine\n"


def test_a_run_is_read_in_the_order_of_its_similarities_and_ties_by_docno_descending(tmp_path):
    path = tmp_path / "r.run"
    path.write_bytes(
        b"\xef\xbb\xbf2\tQ0\tx\t1\t0.1\ttag\r\n\r\n2 Q0 y 2 0.7 tag more words\n2 Q0 z 3 0.1 tag\n"
        b"01 Q0 p 1 16777216 t\n01 Q0 q 2 16777217 t\n"
    )
    run = read_trec_run(path)
    assert run["feature_id"].to_pylist() == [1, 1, 2, 2, 2]
    assert run["clip_id"].to_pylist() == ["q", "p", "y", "z", "x"]  # 16777217 is no float32
    assert run["rank"].to_pylist() == [1, 2, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1 Q0 a 1 0.5 t\n1 Q0 b\n",
            r"r.trec, line 2: must be `topic Q0 docno rank sim tag`, got 3",
        ),
        ("\n1 Q0 a 1 high t\n", "line 2: sim must be a number, got 'high'"),
        ("1 Q0 a 1 nan t\n", "line 1: sim must be finite, got 'nan'"),
        ("1 Q0 a 1 2 t\n1 Q0 a 2 1 t\n", "line 2: 'a' appears twice for topic 1"),
        ("boat Q0 a 1 2 t\n", "line 1: topic must be a feature's number, got 'boat'"),
        ("99999999999 Q0 a 1 2 t\n", "line 1: topic must be"),
        (" \n", "it has no line"),
    ],
)
def test_errors_of_a_run_name_the_line_and_the_rule(tmp_path, text, message):
    path = tmp_path / "r.trec"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_trec_run(path)


def test_binary_files_are_refused(tmp_path):
    path = tmp_path / "r.trec"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="not readable as UTF-8"):
        read_trec_run(path)


@pytest.mark.parametrize("name", ["my clip", "", "a\tb", "a\u2028b"])
def test_names_that_would_break_the_lines_are_not_written(tmp_path, name):
    with pytest.raises(DataError, match="clip_id must be one word"):
        write_trec_run(run_of_scores({1: {name: 0.5}}), tmp_path / "r.trec")
    with pytest.raises(DataError, match="tag must be one word"):
        write_trec_run(run_of_scores({1: {"a": 0.5}}), tmp_path / "r.trec", tag=name)


def test_qrels_are_read_by_topic_and_clip(tmp_path):
    path = tmp_path / "qrels"
    path.write_text("1 0 a 1\n1 0 b 0\n02\t0\tc\t2\nq7 0 a -1\n")
    assert read_qrels(path) == {"1": {"a": 1, "b": 0}, "2": {"c": 2}, "q7": {"a": -1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 a 1\n1 0 a 1\n", "line 2: 'a' is judged twice for topic 1"),
        ("1 0 a\n", "line 1: must be `topic iter docno rel`, got 3 fields"),
        ("1 0 a yes\n", "line 1: rel must be an integer, got 'yes'"),
        ("", "it has no line"),
    ],
)
def test_errors_of_qrels_name_the_line_and_the_rule(tmp_path, text, message):
    path = tmp_path / "qrels"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_qrels(path)


def test_absent_qrels_are_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_qrels(tmp_path / "qrels")


def test_real_runs_and_qrels_are_read(shared_data):
    folder = shared_data / "trec" / "trec_eval"
    run = read_trec_run(folder / "results.trunc")
    assert len(run) == 584
    qrels = read_qrels(folder / "qrels.test")
    assert {t: len(j) for t, j in qrels.items()} == {"301": 1708, "302": 1061, "303": 912}
