"""Optical flow: what the methods find, how it is kept, how clips of it are cut, and networks that read it."""

import json
import pickle
import resource
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from archsearch.errors import DataError, MissingExtra, SpecError, VideoError
from archsearch.files import dump_yaml, parse_yaml
from archsearch.search.plan import digest_recipe
from archsearch.search.worker import train_candidate
from archsearch.spec.presets import preset
from archsearch.spec.spec import parse_spec, spec_yaml, with_classes, with_sides
from archsearch.store import open_store, read_json
from archsearch.training.clips import epoch_batches, sampling_for, split_of, with_flow
from archsearch.training.loop import train
from archsearch.training.recipe import Recipe
from archsearch.training.single import at_frames
from archsearch.video import children
from archsearch.video import pack as pack_module
from archsearch.video.clips import Sampling, mirror, training_batch, view_batch
from archsearch.video.dataset import read_dataset
from archsearch.video.decode import encode
from archsearch.video.flow import as_bytes, default_bound, fields
from archsearch.video.pack import Pack, PackedSplit, open_flow, open_pack
from archsearch.video.variation import Variation, varied_clips

METHODS = ["farneback", "tvl1", "dis"]
BOUND = 6.0
TWO = """
name: two
clip: {rgb: [3, 4, 32, 32], flow: [2, 4, 32, 32]}
stages:
  - {kind: conv, name: a, from: rgb, width: 4, kernel: [1, 5, 5], stride: [1, 2, 2]}
  - {kind: conv, name: b, from: flow, width: 4, kernel: [3, 5, 5], stride: [1, 2, 2]}
  - {kind: residual, name: res2, from: [a, b], depth: 1, width: 8, stride: 2}
  - {kind: head, name: head, dropout: 0.3, classes: 4}
"""
APART = """
name: apart
clip: {rgb: [3, 4, 32, 32], flow: [2, 4, 32, 32]}
stages:
  - {kind: conv, name: a, from: rgb, width: 4, stride: [1, 4, 4]}
  - {kind: head, name: head_a, classes: 4}
  - {kind: conv, name: b, from: flow, width: 4, stride: [1, 4, 4]}
  - {kind: head, name: head_b, classes: 4}
  - {kind: average, name: scores, from: [head_a, head_b]}
"""
FLOW = """
name: flow
clip: [4, 4, 32, 32]
stages:
  - {kind: conv, name: stem, width: 4, kernel: [1, 5, 5], stride: [1, 4, 4]}
  - {kind: residual, name: res2, depth: 1, width: 4}
  - {kind: head, name: head, classes: 4}
"""  # two fields a frame


def net(text, **changes):
    data = parse_yaml(text, "net.yaml", SpecError) | changes
    return parse_spec(data, "net.yaml")


def recipe(**changes):
    return Recipe(**{"epochs": 2, "batch": 8, "warmup_epochs": 1, "views": 1, **changes})


def moving(u, v, count=4, side=80, seed=0):
    """Frames of a smooth texture that moves by whole (u, v) pixels a frame."""
    rng = np.random.default_rng(seed)
    texture = rng.normal(size=(160, 160, 3))
    for axis in (0, 1):
        for _ in range(3):
            texture = sum(np.roll(texture, shift, axis) for shift in (-1, 0, 1))
    low, high = texture.min(), texture.max()
    texture = ((texture - low) / (high - low) * 255).astype(np.uint8)
    start = 40
    crops = [(start - v * i, start - u * i) for i in range(count)]
    return np.stack([texture[y : y + side, x : x + side] for y, x in crops])


def found(frames, method="farneback", bound=BOUND):
    return np.stack(list(fields(frames, method, bound)))


def in_pixels(flow, bound=BOUND):
    return (flow.astype(np.float64) - 128) / 127 * bound


def inner(flow):
    """Away from the border, where texture comes in and goes out."""
    return flow[..., 16:-16, 16:-16, :]


# Methods and bytes.


@pytest.mark.parametrize("motion", [(2, 0), (0, -3), (-2, 1)])
@pytest.mark.parametrize("method", METHODS)
def test_each_method_finds_a_translation(method, motion):
    pixels = inner(in_pixels(found(moving(*motion), method)))
    assert np.abs(np.median(pixels, axis=(1, 2)) - motion).max() < 0.15
    assert np.abs(pixels - motion).mean() < 0.2


def test_bytes_are_clipped_and_exact_opposites():
    assert as_bytes(np.array([0.0, 6, -6, 7, -1e9, np.inf, np.nan, 3, -3]), 6).tolist() == [
        128, 255, 1, 255, 1, 255, 128, 192, 64,
    ]  # fmt: skip
    pixels = np.random.default_rng(0).normal(0, 4, 10_000)
    there, back = as_bytes(pixels, 6).astype(int), as_bytes(-pixels, 6).astype(int)
    assert (there + back == 256).all()
    assert (np.abs((there - 128) / 127 * 6 - pixels.clip(-6, 6)) <= 3 / 127 + 1e-9).all()
    assert (default_bound(256), default_bound(64)) == (20, 5)


def test_a_motion_beyond_the_bound_is_the_bound():
    assert (np.median(inner(found(moving(4, -4), bound=2.0)), axis=(1, 2)) == (255, 1)).all()


def test_the_last_frame_repeats_the_field_before_and_one_frame_stands_still():
    flow = found(moving(1, 1, 3))
    assert flow.shape == (3, 80, 80, 2)
    assert flow.dtype == np.uint8
    assert (flow[2] == flow[1]).all()
    assert (flow[1] != flow[0]).any()
    assert (found(moving(1, 1, 1)) == 128).all()


def test_frames_too_small_for_a_method_are_one_line():
    with pytest.raises(VideoError, match="dis cannot take frames of 6 x 8 pixels") as caught:
        found(np.zeros((3, 6, 8, 3), np.uint8), "dis")
    assert len(caught.value.lines) == 1
    assert "\n" not in caught.value.lines[0]


# Packs.


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Videos of 3, 4, ... frames that move one pixel to the right or to the left, and one of a single frame."""
    root = tmp_path_factory.mktemp("flow") / "data"
    length = 3
    for split, count in (("train", 3), ("val", 1)):
        for name, u in (("left", -1), ("right", 1)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                encode(root / split / name / f"{number}.mp4", moving(u, 0, length, side=48, seed=number))
                length += 1
    encode(root / "train" / "right" / "still.mp4", moving(0, 0, 1, side=48))
    return read_dataset(root)


@pytest.fixture(scope="module")
def plain(dataset, tmp_path_factory):
    """Its frames; tests compute flow of different bounds, which do not meet."""
    return open_pack(dataset, 32, tmp_path_factory.mktemp("cache"))


def flow_folders(pack: Pack, bound: str) -> tuple[list[str], int]:
    """Whole packs of flow of a bound, and how many are hidden."""
    folder = pack.splits["train"].source.parent
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and f"-{bound}" in path.name)
    whole = [name for name in names if not name.startswith(".")]
    return whole, len(names) - len(whole)


def test_a_pack_of_flow_holds_every_field_beside_its_frames(plain):
    with pytest.raises(DataError, match="opened without optical flow"):
        plain.splits["train"].fields(0)
    seen = []
    pack = open_flow(plain, "farneback", report=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 9) for done in range(1, 10)]
    assert flow_folders(pack, "2.5") == (["flow-farneback-2.5"], 0)
    for split in pack.splits.values():
        for video in range(len(split)):
            assert (split.fields(video) == found(split.frames(video), bound=2.5)).all()
            assert split.fields(video).shape == (*split.sizes[video], 2)
    facts = json.loads((pack.splits["train"].flow.parent / "index.json").read_text())
    assert facts == {"method": "farneback", "bound": 2.5, "bytes": pack.splits["val"].flow.stat().st_size}
    split = pickle.loads(pickle.dumps(pack.splits["val"]))
    assert (split.fields(0) == pack.splits["val"].fields(0)).all()


def test_it_is_computed_once_for_each_method_and_bound(plain):
    seen = []
    for _ in range(2):
        for method in ("farneback", "dis"):
            open_flow(plain, method, 3, lambda done, total: seen.append(done))
    assert flow_folders(plain, "3") == (["flow-dis-3", "flow-farneback-3"], 0)
    assert len(seen) == 2 * 9


def test_an_interrupted_computation_goes_on(plain):
    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_flow(plain, "dis", 4, stop)
    assert flow_folders(plain, "4") == ([], 1)
    done = []
    pack = open_flow(plain, "dis", 4, lambda number, total: done.append(number))
    assert done == [5, 6, 7, 8, 9]
    assert flow_folders(plain, "4") == (["flow-dis-4"], 0)
    split = pack.splits["val"]
    assert (split.fields(1) == found(split.frames(1), "dis", 4)).all()


def test_a_video_whose_flow_fails_costs_no_other(plain, monkeypatch):
    def one_fails(requests):
        for source, argument in requests:
            if source.place == plain.splits["train"].names[3]:
                yield VideoError(f"{source.place}: computing its flow crashed")
            else:
                yield from children.flow_of_all([(source, argument)])

    monkeypatch.setattr(pack_module, "flow_of_all", one_fails)
    with pytest.raises(VideoError, match=f"{plain.splits['train'].names[3]}: computing its flow crashed"):
        open_flow(plain, "dis", 8)
    monkeypatch.undo()
    done = []
    open_flow(plain, "dis", 8, lambda number, total: done.append(number))
    assert done == [4, 5, 6, 7, 8, 9]


COMPUTE = """
import sys
from pathlib import Path
from archsearch.video.dataset import read_dataset
from archsearch.video.pack import open_flow, open_pack
done = []
pack = open_pack(read_dataset(Path(sys.argv[1])), 32, Path(sys.argv[2]))
print("ready", flush=True)
input()
pack = open_flow(pack, "dis", 5, lambda number, total: done.append(number))
print(len(done), pack.splits["val"].fields(1).sum())
"""


def test_of_two_processes_one_computes(dataset, plain):
    cache = plain.splits["val"].source.parents[2]
    command = [sys.executable, "-c", COMPUTE, str(dataset.root), str(cache)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 2
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    answers = sorted(worker.communicate(timeout=60)[0].split() for worker in workers)
    total = str(open_flow(plain, "dis", 5).splits["val"].fields(1).sum())
    assert answers == [["0", total], ["9", total]]


def test_a_full_disk_is_one_line_and_leaves_nothing(plain):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot be written \(File too large\)") as caught:
            open_flow(plain, "dis", 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(caught.value.lines) == 1
    assert flow_folders(plain, "6") == ([], 0)


def test_what_cannot_be_computed_is_one_line(dataset, plain, tmp_path, monkeypatch):
    small = open_pack(dataset, 6, tmp_path)
    with pytest.raises(DataError, match=r"left/0\.mp4: dis cannot take frames of 6 x 6 pixels") as caught:
        open_flow(small, "dis")
    assert len(caught.value.lines) == 1
    assert flow_folders(small, "") == ([], 1)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtra, match=r"^optical flow needs OpenCV: pip install 'archsearch\[flow\]'$"):
        open_flow(plain, "farneback", 7)


# Clips.


@pytest.fixture
def split(tmp_path):
    """Two videos whose pixels and fields tell their place: u is 1 + 3 frame + column, v is 101 + the row."""
    sizes = np.array([(7, 12, 16), (1, 12, 12)])
    pixels = [np.stack(np.mgrid[:t, :h, :w], axis=-1).astype(np.uint8) for t, h, w in sizes]
    flow = [np.stack([1 + 3 * p[..., 0] + p[..., 2], 101 + p[..., 1]], axis=-1) for p in pixels]
    for name, parts in (("frames.u8", pixels), ("flow.u8", flow)):
        (tmp_path / name).write_bytes(b"".join(part.tobytes() for part in parts))
    offsets, labels = np.array([0, pixels[0].size]), np.array([0, 1])
    return PackedSplit(("a", "b"), labels, sizes, offsets, tmp_path / "frames.u8", flow=tmp_path / "flow.u8")


def field_at(frame, columns=slice(2, 14), rows=slice(0, 12)):
    """u, v of the first video at one of its frames."""
    v, u = np.mgrid[rows, columns]
    return np.stack([1 + 3 * frame + u, 101 + v], axis=-1)


def test_a_stack_has_the_fields_from_its_frame_on_and_repeats_the_last(split):
    clip = view_batch(split, np.array([0]), Sampling(3, 12, 12, stride=3, channels=(6,)), 0, 1)[0]
    for place, frame in zip(clip, (0, 3, 6), strict=True):
        wanted = [field_at(min(frame + depth, 6)) for depth in range(3)]
        assert (place == np.concatenate(wanted, axis=-1)).all()
    alone = view_batch(split, np.array([1]), Sampling(2, 12, 12, channels=(20,)), 0, 1)[0]
    assert (alone == np.tile(split.fields(1)[0], 10)).all()


def test_backwards_is_the_opposite_of_the_field_that_led_there(split):
    sampling = Sampling(3, 12, 12, stride=3, channels=(3, 4))
    clip = view_batch(split, np.array([0]), sampling, 0, 1, reverse=True)[0]
    straight = view_batch(split, np.array([0]), sampling, 0, 1)[0]
    assert (clip[..., :3] == straight[::-1, ..., :3]).all()
    for place, frame in zip(clip[..., 3:], (6, 3, 0), strict=True):
        wanted = [256 - field_at(max(frame - 1 - depth, 0)) for depth in range(2)]
        assert (place == np.concatenate(wanted, axis=-1)).all()


def test_mirroring_turns_u_and_keeps_v(split):
    sampling = Sampling(4, 12, 12, channels=(3, 4))
    clip = view_batch(split, np.array([0]), sampling, 0, 1)[0]
    turned = clip.copy()
    mirror(turned, sampling)
    other = clip[:, :, ::-1].astype(int)
    other[..., [3, 5]] = 256 - other[..., [3, 5]]
    assert (turned == other).all()
    mirror(turned, sampling)
    assert (turned == clip).all()


@pytest.mark.parametrize("method", METHODS)
def test_mirrored_and_reversed_flow_is_near_that_of_mirrored_and_reversed_frames(method, tmp_path):
    frames = moving(2, 1, 4)
    (tmp_path / "frames.u8").write_bytes(frames.tobytes())
    (tmp_path / "flow.u8").write_bytes(found(frames, method).tobytes())
    sizes = np.array([frames.shape[:3]])
    split = PackedSplit(("a",), np.zeros(1, int), sizes, np.zeros(1, int), tmp_path / "frames.u8")
    split = replace(split, flow=tmp_path / "flow.u8")
    sampling = Sampling(4, 80, 80, channels=(2,))
    clip = view_batch(split, np.array([0]), sampling, 0, 1)[0]
    mirror(clip, sampling)
    back = view_batch(split, np.array([0]), sampling, 0, 1, reverse=True)[0]
    for kept, computed in ((clip, found(frames[:, :, ::-1], method)), (back, found(frames[::-1], method))):
        steps = inner(kept.astype(int) - computed)
        assert np.abs(steps).mean() < 4, "of 127 to the bound of 6 pixels"
        assert np.abs(np.median(steps, axis=(1, 2))).max() <= 2


def test_pixels_and_flow_are_cut_at_the_same_place(split):
    indices, rng = np.array([0, 1, 0, 0, 1, 0]), np.random.default_rng
    both, pixels = (Sampling(3, 9, 9, channels=channels) for channels in ((3, 2), (3,)))
    batch = training_batch(split, indices, both, rng(5))
    assert (batch[..., :3] == training_batch(split, indices, pixels, rng(5))).all()
    variation = Variation(scales=(1.0, 0.7), strides=(1, 3), jitter=0.5, reverse=0.5)
    varied, _ = varied_clips(split, indices, both, variation, rng(6))
    plain, _ = varied_clips(split, indices, pixels, variation, rng(6))
    assert all((clip[..., :3] == other).all() for clip, other in zip(varied, plain, strict=True))
    for clip in (*batch, *varied):  # v tells the row in both
        assert (clip[..., 4] == 101 + clip[..., 1]).all() or (clip[..., 4] == 155 - clip[..., 1]).all()


@pytest.mark.parametrize("channels", [(1,), (3, 5), (), (0,)])
def test_channels_that_nothing_has(channels):
    with pytest.raises(DataError, match=r"should be 3 \(pixels\) or an even number"):
        Sampling(4, 8, 8, channels=channels)


# Batches and networks.


@pytest.fixture(scope="module")
def flow_pack(clips):
    return with_flow(open_pack(read_dataset(clips), 38), net(FLOW), recipe())


def test_flow_is_between_minus_one_and_one_and_has_no_colours(flow_pack):
    two, split = net(TWO), split_of(flow_pack, "train")
    made = recipe(channels_last=False, flip=False)
    (plain, _), (coloured, _) = (
        next(epoch_batches(split, sampling_for(two, each, flow_pack.classes), each, 0, flow_pack.classes))
        for each in (made, made.model_copy(update={"colour": 0.5}))
    )
    assert plain.shape == (8, 5, 4, 32, 32)
    assert torch.equal((plain[:, 3:] * 127).round().clamp(-127, 127), plain[:, 3:].mul(127).round())
    assert torch.allclose(plain[:, 3:], coloured[:, 3:], atol=1e-5)
    assert not torch.allclose(plain[:, :3], coloured[:, :3], atol=0.1)
    assert 0.02 < float(plain[:, 3:].std()) < 1
    alone = net(TWO, clip=[3, 4, 32, 32], stages=net_stages())
    (pixels, _) = next(epoch_batches(split, sampling_for(alone, made, flow_pack.classes), made, 0, flow_pack.classes))
    assert torch.equal(plain[:, :3], pixels)


def net_stages():
    first, *_, head = parse_yaml(TWO, "net.yaml", SpecError)["stages"]
    return [{name: value for name, value in first.items() if name != "from"}, head]


class Interrupted(Exception):
    pass


def interrupt(epoch):
    raise Interrupted


@pytest.mark.usefixtures("one_thread")
def test_a_network_of_two_inputs_resumes_bit_for_bit(flow_pack, tmp_path):
    made = recipe(accumulate=2, colour=0.2, reverse=0.3, crop="scales", mixup=0.2)
    stores = [open_store(str(tmp_path / name)) for name in ("whole", "resumed")]
    train(net(TWO), made, flow_pack, stores[0])
    with pytest.raises(Interrupted):
        train(net(TWO), made, flow_pack, stores[1], interrupt)
    train(net(TWO), made, flow_pack, stores[1])
    assert stores[0].read("weights.safetensors") == stores[1].read("weights.safetensors")
    losses = [[epoch["train_loss"] for epoch in read_json(store, "curve.json")] for store in stores]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_a_worker_computes_flow_and_trains_in_bf16(clips, pack, tmp_path):
    payload = {"spec": spec_yaml(net(TWO)), "recipe": recipe(precision="bf16", epochs=1, warmup_epochs=0).model_dump()}
    payload |= {"data": str(clips), "digest": pack.digest, "store": str(tmp_path / "out")}
    result = train_candidate(payload)
    assert result["epochs"] == 1


def test_sizes_that_one_clip_does_not_have(clips, tmp_path, cli):
    cases = {
        "same frames, height and width": net(APART, clip={"rgb": [3, 4, 32, 32], "flow": [2, 8, 32, 32]}),
        "an input has 3 channels": net(TWO, clip={"rgb": [3, 4, 32, 32], "flow": [1, 4, 32, 32]}),
        "or an even number": net(FLOW, clip=[5, 4, 32, 32]),
    }
    for number, (rule, spec) in enumerate(cases.items()):
        file = tmp_path / f"{number}.yaml"
        file.write_text(spec_yaml(spec))
        code, _, lines = cli("train", file, clips, "--out", tmp_path / "out")
        assert code == 1
        assert len(lines) == 1
        assert rule in lines[0]


def test_sides_of_all_inputs(cli, tmp_path):
    assert at_frames(net(TWO), 8).clip == {"rgb": (3, 8, 32, 32), "flow": (2, 8, 32, 32)}
    fused = preset("fused_two_stream")
    assert with_sides(fused, (5, 112, 112)).clip == {"rgb": (3, 5, 112, 112), "flow": (20, 5, 112, 112)}
    code, out, _ = cli("show", "two_stream_i3d", "--clip", "16x112x112", "--yaml")
    assert code == 0
    assert "[2, 16, 112, 112]" in out.replace("\n", " ") or "- 112" in out
    code, _, (line,) = cli("show", "two_stream_i3d", "--clip", "3x16x112x112")
    assert code == 1
    assert "TxHxW for two_stream_i3d, which reads rgb, flow" in line
    sampling = sampling_for(with_classes(preset("two_stream_i3d"), 4), Recipe(), ("a", "b", "c", "d"))
    assert sampling.channels == (3, 2)


def test_new_fields_of_recipes_leave_digests(clips):
    assert digest_recipe(Recipe(flow="farneback", flow_bound=None)) == digest_recipe(Recipe())
    assert digest_recipe(Recipe(flow="dis")) != digest_recipe(Recipe())


# Commands.


@pytest.fixture
def files(tmp_path):
    """colour.yaml, flow.yaml, two.yaml and recipe.yaml."""
    first, *_, head = parse_yaml(TWO, "net.yaml", SpecError)["stages"]
    del first["from"], first["name"]
    colour = {"name": "colour", "clip": [3, 4, 32, 32], "stages": [{"name": "stem", **first}, head]}
    texts = {"colour": dump_yaml(colour), "flow": FLOW, "two": TWO}
    texts["recipe"] = dump_yaml({"epochs": 1, "batch": 8, "warmup_epochs": 0, "views": 1, "flip": False})
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def test_streams_are_trained_apart_and_fused_late_and_a_fused_one_is_trained(files, clips, cli):
    done = partial(_done, cli)
    for name in ("colour", "flow", "two"):
        done("train", files / f"{name}.yaml", clips, "--recipe", files / "recipe.yaml", "--out", files / name)
    for name in ("colour", "flow"):
        done("evaluate", files / name, clips, "--scores", files / f"{name}.npz")
    fused = json.loads(done("fuse", files / "colour.npz", files / "flow.npz", "--weights", "1,1.5", "--json"))
    assert fused["videos"] == 12
    scored = json.loads(done("evaluate", files / "two", clips, "--crops", "3", "--reverse", "--frames", "6", "--json"))
    assert scored["videos"] == 12
    assert scored["frames"] == 6
    assert json.loads(done("analyse", "time", files / "two", clips, "--json"))["videos"] == 12
    features = json.loads(done("analyse", "features", files / "flow", clips, "--json"))
    assert list(features["stages"]) == ["stem", "res2"]
    cut = done("surgery", files / "two", "--set", "res2.width=6", "--data", clips, "--out", files / "cut", "--json")
    assert json.loads(cut)["fitted"]
    assert json.loads(done("evaluate", files / "cut", clips, "--json"))["videos"] == 12


def _done(cli, *args):
    code, out, lines = cli(*args)
    assert code == 0, lines
    return out


def test_a_search_over_two_inputs(clips, write_files, cli, tmp_path):
    (tmp_path / "two.yaml").write_text(TWO)
    vary = [{"field": "conv", "stages": ["b", "res2"], "each": ["2d", "3d"]}]
    changes = {"base": str(tmp_path / "two.yaml"), "set": {}, "vary": vary, "published": []}
    space, made = write_files(changes, {"epochs": 1, "warmup_epochs": 0, "views": 1})
    _done(
        cli, "search", space, clips, "--out", tmp_path / "run", "--recipe", made, "--trials", 2, "--executor", "serial"
    )
    candidates = json.loads(_done(cli, "front", tmp_path / "run", "--json"))["candidates"]
    assert sum(candidate["state"] == "complete" for candidate in candidates) == 2


def test_packing_computes_flow_if_asked(dataset, tmp_path, cli):
    pack = ["data", "pack", dataset.root, "--short-side", 32, "--cache", tmp_path]
    assert "flow" not in json.loads(_done(cli, *pack, "--json"))
    facts = json.loads(_done(cli, *pack, "--flow", "tvl1", "--flow-bound", 4, "--json"))
    assert facts["flow"] == {"folder": f"{facts['folder']}/flow-tvl1-4", "bytes": facts["bytes"] // 3 * 2}
    assert "flow: flow-tvl1-4, 0.1 MB" in _done(cli, *pack, "--flow", "tvl1", "--flow-bound", 4)
    assert cli(*pack, "--flow", "dis", "--flow-bound", "0")[0] == 2
