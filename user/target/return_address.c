#include "target/return_address.h"

#include "binary/image.h"

#include <elf.h>
#include <string.h>

/* The longest call instruction without prefixes: ff /2 with SIB and 32-bit displacement. */
#define CALL_MAX 7
/* No function is longer, as far as this is concerned. */
#define FUNCTION_MAX (8u << 10)

/* Bytes of a call by ff /2 whose ModRM byte and what follows are given. 0: it is none. */
static int length_of_indirect(const uint8_t *modrm)
{
	int mod = modrm[0] >> 6, rm = modrm[0] & 7, length = 2;

	if ((modrm[0] >> 3 & 7) != 2)
		return 0;
	if (mod != 3 && rm == 4) {
		length++;
		if (mod == 0 && (modrm[1] & 7) == 5)
			length += 4;
	}
	if (mod == 1)
		length++;
	else if (mod == 2 || (mod == 0 && rm == 5))
		length += 4;
	return length;
}

/* code: the CALL_MAX bytes before a return address. */
static bool is_indirect(const uint8_t code[CALL_MAX])
{
	for (int length = 2; length <= CALL_MAX; length++) {
		const uint8_t *at = code + CALL_MAX - length;

		if (at[0] == 0xff && length_of_indirect(at + 1) == length)
			return true;
	}
	return false;
}

enum return_address return_address_check(const struct process *process, uint64_t word, uint64_t pc)
{
	const struct mapping *caller = process_find(process, word - 1);
	uint8_t code[CALL_MAX];
	uint64_t vaddr, target;
	int32_t distance;

	if (!caller || !caller->image || caller->image->machine != EM_X86_64 ||
	    word < caller->start + CALL_MAX ||
	    !image_offset_to_vaddr(caller->image, word - CALL_MAX - caller->start + caller->offset,
				   &vaddr) ||
	    image_read(caller->image, vaddr, code, sizeof(code)))
		return RETURN_ADDRESS_NONE;
	if (code[CALL_MAX - 5] == 0xe8) {
		memcpy(&distance, code + CALL_MAX - 4, sizeof(distance));
		target = word + (uint64_t)(int64_t)distance;
		if (caller != process_find(process, target))
			return RETURN_ADDRESS_NONE; /* no code calls past its image */
		if (caller != process_find(process, pc))
			return RETURN_ADDRESS_MATCHES;
		return target <= pc && pc - target < FUNCTION_MAX ? RETURN_ADDRESS_MATCHES
								  : RETURN_ADDRESS_OTHER;
	}
	return is_indirect(code) ? RETURN_ADDRESS_MATCHES : RETURN_ADDRESS_NONE;
}
