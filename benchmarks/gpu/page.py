"""What README and docs/gpu.md would say of this GPU, made from the parts' files."""

import json
from pathlib import Path
from typing import Any

from lab.markdown import markdown

Items = dict[str, dict[str, Any]]


def text(out: Path) -> str:
    """The table and the paragraph, of those items that are done."""
    parts = [json.loads(file.read_text()) for file in sorted(out.glob("*.json"))]
    items: Items = {
        item["item"]: item for part in parts for item in part["items"] if item["state"] == "done"
    }
    title = "This was a dry run: its numbers say nothing.\n\n" * any(part["dry"] for part in parts)
    return f"\n{title}{table(items)}\n{paragraph(items)}"


def table(items: Items) -> str:
    """A row for each cell of speed, without those of other settings."""
    keys = "over the script", "of the limit"
    lines = [
        [name, f"{item['images/s']:,.0f}", *(_two(item[key]) for key in keys)]
        for name, item in items.items()
        if keys[0] in item and " " not in name
    ]
    return markdown(["model and b", "images/s", *keys], lines)


def paragraph(items: Items) -> str:
    """Sentences for docs/gpu.md; what was not measured is left out."""
    machine = items.get("machine", {})
    device = machine.get("gpu") or machine.get("cpu", "this machine")
    sentences = [f"Measured on {device} with PyTorch {machine.get('torch', '?')}."]
    shares = [
        f"{item['share']:.1%} of an update of {item['cell']}"
        for item in items.values()
        if "share" in item
    ]
    if shares:
        sentences.append(f"C² takes {', '.join(shares)}.")
    for name, item in items.items():
        if item.get("faster") == "graph":
            times = f"{item['graph ms']:.2f} ms in place of {item['eager ms']:.2f}"
            sentences.append(f"A CUDA graph of {name} takes {times}.")
        elif "faster" in item:
            sentences.append(f"No CUDA graph of {name} is faster.")
    if methods := items.get("an epoch of Methods 1 to 4"):
        losses = ", ".join(_two(methods[f"method{number}"]) for number in range(1, 5))
        sentences.append(f"An epoch of Methods 1 to 4 has {losses} of the expected loss.")
    return " ".join(sentences)


def _two(number: float) -> str:
    return f"{number:.2f}"
