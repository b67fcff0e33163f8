"""Where a search keeps its trials: a file of its own, or a database that several machines share.

Whatever is wrong with it is one line, without its password.
"""

import importlib
import inspect
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.train.tune_recipe import TuneRecipe
from foundling.train.tune_report import Trial

_BEAT_SECONDS = 60
"""How often a machine tells a shared storage that it is still at work."""

GRACE_SECONDS = 600
"""After so long a silence others take its trials over."""

_DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""What is to be installed for a module that talks to a database, where it is called otherwise."""


def optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise UserError("tuning needs Optuna", got="none", do='pip install "foundling[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def database_faults() -> tuple[type[Exception], ...]:
    return importlib.import_module("sqlalchemy.exc").SQLAlchemyError, optuna().exceptions.StorageInternalError


def study_of(recipe: TuneRecipe) -> Any:
    faults: tuple[type[Exception], ...] = (*database_faults(), ImportError, LookupError, ValueError, RuntimeError)
    if recipe.storage is None:
        recipe.folder.mkdir(parents=True, exist_ok=True)
    try:
        storage = f"sqlite:///{_own_file(recipe)}" if recipe.storage is None else _shared(recipe, recipe.storage)
        return optuna().create_study(study_name=recipe.name, storage=storage, load_if_exists=True)
    except faults as error:
        raise storage_fault(recipe, error) from error


def _own_file(recipe: TuneRecipe) -> Path:
    return (recipe.folder / "study.db").absolute()


def _shared(recipe: TuneRecipe, url: str) -> Any:
    """A storage that notices which trials' machines have fallen silent, and has these tried again."""
    make = optuna().storages.RDBStorage
    after = "heartbeat_stale_trial_callback"
    if after not in inspect.signature(make).parameters:  # its name before Optuna 4.9
        after = "failed_trial_callback"
    with unwarned():
        return make(
            url,
            heartbeat_interval=_BEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            **{after: partial(try_again, recipe)},
        )


@contextmanager
def unwarned() -> Iterator[None]:
    """Without Optuna's warnings that heartbeats are experimental, and meant for its own loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def storage_fault(recipe: TuneRecipe, error: Exception) -> UserError:
    """What is wrong with a storage: the innermost cause says most."""
    sql = importlib.import_module("sqlalchemy.exc")
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = (str(cause).splitlines() or [type(cause).__name__])[0]
    if isinstance(error, ImportError):
        module = getattr(cause, "name", None) or "its driver"
        reason, do = f"{module} is not installed", f"pip install {_DRIVERS.get(module, module)}"
    elif isinstance(error, LookupError | ValueError | sql.ArgumentError):
        if not isinstance(error, sql.ArgumentError):
            reason = "no URL that can be read"  # what these say can be a piece of the password
        do = "write postgresql://USER:PASSWORD@HOST/DATABASE, signs such as @ and { in a password as %40 and %7B"
    elif recipe.storage is None:
        do = f"remove {_own_file(recipe)} to search from the beginning, or choose another out=DIR"
    else:
        do = "see that the database is up, is there, and may be written to"
    return UserError(
        "the storage must be a database that can be used",
        got=f"{without_password(recipe.storage or str(_own_file(recipe)))}: {without_password(reason)[:160]}",
        do=do,
    )


def without_password(text: str) -> str:
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"(?i)((?:password|passwd|pwd)=)[^&\s]+", r"\1***", text)


def try_again(recipe: TuneRecipe, study: Any, one: Any) -> None:
    """The settings of a trial that a kill cut off are tried again, before new ones; once."""
    if not one.user_attrs.get("again"):
        study.enqueue_trial(one.params, user_attrs={"again": True})
    shutil.rmtree(recipe.folder / f"trial-{one.number:04d}", ignore_errors=True)


def go_on_with(study: Any, one: Any) -> None:
    """A trial of this machine alone that a kill cut off is gone on with, before new ones: what it came to by then goes
    along, and its folder stays."""
    study.enqueue_trial(one.params, user_attrs={"reached": reached(one)})


def reached(trial: Any) -> list[tuple[int, float]]:
    """(steps, value) of each rung that a trial has behind it, those before a kill too."""
    before = [(int(steps), float(value)) for steps, value in trial.user_attrs.get("reached", ())]
    reported = getattr(trial, "intermediate_values", None)  # of a trial that is over; one at work does not tell
    found = sorted((int(steps), float(value)) for steps, value in (reported or {}).items())
    return max(before, found, key=len)


@contextmanager
def heart(recipe: TuneRecipe, study: Any) -> Iterator[Callable[[Any], None]]:
    """Gives what is called with each trial that begins: until this is left, a shared storage hears every minute that
    they are at work. Optuna does so for its own loop alone."""
    storage, at_work, done = study._storage, list[int](), Event()

    def tell() -> None:
        while not done.wait(_BEAT_SECONDS):
            try:
                for one in tuple(at_work):
                    storage.record_heartbeat(one)
            except database_faults() as error:  # the next may be heard; where none is, what a trial reports is told
                logger.warning("%s", storage_fault(recipe, error))

    def begin(trial: Any) -> None:
        storage.record_heartbeat(trial._trial_id)
        at_work.append(trial._trial_id)

    if storage.get_heartbeat_interval() is None:  # nobody listens
        yield lambda trial: None
        return
    thread = Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield begin
    finally:
        done.set()
        thread.join()


@contextmanager
def unless_taken_over(trial: Trial) -> Iterator[None]:
    """What a trial came to does not count where its machine was silent for so long that others try it again."""
    try:
        yield
    except RuntimeError as error:
        if "already finished" not in str(error):
            raise
        logger.warning("trial %d: others took it over", trial.number)
