"""Sound that goes with the pictures: at the right time, whatever the file looks like."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from alphaaction_d2.data.video import VideoWriter, iterate_frames, open_sound, probe_video

RATE, FPS = 16_000, 10


def write_film(path: Path, seconds: int = 3, sound_from: float = 0.0, layout="mono") -> Path:
    """A film with a beep of 0.1 s at every whole second, as loud as the second's number."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout=layout)
        for i in range(seconds * FPS):
            picture = np.full((48, 64, 3), 20 * (i % FPS), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        t = np.arange(round(sound_from * RATE), seconds * RATE) / RATE
        beeps = np.sin(2 * np.pi * 1000 * t) * (t % 1 < 0.1) * (np.floor(t) + 1) / 10
        channels = 2 if layout == "stereo" else 1
        frame = av.AudioFrame.from_ndarray(
            np.repeat(beeps[None].astype(np.float32), channels, 0), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts = RATE, round(sound_from * RATE)
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


def loudness(path: Path, moments: list[float]) -> list[float]:
    """How loud 0.1 s from each moment on is, in the same units as `write_film`."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", rate=RATE)
        parts = [p for f in container.decode(stream) for p in resampler.resample(f)]
        begin = round(float(parts[0].pts * parts[0].time_base) * RATE)
        samples = np.concatenate([np.zeros(begin), *(p.to_ndarray()[0] for p in parts)])
    found = []
    for moment in moments:
        part = samples[round(moment * RATE) : round((moment + 0.1) * RATE)]
        found.append(float(np.sqrt(2 * np.mean(part**2))) if len(part) else 0.0)
    return found


def copy(film: Path, to: Path, moments: list[float]) -> Path:
    """A film that shows, and lets hear, these moments, each for a frame."""
    sound = open_sound(probe_video(film))
    assert sound is not None
    with VideoWriter(to, FPS, 64, 48, sound=sound) as writer:
        for moment in moments:
            writer.write(np.zeros((48, 64, 3), np.uint8), moment)
    sound.close()
    return to


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_the_sound_of_every_frame(tmp_path, layout):
    film = write_film(tmp_path / "film.mp4", layout=layout)
    moments = [t for t, _ in iterate_frames(film)]
    result = copy(film, tmp_path / "copy.mp4", moments)
    heard = loudness(result, [0, 1, 2, 0.5, 1.5])
    np.testing.assert_allclose(heard, [0.1, 0.2, 0.3, 0, 0], atol=0.03)
    with av.open(str(result)) as container:
        assert [s.codec_context.name for s in container.streams] == ["h264", "aac"]
        assert container.streams.audio[0].layout.name == layout
        lengths = [float(s.duration * s.time_base) for s in container.streams]
        assert lengths[1] == pytest.approx(lengths[0], abs=0.1)


def test_what_is_cut_out_is_not_heard(tmp_path):
    film = write_film(tmp_path / "film.mp4")
    kept = [i / FPS for i in range(30) if not 5 <= i < 15]  # without 0.5 s to 1.5 s
    heard = loudness(copy(film, tmp_path / "copy.mp4", kept), [0, 0.5, 1.0])
    np.testing.assert_allclose(heard, [0.1, 0, 0.3], atol=0.03)


def test_sound_that_begins_later_and_ends_earlier(tmp_path):
    film = write_film(tmp_path / "film.mp4", sound_from=1.0)
    moments = [i / FPS for i in range(40)]  # the film has 30
    heard = loudness(copy(film, tmp_path / "copy.mp4", moments), [0, 1, 2, 3])
    np.testing.assert_allclose(heard, [0, 0.2, 0.3, 0], atol=0.03)


def test_videos_without_sound(tmp_path):
    with VideoWriter(tmp_path / "silent.mp4", FPS, 64, 48) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert open_sound(probe_video(tmp_path / "silent.mp4")) is None


def test_real_sound_stays_where_it_was(shared, tmp_path):
    """A container with two videos and two sounds, whose best ones belong together."""
    film = shared / "videos" / "awkward" / "multi_stream_nasa.mp4"
    info = probe_video(film)
    sound = open_sound(info)
    assert sound is not None
    size = (info.width, info.height)
    with VideoWriter(tmp_path / "copy.mp4", info.average_fps, *size, sound=sound) as writer:
        for i, (seconds, frame) in enumerate(iterate_frames(film)):
            writer.write(frame, seconds)
            if i == 100:
                break
    sound.close()

    def samples(path: Path) -> np.ndarray:
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
            decoded = container.decode(container.streams.best("audio"))
            parts = [p.to_ndarray().ravel() for f in decoded for p in resampler.resample(f)]
        return np.concatenate(parts)[: 3 * RATE]

    before, after = samples(film), samples(tmp_path / "copy.mp4")
    middle = slice(RATE // 2, -RATE // 2)
    shifts = range(-800, 801, 4)
    best = max(shifts, key=lambda k: np.dot(before[middle], np.roll(after, -k)[middle]))
    assert abs(best) <= 0.01 * RATE
