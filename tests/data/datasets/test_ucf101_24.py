"""UCF101-24: files to dataset dicts and evaluators, with the real annotations, too."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from alphaaction_d2.apps.check import main as check
from alphaaction_d2.apps.check import parse_args as check_args
from alphaaction_d2.data.dataset_report import DatasetReport
from alphaaction_d2.data.datasets import register_folder
from alphaaction_d2.data.datasets.builtin import ucf101_24_files, ucf101_24_splits
from alphaaction_d2.data.datasets.ucf101_24 import UCFFiles, load_ucf101_24
from alphaaction_d2.data.ucf_report import check_ucf
from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.evaluation import UCF_PROTOCOLS, evaluate_ucf101_24
from alphaaction_d2.evaluation.tubes import evaluate_all_tubes
from alphaaction_d2.formats.ucf101_24 import UCFAnnotations, UCFDetections

WIDTH, HEIGHT = 64, 48


def picture(k: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), 10 * k, np.uint8)


def write_ucf(root: Path, frames: int = 12, pictures: bool = False) -> Path:
    """Two videos for training and one for testing, as AVI files or as pictures."""
    entries = {}
    for video in ("Run/v_Run_g01", "Dive/v_Dive_g01", "Dive/v_Dive_g02"):
        label = int(video.startswith("Run"))
        boxes = np.array([[10 + k, 8, 20, 30] for k in range(frames - 4)], np.uint8)
        tube = {"label": label, "sf": 2, "ef": frames - 2, "boxes": boxes}
        numf = np.uint8(frames)
        entries[video] = {"numf": numf, "label": label, "annotations": [tube]}
        if pictures:
            folder = root / "rgb-images" / video
            folder.mkdir(parents=True)
            for k in range(frames):
                Image.fromarray(picture(k)).save(folder / f"{k + 1:05d}.jpg")
        else:
            path = root / "videos" / f"{video}.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            with VideoWriter(path, 30000 / 1001, WIDTH, HEIGHT) as writer:  # not what counts
                for k in range(frames):
                    writer.write(picture(k))
    (root / "pyannot.pkl").write_bytes(pickle.dumps(entries, protocol=2))
    (root / "testlist01.txt").write_text("Dive/v_Dive_g02\n")
    return root


def write_persons(folder: Path, split: str, rows: list[str]) -> None:
    (folder / "boxes").mkdir(exist_ok=True)
    (folder / "boxes" / f"{split}_persons.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("pictures", [False, True])
def test_folder_to_dicts(tmp_path, pictures):
    folder = write_ucf(tmp_path / f"toy{pictures}", pictures=pictures)
    write_persons(
        folder, "test", ["v_Dive_g02,0.120,0.1,0.2,0.5,0.8,,0.9", "v_Dive_g02,0.160,0,0,1,1,,0.7"]
    )
    train, test = register_folder(folder)
    assert MetadataCatalog.get(train).thing_classes == ["Dive", "Run"]
    dicts = DatasetCatalog.get(train)
    assert [x["video_id"] for x in dicts] == ["Dive/v_Dive_g01"] * 8 + ["Run/v_Run_g01"] * 8
    assert [round(x["timestamp"] * 25) for x in dicts[:8]] == list(range(2, 10)), "annotated only"
    first = dicts[0]
    (annotation,) = first["annotations"]
    assert annotation["bbox"] == [10, 8, 30, 38]
    assert (annotation["category_id"], annotation["person_id"]) == (0, 0)
    assert (first["height"], first["width"], first["frame_rate"]) == (HEIGHT, WIDTH, 25.0)
    assert Path(first["file_name"]).exists()
    dicts = DatasetCatalog.get(test)
    assert [x["image_id"] for x in dicts] == [f"Dive/v_Dive_g02,{k:05d}" for k in range(12)]
    assert [len(x["persons"]) for x in dicts] == [0, 0, 0, 1, 1] + [0] * 7
    assert dicts[3]["persons"].boxes.tolist() == [[0.1, 0.2, 0.5, 0.8]]


def test_without_detected_persons_the_annotated_are_tested(tmp_path, caplog):
    folder = write_ucf(tmp_path / "toy")
    dicts = load_ucf101_24("toy", ucf101_24_files(folder, "test"))
    assert [len(x["persons"]) for x in dicts] == [0, 0] + [1] * 8 + [0, 0]
    assert "no detected persons; testing uses the annotated boxes" in caplog.text


def test_a_video_with_fewer_frames_than_annotated(tmp_path, caplog):
    folder = write_ucf(tmp_path / "toy")
    short = folder / "videos" / "Dive" / "v_Dive_g02.avi"
    with VideoWriter(short, 25, WIDTH, HEIGHT) as writer:
        for k in range(7):
            writer.write(picture(k))
    load_ucf101_24("toy", ucf101_24_files(folder, "test"))
    assert "1 of 1 videos have fewer frames than annotated" in caplog.text
    assert "Dive/v_Dive_g02 has 7 of 12" in caplog.text


def test_videos_that_are_not_there(tmp_path, caplog):
    folder = write_ucf(tmp_path / "toy")
    (folder / "videos" / "Run" / "v_Run_g01.avi").unlink()
    dicts = load_ucf101_24("toy", ucf101_24_files(folder, "train"))
    assert {x["video_id"] for x in dicts} == {"Dive/v_Dive_g01"}
    assert "1 of 2 videos cannot be used, which drops 8 of 16 keyframes" in caplog.text
    (folder / "testlist01.txt").unlink()
    with pytest.raises(ValueError, match="put testlist01.txt beside it"):
        load_ucf101_24("toy", ucf101_24_files(folder, "test"))
    with pytest.raises(FileNotFoundError, match="no annotations at .*pyannot.pkl"):
        load_ucf101_24("toy", ucf101_24_files(tmp_path / "nowhere", "test"))


def findings(folder: Path, decode: bool = True) -> tuple[list[str], list[str]]:
    """What is wrong, and what is unusual."""
    report = DatasetReport()
    check_ucf(ucf101_24_splits(folder), report, decode)
    return tuple([x.what for x in report.findings if x.wrong == wrong] for wrong in (True, False))


def test_check_dataset(tmp_path, capsys):
    folder = write_ucf(tmp_path / "toy")
    rows = [f"Dive/v_Dive_g02,{k / 25:.3f},0.1,0.2,0.5,0.8,,0.9" for k in range(2, 9)]
    write_persons(folder, "test", [*rows, "Dive/v_Dive_g09,0.040,0.1,0.2,0.5,0.8,,0.9"])
    wrong, unusual = findings(folder)
    assert wrong == [] and unusual == [
        "no detected persons: testing uses the annotated boxes",
        "persons of 1 videos that the split does not have: Dive/v_Dive_g09",
        "no detected person in 1 of 8 annotated frames, such as Dive/v_Dive_g02 frame 10",
    ]
    assert check(check_args([str(folder)])) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "0 wrong, 3 unusual" in words
    assert "train 2 16 2 0 0" in words and "test 1 12 1 8 0" in words
    assert "0 Dive 1 1" in words and "1 Run 1 0" in words


@pytest.mark.parametrize("decode", [True, False])
def test_what_is_wrong_is_found(tmp_path, decode):
    folder = write_ucf(tmp_path / "toy")
    with VideoWriter(folder / "videos/Dive/v_Dive_g02.avi", 25, WIDTH, HEIGHT) as writer:
        for k in range(7):
            writer.write(picture(k))
    (folder / "videos/Run/v_Run_g01.avi").write_text("no video")
    (folder / "videos/Dive/v_Dive_g01.avi").unlink()
    wrong, _ = findings(folder, decode)
    assert len(wrong) == 3
    assert "has 7 frames, the annotations count 12, and use the first 10" in wrong
    assert "1 of 2 videos are missing: Dive/v_Dive_g01" in wrong
    (folder / "pyannot.pkl").write_text("version https://git-lfs")
    wrong, _ = findings(folder, decode)
    assert len(wrong) == 1 and "pickle" in wrong[0]
    assert check(check_args([str(folder)])) == 1


# ------------------------------------------------------------------------------- real annotations


@pytest.fixture(scope="module")
def real(shared) -> UCFFiles:
    folder = shared / "ava" / "ucf101_24"
    return UCFFiles(folder / "pyannot.pkl", "test", None, folder / "testlist01.txt")


def perturbed(annotations: UCFAnnotations, rng: np.random.Generator) -> UCFDetections:
    """The annotated persons as a good model would find them, and a spectator in every frame.

    Boxes are moved by about a tenth of their size, 2 in 100 are missed, every tenth video is taken
    for another class, and everybody is given a little of another class.
    """
    gt = annotations
    kept = np.flatnonzero(rng.random(len(gt.frames)) > 0.02)
    sizes = np.tile(gt.boxes[:, 2:] - gt.boxes[:, :2], 2)
    boxes = gt.boxes + sizes * rng.normal(0, 0.07, gt.boxes.shape)
    numbers = np.array([zlib.crc32(video.encode()) for video in gt.videos])
    wrong = numbers[gt.video_codes] % 10 == 0
    lengths = gt.num_frames
    spectators = int(lengths.sum())
    columns = {
        "video_codes": (gt.video_codes[kept], gt.video_codes[kept]),
        "frames": (gt.frames[kept], gt.frames[kept]),
        "boxes": (boxes[kept], boxes[kept]),
        "labels": (((gt.labels + wrong) % 24)[kept], rng.integers(24, size=len(kept))),
        "scores": (
            rng.normal(0.75, 0.15, len(kept)).clip(0.05, 1),
            rng.uniform(0, 0.4, len(kept)),
        ),
        "person_ids": (gt.tubes[kept], gt.tubes[kept]),
    }
    others = {
        "video_codes": np.repeat(np.arange(len(lengths)), lengths),
        "frames": np.concatenate([np.arange(1, n + 1) for n in lengths]),
        "boxes": np.tile([280.0, 10, 310, 100], (spectators, 1)),
        "labels": np.repeat(numbers % 24, lengths),
        "scores": rng.uniform(0, 0.5, spectators),
        "person_ids": np.full(spectators, 99),
    }
    table = {name: np.concatenate([*parts, others[name]]) for name, parts in columns.items()}
    return UCFDetections(videos=gt.videos, **table)


@pytest.mark.slow
def test_real_annotations_through_data_set_and_evaluation(real):
    """910 videos: the counts of the annotations, and what a good model would be told."""
    dicts = load_ucf101_24("ucf101_24_real", real)
    assert len(dicts) == 159_289 and len({x["video_id"] for x in dicts}) == 910
    assert sum(len(x["annotations"]) for x in dicts) == 170_580
    assert sum(bool(x["annotations"]) for x in dicts) == 138_527
    assert {a["category_id"] for x in dicts for a in x["annotations"]} == set(range(24))
    annotations = real.read()
    found = perturbed(annotations, np.random.default_rng(0))
    frames = {name: evaluate_ucf101_24(annotations, found, name).mean_ap for name in UCF_PROTOCOLS}
    linked, identities = (x.numbers for x in evaluate_all_tubes(annotations, found))
    expected = {"gurkirt": 0.78799, "act": 0.77933, "yowo": 0.78416}
    assert frames == pytest.approx(expected, abs=1e-5)
    expected = {"0.2": 0.84429, "0.5": 0.79515, "0.75": 0.70162, "0.5:0.95": 0.49756}
    assert linked == pytest.approx(expected, abs=1e-5)
    expected = {"0.2": 0.86860, "0.5": 0.86471, "0.75": 0.84242, "0.5:0.95": 0.56982}
    assert identities == pytest.approx(expected, abs=1e-5)
