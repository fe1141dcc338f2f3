"""Run by test_kill as a process of its own: `python -m tests.index_in_process COLLECTION FOLDER [GATE]`.

Says what it does, a line a step. With a gate, it stops after its first batch until that file is there.
"""

import sys
import time
from pathlib import Path

from mmsearch import Engine, Progress
from tests.toy import ToyEncoder


def say(progress: Progress) -> None:
    print(progress.stage, progress.message, flush=True)
    if progress.stage == "encoding" and len(sys.argv) > 3:
        while not Path(sys.argv[3]).exists():
            time.sleep(0.005)


if __name__ == "__main__":
    with Engine.open(sys.argv[1], model=ToyEncoder(seconds=0.004)) as engine:
        report = engine.index(sys.argv[2], on_progress=say)
        print(report.new, report.unchanged)
