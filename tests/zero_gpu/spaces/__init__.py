"""What ZeroGPU's package ``spaces`` does to a function, with real processes and without a GPU.

A call is run in a daemon process forked from the app, is ended at its deadline, and brings back either its
result or only the type of its error. Every loan is a line in the file ``LOANS``: for whom, how long, its end.
"""

import functools
import json
import multiprocessing
import os
import time

from spaces.utils import gradio_request_var


def GPU(task=None, *, duration=60):
    if task is None:
        return functools.partial(GPU, duration=duration)

    @functools.wraps(task)
    def borrow(*arguments):
        request = gradio_request_var().get(None)
        visitor = request.headers.get("x-ip-token", "") if request else ""
        began = time.time()
        ended = _lend(task, arguments, float(os.environ.get("LOAN_SECONDS") or duration))
        with open(os.environ["LOANS"], "a") as book:
            loan = {"visitor": visitor, "seconds": time.time() - began, "asked": duration, "ended": ended[0]}
            book.write(json.dumps(loan) + "\n")
        if ended[0] != "returned":
            raise RuntimeError(f"ZeroGPU worker error: {ended[1]}")
        return ended[1]

    return borrow


def gradio_auto_wrap(task):
    """What gradio passes every handler through on a Space; only decorated functions borrow."""
    return task


def _lend(task, arguments, seconds):
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    process = fork.Process(target=_work, args=(task, arguments, writer), daemon=True)
    process.start()
    writer.close()
    try:
        if reader.poll(seconds):
            return reader.recv()
        process.kill()
        return "aborted", "GPU task aborted"
    except EOFError:
        return "aborted", "GPU task aborted"
    finally:
        process.join()


def _work(task, arguments, writer):
    try:
        writer.send(("returned", task(*arguments)))
    except Exception as error:
        writer.send(("raised", type(error).__name__))
