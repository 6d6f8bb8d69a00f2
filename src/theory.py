"""Run the theory laboratory: `python src/theory.py study=all` (settings: conf/theory.yaml)."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, ListConfig
from rich.console import Console

from igo.theory.laboratory import check_settings, chosen_studies, run_studies
from igo.theory.studies.report import Settings


def _settings(config: DictConfig, console: Console) -> Settings:
    numbers = {}
    for name in ("seed", "starts", "budget", "workers"):
        value = config[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{name}={value} must be a whole number")
        numbers[name] = value

    if not isinstance(config.output, str) or not config.output:
        raise ValueError(f"output={config.output} must be the name of a folder")

    def progress(message: str) -> None:
        console.print(f"  {message}", highlight=False)

    return Settings(Path(config.output), progress=progress, **numbers)


def _study_names(config: DictConfig) -> list[str]:
    study = config.study
    return chosen_studies(
        [str(name) for name in study] if isinstance(study, ListConfig) else str(study)
    )


@hydra.main(version_base="1.3", config_path="../conf", config_name="theory")
def main(config: DictConfig) -> None:
    """Run what the configuration asks for; one line on stderr and exit code 2 if it cannot."""
    console = Console()
    try:
        names = _study_names(config)
        settings = _settings(config, console)
        check_settings(settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

    def announce(name: str) -> None:
        console.print(f"[bold]{name}[/bold]")

    seconds = run_studies(names, settings, announce)
    console.print(f"{sum(seconds.values()):.0f} s, results in {settings.output}/README.md")


if __name__ == "__main__":
    main()
