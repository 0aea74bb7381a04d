"""The training engine: schedules, parts of batches, averaged weights, precision, several processes, recipes, events."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from archsearch.errors import RecipeError, TrainingError
from archsearch.nets.build import build
from archsearch.search.plan import digest_recipe
from archsearch.spec.basic import HeadStage
from archsearch.spec.spec import spec_yaml
from archsearch.store import open_store, read_json
from archsearch.training import events, loop, optimiser, processes
from archsearch.training.checkpoint import load_checkpoint, read_weights
from archsearch.training.clips import epoch_batches, sampling_for, split_of
from archsearch.training.loop import train
from archsearch.training.optimiser import averaged, fresh_state, loss_of, part_sizes, step
from archsearch.training.recipe import Recipe, read_recipe
from archsearch.training.schedule import learning_rate, plateaus

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(**changes):
    return Recipe(**{"epochs": 4, "batch": 10, "warmup_epochs": 1, "views": 1, **changes})


class Interrupted(Exception):
    pass


def stop(epoch):
    raise Interrupted


def left_in(store):
    """What a finished training left that should be a function of its input."""
    curve = [{**entry, "seconds": 0} for entry in read_json(store, "curve.json")]
    return curve, read_json(store, "result.json")["metrics"], store.read("weights.safetensors")


# Schedules.


def rates(made, losses=()):
    """The rate at the start of each epoch, as it is known by then."""
    return [learning_rate(made, epoch, 4, losses[:epoch]) for epoch in range(made.epochs)]


def test_steps_by_hand():
    made = recipe(epochs=10, warmup_epochs=0, lr=1.0, schedule="steps", milestones=(0.3, 5, 0.9), gamma=0.5)
    assert rates(made) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125]
    assert learning_rate(made, 2.75, 4) == 1.0


def test_constant_after_the_warm_up():
    assert rates(recipe(epochs=5, warmup_epochs=2, lr=1.0, schedule="constant")) == [0.125, 0.625, 1, 1, 1]


def test_a_trapezoid_by_hand():
    made = recipe(epochs=10, warmup_epochs=1, lr=1.0, schedule="trapezoid", cooldown=0.4)
    assert rates(made) == pytest.approx([0.25, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    longer = recipe(epochs=100, warmup_epochs=1, lr=1.0, schedule="trapezoid", cooldown=0.4)
    assert rates(longer)[:7] == rates(made)[:7]  # trunks are the same, however long


def test_plateau_by_hand():
    made = recipe(epochs=8, warmup_epochs=1, lr=1.0, schedule="plateau", patience=2, gamma=0.1)
    losses = [0.1, 3.0, 2.0, 2.5, 2.0, 1.9, 2.1, 2.2]  # the first is of the warm-up, which does not count
    assert rates(made, losses) == pytest.approx([0.25, 1, 1, 1, 1, 0.1, 0.1, 0.1])
    assert learning_rate(made, 8, 4, losses) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("losses", "patience", "found"),
    [([], 1, 0), ([1], 1, 0), ([1, 1], 1, 1), ([1, 2, 3, 4, 5], 2, 2), ([3, 2, 1], 1, 0), ([2, 3, 1, 3, 3], 2, 1)],
)
def test_plateaus_are_counted_anew_after_each(losses, patience, found):
    assert plateaus(losses, patience) == found


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"schedule": "trapezoid", "cooldown": 0.9, "warmup_epochs": 2},
            "cooldown: 0.9 of the epochs begins within the warm-up; lower one of them",
        ),
        ({"schedule": "steps", "milestones": (3, 2)}, "milestones: 3, 2 should rise and end before epoch 4"),
        ({"schedule": "steps", "milestones": (2, 0.5)}, "milestones: 2, 2 should rise"),
        ({"schedule": "steps", "milestones": (4,)}, "milestones: 4 should rise and end before epoch 4"),
        ({"accumulate": 11}, "accumulate: 11 parts of a batch of 10"),
        ({"schedule": "linear"}, "schedule"),
        ({"gamma": 1.0}, "gamma"),
        ({"ema": 1.0}, "ema"),
        ({"patience": 0}, "patience"),
        ({"precision": "fp8"}, "precision"),
        ({"milestones": ()}, "milestones"),
    ],
)
def test_a_wrong_field_is_one_line(tmp_path, changes, line):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({"epochs": 4, "batch": 10, **changes}))
    with pytest.raises(RecipeError) as error:
        read_recipe(path)
    assert len(error.value.lines) == 1
    assert line in error.value.lines[0]


def test_new_fields_leave_digests_as_they_are():
    assert digest_recipe(recipe(epochs=2, views=2)).startswith("750202729346")  # as before there were any of them
    assert digest_recipe(recipe(epochs=2, views=2, ema=0.9)) != digest_recipe(recipe(epochs=2, views=2))


# Interrupted after every epoch and resumed is uninterrupted, bit for bit.

FEATURES = {
    "ema": {"ema": 0.8},
    "accumulate": {"accumulate": 3},
    "steps": {"schedule": "steps", "milestones": (1, 0.75)},
    "plateau": {"schedule": "plateau", "patience": 1, "lr": 0.5, "optimizer": "sgd", "warmup_epochs": 0},
    "fp16": {"precision": "fp16"},
    "binary": {"loss": "binary", "mixup": 0.2},
    "tensorboard": {"tensorboard": True},
    "all": {
        **{"ema": 0.2, "accumulate": 2, "precision": "bf16", "crop": "corners", "optimizer": "sgd", "lr": 0.5},
        **{"schedule": "plateau", "patience": 1, "warmup_epochs": 0},
    },
}


@pytest.mark.parametrize(
    "changes", [pytest.param(FEATURES[name], marks=[pytest.mark.slow] * (name == "fp16"), id=name) for name in FEATURES]
)
def test_interrupted_after_each_epoch_and_resumed_is_uninterrupted(spec, pack, tmp_path, changes):
    made = recipe(epochs=3, batch=12, **changes)
    whole, parts = open_store(str(tmp_path / "whole")), open_store(str(tmp_path / "parts"))
    train(spec, made, pack, whole)
    for _ in range(3):
        with pytest.raises(Interrupted):
            train(spec, made, pack, parts, stop)
        torch.rand(3)
    train(spec, made, pack, parts)
    assert left_in(parts) == left_in(whole)
    assert parts.names() == whole.names()
    if made.schedule != "cosine":  # something was lowered
        assert len({entry["lr"] for entry in read_json(whole, "curve.json")}) > 1


# Batches in parts.


def one_batch(spec, pack, made):
    split = split_of(pack, "train")
    return next(epoch_batches(split, sampling_for(spec, made, pack.classes), made, 0, pack.classes))


def stepped(spec, pack, **changes):
    """(loss, hits) of one step on the same batch, in evaluation so that clips are apart; and what it left."""
    made = recipe(warmup_epochs=0, optimizer="sgd", **changes)
    state = fresh_state(build(spec, seed=0).eval(), spec, made)
    clip, label = one_batch(spec, pack, made)
    return step(state, made, clip, label, 0.1, len(clip)), state


@pytest.mark.parametrize("mixup", [0.0, 0.3])
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_batch_in_parts_is_the_batch(spec, pack, parts, mixup):
    (loss, hits), state = stepped(spec, pack, mixup=mixup)
    (in_parts, right), other = stepped(spec, pack, mixup=mixup, accumulate=parts)
    assert in_parts == pytest.approx(loss, abs=1e-5)
    assert right == hits
    before = build(spec, seed=0).state_dict()
    moved = 0
    for (name, tensor), found in zip(state.net.state_dict().items(), other.net.state_dict().values(), strict=True):
        assert torch.allclose(tensor, found, atol=1e-6)
        moved += not torch.equal(tensor, before[name])
    assert moved > 10


def test_parts_differ_by_one_clip_at_most():
    assert part_sizes(8, recipe(accumulate=3)) == [3, 3, 2]
    assert part_sizes(2, recipe(accumulate=3)) == [1, 1]
    assert part_sizes(8, recipe()) == [8]


# Averaged weights.


def test_averaged_weights_by_hand(spec, pack):
    made = recipe(ema=0.2)
    state = fresh_state(build(spec, seed=0), spec, made)
    clip, label = one_batch(spec, pack, made)
    expected = {name: value.clone() for name, value in state.net.state_dict().items()}
    for decay in (1 / 10, 2 / 11, 0.2):  # the start is forgotten at once
        step(state, made, clip, label, 0.01, len(clip))
        for name, value in state.net.state_dict().items():
            mean = decay * expected[name] + (1 - decay) * value
            expected[name] = mean if value.is_floating_point() else value.clone()
    own = {name: value.clone() for name, value in state.net.state_dict().items()}
    with averaged(state) as net:
        for name, value in net.state_dict().items():
            assert torch.allclose(value, expected[name], atol=1e-6)
            assert value.is_floating_point() or value == 3
        assert not torch.equal(net.state_dict()["stem.norm.running_mean"], own["stem.norm.running_mean"])
    assert all(torch.equal(value, own[name]) for name, value in state.net.state_dict().items())


def test_averages_are_scored_and_kept_and_change_no_training(spec, pack, tmp_path):
    plain, mean = open_store(str(tmp_path / "plain")), open_store(str(tmp_path / "mean"))
    train(spec, recipe(), pack, plain)
    with pytest.raises(Interrupted):
        train(spec, recipe(ema=0.9), pack, mean, lambda epoch: stop(epoch) if epoch.epoch == 3 else None)
    kept = load_checkpoint(mean)["average"]
    train(spec, recipe(ema=0.9), pack, mean)
    curves = [read_json(store, "curve.json") for store in (plain, mean)]
    assert [entry["train_loss"] for entry in curves[0]] == [entry["train_loss"] for entry in curves[1]]
    assert [entry["val_loss"] for entry in curves[0]] != [entry["val_loss"] for entry in curves[1]]
    weights = read_weights(mean)
    assert all(torch.equal(kept[name], weights[name]) for name in weights)
    assert not torch.equal(weights["stem.conv.weight"], read_weights(plain)["stem.conv.weight"])


# Losses.


def test_binary_loss_by_hand():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    several = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])  # two classes, and none
    made = recipe(loss="binary", label_smoothing=0.0)
    by_hand = -(several * F.logsigmoid(logits) + (1 - several) * F.logsigmoid(-logits)).mean()
    assert loss_of(logits, several, made) == pytest.approx(float(by_hand))
    one = F.one_hot(torch.tensor([2, 0]), 3).float()
    assert loss_of(logits, torch.tensor([2, 0]), made) == loss_of(logits, one, made)
    smooth = recipe(loss="binary", label_smoothing=0.2)
    assert loss_of(logits, several, smooth) == pytest.approx(float(loss_of(logits, several * 0.8 + 0.1, made)))


# Precision and compilation.


def test_a_step_that_overflows_in_fp16_is_left_out(spec, pack):
    made = recipe(precision="fp16")
    state = fresh_state(build(spec, seed=0), spec, made)
    clip, label = one_batch(spec, pack, made)
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 1e30})
    before = {name: value.clone() for name, value in state.net.named_parameters()}
    loss, _ = step(state, made, clip, label, 0.1, len(clip))
    assert 0 < loss < 5
    assert all(torch.equal(value, before[name]) for name, value in state.net.named_parameters())
    assert state.scaler.get_scale() < 1e30
    resumed = fresh_state(build(spec, seed=1), spec, made)
    resumed.restore(state.as_saved())
    assert resumed.scaler.get_scale() == state.scaler.get_scale()
    assert "scaler" not in fresh_state(build(spec, seed=0), spec, recipe()).as_saved()


def test_what_is_not_finite_in_fp16_goes_on_in_fp32_and_stays_there(spec, pack, tmp_path, monkeypatch):
    calls = []

    def spoiled(logits, target, made):
        calls.append(made.precision)
        return loss_of(logits, target, made) * (torch.nan if calls == ["fp16"] * 4 else 1)  # in the second epoch

    monkeypatch.setattr(optimiser, "loss_of", spoiled)
    made = recipe(epochs=3, batch=12, precision="fp16")
    whole, parts = open_store(str(tmp_path / "whole")), open_store(str(tmp_path / "parts"))
    train(spec, made, pack, whole)
    assert [entry["precision"] for entry in read_json(whole, "curve.json")] == ["fp16", "fp32", "fp32"]
    calls.clear()
    for _ in range(3):
        with pytest.raises(Interrupted):
            train(spec, made, pack, parts, stop)
    assert "scaler" not in load_checkpoint(parts)
    train(spec, made, pack, parts)
    assert left_in(parts) == left_in(whole)


def test_what_cannot_be_compiled_is_one_line(spec, pack, tmp_path, monkeypatch):
    def no_compiler(spec, **kwargs):
        net = build(spec, **kwargs)
        monkeypatch.setattr(net, "compile", lambda **_: net.register_forward_hook(failing), raising=False)
        return net

    def failing(*_):
        from torch._inductor.exc import InvalidCxxCompiler

        raise InvalidCxxCompiler

    monkeypatch.setattr(loop, "build", no_compiler)
    with pytest.raises(TrainingError, match=r"^net: torch cannot compile it here \(.*\); set compile to false$"):
        train(spec, recipe(compile=True), pack, open_store(str(tmp_path)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler, of torch
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_compiled_training_is_training_also_after_a_resume(spec, pack, tmp_path):
    still = spec.model_copy(update={"stages": (*spec.stages[:-1], HeadStage(name="head", classes=4))})  # no dropout
    eager, whole, parts = (open_store(str(tmp_path / name)) for name in ("eager", "whole", "parts"))
    made = recipe(epochs=2, batch=12)
    train(still, made, pack, eager)
    compiled = made.model_copy(update={"compile": True})
    train(still, compiled, pack, whole)
    with pytest.raises(Interrupted):
        train(still, compiled, pack, parts, stop)
    train(still, compiled, pack, parts)
    assert left_in(parts) == left_in(whole)
    for one, other in zip(left_in(whole)[0], left_in(eager)[0], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-3)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "default"])
@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"precision": "fp16"}, {"compile": True}], ids=str)
def test_a_gpu_trains_in_every_precision_and_layout(spec, pack, tmp_path, changes, last):
    cpu, gpu = open_store(str(tmp_path / "cpu")), open_store(str(tmp_path / "gpu"))
    train(spec, recipe(), pack, cpu)
    train(spec, recipe(device="cuda", channels_last=last, ema=0.5, **changes), pack, gpu)
    losses = [read_json(store, "curve.json")[0]["train_loss"] for store in (cpu, gpu)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


# Several processes.

IN_FLOAT64 = """
import torch
from archsearch.cli import main
torch.set_default_dtype(torch.float64)
main()
"""


@pytest.mark.slow
def test_two_processes_are_one(spec, clips, cli, tmp_path):
    (tmp_path / "net.yaml").write_text(spec_yaml(spec).replace("dropout: 0.3", "dropout: 0.0"))
    (tmp_path / "main.py").write_text(IN_FLOAT64)
    made = {"epochs": 4, "batch": 5, "warmup_epochs": 1, "views": 1, "optimizer": "sgd", "lr": 0.02, "colour": 0.2}
    made |= {"frozen_norm": True, "accumulate": 2, "ema": 0.5}
    (tmp_path / "recipe.yaml").write_text(json.dumps(made))
    command = ["train", tmp_path / "net.yaml", clips, "--clip", "3x2x16x16", "--recipe", tmp_path / "recipe.yaml"]
    command += ["--json", "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    running = [*torchrun, tmp_path / "main.py", *command, tmp_path / "two"]
    done = subprocess.run(running, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # the first process reports
    torch.set_default_dtype(torch.float64)
    try:
        assert cli(*command, tmp_path / "one")[0] == 0
    finally:
        torch.set_default_dtype(torch.float32)

    one, two = (open_store(str(tmp_path / name)) for name in ("one", "two"))
    assert two.names() == one.names()
    assert json.loads(line) == read_json(two, "result.json")
    for alone, both in zip(read_json(one, "curve.json"), read_json(two, "curve.json"), strict=True):
        for name in ("lr", "train_loss", "train_top1", "val_loss", "val_top1"):
            assert both[name] == pytest.approx(alone[name], abs=1e-5)
    weights = read_weights(one)
    for name, tensor in read_weights(two).items():  # after 20 steps of 5 or 4 clips, each process's in two parts
        assert torch.allclose(tensor, weights[name], atol=1e-5, rtol=0), name


@pytest.fixture
def as_process(monkeypatch):
    """Makes this process one of several."""

    def become(number, count):
        monkeypatch.setattr(processes, "number", lambda: number)
        monkeypatch.setattr(processes, "count", lambda: count)

    return become


@pytest.mark.parametrize("changes", [{}, {"crop": "corners"}, {"mixup": 0.2, "colour": 0.2}], ids=str)
def test_the_parts_of_all_processes_are_the_batch(spec, pack, as_process, changes):
    made = recipe(batch=7, **changes)
    split = split_of(pack, "train")

    def batches():
        return list(epoch_batches(split, sampling_for(spec, made, pack.classes), made, 1, pack.classes))

    whole, parts = batches(), []
    for number in range(4):
        as_process(number, 4)
        parts.append(batches())
    for step_number, (clip, label) in enumerate(whole):
        assert torch.equal(torch.cat([part[step_number][0] for part in parts]), clip)
        assert torch.equal(torch.cat([part[step_number][1] for part in parts]), label)


def test_what_several_processes_cannot_do_is_one_line(spec, as_process):
    as_process(1, 4)
    with pytest.raises(RecipeError, match="batch of 3 clips is less than one for each of 4 processes"):
        processes.own_part(3)
    with pytest.raises(RecipeError, match=r"frozen_norm: .* only synchronised on cuda"):
        processes.with_shared_norms(build(spec, seed=0), recipe())
    net = build(spec, seed=0)
    assert processes.with_shared_norms(net, recipe(frozen_norm=True)) is net


def test_other_processes_write_nothing(as_process, tmp_path):
    store = open_store(str(tmp_path))
    store.write("a/b", "kept")
    as_process(1, 2)
    own = processes.own_store(store)
    own.write("new", "x")
    own.at("a").delete("b")
    own.delete("a")
    assert own.names() == ["a"]
    assert own.at("a").read("b") == b"kept"


# Recipes.


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_reads_and_trains(spec, pack, tmp_path, path):
    made = read_recipe(path)
    small = path.stem.endswith(("_small", "demo", "small"))
    assert (made.device, made.threads) == ("cpu" if small else "cuda", 1)
    one = {"epochs": 1, "batch": 24, "warmup_epochs": 0, "views": 2}
    if not small:  # as much of it as a CPU does in a second
        one |= {"device": "cpu", "precision": "fp32", "accumulate": min(made.accumulate, 2)}
    result = train(spec, made.model_copy(update=one), pack, open_store(str(tmp_path)))
    assert result["epochs"] == 1
    if path.stem not in ("demo", "small"):
        assert path.with_stem(path.stem.split("_")[0]) in RECIPES
        assert path.read_text().startswith("#")  # says where it comes from


# Events.


def scalars(content):
    """(step, tag, value) of every scalar in a file of events: records of length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        content = content[16 + length :]
    return found


def test_events_tell_the_curve_once_also_after_a_resume(spec, pack, tmp_path):
    store = open_store(str(tmp_path))
    made = recipe(epochs=3, tensorboard=True)
    with pytest.raises(Interrupted):
        train(spec, made, pack, store, stop)
    assert [step for step, tag, _ in scalars(store.read(events.EVENTS)) if tag == "lr"] == [1]
    train(spec, made, pack, store)
    found = scalars(store.read(events.EVENTS))
    curve = read_json(store, "curve.json")
    assert [(step, tag) for step, tag, _ in found] == [(step, tag) for step in (1, 2, 3) for tag in events.TAGS]
    for step_number, tag, value in found:
        assert value == pytest.approx(curve[step_number - 1][events.TAGS[tag]], rel=1e-6)


def test_events_without_the_library_are_one_line(spec, pack, tmp_path, monkeypatch):
    monkeypatch.setattr(events, "find_spec", lambda _: None)
    with pytest.raises(RecipeError, match="tensorboard: needs tensorboardX"):
        train(spec, recipe(tensorboard=True), pack, open_store(str(tmp_path)))
