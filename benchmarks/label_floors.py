"""The bare exchange of `label.py`: tasks and answers of the same size, through a folder or a stream, and nothing else.

Both do what alcore-worker promises: a task goes to one worker, and an answer is durable before its task is let go.
Tasks and answers are written, claimed and read many at a time. Neither looks after workers that fall silent, keeps the
first of two answers, checks what it reads, or waits for a place that is away.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

AT_ONCE = 256
"""Tasks and answers in one file or call."""
SERVERS = {"redis": "redis-server", "valkey": "valkey-server"}


def task(number: int, point: Any) -> str:
    """Return a task of the size that alcore-worker sends of a sample with two features."""
    return json.dumps(
        {"task": f"{number:050d}", "point": [float(coordinate) for coordinate in point], "more": "x" * 250}
    )


def answer_to(text: str, function: Callable[[Any], Any]) -> str:
    """Return the answer to a task."""
    document = json.loads(text)
    value = function(document["point"])
    return json.dumps({"task": document["task"], "value": value, "more": "x" * 80})


def write(path: Path, text: str) -> None:
    """Write a file that is durable."""
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


# -- a folder: a name for each task, which is claimed by renaming it; many tasks are the lines of one file ------------


def work_in_folder(root: Path, number: int, function: Callable[[Any], Any], ready: Any) -> None:
    """Answer the tasks in a folder until it says that the end has come."""
    ready.release()
    waiting, claimed, answers, count = root / "waiting", root / "claimed", root / "answers", 0
    lines: dict[str, str] = {}
    while not (root / "end").exists():
        mine = []
        for name in sorted(os.listdir(waiting)):  # noqa: PTH208
            with contextlib.suppress(FileNotFoundError):
                (waiting / name).rename(claimed / name)
                mine.append(name)
            if len(mine) == AT_ONCE:
                break
        if not mine:
            time.sleep(0.005)
            continue
        texts = []
        for name in mine:
            if name not in lines:
                lines = dict(line.split(" ", 1) for line in (claimed / name).read_text().splitlines(keepends=True))
            texts.append(answer_to(lines[name], function))
        part = root / f"part{number}"
        write(part, "\n".join(texts))
        part.rename(answers / f"{number}-{count}")
        sync(answers)
        count += 1
        for name in mine:
            (claimed / name).unlink()


def folder_seconds(root: Path, points: Any, workers: int, function: Callable[[Any], Any]) -> float:
    """Return the seconds that tasks and answers take through a folder."""
    for name in ("waiting", "claimed", "answers"):
        (root / name).mkdir(parents=True)
    with started(work_in_folder, root, workers, function):
        began = time.perf_counter()
        for start in range(0, len(points), AT_ONCE):
            tasks = {f"{n:08d}": task(n, point) for n, point in enumerate(points[start : start + AT_ONCE], start)}
            part = root / "part"
            write(part, "".join(f"{name} {text}\n" for name, text in tasks.items()))
            for name in tasks:
                (root / "waiting" / name).hardlink_to(part)
            part.unlink()
            sync(root / "waiting")
        left = len(points)
        while left:
            names = os.listdir(root / "answers")  # noqa: PTH208
            for name in names:
                left -= len([json.loads(line) for line in (root / "answers" / name).read_text().split("\n")])
                (root / "answers" / name).unlink()
            if not names:
                time.sleep(0.005)
        seconds = time.perf_counter() - began
        (root / "end").touch()
    shutil.rmtree(root)
    return seconds


# -- a server: a stream with a consumer group, and a list of answers -----------------------------------------------


@contextlib.contextmanager
def server(program: str, folder: Path) -> Iterator[str]:
    """Start a server that keeps on the disk what it has acknowledged; yield its address."""
    import redis

    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "s"
    words = ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", "", "--logfile", "log"]
    process = subprocess.Popen([program, *words, "--appendonly", "yes", "--appendfsync", "always"])
    try:
        while True:
            with contextlib.suppress(redis.ConnectionError):
                redis.Redis(unix_socket_path=str(socket)).ping()
                break
            time.sleep(0.02)
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.wait()


def work_on_stream(where: str, number: int, function: Callable[[Any], Any], ready: Any) -> None:
    """Answer the messages of a stream until it says that the end has come."""
    import redis

    client = redis.Redis.from_url(where)
    client.ping()
    ready.release()
    while not client.exists("end"):
        replies = client.xreadgroup("workers", f"{number}", {"tasks": ">"}, count=AT_ONCE, block=50)
        for messages in replies.values() if isinstance(replies, dict) else [some for _, some in replies or ()]:
            flat = messages[0] if messages and isinstance(messages[0], list) else messages
            texts = [answer_to(fields[b"task"], function) for _, fields in flat]
            with client.pipeline(transaction=True) as calls:
                calls.rpush("answers", *texts)
                calls.xack("tasks", "workers", *(message for message, _ in flat))
                calls.execute()


def stream_seconds(where: str, points: Any, workers: int, function: Callable[[Any], Any]) -> float:
    """Return the seconds that tasks and answers take through a stream."""
    import redis

    client: Any = redis.Redis.from_url(where)
    client.flushall()
    client.xgroup_create("tasks", "workers", "0", mkstream=True)
    with started(work_on_stream, where, workers, function):
        began = time.perf_counter()
        for start in range(0, len(points), AT_ONCE):
            with client.pipeline(transaction=False) as calls:
                for number, point in enumerate(points[start : start + AT_ONCE], start):
                    calls.xadd("tasks", {"task": task(number, point)})
                calls.execute()
        left = len(points)
        while left:
            answers = client.lpop("answers", AT_ONCE)
            left -= len([json.loads(answer) for answer in answers or ()])
            if not answers:
                time.sleep(0.002)
        seconds = time.perf_counter() - began
        client.set("end", 1)
    client.flushall()
    return seconds


@contextlib.contextmanager
def started(work: Callable[..., None], where: Any, workers: int, *more: Any) -> Iterator[None]:
    """Start processes, wait until they are ready, and join them at the end."""
    context = multiprocessing.get_context("forkserver")
    ready = context.Semaphore(0)
    crew = [context.Process(target=work, args=(where, number, *more, ready)) for number in range(workers)]
    for worker in crew:
        worker.start()
    for _ in crew:
        ready.acquire()
    yield
    for worker in crew:
        worker.join()
