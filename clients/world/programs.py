"""The real programs: `onlyonce serve` and `onlyonce proxy`, on free ports and a store of their own,
killed and started again on the same store."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

#: How long a program has to say that it listens, in seconds.
STARTS_WITHIN = 60
#: Never secret: the service that knows it ends with the tests.
TOKEN = "0123456789abcdef0123456789abcdef"
#: Of a caller whose operations may run twice.
HARMLESS = "fedcba9876543210fedcba9876543210"
#: Of somebody who settles what nobody knows.
OPERATOR = "0246813579acebdf0246813579acebdf"


class Program:
    """One program. `arguments` follow its store."""

    def __init__(self, binary, folder, command, arguments, listening):
        self.binary, self.command, self.arguments = binary, command, arguments
        self.folder = Path(folder) / command
        self.folder.mkdir()
        self.store = "journal:%s" % (self.folder / "journal")
        #: Told host and port whenever it listens anew.
        self.listening = listening
        self.child = None
        self.lock = threading.Lock()
        first = [binary, "store", "init", "--first", "--store", self.store]
        subprocess.run(first, check=True, stdout=subprocess.DEVNULL)

    def start(self):
        """Starts it and waits until it listens."""
        with self.lock:
            said, log = self.folder / "out", self.folder / "log"
            command = [self.binary, self.command, *self.arguments, "--store", self.store]
            with said.open("wb") as out, log.open("ab") as err:
                self.child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=err
                )
            ends = time.monotonic() + STARTS_WITHIN
            while time.monotonic() < ends:
                _, found, rest = said.read_text().partition("listening on http://")
                if found and " " in rest:
                    host, _, port = rest.split(" ")[0].rpartition(":")
                    return self.listening((host, int(port)))
                if self.child.poll() is not None:
                    break
                time.sleep(0.02)
            raise RuntimeError("%s does not listen:\n%s" % (self.command, log.read_text()))

    def kill(self):
        """Ends it at once, as a power cut does."""
        with self.lock:
            if self.child is not None:
                os.kill(self.child.pid, signal.SIGKILL)
                self.child.wait()
                self.child = None

    def again(self):
        """Kills it, and starts it on the same store."""
        self.kill()
        self.start()
