"""The probe sites in every libc and allocator package of Debian are right, by other sources than our own.

Those are: nm for the functions, objdump for the boundaries of instructions and for jumps, a table of what
the kernel emulates, and a processor (unicorn) that runs a function up to the site with a value of its own
in each register.
"""

import bisect
import functools
import itertools
import os
import random
import re
import struct
import unittest

from debs import FAMILY, fetch, libraries_in, output_of, sites_of
from lib import Case, read_bytes

try:
    import unicorn
    from unicorn import x86_const
except ImportError:
    unicorn = None

# C++: operators new and delete, where an allocator has its own.
OPERATORS = {"_Znwm": [0], "_Znam": [0], "_ZdlPv": [0], "_ZdaPv": [0]}
REGISTERS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
ARGUMENTS = "rdi rsi rdx rcx r8 r9".split()
LINE_MAX = 64  # bytes from the entry in which a site is looked for

# arch/x86/kernel/uprobes.c, branch_setup_xol_ops() and push_setup_xol_ops(), without prefixes: nop, push,
# push r8-r15, jmp, jcc (short), call and jmp, jcc (near).
EMULATED = re.compile("90|5[0-7]|415[0-7]|eb..|7...|e[89].{8}|0f8[0-9a-f].{8}")
# arch/arm64/kernel/probes/decode-insn.c
SIMULATED = {"b", "bl", "cbz", "cbnz", "tbz", "tbnz", "adr", "adrp", "br", "blr", "ret"}
ENDS = {"ret", "call", "syscall", "sysenter", "int", "int3", "int1", "hlt", "ud0", "ud1", "ud2", "xbegin", "iretq"}
PREFIXES = {"bnd", "notrack", "rep", "repz", "repnz", "lock", "data16", "cs", "ds", "es", "ss", "addr32"}

# What was measured by hand, before the chooser existed: instruction, offset, registers.
MEASURED = {
    ("libc6", "2.31-"): {
        "malloc": ("push", 7, "rdi"), "free": ("jne", 17, "rdi"), "calloc": ("push", 0, "rdi,rsi"),
        "realloc": ("push", 0, "rdi,rsi"), "posix_memalign": ("push", 0, "rdi,rdx"),
        "aligned_alloc": ("jmp", 4, "rsi"), "memalign": ("jmp", 4, "rsi"),
    },
    ("libc6", "2.36-"): {
        "malloc": ("push", 0, "rdi"), "free": ("je", 3, "rdi"), "calloc": ("push", 0, "rdi,rsi"),
        "realloc": ("push", 0, "rdi,rsi"), "posix_memalign": ("push", 7, "rdi,rdx"),
        "aligned_alloc": ("je", 7, "rsi"), "memalign": ("je", 7, "rsi"),
    },
    ("libc6", "2.41-"): {
        "malloc": ("push", 0, "rdi"), "free": ("je", 3, "rdi"), "calloc": ("push", 0, "rdi,rsi"),
        "realloc": ("push", 0, "rdi,rsi"), "posix_memalign": ("push", 7, "rdi,rdx"),
        "aligned_alloc": ("push", 0, "rsi"), "memalign": ("je", 7, "rsi"),
    },
    ("libjemalloc2", "5.3.0-1"): {
        "malloc": ("ja", 7, "rdi"), "free": ("jne", None, "rdi"), "calloc": ("push", 0, "rdi,rsi"),
        "realloc": ("push", 0, "rdi,rsi"), "_Znwm": ("ja", 7, "rdi"),
    },
    ("libtcmalloc-minimal4", "2.10-"): {
        "malloc": ("jne", 10, "rdi"), "free": ("jne", 10, "rdi"), "calloc": ("push", 0, "rdi,rsi"),
        "realloc": ("push", 0, "rdi,rsi"), "_Znwm": ("jne", 10, "rdi"),
    },
    ("libmimalloc2.0", "2.0.9+"): {
        "malloc": ("ja", 21, "rsi"), "free": ("je", 6, "rdi"), "calloc": ("je", 18, "rax,rsi"),
        "realloc": ("jmp", 20, "rsi,rdx"), "_Znwm": ("push", 0, "rdi"),
    },
    ("musl", "1.2.3-"): {
        "malloc": ("jmp", 0, "rdi"), "free": ("jmp", 0, "rdi"), "calloc": ("push", 0, "rdi,rsi"),
        "realloc": ("jmp", 0, "rdi,rsi"),
    },
}  # fmt: skip


@functools.lru_cache(maxsize=None)
def functions_of(path):
    """{name: {(address, size)}} by nm. Not of indirect functions."""
    found = {}
    for line in output_of("nm", "-D", "-S", "--defined-only", path).splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] in "TtWw":
            found.setdefault(fields[3].split("@")[0], set()).add((int(fields[0], 16), int(fields[1], 16)))
    return found


class Instruction:
    TARGET = re.compile("([0-9a-f]+)( |$)")

    def __init__(self, address, code, text):
        self.address = address
        self.code = code  # as hexadecimal digits
        words = text.split()
        while len(words) > 1 and (words[0] in PREFIXES or words[0].startswith("rex")):
            words.pop(0)
        self.mnemonic = words[0]
        self.operands = " ".join(words[1:])
        # Does anything but the next instruction follow, and where is it?
        self.transfers = self.mnemonic[0] == "j" or self.mnemonic in ENDS or self.mnemonic.startswith("loop")
        target = self.TARGET.match(self.operands) if self.transfers else None
        self.target = int(target[1], 16) if target else None

    @property
    def end(self):
        return self.address + len(self.code) // 2

    @property
    def is_emulated(self):
        return EMULATED.fullmatch(self.code) is not None


class Listing:
    """What objdump says about all the code of a file."""

    LINE = re.compile(r"^ *([0-9a-f]+):\t([0-9a-f ]+?) *\t(.+)$")

    def __init__(self, path):
        self.at = {}
        for line in output_of("objdump", "-d", "-w", path).splitlines():
            match = self.LINE.match(line)
            if match:
                insn = Instruction(int(match[1], 16), match[2].replace(" ", ""), match[3])
                self.at[insn.address] = insn
        self.jumps = sorted((insn.target, insn.address) for insn in self.at.values() if insn.target is not None)

    def function(self, entry, size):
        address = entry
        while address < entry + size and address in self.at:
            yield self.at[address]
            address = self.at[address].end

    def line(self, entry, size):
        """The instructions that are run in any case, from the entry to the first that may lead elsewhere."""
        for insn in self.function(entry, size):
            yield insn
            if insn.transfers:
                return

    def jump_between(self, entry, site):
        """(target, where from) of a jump to behind the entry, and not further than the site; or None."""
        i = bisect.bisect_left(self.jumps, (entry + 1, 0))
        return self.jumps[i] if i < len(self.jumps) and self.jumps[i][0] <= site else None


class Machine:
    """A processor with a file's code and data where they are linked; all other memory is zero."""

    PAGE = 0x1000
    STACK = 0x7FFF_0000_0000

    def __init__(self, path):
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.mapped = set()
        self.uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self.on_unmapped)
        data = read_bytes(path)
        headers, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
        for i in range(count):
            kind, _, offset, vaddr, _, file_size, _, _ = struct.unpack_from("<IIQQQQQQ", data, headers + i * size)
            if kind == 1:
                self.write(vaddr, data[offset : offset + file_size])
        self.write(self.STACK - self.PAGE, bytes(2 * self.PAGE))
        self.uc.reg_write(x86_const.UC_X86_REG_FS_BASE, self.STACK + 16 * self.PAGE)

    def map(self, address, size):
        for page in range(address // self.PAGE, (address + size - 1) // self.PAGE + 1):
            if page not in self.mapped:
                self.uc.mem_map(page * self.PAGE, self.PAGE)
                self.mapped.add(page)

    def write(self, address, data):
        self.map(address, len(data))
        self.uc.mem_write(address, bytes(data))

    def on_unmapped(self, _uc, _access, address, size, _value, _user):
        self.map(address, size)
        return True

    @staticmethod
    def register(name):
        return getattr(x86_const, f"UC_X86_REG_{name.upper()}")

    def run(self, entry, site, seed):
        """The registers before and after, as {name: value}."""
        rng = random.Random(seed)
        before = {}
        for name in REGISTERS:
            # Like an address in user space, so that it can be one; distinct, and in each half of 32 bits.
            before[name] = rng.randrange(1 << 32, 1 << 46) & ~0xF | len(before)
        before["rsp"] = self.STACK - 8
        for name, value in before.items():
            self.uc.reg_write(self.register(name), value)
        if site != entry:
            self.uc.emu_start(entry, site, count=LINE_MAX)
            at = self.uc.reg_read(x86_const.UC_X86_REG_RIP)
            if at != site:
                raise AssertionError(f"from {entry:x} the processor came to {at:x}, not to {site:x}")
        return before, {name: self.uc.reg_read(self.register(name)) for name in REGISTERS}

    def holders(self, entry, site, arguments):
        """(for each argument, the registers that hold it at the site; is rsp as it was?)"""
        sets = [set(REGISTERS) for _ in arguments]
        stack_intact = True
        for seed in range(3):
            before, after = self.run(entry, site, seed)
            for i, argument in enumerate(arguments):
                sets[i] &= {name for name in REGISTERS if after[name] == before[ARGUMENTS[argument]]}
            stack_intact &= after["rsp"] == before["rsp"]
        return sets, stack_intact


class Library:
    """A file with an allocator, and what is wrong with the sites in it."""

    def __init__(self, path, sites, left_out):
        self.path = path
        self.sites = sites
        self.left_out = left_out  # names of functions that are not probed
        self.listing = Listing(path)
        self.machine = Machine(path)
        self.wrong = []

    def problem(self, site, text):
        self.wrong.append(f"{self.path}: {site.name}+{site.offset}: {text}")

    def check(self):
        functions = functions_of(self.path)
        known = {site.entry for site in self.sites}
        known |= {address for name in self.left_out for address, _ in functions.get(name, ())}
        for name in [*FAMILY, *OPERATORS]:
            for address, _ in functions.get(name, ()):
                if address not in known:
                    self.wrong.append(f"{self.path}: {name} at {address:x} is neither probed nor left out")
        for site in self.sites:
            if (site.entry, site.size) not in functions[site.name]:
                self.problem(site, f"not where nm sees it: {functions[site.name]}")
            self.check_site(site)

    def check_site(self, site):
        line = {insn.address: insn for insn in self.listing.line(site.entry, site.size)}
        insn = line.get(site.address)
        if not insn:
            self.problem(site, "no instruction on the straight line from the entry")
            return
        jump = self.listing.jump_between(site.entry, site.address)
        if jump:
            self.problem(site, f"{jump[1]:x} jumps to {jump[0]:x}")
        if site.emulated != insn.is_emulated:
            self.problem(site, f"claims to be {'' if site.emulated else 'not '}emulated: {insn.code}")
        if not site.emulated and site.offset:
            self.problem(site, "single-stepped, and not at the entry")

        wanted = [argument for argument, _ in site.places]
        if wanted != {**FAMILY, **OPERATORS}.get(site.name, wanted):
            self.problem(site, f"arguments {wanted} are not those that tell")
        holders, stack_intact = self.machine.holders(site.entry, site.address, wanted)
        for (argument, register), actual in zip(site.places, holders, strict=True):
            if register not in actual:
                self.problem(site, f"argument {argument} is not in {register} but in {actual or 'no register'}")
            elif ARGUMENTS[argument] in actual and register != ARGUMENTS[argument]:
                self.problem(site, f"argument {argument} is still in its own register, not only in {register}")
        if not stack_intact and not site.frees:
            self.problem(site, "the stack pointer has changed")
        self.check_first(site, line, wanted)

    def check_first(self, site, line, wanted):
        """Nothing emulated before it would have done; and where it is the entry, nothing behind."""
        if any(insn.mnemonic == "jmp" and "*" in insn.operands for insn in self.listing.function(site.entry, site.size)):
            return  # perhaps a switch, whose targets are not known
        for insn in line.values():
            if insn.address - site.entry >= LINE_MAX or (site.emulated and insn.address >= site.address):
                return
            if not insn.is_emulated or self.listing.jump_between(site.entry, insn.address):
                continue
            try:
                holders, stack_intact = self.machine.holders(site.entry, insn.address, wanted)
            except unicorn.UcError:
                return  # a division by what is zero here: it cannot be run to there
            if all(holders) and (stack_intact or site.frees):
                self.problem(site, f"+{insn.address - site.entry} {insn.mnemonic} would have done")
                return

    def check_measured(self, package, version):
        """How many of its sites are in the table of what was measured."""
        measured = next((m for (p, v), m in MEASURED.items() if p == package and version.startswith(v)), {})
        if not re.match(r"libc[.-].*so|libjemalloc|libtcmalloc_minimal\.so|libmimalloc", os.path.basename(self.path)):
            return 0
        checked = 0
        for name, (mnemonic, offset, registers) in measured.items():
            places = {address for address, _ in functions_of(self.path)[name]}
            for site in (site for site in self.sites if site.entry in places):
                insn = self.listing.at.get(site.address)
                found = (insn and insn.mnemonic, site.offset if offset is not None else None, site.registers)
                if found != (mnemonic, offset, registers) or not site.emulated:
                    self.problem(site, f"{found}, but {(mnemonic, offset, registers)} was measured")
                checked += 1
        return checked

    def table(self, package):
        file = f"{package:32} {os.path.basename(self.path):36}"
        for name in sorted(self.left_out):
            yield f"{file} {name:28} left out"
        for site in self.sites:
            insn = self.listing.at.get(site.address)
            yield (
                f"{file} {site.name:28} "
                f"{insn.mnemonic if insn else '?':8} +{site.offset:<3} "
                f"{'emulated' if site.emulated else 'stepped':9} {site.registers}"
            )


def by_path(sites):
    """(path, its sites) of each file; sites are in this order already."""
    return [(path, list(group)) for path, group in itertools.groupby(sites, lambda site: site.path)]


class Suite(Case):
    limit = 1800  # downloads

    def fetch(self, suite, arch):
        found, missing = fetch(suite, arch)
        if not found:
            self.skipTest("; ".join(missing))
        return found, missing

    def conclude(self, sites, missing):
        if missing:
            self.skipTest(f"{sites} sites are right; " + "; ".join(missing))
        self.assertGreaterEqual(sites, 30)


class Sites(Suite):
    def check_suite(self, suite, measured):
        if not unicorn:
            self.skipTest("python3-unicorn is not installed")
        found, missing = self.fetch(suite, "amd64")
        wrong, sites, as_measured = [], 0, 0
        for package, version, folder in found:
            all_sites, left_out = sites_of(libraries_in(folder))
            for path, of_path in by_path(all_sites):
                library = Library(path, of_path, left_out.get(path, set()))
                library.check()
                as_measured += library.check_measured(package, version)
                print("\n".join(library.table(f"{package} {version}")))
                wrong += library.wrong
                sites += len(of_path)
        self.assertFalse(wrong, "\n".join(wrong))
        self.conclude(sites, missing)
        self.assertGreaterEqual(as_measured, measured)

    def test_sites_in_bullseye(self):
        self.check_suite("bullseye", 7)

    def test_sites_in_bookworm(self):
        self.check_suite("bookworm", 22)

    def test_sites_in_trixie(self):
        self.check_suite("trixie", 7)

    def test_sites_in_sid(self):
        self.check_suite("sid", 0)


class Arm64Sites(Suite):
    """A return probe has to be where the return address is still in x30, as it was at the entry."""

    @staticmethod
    def listing(path, sites):
        """[(address, mnemonic, operands)] of all the code from the first function to the last."""
        text = output_of(
            "llvm-objdump", "-d", "--no-show-raw-insn", f"--start-address={min(site.entry for site in sites)}",
            f"--stop-address={max(site.entry + max(site.size, 4) for site in sites)}", path,
        )  # fmt: skip
        code = re.findall(r"^ *([0-9a-f]+): +\t(\S+)\t?(.*)$", text, re.M)
        return [(int(address, 16), mnemonic, operands) for address, mnemonic, operands in code]

    def check_site(self, site, code):
        """code: of the function."""
        self.assertEqual(code[0][0], site.entry)
        self.assertIn((site.entry, site.size), functions_of(site.path)[site.name])
        for address, mnemonic, operands in code:
            # hint 25 is paciasp.
            if "x30" in operands or mnemonic in ("bl", "blr", "paciasp") or (mnemonic, operands) == ("hint", "#25"):
                self.assertLessEqual(site.address, address)
                break
        # Nothing before it may change a register.
        self.assertEqual(site.offset, 0)
        mnemonic = code[0][1]
        self.assertEqual(site.emulated, mnemonic in SIMULATED or mnemonic.startswith("b."), mnemonic)
        wanted = [argument for argument, _ in site.places]
        self.assertEqual(wanted, {**FAMILY, **OPERATORS}.get(site.name, wanted))
        self.assertEqual(site.places, [(argument, f"x{argument}") for argument in wanted])

    def check_suite(self, suite):
        found, missing = self.fetch(suite, "arm64")
        count = 0
        for package, version, folder in found:
            all_sites, _ = sites_of(libraries_in(folder))
            for path, sites in by_path(all_sites):
                listing = self.listing(path, sites)
                addresses = [address for address, _, _ in listing]
                for site in sites:
                    first = bisect.bisect_left(addresses, site.entry)
                    last = bisect.bisect_left(addresses, site.entry + max(site.size, 4))
                    with self.subTest(f"{package} {version} {os.path.basename(path)} {site.name}"):
                        self.check_site(site, listing[first:last])
                    count += 1
        self.conclude(count, missing)

    def test_arm64_sites_in_bookworm(self):
        self.check_suite("bookworm")

    def test_arm64_sites_in_trixie(self):
        self.check_suite("trixie")

    def test_arm64_sites_in_sid(self):
        self.check_suite("sid")


if __name__ == "__main__":
    unittest.main()
