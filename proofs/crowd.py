"""Subscribers that run at the same time, each in a process of its own."""

import concurrent.futures
import multiprocessing
import signal

import running
import subscribing


class Crowd:
    """Running subscribers."""

    def __init__(self, plans, partitions):
        # Not by a fork of this process, which has threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([subscribing.__name__])
        count = len(plans)
        self._shared = subscribing.Shared(
            context.RawValue("i", subscribing.GOES_ON),
            context.RawArray("q", partitions),
            context.RawArray("i", [len(plan.acts()) for plan in plans]),
            context.RawArray("q", [-1 + plan.filter.is_empty() for plan in plans]),
            context.RawArray("b", count),
        )
        self._pool = concurrent.futures.ProcessPoolExecutor(
            count, context, initializer=_set_up, initargs=(self._shared,)
        )
        self._running = [self._pool.submit(_run, plan) for plan in plans]

    def check(self):
        """Raises what a subscriber has raised."""
        for each in self._running:
            if each.done():
                each.result()

    def left(self):
        """How much they still have to do."""
        self.check()
        return sum(self._shared.left)

    def wait_for(self, end):
        """Waits until all whose place is known have so many records behind them.

        Those who do not read at the moment are not waited for.
        """

        def are_there():
            self.check()
            each = zip(self._shared.reached, self._shared.stalled, strict=True)
            return all(reached < 0 or stalled or reached >= end for reached, stalled in each)

        what = f"subscribers at {end} records"
        return running.wait_until(are_there, subscribing.PATIENCE_SECONDS, what)

    def finish(self, ends):
        """Tells them where the log ends, and waits until all are there; what became of them."""
        for partition, end in ends.items():
            self._shared.ends[partition] = end
        self._shared.state.value = subscribing.SETTLED

        def are_through():
            self.check()
            return all(each.done() for each in self._running)

        # They lose patience first, and say what they lack.
        patience = 2 * subscribing.PATIENCE_SECONDS
        running.wait_until(are_through, patience, "subscribers at the end of the log")
        return [each.result() for each in self._running]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not all(each.done() for each in self._running):
            self._shared.state.value = subscribing.ABORTED
        self._pool.shutdown(cancel_futures=True)


def _set_up(shared):
    subscribing.shared = shared
    # Who ends a proof ends the crowd by telling it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(plan):
    try:
        return subscribing.KINDS[plan.by](plan).run()
    except subscribing.Aborted:
        return None
    except Exception as error:
        error.args = (f"{plan.who()}: {error}",)
        raise
