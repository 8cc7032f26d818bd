"""Keys of intents: one for each, on the disk before it is given out."""

import multiprocessing
import os
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, List
from unittest import mock

import onlyonce
from onlyonce import FileIntents, MemoryIntents, RetryingClient


def taken(folder: str) -> str:
    return FileIntents(folder).take("pay cart 17", onlyonce.uuid7)


def replaced(folder: str) -> str:
    return FileIntents(folder).replace("pay cart 17", "old", onlyonce.uuid7)


class Files(unittest.TestCase):
    def setUp(self) -> None:
        kept = tempfile.TemporaryDirectory()
        self.addCleanup(kept.cleanup)
        self.folder = kept.name

    def test_processes_that_take_an_intent_at_once_get_one_key(self) -> None:
        with multiprocessing.get_context("spawn").Pool(8) as processes:
            keys = processes.map(taken, [self.folder] * 64, chunksize=1)
            self.assertEqual(len(set(keys)), 1)
            self.assertEqual(len(list(Path(self.folder).iterdir())), 1)
            FileIntents(self.folder).forget("pay cart 17")
            FileIntents(self.folder).take("pay cart 17", lambda: "old")
            keys = processes.map(replaced, [self.folder] * 64, chunksize=1)
            self.assertEqual(len(set(keys)), 1)
            self.assertNotIn("old", keys)

    def test_names_are_intents_and_forgetting_one_leaves_the_others(self) -> None:
        store = FileIntents(self.folder)
        first, second = store.take("a", onlyonce.uuid7), store.take("b/../*", onlyonce.uuid7)
        self.assertNotEqual(first, second)
        store.forget("a")
        store.forget("never seen")
        self.assertNotEqual(store.take("a", onlyonce.uuid7), first)
        self.assertEqual(store.take("b/../*", onlyonce.uuid7), second)

    def test_nothing_is_given_out_that_is_not_synced(self) -> None:
        synced = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            real(descriptor)

        with mock.patch("os.fsync", fsync):
            FileIntents(self.folder).take("a", onlyonce.uuid7)
        self.assertTrue(synced[0].endswith(".draft"), synced)
        self.assertEqual(synced[1], os.path.realpath(self.folder))

    def test_what_a_crash_left_half_is_no_key_and_a_damaged_file_is_named(self) -> None:
        store = FileIntents(self.folder)
        (Path(self.folder) / "0123456789abcdef.draft").write_text('{"intent": "a", "key": "x')
        key = store.take("a", onlyonce.uuid7)
        self.assertEqual(len(key), 36)
        (file,) = Path(self.folder).glob("*.0.json")
        file.write_text('{"intent": "other", "key": "k"}')
        with self.assertRaisesRegex(ValueError, file.name):
            store.take("a", onlyonce.uuid7)

    def test_a_store_that_cannot_keep_a_key_sends_nothing(self) -> None:
        sent = []
        client = RetryingClient(
            FileIntents(self.folder),
            transport=lambda request: sent.append(request),  # type: ignore[arg-type, return-value]
        )
        with mock.patch("os.link", side_effect=OSError("the disk is full")):
            with self.assertRaises(OSError):
                client.send("a", "POST", "http://127.0.0.1:1/", json={})
        self.assertEqual(sent, [])


class Requests(unittest.TestCase):
    def test_the_key_is_not_given_by_hand_and_intents_have_names(self) -> None:
        client = RetryingClient()
        url = "http://127.0.0.1:1/"
        wrongs: "List[Callable[[], Any]]" = [
            lambda: client.send("a", "POST", url, headers={"idempotency-key": "mine"}),
            lambda: client.send("a", "POST", url, body=b"", json={}),
            lambda: client.send("a", "POST", "ftp://127.0.0.1/"),
            lambda: client.send("a", "POST", url, headers={"X": "a\r\nb: c"}),
            lambda: client.send(" ", "POST", url),
            lambda: client.send("x" * 1025, "POST", url),
        ]
        for wrong in wrongs:
            with self.assertRaises(ValueError):
                wrong()

    def test_stores_in_memory_are_apart_and_threads_at_once_get_one_key(self) -> None:
        store = MemoryIntents()
        with ThreadPoolExecutor(16) as threads:
            keys = set(threads.map(lambda _: store.take("a", onlyonce.uuid7), range(200)))
        self.assertEqual(len(keys), 1)
        self.assertNotIn(MemoryIntents().take("a", onlyonce.uuid7), keys)


if __name__ == "__main__":
    unittest.main()
