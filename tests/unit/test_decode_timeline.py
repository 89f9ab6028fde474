"""Which picture is frame k: sampled times against pictures that say which they are."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from numbered_clips import B_FRAMES, decode, numbers, write_clip

from dsdi_ray.vision.clocks import clock_restarts
from dsdi_ray.vision.decode import ClipSource, DecodeSettings
from dsdi_ray.vision.sampling import plan_samples
from dsdi_ray.vision.timeline import Timeline

EVERY_WAY = pytest.mark.parametrize("way", B_FRAMES)


def timeline(times, *, per_second=1000, last=40):
    times = np.array(times, np.int64)
    return Timeline(
        display_times=times,
        time_base=Fraction(1, per_second),
        first_time=int(times[0]),
        end_time=int(times[-1]) + last,
    )


def plan(line, *, fps=10.0, start=None, end=None):
    source = ClipSource(uri="x", start_seconds=start, end_seconds=end)
    planned = plan_samples(line, source, fps=fps)
    return dict(zip(planned.frame_indices.tolist(), planned.ordinals.tolist(), strict=True))


class TestPlan:
    def test_frame_k_is_the_picture_on_screen_at_k_tenths(self):
        line = timeline(range(0, 400, 40))  # 25 pictures per second
        assert plan(line) == {0: 0, 1: 2, 2: 5, 3: 7}

    def test_at_29_97_fps_the_picture_of_0_1001_s_is_not_yet_on_screen(self):
        line = timeline(range(0, 30 * 1001, 1001), per_second=30_000, last=1001)
        assert plan(line)[1] == 2
        assert plan(line) == {k: int(k / 10 * 30_000 // 1001) for k in range(11)} | {10: 29}

    def test_a_picture_shown_for_long_is_sampled_once_under_its_first_k(self):
        assert plan(timeline([0, 250, 900])) == {0: 0, 3: 1, 9: 2}

    def test_a_picture_between_two_grid_points_is_passed_over(self):
        assert plan(timeline([0, 110, 150, 300])) == {0: 0, 2: 2, 3: 3}

    def test_the_clip_ends_when_its_last_picture_does(self):
        assert plan(timeline([0, 50], last=50)) == {0: 0}
        assert plan(timeline([0, 50], last=51)) == {0: 0, 1: 1}

    def test_time_starts_at_the_first_picture_whatever_its_time_stamp(self):
        assert plan(timeline([5000, 5100, 5200])) == plan(timeline([0, 100, 200]))

    def test_a_part_starts_with_the_picture_on_screen_and_counts_from_there(self):
        line = timeline(range(0, 1000, 40))
        assert plan(line, start=0.5, end=0.75) == {0: 12, 1: 15, 2: 17}

    def test_a_part_beyond_the_file_is_empty(self):
        assert plan(timeline([0, 40]), start=7.0) == {}

    def test_parts_that_meet_cover_the_grid_of_the_whole(self):
        line = timeline(range(0, 2000, 33))
        whole = plan(line, fps=10)
        first, second = plan(line, fps=10, end=1.0), plan(line, fps=10, start=1.0)
        assert first | {k + 10: ordinal for k, ordinal in second.items()} == whole

    def test_a_time_stamp_years_away_costs_nothing(self):
        assert plan(timeline([0, 40, 2**61])) == {0: 0, 1: 1}

    @pytest.mark.parametrize("fps", [0.5, 1, 7, 10, 23.976, 60])
    def test_it_agrees_with_the_rule_transcribed(self, fps):
        rng = np.random.default_rng(0)
        times = np.unique(np.cumsum(rng.integers(1, 120, 300)))
        line, expected, before = timeline(times), {}, None
        for k in range(int((times[-1] + 40 - times[0]) / 1000 * fps) + 2):
            shown = [i for i, t in enumerate(times) if t - times[0] <= k * 1000 / fps + 1e-6]
            if k * 1000 / fps < times[-1] + 40 - times[0] - 1e-6 and shown[-1] != before:
                before = expected[k] = shown[-1]
        assert plan(line, fps=fps) == expected


class TestClockRestarts:
    def test_a_clock_that_starts_anew_is_found(self):
        times = np.array([0, 40, 80, 5000, 0, 40, 80])
        assert clock_restarts(times, Fraction(1, 1000)).tolist() == [4]

    def test_one_damaged_time_stamp_is_not_one(self):
        times = np.array([0, 40, 9_000_000, 120, 9_000_160, 9_000_200, 9_000_240, 5, 9_000_320])
        assert clock_restarts(times, Fraction(1, 1000)).size == 0

    def test_one_time_stamp_far_ahead_is_not_one(self):
        times = np.array([0, 40, 80, 3_600_000, 160, 200, 240])
        assert clock_restarts(times, Fraction(1, 1000)).size == 0


class TestRealTimelines:
    @EVERY_WAY
    def test_constant_rate(self, tmp_path, way):
        clip = write_clip(tmp_path / "a.mp4", max_b_frames=B_FRAMES[way])
        chunks, outcome = decode(clip, is_careful=way == "full")
        assert numbers(chunks) == {k: k * 25 // 10 for k in range(20)}
        assert (outcome.status, outcome.error) == ("ok", None)
        assert outcome.decoder == ("decord" if way == "decord" else "pyav")
        assert ("skipped undecoded" in (outcome.note or "")) == (way == "skipping")

    @EVERY_WAY
    def test_variable_rate_and_a_late_start(self, tmp_path, way):
        shown_at = [3000 + int(1.7 * i * i) for i in range(40)]
        clip = write_clip(
            tmp_path / "a.mkv",
            num_pictures=40,
            shown_at_ms=shown_at.__getitem__,
            max_b_frames=B_FRAMES[way],
        )
        chunks, _ = decode(clip, is_careful=way == "full")
        got = numbers(chunks)
        for k, number in got.items():
            on_screen = np.searchsorted(shown_at, 3000 + 100 * k, side="right") - 1
            assert number == on_screen
        assert len(got) == len(set(got.values())) > 20

    @EVERY_WAY
    def test_a_slow_source_yields_each_picture_once(self, tmp_path, way):
        clip = write_clip(tmp_path / "a.mp4", num_pictures=12, fps=4, max_b_frames=B_FRAMES[way])
        chunks, outcome = decode(clip, is_careful=way == "full")
        assert list(numbers(chunks).values()) == list(range(12))
        assert list(numbers(chunks))[:4] == [0, 3, 5, 8]
        assert outcome.frames_scored == 12

    @EVERY_WAY
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv", "a.avi", "a.mpg"])
    @pytest.mark.parametrize("start", [0.7, 1.3])
    def test_a_part_shows_what_the_whole_shows_then(self, tmp_path, way, name, start):
        codec = {"a.avi": "mpeg4", "a.mpg": "mpeg1video"}.get(name, "libx264")
        b_frames = 0 if codec != "libx264" or name == "a.flv" else B_FRAMES[way]
        clip = write_clip(tmp_path / name, codec=codec, max_b_frames=b_frames)
        chunks, outcome = decode(clip, is_careful=way == "full", start=start, end=start + 0.5)
        assert numbers(chunks) == {k: int((start + k / 10) * 25 + 1e-6) for k in range(5)}
        assert outcome.status == "ok"

    def test_times_count_from_the_clips_start(self, tmp_path):
        chunks, _ = decode(write_clip(tmp_path / "a.mp4"), start=0.5)
        assert chunks[0].times_seconds[:3].tolist() == [0.0, 0.1, 0.2]
        assert chunks[0].frame_indices.dtype == np.int32

    def test_recordings_put_one_behind_the_other_run_on(self, tmp_path):
        one = write_clip(tmp_path / "one.ts", num_pictures=50).read_bytes()
        (tmp_path / "two.ts").write_bytes(one + one)
        chunks, outcome = decode(tmp_path / "two.ts")
        shown = numbers(chunks)
        assert outcome.status == "ok"
        assert "clock starts anew" in outcome.note
        assert [shown[k] for k in (0, 10, 19, 20, 30)] == [0, 25, 47, 0, 25]

    @pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
    @pytest.mark.parametrize("seconds", [0.5, 3, 3000])
    @pytest.mark.parametrize("b_frames", [0, 3])
    def test_one_damaged_display_time_costs_no_other_picture(
        self, tmp_path, name, seconds, b_frames
    ):
        clip = write_clip(tmp_path / "a.mp4", num_pictures=100, max_b_frames=b_frames)
        odd = tmp_path / name
        with av.open(str(clip)) as source, av.open(str(odd), "w") as copy:
            stream = copy.add_stream_from_template(source.streams.video[0])
            for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
                packet.stream = stream
                if number == 41:
                    packet.pts += int(seconds / packet.time_base)
                copy.mux(packet)
        chunks, outcome = decode(odd)
        shown = numbers(chunks)
        assert outcome.frames_scored >= 39
        assert sum(n == k * 25 // 10 for k, n in shown.items()) >= 38

    @pytest.mark.parametrize("start", [None, 1.0])
    def test_pictures_that_all_claim_one_time_come_at_a_constant_rate(self, tmp_path, start):
        """Of an MP4 file whose table of durations is zero."""
        clip = write_clip(tmp_path / "a.mp4")
        data = bytearray(clip.read_bytes())
        table = data.index(b"stts")
        (num_entries,) = struct.unpack_from(">I", data, table + 8)
        for entry in range(num_entries):
            struct.pack_into(">I", data, table + 16 + 8 * entry, 0)
        clip.write_bytes(data)
        chunks, outcome = decode(clip, start=start)
        first = int(25 * (start or 0))
        assert outcome.status == "ok"
        assert numbers(chunks) == {k: first + k * 25 // 10 for k in range(20 - 2 * first // 5)}

    def test_a_recording_behind_another_may_begin_between_key_frames(self, tmp_path):
        """The pictures before its first key frame show that they lack others."""
        data = write_clip(
            tmp_path / "one.ts", codec="mpeg2video", num_pictures=100, gop=25, max_b_frames=2
        ).read_bytes()
        joined = tmp_path / "two.ts"
        joined.write_bytes(data + data[len(data) // 2 // 188 * 188 :])
        chunks, outcome = decode(joined)
        assert outcome.frames_scored >= outcome.frames_expected - 5
        shown = numbers(chunks)
        last = max(shown)
        assert all(shown[last - k] in {99 - int(2.5 * k + d) for d in (0, 1, 2)} for k in range(8))

    def test_a_stream_cut_in_the_middle_starts_at_its_first_decodable_picture(self, tmp_path):
        data = write_clip(
            tmp_path / "a.ts", num_pictures=100, options={"x264-params": "keyint=25:scenecut=0"}
        ).read_bytes()
        (tmp_path / "cut.ts").write_bytes(data[len(data) // 10 // 188 * 188 :])
        chunks, outcome = decode(tmp_path / "cut.ts")
        shown = numbers(chunks)
        assert shown[0] % 25 == 0  # a key frame
        assert shown == {k: shown[0] + k * 25 // 10 for k in range(len(shown))}
        assert outcome.status == "ok"
        assert "need earlier ones" in outcome.note

    def test_decode_id_follows_what_changes_scores_alone(self):
        base = DecodeSettings().decode_id
        assert DecodeSettings(fps=5).decode_id != base
        assert DecodeSettings(chunk_frames=8, progress_timeout_seconds=3).decode_id == base
