"""Which resolver a file gets: the first rule whose pattern matches its path and that can read what all sides have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import pathspec

from isofs.merge.resolvers.base import Inputs, Options, Proposal, Resolver, propose, resolver


@dataclass(frozen=True)
class Rule:
    """Files that match the patterns (as in a `.gitignore`, `!` included) are merged `using` that resolver.

    `line` is where the configuration has it, None for a default.
    """

    patterns: tuple[str, ...]
    using: Resolver
    options: Options = field(default_factory=dict)
    line: int | None = None

    @cached_property
    def _spec(self) -> pathspec.GitIgnoreSpec:
        return pathspec.GitIgnoreSpec.from_lines(self.patterns)

    def matches(self, path: bytes) -> bool:
        """Whether the path, from the root of the mount, matches."""
        return self._spec.match_file(path.decode(errors="surrogateescape").lstrip("/"))

    def fits(self, inputs: Inputs) -> bool:
        """Whether the resolver can read every content that is there."""
        settings = self.using.settings(self.options)
        return all(self.using.fits(side, settings) for side in inputs.sides)

    def propose(self, inputs: Inputs) -> Proposal:
        return propose(self.using, inputs, self.options)


def choose(rules: Iterable[Rule], inputs: Inputs) -> Rule:
    """The rule for a file. Where none applies, nothing but equal sides is merged."""
    for rule in rules:
        if rule.matches(inputs.path) and rule.fits(inputs):
            return rule
    return Rule(("*",), resolver("same"))


def candidates(rules: Iterable[Rule], path: bytes) -> list[Rule]:
    """The rules of which one will be chosen once the contents are known: for a plan that reads nothing."""
    return [rule for rule in rules if rule.matches(path)]
