"""Run by torchrun: `lwd evaluate` with the stub in Inception's place; arguments as on the command line."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lwd.cli.main import main
from lwd.stages.evaluate import run
from stub_extractor import StubExtractor

run.__globals__["InceptionExtractor"] = StubExtractor
sys.argv = ["lwd", "evaluate", *sys.argv[1:]]
main()
