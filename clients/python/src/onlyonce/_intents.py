"""Where the key of an intent is kept, from before it is sent for the first time."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from pathlib import Path
from typing import Callable, Dict, Optional, Protocol, Tuple, Union

#: The most intents that one store keeps.
INTENTS_MAX = 100_000
#: The longest name of an intent, in bytes.
NAME_MAX = 1024


class IntentStore(Protocol):
    """Keeps one key for each intent. All of it may be called by many threads at once."""

    def take(self, intent: str, make: Callable[[], str]) -> str:
        """The key that is kept for the intent; else one that ``make`` makes, once it is kept
        durably. All who ask at once get the same."""

    def replace(self, intent: str, old: str, make: Callable[[], str]) -> str:
        """Puts a new key in the place of ``old``, and gives it; another's, if that was first."""

    def forget(self, intent: str) -> None:
        """The intent is over: its name means a new one from now on."""


class MemoryIntents:
    """Keeps keys as long as the process lives: a restart does not find them again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: Dict[str, str] = {}

    def take(self, intent: str, make: Callable[[], str]) -> str:
        checked(intent)
        with self._lock:
            if intent not in self._keys:
                _room(len(self._keys))
                self._keys[intent] = make()
            return self._keys[intent]

    def replace(self, intent: str, old: str, make: Callable[[], str]) -> str:
        with self._lock:
            if self._keys.get(intent) == old:
                self._keys[intent] = make()
            return self._keys[intent]

    def forget(self, intent: str) -> None:
        with self._lock:
            self._keys.pop(intent, None)


class FileIntents:
    """Keeps keys in files of a folder, for any number of processes: each key is on the disk before
    it is sent. The client for Node.js reads and writes the same files.

    A file is never written again: a key that takes another's place is in a file of its own, and
    the one with the highest number counts.
    """

    def __init__(self, folder: Union[str, "os.PathLike[str]"]):
        self._folder = Path(folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def take(self, intent: str, make: Callable[[], str]) -> str:
        checked(intent)
        found = self._latest(intent)
        if found is not None:
            # Whoever made the file may not have come so far.
            self._sync()
            return found[1]
        _room(sum(1 for _ in os.scandir(self._folder)))
        return self._keep(intent, 0, make())

    def replace(self, intent: str, old: str, make: Callable[[], str]) -> str:
        found = self._latest(intent)
        if found is None:
            return self._keep(intent, 0, make())
        number, key = found
        return self._keep(intent, number + 1, make()) if key == old else key

    def forget(self, intent: str) -> None:
        # The highest first: should the rest be left behind, it is a key that was refused, and will
        # be again.
        for number in range(self._count(intent) - 1, -1, -1):
            self._path(intent, number).unlink(missing_ok=True)
        self._sync()

    def _path(self, intent: str, number: int) -> Path:
        name = hashlib.sha256(intent.encode("utf-8")).hexdigest()
        return self._folder / f"{name}.{number}.json"

    def _count(self, intent: str) -> int:
        number = 0
        while self._path(intent, number).exists():
            number += 1
        return number

    def _latest(self, intent: str) -> Optional[Tuple[int, str]]:
        number = self._count(intent) - 1
        return None if number < 0 else (number, self._read(intent, number))

    def _read(self, intent: str, number: int) -> str:
        path = self._path(intent, number)
        document = json.loads(path.read_text("utf-8"))
        if not isinstance(document, dict) or document.get("intent") != intent:
            raise ValueError(f"{path} is not of the intent {intent!r}")
        key = document.get("key")
        if not isinstance(key, str) or not key:
            raise ValueError(f"{path} has no key")
        return key

    def _keep(self, intent: str, number: int, key: str) -> str:
        """Makes a file that is whole from its first moment; whoever is second reads the first's."""
        path = self._path(intent, number)
        draft = self._folder / f"{secrets.token_hex(8)}.draft"
        text = json.dumps({"intent": intent, "key": key}).encode("ascii")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)
            except FileExistsError:
                key = self._read(intent, number)
            self._sync()
        finally:
            draft.unlink(missing_ok=True)
        return key

    def _sync(self) -> None:
        """A name in a folder is durable once the folder is."""
        if os.name != "posix":
            return
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def checked(intent: str) -> None:
    """Raises ``ValueError`` for a name that is none."""
    if not isinstance(intent, str) or not intent.strip():
        raise ValueError("an intent has a name that is not blank")
    if NAME_MAX < len(intent.encode("utf-8")):
        raise ValueError(f"the name of an intent has at most {NAME_MAX} bytes")


def _room(taken: int) -> None:
    if INTENTS_MAX <= taken:
        raise ValueError(f"{INTENTS_MAX} intents are kept: forget those that are over")
