/* A target's registers by their number, and what a conditional jump goes by. */
#ifndef ALLOCTRACE_REGISTERS_BPF_H
#define ALLOCTRACE_REGISTERS_BPF_H

#if defined(__TARGET_ARCH_x86)
#define PAGE_SIZE 4096ULL

/*
 * A register by its number, as instructions encode it. The barriers keep clang from making one load
 * at a computed offset of all of these, which the verifier refuses.
 */
static __noinline __u64 read_register(struct pt_regs *ctx, __u32 number)
{
	__u64 value;

#define REGISTER(n, field)                                                                         \
	case n:                                                                                    \
		value = ctx->field;                                                                \
		barrier_var(value);                                                                \
		return value;

	switch (number) {
		REGISTER(0, ax)
		REGISTER(1, cx)
		REGISTER(2, dx)
		REGISTER(3, bx)
		REGISTER(4, sp)
		REGISTER(5, bp)
		REGISTER(6, si)
		REGISTER(7, di)
		REGISTER(8, r8)
		REGISTER(9, r9)
		REGISTER(10, r10)
		REGISTER(11, r11)
		REGISTER(12, r12)
		REGISTER(13, r13)
		REGISTER(14, r14)
	default:
		value = ctx->r15;
		barrier_var(value);
		return value;
	}
#undef REGISTER
}

#define FLAG_CARRY    (1 << 0)
#define FLAG_PARITY   (1 << 2)
#define FLAG_ZERO     (1 << 6)
#define FLAG_SIGN     (1 << 7)
#define FLAG_OVERFLOW (1 << 11)

/* Will the conditional jump at which the program was hit be taken? Intel SDM vol. 1, appendix B. */
static __always_inline bool condition_holds(struct pt_regs *ctx, __u32 condition)
{
	__u64 flags = ctx->flags;
	bool less = !(flags & FLAG_SIGN) != !(flags & FLAG_OVERFLOW), holds;

	switch (condition >> 1) {
	case 0:
		holds = flags & FLAG_OVERFLOW;
		break;
	case 1:
		holds = flags & FLAG_CARRY;
		break;
	case 2:
		holds = flags & FLAG_ZERO;
		break;
	case 3:
		holds = flags & (FLAG_CARRY | FLAG_ZERO);
		break;
	case 4:
		holds = flags & FLAG_SIGN;
		break;
	case 5:
		holds = flags & FLAG_PARITY;
		break;
	case 6:
		holds = less;
		break;
	default:
		holds = less || (flags & FLAG_ZERO);
		break;
	}
	return holds != (condition & 1); /* an odd code is the opposite */
}
#else
#error "this architecture is not known"
#endif

#endif
