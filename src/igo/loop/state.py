"""Refuses a loaded state that is damaged, or of another plan."""

from collections.abc import Mapping
from types import NoneType
from typing import Any

from igo.ground.files import Record, fits
from igo.plans.arguments import PlanError
from igo.plans.plan import Plan

# The entries that a state may have, a counter's, a sampler's or a schedule's, each with its kind as
# ``igo.ground.files.fits`` reads it.
KINDS: Record = {
    "updates": (int,),
    "plan": (str,),
    "rates": [(float, int)],
    "arguments": {},
    "seed": (int,),
    "base_lrs": [[(float, NoneType)]],
}


def check_state(state: Mapping[str, Any]) -> None:
    """Raise a PlanError if an entry of a state is of another kind than ``state_dict`` writes."""
    for name, kind in KINDS.items():
        value = state.get(name)
        # ``fits`` lets a list be null, but no entry of a state is null.
        if name in state and (value is None or not fits(value, kind)):
            raise PlanError(name, repr(value), "the state is damaged; load another checkpoint")


def check_plan(state: Mapping[str, Any], plan: Plan) -> None:
    """Raise a PlanError if a state is damaged, of another plan, or of no sampler."""
    check_state(state)
    # Every sampler's state has the rates of its plan.
    if "rates" not in state:
        keys = ", ".join(map(str, state)) or "nothing"
        advice = f"the state has {keys}; give what state_dict() returned"
        raise PlanError("plan", "…", advice)
    if not plan.is_that_of(state):
        differences = [
            f"{name}={saved!r} (here {plan.arguments.get(name)!r})"
            for name, saved in state.get("arguments", {}).items()
            if saved != plan.arguments.get(name)
        ]
        saved_plan = f"a plan with {', '.join(differences)}" if differences else "another plan"
        advice = f"the checkpoint is of {saved_plan}; give igo.plan the same arguments"
        raise PlanError("plan", "…", advice)
    if not 0 <= state["updates"] <= plan.updates:
        raise PlanError("updates", state["updates"], f"the plan has {plan.updates:,}")
