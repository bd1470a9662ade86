"""isoctl completion: what makes a shell complete the words of isoctl."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

#: How the program is called, and the variable by which a shell asks it.
PROGRAM, VARIABLE = "isoctl", "_ISOCTL_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands and suspects.

    \b
    bash  isoctl completion bash >/etc/bash_completion.d/isoctl
    zsh   isoctl completion zsh >/usr/local/share/zsh/site-functions/_isoctl
    fish  isoctl completion fish >/etc/fish/completions/isoctl.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root().command
    # Not what its method adds: that runs a bash to see how old it is.
    made = kind(root, {}, PROGRAM, VARIABLE)
    click.echo(made.source_template % made.source_vars())
