#!/usr/bin/env python3
"""Makes vmlinux/ARCH/vmlinux.h: the kernel types that bpf/ uses, out of this kernel's BTF.

    tools/vmlinux.py > vmlinux/$(uname -m)/vmlinux.h

bpftool dumps every type of the kernel as C (4 MB). This keeps the roots named below and what they
hold by value; what they only point to stays a forward declaration. Types get CO-RE's attribute, so
offsets are taken from the running kernel, and a build machine needs no BTF of its own.
"""
import re
import subprocess
import sys

BTF = "/sys/kernel/btf/vmlinux"
# A type, or a type with the only fields of it that are wanted (CO-RE finds them by name).
ROOTS = {
    "struct pt_regs": None,
    "enum bpf_map_type": None,
    "struct bpf_perf_event_data": None,
    "typedef __u8": None, "typedef __u16": None, "typedef __u32": None, "typedef __u64": None,
    "typedef __s8": None, "typedef __s16": None, "typedef __s32": None, "typedef __s64": None,
    # What bpf_helper_defs.h mentions.
    "typedef __be16": None, "typedef __be32": None, "typedef __wsum": None,
    "typedef bool": None, "typedef size_t": None,
    "struct task_struct": ["utask", "mm", "tgid", "signal", "thread"],
    "struct bpf_iter__task_vma": None,
    "struct bpf_iter_meta": ["seq"],
    "struct vm_area_struct": ["vm_start", "vm_file"],
    "struct file": ["f_inode"],
    "struct inode": ["i_ino", "i_sb"],
    "struct super_block": ["s_dev"],
    "struct thread_struct": ["fsbase"],
    "struct signal_struct": ["live"],
    "struct mm_struct": ["brk", "start_stack", "uprobes_state"],
    "struct uprobes_state": ["xol_area"],
    "struct xol_area": ["vaddr"],
    "struct uprobe_task": ["depth", "return_instances"],
    "struct return_instance": ["func", "stack", "orig_ret_vaddr", "next"],
}
# Anonymous enums: kept whole if they hold one of these.
CONSTANTS = ["false", "BPF_NOEXIST", "BPF_F_NO_PREALLOC", "BPF_F_USER_STACK", "BPF_LOCAL_STORAGE_GET_F_CREATE",
             "BPF_RB_NO_WAKEUP", "BPF_RB_AVAIL_DATA"]


def definitions(text):
    """(key, text) of each top-level definition; anonymous enums have a key of their first constant."""
    for block in re.split(r"\n\n+", text):
        m = re.match(r"(struct|union|enum) (\w+) \{", block)
        if m:
            yield f"{m[1]} {m[2]}", block
        elif block.startswith("typedef"):
            m = re.search(r"\(\*(\w+)\)|(\w+)(\[\d+\])*;$", block)
            if m:
                yield f"typedef {m[1] or m[2]}", block
        elif block.startswith("enum {"):
            yield "anonymous " + block.split()[2].rstrip(","), block


def main():
    text = subprocess.run(["bpftool", "btf", "dump", "file", BTF, "format", "c"],
                          check=True, capture_output=True, text=True).stdout
    known = dict(definitions(text))
    kept, forward = {}, set()

    def keep(key):
        if key in kept:
            return
        body = known[key]
        fields = ROOTS.get(key)
        if fields:
            lines = body.split("\n")
            wanted = [l for l in lines[1:-1]
                      if re.search(r"\b(%s)(\[\d+\])?;" % "|".join(fields), l)]
            body = "\n".join([lines[0]] + wanted + [lines[-1]])
        kept[key] = None  # holds its place against cycles
        for m in re.finditer(r"\b(struct|union|enum) (\w+)( \*)?", body):
            name = f"{m[1]} {m[2]}"
            if name == key:
                continue
            if m[3]:
                forward.add(name)
            elif name in known:
                keep(name)
        for word in set(re.findall(r"\b\w+\b", body)):
            if f"typedef {word}" in known and f"typedef {word}" != key:
                keep(f"typedef {word}")
        del kept[key]
        kept[key] = body  # after what it needs

    for key in ROOTS:
        keep(key)
    for key, body in known.items():
        if key.startswith("anonymous") and any(re.search(rf"\b{c}\b", body) for c in CONSTANTS):
            keep(key)
    arch = subprocess.run(["uname", "-m"], check=True, capture_output=True, text=True).stdout.strip()
    out = [f"/* Kernel types for CO-RE ({arch}), made by tools/vmlinux.py from BTF. Do not edit. */",
           "#ifndef __VMLINUX_H__\n#define __VMLINUX_H__",
           "#ifndef BPF_NO_PRESERVE_ACCESS_INDEX\n#pragma clang attribute push "
           "(__attribute__((preserve_access_index)), apply_to = record)\n#endif"]
    out += sorted(f"{name};" for name in forward if name not in kept)
    # Structs that are both kept and pointed to from above are declared first.
    out += sorted(f"{name};" for name in kept if name.startswith("struct "))
    out += [body for body in kept.values()]
    out += ["#ifndef BPF_NO_PRESERVE_ACCESS_INDEX\n#pragma clang attribute pop\n#endif\n#endif"]
    sys.stdout.write("\n\n".join(out) + "\n")


main()
