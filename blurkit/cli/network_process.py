"""A process that runs one network and measures it: `python -m blurkit.cli.network_process`.

It reads pickles from standard input, the options of `deblur` and then records, and answers each on
standard output: None once the network is loaded, then the restored record, or a BlurkitError.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from contextlib import suppress
from pathlib import Path

from blurkit.cli.batch import Work
from blurkit.cli.deblur_run import deblurring
from blurkit.errors import BlurkitError, is_out_of_memory
from blurkit.io.records import Record

STATUS = Path("/proc/self/status")
"""Where Linux states the most memory that a process has had."""


def serve() -> None:
    """Load the network and answer until standard input ends."""
    with os.fdopen(os.dup(1), "wb") as answers, suppress(EOFError):
        os.dup2(2, 1)  # what libraries print is no answer
        work: Work | None = None
        warm = False
        while True:
            question = pickle.load(sys.stdin.buffer)
            answer: Record | BlurkitError | None = None
            if work is None:
                try:
                    work, _ = deblurring(question)
                except BlurkitError as error:
                    answer = error
            else:
                warm = warm or isinstance(_restored(work, question), Record)
                answer = _restored(work, question)
            pickle.dump(answer, answers)
            answers.flush()


def _restored(work: Work, record: Record) -> Record | BlurkitError:
    """Return a record with the restored image and what it took, or the problem."""
    started = time.perf_counter()
    try:
        finished = work(record)
    except BlurkitError as error:
        return error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return BlurkitError("out of memory")
    seconds = time.perf_counter() - started
    costs = {"network_seconds": seconds, "network_memory": round(_peak_memory() / 1e6)}
    return Record(record.name, {"restored": finished.images["restored"]}, finished.attrs | costs)


def _peak_memory() -> float:
    """Return the most bytes that this process has reserved on a GPU, or else in main memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_reserved())
    if STATUS.exists():
        return int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    import resource  # its value on Linux would include the process that started this one

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


if __name__ == "__main__":
    serve()
