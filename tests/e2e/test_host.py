"""The host that is swept: that it comes up with all of its processes, stays as it is, and goes away whole."""

import unittest

import host
import lib


class Host(lib.Case):
    def test_it_comes_up_and_goes_away(self):
        try:
            paths = host.programs()
        except host.Missing as reason:
            self.skipTest(str(reason))
        with host.Host(self.folder, paths) as here:
            processes = here.processes
            self.assertGreaterEqual(len(processes), 200)
            self.assertEqual([text for pid, text in processes.items() if not lib.alive(pid)], [])
            for least, name in ((17, "nginx"), (60, "postgres"), (8, "redis"), (40, "python3"), (40, "sh -c"), (60, "sleep")):
                found = [pid for pid, text in processes.items() if name in text.split("\n")[0]]
                self.assertGreaterEqual(len(found), least, name)
            self.assertTrue(here.is_settled())
        lib.wait_for(lambda: not any(map(lib.alive, processes)), "the end of all of them")


if __name__ == "__main__":
    unittest.main()
