"""What the page does, written down in the page itself while events come."""

import pathlib
import re

# All objects of the page are searched for its rows, the one `Ring` of web/src/ring.ts. From then
# on each frame notes when it began, which rows are new, and how old the first of these was. Where
# the newest row of the frame before is gone, the rows begin anew: null stands there.
RECORD = """
function () {
  const has = (object, ...names) => names.every((name) => Object.hasOwn(object, name));
  const ring = this.find((object) => has(object, "oldest", "next"));
  if (!ring) throw new Error("no rows found; has web/src/ring.ts changed?");
  const frames = [], rows = [], ages = [], longTasks = [];
  globalThis.recorded = { frames, rows, ages, longTasks };
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) longTasks.push(duration);
  }).observe({ type: "longtask" });
  let start = ring.next, at = start;
  requestAnimationFrame(function frame(now) {
    frames.push(now);
    if (ring.oldest >= at && ring.oldest > start) {
      rows.push(null);
      start = at = ring.oldest;
    }
    const time = ring.get(at)?.delivered?.event.acceptTime;
    if (time) ages.push(Date.now() - Number(time.seconds) * 1000 - time.nanos / 1e6);
    for (; at < ring.next; at += 1) {
      const row = ring.get(at);
      rows.push(row.delivered?.event.eventId ?? row.text);
    }
    requestAnimationFrame(frame);
  });
}
"""

# How often the memory is looked at to know it once. Events go on coming between a collection and
# the look, and what they leave is up to a megabyte; what is held is in each of the looks.
LOOKS = 8

TAKE = "Object.fromEntries(Object.entries(recorded).map(([name, all]) => [name, all.splice(0)]))"


class Recorder:
    """Records a page from now on, whose rows were empty until now or are not to be known.

    It does little in the page: what is recorded goes out only when it is taken, between two
    measurements.
    """

    def __init__(self, page):
        self._page = page
        # The rows that the page has taken, the oldest first: the ids of events, and notes. A new
        # list for each time that it began anew.
        self.taken = [[]]
        self._devtools = page.context.new_cdp_session(page.page)
        self._devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._browser = page.context.browser.new_browser_cdp_session()
        # What is looked at this way would stay in memory.
        group = {"objectGroup": "search"}
        everything = self._devtools.send(
            "Runtime.evaluate", {"expression": "Object.prototype"} | group
        )
        found = self._devtools.send(
            "Runtime.queryObjects",
            {"prototypeObjectId": everything["result"]["objectId"]} | group,
        )
        started = self._devtools.send(
            "Runtime.callFunctionOn",
            {"objectId": found["objects"]["objectId"], "functionDeclaration": RECORD},
        )
        if "exceptionDetails" in started:
            raise RuntimeError(f"cannot record the page: {started['exceptionDetails']}")
        self._devtools.send("Runtime.releaseObjectGroup", group)

    def take(self):
        """What was recorded since the last time: times in milliseconds."""
        recorded = self._page.evaluate(TAKE)
        for row in recorded["rows"]:
            if row is None:
                self.taken.append([])
            else:
                self.taken[-1].append(row)
        frames = recorded["frames"]
        recorded["frames"] = [later - earlier for earlier, later in zip(frames, frames[1:])]
        return recorded

    def busy_seconds(self):
        """How much CPU time the page's thread has taken, since it was opened."""
        return self._metrics()["TaskDuration"]

    def memory(self):
        """What the page holds, once what nobody needs is gone."""
        self.take()
        looks = [self._look() for _ in range(LOOKS)]
        held = {name: min(look[name] for look in looks) for name in looks[0]}
        return held | {
            "process_bytes": self._process_bytes(),
            "rows_drawn": self._page.locator(".row").count(),
        }

    def _look(self):
        # Twice: what a collection that was under way takes for needed goes with the next one.
        for _ in range(2):
            self._devtools.send("HeapProfiler.collectGarbage")
        metrics = self._metrics()
        return {"heap_bytes": metrics["JSHeapUsedSize"], "nodes": metrics["Nodes"]}

    def _process_bytes(self):
        """The memory of its process, without what is mapped from files."""
        processes = self._browser.send("SystemInfo.getProcessInfo")["processInfo"]
        pages = [each["id"] for each in processes if each["type"] == "renderer"]
        status = [pathlib.Path(f"/proc/{page}/status").read_text() for page in pages]
        return sum(int(re.search(r"RssAnon:\s*(\d+) kB", each)[1]) * 1024 for each in status)

    def _metrics(self):
        metrics = self._devtools.send("Performance.getMetrics")["metrics"]
        return {metric["name"]: metric["value"] for metric in metrics}
