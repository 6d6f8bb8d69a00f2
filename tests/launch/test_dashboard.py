"""The W&B dashboard in code: it names what runs log, and is one view however often it is saved."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from conftest import TINY
from forked import forge
from wandb_server import KEY, WandbServer, entries

dashboard = partial(forge.run, command="dashboard")


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted paths of all that nested values hold."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def saved() -> dict[str, Any]:
    """What a dashboard that is saved twice has, the second time of a sweep on digits alone."""
    with WandbServer() as server:
        online: Any = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        for words in ((), ("group=methods-1a2b3c4d", "tag=digits")):
            process = dashboard(*words, **online).good()
            assert process.stderr == ""
            assert process.stdout == f"saved {server.url}/team/igo?nw=igodashboard\n"
        line = dashboard("project=other", **online).error()
        assert "Project `team/other` not found" in line
        (view,) = server.views.values()
    names_of_view = [view[key] for key in ("entityName", "projectName", "name")]
    assert names_of_view == ["team", "igo", "nw-igodashboard-v"]
    return dict(json.loads(view["spec"]))


def test_all_names_are_those_that_a_run_logs(tmp_path: Path) -> None:
    spec = saved()
    forge.run(*TINY, "epochs=1").good()
    (folder,) = (tmp_path / "runs" / "wandb").glob("offline-run-*")
    row, summary, config = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    tags: list[str] = []
    for kind, entry in entries(folder):
        if kind == "history":
            row |= entry["item"]
        elif kind == "summary":
            summary |= entry["update"]
        elif kind == "run":  # A server keeps each setting under .value.
            tags = entry["tags"]
            config |= {key: {"value": value} for key, value in entry["config"]["update"].items()}
    logged = {f"summary:{name}" for name in flat(summary)} | {f"config:{n}" for n in flat(config)}

    panel_names: set[str] = set()
    sections = spec["section"]["panelBankConfig"]["sections"]
    for panel in (panel for section in sections for panel in section["panels"]):
        panel_config = panel["config"]
        if panel["viewType"] == "Run History Line Plot":
            names = {*panel_config["metrics"], panel_config["xAxis"]}
            # A short run has no noise scale, and one without a GPU no memory of it.
            names_of_others = {"noise_scale", "noise_scale_low", "max_memory_reserved"}
            names_of_others |= {"gradient_norm", "gradient_norm_high"}
            assert names <= row.keys() | names_of_others
            panel_names |= names
            continue
        columns = [column["accessor"] for column in panel_config.get("columns", [])]
        accessors = set(columns or [panel_config["xAxis"], panel_config["yAxis"]])
        assert accessors <= logged
        panel_names |= accessors
    assert panel_names >= {
        "epoch",
        "updates",
        "test/accuracy",
        "test/loss",
        "train/loss",
        "train/accuracy",
        "images_per_second",
        "max_memory_reserved",
        "gradient_variance",
        "delta_m",
        "eta_m",
        "b_m",
        "delta_measured",
        "config:p.value",
        "config:split.value",
        "summary:test/accuracy.last",
    }
    (runs,) = spec["section"]["runSets"]
    filters = [(x["key"]["name"], x["value"]) for x in runs["filters"]["filters"]]
    assert filters == [("group", "methods-1a2b3c4d"), ("tags", ["digits"])]
    assert "digits" in tags
    grouped = {f"{key['section']}:{key['name']}" for key in runs["grouping"]}
    assert grouped == {"config:setting_name.value"} <= logged
    name = config["setting_name"]["value"]
    assert name.isascii()
    assert name.startswith("graduated, p = 0.5, split 0.5, 1 epoch, eta_1 0.1, b_1 32, digits, ")
    assert ", 96 images, " in name
    assert ", SGD (" in name


def test_a_name_that_no_filter_takes_is_refused() -> None:
    assert "group=it's is not allowed" in dashboard('group="it\'s"').error()


def test_without_a_key_it_says_how_to_log_in() -> None:
    line = dashboard().error()
    assert "no valid W&B key is known here; run `wandb login`" in line
