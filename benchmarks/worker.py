"""Each contender lives in a process of its own, and they take turns: own memory, own caches, and the same weather for everyone."""

import multiprocessing
import resource
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from ceiling import clock
from peers import Contender, Setting, contenders
from torch.utils.flop_counter import FlopCounterMode


def peak_mib(device: str) -> float:
    """The most memory that this process held: resident on a CPU, allocated on a GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Bench:
    """The requests that a worker answers."""

    def __init__(self, name: str, setting: Setting) -> None:
        torch.manual_seed(0)
        self.name, self.setting, self.before = name, setting, peak_mib(setting.device)
        torch.backends.cudnn.benchmark = "compile" in name  # the tuned ones, ours and theirs
        self.contender: Contender = contenders(setting.device)[name](setting)

    def warm(self, steps: int, pictures: int = 0) -> dict[str, float]:
        """Seconds that the first steps took (a compiler's included), parameters, and FLOPs a picture where they can be counted.

        So many pictures are drawn, too, so that what compilers and graphs need for sampling is ready.
        """
        before, net = clock(self.setting.device), self.contender.net
        for _ in range(steps):
            self.contender.step()
        if pictures:
            self.contender.sample(pictures, 3)
        facts = {"warm_up_s": clock(self.setting.device) - before, "parameters": sum(p.numel() for p in net.parameters())}
        if steps and "compile" not in self.name:
            with FlopCounterMode(display=False) as counter:
                self.contender.step()
            facts["flop_per_image"] = counter.get_total_flops() / self.setting.batch
        return facts

    def train(self, steps: int) -> float:
        """Pictures a second over so many steps."""
        self.contender.net.train()
        before = clock(self.setting.device)
        for _ in range(steps):
            self.contender.step()
        return steps * self.setting.batch / (clock(self.setting.device) - before)

    def memory(self) -> float:
        """MiB at the worst moment, without what the libraries themselves take."""
        return peak_mib(self.setting.device) - self.before

    def sample(self, n: int, steps: int) -> float:
        """Pictures a second."""
        before = clock(self.setting.device)
        self.contender.sample(n, steps)
        return n / (clock(self.setting.device) - before)


def serve(connection: Connection, name: str, setting: Setting, threads: int) -> None:
    """Answer (method, arguments) until None comes; a failure is an answer too."""
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)  # picture loaders start as they always do
    torch.set_num_threads(threads)
    bench = None
    while (request := connection.recv()) is not None:
        try:
            bench = bench or Bench(name, setting)
            connection.send(("ok", getattr(bench, request[0])(*request[1:])))
        except Exception as problem:  # noqa: BLE001 - one contender that fails must not end the run
            traceback.print_exc()
            connection.send(("failed", f"{type(problem).__name__}: {problem}"[:300]))


class Worker:
    """A contender in its process; call it with a method's name and arguments. After a failure it answers None."""

    def __init__(self, name: str, setting: Setting, threads: int) -> None:
        self.name, self.problem = name, ""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, setting, threads))
        self.process.start()

    def ask(self, method: str, *arguments: Any) -> None:
        """Send a request, and do not wait."""
        try:
            if not self.problem:
                self.connection.send((method, *arguments))
        except BrokenPipeError:
            self.problem = "the process ended"

    def answer(self) -> Any:
        """The answer to the last request, once it is there."""
        if self.problem:
            return None
        try:
            state, answer = self.connection.recv()
        except EOFError:
            state, answer = "failed", "the process ended"
        self.problem = answer if state == "failed" else ""
        return None if self.problem else answer

    def __call__(self, method: str, *arguments: Any) -> Any:
        """The answer, once it is there."""
        self.ask(method, *arguments)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        if self.process.is_alive():
            self.connection.send(None)
            self.process.join(20)
        if self.process.is_alive():
            self.process.kill()


def interleaved(workers: list[Worker], ask: Callable[[Worker], Any], rounds: int) -> dict[str, list[Any]]:
    """Everyone's answers, asked in turns: A B C, A B C, ..."""
    answers: dict[str, list[Any]] = {worker.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            if (answer := ask(worker)) is not None:
                answers[worker.name].append(answer)
    return answers
