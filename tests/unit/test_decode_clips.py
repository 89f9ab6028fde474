"""What decord mistakes, what is damaged, and what is no video: every clip ends as an outcome."""

import os

import av
import numpy as np
import pytest
from numbered_clips import B_FRAMES, decode, number_of, numbers, write_clip

from dsdi_ray.vision.decode import DecodeSettings

EVERY_TENTH = {k: k * 25 // 10 for k in range(20)}
SMALL_CHUNKS = DecodeSettings(chunk_frames=6)
X265_OPEN = {"x265-params": "open-gop=1:bframes=3:keyint=10:log-level=none"}


class TestDecordIsNotBelieved:
    @pytest.mark.parametrize(
        ("name", "codec", "options", "b_frames"),
        [
            ("a.mp4", "libx265", X265_OPEN, None),
            ("a.mkv", "mpeg2video", {}, 2),
            ("a.ts", "libx264", {"x264-params": "bframes=3:keyint=10"}, None),
            ("a.wmv", "wmv2", {}, None),
            ("a.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=10"}, None),
            ("a.avi", "mpeg4", {}, 2),
        ],
    )
    def test_pictures_are_right_where_decord_alone_miscounts(
        self, tmp_path, name, codec, options, b_frames
    ):
        clip = write_clip(tmp_path / name, codec=codec, options=options, max_b_frames=b_frames)
        chunks, outcome = decode(clip)
        assert numbers(chunks) == EVERY_TENTH
        assert outcome.status == "ok"
        assert outcome.decoder == "pyav"
        assert outcome.note  # why decord was passed over

    def test_decord_alone_returns_wrong_pictures_for_an_open_group(self, tmp_path):
        decord = pytest.importorskip("decord")
        clip = write_clip(tmp_path / "a.mp4", codec="libx265", options=X265_OPEN)
        wanted = list(EVERY_TENTH.values())
        pictures = decord.VideoReader(str(clip), num_threads=1).get_batch(wanted).asnumpy()
        assert [number_of(p) for p in pictures] != wanted  # or the guard can go

    def test_decord_is_not_given_what_it_could_fill_the_memory_with(self, tmp_path):
        clip = write_clip(tmp_path / "a.mp4", num_pictures=100)  # at 500 px 72 MiB
        chunks, outcome = decode(clip, sizes=(500,))
        assert (outcome.status, outcome.decoder) == ("ok", "pyav")
        assert outcome.note == "decord might hold all of 100 pictures in memory"
        assert [number_of(p) for c in chunks for p in c.pixels[500]] == [
            k * 25 // 10 for k in range(40)
        ]
        assert decode(clip, sizes=(450,))[1].decoder == "decord"

    def test_black_and_still_pictures_that_are_so_are_kept_from_decord(self, tmp_path):
        clip = tmp_path / "still.mp4"
        with av.open(str(clip), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            stream.codec_context.max_b_frames = 0
            for i in range(50):
                grey = np.full((96, 128, 3), 0 if i < 25 else 120, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode())
        chunks, outcome = decode(clip, settings=SMALL_CHUNKS)
        assert (outcome.status, outcome.decoder, outcome.frames_scored) == ("ok", "decord", 20)
        brightness = np.concatenate([c.pixels[64].mean(axis=(1, 2, 3)) for c in chunks])
        assert (brightness[:10] < 5).all()
        assert (brightness[10:] > 100).all()


class TestSizes:
    def test_both_decoders_give_the_same_bytes(self, tmp_path):
        clip = write_clip(tmp_path / "a.mp4")
        for size in (64, 224, 299):
            (decord, *_), one = decode(clip, sizes=(size,))
            (pyav, *_), other = decode(clip, sizes=(size,), is_careful=True)
            assert (one.decoder, other.decoder) == ("decord", "pyav")
            np.testing.assert_array_equal(decord.pixels[size], pyav.pixels[size])

    def test_a_size_does_not_depend_on_what_other_sizes_were_asked_for(self, tmp_path):
        clip = write_clip(tmp_path / "a.mp4")
        (both, *_), _ = decode(clip, sizes=(224, 64))
        (one, *_), _ = decode(clip, sizes=(224,))
        assert sorted(both.pixels) == [64, 224]
        np.testing.assert_array_equal(both.pixels[224], one.pixels[224])

    def test_fine_patterns_do_not_alias_when_shrunk(self, tmp_path):
        clip = tmp_path / "a.mp4"
        with av.open(str(clip), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
            stream.width, stream.height, stream.pix_fmt = 512, 512, "yuv444p"
            board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
            picture = np.repeat(board[..., None], 3, axis=2)
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        (chunk,), _ = decode(clip)
        assert chunk.pixels[64].std() < 12  # nearest neighbour would be 127


class TestChunks:
    @pytest.mark.parametrize("way", B_FRAMES)
    def test_chunks_are_consecutive_samples_and_resume_alike(self, tmp_path, way):
        clip = write_clip(tmp_path / "a.mp4", max_b_frames=B_FRAMES[way])
        whole, _ = decode(clip, is_careful=way == "full", settings=SMALL_CHUNKS)
        assert [c.frame_indices.tolist() for c in whole] == [
            list(range(i, min(i + 6, 20))) for i in range(0, 20, 6)
        ]
        for first in (1, 3, 4):
            rest, _ = decode(
                clip, is_careful=way == "full", settings=SMALL_CHUNKS, first_chunk=first
            )
            assert [c.chunk_index for c in rest] == list(range(first, 4))
            for a, b in zip(whole[first:], rest, strict=True):
                np.testing.assert_array_equal(a.pixels[64], b.pixels[64])

    def test_a_seek_to_a_false_key_frame_is_noticed(self, tmp_path):
        clip = write_clip(tmp_path / "a.mp4", options={"x264-params": "intra-refresh=1:keyint=10"})
        chunks, outcome = decode(clip, is_careful=True, start=1.0)
        assert numbers(chunks) == {k: 25 + k * 25 // 10 for k in range(10)}
        assert outcome.status == "ok"


class TestDamage:
    @pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.flv"])
    def test_a_truncated_file_is_scored_as_far_as_it_goes(self, tmp_path, name):
        data = write_clip(tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(data[: len(data) * 6 // 10])
        chunks, outcome = decode(tmp_path / f"cut_{name}")
        assert outcome.status in {"ok", "partial"}
        assert 5 < outcome.frames_scored < 20
        # At the cut, pictures stored late but shown early are gone: the one before stays on screen.
        whole_until = outcome.frames_scored - 2
        assert all(EVERY_TENTH[k] == n for k, n in numbers(chunks).items() if k < whole_until)

    def test_pictures_lost_to_damage_are_missing_not_repeated(self, tmp_path):
        clip = write_clip(tmp_path / "a.mp4", num_pictures=100)
        with av.open(str(clip)) as container:
            packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
        data = bytearray(clip.read_bytes())
        for position, size in packets[30:40]:
            data[position : position + size] = bytes(size)
        clip.write_bytes(data)
        chunks, outcome = decode(clip)
        shown = numbers(chunks)
        assert outcome.status == "partial"
        assert outcome.frames_expected == 40
        assert outcome.frames_scored == len(shown) < 40
        assert "do not decode" in outcome.error
        assert all(number == k * 25 // 10 for k, number in shown.items())

    def test_a_missing_index_is_a_failure_with_a_reason(self, tmp_path):
        data = write_clip(tmp_path / "a.mp4").read_bytes()
        (tmp_path / "b.mp4").write_bytes(data[: len(data) // 2])
        chunks, outcome = decode(tmp_path / "b.mp4")
        assert chunks == []
        assert (outcome.status, outcome.frames_scored, outcome.decoder) == ("failed", 0, None)
        assert outcome.error == "cannot be opened: Invalid data found when processing input"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "the file is empty (0 bytes)"),
            (b"hello" * 99, "cannot be opened: Invalid data found when processing input"),
        ],
    )
    def test_what_is_no_video_says_so(self, tmp_path, content, reason):
        (tmp_path / "a.mp4").write_bytes(content)
        assert decode(tmp_path / "a.mp4")[1].error == reason

    @pytest.mark.parametrize("media", ["video", "image"])
    def test_an_absent_file_says_so_and_is_worth_another_try(self, tmp_path, media):
        outcome = decode(tmp_path / "absent.mp4", media=media)[1]
        assert "No such file" in outcome.error
        assert (outcome.status, outcome.is_transient) == ("failed", True)

    def test_a_file_that_may_not_be_read_is_worth_another_try(self, tmp_path):
        clip = write_clip(tmp_path / "a.mp4")
        clip.chmod(0)
        if os.access(clip, os.R_OK):
            pytest.skip("this user may read everything")
        outcome = decode(clip)[1]
        assert (outcome.status, outcome.is_transient) == ("failed", True)

    def test_a_clip_that_is_at_fault_is_not_worth_another_try(self, tmp_path):
        data = write_clip(tmp_path / "a.mkv").read_bytes()
        for name, content in {"cut.mkv": data[: len(data) // 2], "none.mkv": b"none" * 99}.items():
            (tmp_path / name).write_bytes(content)
            assert not decode(tmp_path / name)[1].is_transient

    def test_sound_alone_says_so(self, tmp_path):
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream = container.add_stream("aac", rate=44_100)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 44_100
            container.mux([*stream.encode(frame), *stream.encode()])
        assert decode(tmp_path / "a.mp4")[1].error == "no video stream (streams: 1 audio)"

    def test_a_part_beyond_the_end_says_so(self, tmp_path):
        outcome = decode(write_clip(tmp_path / "a.mp4"), start=9.0)[1]
        assert (outcome.status, outcome.error) == (
            "failed",
            "the clip's part lies outside the file",
        )

    def test_file_uris_are_understood(self, tmp_path):
        clip = write_clip(tmp_path / "a clip.mp4")
        assert numbers(decode(clip.as_uri())[0]) == EVERY_TENTH
