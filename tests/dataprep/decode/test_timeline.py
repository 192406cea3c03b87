"""The rules of time on real little files: what a file promises, what is shown, and when."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import CASES, counting_frames, read_numbers, write_video

from dataprep.decode.frames import DecodeSettings, VideoInfo, open_video
from dataprep.decode.video_file import VideoError

EVERY_SECOND_AND_THIRD = [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37]
"""Of 25 frames a second, those nearest to ticks at 10 a second: at 0.1 s frames 2 and 3 tie, and the earlier is taken."""


def read(path: Path, **settings: object) -> np.ndarray:
    with open_video(path, DecodeSettings(**{"min_frames": 1, **settings})) as video:  # type: ignore[arg-type]
        return np.stack(list(video))


def info(path: Path) -> VideoInfo:
    with open_video(path, DecodeSettings(min_frames=1)) as video:
        return video.info


def levels(frames: np.ndarray) -> list[int]:
    """The numbers of the cases' frames, whose grey level is 20 + 3 i."""
    return np.rint((frames.mean((1, 2, 3)) - 20) / 3).astype(int).tolist()


def remux(
    source: Path,
    target: Path,
    change: Callable[[av.Packet, int], None] = lambda packet, number: None,
    **options: str,
) -> Path:
    """Copy the packets, each after `change(packet, number)`, into the container of `target`'s suffix."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.dts is not None):
            packet.stream = stream
            change(packet, number)
            new.mux(packet)
    return target


@pytest.mark.parametrize("tag", ["00:00:09.000000000", "00:01:00.000000000", "00:00:01.500000000"])
def test_a_duration_tag_that_disagrees_makes_no_file_truncated(make_video, tag: str) -> None:
    path = make_video("a.mkv", counting_frames(36))
    data = path.read_bytes()
    assert data.count(b"00:00:03.000000000") == 1
    path.write_bytes(data.replace(b"00:00:03.000000000", tag.encode()))
    assert read_numbers(read(path)) == list(range(36))
    path.write_bytes(path.read_bytes()[: len(data) // 3])
    with pytest.raises(VideoError, match="truncated"):
        read(path)


def test_the_tag_of_a_chapter_is_older_than_the_file() -> None:
    assert levels(read(CASES / "split_by_chapter.mkv")) == list(range(75))


def test_what_an_edit_list_hides_is_no_shown_time(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"truncated: ends after 3\.\d\d s of 6\.00 s, 80 frames"):
        read(CASES / "lossless_trim_download.mp4")

    def earlier(packet: av.Packet, number: int) -> None:
        second = round(1 / packet.time_base)
        packet.pts -= second
        packet.dts -= second

    source = write_video(tmp_path / "source.mp4", counting_frames(48))
    path = remux(
        source, tmp_path / "trimmed.mp4", earlier, movflags="+faststart", avoid_negative_ts="disabled"
    )
    assert read_numbers(read(path)) == list(range(12, 48))
    with av.open(str(path)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    for kept in (30, 6):  # of 48 packets, the first 12 hidden
        cut = tmp_path / f"cut{kept}.mp4"
        cut.write_bytes(path.read_bytes()[: sorted(starts)[kept]])
        with pytest.raises(VideoError, match="truncated"):
            read(cut)


def test_avi_has_decode_order_only() -> None:
    path = CASES / "capture.avi"
    assert info(path).fps == 25
    assert levels(read(path)) == list(range(75))
    assert levels(read(path, fps=10.0))[:16] == EVERY_SECOND_AND_THIRD


def test_decode_order_in_mp4_is_sorted(tmp_path: Path) -> None:
    """An editor that drops the composition offsets (`ctts`) and the edit list that goes with them."""
    data = (CASES / "a.mp4").read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(data.replace(b"ctts", b"free").replace(b"edts", b"free"))
    assert levels(read(path, fps=10.0))[:16] == EVERY_SECOND_AND_THIRD
    assert levels(read(path, fps=25.0)) == list(range(75))


def test_timestamps_that_jump_back_and_forth_are_sorted(make_video, tmp_path: Path) -> None:
    def swapped(packet: av.Packet, number: int) -> None:
        packet.dts = number * 80
        packet.pts = (number ^ 1) * 80 + 80  # 1 0 3 2 ...

    path = remux(make_video("a.mkv", counting_frames(36)), tmp_path / "swapped.mkv", swapped)
    assert read_numbers(read(path, fps=12.5)) == list(range(36))


@pytest.mark.parametrize("lie", [41_666_666, 20_000_000, 166_666_666])
def test_a_rate_that_no_timestamp_confirms_is_measured(make_video, lie: int) -> None:
    """Matroska's DefaultDuration, in nanoseconds, is whatever the last writer believed."""
    path = make_video("a.mkv", counting_frames(36))
    data = path.read_bytes()
    place = data.index(b"\x23\xe3\x83") + 4
    assert int.from_bytes(data[place : place + 4]) == 83_333_333
    path.write_bytes(data[:place] + lie.to_bytes(4) + data[place + 4 :])
    assert info(path).fps == pytest.approx(12, abs=0.01)
    assert read_numbers(read(path)) == list(range(36))


def test_the_rate_of_a_variable_one_is_frames_over_duration(torture: Path) -> None:
    for name in ("05_vfr.webm", "05_vfr.mp4"):
        assert info(torture / name).fps == pytest.approx(60 / 10.643, abs=0.01)


@pytest.mark.parametrize("fps", [10.0, 12.5, 15.0])
@pytest.mark.parametrize("rate", [25, 30, 60])
def test_resampling_picks_the_same_frames_whatever_the_container_and_the_start(
    make_video, tmp_path: Path, rate: int, fps: float
) -> None:
    def later(packet: av.Packet, number: int) -> None:
        ticks = round(7.77 / packet.time_base)
        packet.pts += ticks
        packet.dts += ticks

    path = make_video("a.mp4", counting_frames(64), fps=rate)
    wanted = read_numbers(read(path, fps=fps))
    copies = [remux(path, tmp_path / name, later) for name in ("b.mkv", "c.ts", "d.flv")]
    copies += [remux(path, tmp_path / name) for name in ("e.mkv", "f.avi")]
    for copy in copies:
        assert read_numbers(read(copy, fps=fps)) == wanted, copy.name


def test_ties_go_to_the_earlier_frame() -> None:
    for name in ("a.mp4", "a_from_10_s.ts"):
        assert levels(read(CASES / name, fps=10.0))[:16] == EVERY_SECOND_AND_THIRD


@pytest.mark.parametrize("late", [-1, 0, 1])
def test_a_milliseconds_rounding_decides_no_tie(make_video, late: int) -> None:
    """Frame 2 stands until the middle between 0.2 and 1 s, where a tick of this clock falls."""
    path = make_video("a.mkv", counting_frames(6), times=[0, 100, 200, 1000 + late, 1100, 1200])
    assert read_numbers(read(path, fps=10.0)) == [0, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 5]


@pytest.mark.parametrize("jump", [-3, 2, 5, 45, 300])
def test_a_clock_set_anew_is_no_gap(tmp_path: Path, jump: int) -> None:
    """`cat a.ts b.ts`: three seconds at 12 frames a second, and three more whose clock starts `jump` seconds off."""
    times = [round(number * 1000 / 12) + 5000 for number in range(36)]
    first = write_video(tmp_path / "1.ts", counting_frames(36), times=times)
    second = write_video(
        tmp_path / "2.ts", counting_frames(36), times=[t + 3000 + 1000 * jump for t in times]
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    assert info(joined).fps == pytest.approx(12, abs=0.01)
    assert read_numbers(read(joined, fps=12.0)) == [*range(36), *range(36)]


def test_joined_recordings_hold_no_still_picture() -> None:
    frames = read(CASES / "dashcam_joined.ts", fps=10.0)
    assert len(frames) == 60
    assert (frames[1:] != frames[:-1]).any((1, 2, 3)).all()


def test_a_gap_elsewhere_is_time_in_which_the_picture_stands(make_video) -> None:
    path = make_video("a.mkv", counting_frames(3), times=[0, 500, 5500])
    assert read_numbers(read(path, fps=2.0)) == [0, *[1] * 6, *[2] * 5]
