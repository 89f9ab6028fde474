from xml.etree import ElementTree as ET

import pytest

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.storage.runs import run_of_scores
from dsdi_ray.storage.trecvid import TrecvidRun, read_trecvid_run, write_trecvid_run
from dsdi_ray.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy("ladi_v1")

# As a participant of 2020 wrote it.
SAMPLE = """<?xml version='1.0' encoding='ISO-8859-1'?>
<!DOCTYPE videoFeatureExtractionResults SYSTEM "https://www-nlpir.nist.gov/projects/tv2020/dtds/videoFeatureExtractionResults.dtd">
<videoFeatureExtractionResults>
  <videoFeatureExtractionRunResult trType="L" pid="TEAM" priority="1" desc="caf\u00e9">
    <videoFeatureExtractionFeatureResult fNum="2" elapsedTime="12.3">
      <item seqNum="1" shotId="Shot30_006"/>
      <item seqNum="2" shotId="Shot8_015"/>
    </videoFeatureExtractionFeatureResult>
    <videoFeatureExtractionFeatureResult fNum="1" elapsedTime="12"/>
  </videoFeatureExtractionRunResult>
</videoFeatureExtractionResults>
"""


def write(tmp_path, scores, **about):
    path = tmp_path / "run.xml"
    write_trecvid_run(run_of_scores(scores), path, taxonomy=TAXONOMY, about=TrecvidRun(**about))
    return path


def test_a_participants_file_is_read_without_its_dtd(tmp_path):
    path = tmp_path / "run.xml"
    path.write_bytes(SAMPLE.encode("iso-8859-1"))
    run = read_trecvid_run(path, TAXONOMY)
    assert run["clip_id"].to_pylist() == ["Shot30_006", "Shot8_015"]
    assert run["score"].to_pylist() == [1.0, 0.5]
    assert run["feature"].to_pylist() == ["flooding / water damage"] * 2
    assert read_trecvid_run(path)["feature"].to_pylist() == [None, None]


def test_every_feature_stands_once_with_at_most_1000_items_numbered_from_1(tmp_path):
    path = write(tmp_path, {5: {f"s{i}": 1 / (i + 1) for i in range(1300)}})
    features = list(ET.parse(path).getroot()[0])  # noqa: S314, our own file
    assert [int(f.get("fNum")) for f in features] == list(range(1, 33))
    items = list(features[4])
    assert [int(i.get("seqNum")) for i in items] == list(range(1, 1001))
    assert items[999].get("shotId") == "s999"
    assert len(features[0]) == 0


def test_the_head_and_the_attributes_are_those_of_the_format(tmp_path):
    text = write(
        tmp_path, {1: {"a": 1.0}}, team="T", training_type="O", priority=2, description="a <b> & é",
        elapsed_seconds=12.34,
    ).read_text("iso-8859-1")  # fmt: skip
    assert text.startswith(
        "<?xml version='1.0' encoding='ISO-8859-1'?>\n<!DOCTYPE videoFeatureExtractionResults SYSTEM "
        '"https://www-nlpir.nist.gov/projects/tv2020/dtds/videoFeatureExtractionResults.dtd">\n'
    )
    attributes = ET.fromstring(text.encode("iso-8859-1"))[0].attrib  # noqa: S314
    assert attributes == {"trType": "O", "pid": "T", "priority": "2", "desc": "a <b> & é"}
    assert 'fNum="1" elapsedTime="12.3"' in text


def test_elapsed_time_may_be_an_integer(tmp_path):
    path = write(tmp_path, {1: {"a": 1.0}}, elapsed_seconds=12.6, whole_seconds=True)
    assert 'elapsedTime="13"' in path.read_text()


def test_a_run_comes_back_with_names_of_any_script(tmp_path):
    scores = {1: {"Überflug 1": 0.9, 'a"&<b': 0.8, "洪水": 0.7}, 32: {"洪水": 0.1}}
    again = read_trecvid_run(write(tmp_path, scores))
    assert again["clip_id"].to_pylist() == ["Überflug 1", 'a"&<b', "洪水", "洪水"]
    assert again["feature_id"].to_pylist() == [1, 1, 1, 32]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('seqNum="2"', 'seqNum="3"', "line 7: seqNum must go from 1 without gaps, expected 2, got 3"),
        ('seqNum="1"', 'seqNum="0"', "line 6: seqNum must be a whole number from 1, got '0'"),
        ('fNum="1"', 'fNum="2"', "line 9: feature 2 appears more than once"),
        ('fNum="1"', 'fNum="boat"', "line 9: fNum must be a whole number from 1, got 'boat'"),
        ("Shot8_015", "Shot30_006", "line 7: feature 2: 'Shot30_006' appears twice"),
        (' shotId="Shot8_015"', "", "line 7: feature 2: an item has no shotId"),
        ('<item seqNum="2"', '<shot seqNum="2"', "line 7: <shot> must not stand in <videoFeature"),
        ('<item seqNum="2" shotId="Shot8_015"/>', "<item", "not well-formed"),
        ("ISO-8859-1", "EBCDIC-9", "its encoding cannot be read: unknown encoding"),
        ("videoFeatureExtractionRunResult", "other", "line 4: <other> must not stand in"),
        ("videoFeatureExtractionResults>", "svg>", "line 3: <svg> must not stand at the top"),
    ],
)  # fmt: skip
def test_errors_name_the_line_and_the_rule(tmp_path, old, new, message):
    path = tmp_path / "run.xml"
    path.write_bytes(SAMPLE.replace(old, new).encode("iso-8859-1"))
    with pytest.raises(DataError, match=message):
        read_trecvid_run(path)


def test_a_file_of_several_runs_is_refused(tmp_path):
    path = tmp_path / "run.xml"
    start, end = (
        SAMPLE.index("  <videoFeatureExtractionRunResult"),
        SAMPLE.index("</videoFeatureExtractionResults>"),
    )
    path.write_bytes((SAMPLE[:end] + SAMPLE[start:]).encode("iso-8859-1"))
    with pytest.raises(DataError, match="line 11: holds more than one run"):
        read_trecvid_run(path)


def test_entities_are_refused_so_that_a_small_file_cannot_swell(tmp_path):
    path = tmp_path / "run.xml"
    bomb = '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><r>&b;</r>'
    path.write_text(bomb)
    with pytest.raises(DataError, match="line 1: entity declarations are refused"):
        read_trecvid_run(path)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    path.write_text(f'<!DOCTYPE r [<!ENTITY x SYSTEM "{secret.as_uri()}">]><r>&x;</r>')
    with pytest.raises(DataError, match="entity declarations are refused"):
        read_trecvid_run(path)


def test_an_empty_file_or_one_without_a_run_is_refused(tmp_path):
    path = tmp_path / "run.xml"
    path.write_text("")
    with pytest.raises(DataError, match="no element found"):
        read_trecvid_run(path)
    path.write_text("<videoFeatureExtractionResults/>")
    with pytest.raises(DataError, match="no <videoFeatureExtractionRunResult>"):
        read_trecvid_run(path)


def test_what_the_format_cannot_hold_is_not_written(tmp_path):
    with pytest.raises(DataError, match="feature 99 is not in taxonomy 'ladi_v1'"):
        write(tmp_path, {99: {"a": 1.0}})
    with pytest.raises(DataError, match="a character that XML cannot hold"):
        write(tmp_path, {1: {"a\x01": 1.0}})


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"training_type": "A"}, "trType must be one of L, O, N, got 'A'"),
        ({"priority": 5}, "priority must be 1 to 4, got 5"),
        ({"elapsed_seconds": -1.0}, "elapsedTime must be from 0"),
        ({"team": "T\x01"}, r"team 'T\\x01' has a character that XML cannot hold"),
        ({"description": "a\x02"}, r"description 'a\\x02' has a character that XML cannot hold"),
    ],
)
def test_attributes_out_of_range_are_refused(about, message):
    with pytest.raises(ConfigError, match=message):
        TrecvidRun(**about)
