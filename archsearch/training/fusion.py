"""Files of scores, and several networks' scores together: late fusion."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archsearch.errors import DataError
from archsearch.files import write_whole
from archsearch.training.evaluate import Floats, Scores, bootstrap_interval, fuse

KINDS = (".npz", ".json")  # of files of scores


def check_kind(path: Path) -> None:
    """Raises DataError where a file of scores would have another ending than .npz or .json."""
    if path.suffix not in KINDS:
        raise DataError(f"{path}: a file of scores ends in {' or '.join(KINDS)}, not '{path.suffix}'")


def write_scores(path: Path, scores: Scores, classes: tuple[str, ...]) -> None:
    """Writes names, labels, classes and mean probabilities (videos, classes), whole; nothing in it is code.

    Labels of several a video are 0 or 1 for each class (videos, classes); `binary` is there where it is true.
    """
    check_kind(path)
    fields: dict[str, Any] = {"names": list(scores.names), "classes": list(classes)}
    fields |= {"labels": scores.labels.tolist(), "probabilities": scores.mean.tolist()}
    fields |= {"binary": True} if scores.binary else {}
    if path.suffix == ".json":
        write_whole(path, json.dumps(fields) + "\n")
        return
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.array(field) for name, field in fields.items()})
    write_whole(path, buffer.getvalue())


def read_scores(path: Path) -> tuple[Scores, tuple[str, ...]]:
    """What `write_scores` wrote, as scores of one view; with the classes' names. Raises DataError for anything else."""
    check_kind(path)
    try:
        if path.suffix == ".npz":
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                fields = {name: archive[name] for name in archive.files}
        else:
            fields = json.loads(path.read_text(encoding="utf-8"))
        names, classes = (tuple(map(str, fields[name])) for name in ("names", "classes"))
        labels, mean = np.asarray(fields["labels"]), np.asarray(fields["probabilities"], np.float64)
        binary = bool(fields.get("binary", False))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(f"{path}: is no file of `archsearch evaluate --scores` ({reason})") from None
    rule = _broken_rule(names, classes, labels) or _improbable(mean, binary, (len(names), len(classes)))
    if rule:
        raise DataError(f"{path}: is no file of scores: {rule}")
    return Scores(mean[:, None], labels, names, binary), classes


def _broken_rule(names: Sequence[str], classes: Sequence[str], labels: NDArray[Any]) -> str | None:
    """What is wrong with the names and labels of a file of scores, if anything."""
    if not names or len(set(names)) != len(names):
        return "names of videos should be one or more, each once"
    if labels.shape not in ((len(names),), (len(names), len(classes))):
        return f"{len(names)} names, {len(classes)} classes and labels {labels.shape}"
    highest = 1 if labels.ndim == 2 else len(classes) - 1
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > highest:
        return f"labels should be whole numbers from 0 to {highest}"
    return None


def _improbable(mean: Floats, binary: bool, shape: tuple[int, int]) -> str | None:
    """What is wrong with the probabilities of a file of scores, if anything; nan is."""
    if mean.shape != shape:
        return f"{shape[0]} names, {shape[1]} classes and probabilities {mean.shape}"
    if binary:
        return None if ((mean >= 0) & (mean <= 1)).all() else "probabilities should be from 0 to 1"
    if (mean >= 0).all() and np.allclose(mean.sum(1), 1, atol=1e-3):
        return None
    return "probabilities of a video should be 0 or more and sum to 1"


def fuse_files(paths: Sequence[Path], weights: Sequence[float] | None = None) -> dict[str, Any]:
    """What `archsearch fuse` prints: each file of scores alone, all fused, and what that gains on the same videos.

    `gain_interval` is a paired bootstrap over videos. Raises DataError for fewer than two files, for scores of other
    videos, classes or losses, and for weights that are not one positive number each.
    """
    weights = [1.0] * len(paths) if weights is None else weights
    if len(paths) < 2:
        raise DataError("fusion needs two files of scores or more")
    if len(weights) != len(paths) or not all(0 < weight < np.inf for weight in weights):
        raise DataError(f"weights {list(weights)}: should be {len(paths)} positive numbers, one for each file")
    first, classes = read_scores(paths[0])
    members = [first, *(_aligned(path, paths[0], first, classes) for path in paths[1:])]
    fused = fuse(members, weights)
    alone = [
        {
            "scores": str(path),
            "weight": float(weight),
            **_brief(scores),
            "gain": fused.top1 - scores.top1,
            "gain_interval": bootstrap_interval(fused.hits.astype(int) - scores.hits),
        }
        for path, weight, scores in zip(paths, weights, members, strict=True)
    ]
    return {"videos": len(first.labels), "classes": len(classes), "alone": alone, "fused": _brief(fused)}


def _aligned(path: Path, other: Path, first: Scores, classes: tuple[str, ...]) -> Scores:
    """The scores of a file in the order of the first one's videos."""
    scores, theirs = read_scores(path)
    if theirs != classes:
        odd = sorted(set(theirs) ^ set(classes))
        raise DataError(f"{path}: has other classes than {other}" + (f", e.g. '{odd[0]}'" if odd else ", in order"))
    if scores.binary != first.binary:
        raise DataError(f"{path}: has probabilities of another loss than {other}; they do not mean the same")
    odd = sorted(set(scores.names) ^ set(first.names))
    if odd:
        raise DataError(f"{path}: has other videos than {other}: {len(odd)} are in one of them only, e.g. {odd[0]}")
    places = {name: place for place, name in enumerate(scores.names)}
    order = np.array([places[name] for name in first.names])
    differ = np.flatnonzero((scores.marks[order] != first.marks).any(1))
    if len(differ):
        raise DataError(f"{path}: has another class for {first.names[differ[0]]} than {other}")
    return replace(first, probabilities=scores.probabilities[order])


def _brief(scores: Scores) -> dict[str, Any]:
    found = {"top1": scores.top1, "top1_interval": bootstrap_interval(scores.hits), "top5": scores.top5}
    return found | ({"map": scores.map} if scores.binary else {})
