#include "target/python.h"

#include "binary/symtab.h"
#include "target/process.h"
#include "util/cleanup.h"
#include "util/hash_index.h"
#include "util/reader.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define NAME_CHARACTERS_MAX 1024
#define LINE_TABLE_MAX	    (1 << 20)

/* Where a version keeps what the user side reads. */
struct code_layout {
	uint32_t type; /* of an object */
	uint32_t file, first_line;
	uint32_t bytes_size, bytes_data;
	uint32_t text_length, text_state, text_data, text_wide_data;
};

/* Which code object it is. */
struct identity {
	uint64_t address;
	uint64_t parts[2]; /* python_target, code_identity */
};

struct code {
	struct identity identity;
	char *name, *file;   /* owned; NULL: it could not be read */
	uint8_t *line_table; /* owned */
	size_t line_table_size;
	uint32_t first_line;
};

struct python {
	struct {
		const struct image **items; /* borrowed from the process */
		size_t count, capacity;
	} looked_at;
	const struct image *image; /* borrowed; NULL: no interpreter */
	struct python_target target;
	struct code_layout layout;
	uint64_t code_type; /* address of PyCode_Type */
	struct {
		struct code *items;
		size_t count, capacity;
	} codes;
	struct hash_index index;
};

/* --- its memory --- */

static bool read_memory(const struct process *process, uint64_t address, void *to, size_t size)
{
	struct iovec local = {to, size};
	struct iovec remote = {(void *)(uintptr_t)address, size};

	return process_vm_readv(process->pid, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

static bool read_word(const struct process *process, uint64_t address, uint64_t *word)
{
	return read_memory(process, address, word, sizeof(*word));
}

/* --- where it is --- */

struct symbols {
	uint64_t runtime, version, code_type; /* link-time addresses; 0: none */
};

static int find_symbols(const struct image *image, struct symbols *out)
{
	struct symtab table;
	Elf64_Sym symbol;
	const char *name;
	int err = symtab_load(image, ".dynsym", ".dynstr", &table);

	*out = (struct symbols){0};
	if (err)
		return err == -ENOMEM ? err : 0;
	for (size_t i = 0; symtab_get(&table, i, &symbol, &name); i++) {
		if (symbol.st_shndx == SHN_UNDEF)
			continue;
		if (!strcmp(name, "_PyRuntime"))
			out->runtime = symbol.st_value;
		else if (!strcmp(name, "Py_Version"))
			out->version = symbol.st_value;
		else if (!strcmp(name, "PyCode_Type"))
			out->code_type = symbol.st_value;
	}
	symtab_deinit(&table);
	return 0;
}

static bool find_bias(const struct process *process, const struct image *image, uint64_t *bias)
{
	vec_for_each(mapping, &process->mappings) {
		if (mapping->image == image && !mapping->moved &&
		    image_bias(image, mapping->start, mapping->offset, bias))
			return true;
	}
	return false;
}

/* Include/internal/pycore_{runtime,interp,frame}.h and cpython/{pystate,code,unicodeobject}.h of 3.11. */
static const struct python_target target_3_11 = {
	.interpreters = 40,
	.interpreter_next = 0,
	.interpreter_threads = 16,
	.thread_next = 8,
	.thread_id = 152,
	.thread_frame = 56,
	.c_frames = 1,
	.c_frame_current = 8,
	.c_frame_next = 16,
	.frame_code = 32,
	.frame_previous = 48,
	.frame_instruction = 56,
	.frame_owner = 68, /* is_entry */
	.code_start = 184,
	.code_identity = 128,
};

static const struct code_layout layout_3_11 = {
	.type = 8,
	.file = 112,
	.first_line = 72,
	.bytes_size = 16,
	.bytes_data = 32,
	.text_length = 16,
	.text_state = 32,
	.text_data = 48,
	.text_wide_data = 72,
};

static const struct python_target target_3_12 = {
	.interpreters = 40,
	.interpreter_next = 0,
	.interpreter_threads = 72,
	.thread_next = 8,
	.thread_id = 136,
	.thread_frame = 56,
	.c_frames = 1,
	.c_frame_current = 0,
	.frame_code = 0,
	.frame_previous = 8,
	.frame_instruction = 56,
	.frame_owner = 70,
	.code_start = 192,
	.code_identity = 128,
};

static const struct code_layout layout_3_12 = {
	.type = 8,
	.file = 112,
	.first_line = 68,
	.bytes_size = 16,
	.bytes_data = 32,
	.text_length = 16,
	.text_state = 32,
	.text_data = 40,
	.text_wide_data = 56,
};

/* struct _Py_DebugOffsets of 3.13, in its order. */
struct debug_offsets {
	char cookie[8];
	uint64_t version, free_threaded;
	struct {
		uint64_t size, finalizing, interpreters_head;
	} runtime;
	struct {
		uint64_t size, id, next, threads_head, gc, imports_modules, sysdict, builtins,
			ceval_gil, gil_runtime_state, gil_runtime_state_enabled,
			gil_runtime_state_locked, gil_runtime_state_holder;
	} interpreter;
	struct {
		uint64_t size, prev, next, interp, current_frame, thread_id, native_thread_id,
			datastack_chunk, status;
	} thread;
	struct {
		uint64_t size, previous, executable, instr_ptr, localsplus, owner;
	} frame;
	struct {
		uint64_t size, filename, name, qualname, linetable, firstlineno, argcount,
			localsplusnames, localspluskinds, co_code_adaptive;
	} code;
	struct {
		uint64_t size, ob_type;
	} object;
	struct {
		uint64_t size, tp_name, tp_repr, tp_flags;
	} type;
	struct {
		uint64_t size, ob_item, ob_size;
	} tuple, list;
	struct {
		uint64_t size, ma_keys, ma_values;
	} dict;
	struct {
		uint64_t size, ob_fval;
	} number;
	struct {
		uint64_t size, lv_tag, ob_digit;
	} integer;
	struct {
		uint64_t size, ob_size, ob_sval;
	} bytes;
	struct {
		uint64_t size, state, length, asciiobject_size;
	} text;
};

/*
 * As the file has them, which is what a process has at its start, too. False: not what they should be.
 * Offsets that are too large for a structure wrap; by whatever they are, reads may fail.
 */
static bool read_offsets(const struct image *image, uint64_t runtime, struct python *python)
{
	struct debug_offsets offsets;

	if (image_read(image, runtime, &offsets, sizeof(offsets)) ||
	    memcmp(offsets.cookie, "xdebugpy", sizeof(offsets.cookie)) || offsets.free_threaded ||
	    offsets.code.linetable != offsets.code.qualname + 8)
		return false;
	python->target = (struct python_target){
		.interpreters = (uint32_t)offsets.runtime.interpreters_head,
		.interpreter_next = (uint32_t)offsets.interpreter.next,
		.interpreter_threads = (uint32_t)offsets.interpreter.threads_head,
		.thread_next = (uint32_t)offsets.thread.next,
		.thread_id = (uint32_t)offsets.thread.thread_id,
		.thread_frame = (uint32_t)offsets.thread.current_frame,
		.frame_code = (uint32_t)offsets.frame.executable,
		.frame_previous = (uint32_t)offsets.frame.previous,
		.frame_instruction = (uint32_t)offsets.frame.instr_ptr,
		.frame_owner = (uint32_t)offsets.frame.owner,
		.code_start = (uint32_t)offsets.code.co_code_adaptive,
		.code_identity = (uint32_t)offsets.code.qualname,
	};
	python->layout = (struct code_layout){
		.type = (uint32_t)offsets.object.ob_type,
		.file = (uint32_t)offsets.code.filename,
		.first_line = (uint32_t)offsets.code.firstlineno,
		.bytes_size = (uint32_t)offsets.bytes.ob_size,
		.bytes_data = (uint32_t)offsets.bytes.ob_sval,
		.text_length = (uint32_t)offsets.text.length,
		.text_state = (uint32_t)offsets.text.state,
		.text_data = (uint32_t)offsets.text.asciiobject_size,
		/* PyCompactUnicodeObject: the UTF-8 form and its length stand between. */
		.text_wide_data = (uint32_t)offsets.text.asciiobject_size + 16,
	};
	return true;
}

/* What is where in this version. False: it is none that is known. */
static bool choose_layout(const struct image *image, const struct symbols *symbols,
			  struct python *python)
{
	uint32_t version;

	if (image_read(image, symbols->version, &version, sizeof(version)))
		return false;
	switch (version >> 16) {
	case 0x30b:
		python->target = target_3_11;
		python->layout = layout_3_11;
		return true;
	case 0x30c:
		python->target = target_3_12;
		python->layout = layout_3_12;
		return true;
	case 0x30d:
		return read_offsets(image, symbols->runtime, python);
	default:
		return false;
	}
}

static bool is_looked_at(const struct python *python, const struct image *image)
{
	vec_for_each(other, &python->looked_at) {
		if (*other == image)
			return true;
	}
	return false;
}

/* One that is not mapped yet will be looked at when it is. */
static int look_at(const struct process *process, const struct image *image, struct python *python)
{
	struct symbols symbols;
	uint64_t bias;
	int err;

	if (is_looked_at(python, image) || !find_bias(process, image, &bias))
		return 0;
	err = vec_push(&python->looked_at, image);
	if (!err)
		err = find_symbols(image, &symbols);
	if (err || !symbols.runtime || !symbols.version || !symbols.code_type ||
	    !choose_layout(image, &symbols, python))
		return err;
	python->image = image;
	python->target.runtime = symbols.runtime + bias;
	python->code_type = symbols.code_type + bias;
	return 0;
}

int python_look(const struct process *process, struct python **out)
{
	struct python *python = *out;
	int err = 0;

	if (!python)
		python = calloc(1, sizeof(*python));
	if (!python)
		return -ENOMEM;
	*out = python;
	for (size_t i = 0; !err && !python->target.runtime && i < process->images.count; i++)
		err = look_at(process, process->images.items[i], python);
	return err;
}

static void code_deinit(struct code *code)
{
	free(code->name);
	free(code->file);
	free(code->line_table);
}

void python_free(struct python *python)
{
	if (!python)
		return;
	vec_for_each(code, &python->codes)
		code_deinit(code);
	free(python->codes.items);
	free(python->looked_at.items);
	hash_index_deinit(&python->index);
	free(python);
}

const struct python_target *python_target(const struct python *python)
{
	return &python->target;
}

/* --- what it is called --- */

static uint64_t code_address(uint64_t frame)
{
	return (frame & ~FRAME_PYTHON) >> PYTHON_UNIT_BITS << 4;
}

/* Of a frame that is known; NULL: it is not. */
static const struct code *find_code(const struct python *python, uint64_t frame)
{
	uint64_t number = (frame & ~(FRAME_PYTHON | FRAME_PYTHON_KNOWN)) >> PYTHON_UNIT_BITS;

	return frame & FRAME_PYTHON_KNOWN && number < python->codes.count
		       ? &python->codes.items[number]
		       : NULL;
}

const struct image *python_image(const struct python *python)
{
	return python->image;
}

uint64_t python_address(const struct python *python, uint64_t frame)
{
	const struct code *code = find_code(python, frame);

	return (code ? code->identity.address : code_address(frame)) + python->target.code_start +
	       2 * (frame & PYTHON_UNIT_MAX);
}

static char *put_utf8(char *to, uint32_t code)
{
	if (code < 0x80) {
		*to++ = (char)code;
	} else if (code < 0x800) {
		*to++ = (char)(0xc0 | code >> 6);
		*to++ = (char)(0x80 | (code & 0x3f));
	} else if (code < 0x10000) {
		*to++ = (char)(0xe0 | code >> 12);
		*to++ = (char)(0x80 | (code >> 6 & 0x3f));
		*to++ = (char)(0x80 | (code & 0x3f));
	} else {
		*to++ = (char)(0xf0 | (code >> 18 & 7));
		*to++ = (char)(0x80 | (code >> 12 & 0x3f));
		*to++ = (char)(0x80 | (code >> 6 & 0x3f));
		*to++ = (char)(0x80 | (code & 0x3f));
	}
	return to;
}

/* A str, its first characters, in UTF-8. NULL: unreadable. */
static char *read_text(const struct process *process, const struct code_layout *layout,
		       uint64_t address)
{
	uint8_t raw[4 * NAME_CHARACTERS_MAX];
	char text[4 * NAME_CHARACTERS_MAX + 1], *to = text;
	uint64_t length;
	uint32_t state, width;
	bool ascii;

	if (!read_word(process, address + layout->text_length, &length) ||
	    !read_memory(process, address + layout->text_state, &state, sizeof(state)))
		return NULL;
	width = state >> 2 & 7;
	ascii = state >> 6 & 1;
	if (!(state >> 5 & 1) || (width != 1 && width != 2 && width != 4))
		return NULL;
	if (length > NAME_CHARACTERS_MAX)
		length = NAME_CHARACTERS_MAX;
	if (!read_memory(process, address + (ascii ? layout->text_data : layout->text_wide_data),
			 raw, length * width))
		return NULL;
	for (size_t i = 0; i < length; i++) {
		uint32_t code = 0;

		memcpy(&code, raw + i * width, width);
		to = put_utf8(to, code);
	}
	*to = '\0';
	return strdup(text);
}

static void read_line_table(const struct process *process, const struct code_layout *layout,
			    uint64_t address, struct code *code)
{
	uint64_t size;

	if (!read_word(process, address + layout->bytes_size, &size) || size > LINE_TABLE_MAX)
		return;
	code->line_table = malloc(size + 1);
	if (code->line_table &&
	    read_memory(process, address + layout->bytes_data, code->line_table, size))
		code->line_table_size = size;
}

static bool read_identity(const struct process *process, const struct python *python,
			  uint64_t address, struct identity *out)
{
	out->address = address;
	return read_memory(process, address + python->target.code_identity, out->parts,
			   sizeof(out->parts));
}

/* False: it is another by now, or none. */
static bool read_code(const struct process *process, const struct python *python, struct code *code)
{
	const struct code_layout *layout = &python->layout;
	const struct identity *identity = &code->identity;
	struct identity now;
	uint64_t type, file;

	if (!read_word(process, identity->address + layout->type, &type) ||
	    type != python->code_type ||
	    !read_word(process, identity->address + layout->file, &file) ||
	    !read_memory(process, identity->address + layout->first_line, &code->first_line,
			 sizeof(code->first_line)))
		return false;
	code->name = read_text(process, layout, identity->parts[0]);
	code->file = read_text(process, layout, file);
	read_line_table(process, layout, identity->parts[1], code);
	return code->name && *code->name && code->file &&
	       read_identity(process, python, identity->address, &now) &&
	       !memcmp(&now, identity, sizeof(now));
}

static bool code_equal(const void *owner, uint32_t index, const void *key)
{
	return !memcmp(&((const struct python *)owner)->codes.items[index].identity, key,
		       sizeof(struct identity));
}

/* The number of a code object, which is read if it is not known yet. False: it cannot be. */
static bool learn(struct python *python, const struct process *process,
		  const struct identity *identity, uint32_t *number)
{
	uint64_t hash = hash_bytes(HASH_START, identity, sizeof(*identity));
	struct code code = {.identity = *identity};

	if (hash_index_find(&python->index, hash, code_equal, python, identity, number))
		return true;
	if (python->codes.count >= PYTHON_CODES_MAX)
		return false;
	if (!read_code(process, python, &code) || hash_index_reserve(&python->index) ||
	    vec_push(&python->codes, code)) {
		code_deinit(&code);
		return false;
	}
	*number = (uint32_t)python->codes.count - 1;
	hash_index_add(&python->index, hash, *number);
	return true;
}

/* Which code objects a stack's frames are of, now. False: unreadable. */
static bool read_identities(const struct process *process, const struct python *python,
			    const struct stack *stack, struct identity identities[MAX_FRAMES])
{
	struct iovec local[MAX_FRAMES], remote[MAX_FRAMES];
	size_t count = 0;

	for (size_t i = 0; i < stack->frame_count; i++) {
		struct identity *identity = &identities[i];

		if (!(stack->frames[i] & FRAME_PYTHON))
			continue;
		identity->address = code_address(stack->frames[i]);
		local[count] = (struct iovec){identity->parts, sizeof(identity->parts)};
		remote[count++] = (struct iovec){
			(void *)(uintptr_t)(identity->address + python->target.code_identity),
			sizeof(identity->parts)};
	}
	return process_vm_readv(process->pid, local, count, remote, count, 0) ==
	       (ssize_t)(count * sizeof(identities->parts));
}

bool python_resolve(struct python *python, const struct process *process, uint64_t seed,
		    uint64_t key, struct stack *stack)
{
	struct identity identities[MAX_FRAMES];
	struct stack resolved = *stack;
	uint64_t hash = seed;

	if (stack->frame_count > MAX_FRAMES || process_has_ended(process) ||
	    !read_identities(process, python, stack, identities))
		return false;
	for (size_t i = 0; i < stack->frame_count; i++) {
		hash = stack_mix(hash, stack->frames[i]);
		if (stack->frames[i] & FRAME_PYTHON)
			hash = stack_mix(stack_mix(hash, identities[i].parts[0]),
					 identities[i].parts[1]);
	}
	if (stack_key(hash) != key)
		return false;
	for (size_t i = 0; i < stack->frame_count; i++) {
		uint32_t number;

		if (!(stack->frames[i] & FRAME_PYTHON))
			continue;
		if (!learn(python, process, &identities[i], &number))
			return false;
		resolved.frames[i] = FRAME_PYTHON | FRAME_PYTHON_KNOWN |
				     (uint64_t)number << PYTHON_UNIT_BITS |
				     (stack->frames[i] & PYTHON_UNIT_MAX);
	}
	*stack = resolved;
	return true;
}

size_t python_count(const struct python *python)
{
	return python->codes.count;
}

/* Objects/locations.md of CPython: six bits to a byte, the lowest first. */
static uint32_t read_varint(struct reader *reader)
{
	uint32_t value = 0, byte;
	unsigned int shift = 0;

	do {
		byte = reader_u8(reader);
		if (shift < 32)
			value |= (byte & 63) << shift;
		shift += 6;
	} while (byte & 64 && !reader->failed);
	return value;
}

static int64_t read_signed_varint(struct reader *reader)
{
	uint32_t value = read_varint(reader);

	return value & 1 ? -(int64_t)(value >> 1) : (int64_t)(value >> 1);
}

/* The line of a code unit; 0: unknown. */
static uint32_t find_line(const struct code *code, uint32_t unit)
{
	struct reader reader = reader_new(code->line_table, code->line_table_size);
	int64_t line = code->first_line;
	uint32_t units = 0;

	while (reader_left(&reader)) {
		uint8_t first = reader_u8(&reader), kind = first >> 3 & 15;
		bool none = kind == 15;

		if (kind < 10) {
			reader_u8(&reader);
		} else if (kind < 13) {
			line += kind - 10;
			reader_bytes(&reader, 2);
		} else if (!none) {
			line += read_signed_varint(&reader);
			for (int i = 0; kind == 14 && i < 3; i++)
				read_varint(&reader);
		}
		units += (first & 7) + 1U;
		if (reader.failed)
			return 0;
		if (unit < units)
			return none || line < 0 || line > INT32_MAX ? 0 : (uint32_t)line;
	}
	return 0;
}

bool python_name(const struct python *python, uint64_t frame, struct python_function *out)
{
	const struct code *code = find_code(python, frame);

	if (!code)
		return false;
	*out = (struct python_function){
		.name = code->name,
		.file = code->file,
		.first_line = code->first_line,
		.line = find_line(code, (uint32_t)(frame & PYTHON_UNIT_MAX)),
	};
	return true;
}
