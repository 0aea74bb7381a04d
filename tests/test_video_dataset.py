"""The layouts of a data set, and every fault of one."""

import io
import json
import os
import tarfile
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


def listed(root: Path, split: str) -> list[tuple[str, str]]:
    return sorted(rows(root, split))


def text(root: Path, **files: str) -> None:
    for name, content in files.items():
        (root / name.replace("__", ".")).write_text(content)


KINETICS = "label,youtube_id,time_start,time_end,split\n"


def test_kinetics_lists(tmp_path):
    fill(
        tmp_path,
        "val/run/bbbbbbbbbbb_000010_000020.mp4",
        "whole/-cccccccccc.webm",
        "train/jump_high/aaa_000001_000011.mp4",
    )
    text(
        tmp_path,
        train__csv=f'{KINETICS}"jump high",aaa,1,11,train\nrun,-cccccccccc,5.0,15,train\nrun,gone1,5,15,train\n',
        validate__csv=f"{KINETICS}run,bbbbbbbbbbb,10,20,validate\nrun,gone2,5,15,validate\n",
    )
    dataset = read_dataset(tmp_path)
    assert listed(tmp_path, "train") == [
        ("train/jump_high/aaa_000001_000011.mp4", "jump high"),
        ("whole/-cccccccccc.webm#t=5,15", "run"),
    ]
    assert listed(tmp_path, "val") == [("val/run/bbbbbbbbbbb_000010_000020.mp4", "run")]
    spans = {video.path.name: video.span for video in dataset.splits["train"]}
    assert spans == {"aaa_000001_000011.mp4": None, "-cccccccccc.webm": (5.0, 15.0)}
    assert dataset.notes[:2] == (
        f"{tmp_path}: read as Kinetics lists",
        f"{tmp_path}: 2 of 5 listed videos are not there, such as gone1",
    )


def test_kinetics_in_one_file_and_its_faults(tmp_path):
    fill(tmp_path, "videos/aaa.mp4", "videos/bbb.mp4")
    text(tmp_path, k400__csv=f"{KINETICS}run,aaa,1,11,train\nrun,aaa,20,30,val\nrun,bbb,0,10,test\n,bbb,0,10,test\n")
    dataset = read_dataset(tmp_path)
    assert {split: [video.name for video in videos] for split, videos in dataset.splits.items()} == {
        "train": ["videos/aaa.mp4#t=1,11"],
        "val": ["videos/aaa.mp4#t=20,30"],
        "test": ["videos/bbb.mp4#t=0,10"],
    }
    assert any("1 rows have no label" in note for note in dataset.notes)
    assert any("videos in both train and val: 1" in note for note in dataset.notes)
    text(tmp_path, k400__csv=f"{KINETICS}run,aaa,11,1,train\nrun,aaa,1,2,tomorrow\nrun,aaa\n")
    assert [line.split(": ")[0].rsplit(" ", 1)[1] for line in faults_of(tmp_path)] == ["2", "3", "4"]


def test_a_trained_class_that_kinetics_classes_lack_is_one_line(tmp_path):
    fill(tmp_path, "aaa.mp4", "bbb.mp4", "ccc.mp4")
    rows = "jump,aaa,1,11,train\nrun,bbb,1,11,train\nrun,ccc,1,11,train\nswim,ccc,20,30,val\n"
    text(tmp_path, k400__csv=KINETICS + rows, classes__txt="jump\nrunn\n")
    assert faults_of(tmp_path) == (
        f"{tmp_path / 'k400.csv'}, line 3: class 'run' is not in classes.txt; did you mean 'runn'?",
    )
    text(tmp_path, classes__txt="run\nwalk\njump\n")
    assert read_dataset(tmp_path).classes == ("run", "jump")


def test_a_trained_folder_that_ucf101_classes_lack_is_one_line(tmp_path):
    lists = ucf(tmp_path) / "ucfTrainTestlist"
    (lists / "classInd.txt").write_text("1 Run\n\n2 Jumping\n")
    first = (lists / "trainlist01.txt").read_text().splitlines().index("Jump/v_Jump_g08_c01.avi 2") + 1
    assert faults_of(tmp_path) == (
        f"{lists / 'trainlist01.txt'}, line {first}: class 'Jump' is not in classInd.txt; did you mean 'Jumping'?",
    )


def ucf(root: Path) -> Path:
    names = [
        f"{c}/v_{c}_g{group:02d}_c0{clip}.avi" for c in ("Run", "Jump") for group in range(1, 26) for clip in (1, 2)
    ]
    fill(root / "UCF-101", *names)
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Run\n2 Jump\n")
    for fold, test in ((1, range(1, 8)), (2, range(8, 15))):
        inside = [int(name.split("_g")[1][:2]) in test for name in names]
        train = [f"{name} {1 + name.startswith('J')}" for name, yes in zip(names, inside, strict=True) if not yes]
        (lists / f"trainlist{fold:02d}.txt").write_text("\r\n".join(train))
        (lists / f"testlist{fold:02d}.txt").write_text(
            "\n".join(n for n, yes in zip(names, inside, strict=True) if yes)
        )
    return root


@pytest.mark.parametrize("place", [".", "ucfTrainTestlist"])
def test_ucf101_takes_val_out_of_train_by_group(tmp_path, place):
    root = ucf(tmp_path) / place
    dataset = read_dataset(root)
    assert dataset.classes == ("Run", "Jump")
    groups = {split: {video.name[-10:-8] for video in videos} for split, videos in dataset.splits.items()}
    assert groups["test"] == {f"{group:02d}" for group in range(1, 8)}
    assert len(groups["val"]) == 4
    assert not groups["train"] & groups["val"]
    assert len(groups["train"] | groups["val"]) == 18
    assert all(video.path.is_file() for videos in dataset.splits.values() for video in videos)
    assert any("16 videos of train became val, whole groups so that none is in both" in note for note in dataset.notes)
    assert read_dataset(root, seed=3).splits["val"] != dataset.splits["val"]
    again = read_dataset(Path(f"{root}#2"))
    assert again == read_dataset(root, fold=2)
    assert {video.name[-10:-8] for video in again.splits["test"]} == {f"{group:02d}" for group in range(8, 15)}
    with pytest.raises(DataError, match=r"trainlist03\.txt"):
        read_dataset(root, fold=3)


def test_a_split_number_where_there_are_none(tmp_path):
    fill(tmp_path, "run/a.mp4")
    with pytest.raises(DataError, match="read as class folders, which have no split number 2"):
        read_dataset(Path(f"{tmp_path}#2"))


def test_hmdb51_lists(tmp_path):
    names = {
        label: [f"film{n // 2}_{label}_u_nm_np1_ba_goo_{n}.avi" for n in range(20)] for label in ("run", "brush_hair")
    }
    (tmp_path / "lists").mkdir()
    for label, files in names.items():
        fill(tmp_path, *(f"lists/{label}/{name}" for name in files))
        marks = [2 if n < 4 else 0 if n == 4 else 1 for n in range(20)]
        lines = [f"{name} {mark} " for name, mark in zip(files, marks, strict=True)]
        (tmp_path / "lists" / f"{label}_test_split1.txt").write_text("\n".join(lines))
    dataset = read_dataset(tmp_path / "lists")
    assert dataset.classes == ("brush_hair", "run")
    films = {s: {Path(video.name).name.split("_")[0] for video in videos} for s, videos in dataset.splits.items()}
    assert films["test"] == {"film0", "film1"}
    assert films["val"]
    assert not films["val"] & films["train"]
    assert sum(len(videos) for videos in dataset.splits.values()) == 2 * 19


def test_something_something_lists(tmp_path):
    fill(tmp_path, "20bn/1.webm", "20bn/2.webm", "20bn/10.webm")
    template = {"pull": "Pulling [something] onto [something]", "drop": "Dropping [something]"}
    text(
        tmp_path,
        labels__json=json.dumps({"Dropping something": "1", "Pulling something onto something": "0"}),
        train__json=json.dumps([{"id": "1", "template": template["drop"]}, {"id": "2", "template": template["pull"]}]),
        validation__json=json.dumps(
            [{"id": "10", "template": template["drop"]}, {"id": "77", "template": template["drop"]}]
        ),
        test__json=json.dumps([{"id": "3"}]),
    )
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("Pulling something onto something", "Dropping something")
    assert listed(tmp_path, "train") == [("20bn/1.webm", dataset.classes[1]), ("20bn/2.webm", dataset.classes[0])]
    assert listed(tmp_path, "val") == [("20bn/10.webm", dataset.classes[1])]
    assert any("1 of 4 listed videos are not there, such as 77" in note for note in dataset.notes)
    assert any("1 entries have no label" in note for note in dataset.notes)


def test_activitynet_annotations(tmp_path):
    fill(tmp_path, "videos/v_aa.mp4", "videos/bb.mkv")
    segments = [{"label": "run", "segment": [0.01, 12.5]}, {"label": "jump", "segment": [20, 30]}]
    database = {
        "aa": {"subset": "training", "annotations": [*segments, {"label": "jump", "segment": [0.01, 12.5]}]},
        "bb": {"subset": "validation", "annotations": segments[:1]},
        "cc": {"subset": "testing", "annotations": []},
    }
    text(tmp_path, activity_net__json=json.dumps({"version": "1.3", "database": database}))
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("jump", "run")
    assert dataset.multi_label
    first, second = dataset.splits["train"]
    assert (first.name, first.span, first.label, first.labels) == (
        "videos/v_aa.mp4#t=0.01,12.5",
        (0.01, 12.5),
        1,
        (1, 0),
    )
    assert (second.span, second.label, second.labels) == ((20.0, 30.0), 0, (0,))
    assert dataset.splits["val"][0].path == tmp_path / "videos/bb.mkv"
    database["bb"]["annotations"] = [{"label": "run", "segment": [5, 2]}]
    text(tmp_path, activity_net__json=json.dumps({"database": database}))
    (line,) = faults_of(tmp_path)
    assert "video 'bb': segment [5, 2] ends before it starts" in line


def test_sports1m_lists_have_several_labels(tmp_path):
    fill(tmp_path, "videos/a-_1.mp4", "videos/b2.mp4", *(f"videos/n{number}.mp4" for number in range(20)))
    url = "https://www.youtube.com/watch?v="
    train = "".join(f"{url}n{number} 2\n" for number in range(20))
    text(
        tmp_path,
        labels__txt="chess\nrunning\njudo\n",
        train_partition__txt=f"{url}a-_1 1,0\n{url}gone 1\n{train}",
        test_partition__txt=f"{url}b2 1\n",
    )
    dataset = read_dataset(tmp_path)
    assert dataset.multi_label
    assert dataset.classes == ("chess", "running", "judo")
    several = {video.path.stem: (video.label, video.labels) for videos in dataset.splits.values() for video in videos}
    assert several["a-_1"] == (1, (1, 0))
    assert several["b2"] == (1, (1,))
    assert 0 < len(dataset.splits["val"]) < 8
    text(tmp_path, test_partition__txt=f"{url}b2 1,9\n")
    assert "line 1" in faults_of(tmp_path)[0]


def test_lists_with_several_labels_stretches_and_folders_of_frames(tmp_path):
    fill(tmp_path, "a.mp4", "frames/v 1/1.jpg", "frames/v 2/1.png")
    text(
        tmp_path,
        classes__txt="walk\njump, high\nrun\n",
        train__csv="a.mp4 0,2\na.mp4#t=1.5,9 run\nframes/v 1 2\nframes/v 2, jump, high\n",
    )
    dataset = read_dataset(tmp_path)
    assert dataset.multi_label
    assert [(video.name, video.labels, video.span) for video in dataset.splits["train"]] == [
        ("a.mp4", (0, 2), None),
        ("a.mp4#t=1.5,9", (2,), (1.5, 9.0)),
        ("frames/v 1", (2,), None),
        ("frames/v 2", (1,), None),
    ]
    assert dataset.splits["train"][1].path == tmp_path / "a.mp4"


def test_folders_of_frames_in_class_folders(tmp_path):
    fill(
        tmp_path,
        *(
            f"{split}/{c}/v{n}/{f}.jpg"
            for split in ("train", "val")
            for c in ("run", "jump")
            for n in (1, 2)
            for f in (1, 2)
        ),
    )
    assert listed(tmp_path, "val") == [(f"val/{c}/v{n}", c) for c in ("jump", "run") for n in (1, 2)]
    before = digest(read_dataset(tmp_path))
    (tmp_path / "val/run/v1/2.jpg").write_bytes(b"changed")
    assert digest(read_dataset(tmp_path)) != before
    fill(tmp_path / "classes", *(f"{c}/v{n}/1.png" for c in ("train", "bus") for n in range(5)))
    assert read_dataset(tmp_path / "classes").classes == ("bus", "train")


def shard(path: Path, files: dict[str, bytes], *special: tarfile.TarInfo) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for info in special:
            archive.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_tar_shards(tmp_path):
    files = {
        "a.mp4": b"AAAA",
        "a.cls": b"1",
        "d/b.mp4": b"BB",
        "d/b.json": b'{"label": "run"}',
        "c.mp4": b"C",
        "c.txt": b"run\n",
    }
    shard(tmp_path / "train-000.tar", files)
    shard(tmp_path / "val" / "000.tar", {"../../etc/x.mp4": b"XX", "../../etc/x.json": b"[0, 1]", "none.mp4": b"N"})
    text(tmp_path, classes__txt="walk\nrun\n")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("run",)  # nothing of train walks
    content = {}
    for video in (video for videos in dataset.splits.values() for video in videos):
        offset, size = video.member
        content[video.name] = video.path.read_bytes()[offset : offset + size]
    assert content == {
        "train-000.tar#a.mp4": b"AAAA",
        "train-000.tar#d/b.mp4": b"BB",
        "train-000.tar#c.mp4": b"C",
        "val/000.tar#../../etc/x.mp4": b"XX",
    }
    assert any("1 videos have no label beside them" in note for note in dataset.notes)


def test_tar_shards_hold_no_links_and_may_be_cut(tmp_path):
    shard(
        tmp_path / "train.tar",
        {"a.mp4": b"A" * 600, "a.cls": b"x", "b.mp4": b"B" * 6000, "b.cls": b"x"},
        link("l.mp4", "/etc/passwd"),
        link("h.mp4", "a.mp4", tarfile.LNKTYPE),
        link("p.mp4", "", tarfile.FIFOTYPE),
        link("l.cls", "/etc/hostname"),
    )
    assert [video.name for video in read_dataset(tmp_path).splits["train"]] == ["train.tar#a.mp4", "train.tar#b.mp4"]
    os.truncate(tmp_path / "train.tar", 10 * 512)
    assert [video.name for video in read_dataset(tmp_path).splits["train"]] == ["train.tar#a.mp4"]
    before = digest(read_dataset(tmp_path))
    shard(tmp_path / "train.tar", {"z": b"", "a.mp4": b"A" * 600, "a.cls": b"x"})
    assert digest(read_dataset(tmp_path)) == before
    shard(tmp_path / "train.tar", {"z": b"", "a.mp4": b"A" * 599, "a.cls": b"x"})
    assert digest(read_dataset(tmp_path)) != before
    (tmp_path / "train.tar").write_bytes(b"no tar file")
    assert "no tar file" in faults_of(tmp_path)[0]


def test_a_stray_tar_file_beside_class_folders_is_no_data_set(tmp_path):
    fill(tmp_path, "run/a.mp4", "jump/b.mp4")
    shard(tmp_path / "train.tar", {"a.mp4": b"A", "a.cls": b"x"})
    assert read_dataset(tmp_path).classes == ("jump", "run")
    fill(tmp_path / "frames", *(f"{c}/v{n}/1.jpg" for c in ("a", "b") for n in range(5)))
    shard(tmp_path / "frames" / "train.tar", {"a.mp4": b"A", "a.cls": b"x"})
    assert read_dataset(tmp_path / "frames").classes == ("a", "b")


def test_annotations_that_are_none(tmp_path):
    """Whatever JSON holds, every fault is a line, and an unrelated file is no annotation."""
    fill(tmp_path, "run/a.mp4")
    (tmp_path / "notes.json").write_text('{"seed": 0, "database": [1]}')
    assert read_dataset(tmp_path).classes == ("run",)
    for record in (None, 3, [], {}, {"subset": [], "annotations": [{}]}, {"subset": "training", "annotations": [3]}):
        (tmp_path / "notes.json").write_text(json.dumps({"database": {"a": record}}))
        assert "video 'a': " in faults_of(tmp_path)[0]
    (tmp_path / "train.json").write_text('{"id": 1}')
    (tmp_path / "labels.json").write_text('["run"]')
    assert faults_of(tmp_path) == (f"{tmp_path / 'labels.json'}: no record of class names and their numbers",)
    (tmp_path / "labels.json").write_text('{"run": "0"}')
    assert "no list of entries" in faults_of(tmp_path)[0]


def test_what_was_read_before_keeps_its_digest(tmp_path):
    """Packs are found by it."""
    fill(tmp_path, *(f"{split}/{c}/{n}.mp4" for split in ("train", "val") for c in ("a", "b") for n in range(2)))
    assert digest(read_dataset(tmp_path)) == "4bda66436abd3d3e"
    text(tmp_path, train__csv="train/a/0.mp4 x\nnone.mp4 y\n./train/b.d x\n", val__csv="val/a/0.mp4 x\n")
    assert digest(read_dataset(tmp_path)) == "3b9f9c71143404ca"


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").symlink_to("/dev/zero")
    (tmp_path / "train.csv").write_text("a.mp4 x\nb.mp4 x\n")
    assert len(digest(read_dataset(tmp_path))) == 16


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
