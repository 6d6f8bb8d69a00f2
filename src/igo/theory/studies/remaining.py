"""What the source states and this laboratory does not run."""

from igo.theory.studies.report import Row, Settings


def run(_settings: Settings) -> list[Row]:
    """Return a row for each statement that was not run, with the reason."""
    return [
        Row(
            "slide: 数値実験",
            "ResNet18 on CIFAR-100: equal noise curves train equally well, and better than a "
            "constant one; p ∈ (0, 1] and cosine are best",
            "nothing here: it is network training (`src/train.py`)",
            "not seen here",
            "not run",
        ),
        Row(
            "slide: 結論",
            "with enough computing, plain SGD makes global optimization of networks possible",
            "nothing: the global minimum of a network is not known, so no run can show it",
            "not seen here",
            "not run",
        ),
        Row(
            "slide: なぜ段階的最適化なのか",
            "score-based and diffusion models use graduated optimization implicitly",
            "nothing: no generative model is part of this software",
            "not seen here",
            "not run",
        ),
        Row(
            "slide: 背景",
            "SGD generalises well, sometimes better than Adam; too large a batch generalises worse",
            "nothing here: generalisation needs test sets of real size",
            "not seen here",
            "not run",
        ),
        Row(
            "Algorithm 3, H_3 and H_4",
            "T_F is computed with H_3 and H_4",
            "both are parameters: the slides do not give their values",
            "values chosen, not derived (H_3 = 0)",
            "not run",
        ),
    ]
