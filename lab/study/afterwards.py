"""What results/fewer_updates.md adds post hoc: cosine at a larger η_1, and b = 32 with √cosine."""

from collections.abc import Sequence

from lab.markdown import markdown
from lab.study import judged, table
from lab.study.design import Arms, Record, archive_of
from lab.study.records import ENDPOINTS

SEEDS = range(300, 332)  # The study has the same.
LENGTH = 80  # epochs
CONTROL = "√cosine, b = 32"
SPLIT, HALF_AS_LONG = "cosine, split ½", "cosine, 0.5 of the epochs"
REPEATED = (("cosine", 0.2), (SPLIT, 0.4))  # eight seeds of the study's arms, on this machine
BEST = ("cosine", 0.8)  # the highest of three η_1
PARTS = 5  # A record has Σ η and the mean δ of so many equal parts of the epochs.


def arms() -> Arms:
    """The runs of commit 746f4bd6 by their arm and η_1, seed by seed.

    Their accuracies get the names that those of the study have.
    """
    by_arm: dict[tuple[str, float], list[Record]] = {}
    for record in archive_of("fewer_updates_afterwards"):
        job = record["job"]
        if job["seed"] in SEEDS:
            accuracies = {field: record[end] for end, field in ENDPOINTS.items()}
            by_arm.setdefault((job["arm"], job["rate"]), []).append(record | accuracies)
    return by_arm


def summary(arms_of_study: Arms) -> str:
    """Two tables: differences between these arms and the study's longest runs, and these arms."""
    all_arms: dict[str, Sequence[Record]] = {**arms_of_study}
    lines = []
    for (name, rate), of_arm in arms().items():
        named = name + (" again" if (name, rate) in REPEATED else f", η₁ = {rate:g}")
        all_arms[named] = of_arm
        ended = [record for record in of_arm if "rates" in record]  # A loss may not be finite.
        lines.append(
            {
                "arm": named,
                "n": len(of_arm),
                "accuracy": judged.ends(of_arm, ENDPOINTS["running"]).mean(),
                "updates": ended[0]["updates"],
                "rates": PARTS * judged.ends(ended, "rates").mean(),  # Σ η of all parts
                "delta": judged.ends(ended, "deltas").mean(),
            }
        )
    best = f"cosine, η₁ = {BEST[1]}"
    beside_best = (SPLIT, "cosine, split 0", "Method 3", "cosine, b = 32", HALF_AS_LONG)
    pairs = [
        *((f"{name} again", name) for name, _ in REPEATED),
        ("cosine, η₁ = 0.4", "cosine"),
        (best, "cosine"),
        *((name, best) for name in beside_best),
        *((SPLIT, name) for name in all_arms if name.startswith(CONTROL)),
    ]
    differences = []
    for claim in judged.claims(all_arms, pairs, ENDPOINTS):
        cells = map(table.mean_with_interval, claim.differences.values())
        differences.append([claim.name, str(len(claim.judged)), *cells])
    head = [f"post hoc, later: {LENGTH} epochs", "n", *ENDPOINTS]
    columns = {
        "differs in": "{arm}",
        "n": "{n}",
        "%": "{accuracy:.2f}",
        "updates": "{updates:,}",
        "Σ η": "{rates:,.0f}",
        "mean δ": "{delta:.3f}",
    }
    return "\n".join([markdown(head, differences), table.formatted(lines, columns)])
