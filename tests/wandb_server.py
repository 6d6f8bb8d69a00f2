"""As much of a W&B server as a run of scalars needs, on 127.0.0.1, for the real client to talk to.

It keeps what the client sends: each run's rows by their line number, its summary, config and exit
code, and it tells a client that resumes a run which rows it has. Dashboards, which are views, it
keeps by their ids.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from igo.ground.files import Record

Entries = list[tuple[str, Record]]
KEY = "0123456789abcdef" * 2 + "01234567"  # in two parts: a run keeps the changes of this file
NOWHERE = "http://127.0.0.1:9"  # nothing listens there
TRANSMIT_INTERVAL = "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL"  # seconds between two uploads
VIEWER = {"viewer": {"id": "1", "entity": "team", "username": "somebody"}}
ALIKE: dict[str, Record] = {  # What is answered whoever asks.
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
    "OrganizationCoreWeaveOrganizationID": {"entity": None},
    "GetDefaultEntity": VIEWER,
    "Viewer": VIEWER,
}


@dataclass
class OnlineRun:
    """What the server has of one run; history is by line number, as the client counts them."""

    history: dict[int, Record] = field(default_factory=dict)
    received: list[int] = field(default_factory=list)  # epochs, in the order of their arrival
    events: list[str] = field(default_factory=list)  # what W&B measures of the machine
    output: list[str] = field(default_factory=list)  # lines of the tab of logs
    settings: Record = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def rows(self) -> list[Record]:
        """The history as the web page would show it."""
        return [self.history[line] for line in sorted(self.history)]


class WandbServer:
    """Answers in threads of this process while used as a context manager."""

    def __init__(self) -> None:
        self.runs: dict[str, OnlineRun] = {}
        self.views: dict[str, Record] = {}  # what UpsertView2 said, by the view's id
        self.rows_wanted = 0
        self.enough_rows = threading.Event()  # set once any run has rows_wanted rows
        self.trouble = ""  # "hang", "cut" (no answer), "nonsense", "drip", "401", …
        self.reports: list[str] = []  # W&B's reports about itself
        self.troubled = 0  # requests that this befell
        self.well_again = threading.Event()  # lets go of what hangs
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if not self._in_trouble():
                    self._reply(server.answer(urlsplit(self.path).path, body))

            do_PUT = do_POST

            def _in_trouble(self) -> bool:
                """Whether the request was left without the answer that it wants."""
                trouble = server.trouble
                server.troubled += bool(trouble)
                if trouble == "hang":
                    server.well_again.wait(300)
                elif trouble == "drip":
                    self._drip()
                elif trouble.isdigit():
                    self._reply({"errors": [{"message": "not now"}]}, status=int(trouble))
                elif trouble == "nonsense":  # A proxy or a broken server may say this.
                    self._reply({"data": None})
                self.close_connection = bool(trouble)
                return bool(trouble)

            def _drip(self) -> None:
                """Answer for ever, a byte a second, so that no read times out."""
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):
                    while not server.well_again.wait(1):
                        self.wfile.write(b" ")

            def _reply(self, answer: Record, status: int = 200) -> None:
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that was killed amid a request is no error of the server's."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """What WANDB_BASE_URL must be."""
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def online(self) -> Record:
        """The environment of a run that is tracked here."""
        return {TRANSMIT_INTERVAL: "1", "WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.well_again.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, path: str, body: bytes) -> Record:
        """Answer one request: a query of GraphQL by the method of its name."""
        if path.endswith("/file_stream"):
            self._take_rows(path.split("/")[-2], json.loads(body))
        elif path not in ("/graphql", "/upload"):
            self.reports.append(path)
        if path != "/graphql":
            return {}
        question = json.loads(body)
        operation = re.findall(r"(?:query|mutation) (\w+)", question["query"])[0]
        if operation in ALIKE:
            return {"data": ALIKE[operation]}
        answer = getattr(self, operation, None)
        if answer is None:
            return {"errors": [{"message": f"{operation} is unknown here"}]}
        return {"data": answer(question["variables"])}

    def _take_rows(self, name: str, body: Record) -> None:
        run = self.runs.setdefault(name, OnlineRun())
        for file, content in (body.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                for number, line in enumerate(content["content"]):
                    row = json.loads(line)
                    run.history[content["offset"] + number] = row
                    run.received += [row["epoch"]] if "epoch" in row else []
            elif file == "wandb-events.jsonl":
                run.events += content["content"]
            elif file == "output.log":
                run.output += content["content"]
        if body.get("complete"):
            run.exit_code = body.get("exitcode")
        if self.rows_wanted and len(run.history) >= self.rows_wanted:
            self.enough_rows.set()

    def RunResumeStatus(self, variables: Record) -> Record:
        return {"model": {"id": "p", "name": "igo", "bucket": self._bucket(variables["name"])}}

    def Run(self, variables: Record) -> Record:
        return {"project": {"run": self._bucket(variables["name"])}}

    def RunHistoryKeys(self, variables: Record) -> Record:
        steps = [row["_step"] for row in self.runs[variables["name"]].rows]
        last_step = max(steps, default=-1)
        return {"project": {"run": {"historyKeys": {"lastStep": last_step}}}}

    def UpsertBucket(self, variables: Record) -> Record:
        name = variables.get("name") or variables["id"]
        inserted = name not in self.runs
        settings = self.runs.setdefault(name, OnlineRun()).settings
        settings.update({key: value for key, value in variables.items() if value is not None})
        return {"upsertBucket": {"bucket": self._bucket(name), "inserted": inserted}}

    def _bucket(self, name: str) -> Record | None:
        """All that any question asks of a run; None where there is none."""
        run = self.runs.get(name)
        if run is None:
            return None
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "project": {"id": "p", "name": "igo", "entity": {"id": "e", "name": "team"}},
            "state": "running" if run.exit_code is None else "finished",
            "config": run.settings.get("config") or "{}",
            "tags": run.settings.get("tags") or [],
            "group": run.settings.get("groupName"),
            "jobType": run.settings.get("jobType"),
            "summaryMetrics": "{}",
            "wandbConfig": '{"t": 1}',
            "historyLineCount": len(run.history),
            "historyTail": json.dumps([json.dumps(row) for row in run.rows[-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
        }

    def CreateRunFiles(self, variables: Record) -> Record:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def View(self, variables: Record) -> Record:
        views = [view for view in self.views.values() if view["name"] == variables["viewName"]]
        project = {"allViews": {"edges": [{"node": view} for view in views]}}
        return {"project": project if variables["name"] == "igo" else None}

    def UpsertView2(self, variables: Record) -> Record:
        """W&B finds the view to replace by its id; without one it makes another."""
        name = variables.get("id") or f"view{len(self.views)}"
        self.views[name] = {**variables, "id": name}
        return {"upsertView": {"view": {"id": name, "name": variables["name"]}, "inserted": True}}


def assert_rows(rows: list[Record], expected: list[Record]) -> None:
    """W&B's rows are the records of the epochs, each once and in order."""
    assert [row["epoch"] for row in rows] == list(range(1, len(expected) + 1))
    for row, record in zip(rows, expected, strict=True):
        assert {key: row.get(key) for key in record} == record


@cache
def entries(folder: Path) -> Entries:
    """Type and content of each entry in a closed local run folder, as wandb itself reads it."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    inspected = subprocess.run(command, capture_output=True, text=True, check=False)
    entry_list = []
    for line in inspected.stdout.splitlines():
        with contextlib.suppress(ValueError, LookupError):  # the torn end of a killed run
            entry = json.loads(line)
            entry_list.append((entry["type"], entry[entry["type"]]))
    return entry_list


def history(folder: Path) -> list[Record]:
    """The rows in a local W&B run folder."""
    return [entry["item"] for kind, entry in entries(folder) if kind == "history"]


def exit_codes(folder: Path) -> list[int]:
    """The exit codes in a local W&B run folder: one of a run that was closed, else none."""
    return [entry.get("exit_code", 0) for kind, entry in entries(folder) if kind == "exit"]
