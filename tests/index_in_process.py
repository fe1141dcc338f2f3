"""Run by test_kill as a process of its own: `python -m tests.index_in_process COLLECTION FOLDER`."""

import sys

from mmsearch import Engine
from tests.toy import ToyEncoder

if __name__ == "__main__":
    with Engine.open(sys.argv[1], model=ToyEncoder(seconds=0.004)) as engine:
        report = engine.index(
            sys.argv[2], on_progress=lambda progress: print(progress.stage, progress.message, flush=True)
        )
        print(report.new, report.unchanged, report.seconds)
