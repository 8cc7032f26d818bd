"""Keys that carry their time."""

import os
import re
import time
import unittest
import uuid
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import onlyonce

FORM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


class Uuid7(unittest.TestCase):
    def test_each_is_greater_than_the_one_before_and_has_the_time(self) -> None:
        before = time.time_ns() // 1_000_000
        keys = [onlyonce.uuid7() for _ in range(20_000)]
        after = time.time_ns() // 1_000_000
        self.assertEqual(keys, sorted(set(keys)))
        for key in keys:
            self.assertRegex(key, FORM)
            self.assertTrue(before <= uuid.UUID(key).int >> 80 <= after + 1)

    def test_threads_at_once_make_no_key_twice(self) -> None:
        with ThreadPoolExecutor(16) as threads:
            made = list(threads.map(lambda _: [onlyonce.uuid7() for _ in range(500)], range(16)))
        self.assertEqual(len({key for keys in made for key in keys}), 16 * 500)

    def test_a_clock_that_is_set_back_makes_no_smaller_key(self) -> None:
        last = onlyonce.uuid7()
        now = time.time_ns()
        with mock.patch("time.time_ns", return_value=now - 30_000_000_000):
            self.assertGreater(onlyonce.uuid7(), last)
        with mock.patch("time.time_ns", return_value=now - 3_600_000_000_000):
            # Far ahead of the clock, a key would be refused.
            self.assertLess(onlyonce.uuid7(), last)

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork here")
    def test_a_forked_child_does_not_count_on_from_its_parent(self) -> None:
        # Time stands still, or either would draw anew.
        with mock.patch("time.time_ns", return_value=time.time_ns() + 10_000_000):
            onlyonce.uuid7()
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                with os.fdopen(writer, "w") as out:
                    out.write(onlyonce.uuid7())
                os._exit(0)
            os.close(writer)
            with os.fdopen(reader) as said:
                theirs = uuid.UUID(said.read()).int
            os.waitpid(child, 0)
            ours = uuid.UUID(onlyonce.uuid7()).int
        # Counting on, they would differ in the low bits alone: by less than two steps.
        tail = (1 << 62) - 1
        self.assertGreater(abs((theirs & tail) - (ours & tail)), 1 << 34)


if __name__ == "__main__":
    unittest.main()
