#!/usr/bin/python3
"""Does alloctrace name addresses as llvm-symbolizer does? Compares both on ELF files, level by level.

    tools/symbols_compare.py [--dump PATH] [--count N] [--seed N] FILE...

Addresses are sampled: four of five lie in the last byte of what looks like a call (as return address - 1 does),
the others anywhere in code. Function, file and line have to be equal at each level of inlining. Where they may
differ, there is a rule below, with its reason, that looks at the symbol tables (readelf) whether it is one; and what
we claim to know better, gdb has to say as well. Prints how many answers are the same, how many differ by which rule,
and those that no rule explains. Exit status: 1 where there are such, or too little was compared.
"""

import argparse
import bisect
import collections
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DUMP = os.path.join(ROOT, "build", "symbols_dump")
DEBUG_ROOT = "/usr/lib/debug/.build-id"
LIMIT = 300  # seconds for one command

UNKNOWN = "??"
Level = collections.namedtuple("Level", "function file line")


def run(command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, errors="replace", timeout=LIMIT)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout


# --- addresses -------------------------------------------------------------------------------------


def code_sections(path):
    """[(address, offset in the file, size)] of what is executable."""
    found = re.findall(r"PROGBITS +([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+) [0-9a-f]+ +AX", run(["readelf", "-SW", path]))
    return [tuple(int(number, 16) for number in section) for section in found]


def possible_calls(path, sections):
    """The last byte of each call, and of what has the form of one: E8, and four bytes that lead into code."""
    first = min(address for address, _, _ in sections)
    end = max(address + size for address, _, size in sections)
    found = []
    with open(path, "rb") as file:
        for address, offset, size in sections:
            file.seek(offset)
            code = file.read(size)
            for match in re.finditer(rb"\xe8", code[:-4]):
                at = match.start()
                target = address + at + 5 + struct.unpack_from("<i", code, at + 1)[0]
                if first <= target < end:
                    found.append(address + at + 4)
    return found


def sample(path, count, seed=1):
    """Addresses as linked."""
    sections = code_sections(path)
    calls = possible_calls(path, sections)
    rng = random.Random(seed)
    found = rng.sample(calls, min(len(calls), count * 4 // 5))
    while len(found) < count:
        address, _, size = rng.choices(sections, [size for _, _, size in sections])[0]
        found.append(address + rng.randrange(size))
    rng.shuffle(found)
    return found


def call_sites(path):
    """The last byte of every call, as the disassembler has them."""
    found, called = [], False
    for line in run(["objdump", "-d", "--no-show-raw-insn", path]).splitlines():
        match = re.match(r"\s+([0-9a-f]+):\t(\S+)", line)
        if match and called:
            found.append(int(match[1], 16) - 1)
        called = bool(match) and match[2].startswith("call")
    return found


# --- answers ---------------------------------------------------------------------------------------


def as_input(addresses):
    return "".join(f"{address:#x}\n" for address in addresses)


def parse(text):
    """One list of levels an address."""
    answers = []
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        levels = []
        for function, position in zip(lines[::2], lines[1::2]):
            file, line, _ = position.rsplit(":", 2)
            levels.append(Level(function, file, int(line)))
        if levels:
            answers.append(levels)
    return answers


def ask_alloctrace(path, addresses, dump=DUMP, options=("-r",)):
    return parse(run([dump, *options, path], as_input(addresses)))


def ask_llvm(path, addresses):
    return parse(run(["llvm-symbolizer", "--no-demangle", f"--obj={path}"], as_input(addresses)))


def starts_of_alloctrace(path, addresses, dump=DUMP):
    """One list an address: the line where the function of each level is declared, 0 for none."""
    blocks = run([dump, "-r", "-s", path], as_input(addresses)).split("\n\n")
    lines = [block.strip("\n").split("\n")[1::2] for block in blocks if block.strip()]
    return [[int(position.rsplit(":", 1)[1]) for position in positions] for positions in lines]


def starts_of_llvm(path, addresses):
    """The same. It states of a level what it knows, in lines that begin with blanks, behind its name."""
    text = run(["llvm-symbolizer", "--verbose", "--no-demangle", f"--obj={path}"], as_input(addresses))
    answers = []
    for block in filter(str.strip, text.split("\n\n")):
        levels = re.findall(r"^\S.*\n((?:  .*\n?)+)", block, re.M)
        found = (re.search(r"Function start line: (\d+)", level) for level in levels)
        answers.append([int(start[1]) if start else 0 for start in found])
    return answers


# What gdb's own reader of DWARF says of addresses: names from inside out, and the innermost line.
GDB = """
import gdb, json
with open(%(input)r) as file:
    addresses = json.load(file)
found = []
for address in addresses:
    names, block = [], gdb.block_for_pc(address)
    while block is not None:
        if block.function is not None:
            names.append([block.function.linkage_name, block.function.name])
        block = block.superblock
    line = gdb.find_pc_line(address)
    found.append([names, line.symtab.filename if line.symtab else None, line.line])
with open(%(output)r, "w") as file:
    json.dump(found, file)
"""


def ask_gdb(path, addresses):
    """[([(linkage name, name)] from inside out, file, line)]."""
    if not addresses:
        return []
    with tempfile.TemporaryDirectory(prefix="alloctrace-symbols.") as folder:
        files = {name: os.path.join(folder, name) for name in ("input", "output", "script.py")}
        with open(files["input"], "w") as file:
            json.dump(addresses, file)
        with open(files["script.py"], "w") as file:
            file.write(GDB % files)
        run(["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-x", files["script.py"], path])
        with open(files["output"]) as file:
            return json.load(file)


# --- what the symbol tables say --------------------------------------------------------------------


def debug_file(path):
    """The separate debug file of an installed package; path itself where there is none."""
    found = re.search(r"Build ID: ([0-9a-f]+)", run(["readelf", "-nW", path]))
    separate = found and f"{DEBUG_ROOT}/{found[1][:2]}/{found[1][2:]}.debug"
    return separate if separate and os.path.exists(separate) else path


def without_version(name):
    return name.split("@")[0]


def without_clone(name):
    """Without what compilers add to the name of a clone or a part: .isra.0, .cold, .llvm.1234."""
    return re.sub(r"(\.(isra|part|constprop|cold|lto_priv|llvm|__uniq)(\.\d+)?)+$", "", name)


class Symbols:
    """The functions of a file's symbol tables and of its debug file's, as readelf has them."""

    def __init__(self, path):
        self.debug = debug_file(path)
        self.names = collections.defaultdict(set)  # address: names of what begins there
        self.ends = {}  # address: the farthest end of what begins there
        self.files = set()
        self.own = self.read(path)
        if self.debug != path:
            self.read(self.debug)
        self.stubs = self.read_stubs(path)
        self.starts = sorted(self.names)
        sections = code_sections(path)
        for start, following in zip(self.starts, [*self.starts[1:], None]):
            if self.ends[start] == start:  # without a size: up to the next one, or the end of the section
                ends = [at + size for at, _, size in sections if at <= start < at + size]
                self.ends[start] = min([*ends, following] if following else ends, default=start)
        self.longest = max((end - start for start, end in self.ends.items()), default=0)

    def read(self, path):
        found = set()
        pattern = r"^ *\d+: ([0-9a-f]+) +(\S+) (\S+) +\S+ +\S+ +(\S+) (\S+)"
        for match in re.finditer(pattern, run(["readelf", "-sW", path]), re.M):
            address, size, kind, section, name = match.groups()
            if kind == "FILE":
                self.files.add(name)
            if kind not in ("FUNC", "IFUNC", "NOTYPE") or section in ("UND", "ABS"):
                continue
            address = int(address, 16)
            self.names[address].add(without_version(name))
            self.ends[address] = max(self.ends.get(address, 0), address + int(size, 0))
            found.add(without_version(name))
        return found

    @staticmethod
    def read_stubs(path):
        """{address: name} of the procedure linkage table, as objdump has it."""
        sections = [f"--section={name}" for name in (".plt", ".plt.sec", ".plt.got")]
        text = subprocess.run(["objdump", "-d", *sections, path], capture_output=True, text=True, timeout=LIMIT).stdout
        stubs = re.findall(r"^([0-9a-f]+) <([^>]+)@plt>:", text, re.M)
        return {int(at, 16): f"{without_version(name)}@plt" for at, name in stubs}

    def is_stub(self, name, address):
        return any(self.stubs.get(at) == name for at in range(address - 15, address + 1))

    def at(self, address):
        """The names of all symbols that hold an address."""
        found = set()
        at = bisect.bisect_right(self.starts, address)
        while at and self.starts[at - 1] > address - self.longest - 1:
            at -= 1
            if address < self.ends[self.starts[at]]:
                found |= self.names[self.starts[at]]
        return found

    def share_a_start(self, one, other):
        return any(one in names and other in names for names in self.names.values())


# --- the rules -------------------------------------------------------------------------------------


STUB = "stub of a linkage table: llvm-symbolizer has no names of them"


def structor(name):
    """Constructors and destructors of one class alike: C1 and C2 may be one piece of code."""
    return re.sub(r"([CD])[0-5](?=E)", r"\1_", name)


def name_rule(symbols, address, ours, theirs, physical):
    """Why two names may differ; None: they may not."""
    if not physical:
        return None
    held, theirs = symbols.at(address), without_version(theirs)
    if ours == theirs:
        return "version of a symbol: llvm-symbolizer shows it (read@@GLIBC_2.2.5)"
    if theirs == UNKNOWN:
        # It looks for DWARF in the separate file, but not for symbols. DWARF may lack a function: of assembler, or
        # lost by LTO.
        if ours in held and ours not in symbols.own:
            return "symbol of the separate file: llvm-symbolizer does not read its table"
        return STUB if symbols.is_stub(ours, address) else None
    if symbols.is_stub(ours, address):
        return STUB  # but, for one without a size, that of a function of another section
    base = without_clone(theirs)
    if base not in {without_clone(name) for name in held}:
        return None
    if ours == base:
        # It prefers the symbol to DWARF. A clone is the same source, and names are to add up.
        return "clone: llvm-symbolizer shows the part of a function (grow.isra.0, grow.cold)"
    if symbols.share_a_start(ours, base) or symbols.share_a_start(ours, theirs):
        # Aliases; C1 and C2; functions that the linker has found to be identical.
        return "alias: both symbols begin at the same address"
    if structor(ours) == structor(base):
        return "constructor: DWARF and symbol have different ones for the same code"
    if base != theirs and ours.startswith("_Z") and base.startswith("_Z"):
        # gcc makes one of two parts, and leaves it the debug information of one and the symbol of the other.
        return "folded parts: DWARF and symbol name different functions of the same code"
    return None


def file_rule(symbols, ours, theirs):
    if ours.file == UNKNOWN and ours.line == theirs.line == 0 and theirs.file in symbols.files:
        # As good as nothing: neither a path nor a line.
        return "file of a symbol: llvm-symbolizer shows a FILE symbol where there is no line"
    prefix = theirs.file[: -len(ours.file)]
    if theirs.file == prefix + ours.file and prefix.endswith("/") and prefix[0] != "/" and ours.line == theirs.line:
        # The build has mapped its root away, from the folder and from the paths, so the one does not
        # begin in the other: ./misc/./misc/getttyent.c is no file of libc's sources.
        return "mapped root: llvm-symbolizer joins it with a folder that begins there as well"
    return None


CLAIMS = ("clone", "constructor", "folded parts", "mapped root", "no function")  # of the rules: what gdb is asked about


def explain(symbols, address, ours, theirs):
    """The rules by which two answers differ, empty where they do not; None where no rule explains it."""
    if ours == theirs:
        return []
    if ours == [(UNKNOWN, UNKNOWN, 0)] and not symbols.at(address) and len(theirs) == 1:
        # Padding, mostly: a line table goes on to the next function. Nothing is ever called there.
        if theirs[0].function == UNKNOWN:
            return ["no function: llvm-symbolizer shows the line before it"]
        if theirs[0].line == 0:
            return ["no function: llvm-symbolizer shows a symbol without a size, of the section before"]
    if len(ours) != len(theirs):
        return None
    rules = []
    for number, (our, their) in enumerate(zip(ours, theirs)):
        if our.function != their.function:
            rules.append(name_rule(symbols, address, our.function, their.function, number == len(ours) - 1))
        if (our.file, our.line) != (their.file, their.line):
            rules.append(file_rule(symbols, our, their))
    return None if None in rules else sorted(set(rules))


def same_function(ours, names):
    """Is it one of gdb's names? Where DWARF has no linkage name, it makes one up of the name and the types."""
    readable = re.sub(r"\.cold$", "", run(["c++filt", "-i", ours]).strip())
    plain = re.compile(rf"(^|::){re.escape(ours)}(\(|$)")  # extern "C" in a namespace
    return any(name and (plain.search(name) or name.split("(")[0] == readable.split("(")[0]) for name in names)


def gdb_agrees(rule, ours, answer):
    """Does gdb say what we claim by a rule? None: it does not speak of it."""
    names, file, _ = answer
    if rule.startswith(("clone", "constructor", "folded parts")):
        return bool(names) and same_function(ours[-1].function, names[-1])
    if rule.startswith("mapped root"):
        # Of several rows at one address it may take another one.
        if not file or os.path.basename(file) != os.path.basename(ours[0].file):
            return None
        return ours[0].file.endswith(file)
    return not names


# --- comparing -------------------------------------------------------------------------------------


class Comparison:
    """What came of one file."""

    def __init__(self):
        self.count = self.same = self.inlined = 0
        self.rules = collections.Counter()
        self.unexplained = []

    def describe(self):
        lines = [f"{self.count} addresses, {self.inlined} in inlined calls: {self.same} answers are the same"]
        lines += [f"{count:6} by rule: {rule}" for rule, count in self.rules.most_common()]
        lines += self.unexplained[:5]
        if self.unexplained:
            lines.append(f"{len(self.unexplained)} UNEXPLAINED")
        return "\n".join(lines)


def difference(what, address, ours, theirs):
    levels = ("\n".join(f"    {level}" for level in answer) for answer in (ours, theirs))
    return "{} at {:#x}:\n  alloctrace\n{}\n  llvm-symbolizer\n{}".format(what, address, *levels)


def compare(path, addresses, dump=DUMP, reference=None, claims=20):
    """A Comparison. reference: another file with the same code, which llvm-symbolizer is asked about. claims: of how
    many differences by each rule gdb is asked."""
    found = Comparison()
    symbols = Symbols(path)
    ours, theirs = ask_alloctrace(path, addresses, dump), ask_llvm(reference or path, addresses)
    if not len(addresses) == len(ours) == len(theirs):
        raise AssertionError(f"{path}: {len(addresses)} addresses, {len(ours)} and {len(theirs)} answers")
    to_ask = collections.defaultdict(list)
    for address, our, their in zip(addresses, ours, theirs):
        rules = explain(symbols, address, our, their)
        found.count += 1
        found.inlined += len(our) > 1
        if rules is None:
            found.unexplained.append(difference("different", address, our, their))
            continue
        found.same += not rules
        found.rules.update(rules)
        for rule in rules:
            if rule.startswith(CLAIMS) and len(to_ask[rule]) < claims:
                to_ask[rule].append((address, our, their))
    check_claims(found, to_ask, reference or symbols.debug)
    return found


def check_claims(found, to_ask, path):
    """Asks gdb; what it contradicts, and a rule of which it never speaks, is unexplained."""
    asked = [(rule, *question) for rule, questions in to_ask.items() for question in questions]
    confirmed = dict.fromkeys(to_ask, 0)
    for (rule, address, ours, theirs), answer in zip(asked, ask_gdb(path, [address for _, address, _, _ in asked])):
        agrees = gdb_agrees(rule, ours, answer)
        confirmed[rule] += agrees is True
        if agrees is False:
            found.unexplained.append(difference(f"gdb says {answer}, against '{rule}',", address, ours, theirs))
    found.unexplained += [f"gdb has not confirmed any '{rule}'" for rule, count in confirmed.items() if not count]


def main():
    parser = argparse.ArgumentParser(description="Compares alloctrace's names of addresses with llvm-symbolizer's.")
    parser.add_argument("--dump", default=DUMP, help="the built symbols_dump")
    parser.add_argument("--count", type=int, default=2000, help="of addresses in each file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("files", nargs="+", metavar="FILE")
    options = parser.parse_args()
    fine = True
    for path in options.files:
        found = compare(path, sample(path, options.count, options.seed), options.dump)
        print(f"{path}: {found.describe()}", flush=True)
        fine = fine and not found.unexplained
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
