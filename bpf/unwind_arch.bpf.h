/* What the walk has to know of an architecture: where a signal frame keeps the interrupted
 * registers. */
#ifndef ALLOCTRACE_UNWIND_ARCH_BPF_H
#define ALLOCTRACE_UNWIND_ARCH_BPF_H

#if defined(__TARGET_ARCH_x86)
#define SIGFRAME_SP UNWIND_SIGFRAME_X86_64_SP
#define SIGFRAME_FP UNWIND_SIGFRAME_X86_64_FP
#define SIGFRAME_PC UNWIND_SIGFRAME_X86_64_PC
#else
#error "the walk does not know this architecture"
#endif

#endif
