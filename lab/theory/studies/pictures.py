"""Study: the pictures that explain graduated optimization, and an animation of it."""

import numpy as np
import polars as pl
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

from lab.theory import smoothed
from lab.theory.explicit import optimal_levels
from lab.theory.functions import Array, get_function
from lab.theory.kernels import Kernel
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from lab.theory.studies import style

START, FIRST, STAGES, STEPS = 4.3, 0.75, 12, 10
SPEED = 0.1  # share of a full Newton step, so that the path can be seen
FUNCTION = smoothed.rastrigin(Kernel("gaussian"), 1)
PICTURE = "graduated_path.png"
LEVELS = np.append(optimal_levels(FIRST, STAGES, 0.5), 0.0)


def graduated_path(levels: Array) -> list[tuple[float, Array]]:
    """Return (δ_m, points of stage m) of gradient descent on Gaussian-smoothed Rastrigin."""
    x, path = np.array([START]), []
    for level in levels:
        points = [x[0]]
        for _ in range(STEPS):
            curvature = 2 + 40 * np.pi**2 * np.exp(-2 * np.pi**2 * level**2)
            x = x - SPEED * FUNCTION.gradient(x[None], level)[0] / curvature
            points.append(x[0])
        path.append((float(level), np.array(points)))
    return path


def measure(_settings: Settings) -> dict[str, pl.DataFrame]:
    """Descend with falling noise, and without noise."""
    ways = {"graduated": LEVELS, "plain": 0 * LEVELS}
    value = get_function("rastrigin").value
    records = [
        {"way": way, "stage": m, "delta": level, "x": float(x), "f": float(value(np.array([x])))}
        for way, levels in ways.items()
        for m, (level, points) in enumerate(graduated_path(levels), 1)
        for x in points
    ]
    return {"graduated_path": frame(records)}


def _end(frames: Frames, way: str) -> dict[str, float]:
    return frames["graduated_path"].filter(way=way).row(-1, named=True)


def draw_still(frames: Frames) -> Figure:
    """Draw Rastrigin, six of its smoothed versions, and the path through them."""
    figure, (axis,) = style.panels(1, width=7.5, height=4.8)
    grid = np.linspace(-5, 5, 1001)[:, None]
    path = frames["graduated_path"].filter(way="graduated")
    shown = [0, 2, 6, 9, 11, 12]
    for index, colour in zip(shown, style.noise_colours(len(shown))[::-1], strict=True):
        level = float(LEVELS[index])
        axis.plot(grid[:, 0], FUNCTION.value(grid, level), color=colour, label=f"δ = {level:.2f}")
        points = path.filter(stage=index + 1)["x"].to_numpy()
        heights = FUNCTION.value(points[:, None], level)
        axis.plot(points, heights, ".", color=style.RED, markersize=8, zorder=4)
    axis.plot([], [], ".", color=style.RED, label="path, stage by stage")
    plain, graduated = _end(frames, "plain"), _end(frames, "graduated")
    cross = {"color": style.BLACK, "markersize": 9, "label": "plain gradient descent ends"}
    axis.plot(plain["x"], plain["f"], "X", **cross)
    star = {"color": style.ORANGE, "markersize": 15, "zorder": 5, "markeredgecolor": "black"}
    axis.plot(graduated["x"], graduated["f"], "*", label="graduated optimization ends", **star)
    title = "Rastrigin, smoothed by N(0, δ²), and the way down"
    axis.set(xlabel="x", ylabel=r"$\hat f_\delta(x)$", title=title)
    axis.legend(loc="upper center", ncols=3)
    axis.set_ylim(-2, 62)
    return figure


def draw_surface(_frames: Frames) -> Figure:
    """Draw Drop-Wave smoothed by four balls."""
    figure, axes = style.panels(4, width=3.2, height=3.2)
    grid = np.linspace(-3, 3, 201)
    x = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    function = smoothed.radial(get_function("drop_wave"), Kernel("ball"), 2, 4.3)
    for axis, level in zip(axes, (0.0, 0.15, 0.4, 0.64), strict=True):
        image = function.value(x, level).reshape(201, 201)
        axis.contourf(grid, grid, image, levels=20, cmap="viridis")
        axis.set(title=f"δ = {level:g}", aspect="equal", xticks=[], yticks=[])
    figure.suptitle(
        "Drop-Wave smoothed on the ball of radius δ: at δ = 0.4 the minimum is a maximum"
    )
    return figure


def animate(frames: Frames) -> FuncAnimation:
    """Return the path as an animation."""
    figure, (axis,) = style.panels(1, width=6, height=3.6)
    grid = np.linspace(-5, 5, 401)[:, None]
    axis.plot(grid[:, 0], FUNCTION.value(grid, 0.0), color="0.8", linewidth=1, label="f")
    (curve,) = axis.plot(grid[:, 0], grid[:, 0], color=style.BLUE, label="f̂_δ")
    (dot,) = axis.plot([], [], "o", color=style.RED, markersize=9, label="x")
    axis.set(ylim=(-2, 60), xlabel="x")
    axis.legend(loc="upper center", ncols=3)
    figure.set_layout_engine("none")
    stages = (
        frames["graduated_path"].filter(way="graduated").partition_by("stage", maintain_order=True)
    )
    rows = [stage.row(i, named=True) for stage in stages for i in (0, 2, 4, 6, 8, -1)]

    def draw(row: dict[str, float]) -> list[object]:
        level, x = row["delta"], row["x"]
        curve.set_ydata(FUNCTION.value(grid, level))
        dot.set_data([x], FUNCTION.value(np.array([[x]]), level))
        axis.set_title(f"graduated optimization of Rastrigin: δ = {level:.2f}")
        return [curve, dot]

    return FuncAnimation(figure, draw, frames=rows + rows[-1:] * 12, blit=False)  # type: ignore[arg-type]


@statement(
    "slide: 段階的最適化",
    "a sequence of functions, smoothed ever less, leads to the global minimum",
    PICTURE,
)
def path_leads_down(frames: Frames) -> Seen:
    """Check the end of the path, and the end of the same steps without noise."""
    return Seen(
        f"Rastrigin, Gaussian kernel, x_1 = {START}, δ from {FIRST} to 0 in {STAGES} stages "
        f"(p = 1/2), {STEPS} steps each; the same number of steps at δ = 0",
        [Check("f at the end, graduated", _end(frames, "graduated")["f"], high=1e-3)],
        [Check("f at the end, plain gradient descent", _end(frames, "plain")["f"], high=1e-3)],
    )


STUDY = Study(
    measure,
    ("graduated_path",),
    {PICTURE: draw_still, "smoothed_surfaces.png": draw_surface, "graduated.gif": animate},
    (path_leads_down,),
)
