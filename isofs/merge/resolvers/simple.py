"""The resolvers that look at nothing: `same` leaves every difference to the operator, `keep-both` keeps both sides."""

from __future__ import annotations

from isofs.merge.resolvers.base import UNREAD, Both, Inputs, Options, Proposal, Unresolved, register


@register("same", "nothing but equal sides is merged", needs_base=False, limit=UNREAD)
def same(inputs: Inputs, options: Options) -> Proposal:
    """Unresolved: `base.propose` has merged equal sides before."""
    return Unresolved((f"same: {inputs.main_name} and {inputs.suspect_name} changed it differently",))


@register("keep-both", "main's stays, the suspect's is put beside it", needs_base=False, limit=UNREAD)
def keep_both(inputs: Inputs, options: Options) -> Proposal:
    """Both, whatever they are."""
    return Both((f"keep-both: {inputs.suspect_name}'s is kept beside {inputs.main_name}'s",))
