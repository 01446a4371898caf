"""``python -m lwd``, which is also how torchrun and accelerate start it."""

from lwd.cli.main import main

main()
