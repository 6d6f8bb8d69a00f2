"""The W&B dashboard in code. `python launch/dashboard.py --help` explains its settings.

Saved again, it replaces the view that it made before.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig

from igo.config.cli import hydra_program
from igo.config.load import split_off
from igo.errors import ConfigError, UserError
from igo.files import write_atomically
from igo.paths import CONF

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

NAME = "Implicit graduated optimization"
VIEW = "igodashboard"  # in the address of the view

# Panels by section: title, x, y (several share a panel), logarithmic y; by a record's own names.
LINES: dict[str, list[tuple[str, str, list[str], bool]]] = {
    "Accuracy and loss": [
        ("Test accuracy by epoch", "epoch", ["test/accuracy"], False),
        ("Test accuracy by updates", "updates", ["test/accuracy"], False),
        ("Training loss by epoch", "epoch", ["train/loss"], True),
        ("Training loss by updates", "updates", ["train/loss"], True),
    ],
    "Noise": [
        ("δ_m as planned and as measured", "epoch", ["delta_m", "delta_measured"], True),
        ("δ_measured", "epoch", ["delta_measured"], True),
        ("Learning rate η_m", "epoch", ["eta_m"], True),
        ("Batch size b_m", "epoch", ["b_m"], True),
        ("Gradient variance C²", "epoch", ["gradient_variance"], True),
        ("Noise scale C²/‖∇f‖²", "epoch", ["noise_scale"], True),
    ],
}
ACCURACY = "test/accuracy.last"  # of a run's summary; beside it is .max
# What tells settings apart; runs that agree in these, as those of several seeds do, are one line.
GROUPED = (
    "dataset.name", "model.name", "schedule.profile", "schedule.p", "schedule.kappa",
    "schedule.lam", "split", "learning_rate", "batch_size",
)  # fmt: skip
AXES = ("schedule.p", "split")


@dataclass
class Settings:
    """What launch/dashboard.py can be told (conf/dashboard.yaml)."""

    project: str | None = None
    entity: str | None = None
    output: str | None = None


def default_project() -> str:
    """That of runs, unless a run was told another one."""
    return str(yaml.safe_load((CONF / "tracking" / "wandb.yaml").read_text())["project"])


def dashboard(project: str, entity: str) -> Workspace:
    """The dashboard's definition, the same to the letter each time."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    sections = {
        name: [
            wr.LinePlot(
                title=title, x=x, y=list(y), title_x=x, log_y=log_y,
                groupby_aggfunc="mean", groupby_rangefunc="stddev", max_runs_to_show=100,
            )
            for title, x, y, log_y in panels
        ]
        for name, panels in LINES.items()
    }  # fmt: skip
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name)) for name in AXES]
    columns.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(ACCURACY)))
    accuracy = wr.SummaryMetric(ACCURACY)
    delta = wr.SummaryMetric("delta_measured")
    sections["Settings"] = [
        wr.ParallelCoordinatesPlot(title="p, split and final test accuracy", columns=columns),
        wr.ScatterPlot(title="Final accuracy by δ_measured", x=delta, y=accuracy, log_x=True),
    ]
    made = ws.Workspace(
        name=NAME, project=project, entity=entity,
        sections=[ws.Section(name=name, panels=panels, is_open=True)
                  for name, panels in sections.items()],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(name) for name in GROUPED],
            pinned_columns=["run:displayName", f"summary:{ACCURACY}"],
        ),
    )  # fmt: skip
    for section in made.sections:  # the library draws them at random
        for place, panel in enumerate(section.panels):
            panel._id = _id(f"{section.name}/{place}")
    made._internal_runset_id = _id("runs")
    made._internal_name = f"nw-{VIEW}-v"  # the form that W&B gives to all names of views
    return made


def _id(of: str) -> str:
    """Twelve characters, as W&B's own ids have."""
    return hashlib.sha256(of.encode()).hexdigest()[:12]


def definition(made: Workspace) -> dict[str, Any]:
    """The dashboard as W&B stores it."""
    view = made._to_model()
    return {
        "displayName": view.display_name,
        "project": view.project,
        "spec": view.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def save(made: Workspace) -> str:
    """Save the dashboard in W&B, in place of the one made before; return its address.

    Raises:
        UserError: no key, no project yet, or no server that answers.
    """
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    with contextlib.redirect_stderr(io.StringIO()):
        known = wandb.login(prompt=False, verify=False)
    if not known:
        raise UserError(
            "no W&B key is known here; run `wandb login` or set WANDB_API_KEY, or write the"
            " dashboard to a file with output=dashboard.json"
        )
    try:
        made.entity = made.entity or str(wandb.Api().default_entity or "")
        made._internal_id = _saved_before(made)
        made.save()
        return str(made.url)
    except Exception as error:  # W&B's transports raise of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"W&B did not take the dashboard ({reason})") from None


def _saved_before(made: Workspace) -> str:
    """The id of the view in W&B that this one replaces, empty where there is none.

    Raises:
        ValueError: there is no such project.
    """
    from wandb_workspaces.workspaces import internal

    try:
        return str(internal.get_view_dict(made.entity, made.project, VIEW)["id"])
    except ValueError as error:
        if VIEW in str(error):
            return ""
        raise


def program(composed: DictConfig, _typed: list[str]) -> None:
    """Write the dashboard or save it."""
    settings, _ = split_off(composed, Settings)
    output = Path(settings.output) if settings.output else None
    if output and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise ConfigError("output", output, "it must be a file in a folder that is there")
    try:
        made = dashboard(settings.project or default_project(), settings.entity or "")
    except ImportError as error:
        raise UserError(f"{error}: pip install -e '.[dashboard]' brings it") from None
    if output is None:
        print(f"saved {save(made)}")
        return
    text = json.dumps(definition(made), indent=2, ensure_ascii=False, sort_keys=True)
    write_atomically(output, text + "\n")
    print(f"wrote {output}")


if __name__ == "__main__":
    hydra_program(program, CONF / "dashboard.yaml")
