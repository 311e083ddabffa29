"""One driver per study: busy, dead, asleep, taken over."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moalign.errors import StudyBusyError
from moalign.store import Measured, StudyStore, lease
from moalign.store.lease import process_start

DRIVER = """
import sys, time
from moalign.store import StudyStore
with StudyStore(sys.argv[1]).drive():
    print("driving", flush=True)
    time.sleep(60)
"""


@contextmanager
def driver_process(study: StudyStore) -> Iterator[subprocess.Popen[str]]:
    """Another process that drives the study until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(study.folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "driving\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def change_lease(study: StudyStore, **columns: Any) -> None:
    """Writes into the lease what another machine, or time, would have written."""
    connection = sqlite3.connect(study.folder / "store.db")
    with connection:
        connection.execute(f"UPDATE lease SET {', '.join(f'{c} = :{c}' for c in columns)}", columns)
    connection.close()


class TestBusy:
    def test_a_second_driver_is_told_who_and_when(self, study: StudyStore) -> None:
        other = StudyStore(study.folder)
        with study.drive():
            with pytest.raises(StudyBusyError) as caught, other.drive():
                pass
            holder = other.driver()
        words = (
            "Study 'hh'",
            socket.gethostname(),
            f"pid {os.getpid()}",
            "last sign of life 0 s ago",
            "60 s",
            "same command",
        )
        assert all(word in str(caught.value) for word in words)
        assert holder is not None and holder.pid == os.getpid()
        with other.drive():
            assert study.driver() is not None
        assert study.driver() is None

    def test_one_object_is_driven_once(self, study: StudyStore) -> None:
        with study.drive():
            with pytest.raises(StudyBusyError), study.drive():
                pass
            study.add_event("still", {})

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
    def test_it_is_released_after_any_exception(self, study: StudyStore, error: type[BaseException]) -> None:
        with pytest.raises(error), study.drive():
            raise error
        with study.drive():
            pass

    def test_a_driver_in_another_process_keeps_this_one_out_and_lets_it_read(self, study: StudyStore) -> None:
        with driver_process(study) as process:
            with pytest.raises(StudyBusyError, match=f"pid {process.pid}"), study.drive():
                pass
            assert len(study.trials()) == 3

    def test_the_heartbeat_goes_on_while_the_driver_is_silent(
        self, study: StudyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
        with study.drive():
            change_lease(study, heartbeat=time.time() - 59)
            deadline = time.time() + 5
            while (holder := study.driver()) is None or holder.silence() > 1:
                assert time.time() < deadline, "no heartbeat was written"
                time.sleep(0.01)


class TestDead:
    def test_a_killed_driver_on_this_machine_is_dead_at_once(self, study: StudyStore) -> None:
        """Also before its parent has collected it: a zombie does not drive."""
        with driver_process(study) as process:
            process.send_signal(signal.SIGKILL)
            deadline = time.time() + 5
            while process_start(process.pid) is not None:
                assert time.time() < deadline, "a killed process counts as running"
                time.sleep(0.01)
            with study.drive():
                study.add_event("taken over", {})

    def test_a_process_id_that_was_given_out_again_is_not_the_driver(self, study: StudyStore) -> None:
        with driver_process(study):
            change_lease(study, process_start="1")
            with study.drive():
                pass

    def test_a_process_of_another_machine_cannot_be_looked_up(self, study: StudyStore) -> None:
        alive = {"held": 1, "pid": 999_999_999, "heartbeat": time.time() - 4, "process_start": "1"}
        change_lease(study, host="host-a", machine="x", **alive)
        with pytest.raises(StudyBusyError, match=r"host-a \(pid 999999999, last sign of life 4 s ago\)"), study.drive():
            pass
        change_lease(study, host=socket.gethostname(), machine="another container of the same name")
        with pytest.raises(StudyBusyError), study.drive():
            pass

    @pytest.mark.parametrize("age", [61.0, -61.0])
    def test_silence_ends_the_lease_of_another_machine_also_with_a_clock_ahead(
        self, study: StudyStore, age: float
    ) -> None:
        change_lease(study, held=1, host="host-a", machine="x", pid=1, heartbeat=time.time() - age)
        assert study.driver() is None
        with study.drive():
            pass

    def test_process_start(self) -> None:
        assert process_start(os.getpid()) == process_start(os.getpid()) != ""
        assert process_start(999_999_999) is None


class TestTakenOver:
    def test_the_former_drivers_writes_are_refused(
        self, study: StudyStore, measured: Callable[..., Measured], tmp_path: Path
    ) -> None:
        """The first driver sleeps for over a minute, the second takes over, the first wakes up and goes on."""
        successor = StudyStore(study.folder)
        with study.drive():
            publishing = study.publish(study.trial_folder(1))
            (publishing.__enter__() / "a").write_text("stale")
            change_lease(study, heartbeat=time.time() - 61)
            with successor.drive():
                for write in (
                    lambda: study.finish_trial(1, **measured()),
                    lambda: study.set_state(1, "failed", "stale"),
                    lambda: study.add_event("stale", {}),
                    lambda: study.save_checkpoint("sweep", 1, lambda folder: None),
                    lambda: publishing.__exit__(None, None, None),
                ):
                    with pytest.raises(StudyBusyError, match="was taken over by .*was not stored"):
                        write()
                successor.set_state(1, "training")
            assert not study.trial_folder(1).exists() and study.checkpoint("sweep") is None
        assert study.trial(1).state == "training" and study.events() == []

    def test_it_stays_refused_when_the_successor_is_gone_and_does_not_release_its_lease(
        self, study: StudyStore
    ) -> None:
        successor = StudyStore(study.folder)
        with study.drive():
            change_lease(study, heartbeat=time.time() - 61)
            with successor.drive():
                pass
            with pytest.raises(StudyBusyError):
                study.add_event("stale", {})
            third = successor.drive()
            third.__enter__()
        assert successor.driver() is not None
        third.__exit__(None, None, None)

    def test_a_driver_that_only_slept_goes_on(self, study: StudyStore) -> None:
        with study.drive():
            change_lease(study, heartbeat=time.time() - 500)
            study.add_event("awake", {})
        assert len(study.events()) == 1
