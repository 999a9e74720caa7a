"""How the demo is told: as a story on the terminal, or as JSON. Data alone on stdout."""

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from omen_server.demo.acts import Shown
from omen_server.demo.keep import Kept
from omen_server.demo.programme import Act
from omen_server.demo.stage import Stage
from serving.console import Output

PIPED_COLUMNS = 120


class Screen(Protocol):
    """Hears of everything as it happens."""

    def opened(self, stage: Stage) -> None: ...

    def playing(self, number: int, act: Act) -> AbstractContextManager[object]: ...

    def shown(self, number: int, act: Act, shown: Shown, duration_s: float) -> None: ...

    def failed(self, reason: str) -> None: ...

    def passed(self, duration_s: float, kept: Kept | None) -> None: ...


def screen_of(output: Output) -> Screen:
    return Story() if output is Output.TABLE else Document(output)


class Story:
    """For people."""

    def __init__(self) -> None:
        self._console = Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS, highlight=False)

    def opened(self, stage: Stage) -> None:
        self._print(0, Text("OMEN + RiskCast: a signal is never lost, and stored exactly once", "bold"))
        self._print(
            0,
            "OMEN turns observations into probability signals and writes each into its ledger, a file on disk. "
            "RiskCast stores what the ledger holds, in a database of its own. Both run now, as real processes:",
        )
        self._print(3, f"OMEN on {stage.omen.target}, RiskCast on {stage.riskcast.target}, all in {stage.directory}")

    def playing(self, number: int, act: Act) -> AbstractContextManager[object]:
        self._console.print()
        self._print(0, Text(f"{number}  {act.title}", "bold"))
        self._print(3, Text(f"Promised: {act.promise}", "italic"))
        return self._console.status("...")

    def shown(self, number: int, act: Act, shown: Shown, duration_s: float) -> None:
        for each in shown.findings:
            self._print(3, Text.assemble(("✓ ", "green"), each.sentence))
            for detail in each.details:
                self._print(7, Text(detail, "dim"))

    def failed(self, reason: str) -> None:
        self._print(3, Text("✗ not shown", "red"))  # the reason is on stderr, beside what the servers said

    def passed(self, duration_s: float, kept: Kept | None) -> None:
        self._console.print()
        self._print(0, Text(f"✓ Every promise held, in {duration_s:.1f} s", "bold green"))
        if kept:
            self._offer(kept)

    def _offer(self, kept: Kept) -> None:
        self._console.print()
        self._print(0, Text("Both servers stay up. Ask them something:", "bold"))
        self._print(3, f"OMEN on {kept.omen_target}, RiskCast on {kept.riskcast_target}, all in {kept.directory}")
        for thing in kept.things_to_try:
            self._console.print()
            self._print(0, Text(f"# {thing.about}", "green"))
            for command in (thing.grpcurl, thing.buf):
                self._console.print(Text(command), soft_wrap=True)  # in one piece: it is there to be copied
        self._console.print()
        self._print(0, Text("Ctrl-C stops both servers and removes the directory.", "bold"))

    def _print(self, indent: int, text: str | Text) -> None:
        self._console.print(Padding(Text(text) if isinstance(text, str) else text, (0, 0, 0, indent), expand=False))


class Document:
    """For machines: one object at the end, or a line per act as soon as it is over and one at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._acts: list[dict[str, object]] = []

    def opened(self, stage: Stage) -> None:
        pass

    def playing(self, number: int, act: Act) -> AbstractContextManager[object]:
        return nullcontext()

    def shown(self, number: int, act: Act, shown: Shown, duration_s: float) -> None:
        about = {"act": number, "title": act.title, "promise": act.promise, "duration_s": round(duration_s, 3)}
        self._acts.append({**about, "facts": shown.facts})
        if self._output is Output.JSONL:
            self._write(self._acts.pop(), None)

    def failed(self, reason: str) -> None:
        self._end({"passed": False, "failure": reason})

    def passed(self, duration_s: float, kept: Kept | None) -> None:
        whole: dict[str, object] = {"passed": True, "duration_s": round(duration_s, 3)}
        self._end(whole | ({"kept": kept.facts} if kept else {}))

    def _end(self, whole: dict[str, object]) -> None:
        if self._output is Output.JSONL:
            self._write(whole, None)
        else:
            self._write(whole | {"acts": self._acts}, 2)

    def _write(self, value: object, indent: int | None) -> None:
        sys.stdout.write(json.dumps(value, indent=indent) + "\n")
        sys.stdout.flush()  # whoever reads a pipe sees it now, not when a kept demo ends
