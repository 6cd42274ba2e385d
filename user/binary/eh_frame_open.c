/*
 * Where an image keeps its call frame information, and where its code is: from a file to the bytes
 * that eh_frame.c reads.
 */
#include <dwarf.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>

#include "binary/eh_frame.h"
#include "util/cleanup.h"

static int compare_ranges(const void *left, const void *right)
{
	const struct eh_frame_range *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

struct text {
	struct eh_frame_range *items; /* owned */
	size_t count;
};

static void cleanup_text(struct text *text)
{
	free(text->items);
}

/* The executable segments' parts that are in the file, sorted, what overlaps cut off. */
static int collect_text(const struct image *image, struct text *text)
{
	size_t kept = 0;

	text->items = calloc(image->segment_count + 1, sizeof(*text->items));
	if (!text->items)
		return -ENOMEM;
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];

		if (segment->executable && segment->file_size)
			text->items[text->count++] = (struct eh_frame_range){
				segment->vaddr, segment->vaddr + segment->file_size};
	}
	qsort(text->items, text->count, sizeof(*text->items), compare_ranges);
	for (size_t i = 0; i < text->count; i++) {
		struct eh_frame_range range = text->items[i];

		if (kept && range.start < text->items[kept - 1].end)
			range.start = text->items[kept - 1].end;
		if (range.start < range.end)
			text->items[kept++] = range;
	}
	text->count = kept;
	return 0;
}

/* File bytes from vaddr to the end of its segment. */
static size_t bytes_from(const struct image *image, uint64_t vaddr)
{
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];

		if (vaddr >= segment->vaddr && vaddr - segment->vaddr < segment->file_size) {
			uint64_t left = segment->file_size - (vaddr - segment->vaddr);

			return left < EH_FRAME_SIZE_MAX ? (size_t)left : EH_FRAME_SIZE_MAX;
		}
	}
	return 0;
}

/*
 * PT_GNU_EH_FRAME: version 1, three encodings, then the pointer to .eh_frame. Its size is in
 * neither: a terminating 0 length ends it (reading on would be into what lies behind).
 */
static int find_by_header(const struct image *image, uint64_t *vaddr)
{
	uint8_t header[4 + sizeof(uint64_t)];
	size_t count;

	if (elf_getphdrnum(image_elf(image), &count))
		return -ENOEXEC;
	for (size_t i = 0; i < count && i < IMAGE_SEGMENTS_MAX; i++) {
		struct cfi_base base = {.data = header};
		struct reader r;
		GElf_Phdr phdr;
		uint8_t encoding;
		size_t size = sizeof(header);
		int err;

		if (!gelf_getphdr(image_elf(image), (int)i, &phdr) ||
		    phdr.p_type != PT_GNU_EH_FRAME)
			continue;
		if (bytes_from(image, phdr.p_vaddr) < size)
			size = 8;
		err = image_read(image, phdr.p_vaddr, header, size);
		if (err)
			return err == -ERANGE ? -ENOENT : err;
		r = reader_new(header, size);
		base.vaddr = base.data_rel = phdr.p_vaddr;
		if (reader_u8(&r) != 1)
			return -ENOENT;
		encoding = reader_u8(&r);
		reader_bytes(&r, 2);
		return cfi_read_pointer(&r, encoding, &base, vaddr) ? -ENOENT : 0;
	}
	return -ENOENT;
}

/* Up to the terminating record; the whole where there is none. */
static size_t size_to_terminator(const uint8_t *data, size_t size)
{
	struct reader r = reader_new(data, size);

	for (;;) {
		uint64_t length = reader_u32(&r);

		if (length == UINT32_MAX)
			length = reader_u64(&r);
		if (r.failed || length > reader_left(&r))
			return size;
		if (!length)
			return reader_offset(&r);
		reader_bytes(&r, (size_t)length);
	}
}

static int read_by_header(const struct image *image, struct eh_frame_section *section)
{
	CLEANUP(cleanup_free) uint8_t *bytes = NULL;
	uint64_t vaddr;
	size_t length;
	int err = find_by_header(image, &vaddr);

	if (err)
		return err;
	length = bytes_from(image, vaddr);
	if (!length)
		return -ENOENT;
	bytes = malloc(length);
	if (!bytes)
		return -ENOMEM;
	err = image_read(image, vaddr, bytes, length);
	if (err)
		return err;
	section->size = size_to_terminator(bytes, length);
	section->vaddr = vaddr;
	section->data = section->owned = TAKE(bytes);
	return 0;
}

static int read_by_name(const struct image *image, const char *name,
			struct eh_frame_section *section)
{
	int err = image_section(image, name, EH_FRAME_SIZE_MAX, &section->owned, &section->size,
				&section->vaddr);

	if (!err)
		section->data = section->owned;
	return err;
}

int eh_frame_open(const struct image *image, struct eh_frame **out)
{
	CLEANUP(cleanup_text) struct text text = {0};
	struct eh_frame_section sections[2] = {0};
	size_t count = 0;
	int err = collect_text(image, &text);

	if (err)
		return err;
	err = read_by_name(image, ".eh_frame", &sections[count]);
	/* Also where the section table is broken: the loader does not look at it. */
	if (err && err != -ENOMEM && !read_by_header(image, &sections[count]))
		err = 0;
	count += !err;
	if (!read_by_name(image, ".debug_frame", &sections[count]))
		sections[count++].debug_frame = true;
	if (!count)
		return err;
	return eh_frame_new(sections, count, image->machine, text.items, text.count, out);
}

int eh_frame_of_text(const struct image *image, struct eh_frame **out)
{
	CLEANUP(cleanup_text) struct text text = {0};
	int err = collect_text(image, &text);

	return err ? err : eh_frame_new(NULL, 0, image->machine, text.items, text.count, out);
}
