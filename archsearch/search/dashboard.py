"""Optuna Dashboard on a run folder: a study in memory, built of the files and built again while they grow.

Nothing that is done in the browser reaches the files.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from archsearch.errors import ArchsearchError, MissingExtra, RunError
from archsearch.search.folder import Asked, RunFolder, Settled
from archsearch.search.study import outcome
from archsearch.store import open_store

HOST = "127.0.0.1"
REFRESH_SECONDS = 5.0


def serve(run: str, port: int, say: Callable[[str], None]) -> None:
    """Shows a run in a browser of this machine until Ctrl-C; `say` gets the address.

    Raises MissingExtra without Optuna Dashboard, RunError for a folder that is no run, ArchsearchError for a port
    that is taken.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise MissingExtra("Optuna Dashboard is not installed: pip install 'archsearch[dashboard]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = RunStorage(run)
    try:
        server = make_server(HOST, port, wsgi(storage), server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise ArchsearchError(f"port {port}: {error.strerror}; give another with --port") from None
    with server:
        say(f"http://{HOST}:{server.server_port}/dashboard")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """Requests are no news."""


class RunStorage(InMemoryStorage):
    """The study of a run folder; what is asked of it is at most a few seconds older than the files."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self._folder = RunFolder(open_store(run))
        self._read_at = 0.0
        self._refresh()

    def get_all_studies(self) -> list[Any]:
        """Of which there is one."""
        self._refresh()
        return super().get_all_studies()

    def get_all_trials(self, study_id: int, *args: Any, **options: Any) -> list[FrozenTrial]:
        """As the files are now."""
        self._refresh()
        return super().get_all_trials(study_id, *args, **options)

    def _refresh(self) -> None:
        with self._lock:
            if self._read_at and time.monotonic() < self._read_at + REFRESH_SECONDS:
                return
            fresh = run_study(self._folder)._storage
            for name, value in vars(fresh).items():
                if name != "_lock":
                    setattr(self, name, value)
            self._read_at = time.monotonic()


def run_study(folder: RunFolder) -> optuna.Study:
    """A study in memory of everything that was asked in a run: states, constraints, and all else as attributes.

    Optuna numbers trials without gaps; the attribute `trial` is a trial's number in the run. Raises RunError for a
    folder that is no run.
    """
    identity = folder.identity()
    if identity is None:
        raise RunError(f"{folder.store.url}: is no run folder (it has no run.json)")
    settled = {trial.number: trial for trial in folder.settled()}
    trials: list[Settled | Asked] = [
        *settled.values(),
        *(trial for trial in folder.asked() if trial.number not in settled),
    ]
    kinds = _distributions(trial.params for trial in trials)
    objectives = identity["objectives"]
    study = optuna.create_study(study_name=identity["name"], directions=list(objectives.values()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))
    study.set_user_attr("run", PurePath(folder.store.url).name)
    study.add_trials([_frozen(trial, list(objectives), kinds) for trial in sorted(trials, key=lambda t: t.number)])
    return study


def _distributions(all_params: Iterable[Mapping[str, Any]]) -> dict[str, BaseDistribution]:
    """Of each choice, what the trials took of it; the space itself may need files that are not in the folder."""
    values: dict[str, list[Any]] = {}
    for params in all_params:
        for name, value in params.items():
            values.setdefault(name, []).append(value)
    return {name: _distribution(found) for name, found in values.items()}


def _distribution(values: list[Any]) -> BaseDistribution:
    if all(type(value) is int for value in values):
        return IntDistribution(min(values), max(values))
    if all(type(value) is float for value in values):
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(sorted(set(values), key=str))


def _frozen(trial: Settled | Asked, objectives: list[str], kinds: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A trial as Optuna keeps it, with what the run knows of it as attributes."""
    known: dict[str, Any] = {"trial": trial.number, "candidate": trial.candidate, "published": trial.published}
    state, values, constraints = TrialState.RUNNING, None, dict[str, float]()
    if isinstance(trial, Settled):
        (state, values), constraints = outcome(trial, objectives), dict(trial.constraints or {})
        known |= {"state": trial.state, "reason": trial.reason, "duplicate_of": trial.duplicate_of}
        known |= {"epochs": trial.epochs, "seconds": trial.seconds, **trial.metrics}
        known |= {f"rung{place}": dict(rung["metrics"]) for place, rung in enumerate(trial.rungs)}
    else:
        known |= trial.cost
    return create_trial(
        state=state,
        values=values,
        params=trial.params,
        distributions={name: kinds[name] for name in trial.params},
        constraints=constraints,
        user_attrs={name: value for name, value in known.items() if value is not None},
    )
