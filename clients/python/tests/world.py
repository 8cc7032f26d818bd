"""The world of the tests (clients/world), as Python asks it."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict

CLIENTS = Path(os.environ.get("ONLYONCE_CLIENTS", Path(__file__).resolve().parents[2]))
BINARY = os.environ.get("ONLYONCE_BINARY", str(CLIENTS.parent / "target/debug/onlyonce"))
#: How long anything may take, in seconds, before the test fails.
LIMIT = float(os.environ.get("ONLYONCE_LIMIT", 60))
VECTORS: Dict[str, Any] = json.loads((CLIENTS / "vectors.json").read_text("utf-8"))


class World:
    """Real servers; `ask` is one control of them."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, str(CLIENTS / "world/world.py"), BINARY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, "the world did not start"
        self._control: str = json.loads(line)["control"]
        self.where: Dict[str, Any] = self.ask({"do": "where"})

    def ask(self, asked: Dict[str, Any]) -> Dict[str, Any]:
        request = urllib.request.Request(self._control, json.dumps(asked).encode())
        try:
            with urllib.request.urlopen(request, timeout=LIMIT * 2) as answer:
                told: Dict[str, Any] = json.load(answer)
                return told
        except urllib.error.HTTPError as failure:
            raise AssertionError(f"{asked}: {failure.read().decode()}") from None

    def end(self) -> None:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        self._child.wait(LIMIT)
        self._child.stdout.close()
