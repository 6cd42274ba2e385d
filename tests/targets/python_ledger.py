"""The books of a Python program: who allocated, by the interpreter's own account of its stack.

    python_ledger.py N

Says "ready PID", waits for a line, lets each site allocate N blocks of a size that no other has, prints
one line of JSON: [{"size": bytes asked of malloc, "count": N, "stack": [[function, file, line], ...]}, ...],
innermost first; then waits for another line, and ends.
"""

import asyncio
import json
import os
import sys
import threading

COUNT = int(sys.argv[1])
books = {}
kept = []


def note(block):
    """Books a block by the stack of who made it, in the line that calls this."""
    stack = []
    frame = sys._getframe(1)
    while frame:
        code = frame.f_code
        stack.append([code.co_qualname, code.co_filename, frame.f_lineno])
        frame = frame.f_back
    size = len(block) + 1  # bytearray has a NUL behind its bytes
    entry = books.setdefault(size, {"size": size, "count": 0, "stack": stack})
    assert entry["stack"] == stack
    entry["count"] += 1
    kept.append(block)


class Shop:
    def method(self):
        note(bytearray(20000))

    @staticmethod
    def static_method():
        note(bytearray(21000))


def nested():
    def inner():
        note(bytearray(22000))

    inner()


def generator():
    yield
    note(bytearray(23000))
    yield


def delegating():
    yield from generator()


def called_back(item):
    note(bytearray(24000))
    return item


def recurse(depth):
    # Each level is one of C, too: sorted() calls back.
    if depth:
        sorted([depth], key=lambda item: recurse(depth - 1))
    else:
        note(bytearray(25000))


def recurse_within(depth):
    if depth:
        recurse_within(depth - 1)
    else:
        note(bytearray(26000))


def recurse_far(depth):
    if depth:
        recurse_far(depth - 1)
    else:
        note(bytearray(36000))


async def coroutine():
    await asyncio.sleep(0)
    note(bytearray(27000))


async def coroutines():
    await asyncio.gather(coroutine())


def in_thread():
    note(bytearray(28000))


def catches():
    try:
        raise ValueError
    except ValueError:
        note(bytearray(29000))


def grüße():
    note(bytearray(30000))


source = "def made():\n\n\n    note(bytearray(32000))\n"


def call_all(made, far):
    Shop().method()
    Shop.static_method()
    nested()
    for _ in delegating():
        pass
    sorted([1], key=called_back)
    recurse(10)
    recurse_within(20)
    recurse_far(600)
    asyncio.run(coroutines())
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    catches()
    grüße()
    (lambda: note(bytearray(33000)))()
    [note(bytearray(34000)) for _ in range(1)]
    list(map(lambda item: note(bytearray(35000)), [1]))
    made()
    far()


def main():
    names = dict(globals())
    exec(compile(source, "<made>", "exec"), names)
    far = "def far():\n    x = 0\n" + "    x = x + 1\n" * 5000 + "    note(bytearray(31000))\n"
    exec(compile(far, "<far>", "exec"), names)
    print("ready", os.getpid(), flush=True)
    sys.stdin.readline()
    for _ in range(COUNT):
        call_all(names["made"], names["far"])
    print(json.dumps(list(books.values())), flush=True)
    sys.stdin.readline()


main()
