#include "binary/x86_insn.h"

#include <Zydis/Zydis.h>

static bool decoder_init(ZydisDecoder *decoder)
{
	return ZYAN_SUCCESS(
		ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64));
}

static enum x86_flow flow_of(const ZydisDecodedInstruction *insn)
{
	switch (insn->mnemonic) {
	case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_HLT:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
		return X86_FLOW_END;
	default:
		break;
	}
	switch (insn->meta.category) {
	case ZYDIS_CATEGORY_CALL:
		return X86_FLOW_CALL;
	case ZYDIS_CATEGORY_UNCOND_BR:
		return X86_FLOW_JUMP;
	case ZYDIS_CATEGORY_COND_BR:
		return X86_FLOW_BRANCH;
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_SYSRET:
		return X86_FLOW_END;
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSCALL:
		return X86_FLOW_SYSTEM;
	default:
		/* xbegin and whatever else has a relative operand. */
		return insn->raw.imm[0].is_relative ? X86_FLOW_BRANCH : X86_FLOW_NEXT;
	}
}

bool x86_insn_decode(const uint8_t *code, size_t size, uint64_t vaddr, struct x86_insn *out)
{
	ZydisDecodedInstruction insn;
	ZydisDecoderContext context;
	ZydisDecoder decoder;
	bool has_sib;

	if (!size || !decoder_init(&decoder) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &context, code, size, &insn)))
		return false;

	has_sib = (insn.attributes & ZYDIS_ATTRIB_HAS_SIB) && insn.raw.modrm.mod != 3;
	*out = (struct x86_insn){
		.length = insn.length,
		.flow = flow_of(&insn),
		.is_return = insn.meta.category == ZYDIS_CATEGORY_RET,
		.condition = insn.opcode & 15,
		.is_endbr = insn.mnemonic == ZYDIS_MNEMONIC_ENDBR64,
		.is_table_load = insn.mnemonic == ZYDIS_MNEMONIC_MOVSXD && has_sib &&
				 insn.raw.sib.scale == 2,
	};
	if (insn.raw.imm[0].is_relative) {
		out->has_target = true;
		out->target = vaddr + insn.length + insn.raw.imm[0].value.u;
	}
	if ((insn.attributes & ZYDIS_ATTRIB_HAS_MODRM) && insn.raw.modrm.mod == 0 &&
	    insn.raw.modrm.rm == 5) {
		out->has_slot = true;
		out->slot = vaddr + insn.length + (uint64_t)insn.raw.disp.value;
	}
	if (out->flow == X86_FLOW_JUMP && !out->has_target) {
		/* SIB index 4 without REX.X: no index. */
		out->is_table_jump = (insn.attributes & ZYDIS_ATTRIB_HAS_NOTRACK) ||
				     (has_sib && (insn.raw.sib.index != 4 || insn.raw.rex.X));
		out->is_register_jump = insn.raw.modrm.mod == 3;
	}
	return true;
}

static bool is_whole(const ZydisDecodedOperand *operand)
{
	return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_GPR64;
}

bool x86_insn_writes(const uint8_t *code, size_t size, struct x86_writes *out)
{
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction insn;
	struct x86_writes writes = {0};
	ZydisDecoder decoder;

	if (!size || !decoder_init(&decoder) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, size, &insn, operands)))
		return false;
	for (unsigned int i = 0; i < insn.operand_count; i++) {
		ZydisRegister whole;

		if (operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
							 operands[i].reg.value);
		if (ZydisRegisterGetClass(whole) == ZYDIS_REGCLASS_GPR64)
			writes.registers |= 1U << ZydisRegisterGetId(whole);
	}
	if (insn.mnemonic == ZYDIS_MNEMONIC_MOV && is_whole(&operands[0]) &&
	    is_whole(&operands[1])) {
		writes.is_copy = true;
		writes.to = (uint8_t)ZydisRegisterGetId(operands[0].reg.value);
		writes.from = (uint8_t)ZydisRegisterGetId(operands[1].reg.value);
	}
	*out = writes;
	return true;
}
