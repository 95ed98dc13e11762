"""``headwater completion``: a script for the shell. The shell asks ``headwater`` itself what could come next.

What is asked at each Tab must be quick: no command imports more than it needs to name its options (main.py).
"""

from __future__ import annotations

import click

NAME, VARIABLE = "headwater", "_HEADWATER_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options and files with the Tab key.

    \b
    bash (4.4 or later), for good:
      headwater completion bash > ~/.local/share/bash-completion/completions/headwater
    without the package bash-completion, or for this shell alone:
      eval "$(headwater completion bash)"
    zsh, in ~/.zshrc behind compinit:
      eval "$(headwater completion zsh)"
    fish:
      headwater completion fish > ~/.config/fish/completions/headwater.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    from headwater.cli.main import main

    known = get_completion_class(shell)
    assert known is not None
    # Not the shell's own `source`: that of bash runs bash to look at its version, which may be another machine's.
    click.echo(ShellComplete.source(known(main, {}, NAME, VARIABLE)))
