"""The account of the RSS, and the verdict on how it grew, on targets that grow in one way each."""

import re

from lib import OK, Case, Result

UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size(number, unit):
    return float(number) * UNITS[unit]


def account(summary):
    """{term: bytes}, and the RSS that they are to add up to, from the line of a summary."""
    line = re.search(r"^(?:RSS)? +([\d.]+ \w+ = .*)$", summary, re.M).group(1)
    line = re.sub(r" \([^)]*\)", "", line)  # intervals
    total, terms = line.split(" = ")
    found = {}
    for sign, number, unit, name in re.findall(r"(^|[+-]) ?([\d.]+) (\w+) ([a-z ]+?)(?= [+-]|$)", terms):
        found[name] = size(number, unit) * (-1 if sign == "-" else 1)
    return found, size(*total.split())


class Growth(Case):
    WAYS = ("heap", "step", "mmap", "stack", "churn", "flat")
    # The kernel's own counts may lag behind by some pages a CPU; what libraries do at first is no target's.
    SLACK = 768 << 10

    @classmethod
    def record_all(cls, case):
        """One recording of them all, for all tests: {way: (summary, bytes grown meanwhile)}."""
        targets = {way: case.target("grower", way) for way in cls.WAYS}
        pids = ",".join(str(target.pid) for target in targets.values())
        tracer = case.tracer("-v", "-s", "1", "-T", "1", "-p", pids, "-o", case.folder + "/")
        tracer.wait_recording()
        before = {way: target.ask_count("grown") for way, target in targets.items()}
        # A page in 20 ms: so the window has six seconds at least.
        enough = {"stack": 300 * 4096, "step": 32 << 20, "heap": 1 << 20, "mmap": 4 << 20}
        for way, least in enough.items():
            targets[way].wait_until(
                lambda: targets[way].ask_count("grown") - before[way] >= least, f"growth by {way}"
            )
        after = {way: target.ask_count("grown") for way, target in targets.items()}
        case.assertEqual(tracer.stop(), OK, tracer.describe())
        parts = re.split(r"^(?=alloctrace [\d.]+: )", Result(tracer).stdout, flags=re.M)[1:]
        summaries = {int(re.search(r"pid (\d+)", part).group(1)): part for part in parts}
        return {
            way: (summaries[target.pid], after[way] - before[way]) for way, target in targets.items()
        }

    def recorded(self, way):
        if "growth" not in Case.shared:
            Case.shared["growth"] = self.record_all(self)
        return Case.shared["growth"][way]

    def verdict(self, way):
        summary, _ = self.recorded(way)
        return re.search(r"^growth +(.*)$", summary, re.M).group(1)

    def test_terms_add_up(self):
        for way in self.WAYS:
            with self.subTest(way):
                terms, total = account(self.recorded(way)[0])
                # Three digits are shown of each.
                self.assertAlmostEqual(sum(terms.values()), total, delta=0.01 * total + 4096)

    def test_live_bytes_explain_a_growing_heap(self):
        for way in ("heap", "step"):
            with self.subTest(way):
                summary, grown = self.recorded(way)
                terms, _ = account(summary)
                self.assertAlmostEqual(terms["live"], grown, delta=0.05 * grown + (64 << 10))
                self.assertLess(abs(terms["not explained"]), self.SLACK + 0.02 * grown, summary)

    def test_direct_mappings_have_their_line(self):
        summary, grown = self.recorded("mmap")
        self.assertRegex(
            self.verdict("mmap"),
            r"^grew in \d+ of \d+ parts of the window, [\d.]+ MiB/s; most of it is outside the heap: "
            r"[\d.]+ MiB in direct mappings \(--mmap names their sites\)$",
        )
        terms, _ = account(summary)
        self.assertAlmostEqual(terms["direct mappings"], grown, delta=0.05 * grown + (64 << 10))
        self.assertLess(abs(terms["not explained"]), self.SLACK + 0.02 * grown, summary)

    def test_who_maps_nothing_has_no_direct_mappings(self):
        for way in ("heap", "churn", "flat", "stack"):
            with self.subTest(way):
                terms, _ = account(self.recorded(way)[0])
                self.assertEqual(terms["direct mappings"], 0)

    def test_stacks_have_their_line(self):
        summary, grown = self.recorded("stack")
        terms, _ = account(summary)
        self.assertAlmostEqual(terms["stacks"], grown, delta=0.05 * grown + (64 << 10))
        self.assertLess(abs(terms["not explained"]), self.SLACK, summary)

    def test_verdicts(self):
        heap = self.verdict("heap")
        self.assertRegex(
            heap,
            r"^grew in \d+ of \d+ parts of the window, [\d.]+ KiB/s; (99|100) % of what is live comes from "
            r"site_heap, of which nothing from the first third of the window has been freed$",
        )
        self.assertRegex(self.verdict("step"), r"^grew once, by 3[12]\.\d MiB between [\d.]+ m?s and [\d.]+ s; 100 % of what is live comes from site_heap$")
        self.assertRegex(self.verdict("churn"), r"^stayed within [\d.]+ K?i?B, while [\d.]+ MiB/s were allocated and nearly all freed$")
        self.assertRegex(self.verdict("flat"), r"^stayed within [\d.]+ K?i?B$")
        for way in self.WAYS:
            self.assertNotRegex(self.recorded(way)[0], r"\bleak")
