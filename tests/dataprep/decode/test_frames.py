"""Decoding against answers from outside: the ffmpeg command line, cv2, and frames that carry their number."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_videos import counting_frames, read_clips, read_numbers

from cwm_hub.shards.codecs import encode_clip
from cwm_hub.shards.scaling import bilinear, center_square, resize_image
from dataprep.__main__ import main
from dataprep.decode.frames import DecodeSettings, open_video
from dataprep.decode.hdr import PQ, to_sdr
from dataprep.decode.video_file import REASONS, VideoError

# sha256 of `ffmpeg -i FILE -vf scale=64:64 -pix_fmt rgb24 -f rawvideo -`, equal for ffmpeg 5.1.9 and 9.0.2 (x86-64).
FFMPEG_SCALE = {
    "00_ok.webm": "4714386c31a53afaf04fc9c2b73c385a437417cd4ece038aca90df029b54c760",
    "00_ok_vp8.webm": "39baa847a51a8da96d8b2ccda6d203716b65185d7fbf3a612ba7dafa7dd79601",
    "00_ok.mp4": "92bd4d575d95a11b5bfbf343fcbb708e8e53a519eb6f982f52e497953e025500",
    "04_rotate90.mp4": "073e640db44f9f35a82142cb0a0ff4ce276fb2b18ce4cad537fdccfe953d4220",
    "04_odd_161x121.webm": "e012082983071d73bd7da9ed12af96e19b322903863202676d5be417ecf2d360",
    "07_h264_yuv422p.mp4": "f6f947c7b71880e20429725b51f352aa88d11cbab720c2bf311992e896f0eb79",
}


def read(path: Path, **settings: object) -> np.ndarray:
    options = {"min_frames": 1, **settings}
    with open_video(path, DecodeSettings(**options)) as video:  # type: ignore[arg-type]
        return np.stack(list(video))


@pytest.mark.parametrize("name", FFMPEG_SCALE)
def test_bicubic_is_the_ffmpeg_command_bit_for_bit(torture: Path, name: str) -> None:
    assert hashlib.sha256(read(torture / name, resize="bicubic").tobytes()).hexdigest() == FFMPEG_SCALE[name]


def test_bilinear_reads_only_the_four_pixels_around_the_centre() -> None:
    row = np.array([0, 10, 20, 30, 100, 110, 120, 130], np.uint8)
    image = np.repeat(np.repeat(row[None, :, None], 8, 0), 3, 2)
    # 8 -> 2: centres at 1.5 and 5.5, so (10+20)/2 and (110+120)/2; an average over the area would give the same
    # here, so put a spike where only an antialiased filter looks.
    assert bilinear(image, 2, 2)[0, :, 0].tolist() == [15, 115]
    image[:, 0] = 255
    assert bilinear(image, 2, 2)[0, :, 0].tolist() == [15, 115]
    assert resize_image(image, 2, "area")[0, 0, 0] > 60


def test_bilinear_equals_cv2() -> None:
    y, x, c = np.ogrid[:431, :1000, :3]
    image = ((x * x // 7 + y * (3 + c) + x * y // 11) % 256).astype(np.uint8)
    # sha256 of cv2.resize(image, (64, 64)) by opencv-python-headless 5.0.0
    expected = "e6478e9059779ec3e60ac0c68bb05b996970ea09e5b5800f650230ebef035a46"
    assert hashlib.sha256(bilinear(image, 64, 64).tobytes()).hexdigest() == expected


def test_every_frame_in_order(make_video) -> None:
    path = make_video("a.webm", counting_frames(40), codec="libvpx-vp9")
    with open_video(path, DecodeSettings()) as video:
        numbers = read_numbers(list(video))
        assert numbers == list(range(40))
        assert video.source_frames == 40
        assert (video.info.width, video.info.height, video.info.fps) == (64, 48, 12.0)
        assert video.info.codec == "vp9"


def test_stride_and_skipped_head_keep_absolute_multiples(make_video) -> None:
    path = make_video("a.mp4", counting_frames(60))
    assert read_numbers(read(path, stride=5)) == list(range(0, 60, 5))
    assert read_numbers(read(path, stride=5, skip_head=7)) == list(range(10, 60, 5))
    with open_video(path, DecodeSettings(stride=5, min_frames=1)) as video:
        list(video)
        assert (video.source_frames, video.kept_frames, video.output_fps) == (60, 12, pytest.approx(12 / 5))


def test_every_decoded_packet_is_a_sign_of_life(make_video) -> None:
    path = make_video("a.mp4", counting_frames(60))
    signs = 0

    def alive() -> None:
        nonlocal signs
        signs += 1

    with open_video(path, DecodeSettings(stride=50, skip_head=10, min_frames=1)) as video:
        video.alive = alive
        assert len(list(video)) == 1
    assert signs >= 55  # of 60; the first ones came before anyone could ask


def test_variable_rate_is_resampled_by_timestamps(make_video) -> None:
    times = [0, 100, 200, 1000, 1100, 1200]
    path = make_video("a.mkv", counting_frames(6), times=times)
    assert read_numbers(read(path)) == [0, 1, 2, 3, 4, 5]
    # ticks every 100 ms; frame 2 (0.2 s) is nearest until 0.6 s, where the tie goes to the earlier frame
    assert read_numbers(read(path, fps=10.0)) == [0, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 5]


def test_resampling_to_the_native_rate_changes_nothing(make_video) -> None:
    path = make_video("a.mp4", counting_frames(30))
    assert read_numbers(read(path, fps=12.0)) == list(range(30))
    assert read_numbers(read(path, fps=6.0)) == list(range(0, 30, 2))


def test_a_gap_of_years_is_refused_and_not_filled(make_video) -> None:
    path = make_video("a.mkv", counting_frames(3), times=[0, 100, 1_000_000_000])
    with pytest.raises(VideoError, match=r"timestamps: .* s without a frame before frame 2"):
        read(path, fps=12.0)


def test_center_crop_drops_the_sides_and_squash_keeps_them(make_video) -> None:
    frames = np.zeros((3, 64, 192, 3), np.uint8)
    frames[:, :, :56, 0] = frames[:, :, 136:, 0] = 255  # red sides
    frames[:, :, 56:136, 1] = 255  # a green middle
    path = make_video("a.mp4", frames)
    cropped = read(path, fit="center-crop")
    assert cropped[..., 0].max() < 40 < 200 < cropped[..., 1].min()
    assert read(path)[:, :, 0, 0].min() > 200
    official = read(path, fit="center-crop", resize="official")
    assert np.abs(official.astype(int) - cropped).max() < 12


def test_area_is_the_mean_of_the_pixels_below(make_video) -> None:
    picture = np.broadcast_to(np.linspace(20, 235, 192).astype(np.uint8)[None, :, None], (128, 192, 3))
    path = make_video("a.mp4", np.repeat(picture[None], 3, 0))
    mean = picture.reshape(64, 2, 64, 3, 3).mean((1, 3))
    assert abs((read(path) - mean).mean()) < 0.7
    assert np.abs(read(path) - mean).max() < 4


def test_a_webm_is_told_from_its_header_as_a_matroska_from_its_pictures(make_video) -> None:
    import av

    webm = make_video("a.webm", counting_frames(30), codec="libvpx-vp9")
    probed = webm.with_name("probed.mkv")
    with av.open(str(webm)) as source, av.open(str(probed), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    infos = []
    for path in (webm, probed):
        with open_video(path, DecodeSettings()) as video:
            infos.append(video.info)
            assert read_numbers(list(video)) == list(range(30))
    assert infos[0] == infos[1]


def test_center_square() -> None:
    assert center_square(320, 240) == (40, 0, 240, 240)
    assert center_square(16, 480) == (0, 232, 16, 16)
    assert center_square(160, 120, aspect=64 / 45) == (
        38,
        0,
        84,
        120,
    )  # 84 wide pixels are as wide as 120 are high
    assert center_square(1, 1) == (0, 0, 1, 1)


def test_the_crop_sees_upright_frames_and_their_number(torture: Path) -> None:
    seen = []

    def crop(index: int, width: int, height: int) -> tuple[int, int, int, int]:
        seen.append((index, width, height))
        return 0, 0, width, height // 2

    with open_video(torture / "04_rotate90.mp4", DecodeSettings(stride=20, min_frames=1), crop=crop) as video:
        frames = np.stack(list(video))
        assert (video.info.width, video.info.height, video.info.rotation) == (120, 160, 90)
    assert seen == [(0, 120, 160), (20, 120, 160), (40, 120, 160)]
    whole = read(torture / "04_rotate90.mp4", stride=20, size=128)
    halved = resize_image(whole[0][:64], 64, "area")
    assert np.abs(frames[0].astype(int) - halved).mean() < 3


def test_rotation_turns_the_picture_upright(torture: Path) -> None:
    plain = read(torture / "00_ok.mp4")
    assert np.abs(read(torture / "04_rotate180.mp4").astype(int) - plain[:, ::-1, ::-1]).mean() < 2
    turned = np.rot90(plain, 1, axes=(1, 2))
    assert np.abs(read(torture / "04_rotate90.mp4").astype(int) - turned).mean() < 2


def test_odd_angles_are_turned_to_the_nearest_quarter(make_video) -> None:
    import av

    plain = make_video("plain.mp4", counting_frames(3))
    for degrees, turns in ((44, 0), (50, 1), (-100, 3)):
        path = plain.with_name(f"{degrees}.mp4")
        with av.open(str(plain)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            stream.set_display_rotation(degrees)
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        assert np.abs(read(path).astype(int) - np.rot90(read(plain), turns, axes=(1, 2))).mean() < 4, degrees


def test_full_and_limited_range_give_the_same_grey_ramp(torture: Path) -> None:
    ramp = read(torture / "07_range_pc_ramp.mp4")[0][32, :, 1].astype(int)
    assert ramp[0] <= 3
    assert ramp[-1] >= 252
    assert (np.diff(ramp) >= 0).all()


def test_hdr_is_converted_or_refused(torture: Path) -> None:
    path = torture / "07_hevc_10bit_hdr10_pq.mp4"
    with open_video(path, DecodeSettings()) as video:
        assert video.info.hdr
        assert len(list(video)) == 60
    with pytest.raises(VideoError, match="hdr_unsupported"):
        read(path, hdr="refuse")


def test_tone_mapping_by_hand() -> None:
    # 100 cd/m2 is PQ code 0.5081 (SMPTE ST 2084) and 100/203 of reference white, below the knee:
    # BT.709 encodes 0.4926 as 1.099 * 0.4926**0.45 - 0.099 = 0.7000 -> 178 or 179. 10,000 cd/m2 is white, 0 black.
    grey = np.full((1, 1, 3), round(0.5081 * 65535), np.uint16)
    assert to_sdr(grey, PQ).ravel().tolist() == pytest.approx([178.5] * 3, abs=1)
    assert to_sdr(np.full((1, 1, 3), 65535, np.uint16), PQ).min() >= 254
    assert to_sdr(np.zeros((1, 1, 3), np.uint16), PQ).max() == 0


@pytest.mark.parametrize("sound_first", [False, True])
def test_every_frame_beside_longer_sound(tmp_path: Path, sound_first: bool) -> None:
    """B frames too: the last ones come only when the decoder is flushed."""
    import av

    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        if sound_first:
            sound = container.add_stream("pcm_s16le", rate=8000)
        video = container.add_stream("libx264", rate=12, options={"qp": "0", "bf": "2"})
        if not sound_first:
            sound = container.add_stream("pcm_s16le", rate=8000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound.layout = "mono"
        for image in counting_frames(30):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        for start in range(0, 8000 * 9, 8000):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            samples.sample_rate, samples.pts = 8000, start
            container.mux(sound.encode(samples))
    assert read_numbers(read(path)) == list(range(30))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_unreadable(make_video) -> None:
    path = make_video("a.mp4", counting_frames(3))
    path.chmod(0)
    with pytest.raises(VideoError, match="unreadable"):
        read(path)


def test_an_error_survives_pickling_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(VideoError("truncated", "ends after 3 s")))
    assert (error.reason, error.detail, str(error)) == (
        "truncated",
        "ends after 3 s",
        "truncated: ends after 3 s",
    )
    assert all(meaning for meaning in REASONS.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 0), ("stride", 0), ("fps", 0.0), ("skip_head", -1), ("resize", "cubic"), ("fit", "x")],
)
def test_settings_refuse_nonsense(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        DecodeSettings(**{field: value})  # type: ignore[arg-type]


def test_decoding_never_imports_torch() -> None:
    code = (
        "import sys, dataprep.decode.frames; sys.exit('torch' in sys.modules or 'webdataset' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
@pytest.mark.parametrize(
    "name",
    ["00_ok.mp4", "00_ok.webm", "07_hevc.mp4", "07_mjpeg.avi", "07_flv1.flv", "07_wmv2.wmv", "05_vfr.webm"],
)
def test_a_file_cut_short_is_never_taken_for_a_shorter_one(
    torture: Path, tmp_path: Path, name: str, share: float
) -> None:
    data = (torture / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VideoError) as raised:
        read(path)
    assert raised.value.reason in ("truncated", "decode_error")


def test_paper_exact_ssv2_shards_hold_the_frames_of_the_ffmpeg_command(torture: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "7.webm").write_bytes((torture / "00_ok.webm").read_bytes())
    (tmp_path / "train.json").write_text('[{"id": "7", "label": "x", "template": "Holding [something]"}]')
    out = tmp_path / "out"
    folders = ["--videos", str(tmp_path / "videos"), "--labels", str(tmp_path), "--out", str(out)]
    assert main(["ssv2", *folders, "--paper-exact", "--codec", "raw", "--workers", "0"]) == 0
    (frames,) = read_clips(out).values()
    assert hashlib.sha256(frames.tobytes()).hexdigest() == FFMPEG_SCALE["00_ok.webm"]


def test_a_clips_bytes_do_not_depend_on_what_its_process_did_before() -> None:
    # x264's macroblock tree reads what decoders leave in memory: one of six byte strings in 120 tries.
    path = Path(__file__).parents[3] / "dataprep/samples/balance_single_cam4_later.mp4"
    written = set()
    for _ in range(60):
        with open_video(path, DecodeSettings(size=32)) as video:
            frames = np.stack(list(video))
        written.add(encode_clip(frames, "h264", 25))
    assert len(written) == 1
