"""The W&B dashboard in code. `igo dashboard --help` explains its settings.

A new dashboard replaces the view that this program saved before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from igo.config.load import split_off
from igo.ground.errors import UserError, first_line, install, require
from igo.ground.files import CONF
from igo.runs.loggers.wandb import knows_key

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

NAME = "Implicit graduated optimization"
VIEW = "igodashboard"  # The address of the view has it.

# Each section has panels: title, x, y (one or more), whether y is logarithmic.
LINES: dict[str, list[tuple[str, str, list[str], bool]]] = {
    "Accuracy and loss": [
        ("Test accuracy by epoch", "epoch", ["test/accuracy"], False),
        ("Test accuracy by updates", "updates", ["test/accuracy"], False),
        ("Training loss by epoch", "epoch", ["train/loss"], True),
        ("Training loss by updates", "updates", ["train/loss"], True),
        ("Test loss by epoch", "epoch", ["test/loss"], True),
        ("Training accuracy by epoch", "epoch", ["train/accuracy"], False),
    ],
    "Noise": [
        (
            "δ_m planned, and δ measured",
            "epoch",
            ["delta_m", "delta_measured"],
            True,
        ),
        ("Gradient variance C²", "epoch", ["gradient_variance"], True),
        ("Learning rate η_m", "epoch", ["eta_m"], True),
        ("Batch size b_m", "epoch", ["b_m"], True),
        ("‖∇f‖, upper bound and value", "epoch", ["gradient_norm_high", "gradient_norm"], True),
        ("Noise scale C²/‖∇f‖², lower bound", "epoch", ["noise_scale", "noise_scale_low"], True),
    ],
    "Speed": [
        ("Images a second", "epoch", ["images_per_second"], False),
        ("Memory of the GPU, bytes", "epoch", ["max_memory_reserved"], False),
    ],
}
ACCURACY = "test/accuracy.last"  # A run's summary also has .max.
# Runs that differ in the seed alone are one line, which has this name.
GROUPED = "setting_name"
AXES = ("p", "split")


@dataclass
class Settings:
    """The settings of launch/dashboard.py (conf/dashboard.yaml)."""

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tag: str | None = None


def dashboard(settings: Settings) -> Workspace:
    """The dashboard."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    sections: dict[str, list[Any]] = {
        name: [
            wr.LinePlot(
                title=title,
                x=x,
                y=list(y),
                title_x=x,
                log_y=log_y,
                groupby_aggfunc="mean",
                groupby_rangefunc="stddev",
                max_runs_to_show=100,
            )
            for title, x, y, log_y in panels
        ]
        for name, panels in LINES.items()
    }
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name)) for name in AXES]
    columns.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(ACCURACY)))
    accuracy = wr.SummaryMetric(ACCURACY)
    # An epoch of one batch has no measured δ.
    delta = wr.SummaryMetric("delta_m")
    sections["Settings"] = [
        wr.ParallelCoordinatesPlot(title="p, split and final test accuracy", columns=columns),
        wr.ScatterPlot(title="Final accuracy by δ_m", x=delta, y=accuracy),
    ]
    filters = []
    if settings.group:
        filters.append(ws.Metric("Group") == settings.group)
    if settings.tag:
        filters.append(ws.Tags().isin([settings.tag]))
    return ws.Workspace(
        name=NAME,
        project=settings.project or "",
        entity=settings.entity or "",
        sections=[
            ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=filters,
            groupby=[ws.Config(GROUPED)],
            pinned_columns=["run:displayName", f"summary:{ACCURACY}"],
        ),
    )


def save(workspace: Workspace) -> str:
    """Save the dashboard in W&B, in place of an older one; return its address.

    Raises:
        UserError: there is no key, no project, or no answer from the server.
    """
    import wandb
    from wandb_workspaces.workspaces.internal import get_view_dict

    if not knows_key():
        raise UserError(
            "no valid W&B key is known here; run `wandb login` or set WANDB_API_KEY, then start"
            " this again. `igo report` needs no account"
        )
    try:
        workspace.entity = workspace.entity or str(wandb.Api().default_entity or "")
        # The library has no other way to save a view under the same name again.
        workspace._internal_name = f"nw-{VIEW}-v"  # W&B gives this form to all views.
        try:
            saved_before = get_view_dict(workspace.entity, workspace.project, VIEW)
            workspace._internal_id = str(saved_before["id"])
        except ValueError as error:
            if VIEW not in str(error):  # The project does not exist.
                raise
        workspace.save()
        return str(workspace.url)
    except Exception as error:  # W&B raises errors of many types.
        raise UserError(f"W&B did not take the dashboard ({first_line(error)})") from None


def run(composed: DictConfig) -> None:
    """Save the dashboard."""
    settings, _ = split_off(composed, Settings)
    for name in ("group", "tag"):
        value = getattr(settings, name)
        require(not {*"'\\"} & {*(value or "")}, name, value, "W&B filters by no such name")
    # Runs have the project of this file by default; it reads WANDB_PROJECT.
    settings.project = settings.project or OmegaConf.load(CONF / "tracking" / "wandb.yaml").project
    try:
        workspace = dashboard(settings)
    except ImportError as error:
        raise UserError(f"{error}: {install('dashboard')} brings it") from None
    print(f"saved {save(workspace)}")
