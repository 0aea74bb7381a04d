"""Training: a function of (spec, recipe, data, seed), whatever interrupts it; and what it says when it cannot go on."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from archsearch.errors import DataError, RunError, TrainingError
from archsearch.nets.build import build
from archsearch.spec.spec import spec_yaml, with_clip
from archsearch.store import open_store, read_json
from archsearch.training import loop
from archsearch.training.clips import epoch_batches, sampling_for, split_of
from archsearch.training.evaluate import Scores, score
from archsearch.training.loop import NotFinite, is_out_of_memory, train
from archsearch.training.optimiser import fresh_state, optimizer_for
from archsearch.training.recipe import Recipe
from archsearch.training.schedule import learning_rate
from archsearch.video.dataset import read_dataset
from archsearch.video.pack import open_pack


def recipe(**changes):
    return Recipe(**{"epochs": 4, "batch": 10, "warmup_epochs": 1, "views": 2, **changes})


class Interrupted(Exception):
    pass


def interrupting_after(epochs):
    def report(epoch):
        if epoch.epoch + 1 == epochs:
            raise Interrupted

    return report


def without_seconds(entries):
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


def left_in(store):
    """What a finished training left that should be a function of its input."""
    result = read_json(store, "result.json")
    assert result.pop("seconds") > 0
    return without_seconds(read_json(store, "curve.json")), result, store.read("weights.safetensors")


@pytest.fixture(scope="module")
def undisturbed(spec, pack, tmp_path_factory):
    """What each recipe gives without interruption."""
    known = {}

    def give(**changes):
        key = json.dumps(changes)
        if key not in known:
            store = open_store(str(tmp_path_factory.mktemp("undisturbed")))
            train(spec, recipe(**changes), pack, store)
            known[key] = left_in(store)
        return known[key]

    return give


# The same input, the same bits.


def test_the_same_training_twice_is_the_same(spec, pack, undisturbed, tmp_path):
    torch.manual_seed(99)  # what happened before in this process does not matter
    torch.rand(7)
    store = open_store(str(tmp_path))
    said = []
    result = train(spec, recipe(), pack, store, said.append)
    assert left_in(store) == undisturbed()
    assert result == read_json(store, "result.json")
    assert [epoch.epoch for epoch in said] == [0, 1, 2, 3]
    assert sorted(store.names()) == ["curve.json", "result.json", "weights.safetensors"]


def test_another_seed_is_another_training(undisturbed):
    assert undisturbed(seed=1)[0] != undisturbed()[0]
    assert undisturbed(seed=1)[2] != undisturbed()[2]


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "lr": 0.05}], ids=["adamw", "sgd"])
@pytest.mark.parametrize("epochs", [1, 3, 4])
def test_interrupted_and_resumed_is_uninterrupted(spec, pack, undisturbed, tmp_path, epochs, changes):
    store = open_store(str(tmp_path))
    with pytest.raises(Interrupted):
        train(spec, recipe(**changes), pack, store, interrupting_after(epochs))
    recorded = read_json(store, "curve.json")
    assert len(recorded) == epochs
    torch.rand(5)
    said = []
    train(spec, recipe(**changes), pack, store, said.append)
    assert [epoch.epoch for epoch in said] == list(range(epochs, 4))
    assert read_json(store, "curve.json")[:epochs] == recorded  # with their seconds: nothing is trained again
    assert left_in(store) == undisturbed(**changes)


KILLED = """
import sys
from pathlib import Path
from archsearch.search.worker import train_candidate
import json
train_candidate(json.loads(Path(sys.argv[1]).read_text()))
"""


@pytest.mark.slow
def test_killed_in_mid_epoch_and_resumed_is_uninterrupted(spec, clips, pack, tmp_path):
    slow = recipe(epochs=30, views=1)
    store = open_store(str(tmp_path / "killed"))
    payload = {"spec": spec_yaml(spec), "recipe": slow.model_dump(mode="json"), "data": str(clips)}
    payload |= {"digest": pack.digest, "store": store.url}
    (tmp_path / "payload.json").write_text(json.dumps(payload))
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "payload.json")])
    deadline = time.monotonic() + 60
    while len(read_json(store, "curve.json") or ()) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    recorded = read_json(store, "curve.json")
    assert 3 <= len(recorded) < 30
    train(spec, slow, pack, store)
    assert read_json(store, "curve.json")[: len(recorded)] == recorded
    other = open_store(str(tmp_path / "undisturbed"))
    train(spec, slow, pack, other)
    assert left_in(store) == left_in(other)


def test_a_checkpoint_has_the_random_numbers_of_a_gpu(spec, tmp_path, monkeypatch):
    made, store = recipe(device="cuda"), open_store(str(tmp_path))
    drawn = torch.Generator()  # as the device's
    monkeypatch.setattr(torch.cuda, "get_rng_state", drawn.get_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", drawn.set_state)
    training = loop.Training(fresh_state(build(spec, seed=0), spec, made), [])
    torch.rand(3, generator=drawn)
    loop.save_training(training, made, store)
    expected = torch.rand(5, generator=drawn)
    loop.go_on(training, made, store)
    assert torch.equal(torch.rand(5, generator=drawn), expected)


def test_what_a_kill_left_half_written_goes_with_the_next_training(spec, pack, tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(Interrupted):
        train(spec, recipe(epochs=2), pack, store, interrupting_after(1))
    (tmp_path / ".checkpoint.pt.x7.part").touch()
    train(spec, recipe(epochs=2), pack, store)
    assert sorted(os.listdir(tmp_path)) == store.names() == ["curve.json", "result.json", "weights.safetensors"]


def test_a_finished_training_answers_at_once(spec, pack, tmp_path):
    store = open_store(str(tmp_path))
    result = train(spec, recipe(epochs=2), pack, store)
    before = {name: store.read(name) for name in store.names()}
    store.write("checkpoint.pt", "a kill came before it was deleted")
    said = []
    assert train(spec, recipe(epochs=2), pack, store, said.append) == result
    assert said == []
    assert {name: store.read(name) for name in store.names()} == before


def test_a_checkpoint_whose_curve_was_not_written_yet(spec, pack, undisturbed, tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(Interrupted):
        train(spec, recipe(), pack, store, interrupting_after(2))
    recorded = read_json(store, "curve.json")
    store.write("curve.json", json.dumps(recorded[:1]))
    train(spec, recipe(), pack, store)
    assert read_json(store, "curve.json")[:2] == recorded
    assert left_in(store) == undisturbed()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_one_line(spec, pack, tmp_path, content):
    store = open_store(str(tmp_path))
    store.write("checkpoint.pt", content)
    with pytest.raises(RunError, match=r"checkpoint\.pt: not a checkpoint .*delete it") as caught:
        train(spec, recipe(), pack, store)
    assert len(str(caught.value).splitlines()) == 1


# The schedule, the batches, the optimiser.


@given(
    st.integers(1, 30),
    st.floats(0, 3),
    st.integers(1, 12),
)
def test_the_learning_rate_rises_to_its_peak_and_falls_to_almost_nothing(epochs, warmup, steps):
    made = recipe(epochs=epochs + 4, warmup_epochs=warmup, lr=0.5)
    rates = [learning_rate(made, epoch + step / steps, steps) for epoch in range(made.epochs) for step in range(steps)]
    peak = rates.index(max(rates))
    assert min(rates) > 0
    assert max(rates) <= 0.5
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert peak <= warmup * steps + 1
    assert rates[-1] < 0.26  # there are two steps at least after the warm-up


def test_the_learning_rate_by_hand():
    made = recipe(epochs=6, warmup_epochs=2, lr=1.0)
    assert [learning_rate(made, epoch, 4) for epoch in (0, 0.25, 1.75)] == [0.125, 0.25, 1.0]
    assert learning_rate(made, 2, 4) == 1.0
    assert learning_rate(made, 4, 4) == pytest.approx(0.5)
    assert learning_rate(made, 5.75, 4) == pytest.approx(0.5 * (1 + math.cos(math.pi * 15 / 16)))


def test_the_curve_tells_the_rate_of_the_last_step(spec, undisturbed):
    rates = [entry["lr"] for entry in undisturbed()[0]]
    assert rates == [learning_rate(recipe(), epoch + 2 / 3, 3) for epoch in range(4)]  # 24 clips are three batches


@pytest.mark.parametrize(("batch", "sizes"), [(24, [24]), (10, [8, 8, 8]), (23, [12, 12]), (7, [6] * 4), (1, [1] * 24)])
def test_every_clip_once_an_epoch_in_batches_of_almost_equal_size(spec, pack, monkeypatch, batch, sizes):
    drawn = []
    cut = loop.epoch_batches.__globals__["training_batch"]
    monkeypatch.setitem(
        loop.epoch_batches.__globals__,
        "training_batch",
        lambda split, indices, *rest: drawn.append(list(indices)) or cut(split, indices, *rest),
    )
    made = recipe(batch=batch)
    split = split_of(pack, "train")
    labels = [label.tolist() for _, label in epoch_batches(split, sampling_for(spec, made, pack.classes), made, 0)]
    assert [len(indices) for indices in drawn] == sizes
    order = [index for indices in drawn for index in indices]
    assert sorted(order) == list(range(24)) != order
    assert [label for batch in labels for label in batch] == split.labels[order].tolist()


def test_an_epoch_is_a_function_of_its_seed_and_number(spec, pack):
    def clips_of(epoch, **changes):
        made = recipe(**changes)
        sampling = sampling_for(spec, made, pack.classes)
        return torch.cat([clip for clip, _ in epoch_batches(split_of(pack, "train"), sampling, made, epoch)])

    assert clips_of(3).equal(clips_of(3))
    assert not clips_of(3).equal(clips_of(4))
    assert not clips_of(3).equal(clips_of(3, seed=1))


def test_clips_are_normalised(spec, pack):
    made = recipe(mean=(0, 0, 0), std=(1, 1, 1), channels_last=False)
    clip, _ = next(epoch_batches(split_of(pack, "train"), sampling_for(spec, made, pack.classes), made, 0))
    assert clip.shape == (8, 3, 4, 32, 32)
    assert 0 <= clip.min() < 0.5 < clip.max() <= 1
    assert clip.dtype is torch.float32


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weights_decay_and_norms_and_biases_do_not(spec, name):
    net = build(spec, seed=0)
    optimizer = optimizer_for(net, spec, recipe(optimizer=name, weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    expected = {id(p): 0.0 if "norm" in key or "bias" in key else 0.3 for key, p in net.named_parameters()}
    assert decay == expected
    assert set(decay.values()) == {0.0, 0.3}


def test_sgd_without_momentum_goes_down_the_gradient(spec):
    net = build(spec, seed=0)
    optimizer = optimizer_for(net, spec, recipe(optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=0.5))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for step in (1, 2):
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        for parameter, start in zip(net.parameters(), before, strict=True):
            assert torch.allclose(parameter, start - 0.5 * step, atol=1e-6)


# What is not finite.


def test_a_loss_that_explodes_names_epoch_and_step(spec, pack, tmp_path):
    store = open_store(str(tmp_path))
    wild = recipe(lr=1e30, optimizer="sgd", clip_norm=None)
    with pytest.raises(TrainingError, match=r"^net: .*(nan|inf).* epoch [12], step [123]; try a lower lr$") as caught:
        train(spec, wild, pack, store)
    assert isinstance(caught.value, NotFinite)
    assert store.read("result.json") is None


def test_a_gradient_that_explodes_names_epoch_and_step(spec, pack, tmp_path):
    with pytest.raises(NotFinite, match=r"epoch [12], step [123]"):
        train(spec, recipe(lr=1e30, optimizer="sgd"), pack, open_store(str(tmp_path)))


def test_weights_that_explode_in_the_last_step_are_no_result(spec, pack, tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(NotFinite, match=r"validation loss .* epoch 1"):
        train(spec, recipe(lr=1e38, optimizer="sgd", epochs=1, warmup_epochs=0, batch=64), pack, store)
    assert store.names() == []


def nan_in_bf16(monkeypatch, first_call):
    """Networks whose training forward in bfloat16 is nan from some call on, as a faulty kernel makes it."""
    calls = []

    def spoil(net, _, logits):
        if net.training and torch.is_autocast_enabled("cpu"):
            calls.append(1)
            return logits * math.nan if len(calls) >= first_call else logits
        return logits

    def faulty(spec, **kwargs):
        net = build(spec, **kwargs)
        net.register_forward_hook(spoil)
        return net

    monkeypatch.setattr(loop, "build", faulty)
    return calls


def test_what_is_not_finite_in_bf16_goes_on_in_fp32(spec, pack, tmp_path, monkeypatch):
    calls = nan_in_bf16(monkeypatch, first_call=5)  # the second step of the second epoch
    store = open_store(str(tmp_path / "a"))
    train(spec, recipe(precision="bf16"), pack, store)
    assert [entry["precision"] for entry in read_json(store, "curve.json")] == ["bf16", "fp32", "fp32", "fp32"]
    assert len(calls) == 5

    calls.clear()  # interrupted after that, it stays in fp32: the same bits
    again = open_store(str(tmp_path / "b"))
    with pytest.raises(Interrupted):
        train(spec, recipe(precision="bf16"), pack, again, interrupting_after(2))
    monkeypatch.setattr(loop, "build", build)
    train(spec, recipe(precision="bf16"), pack, again)
    assert left_in(again) == left_in(store)


def test_the_failed_network_is_gone_before_the_next_is_built(spec, pack, tmp_path, monkeypatch):
    nan_in_bf16(monkeypatch, first_call=1)
    faulty, built = loop.build, []

    def watched(spec, **kwargs):
        assert [one() for one in built] == [None] * len(built)
        net = faulty(spec, **kwargs)
        built.append(weakref.ref(net.get_parameter("stem.conv.weight")))
        return net

    monkeypatch.setattr(loop, "build", watched)
    train(spec, recipe(precision="bf16", epochs=2), pack, open_store(str(tmp_path)))
    assert len(built) == 2


def test_what_fell_back_to_fp32_and_is_not_finite_there_either_is_not_trained_again(spec, pack, tmp_path, monkeypatch):
    nan_in_bf16(monkeypatch, first_call=1)
    store = open_store(str(tmp_path))
    with pytest.raises(Interrupted):
        train(spec, recipe(precision="bf16"), pack, store, interrupting_after(1))
    built = []

    def broken(spec, **kwargs):
        net = build(spec, **kwargs)
        net.register_forward_hook(lambda net, _, y: y * math.nan if net.training else y)
        built.append(net)
        return net

    monkeypatch.setattr(loop, "build", broken)
    with pytest.raises(NotFinite, match="epoch 2, step 1"):
        train(spec, recipe(precision="bf16"), pack, store)
    assert len(built) == 1


def test_scoring_is_in_float32_whatever_the_training_was(spec, pack):
    net = build(spec, seed=0)
    split, sampling = split_of(pack, "val"), sampling_for(spec, recipe(), pack.classes)
    plain, *others = (score(net, split, sampling, recipe(precision=name)) for name in ("fp32", "bf16", "fp16"))
    assert all(np.array_equal(other.probabilities, plain.probabilities) for other in others)


def test_bf16_is_resumed_in_bf16(spec, pack, undisturbed, tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(Interrupted):
        train(spec, recipe(precision="bf16"), pack, store, interrupting_after(2))
    train(spec, recipe(precision="bf16"), pack, store)
    assert left_in(store) == undisturbed(precision="bf16")
    assert {entry["precision"] for entry in read_json(store, "curve.json")} == {"bf16"}


def test_an_automatic_precision_is_the_first_machines(spec, pack, undisturbed, tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    monkeypatch.setattr(loop, "fastest_precision", lambda device: "bf16")
    with pytest.raises(Interrupted):
        train(spec, recipe(precision="auto"), pack, store, interrupting_after(2))
    monkeypatch.setattr(loop, "fastest_precision", lambda device: "fp32")  # goes on elsewhere
    train(spec, recipe(precision="auto"), pack, store)
    assert {entry["precision"] for entry in read_json(store, "curve.json")} == {"bf16"}
    assert left_in(store) == undisturbed(precision="bf16")


def test_an_automatic_precision_falls_back_for_good(spec, pack, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "fastest_precision", lambda device: "bf16")
    nan_in_bf16(monkeypatch, first_call=5)
    store = open_store(str(tmp_path))
    train(spec, recipe(precision="auto"), pack, store)
    assert [entry["precision"] for entry in read_json(store, "curve.json")] == ["bf16", "fp32", "fp32", "fp32"]


# Memory.


def test_exceptions_that_say_that_memory_ran_out():
    for ask in (lambda: torch.empty(1 << 60), lambda: np.empty(1 << 58)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            ask()
        assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_that_runs_out_is_one_line_also_after_falling_back(spec, pack, tmp_path, monkeypatch, precision):
    def greedy(spec, **kwargs):
        net = build(spec, **kwargs)
        net.register_forward_hook(
            lambda net, _, y: y * math.nan if torch.is_autocast_enabled("cpu") else torch.empty(1 << 60)
        )
        return net

    monkeypatch.setattr(loop, "build", greedy)
    if precision == "bf16":
        monkeypatch.setattr(loop, "prove_bf16", lambda *_: [])
    with pytest.raises(TrainingError, match=r"^net: out of memory at batch 10; lower it in the recipe$"):
        train(spec, recipe(precision=precision), pack, open_store(str(tmp_path)))


def test_other_faults_of_torch_stay_what_they_are(spec, pack, tmp_path, monkeypatch):
    def wrong(spec, **kwargs):
        net = build(spec, **kwargs)
        net.register_forward_hook(lambda net, _, y: y @ torch.ones(3))
        return net

    monkeypatch.setattr(loop, "build", wrong)
    with pytest.raises(RuntimeError, match="mat"):
        train(spec, recipe(), pack, open_store(str(tmp_path)))


# What is not there.


def test_flip_except_names_a_class_that_is_not_there(spec, pack, tmp_path):
    with pytest.raises(DataError, match="flip_except: there is no class 'rihgt'; did you mean 'right'"):
        train(spec, recipe(flip_except=("rihgt",)), pack, open_store(str(tmp_path)))
    sampling = sampling_for(spec, recipe(flip_except=("right",)), pack.classes)
    assert sampling.no_flip_labels == {pack.classes.index("right")}


def test_a_missing_split(spec, clips, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(clips / "train")
    alone = open_pack(read_dataset(tmp_path / "data"), 38)
    with pytest.raises(DataError, match="no 'val' split; there are: train"):
        train(spec, recipe(), alone, open_store(str(tmp_path / "out")))


@pytest.mark.parametrize("channels", [1, 5])
def test_clips_of_channels_that_nothing_has(spec, pack, tmp_path, channels):
    with pytest.raises(DataError, match=r"an input has 3 channels \(pixels\) or an even number \(optical flow\)$"):
        train(with_clip(spec, (channels, 4, 32, 32)), recipe(), pack, open_store(str(tmp_path)))


# Scoring.


def test_a_videos_class_is_that_of_the_mean_over_its_views():
    probabilities = np.array(
        [
            [[0.6, 0.4], [0.6, 0.4], [0.0, 1.0]],  # two views say 0, the mean says 1
            [[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]],  # two views say 1, the mean says 0
            [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]],
        ]
    )
    scores = Scores(probabilities, np.array([1, 0, 0]))
    assert scores.top1 == pytest.approx(2 / 3)
    assert scores.clip_top1 == pytest.approx((1 + 1 + 0) / 9)
    means = probabilities.mean(1)
    assert scores.loss == pytest.approx(-np.log(means[[0, 1, 2], [1, 0, 0]]).mean())
    assert scores.class_top1(("a", "b", "unseen")) == {"a": 0.5, "b": 1.0}


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_every_video_is_seen_in_order_by_every_view(spec, pack, batch):
    made = recipe(batch=batch, views=3)
    net = build(spec, seed=0)
    scores = score(net, split_of(pack, "val"), sampling_for(spec, made, pack.classes), made)
    assert scores.probabilities.shape == (12, 3, 4)
    assert np.allclose(scores.probabilities.sum(2), 1)
    one = score(net, split_of(pack, "val"), sampling_for(spec, made, pack.classes), recipe(views=3, batch=7))
    assert np.allclose(scores.probabilities, one.probabilities, atol=1e-5)
    assert np.ptp(scores.probabilities, axis=1).max() > 0  # views differ
    assert net.training  # as it was


def test_playing_a_clip_backwards_is_playing_the_partners_clip(spec, pack):
    whole = with_clip(spec, (3, 8, 32, 32))
    made = recipe(views=1, stride=1, channels_last=False)
    split = split_of(pack, "val")
    net = build(whole, seed=0)
    torch.manual_seed(0)
    for parameter in net.parameters():  # so that the order of frames matters much
        parameter.data += 0.1 * torch.randn_like(parameter)
    sampling = sampling_for(whole, made, pack.classes)
    forward = score(net, split, sampling, made).probabilities
    backward = score(net, split, sampling, made, reverse=True).probabilities
    assert not np.allclose(forward, backward, atol=1e-3)
    partner = {"right": "left", "left": "right", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
    for index, name in enumerate(split.names):
        _, label, file = name.split("/")
        assert np.allclose(backward[index], forward[split.names.index(f"val/{partner[label]}/{file}")], atol=1e-5)
