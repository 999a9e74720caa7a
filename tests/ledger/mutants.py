"""Bugs that a ledger could have (tests/mutation.py lets them in)."""

from tests.mutation import Mutants

MUTANTS: Mutants = {
    "no directory fsync": (
        ("ledger.disk", "        disk.rename(temporary, path)\n        disk.fsync_dir(path.parent)\n",
                        "        disk.rename(temporary, path)\n"),
        ("ledger.disk", "    disk.mkdir(path)\n    disk.fsync_dir(path.parent)\n", "    disk.mkdir(path)\n"),
    ),
    "no file fsync": (
        ("ledger.files.segment", "        self._disk.fdatasync(self._fd)\n", ""),
    ),
    "acknowledged first": (  # and synced right afterwards
        ("ledger.writing.commit", "            segment.sync()\n", "            pass\n"),
        ("ledger.writer", "            self._on_commit(self._committer.commit(turn.batch, written_at), written_at)\n",
                          "            self._on_commit(self._committer.commit(turn.batch, written_at), written_at)\n"
                          "            for segment in self._committer._live.values():\n"
                          "                segment.sync()\n"),
    ),
    "no CRC of headers": (
        ("ledger.format", "    if extend(seed, data[start + 4 : start + HEADER_BYTES]) != crc:\n", "    if False:\n"),
        ("ledger.format", " or extend(seed, data[start + 4 : payload_start]) != crc:\n", ":\n"),
    ),
    "no CRC of payloads": (
        ("ledger.format", "value(payload) != header.payload_crc32c or any(", "any("),
        ("ledger.format", " or value(payload) != payload_crc or (", " or ("),
    ),
    "late group acknowledgement": (  # who joins while a batch is synced is acknowledged with that sync, before its own
        ("ledger.writing.commit", "            segment.sync()\n",
                                  "            segment.sync()\n"
                                  "        joined, more = self._route(self.joined(), now)\n"
                                  "        for partition, entries in joined.items():\n"
                                  "            self._write(partition, entries, now, more)\n"
                                  "        results += more\n"),
        ("ledger.writer", "        self._closing = Lock()\n",
                          "        self._closing = Lock()\n"
                          "        self._committer.joined = self._queue._swap\n"),
    ),
    "fsync retried": (
        ("ledger.files.segment", "        self._disk.fdatasync(self._fd)\n",
                           "        try:\n"
                           "            self._disk.fdatasync(self._fd)\n"
                           "        except OSError:\n"
                           "            self._disk.fdatasync(self._fd)\n"),
    ),
    "short write ignored": (
        ("ledger.disk", "    while written < len(data):\n", "    while False:\n"),
    ),
    "mark counted as durable before its fsync": (  # the next frames claim that it is
        ("ledger.files.segment", "        self.has_unmarked_batch = False\n        self.sync()\n",
                           "        self.has_unmarked_batch = False\n        self._durable_end = self._end\n"),
    ),
    "SEAL before the FOOTER is durable": (
        ("ledger.files.segment", "    write_all(disk, fd, frame)\n    disk.fdatasync(fd)\n",
                           "    write_all(disk, fd, frame)\n"),
    ),
    "FOOTER found and taken for durable": (  # a SEAL is then written, and the FOOTER is gone
        ("ledger.opening.takeover",
         "            disk.fsync(fd)\n            disk.fsync_dir(surveyed.path.parent)\n",
         "            disk.fsync_dir(surveyed.path.parent)\n"),
    ),
    "SEAL found and taken for durable": (  # whoever published it may have died before its name was
        ("ledger.opening.house", "            disk.fsync_dir(directory / info.name)\n", "            pass\n"),
    ),
}  # fmt: skip
