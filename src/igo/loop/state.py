"""Refuses a loaded state that is damaged, or of another plan."""

from collections.abc import Mapping
from types import NoneType
from typing import Any

from igo.ground.files import Record, fits
from igo.plans.arguments import PlanError
from igo.plans.plan import Plan

# The entries that a state of a counter, a sampler or a schedule may have, and the types of each:
# ``[(float, int)]`` is a list of numbers, as ``igo.ground.files.fits`` says.
KINDS: Record = {
    "updates": (int,),
    "plan": (str,),
    "rates": [(float, int)],
    "arguments": (dict,),
    "seed": (int,),
    "base_lrs": [[(float, NoneType)]],
}


def check_plan(state: Mapping[str, Any], plan: Plan) -> None:
    """Raise a PlanError if a state is damaged, of another plan, or not of ``state_dict`` at all."""
    for name, kind in KINDS.items():
        if name in state and not fits(state[name], kind):
            advice = "the state is damaged; load another checkpoint"
            raise PlanError(name, repr(state[name]), advice)
    # Every state of this program has the rates of its plan.
    if "rates" not in state:
        keys = ", ".join(map(str, state)) or "nothing"
        advice = f"the state has {keys}; give what state_dict() returned"
        raise PlanError("plan", "…", advice)
    if not plan.is_that_of(state):
        # The arguments of igo.plan that were others for the saved plan.
        differences = [
            f"{name}={saved!r} (here {plan.arguments.get(name)!r})"
            for name, saved in state.get("arguments", {}).items()
            if saved != plan.arguments.get(name)
        ]
        # Equal arguments may make another plan, such as those of a changed function.
        saved_plan = f"a plan with {', '.join(differences)}" if differences else "another plan"
        advice = f"the checkpoint is of {saved_plan}; give igo.plan the same arguments"
        raise PlanError("plan", "…", advice)
    if not 0 <= state["updates"] <= plan.updates:
        raise PlanError("updates", state["updates"], f"the plan has {plan.updates:,}")
