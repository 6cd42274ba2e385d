/*
 * Opening and reading ELF files that somebody else wrote, perhaps in bad faith.
 *
 * The program headers are read and checked here, once, and kept as a plain table: they decide what
 * an address means, so nothing about them is left to chance. Section headers are a convenience that
 * may be missing or wrong; libelf reads them, and each use checks what it uses. Contents are read
 * with pread into memory of our own, each under a limit: neither the sizes that a file states nor a
 * file that shrinks meanwhile can do more than fail the read.
 */
#include "binary/image.h"

#include "util/cleanup.h"
#include "util/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define NOTES_MAX	 (64 * 1024)  /* bytes of one note segment or section */
#define SYMBOL_BYTES_MAX (1ull << 30) /* of one symbol table, and of one string table */
#define SYMBOL_NAME_MAX	 (64 * 1024)  /* bytes; symbols with longer names are passed over */
#define NAME_BYTES_MAX	 (4ull << 30) /* scanned in one pass: names that share a tail add up */

static int read_at(int fd, void *to, size_t n, uint64_t offset)
{
	uint8_t *at = to;

	if (offset > INT64_MAX || n > INT64_MAX - offset)
		return -EIO;
	while (n) {
		ssize_t got = pread(fd, at, n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -EIO;
		at += got;
		offset += (uint64_t)got;
		n -= (size_t)got;
	}
	return 0;
}

/* n bytes at offset, in memory that the caller frees, with a NUL behind them. */
static int read_new(const struct image *image, uint64_t offset, uint64_t n, uint64_t max,
		    uint8_t **out)
{
	CLEANUP(cleanup_free) uint8_t *bytes = NULL;
	int err;

	/* Before any memory is taken: a file that cannot hold them is not worth the attempt. */
	if (n > image->size || offset > image->size - n)
		return -EIO;
	if (n > max)
		return -E2BIG;
	bytes = malloc(n + 1);
	if (!bytes)
		return -ENOMEM;
	err = read_at(image->fd, bytes, n, offset);
	if (err)
		return err;
	bytes[n] = 0;
	*out = TAKE(bytes);
	return 0;
}

/* --- opening --- */

static int check_header(const struct image *image, const Elf64_Ehdr *ehdr)
{
	uint64_t sections = ehdr->e_shnum;

	if (memcmp(ehdr->e_ident, ELFMAG, SELFMAG) || ehdr->e_ident[EI_CLASS] != ELFCLASS64 ||
	    ehdr->e_ident[EI_DATA] != ELFDATA2LSB || ehdr->e_ident[EI_VERSION] != EV_CURRENT)
		return -ENOEXEC;
	/* ET_REL: what dwz moves out of several files' debug information. */
	if (ehdr->e_type != ET_EXEC && ehdr->e_type != ET_DYN && ehdr->e_type != ET_REL)
		return -ENOEXEC;
	if (ehdr->e_phnum && ehdr->e_phentsize != sizeof(Elf64_Phdr))
		return -ENOEXEC;
	if (ehdr->e_phnum > IMAGE_SEGMENTS_MAX)
		return -E2BIG;
	/* More than 65 279 sections are counted in the first one's size; libelf would believe it.
	 */
	if (!sections && ehdr->e_shoff) {
		Elf64_Shdr first;

		if (read_at(image->fd, &first, sizeof(first), ehdr->e_shoff) == 0)
			sections = first.sh_size;
	}
	return sections > IMAGE_SECTIONS_MAX ? -E2BIG : 0;
}

static bool segment_from_phdr(const Elf64_Phdr *phdr, struct image_segment *segment)
{
	uint64_t end;

	if (phdr->p_filesz > phdr->p_memsz ||
	    __builtin_add_overflow(phdr->p_vaddr, phdr->p_memsz, &end) ||
	    __builtin_add_overflow(phdr->p_offset, phdr->p_filesz, &end) || end > INT64_MAX)
		return false;
	*segment = (struct image_segment){
		.vaddr = phdr->p_vaddr,
		.offset = phdr->p_offset,
		.file_size = phdr->p_filesz,
		.mem_size = phdr->p_memsz,
		.executable = phdr->p_flags & PF_X,
	};
	return true;
}

/* Finds the build id in one run of notes. */
static bool read_build_id(struct image *image, uint64_t offset, uint64_t size, uint64_t align)
{
	CLEANUP(cleanup_free) uint8_t *bytes = NULL;
	struct reader r;

	if (size > NOTES_MAX)
		size = NOTES_MAX;
	if (read_new(image, offset, size, NOTES_MAX, &bytes))
		return false;
	align = align == 8 ? 8 : 4;
	r = reader_new(bytes, size);
	while (reader_left(&r) >= sizeof(Elf64_Nhdr)) {
		uint32_t name_size = reader_u32(&r), desc_size = reader_u32(&r);
		uint32_t type = reader_u32(&r);
		const uint8_t *name = reader_bytes(&r, name_size), *desc;

		reader_seek(&r, (reader_offset(&r) + align - 1) & -align);
		desc = reader_bytes(&r, desc_size);
		if (!name || !desc)
			return false;
		if (type == NT_GNU_BUILD_ID && name_size == 4 && !memcmp(name, "GNU", 4) &&
		    desc_size && desc_size <= IMAGE_BUILD_ID_MAX) {
			memcpy(image->build_id, desc, desc_size);
			image->build_id_len = desc_size;
			return true;
		}
		reader_seek(&r, (reader_offset(&r) + align - 1) & -align);
	}
	return false;
}

static int note_section(const struct image_section_info *section, void *context)
{
	const GElf_Shdr *header = &section->header;

	return header->sh_type == SHT_NOTE &&
	       read_build_id(context, header->sh_offset, header->sh_size, header->sh_addralign);
}

/* Segments, and the build id out of the note segments. */
static int read_segments(struct image *image, const Elf64_Ehdr *ehdr)
{
	CLEANUP(cleanup_free) Elf64_Phdr *phdrs = NULL;
	int err;

	if (!ehdr->e_phnum)
		return 0;
	phdrs = calloc(ehdr->e_phnum, sizeof(*phdrs));
	image->segments = calloc(ehdr->e_phnum, sizeof(*image->segments));
	if (!phdrs || !image->segments)
		return -ENOMEM;
	err = read_at(image->fd, phdrs, ehdr->e_phnum * sizeof(*phdrs), ehdr->e_phoff);
	if (err)
		return err == -EIO ? -ENOEXEC : err;
	for (size_t i = 0; i < ehdr->e_phnum; i++) {
		if (phdrs[i].p_type == PT_LOAD) {
			if (!segment_from_phdr(&phdrs[i], &image->segments[image->segment_count]))
				return -ENOEXEC;
			image->segment_count++;
		} else if (phdrs[i].p_type == PT_NOTE && !image->build_id_len) {
			read_build_id(image, phdrs[i].p_offset, phdrs[i].p_filesz,
				      phdrs[i].p_align);
		}
	}
	return 0;
}

Elf *image_elf(const struct image *image)
{
	Elf **elf = (Elf **)&image->elf; /* a cache */

	if (*elf)
		return *elf;
	elf_version(EV_CURRENT);
	*elf = elf_begin(image->fd, ELF_C_READ, NULL);
	if (*elf && elf_kind(*elf) != ELF_K_ELF) {
		elf_end(*elf);
		*elf = NULL;
	}
	return *elf;
}

void image_rest(struct image *image)
{
	elf_end(image->elf);
	image->elf = NULL;
}

static int open_elf(struct image *image)
{
	Elf64_Ehdr ehdr;
	int err;

	err = read_at(image->fd, &ehdr, sizeof(ehdr), 0);
	if (err)
		return err == -EIO ? -ENOEXEC : err;
	err = check_header(image, &ehdr);
	if (err)
		return err;
	image->machine = ehdr.e_machine;
	image->is_exec = ehdr.e_type == ET_EXEC;
	err = read_segments(image, &ehdr);
	if (err)
		return err;
	if (!image_elf(image))
		return -ENOEXEC;
	/* Linkers can be told to leave the note without a segment of its own. */
	if (!image->build_id_len)
		image_for_each_section(image, note_section, image);
	return 0;
}

int image_open(int fd, const char *path, struct image **out)
{
	struct image *image;
	struct stat st;
	int err = 0;

	image = calloc(1, sizeof(*image));
	if (!image) {
		close(fd);
		return -ENOMEM;
	}
	image->fd = fd;
	image->root = IMAGE_ROOT_OURS;
	image->path = strdup(path);
	if (!image->path)
		err = -ENOMEM;
	else if (fstat(fd, &st))
		err = -errno;
	else if (!S_ISREG(st.st_mode))
		err = -EINVAL;
	if (!err) {
		image->dev = st.st_dev;
		image->inode = image->file_inode = st.st_ino;
		image->size = (uint64_t)st.st_size;
		err = open_elf(image);
	}
	if (err) {
		image_free(image);
		return err;
	}
	*out = image;
	return 0;
}

void image_free(struct image *image)
{
	if (!image)
		return;
	elf_end(image->elf);
	if (image->fd >= 0)
		close(image->fd);
	free(image->segments);
	free(image->path);
	free(image);
}

/* --- addresses --- */

int image_compare_files(const struct image *a, const struct image *b)
{
	if (a->file_inode != b->file_inode)
		return a->file_inode < b->file_inode ? -1 : 1;
	if (a->dev != b->dev)
		return a->dev < b->dev ? -1 : 1;
	return a->size < b->size ? -1 : a->size > b->size;
}

bool image_offset_to_vaddr(const struct image *image, uint64_t offset, uint64_t *vaddr)
{
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];

		if (offset >= segment->offset && offset - segment->offset < segment->file_size) {
			*vaddr = segment->vaddr + (offset - segment->offset);
			return true;
		}
	}
	return false;
}

/* The segment whose file part holds n bytes at vaddr, n > 0. */
static const struct image_segment *segment_of(const struct image *image, uint64_t vaddr, uint64_t n)
{
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];

		if (vaddr >= segment->vaddr && vaddr - segment->vaddr < segment->file_size &&
		    n <= segment->file_size - (vaddr - segment->vaddr))
			return segment;
	}
	return NULL;
}

bool image_vaddr_to_offset(const struct image *image, uint64_t vaddr, uint64_t *offset)
{
	const struct image_segment *segment = segment_of(image, vaddr, 1);

	if (!segment)
		return false;
	*offset = segment->offset + (vaddr - segment->vaddr);
	return true;
}

bool image_bias(const struct image *image, uint64_t start, uint64_t offset, uint64_t *bias)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), vaddr;
	const struct image_segment *found = NULL;

	/* Of two that share the page, the mapping that begins with it is the latter's. */
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];

		if (segment->executable && offset >= segment->offset / page * page &&
		    offset < segment->offset + segment->file_size)
			found = segment;
	}
	if (found)
		vaddr = found->vaddr - found->offset + offset;
	else if (!image_offset_to_vaddr(image, offset, &vaddr)) /* made executable since */
		return false;
	*bias = start - vaddr;
	return true;
}

int image_read(const struct image *image, uint64_t vaddr, void *to, size_t n)
{
	const struct image_segment *segment = segment_of(image, vaddr, n ? n : 1);

	if (!segment)
		return -ERANGE;
	return read_at(image->fd, to, n, segment->offset + (vaddr - segment->vaddr));
}

/* --- sections --- */

/* What the contents come to in memory. */
static uint64_t section_size(const struct image *image, const struct image_section_info *section)
{
	const GElf_Shdr *header = &section->header;
	uint8_t gnu[12];
	Elf64_Chdr chdr;

	if (header->sh_type == SHT_NOBITS)
		return 0;
	if (header->sh_flags & SHF_COMPRESSED) {
		if (header->sh_size >= sizeof(chdr) &&
		    !read_at(image->fd, &chdr, sizeof(chdr), header->sh_offset))
			return chdr.ch_size;
	} else if (!strncmp(section->name, ".zdebug", 7) && header->sh_size >= sizeof(gnu)) {
		/* How debug sections were compressed before ELF had a flag for it. */
		uint64_t size;

		if (!read_at(image->fd, gnu, sizeof(gnu), header->sh_offset) &&
		    !memcmp(gnu, "ZLIB", 4)) {
			memcpy(&size, gnu + 4, sizeof(size));
			return __builtin_bswap64(size);
		}
	}
	return header->sh_size;
}

/*
 * Names are read one by one: elf_strptr() scans a string table to its last NUL for each, which a
 * hostile table makes long.
 */
static void section_name(const struct image *image, const GElf_Shdr *names, GElf_Word at, char *to,
			 size_t size)
{
	uint64_t left;

	memset(to, 0, size);
	if (at >= names->sh_size || names->sh_offset > image->size)
		return;
	left = names->sh_size - at;
	if (left > size - 1)
		left = size - 1;
	if (at > image->size - names->sh_offset)
		return;
	if (left > image->size - names->sh_offset - at)
		left = image->size - names->sh_offset - at;
	if (read_at(image->fd, to, left, names->sh_offset + at))
		memset(to, 0, size);
}

int image_for_each_section(const struct image *image,
			   int (*visit)(const struct image_section_info *section, void *context),
			   void *context)
{
	Elf *elf = image_elf(image);
	GElf_Shdr names = {0};
	Elf_Scn *scn = NULL;
	size_t names_index;
	int ret;

	if (elf_getshdrstrndx(elf, &names_index) == 0)
		scn = elf_getscn(elf, names_index);
	if (!scn || !gelf_getshdr(scn, &names) || names.sh_type == SHT_NOBITS)
		names = (GElf_Shdr){0};
	scn = NULL;
	while ((scn = elf_nextscn(elf, scn))) {
		struct image_section_info section = {.index = (uint32_t)elf_ndxscn(scn)};

		if (!gelf_getshdr(scn, &section.header))
			continue;
		section_name(image, &names, section.header.sh_name, section.name,
			     sizeof(section.name));
		section.size = section_size(image, &section);
		ret = visit(&section, context);
		if (ret)
			return ret;
	}
	return 0;
}

struct section_search {
	const char *name;
	struct image_section_info found;
};

static int match_section(const struct image_section_info *section, void *context)
{
	struct section_search *search = context;

	if (section->header.sh_type == SHT_NOBITS || strcmp(section->name, search->name))
		return 0;
	search->found = *section;
	return 1;
}

/* packed begins with an Elf64_Chdr. */
static int decompress(const uint8_t *packed, size_t packed_size, size_t max_size, uint8_t **data,
		      size_t *size)
{
	CLEANUP(cleanup_free) uint8_t *bytes = NULL;
	Elf64_Chdr chdr;
	uLongf written;

	if (packed_size < sizeof(chdr))
		return -EIO;
	memcpy(&chdr, packed, sizeof(chdr));
	if (chdr.ch_type != ELFCOMPRESS_ZLIB)
		return -EIO;
	if (chdr.ch_size > max_size)
		return -E2BIG;
	bytes = malloc(chdr.ch_size + 1);
	if (!bytes)
		return -ENOMEM;
	written = chdr.ch_size;
	if (uncompress(bytes, &written, packed + sizeof(chdr), packed_size - sizeof(chdr)) !=
		    Z_OK ||
	    written != chdr.ch_size)
		return -EIO;
	bytes[written] = 0;
	*data = TAKE(bytes);
	*size = chdr.ch_size;
	return 0;
}

int image_section(const struct image *image, const char *name, size_t max_size, uint8_t **data,
		  size_t *size, uint64_t *vaddr)
{
	struct section_search search = {.name = name};
	const GElf_Shdr *header = &search.found.header;
	CLEANUP(cleanup_free) uint8_t *bytes = NULL;
	size_t bytes_size;
	int err;

	if (!image_for_each_section(image, match_section, &search))
		return -ENOENT;
	if (search.found.size > max_size)
		return -E2BIG;
	/* Compressed bytes may be a few more than what they decompress to; the file bounds them. */
	err = read_new(image, header->sh_offset, header->sh_size, UINT32_MAX, &bytes);
	if (err)
		return err;
	bytes_size = header->sh_size;
	if (header->sh_flags & SHF_COMPRESSED) {
		CLEANUP(cleanup_free) uint8_t *packed = TAKE(bytes);

		err = decompress(packed, bytes_size, max_size, &bytes, &bytes_size);
		if (err)
			return err;
	}
	*data = TAKE(bytes);
	*size = bytes_size;
	*vaddr = header->sh_addr;
	return 0;
}

/* --- symbols --- */

struct symbol_visit {
	const struct image *image;
	int (*visit)(const struct image_symbol *symbol, void *context);
	void *context;
	GElf_Word type; /* of the table to be read in this pass */
	bool found; /* a file has one of each type; a hostile one, thousands with the same bytes */
	uint64_t name_bytes;
};

static int visit_symbol(struct symbol_visit *v, const Elf64_Sym *sym, char *strings,
			size_t strings_size)
{
	unsigned int type = ELF64_ST_TYPE(sym->st_info);
	struct image_symbol symbol;
	char *name, *version;
	size_t length;
	int ret;

	if ((type != STT_FUNC && type != STT_GNU_IFUNC) || sym->st_shndx == SHN_UNDEF)
		return 0;
	if (sym->st_name >= strings_size || !strings[sym->st_name])
		return 0;
	name = strings + sym->st_name;
	length = strnlen(name, SYMBOL_NAME_MAX + 1);
	v->name_bytes += length;
	if (v->name_bytes > NAME_BYTES_MAX)
		return -E2BIG;
	if (length > SYMBOL_NAME_MAX)
		return 0;
	symbol = (struct image_symbol){
		.name = name,
		.vaddr = sym->st_value,
		.size = sym->st_size,
		.section = sym->st_shndx < SHN_LORESERVE ? sym->st_shndx : 0,
		.binding = ELF64_ST_BIND(sym->st_info),
		.dynamic = v->type == SHT_DYNSYM,
	};
	/* Linkers write malloc@@GLIBC_2.2.5 into .symtab. Names may share their tails: put it back.
	 */
	version = memchr(name + 1, '@', length - 1);
	if (version)
		*version = 0;
	ret = v->visit(&symbol, v->context);
	if (version)
		*version = '@';
	return ret;
}

static int visit_table(const struct image_section_info *section, void *context)
{
	struct symbol_visit *v = context;
	const GElf_Shdr *header = &section->header;
	CLEANUP(cleanup_free) uint8_t *symbols = NULL, *strings = NULL;
	GElf_Shdr strings_header;
	Elf_Scn *scn;
	int ret;

	if (header->sh_type != v->type || v->found)
		return 0;
	v->found = true;
	if (header->sh_entsize != sizeof(Elf64_Sym) || header->sh_flags & SHF_COMPRESSED)
		return -ENOEXEC;
	scn = elf_getscn(image_elf(v->image), header->sh_link);
	if (!scn || !gelf_getshdr(scn, &strings_header) || strings_header.sh_type != SHT_STRTAB)
		return -ENOEXEC;
	ret = read_new(v->image, header->sh_offset, header->sh_size, SYMBOL_BYTES_MAX, &symbols);
	if (!ret)
		ret = read_new(v->image, strings_header.sh_offset, strings_header.sh_size,
			       SYMBOL_BYTES_MAX, &strings);
	for (uint64_t i = 0; !ret && i < header->sh_size / sizeof(Elf64_Sym); i++) {
		Elf64_Sym sym;

		memcpy(&sym, symbols + i * sizeof(sym), sizeof(sym));
		ret = visit_symbol(v, &sym, (char *)strings, strings_header.sh_size);
	}
	return ret;
}

int image_for_each_function(const struct image *image,
			    int (*visit)(const struct image_symbol *symbol, void *context),
			    void *context)
{
	struct symbol_visit v = {.image = image, .visit = visit, .context = context};
	int ret;

	v.type = SHT_DYNSYM;
	ret = image_for_each_section(image, visit_table, &v);
	if (ret)
		return ret;
	v.type = SHT_SYMTAB;
	v.found = false;
	return image_for_each_section(image, visit_table, &v);
}
