"""One character, whose face is read once."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from consisid_gateway.jobs import characters
from consisid_gateway.jobs.characters import Character
from consisid_gateway.worker.making import MOST_ATTEMPTS, Workbench
from consisid_gateway.worker.patience import Ending, pauses
from consisid_runtime import Options
from consisid_runtime.errors import (
    ConsisIDError,
    RequestCancelled,
    ServerDied,
    ServerError,
    ServerTimeout,
    Unauthenticated,
)

log = logging.getLogger(__name__)


class FaceReader:
    """Reads the faces of characters with a workbench's server."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    def read(self, name: str) -> None:
        """Read a character's face, or find out why there is none. Raises `Ending`."""
        character = self._bench.patience.call(lambda: self._pending(name))
        if character is None:
            return
        try:
            face = self._face(character)
            if face is None:
                return
        except ConsisIDError as error:
            self._refuse(name, error.code, str(error))
        except Ending:
            raise
        except Exception as error:
            reference = secrets.token_hex(4)
            log.error("character %s, error %s", name, reference, exc_info=error)
            self._refuse(name, ConsisIDError.code, f"an unexpected failure; the worker's log has it as {reference}")
        else:
            self._settle(name, face)

    def _face(self, character: Character) -> Mapping[str, Any] | None:
        """Asks the server until it has read the face; None where the character is no more."""
        patience, ends = self._bench.patience, 0
        portrait = patience.call(lambda: self._bench.store.get(character.portrait))
        for pause in pauses():
            try:
                return self._bench.maker.identify(portrait, Options())
            except (ServerDied, RequestCancelled):
                ends += 1
                if ends >= MOST_ATTEMPTS:
                    raise  # the portrait is taken to be the cause
            except Unauthenticated as error:
                log.warning("%s", error)  # the worker's fault, and not the portrait's
            except ServerError as error:
                if error.code in (ServerError.code, ServerTimeout.code):
                    raise
            patience.rest(pause)
            if patience.call(lambda: self._pending(character.id)) is None:
                return None
        raise AssertionError("pauses never end")

    def _pending(self, name: str) -> Character | None:
        with self._bench.database.reading() as connection:
            return characters.pending(connection, name)

    def _settle(self, name: str, face: Mapping[str, Any]) -> None:
        def write() -> None:
            with self._bench.database.transaction() as connection:
                characters.settle(connection, name, face)

        self._bench.patience.call(write)

    def _refuse(self, name: str, code: str, message: str) -> None:
        def write() -> None:
            with self._bench.database.transaction() as connection:
                characters.refuse(connection, name, code, message)

        self._bench.patience.call(write)
