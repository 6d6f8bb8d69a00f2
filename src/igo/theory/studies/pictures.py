"""Study: the pictures that explain graduated optimization, and an animation of it."""

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter

from igo.theory import smoothed
from igo.theory.explicit import optimal_levels
from igo.theory.functions import Array, get_function
from igo.theory.kernels import Kernel
from igo.theory.studies import style
from igo.theory.studies.report import Row, Settings

START, FIRST, STAGES, STEPS = 4.3, 0.75, 12, 10
SPEED = 0.1  # share of a full Newton step, so that the path can be seen
KERNEL = Kernel("gaussian")


def graduated_path() -> list[tuple[float, Array]]:
    """Return (δ_m, points of stage m) of gradient descent on Gaussian-smoothed Rastrigin."""
    function = smoothed.rastrigin(KERNEL, 1)
    x, path = np.array([START]), []
    for level in [*optimal_levels(FIRST, STAGES, 0.5), 0.0]:
        points = [x[0]]
        for _ in range(STEPS):
            curvature = 2 + 40 * np.pi**2 * np.exp(-2 * np.pi**2 * level**2)
            x = x - SPEED * function.gradient(x[None], level)[0] / curvature
            points.append(x[0])
        path.append((float(level), np.array(points)))
    return path


def run(settings: Settings) -> list[Row]:
    """Draw a function, its smoothed versions and the path through them; still and moving."""
    path = graduated_path()
    function = smoothed.rastrigin(KERNEL, 1)
    x = START
    for _ in range(STEPS * len(path)):
        x = x - float(function.gradient(np.array([[x]]), 0.0)[0, 0]) / (2 + 40 * np.pi**2)
    _still(settings, path, x)
    _surface(settings)
    _animation(settings, path)
    reached = float(path[-1][1][-1])
    values = [float(get_function("rastrigin").value(np.array([v]))) for v in (reached, x)]
    return [
        Row(
            "slide: 段階的最適化",
            "a sequence of functions, smoothed ever less, leads to the global minimum",
            f"Rastrigin, Gaussian kernel, x_1 = {START}, δ from {FIRST} to 0 in {STAGES} stages "
            f"(p = 1/2), {STEPS} steps each; plain gradient descent, the same number of steps",
            f"graduated: x = {reached:.2g}, f = {values[0]:.2g}; plain: x = {x:.3f}, "
            f"f = {values[1]:.3g}",
            "agrees" if values[0] < 1e-3 < values[1] else "disagrees",
            "graduated_path.png smoothed_surfaces.png graduated.gif",
        )
    ]


def _still(settings: Settings, path: list[tuple[float, Array]], plain: float) -> None:
    function = smoothed.rastrigin(KERNEL, 1)
    figure, (axis,) = style.panels(1, width=7.5, height=4.8)
    grid = np.linspace(-5, 5, 1001)[:, None]
    shown = [0, 2, 6, 9, 11, 12]
    colours = style.noise_colours(len(shown))[::-1]
    for index, colour in zip(shown, colours, strict=True):
        level, points = path[index]
        axis.plot(grid[:, 0], function.value(grid, level), color=colour, label=f"δ = {level:.2f}")
        heights = function.value(points[:, None], level)
        axis.plot(points, heights, ".", color=style.RED, markersize=8, zorder=4)
    axis.plot([], [], ".", color=style.RED, label="path, stage by stage")
    axis.plot(
        plain,
        function.value(np.array([[plain]]), 0.0),
        "X",
        color=style.BLACK,
        markersize=9,
        label="plain gradient descent ends",
    )
    axis.plot(
        path[-1][1][-1],
        0,
        "*",
        color=style.ORANGE,
        markersize=15,
        zorder=5,
        markeredgecolor="black",
        label="graduated optimization ends",
    )
    axis.set(
        xlabel="x",
        ylabel=r"$\hat f_\delta(x)$",
        title="Rastrigin, smoothed by N(0, δ²), and the way down",
    )
    axis.legend(loc="upper center", ncols=3)
    axis.set_ylim(-2, 62)
    style.save(figure, settings.output / "graduated_path.png")


def _surface(settings: Settings) -> None:
    figure, axes = style.panels(4, width=3.2, height=3.2)
    grid = np.linspace(-3, 3, 201)
    x = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    for axis, level in zip(axes, (0.0, 0.15, 0.4, 0.64), strict=True):
        function = smoothed.radial(get_function("drop_wave"), Kernel("ball"), 2, 4.3)
        image = function.value(x, level).reshape(201, 201)
        axis.contourf(grid, grid, image, levels=20, cmap="viridis")
        axis.set(title=f"δ = {level:g}", aspect="equal", xticks=[], yticks=[])
    figure.suptitle(
        "Drop-Wave smoothed on the ball of radius δ: at δ = 0.4 the minimum is a maximum"
    )
    style.save(figure, settings.output / "smoothed_surfaces.png")


def _animation(settings: Settings, path: list[tuple[float, Array]]) -> None:
    function = smoothed.rastrigin(KERNEL, 1)
    figure, (axis,) = style.panels(1, width=6, height=3.6)
    grid = np.linspace(-5, 5, 401)[:, None]
    axis.plot(grid[:, 0], function.value(grid, 0.0), color="0.8", linewidth=1, label="f")
    (curve,) = axis.plot(grid[:, 0], grid[:, 0], color=style.BLUE, label="f̂_δ")
    (dot,) = axis.plot([], [], "o", color=style.RED, markersize=9, label="x")
    axis.set(ylim=(-2, 60), xlabel="x")
    axis.legend(loc="upper center", ncols=3)
    figure.set_layout_engine("none")
    frames = [(level, float(p)) for level, points in path for p in points[[0, 2, 4, 6, 8, -1]]] + [
        (0.0, float(path[-1][1][-1]))
    ] * 12

    def draw(frame: tuple[float, float]) -> list[object]:
        level, x = frame
        curve.set_ydata(function.value(grid, level))
        dot.set_data([x], function.value(np.array([[x]]), level))
        axis.set_title(f"graduated optimization of Rastrigin: δ = {level:.2f}")
        return [curve, dot]

    animation = FuncAnimation(figure, draw, frames=frames, blit=False)  # type: ignore[arg-type]
    animation.save(settings.output / "graduated.gif", writer=PillowWriter(fps=12), dpi=80)
    style.close(figure)
