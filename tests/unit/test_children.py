"""Files that a forked child lets go."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from tests.unit.ledgers import child

from cedarbox import children
from cedarbox.audit.files import Appended, Lock
from cedarbox.audit.ledger import Ledger


def test_a_child_has_no_copy_and_the_parent_keeps_its_own(tmp_path: Path) -> None:
    file = Appended(tmp_path / "file", new=True)
    file.hold()
    with Lock(tmp_path / "lock", 1.0) as lock:
        copies = [file.descriptor, lock.descriptor]

        def in_child() -> None:
            assert (file.descriptor, lock.descriptor) == (-1, -1)
            for descriptor in copies:
                try:
                    os.fstat(descriptor)
                except OSError:
                    continue
                raise AssertionError(descriptor)

        assert os.waitstatus_to_exitcode(os.waitpid(child(in_child), 0)[1]) == 0
        file.append(b"still there")
    file.close()
    assert (tmp_path / "file").read_bytes() == b"still there"


def test_what_was_closed_is_forgotten(tmp_path: Path) -> None:
    gc.collect()
    before = len(children._OWNERS)
    for _ in range(5):
        Ledger.open(tmp_path / "ledger").close()
    gc.collect()
    # What an earlier test left may go meanwhile; five that stayed would show all the same.
    assert len(children._OWNERS) <= before
