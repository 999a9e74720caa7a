"""Writes down what a program does to its files, and lets it die in between, as by kill -9."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

from tests.power.operations import Attempt, Created, Image, Operation, Recording, Unlinked


class Recorder:
    """Of the files below `root`, where `start` lies already. Whoever does the operations notes each once it is done."""

    def __init__(self, root: Path, start: Image | None = None) -> None:
        self.recording = Recording(start or Image())
        self._root = root
        self._below: dict[str, Path] = {}
        self._numbers = {Path(name): number for number, name in enumerate(sorted(self.recording.start.files))}
        self.next_number = len(self._numbers)
        self._is_over: Callable[[list[Operation]], bool] = lambda done: False
        self._changed = Condition()

    def die_once(self, is_over: Callable[[list[Operation]], bool]) -> None:
        """No operation is done any more while `is_over` holds of those that are written down."""
        self._is_over = is_over

    def die(self) -> None:
        self.die_once(lambda done: True)

    def live_on(self) -> None:
        self.die_once(lambda done: False)

    def note(self, operation: Operation) -> None:
        with self._changed:
            if isinstance(operation, Attempt) and self._is_dead():
                return  # what a dead process is given is never there; how much it takes before it says so is a race
            self.recording.operations.append(operation)
            self._changed.notify_all()

    def note_created(self, path: Path) -> int:
        """The number of the new file: it stays when the name changes."""
        number = self._numbers[self.below(path)] = self.next_number
        self.next_number += 1
        self.note(Created(self.below(path), number))
        return number

    def note_unlinked(self, path: Path) -> None:
        del self._numbers[self.below(path)]
        self.note(Unlinked(self.below(path)))

    def number_of(self, path: Path) -> int:
        return self._numbers[self.below(path)]

    def below(self, path: Path) -> Path:
        name = str(path)
        if name not in self._below:
            self._below[name] = path.relative_to(self._root)
        return self._below[name]

    @contextmanager
    def doing(self) -> Iterator[None]:
        """One operation at a time, and none of a dead process."""
        with self._changed:
            if self._is_dead():
                raise OSError(errno.EIO, "the process is dead")
            yield

    def _is_dead(self) -> bool:
        return self._is_over(self.recording.operations)
