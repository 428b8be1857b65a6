"""What is seen of a sweep: a live table on a terminal, a line per run in a log, and a summary at the end."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from omegaconf import DictConfig
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fairsweep.look import plain_table
from fairsweep.metrics import Criteria
from fairsweep.runs import tracking
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.progress import print_line, print_rows, weights_file
from fairsweep.runs.status import Status
from fairsweep.sweeps.folder import ReportSummary, Row, SweepFolder
from fairsweep.sweeps.standing import Standing, read, spread
from fairsweep.wording import counted, described, duration, printable, size

# Between two looks at the folders of the runs in training.
POLL_SECONDS = 0.5
# The most runs to look at each time; more do not train at once.
LOOK_AT = 256

ENDINGS = {
    "finished": "finished",
    "failed": "failed; repeat the command to train what is missing",
    "interrupted": "interrupted; repeat the command to continue",
    "paused": "paused by trainer.stop_epoch; repeat the command without it to continue",
}

OPEN = ("waiting", "running", "paused", "interrupted")

MARKS = {
    "finished": "green", "running": "cyan", "failed": "red", "diverged": "magenta", "interrupted": "yellow",
    "paused": "blue", "pruned": "blue", "waiting": "dim",
}  # fmt: skip


class Board:
    """Follows the runs of a sweep through their folders, wherever they train; a context while they do.

    Args:
        status_of: how a run stands now, by its signature.
        given: what selects and what judges.
        command: what it trains says so in `trained_by`; all else is reused.
        confirm: confirm runs that will be planned.
    """

    def __init__(
        self,
        console: Console,
        folder: SweepFolder,
        status_of: Callable[[str], Status],
        given: Criteria,
        command: str,
        confirm: int = 0,
    ) -> None:
        self.console, self.folder, self.status_of, self.command = console, folder, status_of, command
        self.standing = Standing(given)
        self.more = 0  # runs that are still to be planned
        self.confirm = confirm
        self.launched: dict[str, Row] = {}  # and not ended, by signature
        self.since = 0.0  # when the launcher got them
        self.before: dict[str, int] = {}  # their steps when they were first seen in training
        self.done, self.end = 0.0, 0.0  # runs of this command, and when all will have ended, by the last news
        self.trained, self.seconds = 0, 0.0  # what this command has trained, and for how long
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop.set()
        self.thread.join()
        if self.live is not None:
            self.live.stop()

    def note(self, text: str) -> None:
        """A line that is to be read now."""
        print_line(self.console, text, "yellow")

    def plan(self, rows: list[Row], more: int) -> None:
        """Further runs; and how many are still to be planned."""
        with self.lock:
            self.standing.rows += rows
            self.more = more

    def launch(self, rows: list[Row]) -> None:
        """These runs are with the launcher now."""
        with self.lock:
            self.launched = {row.signature: row for row in rows}
            self.before = {}
            self.since = time.time()

    def returned(self) -> None:
        """No run is with the launcher any more."""
        with self.lock:
            self.seconds += time.time() - self.since
            self.launched = {}

    def settle(self, row: Row, status: Status) -> None:
        """A run has ended, or paused: print its line, on a terminal above the table."""
        with self.lock:
            known = self.standing.status(row.signature)
            self.launched.pop(row.signature, None)
            if known.ended == status.ended and known.name == status.name:
                return
            self.standing.statuses[row.signature] = status
            reused = status.trained_by != self.command
            if reused:
                self.standing.reused.add(row.signature)
            else:
                self.trained += 1
            print_line(self.console, self.line(row, status, reused))

    def line(self, row: Row, status: Status, reused: bool) -> str:
        """One run in a log."""
        counts = self.standing.counts()
        total = sum(counts.values()) + self.more
        done = total - self.more - counts["waiting"] - counts["running"] - counts["paused"]
        parts = [f"[{done:>{len(str(total))}}/{total}] {row.phase} {row.name}: {status.name}"]
        if status.objective is not None:
            parts.append(f"{self.standing.objective_key} {status.objective:.4f}")
        parts.append("reused" if reused else f"{status.seconds or 0:.1f} s")
        if status.name not in ("finished", "paused") and status.reason:
            parts.append(status.reason.partition("\n")[0])
        return "  ".join(parts)

    def reread(self) -> None:
        """Look once more at runs that were not seen to end."""
        for row in self.standing.rows:
            if self.standing.state(row.signature) in ("running", "waiting"):
                self.standing.statuses[row.signature] = self.status_of(row.signature)

    def watch(self) -> None:
        """Until the end: look at the runs in training, and show them."""
        while not self.stop.wait(POLL_SECONDS):
            self.look()
            if self.live is not None:
                self.live.update(self.table(), refresh=True)

    def look(self) -> None:
        """Read how far the runs in training are."""
        with self.lock:
            launched = list(self.launched.items())[:LOOK_AT]
        for signature, row in launched:
            status = self.status_of(signature)
            if (status.ended or 0) >= self.since:
                self.settle(row, status)
            elif status.name == "running":
                with self.lock:
                    if signature in self.launched:  # else it has ended meanwhile
                        self.standing.statuses[signature] = status
                        self.before.setdefault(signature, status.step)

    def left(self) -> int:
        """Runs that have not ended for good, with those that are still to be planned."""
        counts = self.standing.counts()
        return self.more + sum(counts[status] for status in OPEN)

    def seconds_left(self) -> float | None:
        """Until all runs have ended, by the pace so far, parts of runs counted in; None: not known yet."""
        left: float = self.left()
        done: float = self.trained
        for signature in self.launched:
            status = self.standing.status(signature)
            if status.name == "running" and status.steps is not None:
                left -= status.step / status.steps
                done += (status.step - self.before.get(signature, status.step)) / status.steps
        now = time.time()
        if done != self.done:
            seconds = self.seconds + (now - self.since if self.launched else 0)
            self.done, self.end = done, now + seconds / done * left
        return max(self.end - now, 0) if done else None

    def table(self) -> Group:
        """How far the sweep is, arm by arm, with the best trials so far and what trains now.

        Without test figures: until the end, nobody should choose by them.
        """
        with self.lock:
            left, seconds, counts = self.left(), self.seconds_left(), self.standing.counts()
            total = sum(counts.values()) + self.more
            running = [
                row.name for row in self.launched.values() if self.standing.state(row.signature) == "running"
            ]
            arms, phases = arm_table(self.standing, is_live=True), self.phases()
        head = Table.grid(padding=(0, 2, 0, 0), expand=True)
        head.add_column(ratio=1)
        time_left = "" if seconds is None else f"about {duration(seconds)} left"
        bar = ProgressBar(total=max(total, 1), completed=total - left)
        head.add_row(bar, f"{total - left}/{total} runs", phases, time_left)
        parts = [f"{len(self.standing.reused)} reused"] if self.standing.reused else []
        parts += [f"training {', '.join(running)}"] if running else []
        return Group(head, arms, Text(printable("; ".join(parts)), no_wrap=True, overflow="ellipsis"))

    def phases(self) -> str:
        """How far each phase is: `search 9/14, confirm 0/20`."""
        ended, planned = Counter[str](), Counter[str]()
        for row in self.standing.unique():
            planned[row.phase] += 1
            ended[row.phase] += self.standing.state(row.signature) not in OPEN
        confirm = max(self.confirm, planned["confirm"])
        search = planned["search"] + max(0, self.more - (confirm - planned["confirm"]))
        text = f"search {ended['search']}/{search}"
        return f"{text}, confirm {ended['confirm']}/{confirm}" if confirm else text

    def summary(
        self,
        ending: str,
        cfg: DictConfig,
        report: ReportSummary | None,
        champion: RunFolder | None,
    ) -> None:
        """What came out, what failed and why, what to mind, and where everything is.

        Args:
            champion: the run to use.
        """
        standing, console = self.standing, self.console
        counts = standing.counts()
        console.print()
        console.print(arm_table(standing))
        if counts["failed"]:
            console.print()
            console.print(failures(standing))
        if report and (report.verdict or report.remarks):
            console.print()
        if report and report.verdict:
            console.print(printable(report.verdict), style="bold", highlight=False, markup=False)
        for remark in report.remarks if report else ():
            self.note(f"! {remark}")
        reused = f"; {len(standing.reused)} reused" if standing.reused else ""
        rows = [
            ("status", explained(ending, counts)),
            ("runs", by_status(counts).plain + reused),
            ("files", str(self.folder.path)),
        ]
        if report:
            rows.append(("report", report.where))
        if champion is not None:
            rows.append(("champion", f"{champion.signature}: {weights_file(champion)}"))
        if cfg.tracking.uri is not None:
            rows += tracking.summary(cfg, champion)
        console.print()
        print_rows(console, rows)

    def listing(
        self, rows: list[Row], missing: set[str], more: int, seconds: float, sizes: tuple[float, float]
    ) -> None:
        """The runs that a sweep would have.

        Args:
            sizes: bytes of weights while it runs, and after its end.
        """
        for row in rows:
            state = "to train" if row.signature in missing else "exists"
            print_line(self.console, f"{row.signature}  {state:<8}  {row.name}")
        text = f"\n{counted(len(rows), 'run')}, {len(missing)} to train"
        if more:
            text += f"; then up to {more} more, chosen by what these give"
        text += f"; about {duration(seconds)} of training, {size(sizes[0])} of weights"
        if sizes[1] < sizes[0]:
            text += f", of which {size(sizes[1])} stay"
        print_line(self.console, text)


def explained(state: str, counts: Counter[str]) -> str:
    """A sweep's status, and how to continue it."""
    return ENDINGS.get("paused" if state == "finished" and counts["paused"] else state, state)


def show(console: Console, folder: SweepFolder) -> None:
    """How far a sweep is, and whether its process is alive."""
    sweep = folder.read()
    state = sweep["status"]
    if state == "running" and not folder.is_held(sweep["id"]):
        state = "its process died; repeat the command to continue"
    elif state == "running":
        state = f"in progress for {duration(time.time() - sweep['resumed'])}"
    counts = read(folder).counts()
    rows = {"sweep": f"{sweep['id']}, {sweep['name']}", "status": explained(state, counts)}
    rows |= {"runs": by_status(counts).plain, "files": str(folder.path)}
    print_rows(console, rows.items())
    console.print()


def show_arms(console: Console, folder: SweepFolder) -> None:
    """The arms of a sweep, and what failed."""
    standing = read(folder)
    console.print(arm_table(standing))
    console.print()
    if standing.counts()["failed"]:
        console.print(failures(standing))
        console.print()


def arm_table(standing: Standing, is_live: bool = False) -> Table:
    """A line for each arm: its best trial, how that is judged on fresh seeds, its runs by status."""
    arms = standing.arms()
    confirmed = any(arm.confirmed for arm in arms) and not is_live
    table = plain_table("arm", "best trial", standing.objective_key)
    for column in table.columns[1:]:
        column.no_wrap = True  # the values of a trial stand below each other
    table.columns[2].justify = "right"
    if confirmed:
        other = "" if standing.tested == standing.metric else f" {standing.tested.words}"
        table.add_column(f"test{other}, fresh seeds", justify="right")
    present = {status for arm in arms for status in arm.statuses}
    always = ("finished", "running", "waiting") if is_live else ("finished",)
    shown = [status for status in MARKS if status in present or status in always]
    for status in shown:
        table.add_column(status, justify="right", style=MARKS[status])
    for arm in arms:
        best = arm.best.values if arm.best is not None else {}
        values = "\n".join(described({key: value}) for key, value in best.items())
        cells = [arm.name or "all", values, spread(standing.metric, [arm.objective])]
        if confirmed:
            name = standing.tested.name
            cells.append(spread(standing.tested, (status.test.get(name) for status in arm.confirmed)))
        # Not as markup, which would eat [d].
        table.add_row(*(Text(printable(cell)) for cell in cells), *(f"{arm.statuses[s]}" for s in shown))
    return table


def by_status(counts: Counter[str]) -> Text:
    """`5 finished, 1 failed`, in colours."""
    in_order = sorted(counts.items(), key=lambda pair: list(MARKS).index(pair[0]))
    return Text(", ").join(Text(f"{count} {status}", style=MARKS[status]) for status, count in in_order)


def failures(standing: Standing) -> Table:
    """What failed, and why."""
    table = plain_table("failed", "why", "run", header="bold red")
    table.columns[2].no_wrap = True  # it is to be copied
    names = {row.signature: row.name for row in standing.rows}
    for signature, name in names.items():
        status = standing.status(signature)
        if status.name == "failed":
            reason = status.reason.partition("\n")[0]
            table.add_row(Text(printable(name)), Text(printable(reason)), signature)
    table.caption = "with its traceback: runs/<run>/run.log"
    table.caption_justify = "left"
    return table
