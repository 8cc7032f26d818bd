"""Labels: one for each confirmed order, as an operation of its own with a key of its own.

The printer offers nothing: it knows no keys and cannot be asked. So a label is printed at most once,
and where nobody knows whether it was, the order says so, and somebody looks at the printer.
"""

import urllib.error
import urllib.request

from couriers import Courier
from onlyonce import (
    Client,
    DidNotHappen,
    Expired,
    Gone,
    Mismatch,
    NotRecorded,
    OnceError,
    OutcomeUnknown,
    Sealed,
)

CONFIRMED = 201


class Labels(Courier):
    def __init__(self, book, records, token, printer):
        self.book, self.printer = book, printer
        # A claim that a killed shop has left is in doubt after three seconds.
        self.records = Client(records, token=token, lease=3.0, wait=1.0, patience=5.0)

    def work(self):
        for number in self.book.wanted("label", None, f"status = {CONFIRMED}"):
            self.book.mark(number, "label", self._label(number))

    def _label(self, number):
        key = f"{number}/label/1"
        try:
            self.records.once(key, lambda attempt: self._print(number), inputs={"order": number})
        except Gone:
            return "printed"
        except (OutcomeUnknown, NotRecorded):
            return "unknown"
        except (Mismatch, Sealed, Expired) as error:
            return f"refused: {error}"
        except (OnceError, OSError):
            # It did not happen now, or it is in doubt: the next look will tell.
            return None
        return "printed"

    def _print(self, number):
        request = urllib.request.Request(f"{self.printer}/{number}", b"", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return {"status": answer.status}
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionRefusedError):
                raise DidNotHappen("the printer is off") from error
            raise
