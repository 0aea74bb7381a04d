"""The layouts of a data set, and every fault of one."""

from pathlib import Path

import pytest

from archsearch.errors import DataError
from archsearch.video.dataset import digest, read_dataset

DATA = Path(__file__).parents[2] / "shared" / "data"


def fill(root: Path, *names: str) -> Path:
    """Files that only look like videos: reading a data set opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def faults_of(root: Path) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    return caught.value.lines


def rows(root: Path, split: str) -> list[tuple[str, str]]:
    dataset = read_dataset(root)
    return [(video.name, dataset.classes[video.label]) for video in dataset.splits[split]]


def test_lists_with_class_names(tmp_path):
    fill(tmp_path, "a.mp4")
    (tmp_path / "train.csv").write_text(
        '\ufeffa.mp4 jump\nmy clip 2.mp4 run\n\nc.mp4,run\nd.mp4, jump\n"e f.MP4",jump\ng,h.avi run\ni.gif run\n',
        encoding="utf-8",
    )
    (tmp_path / "val.csv").write_text("/elsewhere/b.mp4 run\n")
    assert rows(tmp_path, "train") == [
        ("a.mp4", "jump"),
        ("my clip 2.mp4", "run"),
        ("c.mp4", "run"),
        ("d.mp4", "jump"),
        ("e f.MP4", "jump"),
        ("g,h.avi", "run"),
        ("i.gif", "run"),
    ]
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("jump", "run")
    assert dataset.splits["train"][0].path == tmp_path / "a.mp4"
    assert dataset.splits["val"][0].path == Path("/elsewhere/b.mp4")
    assert dataset.name == tmp_path.name
    assert set(dataset.splits) == {"train", "val"}
    assert any("no test split" in note for note in dataset.notes)


def test_class_names_with_spaces_need_a_video_suffix(tmp_path):
    (tmp_path / "train.csv").write_text("a b.mp4, playing guitar\nc.webm riding a bike\n")
    assert rows(tmp_path, "train") == [("a b.mp4", "playing guitar"), ("c.webm", "riding a bike")]


def test_numbers_without_names_are_ordered_as_numbers(tmp_path):
    (tmp_path / "train.csv").write_text("a.mp4 10\nb.mp4 9\nc.mp4 1\n")
    assert read_dataset(tmp_path).classes == ("1", "9", "10")
    assert rows(tmp_path, "train") == [("a.mp4", "10"), ("b.mp4", "9"), ("c.mp4", "1")]


def test_numbers_count_the_lines_of_classes_txt(tmp_path):
    (tmp_path / "classes.txt").write_text("walk\njump high\n")
    (tmp_path / "train.csv").write_text("a.mp4 1\nb.mp4 0\n")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("walk", "jump high")
    assert [video.label for video in dataset.splits["train"]] == [1, 0]


def test_all_faults_of_lists_at_once(tmp_path):
    (tmp_path / "train.csv").write_text("path label\na.mp4 circle\nb.mp4\nc.mp4 wave\n")
    (tmp_path / "val.csv").write_text("d.mp4 circel\n")
    lines = faults_of(tmp_path)
    assert len(lines) == 3
    assert lines[0].startswith(f"{tmp_path / 'train.csv'}, line 1: 'path label'")
    assert lines[1].startswith(f"{tmp_path / 'train.csv'}, line 3: 'b.mp4'")
    assert lines[2].startswith(f"{tmp_path / 'val.csv'}, line 1: label 'circel'")
    assert lines[2].endswith("did you mean 'circle'?")


def test_a_number_beyond_classes_txt(tmp_path):
    (tmp_path / "classes.txt").write_text("walk\njump\n")
    (tmp_path / "train.csv").write_text("a.mp4 0\nb.mp4 1\nc.mp4 2\n")
    (line,) = faults_of(tmp_path)
    assert "line 3: label '2' is not in classes.txt" in line


def test_a_class_of_val_that_is_never_trained(tmp_path):
    (tmp_path / "classes.txt").write_text("walk\njump\n")
    (tmp_path / "train.csv").write_text("a.mp4 walk\n")
    (tmp_path / "val.csv").write_text("a.mp4 jump\n")
    assert faults_of(tmp_path) == (f"{tmp_path}: class 'jump' is in val but not in train; known are walk",)


def test_lists_without_train(tmp_path):
    (tmp_path / "val.csv").write_text("a.mp4 walk\n")
    (line,) = faults_of(tmp_path)
    assert "no train split" in line


def test_a_list_that_is_no_text(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\x00\x81")
    assert "not UTF-8" in faults_of(tmp_path)[0]


def test_a_video_in_two_splits_is_told(tmp_path):
    (tmp_path / "train.csv").write_text("a.mp4 walk\nb.mp4 walk\n")
    (tmp_path / "test.csv").write_text("b.mp4 walk\n")
    assert any("videos in both train and test: 1, such as b.mp4" in note for note in read_dataset(tmp_path).notes)


def test_split_folders(tmp_path):
    fill(tmp_path, "train/run/b.mp4", "train/jump/a.MOV", "train/jump/deep/c.avi", "test/run/d.mkv")
    fill(tmp_path, "train/jump/notes.txt", "train/jump/._a.mp4", "validation/run/a.mp4")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("jump", "run")
    assert rows(tmp_path, "train") == [
        ("train/jump/a.MOV", "jump"),
        ("train/jump/deep/c.avi", "jump"),
        ("train/run/b.mp4", "run"),
    ]
    assert rows(tmp_path, "test") == [("test/run/d.mkv", "run")]
    assert any("validation: not read" in note for note in dataset.notes)
    assert any("no val split" in note for note in dataset.notes)


def test_all_faults_of_split_folders_at_once(tmp_path):
    fill(tmp_path, "train/run/a.mp4", "val/runn/a.mp4", "test/run/readme.txt")
    lines = faults_of(tmp_path)
    assert len(lines) == 2
    assert lines[0].startswith(f"{tmp_path / 'test' / 'run'}: class folder without videos")
    assert lines[1] == f"{tmp_path}: class 'runn' is in val but not in train; did you mean 'run'?"


def test_split_folders_without_train(tmp_path):
    fill(tmp_path, "val/run/a.mp4")
    assert any("no train split" in line for line in faults_of(tmp_path))


def test_class_folders_are_split_by_seed(tmp_path):
    fill(tmp_path, *(f"{name}/{number}.mp4" for name in ("jump", "run") for number in range(10)))
    dataset = read_dataset(tmp_path)
    assert {split: len(videos) for split, videos in dataset.splits.items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }
    for videos in dataset.splits.values():
        assert sum(video.label == 0 for video in videos) * 2 == len(videos)
    names = [video.name for videos in dataset.splits.values() for video in videos]
    assert len(set(names)) == 20
    assert read_dataset(tmp_path) == dataset
    assert read_dataset(tmp_path, seed=1).splits != dataset.splits
    (note,) = dataset.notes
    assert "split 60/20/20 inside each class with seed 0 (train 12, val 4, test 4 videos)" in note


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, *(f"{name}/{number}.mp4" for name in ("bus", "train") for number in range(5)))
    assert read_dataset(tmp_path).classes == ("bus", "train")


def test_an_empty_class_folder(tmp_path):
    fill(tmp_path, "jump/a.mp4", "run/a.txt")
    (line,) = faults_of(tmp_path)
    assert line.startswith(f"{tmp_path / 'run'}: class folder without videos")


def test_no_videos_at_all(tmp_path):
    (tmp_path / "jump").mkdir()
    (line,) = faults_of(tmp_path)
    assert line.startswith(f"{tmp_path}: no videos")


def test_a_missing_folder_and_a_file(tmp_path):
    assert faults_of(tmp_path / "none")[0].startswith(f"{tmp_path / 'none'}: no such folder")
    (tmp_path / "file").touch()
    assert faults_of(tmp_path / "file")[0].startswith(f"{tmp_path / 'file'}: a file, not a folder")


def test_digest_sees_content_names_labels_and_splits(tmp_path):
    fill(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    digests = set()

    def listed(train: str, val: str) -> str:
        (tmp_path / "train.csv").write_text(train)
        (tmp_path / "val.csv").write_text(val)
        digests.add(digest(read_dataset(tmp_path)))
        return digest(read_dataset(tmp_path))

    first = listed("a.mp4 x\nb.mp4 y\n", "c.mp4 x\n")
    assert len(first) == 16
    assert int(first, 16) >= 0
    listed("a.mp4 x\nb.mp4 y\nc.mp4 x\n", "")
    listed("a.mp4 y\nb.mp4 x\n", "c.mp4 x\n")
    listed("a.mp4 x\nb.mp4 z\n", "c.mp4 x\n")
    listed("a.mp4 x\n./none.mp4 y\n", "c.mp4 x\n")
    (tmp_path / "a.mp4").write_bytes(b"another content")
    listed("a.mp4 x\nb.mp4 y\n", "c.mp4 x\n")
    assert len(digests) == 6
    (tmp_path / "a.mp4").write_bytes(b"a.mp4")
    assert listed("a.mp4 x\nb.mp4 y\n", "c.mp4 x\n") == first


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the UTD-MHAD clips in ../shared/data")
def test_real_lists():
    dataset = read_dataset(DATA / "utd_mhad_depth")
    assert len(dataset.classes) == 11
    assert {split: len(videos) for split, videos in dataset.splits.items()} == {
        "train": 175,
        "val": 88,
        "test": 88,
    }
    assert dataset.notes == ()
    assert all(video.path.is_file() for videos in dataset.splits.values() for video in videos)
